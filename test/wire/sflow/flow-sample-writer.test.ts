import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ABSENT, emptyPacketSample, INTERNAL_INTERFACE } from '../../../agent/samples/packet-sample.ts'
import { type RecordValue, recordOf, sampleSize, writeSample } from '../../../agent/wire/sflow/block.ts'
import {
  extendedEgressQueue,
  extendedQueue,
  extendedTimestamp,
  extendedTransit,
} from '../../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../../agent/wire/sflow/flow/header.ts'
import {
  flowSampleBytesWithoutHeader,
  writeFlowSample,
} from '../../../agent/wire/sflow/flow-sample-writer.ts'
import { flowSampleExpanded } from '../../../agent/wire/sflow/samples.ts'
import { padded, Writer } from '../../../agent/wire/xdr.ts'

const word = fc.integer({ min: 0, max: 0xffffffff })
const wordOrAbsent = fc.oneof(word, fc.constant(ABSENT))
const ifIndex = fc.oneof(fc.integer({ min: 0, max: 0x7fffffff }), fc.constant(INTERNAL_INTERFACE))

const cases = fc.record({
  sample: fc.record({
    dataSource: ifIndex,
    samplingRate: word,
    inputIfIndex: ifIndex,
    outputIfIndex: ifIndex,
    discardReason: fc.oneof(fc.integer({ min: 0, max: 372 }), fc.constant(ABSENT)),
    headerProtocol: fc.constantFrom(1, 11, 12),
    frameLength: word,
    stripped: fc.nat(100),
    egressQueue: wordOrAbsent,
    queueDepthBytes: wordOrAbsent,
    transitDelayNs: wordOrAbsent,
    timestampHigh: fc.oneof(word, fc.constant(0)),
    timestampLow: word,
  }),
  source: fc.record({ sequence: word, samplePool: word, drops: word }),
  header: fc.uint8Array({ maxLength: 256 }),
  /** Of the header, bytes that do not go into the datagram. */
  cut: fc.nat(64),
})

test('the writer of the data path writes what the declarations say', () => {
  fc.assert(
    fc.property(cases, ({ sample, source, header, cut }) => {
      const length = Math.max(header.length - cut, 0)
      const records = recordsOf(sample, header.subarray(0, length))
      const declared = {
        sample: flowSampleExpanded,
        value: {
          sequence_number: source.sequence,
          source_id: { type: 0, index: sample.dataSource },
          sampling_rate: sample.samplingRate,
          sample_pool: source.samplePool,
          drops: source.drops,
          input: { format: 0, value: sample.inputIfIndex },
          output:
            sample.discardReason === ABSENT
              ? { format: 0, value: sample.outputIfIndex }
              : { format: 1, value: sample.discardReason },
        },
        records,
      }
      const expected = new Uint8Array(1024).fill(0xaa)
      const writer = new Writer(new DataView(expected.buffer), 40)
      writeSample(writer, declared)

      const written = new Uint8Array(1024).fill(0xaa)
      const headerMemory = new Uint8Array(8 + padded(header.length)).fill(0xbb)
      headerMemory.set(header, 8)
      const packet = {
        ...emptyPacketSample(),
        ...sample,
        headerWords: new Int32Array(headerMemory.buffer),
        headerOffset: 8,
        headerLength: header.length,
      }
      const memory = { view: new DataView(written.buffer), words: new Int32Array(written.buffer) }
      const end = writeFlowSample(memory, 40, packet, source, length)

      assert.deepEqual(written, expected)
      assert.equal(end, writer.offset)
      assert.equal(sampleSize(declared), end - 40)
      assert.equal(flowSampleBytesWithoutHeader(packet) + padded(length), end - 40)
    }),
    { numRuns: 500 },
  )
})

type Fields = Pick<
  ReturnType<typeof emptyPacketSample>,
  | 'headerProtocol'
  | 'frameLength'
  | 'stripped'
  | 'egressQueue'
  | 'queueDepthBytes'
  | 'transitDelayNs'
  | 'timestampHigh'
  | 'timestampLow'
>

function recordsOf(sample: Fields, header: Uint8Array): RecordValue[] {
  const { headerProtocol: protocol, frameLength: frame_length, stripped } = sample
  const records: RecordValue[] = [recordOf(sampledHeader, { protocol, frame_length, stripped, header })]
  if (sample.egressQueue !== ABSENT) {
    records.push(recordOf(extendedEgressQueue, { queue: sample.egressQueue }))
    if (sample.queueDepthBytes !== ABSENT) {
      records.push(recordOf(extendedQueue, { depth: sample.queueDepthBytes }))
    }
  }
  if (sample.transitDelayNs !== ABSENT) {
    records.push(recordOf(extendedTransit, { delay: sample.transitDelayNs }))
  }
  if (sample.timestampHigh !== 0) {
    const nanoseconds = (BigInt(sample.timestampHigh) << 32n) | BigInt(sample.timestampLow)
    records.push(recordOf(extendedTimestamp, { nanoseconds }))
  }
  return records
}
