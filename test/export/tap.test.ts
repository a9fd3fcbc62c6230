/** What somebody who looks gets of what is sent, and what the others notice of it: nothing. */
import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import { Exporter } from '../../agent/export/exporter.ts'
import type { TapFilter } from '../../agent/export/tap.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'
import { type DecodedDatagram, decodeDatagram } from '../../agent/wire/sflow/datagram.ts'

const ALL: TapFilter = {
  classes: ['flows', 'counters', 'drops'],
  interfaces: undefined,
  every: 1,
  perSecond: Number.POSITIVE_INFINITY,
}

function setUp() {
  const sent: DecodedDatagram[] = []
  const take = (to: DecodedDatagram[]) => (memory: ArrayBuffer, spans: Int32Array, count: number) => {
    for (let i = 0; i < count; i++) {
      to.push(decodeDatagram(new Uint8Array(memory, spans[i * 2]!, spans[i * 2 + 1]!).slice()))
    }
    return count
  }
  const none = { bytes: 0, mostBytes: 65_507, errors: new Map(), reports: new Map(), close: () => {} }
  const exporter = new Exporter({
    collectors: loadConfig('sFlow { collector { ip = 192.0.2.9 } }', 'a').config!.collectors,
    datagrams: { subAgentId: 1, maxBytes: 1400, flushMs: 250 },
    ledger: new Ledger(),
    log: createLogger('silent'),
    follow: () => ({ close: () => {} }),
    open: () => ({ ...none, send: take(sent) }),
    uptimeMs: () => 0,
  })
  exporter.changeAgentAddress(Uint8Array.of(192, 0, 2, 1))
  exporter.start()
  const { datagrams } = exporter
  const put = (format: number, ...words: number[]) => {
    const bytes = 8 + words.length * 4
    const at = datagrams.reserve(bytes, format === 5)
    for (const [i, word] of [format, bytes - 8, ...words].entries())
      datagrams.view.setUint32(at + i * 4, word)
    datagrams.commit(at + bytes)
  }
  return {
    exporter,
    sent,
    tap: (filter: Partial<TapFilter>) => {
      const got: DecodedDatagram[] = []
      return { got, ...exporter.tap({ ...ALL, ...filter }, take(got)) }
    },
    flow: (source: number, input: number, output: number) =>
      put(3, 1, 0, source, 100, 100, 0, 0, input, 0, output, 0),
    counters: (type: number, index: number) => put(4, 1, type, index, 0),
    drop: (input: number, output: number) => put(5, 1, 0, 0, 0, input, output, 256, 0),
  }
}

/** Format and words behind it of each sample, in short. */
const samplesOf = (datagrams: readonly DecodedDatagram[]) => datagrams.flatMap(({ samples }) => samples)
/** All but the place. */
const contents = (datagrams: readonly DecodedDatagram[]) =>
  samplesOf(datagrams).map(one => ({ ...one, offset: 0 }))
const formats = (datagrams: readonly DecodedDatagram[]) =>
  samplesOf(datagrams).map(sample => ('sample' in sample ? sample.sample.format : -1))

test('a tap gets the same samples, in datagrams of its own, and changes nothing for collectors', () => {
  const { exporter, sent, tap, flow, counters, drop } = setUp()
  for (let i = 0; i < 30; i++) flow(7, 7, 8)
  const { got, end, tap: counts } = tap({})
  for (let i = 0; i < 30; i++) flow(7, 7, 8)
  counters(0, 7)
  drop(7, 0)
  flow(7, 7, 8)
  exporter.datagrams.flush()
  assert.equal(samplesOf(sent).length, 63)
  assert.deepEqual(contents(got), contents(sent).slice(30))
  assert.deepEqual(
    got.map(({ sequence_number }) => sequence_number),
    got.map((_, i) => i + 1),
  )
  assert.equal(counts.copied, 33)
  flow(7, 7, 8)
  end()
  assert.equal(samplesOf(got).length, 34)
  flow(7, 7, 8)
  exporter.datagrams.flush()
  assert.equal(samplesOf(got).length, 34)
  assert.deepEqual(exporter.datagrams.followers, [])
})

const cases: { name: string; filter: Partial<TapFilter>; formats: number[] }[] = [
  { name: 'flows', filter: { classes: ['flows'] }, formats: [3, 3, 3] },
  { name: 'counters and drops', filter: { classes: ['counters', 'drops'] }, formats: [4, 4, 5, 5] },
  {
    name: 'an interface as data source, input or output',
    filter: { interfaces: new Set([8]) },
    formats: [3, 3, 4, 5],
  },
  { name: 'the index of the host is no interface', filter: { interfaces: new Set([1]) }, formats: [] },
  { name: 'an interface that is not there', filter: { interfaces: new Set() }, formats: [] },
]
for (const { name, filter, formats: expected } of cases) {
  test(`filter: ${name}`, () => {
    const { exporter, tap, flow, counters, drop } = setUp()
    const { got } = tap(filter)
    flow(7, 7, 8)
    flow(8, 0x3fffffff, 8)
    flow(9, 9, 10)
    counters(0, 8)
    counters(2, 1)
    drop(7, 8)
    drop(9, 0)
    exporter.datagrams.flush()
    assert.deepEqual(formats(got), expected)
  })
}

test('one in ten, and no more than a number each second; counters are not thinned', () => {
  mock.timers.enable({ apis: ['setInterval', 'setTimeout'] })
  try {
    const { exporter, tap, flow, counters } = setUp()
    const thin = tap({ every: 10 })
    const few = tap({ perSecond: 50 })
    for (let tenth = 0; tenth < 10; tenth++) {
      for (let i = 0; i < 20; i++) {
        flow(7, 7, 8)
        counters(0, 7)
      }
      mock.timers.tick(100)
    }
    exporter.datagrams.flush()
    const { matched, copied, passedOver, heldBack } = thin.tap
    assert.deepEqual(
      { matched, copied, passedOver, heldBack },
      { matched: 400, copied: 220, passedOver: 180, heldBack: 0 },
    )
    assert.equal(few.tap.copied, 250)
    assert.equal(few.tap.heldBack, 150)
    assert.equal(formats(few.got).filter(format => format === 3).length, 50)
    // A change of the filter does not begin another second.
    few.tap.change({ ...ALL, perSecond: 50, interfaces: new Set([7]) })
    for (let i = 0; i < 20; i++) flow(7, 7, 8)
    few.tap.change({ ...ALL, perSecond: 50 })
    for (let i = 0; i < 20; i++) flow(7, 7, 8)
    assert.equal(few.tap.copied, 255)
    thin.end()
    few.end()
  } finally {
    mock.timers.reset()
  }
})
