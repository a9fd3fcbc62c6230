import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { TrafficModel } from '../../agent/view/model.ts'
import {
  agentRows,
  dropRows,
  dropsByReason,
  FLOW_KEYS,
  flowTable,
  percentiles,
  portRows,
  queueRows,
  relativeError,
} from '../../agent/view/rows.ts'
import { mutations } from '../decode/mutations.ts'
import { VECTORS } from '../decode/vectors.ts'
import { counters, datagram, drop, type FlowWords, flow } from './datagrams.ts'

const model = (flows = 1000) => new TrafficModel({ windowMs: 10_000, flows })

/** Ten seconds of the samples, all at once in each second. */
function tenSeconds(words: readonly FlowWords[]): TrafficModel {
  const traffic = model()
  for (let second = 0; second <= 10; second++) {
    traffic.advance(second * 1000)
    if (second > 0) traffic.take(datagram(words.map(flow)), second * 1000)
  }
  return traffic
}

const table = (traffic: TrafficModel, name = 'flow', filter = '') =>
  flowTable(traffic, { key: FLOW_KEYS.find(key => key.name === name)!, sort: 'bits', filter, limit: 100 })
const cells = (traffic: TrafficModel, name: string, filter = '') =>
  table(traffic, name, filter).rows.map(row => row.cells.join(' | '))

