/**
 * Dropped packets on a real kernel, as a collector receives them: software drops provoked one by one, the traps of a
 * simulated switch, other users of the drop monitor, floods.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { resolveFamily } from '../../../agent/kernel/genl.ts'
import { NETLINK_GENERIC, NetlinkError, NetlinkSocket } from '../../../agent/kernel/netlink-socket.ts'
import {
  configureDropMonitor,
  getDropMonitorConfig,
  readDropMonitorConfig,
  startDropMonitor,
  stopDropMonitor,
} from '../../../agent/wire/netlink/drop-monitor.ts'
import { findRecord } from '../../../agent/wire/sflow/block.ts'
import {
  extendedFunction,
  extendedHwTrap,
  extendedLinuxDropReason,
  extendedTimestamp,
} from '../../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../../agent/wire/sflow/flow/header.ts'
import { discardedPacketOf } from '../../../agent/wire/sflow/samples.ts'
import { udpFrame } from '../../support/frames.ts'
import { ifIndex, ip, modprobe, neighbour, netdevsim, run, tc, unload } from '../../support/guest.ts'
import { type Collector, ifIndexOf, listen, runWeir, sendFrames, sink, until } from '../../support/lab.ts'

modprobe('veth', 'drop_monitor', 'act_gact', 'cls_matchall', 'sch_ingress', 'bridge', 'dummy', 'sch_tbf')

const PORT = 'vd'
const PEER = `weir-V-${PORT}`
const COLLECTOR = { address: '192.0.2.2', port: 6343 }
/** So many of each kind, so that counts can be told from noise. */
const COUNT = 20

function macOf(place: string, device: string): string {
  return /link\/ether (\S+)/.exec(ip(`${place} link show ${device}`.trim()))![1]!
}

function sysctl(path: string, value: string): void {
  writeFileSync(`/proc/sys/${path}`, value)
}

/** A neighbour with a collector, and an agent in the first namespace, where the drop monitor is. */
async function lab(t: TestContext, dropmon: string) {
  neighbour(t, PORT)
  const collector = listen(t, PEER, COLLECTOR)
  const start = async (settings = dropmon, under = ['env']) => {
    const folder = mkdtempSync(join(tmpdir(), 'weir-dropmon-'))
    t.after(() => rmSync(folder, { recursive: true, force: true }))
    const file = join(folder, 'weir.conf')
    const write = (blocks: string) =>
      writeFileSync(file, `sFlow { polling = 0 collector { ip = ${COLLECTOR.address} } ${blocks} }\n`)
    write(`dropmon { source = drop_monitor ${settings} }`)
    const agent = runWeir(t, under, ['run', '-f', file])
    // A busy machine takes its time to load a program in emulation.
    await until('agent', () => agent.log.some(({ msg }) => msg === 'running'), 90_000)
    const change = (blocks: string) => {
      write(blocks)
      agent.child.kill('SIGHUP')
    }
    return Object.assign(agent, { change })
  }
  const ours = macOf('', PORT)
  const theirs = macOf(`-n ${PEER}`, `${PORT}p`)
  const there = ifIndexOf(PEER, `${PORT}p`)
  const frame = (options: Partial<Parameters<typeof udpFrame>[0]>) =>
    udpFrame({ to: ours, from: theirs, source: '192.0.2.2', destination: '192.0.2.1', ...options })
  const send = (options: Partial<Parameters<typeof udpFrame>[0]>, count = COUNT) =>
    sendFrames(PEER, there, frame(options), count)
  return { collector, start, frame, send }
}

