/**
 * Dropped packets: what a drop costs on its way from the drop monitor to a datagram; and 100,000 drops a second seen by
 * BPF, held back by a limit of 1,000 in the kernel: what the agent and the forwarding of other packets pay for it.
 */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Notifier } from '../../agent/datasource/notifier.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { AF_PACKET, packetAddress } from '../../agent/kernel/sockaddr.ts'
import { DropAlerts } from '../../agent/sources/drop-alerts.ts'
import { bpfVerdict } from '../support/bpf-verdict.ts'
import { dropMessage, hardwareDrop, softwareDrop } from '../support/drop-alert.ts'
import { type DropStatus, dropsOf } from '../support/drop-lab.ts'
import { udpFrame } from '../support/frames.ts'
import { ip, type Lab, listen, makeLab, RunningAgent, type Scope, sink } from '../support/lab.ts'
import { builtAgent, configuration } from './agent.ts'
import { PROGRAM_TYPE, perRun, programTime, STATISTICS } from './bpf.ts'
import { cpuSeconds } from './load.ts'
import { measure, report } from './measure.ts'

const DROPS = 2_000_000
const SLOTS = 64
const SLOT_BYTES = 65_536 + 320

export async function dropsBench(): Promise<void> {
  console.log(`\nDrop alert to datagram: batches of ${SLOTS}, ${DROPS.toLocaleString('en')} drops`)
  await one('parse, classify, encode', Number.MAX_SAFE_INTEGER, 600)
  await one('parse, classify, hold back', 1000, 400)
  await flood()
}

const DROPS_PER_SECOND = 100_000
const LIMIT = 1000
const SECONDS = 1
const ROUNDS = 20
const COLLECTOR_PORT = 6343
const BATCH = 500
const TC_ACT_STOLEN = 4
/** Drops now and then, whose way to the collector is timed. */
const SINGLE = 40

async function flood(): Promise<void> {
  const offered = `${DROPS_PER_SECOND.toLocaleString('en')} drops/s`
  console.log(
    `\n${offered} by BPF with limit = ${LIMIT}, in turn with and without dropmon, ${ROUNDS} times ${SECONDS} s each`,
  )
  const cleanups: (() => void | Promise<void>)[] = []
  const scope: Scope = { after: cleanup => cleanups.push(cleanup) }
  try {
    const lab = makeLab(scope)
    layOut(lab)
    const bundle = builtAgent()
    sink(scope, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: COLLECTOR_PORT })
    const agent = await startAgent(scope, lab, bundle)
    const costs: { readonly without: Cost[]; readonly with: Cost[] } = { without: [], with: [] }
    let cpu = 0
    let wallSeconds = 0
    let sent = 0
    let counted = 0
    await offer(lab, SECONDS)
    for (let round = 0; round < ROUNDS; round++) {
      await agent.change('')
      costs.without.push(await offer(lab, SECONDS))
      await agent.change(DROPMON)
      const before = cpuSeconds(agent.child.pid!)
      const startedMs = performance.now()
      const cost = await offer(lab, SECONDS)
      cpu += cpuSeconds(agent.child.pid!) - before
      wallSeconds += (performance.now() - startedMs) / 1000
      await sleep(1500)
      counted += await countedDrops(agent)
      sent += cost.drops
      costs.with.push(cost)
    }
    await agent.change('')
    costs.without.push(await offer(lab, SECONDS))
    await agent.stop()
    report('processor time of the agent, of one core', (100 * cpu) / (ROUNDS * SECONDS), '%', 5)
    report('drops offered in a second', sent / wallSeconds, '/s')
    report('drops that were offered', sent, '')
    report('drops that were not counted', Math.abs(sent - counted), '', 0)
    for (const how of ['without', 'with'] as const) {
      const all = costs[how]
      report(`a drop, ${how} dropmon`, median(all.map(({ drop }) => drop)), 'ns')
      report(`a packet forwarded, ${how} it`, median(all.map(({ pass }) => pass)), 'ns')
      report(`packets one processor forwards beside the drops, ${how} it`, median(all.map(forwardable)), '/s')
    }
    // Neighbours in time are compared, before and after: the machine has other things to do, too.
    const lessBy = costs.with
      .map((cost, round) => {
        const [before, after] = [costs.without[round]!, costs.without[round + 1]!].map(forwardable)
        return 100 * (1 - (2 * forwardable(cost)) / (before! + after!))
      })
      .toSorted((a, b) => a - b)
    const [low, high] = [lessBy[ROUNDS >> 2]!, lessBy[(3 * ROUNDS) >> 2]!].map(percent => percent.toFixed(1))
    report(`forwarding is less by (half of the rounds: ${low} to ${high})`, median(lessBy), '%', 5)
    await programCost(scope, lab, bundle)
    await delays(scope, lab, bundle)
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup()
  }
}