suite('flows', () => {
  test('rates are those of the window, with the error of their samples', () => {
    // A sample of 1 in 100, 1,000 bytes, once a second: 100 packets/s, 800 kb/s.
    const { rows, total } = table(tenSeconds([{ rate: 100, bytes: 1000 }]))
    assert.equal(rows.length, 1)
    const [row] = rows
    assert.ok(row!.samples >= 9 && row!.samples <= 10)
    assert.ok(Math.abs(row!.packetsPerSecond - 100) < 13, `${row!.packetsPerSecond}`)
    assert.ok(Math.abs(row!.bitsPerSecond / row!.packetsPerSecond - 8000) < 1e-6)
    assert.equal(row!.error, 1.96 * Math.sqrt(1 / row!.samples))
    assert.equal(total.bitsPerSecond, row!.bitsPerSecond)
  })

  test('a window moves on: what has ended goes', () => {
    const traffic = tenSeconds([{}])
    traffic.advance(25_000)
    assert.deepEqual(table(traffic).rows, [])
    assert.equal(traffic.total().packets, 0)
  })

  test('a file is one window', () => {
    const traffic = new TrafficModel({ windowMs: Number.POSITIVE_INFINITY, flows: 10 })
    for (let second = 0; second < 1000; second++) traffic.take(datagram([flow({ rate: 10 })]), second * 1000)
    assert.equal(table(traffic).rows[0]!.samples, 1000)
    assert.ok(Math.abs(table(traffic).rows[0]!.packetsPerSecond - 10_000 / 999) < 1e-9)
  })

  const many: FlowWords[] = [
    { src: '10.0.0.1', dst: '10.0.0.2', sport: 50_000, dport: 53, vlan: 10, bytes: 500 },
    { src: '10.0.0.1', dst: '10.0.0.3', sport: 50_001, dport: 53, input: 2, output: 4, bytes: 400 },
    { src: '10.0.0.3', dst: '10.0.0.1', sport: 53, dport: 50_002, input: 4, output: 2, bytes: 300 },
  ]
  const rows: [key: string, filter: string, cells: string[]][] = [
    [
      'flow',
      '',
      [
        'UDP | 10.0.0.1:50000 | 10.0.0.2:53',
        'UDP | 10.0.0.1:50001 | 10.0.0.3:53',
        'UDP | 10.0.0.3:53 | 10.0.0.1:50002',
      ],
    ],
    ['pair', '', ['10.0.0.1 | 10.0.0.2', '10.0.0.1 | 10.0.0.3', '10.0.0.3 | 10.0.0.1']],
    ['source', '', ['10.0.0.1', '10.0.0.3']],
    ['destination', '', ['10.0.0.2', '10.0.0.3', '10.0.0.1']],
    ['service', '', ['UDP | 53']],
    ['interfaces', '', ['2 | 3', '2 | 4', '4 | 2']],
    ['vlan', '', ['untagged', '10']],
    ['macs', '', ['02:00:00:00:00:01 | 02:00:00:00:00:02']],
    ['agent', '', ['192.0.2.1']],
    ['pair', 'vlan=10', ['10.0.0.1 | 10.0.0.2']],
    ['pair', 'udp in=2', ['10.0.0.1 | 10.0.0.2', '10.0.0.1 | 10.0.0.3']],
    ['pair', '!vlan=10 10.0.0.3', ['10.0.0.1 | 10.0.0.3', '10.0.0.3 | 10.0.0.1']],
    ['pair', 'nothing', []],
  ]
  for (const [key, filter, expected] of rows) {
    test(`by ${key}${filter === '' ? '' : `, only ${filter}`}`, () => {
      assert.deepEqual(cells(tenSeconds(many), key, filter), expected)
    })
  }

  test('a packet that passes two sampled interfaces counts once', () => {
    const traffic = model()
    const at = (words: FlowWords, ms: number) => traffic.take(datagram([flow(words)]), ms)
    // Nothing is known of the ingress of interface 2 yet.
    at({ input: 2, output: 3, source: 3 }, 0)
    at({ input: 2, output: 3, source: 2 }, 100)
    at({ input: 2, output: 3, source: 3 }, 200)
    // What the device itself sends is sampled at its output alone.
    at({ input: 0x3fffffff, output: 3, source: 3 }, 300)
    assert.equal(traffic.total().samples, 3)
    assert.equal(traffic.seenTwice, 1)
  })

  test('interfaces have the names that agents tell, and nobody else may lead a terminal', () => {
    const traffic = model()
    traffic.take(datagram([counters(2, { name: 'eth0' }), counters(3, { name: 'e\u001b[2J' })]), 0)
    traffic.take(datagram([flow({}), flow({ input: 0x3fffffff, output: 2, source: 2 })]), 100)
    assert.deepEqual(cells(traffic, 'interfaces').sort(), ['eth0 | e\\x1b[2J', 'internal | eth0'])
  })

  test('a flood of flows is limited: small ones go, are counted, and stay in the sum', () => {
    const traffic = model(64)
    let seconds = 0
    for (let i = 0; i < 2000; i++) {
      if (i % 100 === 0) seconds++
      traffic.take(
        datagram([
          flow({ src: `10.${i >> 8}.${i & 255}.1`, bytes: 64 }),
          flow({ src: '10.9.9.9', bytes: 1500 }),
        ]),
        seconds * 100,
      )
    }
    assert.ok(traffic.flows.size <= 64)
    assert.ok(traffic.flows.evicted > 1000)
    const { rows, total, others } = table(traffic, 'source')
    assert.deepEqual(rows[0]!.cells, ['10.9.9.9'])
    const sum = [...rows, others!].reduce((bits, row) => bits + row.bitsPerSecond, 0)
    assert.ok(Math.abs(sum / total.bitsPerSecond - 1) < 1e-9)
  })

  test('an error of nothing is endless', () => {
    assert.equal(relativeError(0), Number.POSITIVE_INFINITY)
    assert.equal(relativeError(10_000).toFixed(4), '0.0196')
  })
})

suite('drops', () => {
  test('by reason and place, with the last packet', () => {
    const traffic = model()
    for (let i = 0; i < 5; i++) {
      traffic.take(
        datagram([drop({ kernel: 'NETFILTER_DROP', place: 'nf_hook_slow', dport: 8000 + i })]),
        i * 1000,
      )
    }
    traffic.take(datagram([drop({ reason: 257, input: 3 })]), 5000)
    const [first, second] = dropRows(traffic, 'packets', '')
    assert.deepEqual(
      [first!.reason, first!.detail, first!.place, first!.input, first!.packets, first!.ageSeconds],
      ['acl', 'NETFILTER_DROP', 'nf_hook_slow', '2', 5, 1],
    )
    assert.match(first!.lastPacket, /10\.0\.0\.1:40000 > 10\.0\.0\.2:8004 UDP/)
    assert.deepEqual([second!.reason, second!.input, second!.perSecond], ['ttl_exceeded', '3', 0.2])
    assert.deepEqual(dropRows(traffic, 'rate', 'netfilter').length, 1)
    assert.deepEqual(
      dropsByReason(traffic).map(({ reason, packets }) => [reason, packets]),
      [
        ['acl', 5],
        ['ttl_exceeded', 1],
      ],
    )
  })
})