/** Discards as they arrived, with what their records say. */
function dropsOf({ arrivals }: Collector) {
  return arrivals.flatMap(({ datagram, time }) =>
    datagram.samples.flatMap(block => {
      const packet = discardedPacketOf(block)
      if (packet === undefined || !('records' in block)) return []
      const { records } = block
      const header = findRecord(records, sampledHeader)!
      return [
        {
          ...packet,
          time,
          header,
          trap: findRecord(records, extendedHwTrap),
          symbol: findRecord(records, extendedFunction)?.symbol,
          linux: findRecord(records, extendedLinuxDropReason)?.reason,
          nanoseconds: findRecord(records, extendedTimestamp)?.nanoseconds ?? 0n,
        },
      ]
    }),
  )
}

type Seen = ReturnType<typeof dropsOf>[number]

/** Those whose header is that of the frame: nothing else that the machine drops looks like it. */
function withHeader(drops: readonly Seen[], frame: Uint8Array, from = 0): Seen[] {
  return drops.filter(({ header }) => {
    const { header: bytes } = header
    const most = Math.min(bytes.length, frame.length)
    return (
      bytes.length > from + 20 && Buffer.compare(bytes.subarray(from, most), frame.subarray(from, most)) === 0
    )
  })
}

interface Case {
  readonly name: string
  readonly code: number
  readonly reason: string | readonly string[]
  readonly symbol?: RegExp
  /** Frame to send, and what must be in place. */
  readonly frame: Partial<Parameters<typeof udpFrame>[0]>
  readonly prepare?: (t: TestContext) => void
  readonly count?: number
  /** Bytes of the frame that the kernel changes before it drops it: they are not compared. */
  readonly changedBytes?: number
  readonly dropped?: (count: number) => boolean
}

const route = (t: { after(f: () => void): void }, line: string) => {
  ip(`route add ${line}`)
  t.after(() => {
    try {
      ip(`route del ${line}`)
    } catch {
      // Gone with its interface.
    }
  })
}

const dummy = (t: TestContext, mtu = 1500) => {
  ip('link add dum0 type dummy')
  t.after(() => ip('link del dum0'))
  ip(`link set dum0 mtu ${mtu} up`)
  route(t, '203.0.113.0/24 dev dum0')
}

const SOFTWARE: readonly Case[] = [
  { name: 'no socket', code: 3, reason: 'NO_SOCKET', frame: { port: 9 } },
  {
    name: 'TTL exceeded',
    code: 257,
    reason: ['IP_INHDR', 'NOT_SPECIFIED'],
    symbol: /^ip_forward\+/,
    frame: { destination: '203.0.113.9', ttl: 1 },
    prepare: t => dummy(t),
  },
  { name: 'no route', code: 0, reason: 'IP_INNOROUTES', frame: { destination: '198.18.0.1' } },
  { name: 'reverse path', code: 335, reason: 'IP_RPFILTER', frame: { source: '198.18.7.7' } },
  {
    name: 'nftables',
    code: 258,
    reason: 'NETFILTER_DROP',
    frame: { port: 77 },
    prepare: t => {
      run('nft', 'add table ip weir; add chain ip weir in { type filter hook input priority 0; }')
      t.after(() => run('nft', 'delete table ip weir'))
      run('nft', 'add rule ip weir in udp dport 77 drop')
    },
  },
  {
    name: 'tc on ingress',
    code: 365,
    reason: 'TC_INGRESS',
    frame: { port: 78 },
    prepare: t => {
      tc(`qdisc add dev ${PORT} clsact`)
      t.after(() => tc(`qdisc del dev ${PORT} clsact`))
      tc(`filter add dev ${PORT} ingress matchall action drop`)
    },
  },
  { name: 'IP checksum', code: 275, reason: 'IP_CSUM', frame: { wrongIpChecksum: true } },
  {
    name: 'UDP checksum',
    code: 316,
    reason: 'UDP_CSUM',
    frame: { wrongUdpChecksum: true, port: 79 },
  },
  {
    name: 'larger than the MTU',
    code: 262,
    reason: 'PKT_TOO_BIG',
    frame: { destination: '203.0.113.9', payloadBytes: 1000, dontFragment: true },
    prepare: t => dummy(t, 600),
  },
  {
    name: 'queue full',
    code: 259,
    reason: ['QDISC_DROP', 'QDISC_OVERLIMIT'],
    frame: { destination: '203.0.113.9', payloadBytes: 500 },
    changedBytes: 26,
    prepare: t => {
      dummy(t)
      tc('qdisc add dev dum0 root tbf rate 8kbit burst 1600 limit 1600')
    },
    dropped: count => count > COUNT / 2 && count < COUNT,
  },
  {
    name: 'neighbour that does not answer',
    code: 279,
    reason: 'NEIGH_FAILED',
    frame: { destination: '192.0.2.77', source: '192.0.2.2' },
    changedBytes: 26,
    count: 3,
  },
  {
    name: 'socket buffer full',
    code: 259,
    reason: ['SOCKET_RCVBUFF', 'PROTO_MEM'],
    frame: { port: 80, payloadBytes: 1200 },
    prepare: t => sink(t, '/proc/self/ns/net', { address: '192.0.2.1', port: 80 }),
    count: 600,
    dropped: count => count > 300 && count < 600,
  },
  {
    name: 'unknown EtherType',
    code: 325,
    reason: 'UNHANDLED_PROTO',
    frame: { etherType: 0x88b6 },
  },
]

