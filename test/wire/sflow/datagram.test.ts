import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { findRecord, type RecordBlock, recordOf, type SampleBlock } from '../../../agent/wire/sflow/block.ts'
import { ifCounters, queueLength } from '../../../agent/wire/sflow/counters/interface.ts'
import { decodeDatagram, encodeDatagram } from '../../../agent/wire/sflow/datagram.ts'
import { extendedRouter } from '../../../agent/wire/sflow/flow/extended.ts'
import { extendedQueue } from '../../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../../agent/wire/sflow/flow/header.ts'
import { counterRecords, flowRecords, sampleTypes } from '../../../agent/wire/sflow/registry.ts'
import {
  type CountersSampleInput,
  countersSample,
  countersSampleExpanded,
  countersSampleOf,
  countersSampleSize,
  discardedPacket,
  discardedPacketOf,
  discardedPacketSize,
  flowSample,
  flowSampleExpanded,
  flowSampleOf,
  writeCountersSample,
  writeDiscardedPacket,
} from '../../../agent/wire/sflow/samples.ts'
import { WireError, Writer } from '../../../agent/wire/xdr.ts'
import { arbitraryOf } from './values.ts'

const AGENT = { agent_address: '192.0.2.1', sub_agent_id: 0, sequence_number: 1, uptime: 1 }
const SOURCE = { type: 0, index: 3 }
const COUNTS = { sampling_rate: 400, sample_pool: 400, drops: 0 }

const header = recordOf(sampledHeader, {
  protocol: 1,
  frame_length: 64,
  stripped: 4,
  header: Uint8Array.from({ length: 60 }, (_, i) => i),
})

/** A datagram with one flow sample: sample at 28, its records at 80, the header's body at 88. */
function withFlowSample(...records: RecordBlock[]): Uint8Array {
  return encodeDatagram({ ...AGENT, samples: [flow(...records)] })
}

function flow(...records: RecordBlock[]): SampleBlock {
  const interfaces = { input: { format: 0, value: 3 }, output: { format: 0, value: 4 } }
  const value = { sequence_number: 1, source_id: SOURCE, ...COUNTS, ...interfaces }
  return { sample: flowSampleExpanded, value, records }
}

/** A copy with 32-bit words replaced, by byte offset. */
function changed(bytes: Uint8Array, words: Record<number, number>): Uint8Array {
  const copy = bytes.slice()
  for (const [offset, word] of Object.entries(words)) {
    new DataView(copy.buffer).setUint32(Number(offset), word)
  }
  return copy
}

suite('datagrams that are refused', () => {
  const good = withFlowSample(header)
  const rows: [name: string, bytes: Uint8Array, code: string, offset: number, message: string][] = [
    ['empty', new Uint8Array(0), 'truncated', 0, 'in datagram: version needs 4 bytes, 0 left'],
    ['version 4', changed(good, { 0: 4 }), 'version', 0, 'in datagram: version is 4, not 5'],
    [
      'agent address type',
      changed(good, { 4: 3 }),
      'address-type',
      4,
      'in datagram: agent_address has address type 3, not 0, 1 or 2',
    ],
    ['without uptime', good.slice(0, 20), 'truncated', 20, 'in datagram: uptime needs 4 bytes, 0 left'],
    [
      'too many samples to be true',
      changed(good, { 24: 1000 }),
      'count',
      24,
      'in datagram: samples has 1000 elements of at least 8 bytes, 136 bytes left',
    ],
    [
      'a sample that is not there',
      changed(good, { 24: 2 }),
      'truncated',
      164,
      'in datagram: format of sample 2 needs 4 bytes, 0 left',
    ],
    [
      'sample longer than the datagram',
      changed(good, { 32: 132 }),
      'length',
      32,
      'in datagram: in flow_sample_expanded 1: length is 132, 128 bytes left',
    ],
    [
      'unknown sample of 4 GiB',
      changed(good, { 28: 99, 32: 0xffffffff }),
      'length',
      32,
      'in datagram: in sample 0:99 1: length is 4294967295, 128 bytes left',
    ],
    [
      'too many records to be true',
      changed(good, { 76: 12 }),
      'count',
      76,
      'in datagram: in flow_sample_expanded 1: records has 12 elements of at least 8 bytes, 84 bytes left',
    ],
    [
      'record longer than the sample',
      changed(good, { 84: 80 }),
      'length',
      84,
      'in datagram: in flow_sample_expanded 1: in sampled_header: length is 80, 76 bytes left',
    ],
    [
      'address type in a record',
      changed(withFlowSample(recordOf(extendedRouter, { nexthop: '', src_mask_len: 0, dst_mask_len: 0 })), {
        88: 9,
      }),
      'address-type',
      88,
      'in datagram: in flow_sample_expanded 1: in extended_router: nexthop has address type 9, not 0, 1 or 2',
    ],
  ]
  for (const [name, bytes, code, offset, message] of rows) {
    test(name, () => {
      assert.throws(() => decodeDatagram(bytes), {
        name: 'WireError',
        code,
        offset,
        message: `${message} at byte offset ${offset}`,
      })
    })
  }
})

