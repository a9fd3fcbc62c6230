import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Drop, emptyDrop, Names } from '../../../agent/samples/drop.ts'
import { ABSENT } from '../../../agent/samples/packet-sample.ts'
import { type RecordValue, recordOf } from '../../../agent/wire/sflow/block.ts'
import { DISCARD_REASONS } from '../../../agent/wire/sflow/discard-reasons.ts'
import {
  discardedPacketBytesWithoutHeader,
  writeDrop,
} from '../../../agent/wire/sflow/discarded-packet-writer.ts'
import {
  extendedEgressQueue,
  extendedFunction,
  extendedHwTrap,
  extendedLinuxDropReason,
  extendedTimestamp,
} from '../../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../../agent/wire/sflow/flow/header.ts'
import { discardedPacketSize, writeDiscardedPacket } from '../../../agent/wire/sflow/samples.ts'
import { padded, Writer } from '../../../agent/wire/xdr.ts'

const word = fc.integer({ min: 0, max: 0xffffffff })
const name = fc.option(fc.string({ minLength: 1, maxLength: 64, unit: 'grapheme-ascii' }), { nil: '' })

const cases = fc.record({
  drop: fc.record({
    inputIfIndex: fc.nat(0x7fffffff),
    outputIfIndex: fc.nat(0x7fffffff),
    headerProtocol: fc.constantFrom(1, 11, 12),
    frameLength: word,
    stripped: fc.nat(100),
    egressQueue: fc.oneof(word, fc.constant(ABSENT)),
    timestampHigh: fc.oneof(word, fc.constant(0)),
    timestampLow: word,
  }),
  texts: fc.record({ reason: name, symbol: name, trap: name, trapGroup: name }),
  reason: fc.constantFrom(...DISCARD_REASONS.map(([code]) => code)),
  state: fc.record({ sequence: word, drops: word }),
  header: fc.uint8Array({ maxLength: 256 }),
  /** Of the header, bytes that do not go into the datagram. */
  cut: fc.nat(64),
})

test('the writer of the data path writes what the declarations say', () => {
  fc.assert(
    fc.property(cases, ({ drop: fields, texts, reason, state, header, cut }) => {
      const length = Math.max(header.length - cut, 0)
      const declared = {
        packet: {
          sequence_number: state.sequence,
          source_id: { type: 0, index: 0 },
          drops: state.drops,
          inputifindex: fields.inputIfIndex,
          outputifindex: fields.outputIfIndex,
          reason,
        },
        records: recordsOf(fields, texts, header.subarray(0, length)),
      }
      const expected = new Uint8Array(1024).fill(0xaa)
      const writer = new Writer(new DataView(expected.buffer), 40)
      writeDiscardedPacket(writer, declared)

      const written = new Uint8Array(1024).fill(0xaa)
      const headerMemory = new Uint8Array(8 + padded(header.length)).fill(0xbb)
      headerMemory.set(header, 8)
      const names = new Names()
      const drop: Drop = {
        ...emptyDrop(),
        ...fields,
        reason: names.of(texts.reason),
        symbol: names.of(texts.symbol),
        trap: names.of(texts.trap),
        trapGroup: names.of(texts.trapGroup),
        headerWords: new Int32Array(headerMemory.buffer),
        headerOffset: 8,
        headerLength: header.length,
      }
      const memory = { view: new DataView(written.buffer), words: new Int32Array(written.buffer) }
      const end = writeDrop(memory, 40, drop, reason, state, length)

      assert.deepEqual(written, expected)
      assert.equal(end, writer.offset)
      assert.equal(discardedPacketSize(declared), end - 40)
      assert.equal(discardedPacketBytesWithoutHeader(drop) + padded(length), end - 40)
    }),
    { numRuns: 500 },
  )
})

type Fields = Pick<
  Drop,
  'headerProtocol' | 'frameLength' | 'stripped' | 'egressQueue' | 'timestampHigh' | 'timestampLow'
>
type Texts = Record<'reason' | 'symbol' | 'trap' | 'trapGroup', string>

function recordsOf(drop: Fields, texts: Texts, header: Uint8Array): RecordValue<typeof sampledHeader>[] {
  const { headerProtocol: protocol, frameLength: frame_length, stripped } = drop
  const records: RecordValue[] = [recordOf(sampledHeader, { protocol, frame_length, stripped, header })]
  if (texts.symbol !== '') records.push(recordOf(extendedFunction, { symbol: texts.symbol }))
  if (texts.trap !== '') records.push(recordOf(extendedHwTrap, { group: texts.trapGroup, trap: texts.trap }))
  if (texts.reason !== '') records.push(recordOf(extendedLinuxDropReason, { reason: texts.reason }))
  if (drop.timestampHigh !== 0) {
    const nanoseconds = (BigInt(drop.timestampHigh) << 32n) | BigInt(drop.timestampLow)
    records.push(recordOf(extendedTimestamp, { nanoseconds }))
  }
  if (drop.egressQueue !== ABSENT) records.push(recordOf(extendedEgressQueue, { queue: drop.egressQueue }))
  return records as RecordValue<typeof sampledHeader>[]
}