suite('queues', () => {
  const rows: [values: number[], expected: number[] | undefined][] = [
    [[], undefined],
    [[7], [7, 7, 7, 7]],
    [
      [1, 2, 3, 4],
      [2, 4, 4, 4],
    ],
    [Array.from({ length: 100 }, (_, i) => i + 1), [50, 95, 99, 100]],
  ]
  for (const [values, expected] of rows) {
    test(`percentiles of ${values.length} values`, () => {
      const got = percentiles(Float64Array.from(values))
      assert.deepEqual(got === undefined ? undefined : [got.p50, got.p95, got.p99, got.max], expected)
    })
  }

  test('delay and depth of each queue, and of each second', () => {
    const traffic = model()
    for (let second = 0; second < 4; second++) {
      const samples = [10, 20, 30].map(depth =>
        flow({ queue: 1, depth: depth * (second + 1), delay: depth * 1000 }),
      )
      traffic.take(datagram(samples), second * 1000)
    }
    const [row] = queueRows(traffic, 'delay', '', 6)
    assert.deepEqual([row!.output, row!.queue, row!.samples], ['3', '1', 12])
    assert.deepEqual([row!.delay!.p50, row!.delay!.max], [20_000, 30_000])
    assert.deepEqual(row!.depths, [Number.NaN, Number.NaN, 30, 60, 90, 120])
  })
})

suite('interfaces', () => {
  test('rates are of the uptime between two counters samples, and counters wrap', () => {
    const traffic = model()
    const at = (uptime: number, words: Parameters<typeof counters>[1]) =>
      traffic.take(datagram([counters(2, words)], { uptime }), uptime)
    at(1000, { name: 'eth0', inOctets: 1000n, inPackets: 0xffffff00, inErrors: 5 })
    assert.ok(Number.isNaN(portRows(traffic, 'name', '', 5)[0]!.inBits))
    at(6000, { inOctets: 626_000n, outOctets: 5_000_000n, inPackets: 0x100, inErrors: 7, outDiscards: 3 })
    const [row] = portRows(traffic, 'name', '', 5)
    assert.deepEqual(
      [row!.name, row!.inBits, row!.outBits, row!.inPackets, row!.errors, row!.discards, row!.up],
      ['eth0', 1e6, 8e6, 102.4, 2, 3, true],
    )
    assert.equal(row!.utilisation, 0.008)
    // Set back to 0: no rate is made up.
    at(1500, { inOctets: 0n })
    assert.ok(Number.isNaN(portRows(traffic, 'name', '', 5)[0]!.inBits))
  })

  test('what a running agent tells takes the place of counters samples', () => {
    const traffic = model()
    const status = (rxBytes: number) => ({
      name: 'eth7',
      ifIndex: 7,
      alias: null,
      kind: null,
      speedBitsPerSecond: 1e9,
      adminUp: true,
      operUp: false,
      counters: {
        rxPackets: 0,
        rxBytes,
        rxErrors: 0,
        rxDropped: 0,
        txPackets: 0,
        txBytes: 0,
        txErrors: 0,
        txDropped: 1,
      },
    })
    traffic.takeInterfaces('192.0.2.1', [status(0)], 1000)
    traffic.takeInterfaces('192.0.2.1', [status(125_000)], 2000)
    traffic.take(datagram([counters(7, { inOctets: 1n }), counters(8, {})]), 2500)
    const rows = portRows(traffic, 'bits', '', 5)
    assert.deepEqual(
      rows.map(row => [row.name, row.inBits, row.up]),
      [['eth7', 1e6, false]],
    )
    traffic.takeInterfaces('192.0.2.1', [], 3000)
    assert.deepEqual(portRows(traffic, 'bits', '', 5), [])
  })
})