test('software drops arrive with reason, interface and header', async t => {
  const { collector, start, frame } = await lab(t, 'limit = 10000 hw = off')
  for (const [path, value] of [
    ['net/ipv4/ip_forward', '1'],
    [`net/ipv4/conf/${PORT}/rp_filter`, '1'],
    ['net/ipv4/conf/all/send_redirects', '0'],
    [`net/ipv4/conf/${PORT}/send_redirects`, '0'],
  ] as const) {
    sysctl(path, value)
  }
  t.after(() => sysctl('net/ipv4/ip_forward', '0'))
  const agent = await start()
  await agent.line(/^listening for dropped packets/)
  const port = ifIndex(PORT)
  const there = ifIndexOf(PEER, `${PORT}p`)
  for (const {
    name,
    code,
    reason,
    symbol,
    count = COUNT,
    prepare,
    dropped,
    changedBytes = 0,
    ...rest
  } of SOFTWARE) {
    await t.test(name, async inner => {
      prepare?.(inner)
      const sent = frame(rest.frame)
      const seen = () => withHeader(dropsOf(collector), sent, changedBytes)
      sendFrames(PEER, there, sent, count)
      const isEnough = dropped ?? (n => n === count)
      try {
        await until('drops', () => isEnough(seen().length), 10_000)
      } catch {
        const all = dropsOf(collector).slice(-10)
        assert.fail(`${seen().length} of ${count} arrived; the last drops: ${JSON.stringify(all.map(brief))}`)
      }
      await sleep(400)
      assert.ok(isEnough(seen().length), `${seen().length} drops`)
      for (const drop of seen()) {
        assert.equal(drop.reason, code, JSON.stringify(brief(drop)))
        assert.ok([reason].flat().includes(drop.linux!), drop.linux)
        if (symbol !== undefined) assert.match(drop.symbol!, symbol)
        assert.ok(drop.symbol, 'a function')
        assert.equal(drop.inputifindex, port)
        assert.equal(drop.outputifindex, 0)
        assert.deepEqual(drop.source_id, { type: 0, index: 0 })
        assert.equal(drop.header.protocol, 1)
        assert.equal(drop.header.frame_length, sent.length + 4)
        assert.equal(drop.header.stripped, 4)
        assert.ok(Math.abs(Number(drop.nanoseconds / 1_000_000n) - drop.time) < 10_000, `${drop.nanoseconds}`)
        assert.equal(drop.trap, undefined)
      }
    })
  }
  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  const drops = dropsOf(collector)
  assert.deepEqual(
    drops.map(({ sequence_number }) => sequence_number),
    drops.map((_, i) => i + 1),
  )
  const told = (status as unknown as { drops: { exported: number } }).drops
  assert.equal(told.exported, drops.length)
  const delays = drops
    .map(({ time, nanoseconds }) => time - Number(nanoseconds / 1_000_000n))
    .sort((a, b) => a - b)
  t.diagnostic(`from drop to collector: median ${delays[delays.length >> 1]} ms, most ${delays.at(-1)} ms`)
  // The flush time is 250 ms; the rest is for an emulated machine on a busy one.
  assert.ok(delays[delays.length >> 1]! <= 2000, `median ${delays[delays.length >> 1]} ms`)
  const reasons = new Map<string, number>()
  for (const { linux, symbol } of drops) {
    const key = `${linux} in ${symbol?.split('+')[0]}`
    reasons.set(key, (reasons.get(key) ?? 0) + 1)
  }
  t.diagnostic(`all that arrived: ${JSON.stringify(Object.fromEntries(reasons))}`)
  t.diagnostic(`status: ${JSON.stringify(told)}`)
})

