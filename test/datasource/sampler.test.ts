import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Sampler } from '../../agent/datasource/sampler.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { packetSample } from '../support/packet-samples.ts'

/** Offsets in an expanded flow sample, from its first byte. */
const AT = {
  length: 4,
  sequence: 8,
  source: 16,
  rate: 20,
  pool: 24,
  drops: 28,
  input: 36,
  output: 44,
  headerLength: 72,
}

function sampler(maxBytes = 1400, headerBytes = 128) {
  const samples: DataView[] = []
  const sink = (memory: ArrayBuffer, spans: Int32Array, count: number) => {
    for (let i = 0; i < count; i++) {
      const bytes = memory.slice(spans[i * 2]!, spans[i * 2]! + spans[i * 2 + 1]!)
      const view = new DataView(bytes)
      let at = 28
      while (at < bytes.byteLength) {
        const length = 8 + view.getUint32(at + AT.length)
        samples.push(new DataView(bytes.slice(at, at + length)))
        at += length
      }
    }
  }
  const options = { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes, flushMs: 250 }
  const datagrams = new Datagrams(options, sink, () => 0)
  const ledger = new Ledger()
  const under = new Sampler(datagrams, ledger, headerBytes)
  const field = (at: number) => {
    datagrams.flush()
    return samples.map(sample => sample.getUint32(at))
  }
  return { under, ledger, field, samples, stop: () => datagrams.stop() }
}

const loss = (ledger: Ledger, cause: string) => ledger.entries().find(entry => entry.cause === cause)!.count

describe('the sampler', () => {
  test('numbers the samples of each data source from 1', () => {
    const { under, field, stop } = sampler()
    for (const dataSource of [2, 2, 3, 2, 3]) under.accept(packetSample(64, { dataSource }))
    assert.deepEqual(field(AT.source), [2, 2, 3, 2, 3])
    assert.deepEqual(field(AT.sequence), [1, 2, 1, 3, 2])
    stop()
  })

  test('the pool grows by the rate of each sample and wraps at 2^32', () => {
    const { under, field, stop } = sampler()
    for (const samplingRate of [400, 1000, 0xffffffff]) under.accept(packetSample(64, { samplingRate }))
    assert.deepEqual(field(AT.pool), [400, 1400, 1399])
    stop()
  })

  test('exact counts correct the pool, which never goes back', () => {
    const { under, field, stop } = sampler()
    under.accept(packetSample(64, { samplingRate: 100 }))
    under.countedPackets(2, 130)
    under.accept(packetSample(64, { samplingRate: 100 }))
    under.accept(packetSample(64, { samplingRate: 100 }))
    // 130 counted + 200 estimated = 330; only 150 more were counted: of the next sample's packets 50 are in the pool.
    under.countedPackets(2, 150)
    under.accept(packetSample(64, { samplingRate: 100 }))
    under.countedPackets(2, 60)
    under.accept(packetSample(64, { samplingRate: 100 }))
    assert.deepEqual(field(AT.pool), [100, 230, 330, 380, 440])
    stop()
  })

  test('losses of the source are charged to the data source of the next sample and stay', () => {
    const { under, field, stop } = sampler()
    under.accept(packetSample(64, { lostBefore: 3 }))
    under.accept(packetSample(64))
    under.accept(packetSample(64, { lostBefore: 2 }))
    assert.deepEqual(field(AT.drops), [3, 3, 5])
    stop()
  })

  test('a feed finer than configured is thinned, and the rate that is sent is the true one', () => {
    const { under, field, stop } = sampler()
    under.configureRate(2, 1000)
    for (let i = 0; i < 6; i++) under.accept(packetSample(64, { samplingRate: 300 }))
    assert.deepEqual(field(AT.rate), [900, 900])
    assert.deepEqual(field(AT.pool), [900, 1800])
    assert.equal(under.offered, under.exported + under.subSampled)
    // As near as can be: 2 x 400, not 3 x 400; 900 as it is.
    for (let i = 0; i < 2; i++) under.accept(packetSample(64, { samplingRate: 400 }))
    under.accept(packetSample(64, { samplingRate: 900 }))
    under.accept(packetSample(64, { samplingRate: 2000 }))
    assert.deepEqual(field(AT.rate), [900, 900, 800, 900, 2000])
    under.configureRate(2, 0)
    under.accept(packetSample(64, { samplingRate: 1 }))
    assert.deepEqual(field(AT.rate).at(-1), 1)
    stop()
  })

  test('a sample of no interface is counted, not sent', () => {
    const { under, ledger, field, stop } = sampler()
    under.accept(packetSample(64, { dataSource: 0, lostBefore: 4 }))
    assert.deepEqual(field(AT.source), [])
    // What was lost before it, the source has counted.
    assert.equal(loss(ledger, 'no-data-source'), 1)
    assert.equal(under.offered, 1)
    stop()
  })

  test('headers are cut at headerBytes, pad bytes are zero', () => {
    const { under, samples, field, stop } = sampler(1400, 61)
    under.accept(packetSample(128))
    assert.deepEqual(field(AT.headerLength), [61])
    const bytes = new Uint8Array(samples[0]!.buffer)
    assert.equal(bytes.length, 76 + 64)
    assert.deepEqual([...bytes.subarray(76 + 60)], [60, 0, 0, 0])
    stop()
  })

  test('a header that does not fit into the datagram is shortened and counted; the sample is sent', () => {
    const { under, ledger, field, stop } = sampler(200, 256)
    const full = { egressQueue: 1, queueDepthBytes: 2, transitDelayNs: 3, timestampHigh: 4, timestampLow: 5 }
    under.accept(packetSample(256, full))
    assert.deepEqual(field(AT.headerLength), [200 - 28 - 76 - 52])
    assert.equal(loss(ledger, 'shortened'), 1)
    assert.equal(under.exported, 1)
    stop()
  })

  test('an interface that comes back under the same ifIndex starts afresh', () => {
    const { under, field, stop } = sampler()
    under.accept(packetSample(64))
    under.forget(2)
    under.accept(packetSample(64))
    assert.deepEqual(field(AT.sequence), [1, 1])
    stop()
  })
})