test('agents and what they have lost', () => {
  const traffic = model()
  traffic.take(datagram([flow({})], { agent: '192.0.2.7' }), 0)
  datagram([])
  datagram([])
  traffic.take(datagram([flow({}), drop({})], { agent: '192.0.2.7', uptime: 2000 }), 4000)
  traffic.advance(9000)
  assert.deepEqual(agentRows(traffic, ''), [
    {
      agent: '192.0.2.7',
      subAgent: 0,
      datagrams: 2,
      missing: 2,
      restarts: 0,
      flows: 2,
      drops: 1,
      counters: 0,
      ageSeconds: 5,
      uptimeSeconds: 2,
    },
  ])
})

test('a thinned stream is scaled', () => {
  const traffic = model()
  traffic.scale = 4
  traffic.take(datagram([flow({ rate: 100 }), drop({})]), 0)
  assert.deepEqual([traffic.total().packets, traffic.total().samples, traffic.totalDrops()], [400, 1, 4])
})

test('the last second of a file counts, that of a live view is not over', () => {
  const file = new TrafficModel({ windowMs: Number.POSITIVE_INFINITY, flows: 10 })
  const live = model()
  for (const traffic of [file, live]) {
    traffic.take(datagram([drop({})]), 100)
    traffic.take(datagram([drop({}), drop({})]), 1200)
  }
  assert.deepEqual(file.lastSeconds('drops', 3), [Number.NaN, 1, 2])
  assert.deepEqual(live.lastSeconds('drops', 2), [Number.NaN, 1])
})

/** Of one agent with one interface, flow, queue and drop, none of which was before. */
function stranger(number: number): Uint8Array {
  const agent = `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`
  const port = number + 10
  return datagram(
    [
      flow({
        src: agent,
        sport: number & 0xffff,
        input: port,
        output: port,
        queue: number,
        depth: 1,
        delay: 1,
      }),
      counters(port, { name: `port ${number} ${'x'.repeat(100)}` }),
      drop({ kernel: `REASON_${number}_${'y'.repeat(100)}`, place: 'z'.repeat(120), input: port }),
    ],
    { agent },
  )
}

test('a flood of strangers: what is held stays small, who was there stays, and the silent make room later', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const traffic = new TrafficModel({ windowMs: 10_000, flows: 4096 })
  const friend = () =>
    datagram([flow({ queue: 1, depth: 1 }), counters(2, { name: 'eth2' })], { agent: '192.0.2.9' })
  const used = () => {
    collect()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    return (heapUsed + arrayBuffers) / 2 ** 20
  }
  const before = used()
  for (let i = 0; i < 60_000; i++) {
    if (i % 100 === 0) traffic.take(friend(), i * 3)
    traffic.take(stranger(i), i * 3)
  }
  const growth = used() - before
  assert.ok(growth < 40, `${growth} MB are held`)
  assert.ok(traffic.notKept > 10_000)
  const isFriend = ({ agent }: { agent: string }) => agent === '192.0.2.9'
  const isSeen = () =>
    [agentRows(traffic, ''), portRows(traffic, 'bits', '', 5), queueRows(traffic, 'depth', '', 5)].every(
      rows => rows.some(isFriend),
    )
  assert.ok(isSeen())
  traffic.take(datagram([]), 200_000)
  const notKept = traffic.notKept
  traffic.take(stranger(1_000_000), 400_000)
  assert.equal(traffic.notKept, notKept)
  assert.equal(agentRows(traffic, '10.15.66.64').length, 1)
})

test('changed datagrams: no crash, and everything stays within its limits', () => {
  const traffic = model(256)
  const next = mutations([...VECTORS.values()], 0xbeef)
  for (let i = 0; i < 10_000; i++) traffic.take(next(), i * 3)
  assert.ok(traffic.flows.size <= 256)
  assert.ok(traffic.drops.size <= 1024)
  assert.ok(traffic.queues.size <= 256)
  assert.ok(traffic.ports.size <= 8192)
  assert.ok(traffic.agents.size <= 1024)
  assert.ok(traffic.malformed > 100)
  for (const key of FLOW_KEYS) flowTable(traffic, { key, sort: 'packets', filter: 'udp', limit: 10 })
  dropRows(traffic, 'rate', '')
  queueRows(traffic, 'depth', '', 60)
  portRows(traffic, 'errors', '', 60)
})
