import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { LineTime, sampleLines } from '../../agent/decode/line.ts'
import { Scanner } from '../../agent/decode/scanner.ts'
import { sflowtoolLines } from '../../agent/decode/sflowtool.ts'
import { Statistics } from '../../agent/decode/statistics.ts'
import { StreamWatch } from '../../agent/decode/streams.ts'
import { datagramText, harmless } from '../../agent/decode/text.ts'
import { TextBuffer } from '../../agent/decode/text-buffer.ts'
import { decodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import { datagramToJson } from '../../agent/wire/sflow/json.ts'
import { WireError } from '../../agent/wire/xdr.ts'
import { mutations } from './mutations.ts'
import { VECTORS } from './vectors.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** WEIR_FUZZ_RUNS=10000000 for a long run. */
const RUNS = Number(process.env.WEIR_FUZZ_RUNS ?? 20_000)

test(`${RUNS} changed datagrams in every form: no crash, no growth, nothing a terminal would obey`, () => {
  // What a terminal is given: lines of printable characters.
  const unprintable = /[^\n\x20-\x7e\u00a0-\uffff]|[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/
  let shown = 0
  const check = (text: string) => {
    shown += text.length
    const found = unprintable.exec(text)
    assert.equal(
      found,
      null,
      `character ${found?.[0].charCodeAt(0).toString(16)} at ${found?.index} of ${text}`,
    )
  }
  const out = new TextBuffer(piece => check(Buffer.from(piece).toString()))
  const scanner = new Scanner()
  const statistics = new Statistics()
  const streams = new StreamWatch()
  const sink = {
    datagram: statistics.datagram.bind(statistics),
    sample: (sample: Parameters<typeof sampleLines>[0]) => {
      statistics.sample(sample)
      sampleLines(sample, new LineTime(), out)
      sflowtoolLines(sample, out)
    },
  }
  let understood = 0
  const run = (bytes: Uint8Array) => {
    scanner.scan(bytes, 0, bytes.length, sink)
    try {
      const datagram = decodeDatagram(bytes)
      streams.next(datagram)
      check(datagramText(datagram, bytes.length))
      check(harmless(JSON.stringify(datagramToJson(datagram))))
      understood++
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      check(error.message)
    }
  }
  const next = mutations([...VECTORS.values()], 0x5eed)
  // Tables that are limited fill up first.
  for (let i = 0; i < RUNS / 2; i++) run(next())
  collect()
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < RUNS / 2; i++) run(next())
  out.flush()
  collect()
  const growth = process.memoryUsage().heapUsed - before
  assert.ok(understood > RUNS / 10, `${understood} were understood`)
  assert.ok(shown > RUNS)
  assert.ok(growth < 16 * 1024 * 1024, `the heap has grown by ${growth} bytes`)
})
