import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CollectorConfig } from '../../agent/config/config.ts'
import { loadConfig } from '../../agent/config/load.ts'
import type { SocketTarget } from '../../agent/export/collectors.ts'
import { Exporter } from '../../agent/export/exporter.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'
import { type DecodedDatagram, decodeDatagram } from '../../agent/wire/sflow/datagram.ts'

const INTERNAL = 0x3fffffff

function collectorsOf(text: string): readonly CollectorConfig[] {
  if (text === '') return []
  const { config, problems } = loadConfig(`sFlow { ${text} }`, 'a')
  assert.deepEqual(problems, [])
  return config!.collectors
}

/** An exporter whose datagrams are kept by port; `paths` are the bytes that the way to a port takes. */
function exporter(text: string, paths: Record<number, number> = {}) {
  const got: Record<number, (DecodedDatagram & { bytes: number; wire: DataView })[]> = {}
  const closed: number[] = []
  const open = ({ port }: SocketTarget) => {
    got[port] ??= []
    return {
      bytes: 0,
      mostBytes: paths[port] ?? 65_507,
      errors: new Map(),
      reports: new Map(),
      send: (memory: ArrayBuffer, spans: Int32Array, count: number) => {
        for (let i = 0; i < count; i++) {
          const bytes = new Uint8Array(memory, spans[i * 2]!, spans[i * 2 + 1]!).slice()
          got[port]!.push({ ...decodeDatagram(bytes), bytes: bytes.length, wire: new DataView(bytes.buffer) })
        }
        return count
      },
      close: () => closed.push(port),
    }
  }
  const ledger = new Ledger()
  const out = new Exporter({
    collectors: collectorsOf(text),
    datagrams: { subAgentId: 1, maxBytes: 1400, flushMs: 250 },
    ledger,
    log: createLogger('silent'),
    open,
    follow: () => ({ close: () => {} }),
    uptimeMs: () => 0,
  })
  out.changeAgentAddress(Uint8Array.of(192, 0, 2, 1))
  out.start()
  return { out, got, closed, ledger }
}

/** Commits a sample of this format with these words behind format and length. */
function put(out: Exporter, format: number, words: readonly number[]): void {
  const bytes = 8 + words.length * 4
  const { datagrams } = out
  const at = datagrams.reserve(bytes)
  assert.ok(at >= 0)
  for (const [i, word] of [format, bytes - 8, ...words].entries()) datagrams.view.setUint32(at + i * 4, word)
  datagrams.commit(at + bytes)
}
const flow = (out: Exporter, input: number, output: number) =>
  put(out, 3, [1, 0, 7, 100, 100, 0, 0, input, 0, output, 0])
const drop = (out: Exporter, input: number) => put(out, 5, [1, 0, 7, 0, input, 0, 256, 0])
const counters = (out: Exporter) => put(out, 4, [1, 0, 7, 0])

const formats = (datagrams: readonly DecodedDatagram[]) =>
  datagrams.map(({ samples }) => samples.map(sample => ('sample' in sample ? sample.sample.format : -1)))
const sequences = (datagrams: readonly DecodedDatagram[]) =>
  datagrams.map(({ sequence_number }) => sequence_number)

test('each collector gets its classes, in datagrams numbered without gaps', () => {
  const { out, got } = exporter(`
    collector { ip = 192.0.2.9 udpport = 1 }
    collector { ip = 192.0.2.9 udpport = 2 send = counters }
    collector { ip = 192.0.2.9 udpport = 3 send = flows,drops }
    collector { ip = 192.0.2.9 udpport = 4 separate = on }
    collector { ip = 192.0.2.9 udpport = 5 }
    collector { ip = 192.0.2.9 udpport = 6 send = drops,flows,counters }`)
  for (let round = 0; round < 2; round++) {
    flow(out, 1, 2)
    flow(out, 1, 2)
    counters(out)
    drop(out, 1)
    out.datagrams.flush()
  }
  const whole = [3, 3, 4, 5]
  assert.deepEqual(formats(got[1]!), [whole, whole])
  assert.deepEqual(got[5], got[1])
  assert.deepEqual(got[6], got[1], 'all classes are no variant')
  assert.deepEqual(formats(got[2]!), [[4], [4]])
  assert.deepEqual(formats(got[3]!), [
    [3, 3, 5],
    [3, 3, 5],
  ])
  assert.deepEqual(formats(got[4]!), [[3, 3], [4], [5], [3, 3], [4], [5]])
  for (const datagrams of Object.values(got)) {
    assert.deepEqual(
      sequences(datagrams),
      datagrams.map((_, i) => i + 1),
    )
  }
  assert.equal(out.closed, 2 + 2 + 2 + 6)
  assert.deepEqual(
    out.status().map(({ port, offered }) => [port, offered]),
    [
      [1, 2],
      [2, 2],
      [3, 2],
      [4, 6],
      [5, 2],
      [6, 2],
    ],
  )
  out.stop()
})

