import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { Ledger } from '../../agent/health/ledger.ts'
import { emptyPacketSample, type PacketSample } from '../../agent/samples/packet-sample.ts'
import { PsampleSamples, type PsampleSamplesOptions } from '../../agent/sources/psample-samples.ts'
import { psampleMessage, sampleAttributes, u16, u32, u64 } from '../support/psample-message.ts'
import { recordedPsample } from '../support/recorded.ts'

type Seen = Omit<PacketSample, 'headerWords'> & { header: Buffer }

function source(options: Partial<PsampleSamplesOptions> = {}, ifIndexes: number[] = [2, 3]) {
  const seen: Seen[] = []
  const ledger = new Ledger()
  const low16 = new Map<number, Set<number>>()
  for (const ifIndex of ifIndexes) {
    const set = low16.get(ifIndex & 0xffff) ?? new Set()
    low16.set(ifIndex & 0xffff, set.add(ifIndex))
  }
  const under = new PsampleSamples({
    ingressGroup: 1,
    egressGroup: 2,
    interfaces: {
      highestIfIndex: Math.max(...ifIndexes),
      byLow16: low => low16.get(low),
      isLayer3: () => false,
    },
    ledger,
    sink: ({ headerWords, ...sample }) => {
      const header = Buffer.from(headerWords.buffer as ArrayBuffer, sample.headerOffset, sample.headerLength)
      seen.push({ ...sample, header: Buffer.from(header) })
    },
    ...options,
  })
  const feed = (changes: Parameters<typeof sampleAttributes>[0]) => {
    const bytes = psampleMessage(sampleAttributes(changes))
    under.receive(new DataView(bytes.buffer), new Int32Array(bytes.buffer), 0, bytes.length)
  }
  const loss = (cause: string) => ledger.entries().find(entry => entry.cause === cause)!.count
  return { under, seen, feed, loss }
}

