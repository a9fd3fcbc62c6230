import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { builtFile } from '../../../agent/kernel/addon.ts'
import { elfSection, readStructs } from '../../../agent/wire/bpf/btf.ts'
import { PACKET_EVENT } from '../../../agent/wire/bpf/layout.ts'
import { layoutSource } from '../../../packaging/bpf-layout.ts'

test('layout.ts is what bpf/events.h says (else: node packaging/bpf-layout.ts)', () => {
  const file = new URL('../../../agent/wire/bpf/layout.ts', import.meta.url)
  assert.equal(readFileSync(file, 'utf8'), layoutSource())
})

test('the header begins at a word, in a ring buffer whose records do', () => {
  assert.equal(PACKET_EVENT.header % 8, 0)
})

test('the types of the running kernel can be read', () => {
  const structs = readStructs(readFileSync('/sys/kernel/btf/vmlinux'))
  const member = (struct: string, name: string) =>
    structs.get(struct)?.members.find(member => member.name === name)?.byteOffset
  // Part of the interface to user space (include/uapi/linux/bpf.h), so it never moves.
  assert.equal(member('__sk_buff', 'ifindex'), 40)
  assert.equal(member('__sk_buff', 'data'), 76)
  assert.equal(structs.get('ethhdr')?.bytes, 14)
})

test('what is no BTF and no ELF file is refused', () => {
  assert.throws(() => readStructs(new Uint8Array(24)), /^Error: not a BTF section$/)
  assert.throws(() => readStructs(new Uint8Array(3)), /^Error: not a BTF section$/)
  assert.throws(() => elfSection(new Uint8Array(64), '.BTF'), /^Error: not an ELF file$/)
  assert.equal(elfSection(readFileSync(builtFile('bpf/sample.bpf.o')), '.nothing'), undefined)
})
