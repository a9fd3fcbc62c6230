/**
 * Dropped packets, provoked one kind after the other by frames that tell them apart, and what a collector gets of them.
 * The host is a network namespace, or the first one of a guest.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import {
  extendedEgressQueue,
  extendedFunction,
  extendedHwTrap,
  extendedLinuxDropReason,
  extendedTimestamp,
} from '../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import { discardedPacketOf } from '../../agent/wire/sflow/samples.ts'
import { bpfVerdict } from './bpf-verdict.ts'
import { type UdpFrame, udpFrame } from './frames.ts'
import {
  type Collector,
  listen,
  type RunningAgent,
  runWeir,
  sendFlow,
  sendFrames,
  sink,
  until,
} from './lab.ts'

export const COLLECTOR_PORT = 6343
/** So many of each kind, so that counts can be told from noise. */
const COUNT = 20
const HOST_MAC = '02:00:00:00:0d:01'
const PEER_MAC = '02:00:00:00:0d:02'
const XDP_DROP = 1
const TC_ACT_SHOT = 2
const TC_ACT_STOLEN = 4

/**
 * Cables between host and peer, by the ends' names; the peer's end has a `p` more. `vd` carries most frames and the
 * datagrams, the others are where packets are to leave, or where every frame is dropped in one way.
 */
const CABLES = ['vd', 'vout', 'vsmall', 'vslow', 'vtc', 'vxdp', 'vbr', 'vblk'] as const
type Cable = (typeof CABLES)[number]

export interface DropLab {
  /** Undefined: the first network namespace. */
  readonly host: string | undefined
  readonly peer: string
  /** Of the host's ends. */
  readonly ifIndex: Readonly<Record<Cable, number>>
  /** A collector of its own for each port asked for. */
  listen(port?: number): Collector
  /** Starts the agent with these settings in `dropmon { }`. */
  start(settings: string, options?: StartOptions): Promise<DropAgent>
  frame(options: Partial<UdpFrame>): Uint8Array
  /** Sends from the peer. */
  send(frame: Uint8Array, count?: number, cable?: Cable): void
  /** Runs a program in the host's namespace. */
  run(program: string, ...parameters: string[]): string
  /** Runs many commands of a program at once there. */
  batch(program: 'ip' | 'tc', lines: readonly string[]): void
}

export interface StartOptions {
  readonly port?: number
  /** A command that runs the agent. */
  readonly under?: readonly string[]
}

export interface DropAgent extends RunningAgent {
  /** Replaces all that follows the collector in the configuration. */
  change(blocks: string): void
}

let labs = 0

