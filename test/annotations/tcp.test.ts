/** Which samples wait for the state of their connection, and that each of them leaves again. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { TcpAnnotator } from '../../agent/annotations/tcp.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'
import { emptyTunnel, type PacketSample } from '../../agent/samples/packet-sample.ts'
import { emptyTcpState, LOOKUP_BYTES, readTcpState, writeLookup } from '../../agent/wire/netlink/inet-diag.ts'
import { packetSample } from '../support/packet-samples.ts'

const HERE = '192.0.2.1'
const THERE = '198.51.100.9'

const tcp = [0x12, 0x34, 0x00, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]
const ip4 = (source: string, destination: string, protocol: number, payload: number[], fragment = 0) => [
  ...[0x45, 0, 0, 0, 0, 0, fragment >> 8, fragment & 0xff, 64, protocol, 0, 0],
  ...source.split('.').map(Number),
  ...destination.split('.').map(Number),
  ...payload,
]
const ethernet = (type: number, payload: number[]) => [
  ...[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
  type >> 8,
  type & 0xff,
  ...payload,
]
const frame = (source: string, destination: string, protocol: number, payload: number[], fragment = 0) =>
  ethernet(0x0800, ip4(source, destination, protocol, payload, fragment))
const vxlan = (inner: number[]) => [0x30, 0x39, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0, ...inner]

function sampleOf(bytes: number[], changes: Partial<PacketSample> = {}): PacketSample {
  const memory = new Uint8Array((bytes.length + 3) & ~3)
  memory.set(bytes)
  return packetSample(16, {
    headerWords: new Int32Array(memory.buffer),
    headerLength: bytes.length,
    ...changes,
  })
}

function annotator(tunnel = false) {
  const out: { sample: PacketSample; header: Uint8Array }[] = []
  const ledger = new Ledger()
  const under = new TcpAnnotator({
    tunnel,
    ledger,
    log: createLogger('silent'),
    vrfOf: () => 0,
    sink: sample => {
      const { headerWords, headerOffset, headerLength } = sample
      const header = new Uint8Array(headerWords.buffer, headerOffset, headerLength).slice()
      out.push({ sample: { ...sample }, header })
    },
    onBatchEnd: () => {},
  })
  under.setAddresses([HERE, '2001:db8::1', 'fe80::1', '10.0.2.1'])
  return { under, out, ledger }
}

const rows: [name: string, bytes: number[], held: boolean, heldInside: boolean][] = [
  ['sent from here', frame(HERE, THERE, 6, tcp), true, true],
  ['received here', frame(THERE, HERE, 6, tcp), true, true],
  ['passing through', frame(THERE, '203.0.113.1', 6, tcp), false, false],
  ['an address that ends alike', frame('10.0.2.1'.replace('10', '11'), THERE, 6, tcp), false, false],
  ['from here to here', frame(HERE, '10.0.2.1', 6, tcp), false, false],
  ['UDP', frame(HERE, THERE, 17, tcp), false, false],
  ['a later fragment', frame(HERE, THERE, 6, tcp, 0x2001), false, false],
  ['cut before the ports', frame(HERE, THERE, 6, tcp).slice(0, 36), false, false],
  ['IP in IP', frame('10.9.9.9', '10.8.8.8', 4, ip4(THERE, HERE, 6, tcp)), false, true],
  ['VXLAN', frame('10.9.9.9', '10.8.8.8', 17, vxlan(frame(HERE, THERE, 6, tcp))), false, true],
  [
    'VXLAN around what is no TCP',
    frame('10.9.9.9', '10.8.8.8', 17, vxlan(frame(HERE, THERE, 1, tcp))),
    false,
    false,
  ],
  [
    'VXLAN, cut',
    frame('10.9.9.9', '10.8.8.8', 17, vxlan(frame(HERE, THERE, 6, tcp))).slice(0, 60),
    false,
    false,
  ],
]
for (const [name, bytes, held, heldInside] of rows) {
  test(`${name}: ${held ? 'waits' : heldInside ? 'waits with tunnel = on' : 'goes its way'}`, t => {
    for (const [tunnel, expected] of [
      [false, held],
      [true, heldInside],
    ] as const) {
      const { under } = annotator(tunnel)
      t.after(() => under.stop())
      assert.equal(under.hold(sampleOf(bytes)), expected, `tunnel ${tunnel}`)
    }
  })
}

test('what waited is what it was, whatever has become of its source', () => {
  const { under, out } = annotator()
  const tunnel = {
    ...emptyTunnel(),
    id: 7,
    source: Uint8Array.of(1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
  }
  const bytes = frame(HERE, THERE, 6, tcp)
  const sample = sampleOf(bytes, { lostBefore: 3, samplingRate: 9, tunnel })
  assert.ok(under.hold(sample))
  sample.headerWords.fill(0)
  sample.samplingRate = 1
  tunnel.source.fill(0)
  assert.equal(out.length, 0)
  under.stop()
  under.stop()
  assert.equal(out.length, 1)
  const [first] = out
  assert.deepEqual([...first!.header], bytes)
  assert.deepEqual(
    [first!.sample.samplingRate, first!.sample.lostBefore, first!.sample.tcp],
    [9, 3, undefined],
  )
  assert.deepEqual([...first!.sample.tunnel!.source.slice(0, 4)], [1, 2, 3, 4])
})

test('no socket: the sample leaves as soon as the kernel says so; more than can wait go their way', async t => {
  const { under, out, ledger } = annotator()
  t.after(() => under.stop())
  const sample = sampleOf(frame(HERE, THERE, 6, tcp))
  let held = 0
  for (let i = 0; i < 1500; i++) if (under.hold(sample)) held++
  assert.equal(held, 1024)
  assert.equal(ledger.total('tcp'), 1500 - 1024)
  under.ask()
  for (let i = 0; i < 1000 && out.length < held; i++) await sleep(20)
  assert.equal(out.length, held)
  assert.equal(under.annotated, 0)
  assert.ok(out.every(one => one.sample.tcp === undefined))
  assert.ok(under.hold(sample), 'there is room again')
})

test('samples of one connection share an answer, each with its own direction', async t => {
  const { under, out } = annotator()
  t.after(() => under.stop())
  under.setAddresses(['127.0.0.1'])
  const server = createServer().listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const ends: { near: Socket; far: Socket }[] = []
  for (let i = 0; i < 2; i++) {
    const far = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' })
    const [near] = (await once(server, 'connection')) as [Socket]
    t.after(() => {
      far.destroy()
      near.destroy()
    })
    ends.push({ near, far })
  }
  const packet = (source: [string, number], destination: [string, number]) => {
    const ports = [source[1] >> 8, source[1] & 0xff, destination[1] >> 8, destination[1] & 0xff]
    return sampleOf(frame(source[0], destination[0], 6, [...ports, ...tcp.slice(4)]))
  }
  const nearEnd: [string, number] = ['127.0.0.1', port]
  const farEnd = (i: number): [string, number] => ['127.0.0.2', ends[i]!.far.localPort!]
  for (let round = 0; round < 3; round++) {
    for (const i of [0, 1]) {
      assert.ok(under.hold(packet(nearEnd, farEnd(i))))
      assert.ok(under.hold(packet(farEnd(i), nearEnd)))
    }
  }
  // Another that nobody has: the kernel finds the socket that listens.
  assert.ok(under.hold(packet(nearEnd, ['127.0.0.3', 1])))
  under.ask()
  for (let i = 0; i < 1000 && out.length < 13; i++) await sleep(20)
  const told = out.map(({ sample: { tcp } }) => tcp)
  assert.equal(told.length, 13)
  assert.equal(under.annotated, 12)
  assert.deepEqual(told.map(one => one?.direction).toSorted(), [
    ...Array.from({ length: 6 }, () => 1),
    ...Array.from({ length: 6 }, () => 2),
    undefined,
  ])
  assert.ok(told.every(one => one === undefined || (one.sndMss > 500 && one.congestionWindow > 0)))
})

test('answers that are cut or strange are no state', () => {
  const state = emptyTcpState()
  const view = new DataView(new ArrayBuffer(400))
  view.setUint16(4, 20, true)
  for (let end = 16; end < 88; end++) assert.equal(readTcpState(view, 0, end, state), false)
  // An attribute that ends before the fields of a later kernel.
  view.setUint16(88, 4 + 72, true)
  view.setUint16(90, 2, true)
  view.setUint32(92 + 68, 123, true)
  view.setUint32(92 + 72, 456, true)
  assert.ok(readTcpState(view, 0, 92 + 72, state))
  assert.deepEqual([state.rtt, state.rttVariance, state.leastRtt], [123, 0, 0])
  view.setUint16(88, 3, true)
  assert.throws(() => readTcpState(view, 0, 200, state), { name: 'NetlinkFormatError' })
  view.setUint16(88, 300, true)
  assert.throws(() => readTcpState(view, 0, 200, state), { name: 'NetlinkFormatError' })
  const connection = { bytes: new Uint8Array(32), addressBytes: 16, localAt: 0, remoteAt: 16 } as const
  writeLookup(view, 8, 5, { ...connection, localPort: 1, remotePort: 2, boundTo: 3 })
  assert.equal(view.getUint32(8, true), LOOKUP_BYTES)
})