suite('structures that are kept raw', () => {
  const route = { nexthop: '192.0.2.9', src_mask_len: 24, dst_mask_len: 24 }
  const good = withFlowSample(header, recordOf(extendedRouter, route))
  const inHeader = 'in datagram: in flow_sample_expanded 1: in sampled_header: '

  test('a header longer than its record', () => {
    const decoded = decodeDatagram(changed(good, { 100: 128 }))
    assert.deepEqual(decoded.problems, [
      {
        severity: 'error',
        code: 'truncated',
        offset: 104,
        path: ['datagram', 'flow_sample_expanded 1', 'sampled_header'],
        message: `${inHeader}header needs 128 bytes, 60 left at byte offset 104`,
      },
    ])
    const [sample] = decoded.samples
    assert.ok(sample !== undefined && 'records' in sample)
    const [raw, router] = sample.records
    assert.ok(raw !== undefined && 'raw' in raw)
    assert.deepEqual([raw.enterprise, raw.format, raw.offset, raw.raw.length], [0, 1, 80, 76])
    assert.deepEqual(findRecord([router!], extendedRouter), route)
  })

  test('a record shorter than its fields', () => {
    const bytes = encodeDatagram({
      ...AGENT,
      samples: [flow({ enterprise: 0, format: 1, raw: new Uint8Array(8) }), flow(header)],
    })
    const decoded = decodeDatagram(bytes)
    assert.deepEqual(
      decoded.problems.map(({ code, message }) => [code, message]),
      [['truncated', `${inHeader}stripped needs 4 bytes, 0 left at byte offset 96`]],
    )
    assert.equal(decoded.samples.length, 2)
  })

  test('a sample shorter than its fields', () => {
    const bytes = encodeDatagram({
      ...AGENT,
      samples: [{ enterprise: 0, format: 3, raw: new Uint8Array(16) }, flow(header)],
    })
    const decoded = decodeDatagram(bytes)
    assert.deepEqual(
      decoded.problems.map(({ severity, offset, message }) => [severity, offset, message]),
      [
        [
          'error',
          52,
          'in datagram: in flow_sample_expanded 1: sample_pool needs 4 bytes, 0 left at byte offset 52',
        ],
      ],
    )
    assert.ok('raw' in decoded.samples[0]!)
    assert.ok(flowSampleOf(decoded.samples[1]!))
  })
})

suite('warnings', () => {
  const good = withFlowSample(header)
  const counters = recordOf(ifCounters, anyValue(ifCounters))
  const histogram = recordOf(queueLength, anyValue(queueLength))
  const counterSample = (...records: RecordBlock[]): SampleBlock => ({
    sample: countersSampleExpanded,
    value: { sequence_number: 1, source_id: SOURCE },
    records,
  })
  const rows: [name: string, bytes: Uint8Array, problems: [code: string, offset: number][]][] = [
    ['none', good, []],
    ['trailing bytes', Uint8Array.from([...good, 0, 0, 0, 0]), [['trailing-bytes', 164]]],
    ['input of several interfaces', changed(good, { 60: 2 }), [['interface-format', 60]]],
    ['output of format 3', changed(good, { 68: 3 }), [['interface-format', 68]]],
    ['output discarded', changed(good, { 68: 1 }), []],
    ['internal as in one reading', changed(good, { 64: 0x3fffffff }), []],
    ['internal as in the other', changed(good, { 64: 0xffffffff }), []],
    ['header longer than the frame', changed(good, { 92: 63 }), [['header-length', 28]]],
    [
      'no header',
      withFlowSample(recordOf(extendedQueue, { depth: 1 })),
      [
        ['no-header', 28],
        ['queue', 28],
      ],
    ],
    ['two headers', withFlowSample(header, header), [['duplicate', 164]]],
    [
      'two queues',
      encodeDatagram({ ...AGENT, samples: [counterSample(counters, histogram, histogram)] }),
      [],
    ],
    [
      'compact beside expanded',
      encodeDatagram({
        ...AGENT,
        samples: [
          counterSample(counters),
          { sample: countersSample, value: { sequence_number: 1, source_id: SOURCE }, records: [] },
        ],
      }),
      [['mixed-forms', 148]],
    ],
    [
      'bytes behind the last record',
      encodeDatagram({
        ...AGENT,
        samples: [{ ...counterSample(counters), tail: Uint8Array.of(1, 2, 3, 4) }],
      }),
      [['longer', 148]],
    ],
  ]
  for (const [name, bytes, problems] of rows) {
    test(name, () => {
      const decoded = decodeDatagram(bytes)
      assert.deepEqual(
        decoded.problems.map(({ severity, code, offset }) => [severity, code, offset]),
        problems.map(([code, offset]) => ['warning', code, offset]),
      )
    })
  }

  function anyValue(declaration: typeof ifCounters | typeof queueLength): never {
    return fc.sample(arbitraryOf(declaration), { numRuns: 1, seed: 1 })[0] as never
  }
})