function brief({ reason, linux, symbol, inputifindex, header }: Seen) {
  return {
    reason,
    linux,
    symbol,
    inputifindex,
    header: Buffer.from(header.header.subarray(0, 48)).toString('hex'),
  }
}

test('a bridge: unknown VLAN, and a port that does not forward', async t => {
  const { start, frame } = await lab(t, 'limit = 10000 hw = off')
  ip('link add br0 type bridge vlan_filtering 1')
  t.after(() => ip('link del br0'))
  ip(`link set ${PORT} master br0`)
  ip('link set br0 up')
  const agent = await start()
  await agent.line(/^listening/)
  const there = ifIndexOf(PEER, `${PORT}p`)
  const unknown = frame({ vlan: 99, port: 90 })
  const blocked = frame({ port: 91 })
  sendFrames(PEER, there, unknown, COUNT)
  await sleep(500)
  // With the spanning tree protocol a new port only listens for a while.
  ip('link set br0 type bridge stp_state 1')
  ip(`link set ${PORT} nomaster`)
  ip(`link set ${PORT} master br0`)
  sendFrames(PEER, there, blocked, COUNT)
  await sleep(500)
  const state = run('bridge', '-d', 'link', 'show', 'dev', PORT)
  ip(`link set ${PORT} nomaster`)
  // The collector can be reached again only now; the neighbour's entry is as it was.
  await agent.stop()
  const counts = await statusBy(agent)
  const of = (code: number) =>
    counts.filter(row => row.code === code && row.ifIndex === ifIndex(PORT)).map(({ offered }) => offered)
  assert.deepEqual(of(265), [COUNT], JSON.stringify(counts))
  assert.deepEqual(of(266), [COUNT], JSON.stringify({ counts, state }))
})

interface ReasonCount {
  readonly reason: string
  readonly code: number
  readonly ifIndex: number
  readonly offered: number
  readonly suppressed: number
}

interface DropStatus {
  readonly offered: number
  readonly exported: number
  readonly leftOut: Record<string, number>
  readonly by: readonly ReasonCount[]
}

/** What the agent wrote at its end. */
async function dropStatus(agent: ReturnType<typeof runWeir>): Promise<DropStatus> {
  await agent.ended
  return agent.log.findLast(({ msg }) => msg === 'status')!.drops as DropStatus
}

async function statusBy(agent: ReturnType<typeof runWeir>): Promise<readonly ReasonCount[]> {
  return (await dropStatus(agent)).by
}

