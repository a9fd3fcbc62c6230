/**
 * What tests need that run the whole agent: two namespaces with cables between them, traffic whose every packet is
 * known, the agent as a program, and a collector that keeps what it gets. All of it is removed with the test.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelSocket, META } from '../../agent/kernel/native.ts'
import { AF_PACKET, addressFamily, internetAddress, packetAddress } from '../../agent/kernel/sockaddr.ts'
import { findRecord, type SampleValue } from '../../agent/wire/sflow/block.ts'
import { type DecodedDatagram, decodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import {
  type CountersSample,
  countersSampleExpanded,
  type DiscardedPacket,
  discardedPacket,
  type FlowSample,
  flowSampleExpanded,
} from '../../agent/wire/sflow/samples.ts'
import { PROGRAM } from './program.ts'

const ROOT = join(import.meta.dirname, '../..')
const SOCK_DGRAM = 2
const EAGAIN = 11
const SEND_MS = 20_000
const SOCK_RAW = 3
/** The machine may be slow and busy: a wait ends as soon as there is what it waits for. */
const PATIENCE_MS = 60_000

/** What removes things again: a test context. */
export interface Scope {
  after(cleanup: () => void | Promise<void>): void
  /** Why the test has failed. */
  readonly error?: unknown
}

/** Runs `ip` with the words of a line. */
export function ip(line: string): string {
  return execFileSync('ip', line.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Resolves to what `look` finds, as soon as it finds something. Fails, and says `what` was not there. */
export async function until<T>(
  what: string | (() => string),
  look: () => T | undefined | false | Promise<T | undefined | false>,
  patienceMs = PATIENCE_MS,
): Promise<T> {
  const end = performance.now() + patienceMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > end) {
      assert.fail(`no ${typeof what === 'string' ? what : what()} within ${patienceMs} ms`)
    }
    await sleep(20)
  }
}

/** One end of a cable. */
export interface Port {
  readonly ifIndex: number
  readonly mac: string
  readonly ipv4: string
  readonly ipv6: string
}

export interface Station {
  readonly namespace: string
  /** Carries the traffic. */
  readonly eth0: Port
  /** Carries datagrams to collectors, so that they are not among what is sampled. */
  readonly mgmt0: Port
}

export interface Lab {
  /** Where the agent runs. */
  readonly host: Station
  readonly peer: Station
  /** A folder for files of the test. */
  readonly folder: string
}

const CABLES = [
  { device: 'eth0', net4: '192.0.2', net6: '2001:db8:1:' },
  { device: 'mgmt0', net4: '198.51.100', net6: '2001:db8:2:' },
] as const

let labs = 0

/**
 * Returns when the kernel has noticed that a link is up: until then it drops what is sent. On a machine where many
 * links change it looks only once a second.
 */
function waitForCarrier(namespace: string, device: string): void {
  const deadline = performance.now() + PATIENCE_MS
  while (JSON.parse(ip(`-n ${namespace} -j link show ${device}`))[0].operstate !== 'UP') {
    if (performance.now() > deadline) assert.fail(`${device} in ${namespace} does not come up`)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
  }
}

/**
 * Builds the lab. Both stations know each other's addresses, no router is looked for, and multicast groups are
 * reported at once: nothing is on the cables afterwards that a test did not send.
 */
export function makeLab(scope: Scope): Lab {
  const name = `weir-K-${process.pid}-${++labs}`
  const folder = mkdtempSync(join(tmpdir(), `${name}-`))
  scope.after(() => rmSync(folder, { recursive: true, force: true }))
  const namespaces = [`${name}-host`, `${name}-peer`] as const
  for (const namespace of namespaces) {
    ip(`netns add ${namespace}`)
    scope.after(() => void ip(`netns del ${namespace}`))
  }
  for (const { device } of CABLES) {
    ip(`link add ${device} netns ${namespaces[0]} type veth peer name ${device} netns ${namespaces[1]}`)
  }
  const [host, peer] = [layOut(namespaces[0], 1), layOut(namespaces[1], 2)]
  for (const namespace of namespaces) for (const { device } of CABLES) waitForCarrier(namespace, device)
  introduce(host, peer)
  introduce(peer, host)
  return { host, peer, folder }
}