/** The kernel measures the program, which costs time itself: an empty one takes some 20 ns so. */
async function programCost(scope: Scope, lab: Lab, bundle: string): Promise<void> {
  const agent = await startAgent(scope, lab, bundle)
  writeFileSync(STATISTICS, '1')
  try {
    const time = () => programTime(agent.child.pid, PROGRAM_TYPE.tracing)
    const before = time()
    await offer(lab, 2)
    report('the program, for each drop', perRun(before, time()), 'ns')
  } finally {
    writeFileSync(STATISTICS, '0')
    await agent.stop()
  }
}

async function delays(scope: Scope, lab: Lab, bundle: string): Promise<void> {
  const collector = listen(scope, lab.peer.namespace, {
    address: lab.peer.mgmt0.ipv4,
    port: COLLECTOR_PORT + 1,
  })
  const agent = await startAgent(scope, lab, bundle, COLLECTOR_PORT + 1)
  for (let i = 0; i < SINGLE; i++) {
    await send(lab, dropped(lab), 1)
    await sleep(97)
  }
  await sleep(500)
  await agent.stop()
  const all = dropsOf(collector).map(({ time, nanoseconds }) => time - Number(nanoseconds / 1_000_000n))
  report('single drops: drop to collector, median', median(all), 'ms')
  report('single drops: drop to collector, most', Math.max(...all), 'ms', 250 + 10)
}

const DROPMON = `dropmon { source = ebpf hw = off limit = ${LIMIT} }`

interface DropsAgent extends RunningAgent {
  /** Goes on with these blocks in the configuration. */
  change(blocks: string): Promise<void>
}

async function startAgent(
  scope: Scope,
  lab: Lab,
  bundle: string,
  port = COLLECTOR_PORT,
): Promise<DropsAgent> {
  const collector = `collector { ip = ${lab.peer.mgmt0.ipv4} udpport = ${port} }`
  const text = (blocks: string) => `sFlow {\n polling = 0\n ${collector}\n ${blocks}\n}\n`
  const conf = configuration(text(DROPMON))
  scope.after(conf.remove)
  const command = ['netns', 'exec', lab.host.namespace, bundle, 'run', '-f', conf.path]
  const agent = new RunningAgent(scope, ['ip', ...command])
  const LISTENING = /^listening for dropped packets/
  await agent.line(LISTENING)
  const change = async (blocks: string) => {
    const before = agent.log.length
    writeFileSync(conf.path, text(blocks))
    agent.child.kill('SIGHUP')
    await agent.line(blocks === '' ? /^the configuration has changed/ : LISTENING, before)
    // What ends is detached a little later.
    await sleep(200)
  }
  return Object.assign(agent, { change })
}

/** The host forwards from eth0 to mgmt0, where the peer swallows what comes, which is no drop. */
function layOut({ host, peer, folder }: Lab): void {
  ip(`netns exec ${host.namespace} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=1000000`)
  ip(`-n ${host.namespace} neighbour replace 198.51.100.9 lladdr 02:00:00:00:0d:09 dev mgmt0 nud permanent`)
  const object = join(folder, 'swallow.o')
  writeFileSync(object, bpfVerdict('tc', TC_ACT_STOLEN))
  const inPeer = (line: string) => execFileSync('tc', ['-n', peer.namespace, ...line.split(' ')])
  // To the peer's own address datagrams still come.
  inPeer('qdisc add dev mgmt0 clsact')
  inPeer(`filter add dev mgmt0 ingress pref 1 protocol ip u32 match ip dst ${peer.mgmt0.ipv4} classid 1:1`)
  inPeer(`filter add dev mgmt0 ingress pref 2 bpf da obj ${object} sec tc`)
}

/** With a wrong checksum, which costs the kernel the least. */
function dropped({ host, peer }: Lab): Uint8Array {
  const [from, to] = [peer.eth0, host.eth0]
  return udpFrame({
    to: to.mac,
    from: from.mac,
    source: from.ipv4,
    destination: to.ipv4,
    port: 9,
    payloadBytes: 60,
    wrongIpChecksum: true,
  })
}

function forwarded({ host, peer }: Lab): Uint8Array {
  const [from, to] = [peer.eth0, host.eth0]
  const addresses = { source: from.ipv4, destination: '198.51.100.9' }
  return udpFrame({ to: to.mac, from: from.mac, ...addresses, port: 9, payloadBytes: 60 })
}