test('internal-interface: the number of the device itself, and nothing else', () => {
  const { out, got } = exporter(`
    collector { ip = 192.0.2.9 udpport = 1 }
    collector { ip = 192.0.2.9 udpport = 2 internal-interface = 0 }`)
  flow(out, INTERNAL, 2)
  flow(out, 3, INTERNAL)
  flow(out, 3, 4)
  drop(out, INTERNAL)
  out.stop()
  const ends = (datagram: DecodedDatagram) =>
    datagram.samples.map(sample => {
      assert.ok('sample' in sample)
      const value = sample.value as Record<string, unknown>
      return [value.input ?? value.inputifindex, value.output ?? value.outputifindex]
    })
  const port = (value: number) => ({ format: 0, value })
  assert.deepEqual(ends(got[1]![0]!), [
    [port(INTERNAL), port(2)],
    [port(3), port(INTERNAL)],
    [port(3), port(4)],
    [INTERNAL, 0],
  ])
  assert.deepEqual(ends(got[2]![0]!), [
    [port(0), port(2)],
    [port(3), port(0)],
    [port(3), port(4)],
    [0, 0],
  ])
})

test('drop-codes: the numbers of hsflowd for one collector, those of the registry for the others', () => {
  const { out, got } = exporter(`
    collector { ip = 192.0.2.9 udpport = 1 }
    collector { ip = 192.0.2.9 udpport = 2 drop-codes = hsflowd }`)
  flow(out, 332, 366)
  for (const reason of [332, 366, 256, 33, 36]) put(out, 5, [1, 0, 7, 0, 1, 0, reason, 0])
  out.stop()
  // Words of the first datagram as they are on the wire: a decoder takes both numbers for the same.
  const reasons = (datagram: DecodedDatagram & { wire: DataView }) =>
    [0, 1, 2, 3, 4].map(i => datagram.wire.getUint32(28 + 52 + i * 40 + 32))
  assert.deepEqual(reasons(got[1]![0]!), [332, 366, 256, 33, 36])
  assert.deepEqual(reasons(got[2]![0]!), [33, 36, 256, 33, 36])
  const flowAt = (port: number) => Buffer.from(got[port]![0]!.wire.buffer).subarray(28, 28 + 52)
  assert.deepEqual(flowAt(2), flowAt(1), 'what is no drop is not touched')
})

test('a short path makes the datagrams of its stream shorter, until its collector is gone', () => {
  const { out, got, closed, ledger } = exporter(
    `collector { ip = 192.0.2.9 udpport = 1 }
    collector { ip = 192.0.2.9 udpport = 2 }
    collector { ip = 192.0.2.9 udpport = 3 send = flows }`,
    { 2: 600 },
  )
  for (let i = 0; i < 40; i++) flow(out, 1, 2)
  out.datagrams.flush()
  for (const port of [1, 2]) {
    const longest = Math.max(...got[port]!.map(({ bytes }) => bytes))
    assert.ok(longest <= 600 && longest > 600 - 52, `${longest}`)
  }
  assert.ok(got[3]![0]!.bytes > 1300)
  assert.equal(out.datagrams.room, 600 - 28)
  out.changeCollectors(
    collectorsOf(
      `collector { ip = 192.0.2.9 udpport = 1 } collector { ip = 192.0.2.9 udpport = 3 send = flows }`,
    ),
  )
  assert.deepEqual(closed, [2])
  assert.equal(out.datagrams.room, 1400 - 28)
  assert.equal(ledger.total('datagrams'), 0)
  out.stop()
})

test('a change of collectors loses nothing of those that stay', () => {
  const one = 'collector { ip = 192.0.2.9 udpport = 1 }'
  const two = 'collector { ip = 192.0.2.9 udpport = 2 send = flows }'
  const { out, got, closed } = exporter(`${one} ${two}`)
  flow(out, 1, 2)
  out.changeCollectors(collectorsOf(one))
  flow(out, 1, 2)
  out.changeCollectors(collectorsOf(`${two} ${one}`))
  flow(out, 1, 2)
  out.stop()
  assert.deepEqual(sequences(got[1]!), [1, 2, 3])
  assert.deepEqual(closed, [2, 1, 2])
  assert.deepEqual(sequences(got[2]!), [1, 1], 'a stream that comes back begins anew')
  assert.equal(out.closed, 3 + 2)
})

test('without an agent address nothing is sent, and it is counted', () => {
  const { out, got, ledger } = exporter('collector { ip = 192.0.2.9 udpport = 1 }')
  out.changeAgentAddress(undefined)
  flow(out, 1, 2)
  out.stop()
  assert.deepEqual(got[1], [])
  assert.equal(ledger.total('datagrams'), 1)
  assert.deepEqual(out.balance, { filled: 1, given: 0, unclaimed: 0, withoutAddress: 1 })
})

test('every datagram is given to collectors or counted otherwise, through all changes', () => {
  const { out, got } = exporter('collector { ip = 192.0.2.9 udpport = 1 }')
  const change = (text: string) => {
    flow(out, 1, 2)
    out.changeCollectors(collectorsOf(text))
    flow(out, 1, 2)
  }
  flow(out, 1, 2)
  change('collector { ip = 192.0.2.9 udpport = 2 send = flows }')
  change('collector { ip = 192.0.2.9 udpport = 3 } collector { ip = 192.0.2.9 udpport = 4 separate = on }')
  change('')
  out.changeAgentAddress(undefined)
  flow(out, 1, 2)
  out.stop()
  const { filled, given, unclaimed, withoutAddress } = out.balance
  assert.equal(filled, given + unclaimed + withoutAddress)
  assert.equal(
    given,
    [1, 2, 3, 4].reduce((sum, port) => sum + got[port]!.length, 0),
  )
  assert.ok(unclaimed > 0 && withoutAddress > 0)
})
