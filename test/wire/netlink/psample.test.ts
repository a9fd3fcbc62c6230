import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { emptyTunnel } from '../../../agent/samples/packet-sample.ts'
import { emptyPsampleMessage, readPsample, readTunnel } from '../../../agent/wire/netlink/psample.ts'
import {
  type Attribute,
  frame,
  psampleMessage,
  sampleAttributes,
  u16,
  u32,
  u64,
} from '../../support/psample-message.ts'

function read(attributes: readonly Attribute[], cut = 0) {
  const bytes = psampleMessage(attributes)
  const message = emptyPsampleMessage()
  const ok = readPsample(new DataView(bytes.buffer), 0, bytes.length - cut, message)
  return { ok, message, bytes }
}

describe('PSAMPLE messages', () => {
  test('every attribute is read', () => {
    const { ok, message, bytes } = read(
      sampleAttributes({
        0: u16(7),
        1: u16(9),
        2: u32(1514),
        3: u32(3),
        4: u32(0xfffffff0),
        5: u32(400),
        6: frame(90),
        8: new Uint8Array(8),
        10: u16(5),
        11: u64(123456n),
        12: u64(48_650_000n),
        13: u64(1_700_000_000_123_456_789n),
        14: u16(0x86dd),
        15: new TextEncoder().encode('cookie'),
      }),
    )
    assert.equal(ok, true, message.problem)
    assert.equal(message.inputIfIndex, 7)
    assert.equal(message.inputIfIndexBytes, 2)
    assert.equal(message.outputIfIndex, 9)
    assert.equal(message.originalSize, 1514)
    assert.equal(message.group, 3)
    assert.equal(message.groupSequence, 0xfffffff0)
    assert.equal(message.rate, 400)
    assert.deepEqual(bytes.subarray(message.dataOffset, message.dataOffset + message.dataLength), frame(90))
    assert.equal(message.outTc, 5)
    assert.equal(message.outTcOccupancy, 123456)
    assert.equal(message.latency, 48_650_000)
    const timestamp = (BigInt(message.timestampHigh) << 32n) | BigInt(message.timestampLow)
    assert.equal(timestamp, 1_700_000_000_123_456_789n)
    assert.equal(message.protocol, 0x86dd)
    assert.equal(
      Buffer.from(bytes).toString('utf8', message.cookieOffset, message.cookieOffset + message.cookieLength),
      'cookie',
    )
  })

  test('what a message leaves out does not linger from the one before', () => {
    const message = emptyPsampleMessage()
    const rich = psampleMessage(
      sampleAttributes({
        1: u16(9),
        10: u16(5),
        11: u64(1n),
        12: u64(2n),
        13: u64(3n),
        14: u16(4),
        15: u32(5),
      }),
    )
    assert.ok(readPsample(new DataView(rich.buffer), 0, rich.length, message))
    const poor = psampleMessage(sampleAttributes({ 0: undefined, 6: undefined }))
    assert.ok(readPsample(new DataView(poor.buffer), 0, poor.length, message))
    const fresh = emptyPsampleMessage()
    assert.ok(readPsample(new DataView(poor.buffer), 0, poor.length, fresh))
    for (const name of ['dataOffset', 'tunnelOffset', 'cookieOffset'] as const) message[name] = fresh[name]
    assert.deepEqual(message, fresh)
  })

  test('queue depth and latency saturate at 2^32-1', () => {
    const { message } = read(sampleAttributes({ 11: u64(0x1_0000_0000n), 12: u64(0xffff_ffffn) }))
    assert.equal(message.outTcOccupancy, 0xffffffff)
    assert.equal(message.latency, 0xffffffff)
  })

  test('ifIndexes of 4 bytes, as later kernels may send them', () => {
    const { message } = read(sampleAttributes({ 0: u32(70_000), 1: u32(70_001) }))
    assert.equal(message.inputIfIndex, 70_000)
    assert.equal(message.inputIfIndexBytes, 4)
    assert.equal(message.outputIfIndex, 70_001)
  })

  for (const [probability, rate] of [
    [0xffffffff, 1],
    [0x7fffffff, 2],
    [4294967, 1000],
    [1, 0xffffffff],
  ] as const) {
    test(`probability ${probability} is 1 in ${rate}`, () => {
      const { message } = read(sampleAttributes({ 5: u32(probability), 16: new Uint8Array(0) }))
      assert.equal(message.rate, rate)
    })
  }

  test('attributes not known here are stepped over', () => {
    const { ok, message } = read([...sampleAttributes(), [77, frame(13)], [9, new Uint8Array(0)]])
    assert.equal(ok, true, message.problem)
    assert.equal(message.dataLength, 128)
  })

  const malformed: readonly [name: string, attributes: Attribute[], problem: string, offset: number][] = [
    ['no original size', sampleAttributes({ 2: undefined }), 'ORIGSIZE is missing', 0],
    ['no group', sampleAttributes({ 3: undefined }), 'SAMPLE_GROUP is missing', 0],
    ['no sequence', sampleAttributes({ 4: undefined }), 'GROUP_SEQ is missing', 0],
    ['no rate', sampleAttributes({ 5: undefined }), 'SAMPLE_RATE is missing', 0],
    ['an input interface of 3 bytes', [[0, frame(3)]], 'IIFINDEX is not 2 or 4 bytes', 20],
    ['an output interface of 8 bytes', [[1, u64(1n)]], 'OIFINDEX is not 2 or 4 bytes', 20],
    ['an original size of 2 bytes', [[2, u16(1)]], 'ORIGSIZE is not 4 bytes', 20],
    ['a group of 2 bytes', [[3, u16(1)]], 'SAMPLE_GROUP is not 4 bytes', 20],
    ['a sequence of 8 bytes', [[4, u64(1n)]], 'GROUP_SEQ is not 4 bytes', 20],
    [
      'a rate of 1 byte',
      [
        [2, u32(1)],
        [5, frame(1)],
      ],
      'SAMPLE_RATE is not 4 bytes',
      28,
    ],
    ['a rate of 0', [[5, u32(0)]], 'SAMPLE_RATE is 0', 20],
    ['a traffic class of 4 bytes', [[10, u32(1)]], 'OUT_TC is not 2 bytes', 20],
    ['an occupancy of 4 bytes', [[11, u32(1)]], 'OUT_TC_OCC is not 8 bytes', 20],
    ['a latency of 4 bytes', [[12, u32(1)]], 'LATENCY is not 8 bytes', 20],
    ['a timestamp of 4 bytes', [[13, u32(1)]], 'TIMESTAMP is not 8 bytes', 20],
    ['a protocol of 4 bytes', [[14, u32(1)]], 'PROTO is not 2 bytes', 20],
    [
      'a packet longer than its own size',
      sampleAttributes({ 2: u32(127) }),
      'DATA is longer than ORIGSIZE',
      60,
    ],
  ]
  for (const [name, attributes, problem, offset] of malformed) {
    test(`refuses ${name}`, () => {
      const { ok, message } = read(attributes)
      assert.equal(ok, false)
      assert.equal(message.problem, problem)
      assert.equal(message.problemOffset, offset)
    })
  }

  test('refuses an attribute with a length below its header, and one past the end', () => {
    const bytes = psampleMessage(sampleAttributes())
    const view = new DataView(bytes.buffer)
    const message = emptyPsampleMessage()
    view.setUint16(20, 3, true)
    assert.equal(readPsample(view, 0, bytes.length, message), false)
    assert.equal(message.problem, 'attribute shorter than its header')
    assert.equal(message.problemOffset, 20)
    view.setUint16(20, 0xffff, true)
    assert.equal(readPsample(view, 0, bytes.length, message), false)
    assert.equal(message.problem, 'attribute longer than the message')
    assert.equal(message.problemOffset, 20)
  })

  test('refuses another command of the family', () => {
    const bytes = psampleMessage(sampleAttributes())
    bytes[16] = 2
    const message = emptyPsampleMessage()
    assert.equal(readPsample(new DataView(bytes.buffer), 0, bytes.length, message), false)
    assert.equal(message.problem, 'not a sample')
  })

  test('every truncation is refused at a place inside the message', () => {
    const whole = psampleMessage(sampleAttributes())
    for (let end = 0; end < whole.length; end++) {
      const message = emptyPsampleMessage()
      const ok = readPsample(new DataView(whole.buffer), 0, end, message)
      assert.equal(ok, false, `${end} of ${whole.length} bytes were taken for a message`)
      assert.ok(message.problemOffset <= Math.max(end, 20))
    }
  })

  test('any bytes: never throws, and a packet it accepts lies inside the message', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (noise, afterHeaders) => {
        const bytes = afterHeaders ? Uint8Array.from([...new Uint8Array(20), ...noise]) : noise
        const message = emptyPsampleMessage()
        if (readPsample(new DataView(bytes.buffer), 0, bytes.length, message)) {
          assert.ok(message.dataLength === 0 || message.dataOffset + message.dataLength <= bytes.length)
          readTunnel(new DataView(bytes.buffer), message, emptyTunnel())
        }
      }),
      { numRuns: 2000 },
    )
  })
})

