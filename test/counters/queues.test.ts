import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, test } from 'node:test'
import { InterfaceStatistics } from '../../agent/counters/interface-statistics.ts'
import { pfcOf, pfcReader } from '../../agent/counters/pfc.ts'
import { queuesOf, queuesReader } from '../../agent/counters/queues.ts'
import { isPolled } from '../../agent/parts/interface-polling.ts'
import { NetlinkFormatError } from '../../agent/wire/netlink/attributes.ts'
import { readPfc } from '../../agent/wire/netlink/dcb.ts'
import { type Message, MessageBuilder } from '../../agent/wire/netlink/message.ts'
import { UNKNOWN32 } from '../../agent/wire/struct.ts'
import { ip, ipBatch, makeNamespace } from '../kernel/namespaces.ts'
import { port } from '../support/port.ts'

/** A reply of RTM_GETDCB with a struct ieee_pfc of so many bytes. */
function pfcReply(enabled: number, requests: number[], indications: number[], bytes = 136): Message {
  const state = new DataView(new ArrayBuffer(bytes))
  state.setUint8(0, 8)
  state.setUint8(1, enabled)
  state.setUint16(4, 0x4242, true)
  for (const [i, count] of requests.entries()) state.setBigUint64(8 + 8 * i, BigInt(count), true)
  for (const [i, count] of indications.entries()) state.setBigUint64(72 + 8 * i, BigInt(count), true)
  const reply = new MessageBuilder(78, 0, Uint8Array.of(0, 21, 0, 0))
    .text(1, 'eth0')
    .nest(13, ieee => ieee.bytes(2, new Uint8Array(state.buffer)))
    .build()
  return { type: 78, flags: 0, view: new DataView(reply.buffer) }
}

