import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { PACKET_EVENT } from '../../../agent/wire/bpf/layout.ts'
import { layoutSource } from '../../../packaging/bpf-layout.ts'

test('layout.ts is what bpf/events.h says (else: node packaging/bpf-layout.ts)', () => {
  const file = new URL('../../../agent/wire/bpf/layout.ts', import.meta.url)
  assert.equal(readFileSync(file, 'utf8'), layoutSource())
})

test('the header begins at a word, in a ring buffer whose records do', () => {
  assert.equal(PACKET_EVENT.header % 8, 0)
})