function layOut(namespace: string, number: number): Station {
  // Milliseconds: a report is repeated within this time, and that is all.
  const intervals = CABLES.map(
    ({ device }) => `/proc/sys/net/ipv6/conf/${device}/mldv2_unsolicited_report_interval`,
  )
  execFileSync('ip', ['netns', 'exec', namespace, 'tee', ...intervals], {
    input: '1',
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  // A new namespace begins with what this machine has: with container runtimes on it, it forwards.
  const forwarding = ['ipv4/ip_forward', 'ipv6/conf/all/forwarding'].map(name => `/proc/sys/net/${name}`)
  execFileSync('ip', ['netns', 'exec', namespace, 'tee', ...forwarding], {
    input: '0',
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  const ports = CABLES.map(({ device, net4, net6 }, cable) => {
    const port = {
      mac: `02:00:00:00:0${cable + 1}:0${number}`,
      ipv4: `${net4}.${number}`,
      ipv6: `${net6}:${number}`,
    }
    ipBatch(namespace, [
      `link set ${device} addrgenmode none address ${port.mac}`,
      `link set ${device} up`,
      `address add ${port.ipv4}/24 dev ${device}`,
      `address add ${port.ipv6}/64 dev ${device} nodad`,
    ])
    return { ...port, ifIndex: ifIndexOf(namespace, device) }
  })
  ipBatch(namespace, ['link set lo up'])
  return { namespace, eth0: ports[0]!, mgmt0: ports[1]! }
}

function introduce(station: Station, other: Station): void {
  const lines = (['eth0', 'mgmt0'] as const).flatMap(device =>
    [other[device].ipv4, other[device].ipv6].map(
      address => `neighbour replace ${address} lladdr ${other[device].mac} dev ${device} nud permanent`,
    ),
  )
  ipBatch(station.namespace, lines)
}

/** Many commands at once; `lines` as for `ip -batch`. */
export function ipBatch(namespace: string, lines: readonly string[]): void {
  execFileSync('ip', ['-n', namespace, '-batch', '-'], {
    input: lines.join('\n'),
    stdio: ['pipe', 'pipe', 'pipe'],
  })
}

export function ifIndexOf(namespace: string, device: string): number {
  const [link] = JSON.parse(ip(`-n ${namespace} -j link show ${device}`)) as [{ ifindex: number }]
  return link.ifindex
}

/** The kernel's own counts of an interface. */
export interface LinkCounts {
  readonly rxPackets: number
  readonly rxBytes: number
  readonly txPackets: number
  readonly txBytes: number
}

export function linkCounts(namespace: string, device: string): LinkCounts {
  const [link] = JSON.parse(ip(`-n ${namespace} -s -j link show ${device}`)) as [
    { stats64: Record<'rx' | 'tx', { packets: number; bytes: number }> },
  ]
  const { rx, tx } = link.stats64
  return { rxPackets: rx.packets, rxBytes: rx.bytes, txPackets: tx.packets, txBytes: tx.bytes }
}

export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** UDP packets that are all alike. */
export interface Flow {
  readonly from: Endpoint
  readonly to: Endpoint
  readonly payloadBytes: number
  readonly packets: number
}

/** Sends a flow from a namespace; the kernel has taken every packet when this returns. */
export function sendFlow(namespace: string, { from, to, payloadBytes, packets }: Flow): void {
  const [source, target] = [from, to].map(({ address, port }) => internetAddress(address, port)!) as [
    Uint8Array,
    Uint8Array,
  ]
  const socket = KernelSocket.open('flow', addressFamily(source), SOCK_DGRAM, 0, namespace)
  try {
    socket.bind(source, `bind to ${from.address}`)
    socket.connect(target, `connect to ${to.address}`)
    sendAll(socket, new Uint8Array(payloadBytes).fill(0x77), packets)
  } finally {
    socket.close()
  }
}

/** Sends a frame `count` times by an interface, without FCS. */
export function sendFrames(namespace: string, ifIndex: number, frame: Uint8Array, count: number): void {
  const ETH_P_ALL = 3
  // Without a protocol nothing is received: the socket only sends.
  const socket = KernelSocket.open('frames', AF_PACKET, SOCK_RAW, 0, namespace)
  try {
    socket.bind(packetAddress(ETH_P_ALL, ifIndex), `bind to interface ${ifIndex}`)
    sendAll(socket, frame, count)
  } finally {
    socket.close()
  }
}

function sendAll(socket: KernelSocket, bytes: Uint8Array, count: number): void {
  const memory = new ArrayBuffer(bytes.length)
  new Uint8Array(memory).set(bytes)
  const spans = new Int32Array(count * 2)
  for (let i = 0; i < count; i++) spans[i * 2 + 1] = bytes.length
  const deadline = performance.now() + SEND_MS
  for (let sent = 0; sent < count; ) {
    const result = socket.sendBatch(memory, spans, sent, count - sent)
    if (result === -EAGAIN && performance.now() < deadline) {
      // The socket may have no more packets under way: a busy machine is slow to take them.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    } else if (result < 0) {
      throw new Error(`packet ${sent} of ${count} was refused with errno ${-result}`)
    } else sent += result
  }
}

/** Takes packets to a port and drops them, so that nobody answers that it is closed. */
export function sink(scope: Scope, namespace: string, { address, port }: Endpoint): void {
  const name = internetAddress(address, port)!
  const socket = KernelSocket.open('sink', addressFamily(name), SOCK_DGRAM, 0, namespace)
  scope.after(() => socket.close())
  socket.bind(name, `bind to ${address}`)
}

/** A datagram as it arrived. */
export interface Arrival {
  readonly atMs: number
  /** Unix time, for comparison with the timestamps of samples. */
  readonly time: number
  readonly bytes: number
  readonly datagram: DecodedDatagram
}

export interface Collector {
  readonly arrivals: Arrival[]
  close(): void
}

/** Listens at an address of a namespace. What cannot be decoded throws where it arrives, and fails the test. */
export function listen(scope: Scope, namespace: string, { address, port }: Endpoint): Collector {
  const name = internetAddress(address, port)!
  const socket = KernelSocket.open('collector', addressFamily(name), SOCK_DGRAM, 0, namespace)
  scope.after(() => socket.close())
  socket.forceReceiveBuffer(32 << 20)
  const arrivals: Arrival[] = []
  const memory = socket.receive({ slots: 64, slotBytes: 16_384 }, count => {
    assert.ok(count > 0, `collector: errno ${-count}`)
    const now = { atMs: performance.now(), time: Date.now() }
    for (let slot = 0; slot < count; slot++) {
      const start = memory.dataOffset + slot * memory.dataStride
      const bytes = memory.meta[slot * META.words + META.length]!
      const copy = new Uint8Array(memory.memory.slice(start, start + bytes))
      arrivals.push({ ...now, bytes, datagram: decodeDatagram(copy) })
    }
  })
  socket.bind(name, `bind to ${address}`)
  return { arrivals, close: () => socket.close() }
}

/** A sample with the arrival it came in. */
export interface ArrivedSample<Value> {
  readonly arrival: Arrival
  readonly value: Value
  readonly records: SampleValue['records']
}

export function flowSamplesOf({ arrivals }: Collector): ArrivedSample<FlowSample>[] {
  return samplesOf<FlowSample>(arrivals, flowSampleExpanded)
}

/** Counters samples; of the data source `type`:`index` if one is given. */
export function countersSamplesOf(
  { arrivals }: Collector,
  source?: { type: number; index: number },
): ArrivedSample<CountersSample>[] {
  return samplesOf<CountersSample>(arrivals, countersSampleExpanded).filter(
    ({ value: { source_id } }) =>
      source === undefined || (source_id.type === source.type && source_id.index === source.index),
  )
}

export function discardsOf({ arrivals }: Collector): ArrivedSample<DiscardedPacket>[] {
  return samplesOf<DiscardedPacket>(arrivals, discardedPacket)
}

function samplesOf<Value>(arrivals: readonly Arrival[], kind: SampleValue['sample']): ArrivedSample<Value>[] {
  return arrivals.flatMap(arrival =>
    arrival.datagram.samples.flatMap(sample =>
      'sample' in sample && sample.sample === kind
        ? [{ arrival, value: sample.value as Value, records: sample.records }]
        : [],
    ),
  )
}

/** UDP destination port of a sampled packet without a VLAN tag; undefined when it is not UDP. */
export function udpPortOf({ records }: ArrivedSample<FlowSample>): number | undefined {
  const header = findRecord(records, sampledHeader)!.header
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength)
  const type = view.getUint16(12)
  if (type === 0x0800 && view.getUint8(23) === 17) return view.getUint16(36)
  if (type === 0x86dd && view.getUint8(20) === 17) return view.getUint16(56)
  return undefined
}

/** Characters of an agent's log that are shown when its test has failed. */
const LOG_SHOWN = 8000

/** One line of the agent's log. */
export interface LogLine {
  readonly level: number
  readonly msg: string
  readonly part?: string
  readonly [field: string]: unknown
}

/** The last line that SIGUSR1 or the end writes. */
export interface Status {
  readonly flowSamples: number
  readonly countersSamples: number
  readonly datagrams: number
  readonly collectors: readonly {
    readonly name: string
    readonly offered: number
    readonly sent: number
    readonly lost: number
    readonly reported: number
    readonly problem?: string
  }[]
  readonly lost: Readonly<Record<string, number>>
}

export class RunningAgent {
  readonly child: ChildProcess
  readonly startedMs = performance.now()
  /** All of standard output and of standard error. */
  stdout = ''
  stderr = ''
  /** Resolves with the exit status, or the signal's name. */
  readonly ended: Promise<number | string>

  constructor(scope: Scope, command: readonly [string, ...string[]]) {
    const [program, ...args] = command
    this.child = spawn(program, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] })
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text
    })
    this.ended = new Promise((resolve, reject) => {
      this.child.on('error', reject)
      this.child.on('close', (code, signal) => resolve(code ?? signal!))
    })
    scope.after(async () => {
      this.child.kill('SIGKILL')
      await this.ended
      // Runs that nobody watched are to be understood, too.
      if (scope.error) console.log(`${command.join(' ')} wrote:\n${this.stderr.slice(-LOG_SHOWN)}`)
    })
  }

  /** What it has logged so far; other lines are left out. */
  get log(): LogLine[] {
    const complete = this.stderr.split('\n').slice(0, -1)
    return complete.filter(line => line.startsWith('{')).map(line => JSON.parse(line) as LogLine)
  }

  /** Resolves to the first line whose message matches. */
  line(message: RegExp, from = 0): Promise<LogLine> {
    return this.#orEnd(`line ${message}`, () => this.log.slice(from).find(({ msg }) => message.test(msg)))
  }

  /** Asks for the status. */
  async status(): Promise<Status> {
    const before = this.log.length
    this.child.kill('SIGUSR1')
    return statusOf(await this.line(/^status$/, before))
  }

  /** Ends it; resolves to its exit status and the status it wrote last. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<{ exit: number | string; status: Status }> {
    this.child.kill(signal)
    const exit = await this.ended
    return { exit, status: statusOf(this.log.findLast(({ msg }) => msg === 'status')) }
  }

  async #orEnd<T>(what: string, look: () => T | undefined): Promise<T> {
    try {
      return await until(what, look)
    } catch (error) {
      throw new Error(`${(error as Error).message}; the agent wrote:\n${this.stderr}`)
    }
  }
}

function statusOf(line: LogLine | undefined): Status {
  assert.ok(line, 'no status was written')
  return line as unknown as Status
}

export interface AgentOptions {
  /** Arguments behind `weir run -f FILE`. */
  readonly args?: readonly string[]
  /** A command that runs the agent, as `setpriv …`. */
  readonly under?: readonly string[]
}

/** Starts `weir run` in a namespace with this configuration inside `sFlow { }`. */
export function startAgent(
  scope: Scope,
  lab: Lab,
  settings: string,
  { args = [], under = [] }: AgentOptions = {},
): RunningAgent {
  const file = join(lab.folder, `${++agents}.conf`)
  writeFileSync(file, `sFlow {\n${settings}\n}\n`)
  return runWeir(scope, ['ip', 'netns', 'exec', lab.host.namespace, ...under], ['run', '-f', file, ...args])
}

let agents = 0

/** Starts `weir` with these arguments, as a program that `prefix` runs. */
export function runWeir(scope: Scope, prefix: readonly string[], args: readonly string[]): RunningAgent {
  const [program, ...rest] = [...prefix, process.execPath, PROGRAM, ...args]
  return new RunningAgent(scope, [program!, ...rest])
}