/** Traps of netdevsim, with their discard reasons. */
const TRAPS: Readonly<Record<string, readonly [group: string, code: number]>> = {
  source_mac_is_multicast: ['l2_drops', 263],
  vlan_tag_mismatch: ['l2_drops', 264],
  ingress_vlan_filter: ['l2_drops', 265],
  ingress_spanning_tree_filter: ['l2_drops', 266],
  port_list_is_empty: ['l2_drops', 267],
  port_loopback_filter: ['l2_drops', 268],
  fid_miss: ['l2_drops', 284],
  blackhole_route: ['l3_drops', 269],
  ttl_value_is_too_small: ['l3_exceptions', 257],
  tail_drop: ['buffer_drops', 259],
  ingress_flow_action_drop: ['acl_drops', 258],
  egress_flow_action_drop: ['acl_drops', 258],
}

test('hardware drops arrive with trap, group and port', async t => {
  const { collector, start } = await lab(t, 'limit = 10000 sw = off hide = ^port_loopback')
  const simulated = netdevsim(t, 10, 2)
  for (const trap of Object.keys(TRAPS)) {
    try {
      run('devlink', 'trap', 'set', simulated.devlink, 'trap', trap, 'action', 'trap')
    } catch (error) {
      // Exceptions are always on.
      if (trap !== 'fid_miss' && trap !== 'ttl_value_is_too_small') throw error
    }
  }
  const agent = await start()
  await agent.line(/^listening/)
  const wanted = Object.keys(TRAPS).filter(trap => trap !== 'port_loopback_filter')
  const ports = simulated.ports.map(ifIndex)
  const missing = () => {
    const seen = dropsOf(collector)
    return wanted.filter(
      trap => !ports.every(port => seen.some(drop => drop.trap?.trap === trap && drop.inputifindex === port)),
    )
  }
  await until('every trap from every port', () => missing().length === 0, 20_000).catch(() =>
    assert.fail(`no ${missing().join(', ')}; the agent wrote ${agent.stderr}`),
  )
  await agent.stop()
  for (const drop of dropsOf(collector)) {
    const [group, code] = TRAPS[drop.trap!.trap]!
    assert.equal(drop.trap!.group, group)
    assert.equal(drop.reason, code)
    assert.equal(drop.linux, undefined)
    assert.equal(drop.header.frame_length, 142 + 4)
    assert.equal(drop.header.header.length, 128)
    assert.deepEqual([...drop.header.header.subarray(26, 34)], [192, 0, 2, 1, 198, 51, 100, 1])
    assert.notEqual(drop.trap!.trap, 'port_loopback_filter', 'it is hidden')
  }
  assert.ok((await dropStatus(agent)).leftOut.hidden! > 0)
})

/** The drop monitor, used as another program would. */
async function otherUser(t: TestContext) {
  const socket = NetlinkSocket.open(NETLINK_GENERIC)
  const { id } = (await resolveFamily(socket, 'NET_DM'))!
  t.after(async () => {
    await socket.request(stopDropMonitor(id, 'software'))
    socket.close()
  })
  const isOn = async () => {
    try {
      await socket.request(startDropMonitor(id, 'software'))
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'EAGAIN') return true
      throw error
    }
    await socket.request(stopDropMonitor(id, 'software'))
    return false
  }
  return {
    isOn,
    configure: async (packets: boolean, truncateBytes: number, queueLength = 500) => {
      await socket.request(stopDropMonitor(id, 'software'))
      await socket.request(configureDropMonitor(id, { packets, truncateBytes, queueLength }))
    },
    start: () => socket.request(startDropMonitor(id, 'software')),
    stop: () => socket.request(stopDropMonitor(id, 'software')),
    config: async () => readDropMonitorConfig((await socket.request(getDropMonitorConfig(id)))!),
  }
}

test('the monitor is as it was when the agent has ended', async t => {
  const { start, send, collector } = await lab(t, 'hw = off')
  const other = await otherUser(t)
  await other.configure(false, 0, 500)
  const before = await other.config()
  const agent = await start()
  await agent.line(/^listening/)
  assert.deepEqual(await other.config(), { packets: true, truncateBytes: 128, queueLength: 1000 })
  assert.equal(await other.isOn(), true)
  send({ port: 9 }, 5)
  await until('drops', () => dropsOf(collector).length >= 5)
  await agent.stop()
  assert.deepEqual(await other.config(), before)
  assert.equal(await other.isOn(), false)
})

