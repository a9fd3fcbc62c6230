import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { type ScannedSample, Scanner } from '../../agent/decode/scanner.ts'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { type DecodedDatagram, decodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import { meantDiscardReason } from '../../agent/wire/sflow/discard-reasons.ts'
import {
  extendedEgressQueue,
  extendedFunction,
  extendedHwTrap,
  extendedLinuxDropReason,
  extendedQueue,
  extendedTimestamp,
  extendedTransit,
} from '../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import { countersSampleOf, discardedPacketOf, flowSampleOf } from '../../agent/wire/sflow/samples.ts'
import { WireError } from '../../agent/wire/xdr.ts'
import { VECTORS } from './vectors.ts'

/** What the scanner tells, in the words of the strict decoder. */
function scanned(bytes: Uint8Array): { isWhole: boolean; samples: unknown[] } {
  const samples: unknown[] = []
  const text = (s: ScannedSample, at: number) =>
    at < 0
      ? undefined
      : Buffer.from(
          s.bytes.subarray(
            at + 4,
            at + 4 + new DataView(s.bytes.buffer, s.bytes.byteOffset + at).getUint32(0),
          ),
        ).toString('latin1')
  const isWhole = new Scanner().scan(bytes, 0, bytes.length, {
    sample(s) {
      const source_id = { type: s.sourceType, index: s.sourceIndex }
      const known = (value: number) => (value < 0 ? undefined : value)
      const flow = () => ({
        header:
          s.headerAt < 0 ? undefined : Buffer.from(s.bytes.subarray(s.headerAt, s.headerEnd)).toString('hex'),
        frame: s.headerAt < 0 ? undefined : s.frameLength - s.stripped,
        queue: known(s.queue),
        depth: known(s.queueDepth),
        delay: known(s.transitDelay),
        function: text(s, s.functionAt),
        trap: text(s, s.trapAt),
        reason: text(s, s.dropReasonAt),
        time: s.timestampAt < 0 ? undefined : Buffer.from(s.bytes).readBigUInt64BE(s.timestampAt),
      })
      const { sequence, kind, rate, pool, drops, inputFormat, input, outputFormat, output } = s
      if (kind === 'flow') {
        samples.push({
          kind,
          sequence,
          source_id,
          rate,
          pool,
          drops,
          in: [inputFormat, input],
          out: [outputFormat, output],
          ...flow(),
        })
      } else if (kind === 'discard') {
        samples.push({
          kind,
          sequence,
          source_id,
          drops,
          input,
          output,
          code: meantDiscardReason(s.reason),
          ...flow(),
        })
      } else if (kind === 'counters') {
        samples.push({ kind, sequence, source_id, records: s.otherCount })
      } else {
        samples.push({ kind })
      }
    },
  })
  return { isWhole, samples }
}

/** The same from the strict decoder. */
function decoded(datagram: DecodedDatagram): unknown[] {
  return datagram.samples.map(block => {
    if (!('sample' in block)) return { kind: 'other' }
    const { records } = block
    const latin1 = (value: string | undefined) =>
      value === undefined ? undefined : Buffer.from(value).toString('latin1')
    const flow = () => {
      const header = findRecord(records, sampledHeader)
      return {
        header: header === undefined ? undefined : Buffer.from(header.header).toString('hex'),
        frame: header === undefined ? undefined : header.frame_length - header.stripped,
        queue: findRecord(records, extendedEgressQueue)?.queue,
        depth: findRecord(records, extendedQueue)?.depth,
        delay: findRecord(records, extendedTransit)?.delay,
        function: latin1(findRecord(records, extendedFunction)?.symbol),
        trap: latin1(findRecord(records, extendedHwTrap)?.trap),
        reason: latin1(findRecord(records, extendedLinuxDropReason)?.reason),
        time: findRecord(records, extendedTimestamp)?.nanoseconds,
      }
    }
    const value = flowSampleOf(block)
    if (value !== undefined) {
      const { sequence_number, source_id, sampling_rate, sample_pool, drops, input, output } = value
      return {
        kind: 'flow',
        sequence: sequence_number,
        source_id,
        rate: sampling_rate,
        pool: sample_pool,
        drops,
        in: [input.format, input.value],
        out: [output.format, output.value],
        ...flow(),
      }
    }
    const discard = discardedPacketOf(block)
    if (discard !== undefined) {
      const { sequence_number, source_id, drops, inputifindex, outputifindex, reason } = discard
      return {
        kind: 'discard',
        sequence: sequence_number,
        source_id,
        drops,
        input: inputifindex,
        output: outputifindex,
        code: reason,
        ...flow(),
      }
    }
    const counters = countersSampleOf(block)
    if (counters === undefined) return { kind: 'other' }
    return {
      kind: 'counters',
      sequence: counters.sequence_number,
      source_id: counters.source_id,
      records: records.length,
    }
  })
}

suite('the scanner tells what the strict decoder tells', () => {
  for (const [name, bytes] of VECTORS) {
    test(name, () => {
      const { isWhole, samples } = scanned(bytes)
      assert.ok(isWhole)
      assert.deepEqual(samples, decoded(decodeDatagram(bytes)))
    })
  }
})

const datagrams = [...VECTORS.values()]
/** A vector with some of its bytes changed and its end cut or grown. */
const mutated = fc
  .record({
    vector: fc.integer({ min: 0, max: datagrams.length - 1 }),
    changes: fc.array(fc.tuple(fc.nat(2000), fc.integer({ min: 0, max: 255 })), { maxLength: 12 }),
    length: fc.option(fc.nat(900), { freq: 3 }),
  })
  .map(({ vector, changes, length }) => {
    const original = datagrams[vector]!
    const bytes = new Uint8Array(length ?? original.length)
    bytes.set(original.subarray(0, bytes.length))
    for (const [at, value] of changes) bytes[at % Math.max(bytes.length, 1)] = value
    return bytes
  })

test('what the scanner accepts or refuses of changed datagrams, the strict decoder does too', () => {
  fc.assert(
    fc.property(mutated, bytes => {
      const { isWhole, samples } = scanned(bytes)
      let strict: DecodedDatagram
      try {
        strict = decodeDatagram(bytes)
      } catch (error) {
        assert.ok(error instanceof WireError)
        // Only what is within a record may have been found by the strict decoder alone.
        if (isWhole) assert.ok(['count', 'length', 'address-type'].includes(error.code), error.message)
        return
      }
      assert.ok(isWhole)
      // A structure that is broken within its own length is told differently: raw here, by what is there, there.
      if (strict.problems.length === 0) assert.deepEqual(samples, decoded(strict))
    }),
    { numRuns: 3000 },
  )
})

test('it reads nothing outside its part of a buffer', () => {
  for (const bytes of datagrams) {
    const around = Buffer.concat([Buffer.alloc(13, 0xff), bytes, Buffer.alloc(64, 0xff)])
    const inside: number[] = []
    const alone: number[] = []
    const scanner = new Scanner()
    assert.ok(
      scanner.scan(around, 13, 13 + bytes.length, {
        sample: s => void inside.push(s.sequence, s.bodyEnd - 13),
      }),
    )
    assert.ok(scanner.scan(bytes, 0, bytes.length, { sample: s => void alone.push(s.sequence, s.bodyEnd) }))
    assert.deepEqual(inside, alone)
    for (let end = 0; end < bytes.length; end += 4) {
      assert.equal(scanner.scan(around, 13, 13 + end, { sample() {} }), false)
    }
  }
})