export function dropLab(scope: TestContext, where: 'first' | 'own'): DropLab {
  const name = `weir-D-${process.pid}-${++labs}`
  const peer = `${name}-peer`
  const host = where === 'own' ? `${name}-host` : undefined
  const namespaces = host === undefined ? [peer] : [host, peer]
  const here = host === undefined ? [] : ['-n', host]
  const run = (program: string, ...parameters: string[]) => {
    const prefix = host === undefined ? [] : ['ip', 'netns', 'exec', host]
    const [command, ...rest] = [...prefix, program, ...parameters]
    return execFileSync(command!, rest, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  }
  const batch = (place: readonly string[], lines: readonly string[], program = 'ip') =>
    execFileSync(program, [...place, '-batch', '-'], {
      input: lines.join('\n'),
      stdio: ['pipe', 'pipe', 'pipe'],
    })
  for (const namespace of namespaces) {
    execFileSync('ip', ['netns', 'add', namespace])
    scope.after(() => void execFileSync('ip', ['netns', 'del', namespace]))
  }
  // Nothing is to be sent that a test did not send.
  const quiet = ['net.ipv6.conf.default.disable_ipv6=1']
  execFileSync('ip', ['netns', 'exec', peer, 'sysctl', '-qw', ...quiet])
  run('sysctl', '-qw', ...quiet)
  if (host === undefined) scope.after(() => void run('sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=0'))
  batch(here, [
    ...(host === undefined ? [] : ['link set lo up']),
    ...CABLES.map(
      cable =>
        `link add ${cable} address ${HOST_MAC} type veth peer name ${cable}p address ${PEER_MAC} netns ${peer}`,
    ),
    ...CABLES.map(cable => `link set ${cable} up`),
    'address add 192.0.2.1/24 dev vd',
    `neighbour replace 192.0.2.2 lladdr ${PEER_MAC} dev vd nud permanent`,
  ])
  batch(
    ['-n', peer],
    [
      'link set lo up',
      ...CABLES.map(cable => `link set ${cable}p up`),
      'address add 192.0.2.2/24 dev vdp',
      `neighbour replace 192.0.2.1 lladdr ${HOST_MAC} dev vdp nud permanent`,
    ],
  )
  const links = (place: readonly string[]) =>
    JSON.parse(execFileSync('ip', [...place, '-j', 'link', 'show'], { encoding: 'utf8' })) as {
      ifname: string
      ifindex: number
    }[]
  const [ours, theirs] = [links(here), links(['-n', peer])]
  const indexes = (all: typeof ours, suffix: string) =>
    Object.fromEntries(
      CABLES.map(cable => [cable, all.find(({ ifname }) => ifname === `${cable}${suffix}`)!.ifindex]),
    ) as Record<Cable, number>
  const there = indexes(theirs, 'p')
  const folder = mkdtempSync(join(tmpdir(), `${name}-`))
  scope.after(() => rmSync(folder, { recursive: true, force: true }))
  let agents = 0
  return {
    host,
    peer,
    ifIndex: indexes(ours, ''),
    run,
    batch: (program, lines) => void batch(here, lines, program),
    listen: (port = COLLECTOR_PORT) => listen(scope, peer, { address: '192.0.2.2', port }),
    async start(settings, { port = COLLECTOR_PORT, under = ['env'] } = {}) {
      const file = join(folder, `${++agents}.conf`)
      // Two agents of one namespace have to differ.
      const subAgentId = 100_000 + port - COLLECTOR_PORT
      const write = (blocks: string) =>
        writeFileSync(
          file,
          `sFlow { polling = 0 subAgentId = ${subAgentId} collector { ip = 192.0.2.2 udpport = ${port} } ${blocks} }\n`,
        )
      write(`dropmon { ${settings} }`)
      const place = host === undefined ? [] : ['ip', 'netns', 'exec', host]
      const agent = runWeir(scope, [...place, ...under], ['run', '-f', file])
      // An emulated machine takes its time to load a program when nothing of it is in its cache.
      await until('agent', () => agent.log.some(({ msg }) => msg === 'running'), 120_000)
      const change = (blocks: string) => {
        write(blocks)
        agent.child.kill('SIGHUP')
      }
      return Object.assign(agent, { change })
    },
    frame: options =>
      udpFrame({ to: HOST_MAC, from: PEER_MAC, source: '192.0.2.2', destination: '192.0.2.1', ...options }),
    send: (frame, count = COUNT, cable = 'vd') => sendFrames(peer, there[cable], frame, count),
  }
}

/** Discards as they arrived, with what their records say. */
export function dropsOf({ arrivals }: Collector) {
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
          queue: findRecord(records, extendedEgressQueue)?.queue,
          nanoseconds: findRecord(records, extendedTimestamp)?.nanoseconds ?? 0n,
        },
      ]
    }),
  )
}

export type Seen = ReturnType<typeof dropsOf>[number]

/** For messages. */
export function brief({ reason, linux, symbol, inputifindex, outputifindex, header }: Seen) {
  return {
    reason,
    linux,
    symbol,
    inputifindex,
    outputifindex,
    length: header.frame_length,
    header: Buffer.from(header.header.subarray(0, 48)).toString('hex'),
  }
}

/** Those whose header is that of the frame: nothing else that the machine drops looks like it. */
export function withHeader(drops: readonly Seen[], frame: Uint8Array, from = 0): Seen[] {
  return drops.filter(({ header }) => {
    const { header: bytes } = header
    const most = Math.min(bytes.length, frame.length)
    return (
      bytes.length > from + 20 && Buffer.compare(bytes.subarray(from, most), frame.subarray(from, most)) === 0
    )
  })
}

export interface Provoked {
  readonly name: string
  /** sFlow discard reason. */
  readonly code: number
  /** What the kernels call it. */
  readonly reason: string | readonly string[]
  readonly symbol?: RegExp
  /** The frame that is dropped, and by which cable it comes; default `vd`. */
  readonly frame: Partial<UdpFrame>
  readonly cable?: Cable
  readonly count?: number
  /** Where it was to leave: told by BPF alone. */
  readonly output?: Cable
  /** Dropped before it was received by the stack: where it came in is told by BPF alone. */
  readonly early?: boolean
  /** It had its transmit queue: told by BPF alone. */
  readonly queue?: number
  /** Bytes of the frame that the kernel changes before it drops it: they are not compared. */
  readonly changedBytes?: number
  readonly dropped?: (count: number) => boolean
  /** What the kernel must have; else the case is left out, which is said. */
  readonly needs?: 'vlan filter'
}