test('somebody else has it on for packets: the agent listens and leaves it on', async t => {
  const { start, send, collector } = await lab(t, 'hw = off')
  const other = await otherUser(t)
  await other.configure(true, 0, 300)
  await other.start()
  const before = await other.config()
  const agent = await start()
  await agent.line(/others have software drops on already/)
  send({ port: 9 }, 5)
  await until('drops', () => dropsOf(collector).length >= 5)
  await agent.stop()
  assert.equal(await other.isOn(), true)
  assert.deepEqual(await other.config(), before)
})

test('somebody else has it on for summaries: taken with force and given back, left alone without', async t => {
  const { start, send, collector } = await lab(t, 'hw = off')
  const other = await otherUser(t)
  await other.configure(false, 0, 300)
  await other.start()
  const before = await other.config()

  const modest = await start('hw = off force = off')
  await modest.line(/another program has it on, in a mode without packets/)
  send({ port: 9 }, 5)
  await sleep(1000)
  await modest.stop()
  assert.equal(dropsOf(collector).length, 0)
  assert.deepEqual(await other.config(), before)
  assert.equal(await other.isOn(), true)

  const bold = await start('hw = off')
  await bold.line(/^listening/)
  send({ port: 9 }, 5)
  await until('drops', () => dropsOf(collector).length >= 5)
  await bold.stop()
  assert.deepEqual(await other.config(), before)
  assert.equal(await other.isOn(), true)
})

test('start = off: drops are reported while others have it on', async t => {
  const { start, send, collector } = await lab(t, 'start = off')
  const other = await otherUser(t)
  await other.configure(true, 128)
  const agent = await start()
  await agent.line(/listening to a drop monitor that others start/)
  assert.equal(await other.isOn(), false)
  await other.start()
  send({ port: 9 }, 5)
  await until('drops', () => dropsOf(collector).length >= 5)
  await agent.stop()
  assert.equal(await other.isOn(), true)
  await other.stop()
})

test('a flood of one reason does not hide another, and every drop is accounted for', async t => {
  const LIMIT = 50
  const FLOOD = 20_000
  const { start, send, collector, frame } = await lab(t, `limit = ${LIMIT} hw = off`)
  const agent = await start()
  await agent.line(/^listening/)
  const startedMs = performance.now()
  const rare = frame({ wrongIpChecksum: true })
  for (let i = 0; i < 4; i++) {
    send({ port: 9 }, FLOOD / 4)
    send({ wrongIpChecksum: true }, 1)
  }
  await until('the rare drops', () => withHeader(dropsOf(collector), rare).length >= 1, 10_000)
  await sleep(2000)
  await agent.stop()
  const seconds = Math.ceil((performance.now() - startedMs) / 1000) + 1
  const drops = dropsOf(collector)
  const status = await dropStatus(agent)
  const { lost } = agent.log.findLast(({ msg }) => msg === 'status') as unknown as {
    lost: Record<string, number>
  }
  const leftOut = Object.values(status.leftOut).reduce((sum, count) => sum + count, 0)
  const suppressed = status.by.reduce((sum, row) => sum + row.suppressed, 0)
  t.diagnostic(JSON.stringify({ status, lost, arrived: drops.length, seconds }))
  assert.ok(drops.length <= LIMIT * seconds, `${drops.length} in ${seconds} s`)
  assert.equal(status.exported, drops.length)
  assert.equal(status.offered, status.exported + suppressed + leftOut)
  assert.equal(lost['notifier/suppressed'], suppressed)
  // What the kernel could not queue or deliver, it counted; other drops of the machine are among it.
  const before = (lost['drop-monitor/kernel-queue'] ?? 0) + (lost['drop-monitor/socket-overrun'] ?? 0)
  const flood = status.by.find(row => row.reason === 'NO_SOCKET' && row.ifIndex === ifIndex(PORT))!
  assert.ok(flood.offered <= FLOOD && flood.offered + before >= FLOOD, `${flood.offered} + ${before}`)
  // The field grows by each notification that was not sent before the sample.
  const last = drops.at(-1)!
  assert.ok(last.drops > 0 && last.drops <= suppressed + before, `${last.drops}`)
})