describe('the tunnel key', () => {
  const nested = (attributes: readonly Attribute[]) => psampleMessage(attributes).slice(20)

  test('is read in network order', () => {
    const tunnel = nested([
      [0, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 42)],
      [1, Uint8Array.of(192, 0, 2, 1)],
      [2, Uint8Array.of(192, 0, 2, 2)],
      [3, Uint8Array.of(16)],
      [4, Uint8Array.of(64)],
      [5, new Uint8Array(0)],
      [10, Uint8Array.of(0x12, 0xb5)],
    ])
    const { ok, message, bytes } = read(sampleAttributes({ 8: tunnel }))
    assert.equal(ok, true, message.problem)
    const key = emptyTunnel()
    assert.equal(readTunnel(new DataView(bytes.buffer), message, key), true)
    const address = (...head: number[]) => Uint8Array.from({ length: 16 }, (_, i) => head[i] ?? 0)
    assert.deepEqual(key, {
      isOutput: false,
      addressBytes: 4,
      source: address(192, 0, 2, 1),
      destination: address(192, 0, 2, 2),
      tos: 16,
      sourcePort: 0,
      destinationPort: 4789,
      id: 42,
    })
  })

  test('with an attribute too short is not guessed', () => {
    const { message, bytes } = read(sampleAttributes({ 8: nested([[0, u32(42)]]) }))
    assert.equal(readTunnel(new DataView(bytes.buffer), message, emptyTunnel()), false)
  })
})