const DROPS: readonly Provoked[] = [
  { name: 'no socket', code: 3, reason: 'NO_SOCKET', frame: { port: 9 } },
  {
    name: 'TTL exceeded',
    code: 257,
    reason: ['IP_INHDR', 'NOT_SPECIFIED'],
    symbol: /^ip_forward\+/,
    frame: { destination: '198.51.100.9', ttl: 1 },
  },
  { name: 'no route', code: 0, reason: 'IP_INNOROUTES', frame: { destination: '198.18.0.1' } },
  { name: 'reverse path', code: 335, reason: 'IP_RPFILTER', frame: { source: '198.18.7.7' } },
  { name: 'nftables', code: 258, reason: 'NETFILTER_DROP', frame: { port: 77 } },
  { name: 'tc on ingress', code: 365, reason: 'TC_INGRESS', frame: { port: 78 }, cable: 'vtc' },
  {
    name: 'XDP, generic',
    code: 367,
    reason: ['XDP', 'NOT_SPECIFIED'],
    frame: { port: 81 },
    cable: 'vxdp',
  },
  {
    name: 'XDP, in a driver',
    code: 367,
    reason: ['XDP', 'NOT_SPECIFIED'],
    symbol: /^veth_xdp_rcv_skb\+/,
    frame: { port: 82 },
    cable: 'vsmall',
    early: true,
  },
  { name: 'IP checksum', code: 275, reason: 'IP_CSUM', frame: { wrongIpChecksum: true } },
  { name: 'UDP checksum', code: 316, reason: 'UDP_CSUM', frame: { wrongUdpChecksum: true, port: 79 } },
  {
    name: 'larger than the MTU',
    code: 262,
    reason: 'PKT_TOO_BIG',
    frame: { destination: '203.0.113.9', payloadBytes: 1000, dontFragment: true },
  },
  {
    name: 'queue full',
    code: 259,
    reason: ['QDISC_DROP', 'QDISC_OVERLIMIT'],
    frame: { destination: '198.18.1.9', payloadBytes: 500 },
    changedBytes: 26,
    output: 'vslow',
    queue: 0,
    dropped: count => count > COUNT / 2 && count < COUNT,
  },
  {
    name: 'neighbour that does not answer',
    code: 279,
    reason: 'NEIGH_FAILED',
    frame: { destination: '198.51.100.77' },
    changedBytes: 26,
    output: 'vout',
    count: 3,
    // What still waits when another packet asks for the neighbour at the last moment is purged without this reason.
    dropped: count => count > 0 && count <= 3,
  },
  {
    name: 'socket buffer full',
    code: 259,
    reason: ['SOCKET_RCVBUFF', 'PROTO_MEM'],
    frame: { port: 80, payloadBytes: 1200 },
    count: 300,
    dropped: count => count > 50 && count < 300,
  },
  { name: 'unknown EtherType', code: 325, reason: 'UNHANDLED_PROTO', frame: { etherType: 0x88b6 } },
  {
    name: 'VLAN that a bridge does not know',
    code: 265,
    reason: 'NOT_SPECIFIED',
    frame: { vlan: 99, port: 90 },
    cable: 'vbr',
    needs: 'vlan filter',
  },
  {
    name: 'bridge port that is blocked',
    code: 266,
    reason: ['NOT_SPECIFIED', 'BRIDGE_INGRESS_STP_STATE'],
    frame: { port: 91 },
    cable: 'vblk',
  },
]