test('a flood beyond all measure: the monitor rests, and comes back by itself', async t => {
  const { start, send, collector } = await lab(t, 'hw = off max = 500 max_trip = 1')
  const other = await otherUser(t)
  const agent = await start()
  await agent.line(/^listening for dropped packets/)
  const flood = async () => {
    for (let i = 0; i < 20 && !agent.log.some(({ msg }) => /rests/.test(msg)); i++) {
      send({ port: 9 }, 2000)
      await sleep(200)
    }
  }
  await flood()
  await agent.line(/drop alerts in a second: the drop monitor rests for 30 s/)
  assert.equal(await other.isOn(), false)
  const before = agent.log.length
  await until('its return', () => agent.log.slice(before).some(({ msg }) => /^listening/.test(msg)), 60_000)
  const seen = dropsOf(collector).length
  send({ port: 9 }, 5)
  await until('drops', () => dropsOf(collector).length >= seen + 5)
  await agent.stop()
})

test('without the capability to listen the agent says so and runs on', async t => {
  const { start } = await lab(t, 'hw = off')
  const agent = await start('hw = off', ['setpriv', '--bounding-set', '-sys_admin'])
  await agent.line(/^join netlink group NET_DM events: EPERM .*: needs CAP_SYS_ADMIN$/)
  assert.equal((await agent.stop()).exit, 0)
})

test('a changed configuration: other settings, none, and some again', async t => {
  const { start, send, collector } = await lab(t, 'hw = off')
  const other = await otherUser(t)
  const ours = new Set(['NO_SOCKET', 'IP_CSUM'])
  const reasons = () =>
    dropsOf(collector)
      .map(({ linux }) => linux!)
      .filter(reason => ours.has(reason))
  const agent = await start()
  await agent.line(/^listening/)
  send({ port: 9 }, 1)
  await until('a drop', () => reasons().length === 1)

  const before = agent.log.length
  agent.change('dropmon { source = drop_monitor hw = off hide = NO_SOCKET }')
  await agent.line(/^listening/, before)
  send({ port: 9 }, 1)
  send({ wrongIpChecksum: true }, 1)
  await until('another drop', () => reasons().length === 2)
  assert.deepEqual(reasons(), ['NO_SOCKET', 'IP_CSUM'])

  agent.change('')
  await until('its end', async () => !(await other.isOn()))
  const after = agent.log.length
  agent.change('dropmon { source = drop_monitor hw = off }')
  await agent.line(/^listening/, after)
  send({ port: 9 }, 1)
  await until('a third drop', () => reasons().length === 3)
  assert.equal((await agent.stop()).exit, 0)
  assert.deepEqual(
    dropsOf(collector).map(({ sequence_number }) => sequence_number),
    dropsOf(collector).map((_, i) => i + 1),
  )
})

test('a module that comes later', async t => {
  unload('drop_monitor')
  // Looking the family up loads the module, unless that is forbidden.
  writeFileSync('/proc/sys/kernel/modprobe', '/bin/false')
  t.after(() => writeFileSync('/proc/sys/kernel/modprobe', '/sbin/modprobe'))
  const { start, send, collector } = await lab(t, 'hw = off')
  const agent = await start()
  await agent.line(/the kernel has no drop monitor here/)
  modprobe('drop_monitor')
  await agent.line(/^listening for dropped packets/)
  send({ port: 9 }, 5)
  await until('drops', () => dropsOf(collector).length >= 5)
  await agent.stop()
})