describe('pfc', () => {
  test('sums of the priorities; requests are what was sent', () => {
    const state = readPfc(pfcReply(0x18, [1, 0, 0, 40, 500, 0, 0, 6000], [0, 0, 0, 7, 80]))!
    assert.deepEqual(pfcOf(state), {
      requests: 6541,
      indications: 87,
      pause_duration: UNKNOWN32,
      storm_detected: UNKNOWN32,
      storm_restored: UNKNOWN32,
    })
  })

  test('not in use: no record; switched off after use: still', () => {
    assert.equal(pfcOf(readPfc(pfcReply(0, [], []))!), undefined)
    assert.equal(pfcOf(readPfc(pfcReply(0, [0, 1], []))!)!.requests, 1)
    assert.equal(pfcOf(readPfc(pfcReply(0x08, [], []))!)!.requests, 0)
  })

  test('a state cut short is an error; a longer one of a later kernel is not', () => {
    assert.throws(() => readPfc(pfcReply(0, [], [], 128)), NetlinkFormatError)
    assert.equal(readPfc(pfcReply(1, [9], [], 200))!.requests[0], 9n)
  })

  test('a driver without it is asked once, a virtual interface never', async () => {
    let asked = 0
    const ask = async () => {
      asked++
      return undefined
    }
    const reader = pfcReader(() => port(2, 'eth0'), ask)
    for (let poll = 0; poll < 3; poll++) assert.equal(await reader.read(), undefined)
    assert.equal(asked, 1)
    assert.equal(await pfcReader(() => port(3, 'v0', { kind: 'veth' }), ask).read(), undefined)
    assert.equal(asked, 1)
  })

  test('the kernel here says that a veth has none', async t => {
    const namespace = makeNamespace(t)
    ip('-n', namespace, 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1')
    const statistics = await InterfaceStatistics.open(namespace)
    t.after(() => statistics.close())
    assert.deepEqual(await Promise.all(['v0', 'lo', 'nobody'].map(name => statistics.pfc(name))), [
      undefined,
      undefined,
      undefined,
    ])
  })
})

interface ShownQdisc {
  readonly kind: string
  readonly handle?: string
  readonly root?: boolean
  readonly bytes: number
  readonly packets: number
  readonly drops: number
  readonly overlimits: number
  readonly requeues: number
  readonly backlog: number
  readonly qlen: number
}

test('queueing disciplines are those that tc shows, also where they drop and hold back', async t => {
  const namespace = makeNamespace(t)
  ipBatch(namespace, [
    'link add v0 type veth peer name v1',
    'link set v0 up',
    'link set v1 up',
    'address add 192.0.2.1/24 dev v0',
    'neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev v0',
  ])
  const exec = (...command: string[]) =>
    execFileSync('ip', ['netns', 'exec', namespace, ...command], { encoding: 'utf8' })
  exec('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1')
  exec('tc', 'qdisc', 'add', 'dev', 'v0', 'clsact')
  // Room for few packets at little speed: most of the burst is dropped, the rest waits.
  exec(
    ...['tc', 'qdisc', 'add', 'dev', 'v0', 'root', 'handle', '7:', 'tbf'],
    ...['rate', '8kbit', 'burst', '2k', 'limit', '3k'],
  )
  exec('sh', '-c', 'ping -q -c 40 -i 0.002 -s 400 -W 1 192.0.2.2 || true')
  const statistics = await InterfaceStatistics.open(namespace)
  t.after(() => statistics.close())
  const [v0] = JSON.parse(ip('-n', namespace, '-j', 'link', 'show', 'v0')) as { ifindex: number }[]
  const [v1] = JSON.parse(ip('-n', namespace, '-j', 'link', 'show', 'v1')) as { ifindex: number }[]
  const shown = () => JSON.parse(exec('tc', '-s', '-j', 'qdisc', 'show', 'dev', 'v0')) as ShownQdisc[]
  const reader = queuesReader(() => port(v0!.ifindex, 'v0'), statistics.qdiscs)
  for (let tries = 0; ; tries++) {
    const before = shown()
    const record = (await reader.read())!
    const after = shown()
    // The queue empties slowly: what was the same before and after was so in between.
    if (JSON.stringify(before) !== JSON.stringify(after) && tries < 20) continue
    const [queue] = record.queues
    const tbf = before.find(({ kind }) => kind === 'tbf')!
    assert.equal(record.queues.length, before.filter(({ kind }) => kind !== 'clsact').length)
    assert.ok(tbf.drops > 0 && tbf.overlimits > 0, JSON.stringify(tbf))
    assert.deepEqual(queue, {
      handle: 0x70000,
      parent: 0xffff_ffff,
      kind: 'tbf',
      bytes: BigInt(tbf.bytes),
      packets: BigInt(tbf.packets),
      drops: tbf.drops,
      overlimits: tbf.overlimits,
      requeues: tbf.requeues,
      queue_packets: tbf.qlen,
      queue_bytes: tbf.backlog,
    })
    break
  }
  assert.equal(await queuesReader(() => port(v1!.ifindex, 'v1'), statistics.qdiscs).read(), undefined)
})

test('of hundreds of queues the first are told', () => {
  const one = { ifIndex: 1, handle: 1, parent: 2, kind: 'fq_codel', bytes: 0n, packets: 0n }
  const none = { drops: 0, overlimits: 0, requeues: 0, queuedPackets: 0, queuedBytes: 0 }
  assert.equal(queuesOf(new Array(300).fill({ ...one, ...none }))!.queues.length, 24)
})

describe('which interfaces are polled', () => {
  const cases: [name: string, of: Parameters<typeof port>[2], wasPolled: boolean, polled: boolean][] = [
    ['up', {}, false, true],
    ['never up', { adminUp: false }, false, false],
    ['down after it was up', { adminUp: false }, true, true],
    ['the port of a switch, down', { adminUp: false, switchId: '00aa' }, false, true],
    ['loopback', { loopback: true }, false, false],
  ]
  for (const [name, of, wasPolled, polled] of cases) {
    test(name, () => {
      assert.equal(isPolled(port(2, 'eth0', of), { interfaces: undefined }, wasPolled), polled)
    })
  }

  test('a pattern decides by the name alone', () => {
    const interfaces = /^(eth|lo)/
    assert.equal(isPolled(port(2, 'eth0', { adminUp: false }), { interfaces }, false), true)
    assert.equal(isPolled(port(1, 'lo', { loopback: true }), { interfaces }, false), true)
    assert.equal(isPolled(port(3, 'veth7'), { interfaces }, true), false)
  })
})