/** Makes the host drop frames in all these ways. */
export function prepareDrops(scope: TestContext, lab: DropLab): readonly Provoked[] {
  const { run, host } = lab
  const folder = mkdtempSync(join(tmpdir(), 'weir-verdicts-'))
  scope.after(() => rmSync(folder, { recursive: true, force: true }))
  const object = (name: string, section: string, verdict: number) => {
    const file = join(folder, `${name}.o`)
    writeFileSync(file, bpfVerdict(section, verdict))
    return file
  }
  run(
    'sysctl',
    '-qw',
    'net.ipv4.ip_forward=1',
    'net.ipv4.conf.all.send_redirects=0',
    'net.ipv4.conf.vd.rp_filter=1',
    'net.ipv4.conf.vd.send_redirects=0',
    'net.ipv4.neigh.vout.retrans_time_ms=50',
  )
  if (host === undefined) scope.after(() => void run('sysctl', '-qw', 'net.ipv4.ip_forward=0'))
  const lines = [
    'address add 198.51.100.1/24 dev vout',
    `neighbour replace 198.51.100.9 lladdr ${PEER_MAC} dev vout nud permanent`,
    'address add 203.0.113.1/24 dev vsmall',
    `neighbour replace 203.0.113.9 lladdr ${PEER_MAC} dev vsmall nud permanent`,
    'link set vsmall mtu 600',
    'address add 198.18.1.1/24 dev vslow',
    `neighbour replace 198.18.1.9 lladdr ${PEER_MAC} dev vslow nud permanent`,
    'link add vbr0 type bridge',
    'link set vbr master vbr0',
    'link set vbr0 up',
    // With the spanning tree protocol a new port only listens for a while.
    'link add vbr1 type bridge stp_state 1',
    'link set vblk master vbr1',
    'link set vbr1 up',
    `link set dev vxdp xdpgeneric obj ${object('xdp', 'xdp', XDP_DROP)} sec xdp`,
    `link set dev vsmall xdpdrv obj ${object('xdp', 'xdp', XDP_DROP)} sec xdp`,
  ]
  lab.batch('ip', lines)
  // Bridges go with their namespace, but not with a test in the first one.
  if (host === undefined) {
    for (const bridge of ['vbr0', 'vbr1']) scope.after(() => void run('ip', 'link', 'del', bridge))
  }
  run(
    'nft',
    'add table ip weir; add chain ip weir in { type filter hook input priority 0; }; add rule ip weir in udp dport 77 drop; add chain ip weir out { type filter hook output priority 0; }; add rule ip weir out udp dport 7777 drop',
  )
  if (host === undefined) scope.after(() => void run('nft', 'delete', 'table', 'ip', 'weir'))
  lab.batch('tc', [
    'qdisc add dev vtc clsact',
    `filter add dev vtc ingress bpf da obj ${object('shoot', 'tc', TC_ACT_SHOT)} sec tc`,
    'qdisc add dev vslow root tbf rate 8kbit burst 1600 limit 1600',
  ])
  // What a queue lets pass is not to be dropped by the peer: it swallows that.
  const atPeer = (line: string) => execFileSync('tc', ['-n', lab.peer, ...line.split(' ')])
  atPeer('qdisc add dev vslowp clsact')
  atPeer(`filter add dev vslowp ingress bpf da obj ${object('swallow', 'tc', TC_ACT_STOLEN)} sec tc`)
  sink(scope, host ?? '/proc/self/ns/net', { address: '192.0.2.1', port: 80 })
  let hasVlanFilter = true
  try {
    run('ip', 'link', 'set', 'vbr0', 'type', 'bridge', 'vlan_filtering', '1')
  } catch {
    hasVlanFilter = false
    scope.diagnostic(
      'not provoked: a VLAN that a bridge does not know, because this kernel has no VLAN filter',
    )
  }
  return DROPS.filter(({ needs }) => needs !== 'vlan filter' || hasVlanFilter)
}

export interface Observer {
  readonly source: 'eBPF' | 'drop monitor'
  readonly agent: DropAgent
  readonly collector: Collector
}

/** Sends every frame, waits until each observer has told of each drop, and compares what was told. */
export async function provoke(
  t: TestContext,
  lab: DropLab,
  cases: readonly Provoked[],
  observers: readonly Observer[],
): Promise<void> {
  const places: string[] = []
  for (const { frame, count, cable } of cases) lab.send(lab.frame(frame), count, cable)
  for (const observer of observers) {
    const { collector, source } = observer
    for (const one of cases) {
      await t.test(`${source}: ${one.name}`, async () => {
        const { count = COUNT, changedBytes = 0 } = one
        const sent = frameSeen(lab, one, source)
        const seen = () => withHeader(dropsOf(collector), sent, changedBytes)
        const isEnough = one.dropped ?? (n => n === count)
        await until('drops', () => isEnough(seen().length), 20_000).catch(() => {
          const last = dropsOf(collector).slice(-40).map(brief)
          assert.fail(`${seen().length} of ${count} arrived; of all, the last: ${JSON.stringify(last)}`)
        })
        for (const drop of seen()) compare(lab, one, drop, sent.length, source)
        if (source === 'eBPF') places.push(`${seen()[0]!.linux} in ${seen()[0]!.symbol}`)
      })
    }
  }
  t.diagnostic(`this kernel says: ${places.join(', ')}`)
  // What comes late is one too many.
  await sleep(500)
  for (const { collector, source } of observers) {
    for (const one of cases) {
      const { name, count = COUNT, changedBytes, dropped } = one
      const { length } = withHeader(dropsOf(collector), frameSeen(lab, one, source), changedBytes)
      assert.ok(dropped?.(length) ?? length === count, `${source}: ${name}: ${length} drops`)
    }
  }
}

