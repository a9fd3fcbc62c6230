import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { builtFile } from '../../agent/kernel/addon.ts'
import { BpfError, BpfObject, patiently, possibleCpus, tellingLine } from '../../agent/kernel/bpf-object.ts'
import { PORT_STATE } from '../../agent/wire/bpf/layout.ts'

const bytes = readFileSync(builtFile('bpf/sample.bpf.o'))
const load = () => BpfObject.load({ name: 'sample.bpf.o', bytes })
const key = (ifIndex: number) => new Uint8Array(Uint32Array.of(ifIndex).buffer)

/** An object that the verifier does not let in: it reads memory that it was not given. */
const REFUSED = `
#define SEC(name) __attribute__((section(name), used))
SEC("tc") int reader(void *packet) { return *(volatile int *)*(volatile long *)packet; }
char licence[] SEC("license") = "GPL";
`

describe('a refused object', () => {
  test('the message has the line of the verifier that tells most, the error the whole log', async () => {
    const options = ['-target', 'bpf', '-O2', '-g', '-x', 'c', '-c', '-o', '-', '-']
    const refused = execFileSync('clang-14', options, { input: REFUSED })
    await assert.rejects(BpfObject.load({ name: 'refused.o', bytes: refused }), error => {
      assert.ok(error instanceof BpfError)
      assert.match(
        error.message,
        /^load refused\.o: EACCES \(permission denied\): .*invalid bpf_context access/,
      )
      assert.match(error.log, /BEGIN PROG LOAD LOG/)
      return true
    })
  })

  test('what is no object', async () => {
    await assert.rejects(BpfObject.load({ name: 'text', bytes: Buffer.from('not an object') }), {
      name: 'BpfError',
      operation: 'read text',
    })
  })

  test('a section of another size', async () => {
    const constants = { '.rodata': new Uint8Array(3) }
    await assert.rejects(BpfObject.load({ name: 'sample.bpf.o', bytes, constants }), {
      code: 'EINVAL',
      operation: 'set .rodata of sample.bpf.o',
    })
  })

  test('a program that is not in it', async () => {
    await assert.rejects(BpfObject.load({ name: 'sample.bpf.o', bytes, without: ['nothing'] }), {
      code: 'ENOENT',
      operation: 'leave out nothing of sample.bpf.o',
    })
  })

  const LOGS: { name: string; log: string; line: string | undefined }[] = [
    { name: 'nothing', log: '', line: undefined },
    {
      name: 'libbpf alone',
      log: "libbpf: map 'events': failed to create: -EINVAL\nlibbpf: failed to load object\n",
      line: "map 'events': failed to create: -EINVAL",
    },
    {
      name: 'the verifier',
      log: `libbpf: prog 'p': BPF program load failed: -EACCES
libbpf: prog 'p': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
0: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0
-- END PROG LOAD LOG --
libbpf: prog 'p': failed to load: -EACCES
`,
      line: "R1 invalid mem access 'scalar'",
    },
    {
      name: 'the verifier says nothing',
      log: "libbpf: prog 'p': failed\nlibbpf: prog 'p': -- BEGIN PROG LOAD LOG --\n-- END PROG LOAD LOG --\n",
      line: "prog 'p': failed",
    },
  ]
  for (const { name, log, line } of LOGS) {
    test(`log: ${name}`, () => assert.equal(tellingLine(log), line))
  }
})

describe('maps', () => {
  test('entries are written, read and removed', async t => {
    const object = await load()
    t.after(() => object.close())
    const rates = new Uint8Array(8)
    assert.equal(object.lookup('rates', key(3), rates), false)
    object.update('rates', key(3), Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
    assert.equal(object.lookup('rates', key(3), rates), true)
    assert.deepEqual(rates, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
    assert.equal(object.remove('rates', key(3)), true)
    assert.equal(object.remove('rates', key(3)), false)
  })

  test('of a per-CPU map each CPU has its value', async t => {
    const object = await load()
    t.after(() => object.close())
    const VALUE_BYTES = PORT_STATE.bytes
    const values = new Uint8Array(VALUE_BYTES * possibleCpus()).map((_, i) => i / VALUE_BYTES + 1)
    object.update('ports', key(3), values)
    const read = new Uint8Array(values.length)
    assert.equal(object.lookup('ports', key(3), read), true)
    assert.deepEqual(read, values)
  })

  test('values of another size and maps of another name are refused', async t => {
    const object = await load()
    t.after(() => object.close())
    assert.throws(() => object.update('rates', key(3), new Uint8Array(7)), { code: 'EINVAL' })
    assert.throws(() => object.update('nothing', key(3), new Uint8Array(8)), { code: 'ENOENT' })
    assert.throws(() => object.entries('nothing'), { code: 'ENOENT' })
    assert.throws(() => object.memory('rates', 0, 4096, 'readable'), { name: 'SystemError' })
  })

  test('memory is shared with the kernel, and outlives the object', async () => {
    const object = await load()
    const written = new Uint32Array(object.memory('.data', 0, 8, 'writable'))
    const read = new Uint32Array(object.memory('.data', 0, 8, 'readable'))
    written[0] = 41
    assert.equal(read[0], 41)
    await object.close()
    written[0] = 42
    assert.equal(read[0], 42)
  })
})

describe('closed', () => {
  test('everything is refused, and closing again, too', async () => {
    const object = await load()
    await object.close()
    assert.throws(() => object.update('rates', key(3), new Uint8Array(8)), { code: 'EBADF' })
    assert.throws(() => object.arm(), { code: 'EBADF' })
    await assert.rejects(object.attachTcx('weir_ingress', 1), { code: 'EBADF' })
    await assert.rejects(object.close(), { code: 'EBADF' })
  })

  test('what was asked for before is done first', async () => {
    const object = await load()
    const nowhere = object.attachTcx('weir_ingress', 0x7fffffff)
    const closed = object.close()
    await assert.rejects(nowhere, { code: 'ENODEV' })
    await closed
  })
})

describe('an update for which the kernel has no memory', () => {
  const refusing = (times: number, errno: number) => {
    let attempts = 0
    const update = () => {
      if (++attempts <= times) throw new BpfError(errno, 'update rates', '')
    }
    return { update, attempts: () => attempts }
  }
  const [ENOMEM, E2BIG] = [12, 7]

  test('is done when it has some', async () => {
    const { update, attempts } = refusing(4, ENOMEM)
    await patiently(update)
    assert.equal(attempts(), 5)
  })

  test('is given up after a second or so', async () => {
    const { update } = refusing(Number.POSITIVE_INFINITY, ENOMEM)
    const start = performance.now()
    await assert.rejects(patiently(update), { code: 'ENOMEM' })
    const ms = performance.now() - start
    assert.ok(ms >= 1000 && ms < 5000, `${ms} ms`)
  })

  test('another error is told at once', async () => {
    const { update, attempts } = refusing(1, E2BIG)
    await assert.rejects(patiently(update), { code: 'E2BIG' })
    assert.equal(attempts(), 1)
  })
})