test('discard reasons with a missing digit are understood', () => {
  const sample = { sequence_number: 1, source_id: SOURCE, drops: 0, inputifindex: 3, outputifindex: 0 }
  for (const [sent, meant] of [
    [33, 332],
    [36, 366],
    [332, 332],
    [3, 3],
  ] as const) {
    const bytes = encodeDatagram({
      ...AGENT,
      samples: [{ sample: discardedPacket, value: { ...sample, reason: sent }, records: [header] }],
    })
    assert.equal(discardedPacketOf(decodeDatagram(bytes).samples[0]!)!.reason, meant)
  }
})

test('both forms of a sample have the same values', () => {
  const value = flowSampleOf(flow(header))!
  const bytes = encodeDatagram({ ...AGENT, samples: [{ sample: flowSample, value, records: [header] }] })
  assert.deepEqual(flowSampleOf(decodeDatagram(bytes).samples[0]!), value)
})

test('samples are written at their place in a larger buffer', () => {
  const counters: CountersSampleInput = {
    sequence: 7,
    sourceType: 2,
    sourceIndex: 1,
    records: [recordOf(ifCounters, fc.sample(arbitraryOf(ifCounters), 1)[0] as never)],
  }
  const packet = {
    sequence_number: 1,
    source_id: SOURCE,
    drops: 2,
    inputifindex: 3,
    outputifindex: 4,
    reason: 258,
  }
  const discard = { packet, records: [header] }
  const first = countersSampleSize(counters)
  const second = discardedPacketSize(discard)
  const bytes = encodeDatagram({
    ...AGENT,
    samples: [
      { enterprise: 1, format: 1, raw: new Uint8Array(first - 8) },
      { enterprise: 1, format: 1, raw: new Uint8Array(second - 8) },
    ],
  })
  const view = new DataView(bytes.buffer)
  writeCountersSample(new Writer(view, 28, 28 + first), counters)
  writeDiscardedPacket(new Writer(view, 28 + first, 28 + first + second), discard)
  const { samples, problems } = decodeDatagram(bytes)
  assert.deepEqual(problems, [])
  assert.deepEqual(countersSampleOf(samples[0]!), { sequence_number: 7, source_id: { type: 2, index: 1 } })
  assert.deepEqual(discardedPacketOf(samples[1]!), packet)
})

suite('any datagram', () => {
  const value = (declarations: Iterable<typeof ifCounters | typeof sampledHeader>) =>
    fc
      .constantFrom(...declarations)
      .chain(record => arbitraryOf(record).map((value): RecordBlock => ({ record, value }) as RecordBlock))
  const raw = fc
    .record({ enterprise: fc.constant(99_999), format: fc.nat(4095), words: fc.nat(10) })
    .map(({ words, ...number }) => ({ ...number, raw: new Uint8Array(words * 4).fill(7) }))
  const flowRecord = fc.oneof(value(flowRecords.values() as never), raw)
  const counterRecord = fc.oneof(value(counterRecords.values() as never), raw)
  const sample = fc.constantFrom(...sampleTypes.values()).chain(sample => {
    const records =
      sample.records === undefined
        ? fc.constant([])
        : fc.array(sample.records === 'flow' ? flowRecord : counterRecord, { maxLength: 5 })
    return fc.record({
      sample: fc.constant(sample),
      value: arbitraryOf(sample),
      records,
    }) as fc.Arbitrary<SampleBlock>
  })
  const datagram = fc
    .array(fc.oneof({ weight: 9, arbitrary: sample }, { weight: 1, arbitrary: raw }), { maxLength: 6 })
    .map(samples => encodeDatagram({ ...AGENT, samples }))

  test('is written as it was read', () => {
    fc.assert(
      fc.property(datagram, bytes => {
        const decoded = decodeDatagram(bytes)
        assert.deepEqual(encodeDatagram(decoded), bytes)
        assert.ok(decoded.problems.every(problem => problem.severity === 'warning'))
      }),
    )
  })

  test('fails at a place inside of it when it is cut', () => {
    fc.assert(
      fc.property(datagram, fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), (bytes, where) => {
        const length = Math.floor(bytes.length * where)
        assert.throws(
          () => decodeDatagram(bytes.subarray(0, length)),
          error => error instanceof WireError && error.offset >= 0 && error.offset <= length,
        )
      }),
    )
  })

  test('with bytes changed is refused or read, and problems are inside of it', () => {
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 })
    fc.assert(
      fc.property(datagram, changes, (bytes, list) => {
        const copy = bytes.slice()
        for (const [at, byte] of list) copy[at % copy.length] = byte
        try {
          const { problems } = decodeDatagram(copy)
          assert.ok(problems.every(problem => problem.offset >= 0 && problem.offset <= copy.length))
        } catch (error) {
          assert.ok(error instanceof WireError, String(error))
          assert.ok(error.offset >= 0 && error.offset <= copy.length)
        }
      }),
      { numRuns: 500 },
    )
  })
})