/** The drop monitor does not see a tag that the kernel keeps beside the packet. */
function frameSeen(lab: DropLab, { frame }: Provoked, source: Observer['source']): Uint8Array {
  return lab.frame(source === 'eBPF' ? frame : { ...frame, vlan: undefined })
}

function compare(
  { ifIndex }: DropLab,
  { code, reason, symbol, cable = 'vd', early = false, output, queue }: Provoked,
  drop: Seen,
  bytes: number,
  source: Observer['source'],
): void {
  const told = JSON.stringify(brief(drop))
  assert.equal(drop.reason, code, told)
  assert.ok([reason].flat().includes(drop.linux!), told)
  // The drop monitor cuts after 40 characters.
  const place = source === 'eBPF' ? /^[a-z_]\S*\+0x[0-9a-f]+\/0x[0-9a-f]+/ : /^[a-z_]\S*\+0x/
  assert.match(drop.symbol ?? '', symbol ?? place, told)
  assert.equal(drop.inputifindex, early && source !== 'eBPF' ? 0 : ifIndex[cable], told)
  const isTold = source === 'eBPF' && output !== undefined
  assert.equal(drop.outputifindex, isTold ? ifIndex[output] : 0, told)
  assert.equal(drop.queue, source === 'eBPF' ? queue : undefined, told)
  assert.deepEqual(drop.source_id, { type: 0, index: 0 })
  assert.equal(drop.header.protocol, 1)
  assert.equal(drop.header.frame_length, bytes + 4, told)
  assert.equal(drop.header.stripped, 4)
  assert.equal(drop.header.header.length, Math.min(bytes, 128), told)
  assert.ok(Math.abs(Number(drop.nanoseconds / 1_000_000n) - drop.time) < 60_000, `${drop.nanoseconds}`)
  assert.equal(drop.trap, undefined)
}

/** One reason on one interface, as the agent counted it. */
export interface ReasonCount {
  readonly reason: string
  readonly code: number
  readonly ifIndex: number
  readonly offered: number
  readonly suppressed: number
}

export interface DropStatus {
  readonly source: string
  readonly monitor: string
  readonly offered: number
  readonly exported: number
  readonly leftOut: Readonly<Record<string, number>>
  readonly by: readonly ReasonCount[]
}

/** Ends the agent and gives what it wrote last, having checked that its numbers and what arrived agree. */
export async function endDrops(
  agent: DropAgent,
  collector: Collector,
): Promise<{ status: DropStatus; lost: Readonly<Record<string, number>> }> {
  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  const { drops, lost } = status as unknown as { drops: DropStatus; lost: Record<string, number> }
  await until('all that was sent', () => dropsOf(collector).length >= drops.exported)
  const arrived = dropsOf(collector)
  assert.deepEqual(
    arrived.map(({ sequence_number }) => sequence_number),
    arrived.map((_, i) => i + 1),
  )
  assert.equal(drops.exported, arrived.length)
  const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0)
  const suppressed = lost['notifier/suppressed'] ?? 0
  assert.equal(drops.offered, drops.exported + suppressed + sum(Object.values(drops.leftOut)))
  return { status: drops, lost }
}

/** A flood of one reason, and single drops of another one in it. */
export function flood(lab: DropLab, count: number): { readonly rare: Uint8Array } {
  const rare = lab.frame({ wrongIpChecksum: true, port: 97 })
  for (let i = 0; i < 4; i++) {
    lab.send(lab.frame({ port: 9 }), count / 4)
    lab.send(rare, 1)
  }
  return { rare }
}

/** Sends from the host itself what it does not let out. */
export function sendRefused(lab: DropLab, packets: number): void {
  const from = { address: '192.0.2.1', port: 4001 }
  const to = { address: '192.0.2.2', port: 7777 }
  for (let i = 0; i < packets; i++) {
    const refuse = () => sendFlow(lab.host ?? '/proc/self/ns/net', { from, to, payloadBytes: 50, packets: 1 })
    assert.throws(refuse, /errno 1$/)
  }
}