describe('samples from PSAMPLE', () => {
  test('an ingress sample: data source is the input; FCS counted; metadata carried over', () => {
    const { seen, feed } = source()
    feed({ 1: u16(3), 10: u16(4), 11: u64(5000n), 12: u64(6000n), 13: u64(0x1_0000_0002n) })
    assert.equal(seen.length, 1)
    const { header, ...sample } = seen[0]!
    assert.equal(header.length, 128)
    const { headerWords, ...unknown } = emptyPacketSample()
    assert.deepEqual(sample, {
      ...unknown,
      dataSource: 2,
      samplingRate: 1000,
      inputIfIndex: 2,
      outputIfIndex: 3,
      headerProtocol: 1,
      frameLength: 1004,
      stripped: 4,
      headerOffset: sample.headerOffset,
      headerLength: 128,
      egressQueue: 4,
      queueDepthBytes: 5000,
      transitDelayNs: 6000,
      timestampHigh: 1,
      timestampLow: 2,
    })
  })

  test('an egress sample: data source is the output', () => {
    const { seen, feed } = source()
    feed({ 3: u32(2), 1: u16(3) })
    assert.equal(seen[0]!.dataSource, 3)
  })

  test('groups of others are told apart from losses', () => {
    const { under, seen, feed } = source({ egressGroup: undefined })
    feed({ 3: u32(2), 4: u32(1) })
    feed({ 3: u32(7), 4: u32(99) })
    assert.equal(seen.length, 0)
    assert.equal(under.foreign, 2)
    assert.equal(under.missing(), 0)
  })

  test('a gap of the group sequence is charged to the next sample', () => {
    const { under, seen, feed } = source()
    for (const sequence of [10, 11, 15, 16]) feed({ 4: u32(sequence) })
    assert.deepEqual(
      seen.map(sample => sample.lostBefore),
      [0, 0, 3, 0],
    )
    assert.equal(under.missing(), 3)
  })

  test('the sequence wraps at 2^32', () => {
    const { under, feed } = source()
    for (const sequence of [0xfffffffe, 0xffffffff, 0, 2]) feed({ 4: u32(sequence) })
    assert.equal(under.missing(), 1)
  })

  test('a sample that comes late takes its gap back', () => {
    const { under, seen, feed } = source()
    for (const sequence of [1, 3, 2, 4, 6]) feed({ 4: u32(sequence) })
    assert.deepEqual(
      seen.map(sample => sample.lostBefore),
      [0, 1, 0, 0, 0],
    )
    assert.equal(under.missing(), 1)
  })

  test('a sequence that starts again is no loss', () => {
    const { under, seen, feed } = source()
    for (const sequence of [100_000, 100_001, 1, 2]) feed({ 4: u32(sequence) })
    assert.deepEqual(
      seen.map(sample => sample.lostBefore),
      [0, 0, 0, 0],
    )
    assert.equal(under.missing(), 0)
  })

  test('a group that starts again early is not taken for late samples', () => {
    const { under, feed } = source()
    for (let sequence = 1; sequence <= 1000; sequence++) feed({ 4: u32(sequence) })
    for (let sequence = 1; sequence <= 999; sequence += 2) feed({ 4: u32(sequence) })
    assert.equal(under.missing(), 499)
  })

  test('after restart() the first number counts as the first', () => {
    const { under, feed } = source()
    feed({ 4: u32(5) })
    under.restart()
    feed({ 4: u32(500) })
    assert.equal(under.missing(), 0)
  })

  test('missing() is exact for any loss and any local reordering', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 300 }), fc.integer(), (kept, seed) => {
        const { under, feed } = source()
        const numbers = kept.flatMap((keep, i) => (keep ? [1000 + i] : []))
        const lost = numbers.length === 0 ? 0 : numbers.at(-1)! - numbers[0]! + 1 - numbers.length
        // Neighbours change places, the first and the last stay.
        for (let i = 1 + (seed & 1); i + 2 < numbers.length; i += 2) {
          if ((seed >> (i % 31)) & 1) [numbers[i], numbers[i + 1]] = [numbers[i + 1]!, numbers[i]!]
        }
        for (const number of numbers) feed({ 4: u32(number) })
        assert.equal(under.missing(), lost)
      }),
    )
  })

  test('16-bit ifIndexes: one candidate is it, several are counted and not guessed', () => {
    const { under, seen, feed, loss } = source({}, [65536 + 5, 6, 65536 + 6])
    feed({ 0: u16(5) })
    feed({ 0: u16(6), 4: u32(2) })
    feed({ 0: u16(5), 1: u16(6), 4: u32(3) })
    assert.deepEqual(
      seen.map(sample => [sample.dataSource, sample.inputIfIndex, sample.outputIfIndex]),
      [
        [65541, 65541, 0],
        [65541, 65541, 0],
      ],
    )
    assert.equal(loss('ambiguous-ifindex'), 1)
    assert.equal(loss('ambiguous-other-interface'), 1)
    assert.equal(
      under.messages,
      under.delivered + under.foreign + loss('ambiguous-ifindex') + loss('malformed'),
    )
  })

  test('a group of one interface, and a cookie, tell the true ifIndex', () => {
    const { seen, feed } = source(
      {
        portOfGroup: group => (group === 900 ? { ifIndex: 65541, direction: 'egress' } : undefined),
        portOfCookie: (view, offset, length) =>
          length === 4 ? { ifIndex: view.getUint32(offset, true), direction: 'ingress' } : undefined,
      },
      [5, 65541],
    )
    feed({ 3: u32(900), 0: undefined, 1: u16(5) })
    feed({ 0: u16(5), 15: u32(65541) })
    assert.deepEqual(
      seen.map(sample => [sample.dataSource, sample.inputIfIndex, sample.outputIfIndex]),
      [
        [65541, 0, 65541],
        [65541, 65541, 0],
      ],
    )
  })

  test('a malformed message is counted, told once, and the next one is taken', () => {
    const { under, seen, feed, loss } = source()
    feed({ 5: undefined })
    feed({ 2: u32(1) })
    feed({})
    assert.equal(loss('malformed'), 2)
    assert.equal(under.takeProblem(), 'SAMPLE_RATE is missing at byte offset 0 of the message')
    assert.equal(under.takeProblem(), undefined)
    assert.equal(seen.length, 1)
  })

  test('an interface without link header: bare IP, neither link header nor FCS', () => {
    const { seen, feed } = source({
      interfaces: { highestIfIndex: 2, byLow16: () => undefined, isLayer3: ifIndex => ifIndex === 2 },
    })
    feed({ 14: u16(0x0800) })
    feed({ 14: u16(0x86dd) })
    assert.deepEqual(
      seen.map(sample => [sample.headerProtocol, sample.frameLength, sample.stripped]),
      [
        [11, 1000, 0],
        [12, 1000, 0],
      ],
    )
  })
})

describe('messages recorded from real kernels', () => {
  for (const { name, messages } of recordedPsample()) {
    test(name, () => {
      const { under, seen } = source({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      for (const bytes of messages) {
        under.receive(new DataView(bytes.buffer), new Int32Array(bytes.buffer), 0, bytes.length)
      }
      assert.equal(under.takeProblem(), undefined)
      assert.equal(seen.length, messages.length)
      assert.equal(under.missing(), 0)
      const simulated = name.includes('netdevsim')
      for (const sample of seen) {
        // netdevsim makes frames of 142 bytes; the ping is 100 bytes of data in ICMP, IPv4 and Ethernet.
        assert.equal(sample.frameLength, 142 + 4)
        assert.equal(sample.headerLength, 128)
        assert.equal(sample.samplingRate, simulated ? 400 : 1)
        assert.equal(sample.egressQueue, simulated ? 7 : -1)
        assert.ok(simulated ? sample.queueDepthBytes < 2 ** 24 : sample.queueDepthBytes === -1)
        assert.ok(simulated ? sample.transitDelayNs < 2 ** 27 : sample.transitDelayNs === -1)
        assert.equal(sample.header.readUInt16BE(12), 0x0800)
        assert.equal(sample.header.readUInt8(23), simulated ? 17 : 1)
        const timestamp = (BigInt(sample.timestampHigh) << 32n) | BigInt(sample.timestampLow)
        assert.ok(timestamp > 1_700_000_000_000_000_000n, `${timestamp}`)
      }
    })
  }
})