/** What one packet costs the processor, nanoseconds, from the system call to its end. */
interface Cost {
  readonly drop: number
  readonly pass: number
  /** Sent. */
  readonly drops: number
}

/** Packets that a processor forwards in a second when it has to drop so many, too. */
function forwardable({ drop, pass }: Cost): number {
  return (1e9 - DROPS_PER_SECOND * drop) / pass
}

/**
 * Offers drops at an even pace and, for the rest of the time, packets to forward. What is sent by a veth has gone all its
 * way when the system call returns. Of many batches, each of about a millisecond, the median is taken: some are
 * interrupted by what else the machine does. The pace is by the time of this thread's processor, for the same reason.
 */
async function offer(lab: Lab, seconds: number): Promise<Cost> {
  const usedSeconds = () => {
    const { user, system } = process.threadCpuUsage(started)
    return (user + system) / 1e6
  }
  const [drop, pass] = [sender(lab, dropped(lab)), sender(lab, forwarded(lab))]
  const times = { drop: [] as number[], pass: [] as number[] }
  const started = process.threadCpuUsage()
  let drops = 0
  try {
    for (let used = 0; used < seconds; used = usedSeconds()) {
      while (drops < used * DROPS_PER_SECOND) drops += timed(drop, times.drop)
      timed(pass, times.pass)
      await new Promise(resolve => setImmediate(resolve))
    }
    return { drop: median(times.drop), pass: median(times.pass), drops }
  } finally {
    drop.close()
    pass.close()
  }
}

/** Sends a batch, and notes the nanoseconds for each packet; gives how many were taken. */
function timed(from: { send(): number }, times: number[]): number {
  const startedMs = performance.now()
  const count = from.send()
  if (count > 0) times.push(((performance.now() - startedMs) * 1e6) / count)
  return count
}

function sender({ peer }: Lab, frame: Uint8Array, batch = BATCH) {
  const SOCK_RAW = 3
  const socket = KernelSocket.open('frames', AF_PACKET, SOCK_RAW, 0, peer.namespace)
  // Without a protocol it receives nothing: what another one sends would be copied to it and, when it is full, dropped.
  socket.bind(packetAddress(0, peer.eth0.ifIndex), 'bind')
  const memory = Uint8Array.from(frame).buffer
  const spans = new Int32Array(batch * 2).map((_, i) => (i & 1) * frame.length)
  return { send: () => Math.max(socket.sendBatch(memory, spans, 0, batch), 0), close: () => socket.close() }
}

async function send(lab: Lab, frame: Uint8Array, count: number): Promise<void> {
  const one = sender(lab, frame, count)
  one.send()
  one.close()
}

/** Those drops, as the agent has counted them. */
async function countedDrops(agent: RunningAgent): Promise<number> {
  const { drops } = (await agent.status()) as unknown as { drops: DropStatus }
  return drops.by.find(({ reason }) => reason === 'IP_CSUM')?.offered ?? 0
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!
}

async function one(what: string, limit: number, goal: number): Promise<void> {
  const memory = new ArrayBuffer(SLOTS * SLOT_BYTES)
  const view = new DataView(memory)
  const words = new Int32Array(memory)
  const messages = [dropMessage(softwareDrop()), dropMessage(hardwareDrop())]
  const ends = Array.from({ length: SLOTS }, (_, slot) => {
    const message = messages[slot % messages.length]!
    new Uint8Array(memory).set(message, slot * SLOT_BYTES)
    return slot * SLOT_BYTES + message.length
  })
  const ledger = new Ledger()
  const datagrams = new Datagrams(
    { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes: 1400, flushMs: 250 },
    () => {},
    () => performance.now(),
  )
  const notifier = new Notifier({ datagrams, ledger, now: () => performance.now() })
  notifier.change({
    reasonNames: true,
    unknownTraps: false,
    host: true,
    hide: undefined,
    headerBytes: 128,
    limit,
  })
  const alerts = new DropAlerts({
    software: true,
    hardware: true,
    interfaces: { byIndex: new Set([2, 3]), isLayer3: () => false },
    ledger,
    sink: notifier.accept,
    onLost: notifier.lost,
  })
  const result = await measure(DROPS, SLOTS, () => {
    for (let slot = 0; slot < SLOTS; slot++) alerts.receive(view, words, slot * SLOT_BYTES, ends[slot]!)
    notifier.endBatch()
  })
  datagrams.stop()
  if (notifier.offered < DROPS) throw new Error(`${what}: only ${notifier.offered} drops were seen`)
  report(what, result.nanoseconds, 'ns', goal)
  report('heap growth per drop', Math.max(0, result.heapBytes), 'bytes', 0.5)
}
