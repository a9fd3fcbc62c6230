import assert from 'node:assert/strict'
import { describe, mock, test } from 'node:test'
import fc from 'fast-check'
import { Datagrams } from '../../agent/export/datagrams.ts'

const IPV4 = Uint8Array.of(192, 0, 2, 1)
const IPV6 = Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)

function datagrams(maxBytes = 1400, agentAddress = IPV4, flushMs = 250) {
  const sent: Uint8Array[] = []
  const calls: number[] = []
  const sink = (memory: ArrayBuffer, spans: Int32Array, count: number) => {
    calls.push(count)
    for (let i = 0; i < count; i++)
      sent.push(new Uint8Array(memory, spans[i * 2]!, spans[i * 2 + 1]!).slice())
  }
  const out = new Datagrams({ agentAddress, subAgentId: 100_000, maxBytes, flushMs }, sink, () => 2 ** 32 + 7)
  return { out, sent, calls }
}

/** Writes a sample of `bytes` bytes: format 0:3, its length, then `mark` in each word. */
function put(out: Datagrams, bytes: number, mark: number): boolean {
  const at = out.reserve(bytes)
  if (at < 0) return false
  out.view.setUint32(at, 3)
  out.view.setUint32(at + 4, bytes - 8)
  for (let i = 8; i < bytes; i += 4) out.view.setUint32(at + i, mark)
  out.commit(at + bytes)
  return true
}

/** The marks of the samples in a datagram. */
function marks(datagram: Uint8Array, headerBytes = 28): number[] {
  const view = new DataView(datagram.buffer)
  const found: number[] = []
  let at = headerBytes
  while (at < datagram.length) {
    found.push(view.getUint32(at + 8))
    at += 8 + view.getUint32(at + 4)
  }
  assert.equal(at, datagram.length)
  assert.equal(view.getUint32(headerBytes - 4), found.length)
  return found
}

describe('datagrams', () => {
  test('carry the fixed part of the standard: version, agent, sub-agent, sequence, uptime', () => {
    for (const [address, headerBytes, type] of [
      [IPV4, 28, 1],
      [IPV6, 40, 2],
    ] as const) {
      const { out, sent } = datagrams(1400, address)
      put(out, 20, 1)
      out.flush()
      put(out, 20, 2)
      out.stop()
      assert.equal(sent.length, 2)
      for (const [i, datagram] of sent.entries()) {
        const view = new DataView(datagram.buffer)
        assert.equal(view.getUint32(0), 5)
        assert.equal(view.getUint32(4), type)
        assert.deepEqual(datagram.slice(8, 8 + address.length), address)
        assert.equal(view.getUint32(headerBytes - 16), 100_000)
        assert.equal(view.getUint32(headerBytes - 12), i + 1)
        assert.equal(view.getUint32(headerBytes - 8), 7, 'uptime wraps at 2^32 ms')
        assert.deepEqual(marks(datagram, headerBytes), [i + 1])
      }
    }
  })

  test('are filled to the last byte and never beyond it', () => {
    const { out, sent } = datagrams(28 + 300)
    for (let i = 0; i < 7; i++) assert.ok(put(out, 100, i))
    out.stop()
    assert.deepEqual(
      sent.map(datagram => datagram.length),
      [328, 328, 128],
    )
    assert.deepEqual(
      sent.map(datagram => marks(datagram)),
      [[0, 1, 2], [3, 4, 5], [6]],
    )
  })

  test('refuse a sample that is longer than an empty datagram, and lose nothing else', () => {
    const { out, sent } = datagrams(200)
    assert.ok(put(out, 100, 1))
    assert.equal(put(out, out.room + 4, 2), false)
    assert.ok(put(out, 40, 3))
    out.stop()
    assert.deepEqual(
      sent.map(datagram => marks(datagram)),
      [[1, 3]],
    )
  })

  test('any sizes, any moments of sending: every sample once, in order, within the limit', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 200, max: 8192 }),
        fc.array(fc.record({ words: fc.integer({ min: 3, max: 60 }), send: fc.boolean() }), {
          maxLength: 400,
        }),
        (maxBytes, steps) => {
          const { out, sent } = datagrams(maxBytes)
          const accepted: number[] = []
          steps.forEach((step, i) => {
            if (put(out, step.words * 4, i)) accepted.push(i)
            if (step.send) out.send()
          })
          out.stop()
          assert.deepEqual(
            sent.flatMap(datagram => marks(datagram)),
            accepted,
          )
          for (const datagram of sent) assert.ok(datagram.length <= maxBytes)
          const sequences = sent.map(datagram => new DataView(datagram.buffer).getUint32(16))
          assert.deepEqual(
            sequences,
            sent.map((_, i) => i + 1),
          )
        },
      ),
    )
  })

  test('leave after the flush time at the latest and not before half of it', () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    const pass = (ms: number) => {
      for (let i = 0; i < ms; i++) mock.timers.tick(1)
    }
    try {
      const { out, sent } = datagrams(1400, IPV4, 250)
      put(out, 20, 1)
      pass(124)
      assert.equal(sent.length, 0)
      pass(126)
      assert.equal(sent.length, 1)
      pass(10_000)
      put(out, 20, 2)
      pass(250)
      assert.equal(sent.length, 2)
      out.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('closed ones leave with the timer, however fast others are filled', () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const { out, sent } = datagrams(200, IPV4, 250)
      let most = 0
      for (let ms = 0; ms < 2000; ms++) {
        put(out, 160, ms)
        mock.timers.tick(1)
        const left = sent.flatMap(datagram => marks(datagram))
        most = Math.max(most, ms - (left.at(-1) ?? 0))
      }
      assert.ok(most <= 250, `a sample waited ${most} ms`)
      out.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('closed ones go to the sink in one call', () => {
    const { out, calls } = datagrams(200)
    for (let i = 0; i < 10; i++) put(out, 160, i)
    assert.deepEqual(calls, [])
    out.send()
    assert.deepEqual(calls, [9])
    out.send()
    assert.deepEqual(calls, [9])
    out.stop()
    assert.deepEqual(calls, [9, 1])
  })

  test('a new agent address sends what is open under the old one and starts a new sequence', () => {
    const { out, sent } = datagrams()
    put(out, 20, 1)
    out.changeAgentAddress(IPV6)
    put(out, 20, 2)
    out.stop()
    assert.deepEqual(marks(sent[0]!), [1])
    assert.deepEqual(marks(sent[1]!, 40), [2])
    assert.equal(new DataView(sent[1]!.buffer).getUint32(28), 1)
  })
})
