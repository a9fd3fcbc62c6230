/**
 * What datagrams say of the traffic now: flows, dropped packets, queues and delays, interfaces, agents. Pure: bytes and
 * the time come in, rows.ts reads out. Memory is limited whatever comes in; what had to go is counted.
 */

import type { InterfaceStatus } from '../control/status.ts'
import { type ScannedSample, Scanner, type ScanSink, u32 } from '../decode/scanner.ts'
import { agentText, Statistics, type StreamStatistics } from '../decode/statistics.ts'
import { formatIp4, formatIp6, formatMac } from '../wire/addresses.ts'
import { PacketFields, packetText, parsePacket } from '../wire/packet.ts'
import { Kept, type Sums, Table } from './table.ts'
import { Clock, WindowSums } from './window.ts'

/** What a sampled packet says about its flow: as fine as flows are kept. -1 and '' stand for what is not known. */
export interface Flow {
  readonly agent: string
  readonly input: number
  readonly output: Output
  readonly srcMac: string
  readonly dstMac: string
  /** The outermost tag. */
  readonly vlan: number
  readonly etherType: number
  readonly protocol: number
  readonly src: string
  readonly dst: string
  readonly srcPort: number
  readonly dstPort: number
}

/** Where a packet went: an ifIndex, or a discard reason, or a number of interfaces. */
export interface Output {
  readonly format: number
  readonly value: number
}

/** Packets dropped for one reason at one place. */
export interface Drop {
  readonly agent: string
  readonly reason: number
  /** The kernel's own reason, or the hardware's trap. */
  readonly detail: string
  /** The kernel's function, if known. */
  readonly place: string
  readonly input: number
  readonly output: number
  packets: number
  lastMs: number
  lastPacket: string
}

/** In place of the output interface of packets that were dropped on their way. */
export const DROPPED = -1

/** What was measured at one queue of one interface. */
export interface Queue {
  readonly agent: string
  /** An ifIndex, 0 if not known, or DROPPED. */
  readonly output: number
  /** -1 for delays without a queue. */
  readonly queue: number
  readonly delays: Readings
  readonly depths: Readings
  /** The greatest delay and depth of each second, the newest last. */
  readonly history: History
  samples: number
  lastMs: number
}

/** One interface as its counters tell it. Rates are of the time between the last two counters samples. */
export interface Port {
  readonly agent: string
  readonly ifIndex: number
  name: string
  type: number
  speed: number
  status: number
  /** Of the agent, when the last counters were read. */
  uptimeMs: number
  lastMs: number
  readonly counters: Float64Array
  /** For each second; NaN before there are two readings. */
  readonly rates: Float64Array
  /** What the counters of errors and discards have grown by since the first reading. */
  readonly grown: Float64Array
  /** Bits in and out for each second, the newest last; undefined before there are two readings. */
  history: History | undefined
}

/** Places in the arrays of a Port. */
export const PORT = {
  inOctets: 0,
  inPackets: 1,
  inErrors: 2,
  inDiscards: 3,
  outOctets: 4,
  outPackets: 5,
  outErrors: 6,
  outDiscards: 7,
} as const
const PORT_COUNTERS = 8
/** Those of 64 bits wrap at 2^64, the others at 2^32. */
const IS_64 = [true, false, false, false, true, false, false, false]
const KERNEL_IS_64 = IS_64.map(() => true)

/** A sub-agent and when it was last heard. */
export interface AgentSeen {
  readonly stream: StreamStatistics
  lastMs: number
  uptimeMs: number
}

/** The last values of something, for percentiles. */
export class Readings {
  static readonly MOST = 512
  readonly #values = new Float64Array(Readings.MOST)
  readonly #atMs = new Float64Array(Readings.MOST).fill(Number.NEGATIVE_INFINITY)
  #count = 0

  add(value: number, nowMs: number): void {
    const at = this.#count++ % Readings.MOST
    this.#values[at] = value
    this.#atMs[at] = nowMs
  }

  /** Those since `fromMs`, ascending. */
  sorted(fromMs: number): Float64Array {
    const most = Math.min(this.#count, Readings.MOST)
    return this.#values
      .slice(0, most)
      .filter((_, i) => this.#atMs[i]! >= fromMs)
      .sort()
  }
}

/** A value for each of the last seconds; NaN where there was none. */
export class History {
  static readonly SECONDS = 120
  readonly #values: Float32Array[]
  #second = Number.NaN

  constructor(series: number) {
    this.#values = Array.from({ length: series }, () => new Float32Array(History.SECONDS).fill(Number.NaN))
  }

  /** Keeps the greatest value of each second. */
  add(series: number, value: number, nowMs: number): void {
    const at = this.#settle(nowMs) % History.SECONDS
    const values = this.#values[series]!
    if (!(values[at]! >= value)) values[at] = value
  }

  /** The `count` seconds up to that of `nowMs`, oldest first. */
  last(series: number, count: number, nowMs: number): number[] {
    const newest = this.#settle(nowMs)
    const until = Math.floor(nowMs / 1000)
    const values = this.#values[series]!
    return Array.from({ length: count }, (_, i) => {
      const second = until - count + 1 + i
      const isKept = second >= 0 && second <= newest && second > newest - History.SECONDS
      return isKept ? values[second % History.SECONDS]! : Number.NaN
    })
  }

  #settle(nowMs: number): number {
    const second = Math.floor(nowMs / 1000)
    if (Number.isNaN(this.#second)) this.#second = second
    const from = Math.max(this.#second + 1, second - History.SECONDS + 1)
    for (let i = from; i <= second; i++) {
      for (const values of this.#values) values[i % History.SECONDS] = Number.NaN
    }
    if (second > this.#second) this.#second = second
    return this.#second
  }
}

export interface ModelOptions {
  /** What rates are averaged over, milliseconds; Infinity for all there is. */
  readonly windowMs: number
  /** Flows that are kept at most. */
  readonly flows: number
}

const MOST_DROPS = 1024
const MOST_QUEUES = 256
const MOST_PORTS = 8192
const MOST_AGENTS = 1024
/** Interfaces of which it is remembered that their ingress is sampled. */
const MOST_SAMPLED = 16_384
const INTERNAL = 0x3fffffff
const UNKNOWN32 = 0xffffffff

const SERIES = { bits: 0, packets: 1, drops: 2 } as const

export class TrafficModel implements ScanSink {
  readonly clock: Clock
  readonly flows: Table<Flow>
  readonly drops: Table<Drop>
  readonly queues = new Kept<string, Queue>(MOST_QUEUES)
  readonly ports = new Kept<string, Port>(MOST_PORTS)
  readonly agents = new Kept<StreamStatistics, AgentSeen>(MOST_AGENTS, stream =>
    this.statistics.forget(stream),
  )
  readonly statistics = new Statistics({ streams: MOST_AGENTS, sources: 0 })
  /** The series of lastSeconds(). */
  readonly #history = new History(3)
  /** Samples of the same packets at their second interface, which count nowhere: their first one did. */
  seenTwice = 0
  malformed = 0
  /** How many samples each one stands for, where the feed leaves some out. */
  scale = 1
  readonly #all: WindowSums
  readonly #dropSums: WindowSums
  readonly #scanner = new Scanner()
  readonly #fields = new PacketFields()
  readonly #key = Buffer.alloc(128)
  /** Sums of the running second. */
  #second = { number: Number.NaN, bits: 0, packets: 0, drops: 0 }
  readonly #ingressSampled = new Set<string>()
  #hasKernelCounts = false
  #agent = ''
  #nowMs = 0

  constructor({ windowMs, flows }: ModelOptions) {
    this.clock = new Clock(windowMs)
    this.flows = new Table(this.clock, flows)
    this.drops = new Table(this.clock, MOST_DROPS)
    this.#all = new WindowSums(this.clock, 1)
    this.#dropSums = new WindowSums(this.clock, 1)
  }

  /** Time goes on although nothing comes. `nowMs` is of any clock that does not go back. */
  advance(nowMs: number): void {
    this.#nowMs = nowMs
    this.clock.advance(nowMs)
    const number = Math.floor(nowMs / 1000)
    const second = this.#second
    if (number === second.number) return
    this.#keepSecond()
    this.#second = { number, bits: 0, packets: 0, drops: 0 }
  }

  #keepSecond(): void {
    const { number, bits, packets, drops } = this.#second
    if (Number.isNaN(number)) return
    const atMs = number * 1000
    this.#history.add(SERIES.bits, bits, atMs)
    this.#history.add(SERIES.packets, packets, atMs)
    this.#history.add(SERIES.drops, drops, atMs)
  }

  /** Sums of all flows and drops for each of the last seconds that are over, oldest first; a file's last second is. */
  lastSeconds(series: keyof typeof SERIES, count: number): number[] {
    const isFile = this.clock.windowMs === Number.POSITIVE_INFINITY
    if (isFile) this.#keepSecond()
    return this.#history.last(SERIES[series], count, isFile ? this.#nowMs : this.#nowMs - 1000)
  }

  /** Takes a datagram. False when it is none. */
  take(bytes: Uint8Array, nowMs: number): boolean {
    this.advance(Math.max(nowMs, this.#nowMs))
    if (this.#scanner.scan(bytes, 0, bytes.length, this)) {
      this.statistics.countBytes(bytes.length)
      return true
    }
    this.malformed++
    return false
  }

  datagram(s: ScannedSample): void {
    this.agents.makeRoom(this.#nowMs)
    this.statistics.datagram(s)
    const { stream } = this.statistics
    this.#agent = stream?.agent ?? agentText(s)
    if (stream === undefined) return
    let seen = this.agents.get(stream)
    if (seen === undefined) {
      seen = { stream, lastMs: 0, uptimeMs: 0 }
      this.agents.set(stream, seen)
    }
    seen.lastMs = this.#nowMs
    seen.uptimeMs = s.uptimeMs
  }

  sample(s: ScannedSample): void {
    this.statistics.sample(s)
    if (s.kind === 'flow') {
      this.#flow(s)
      this.#queue(s)
    } else if (s.kind === 'discard') {
      this.#drop(s)
    } else if (s.kind === 'counters') {
      this.#counters(s)
    }
  }

  /** Everything that flow samples stand for in the window, also what no flow is kept of. */
  total(): Sums {
    const all = this.#all
    return { samples: all.samples(0), packets: all.packets(0), bytes: all.bytes(0) }
  }

  /** Datagrams and samples of agents, interfaces and queues that found no room. */
  get notKept(): number {
    return this.statistics.notKept + this.ports.refused + this.queues.refused
  }

  totalDrops(): number {
    return this.#dropSums.packets(0)
  }

  #flow(s: ScannedSample): void {
    if (this.#isSecondLook(s)) {
      this.seenTwice++
      return
    }
    const packets = s.rate * this.scale
    const bytes = packets * (s.headerAt < 0 ? 0 : s.frameLength)
    this.#second.bits += bytes * 8
    this.#second.packets += packets
    this.#all.add(0, 1, packets, bytes)
    const f = this.#fields
    f.read(s.headerProtocol, s.bytes, Math.max(s.headerAt, 0), s.headerAt < 0 ? 0 : s.headerEnd)
    const entry = this.flows.entry(this.#flowKey(s), () => this.#makeFlow(s))
    this.flows.add(entry, 1, packets, bytes)
  }

  /**
   * A packet that passes two sampled interfaces is sampled at both, each with its own pool: to add up the traffic of
   * the device, only what comes in counts, if the ingress of its input interface is sampled.
   */
  #isSecondLook({ sourceType, sourceIndex, input, output, inputFormat }: ScannedSample): boolean {
    if (sourceType !== 0 || inputFormat !== 0 || input === 0 || input === INTERNAL) return false
    const key = `${this.#agent} ${input}`
    if (sourceIndex === input) {
      // What is forgotten is learned again from the next sample.
      if (this.#ingressSampled.size >= MOST_SAMPLED) this.#ingressSampled.clear()
      this.#ingressSampled.add(key)
      return false
    }
    return sourceIndex === output && this.#ingressSampled.has(key)
  }

  /** Everything that makes a Flow, as text of its bytes. */
  #flowKey(s: ScannedSample): string {
    const key = this.#key
    const { bytes } = s
    const f = this.#fields
    let at = 0
    const copy = (from: number, count: number) => {
      for (let i = 0; i < count; i++) key[at++] = bytes[from + i]!
    }
    copy(s.agentAt, s.agentLength)
    key.writeUInt32BE(s.input, at)
    key.writeUInt32BE(s.output, at + 4)
    key[at + 8] = s.outputFormat
    key.writeUInt16BE(f.etherType & 0xffff, at + 9)
    key.writeUInt16BE(f.srcPort & 0xffff, at + 11)
    key.writeUInt16BE(f.dstPort & 0xffff, at + 13)
    key[at + 15] = f.ipProtocol & 0xff
    key[at + 16] = f.ipVersion | (f.vlanCount > 0 ? 16 : 0) | (f.macAt >= 0 ? 32 : 0)
    at += 17
    if (f.vlanCount > 0) copy(f.vlanAt, 2)
    if (f.macAt >= 0) copy(f.macAt, 12)
    if (f.ipVersion !== 0) {
      copy(f.srcAt, f.ipVersion === 4 ? 4 : 16)
      copy(f.dstAt, f.ipVersion === 4 ? 4 : 16)
    }
    return key.toString('latin1', 0, at)
  }

  #makeFlow(s: ScannedSample): Flow {
    const f = this.#fields
    const { bytes } = s
    const ip = (at: number) =>
      f.ipVersion === 0 ? '' : f.ipVersion === 4 ? formatIp4(bytes, at) : formatIp6(bytes, at)
    return {
      agent: this.#agent,
      input: s.inputFormat === 0 ? s.input : 0,
      output: { format: s.outputFormat, value: s.output },
      srcMac: f.macAt < 0 ? '' : formatMac(bytes, f.macAt + 6),
      dstMac: f.macAt < 0 ? '' : formatMac(bytes, f.macAt),
      vlan: f.vlanCount > 0 ? ((bytes[f.vlanAt]! << 8) | bytes[f.vlanAt + 1]!) & 0xfff : -1,
      etherType: f.etherType,
      protocol: f.ipProtocol,
      src: ip(f.srcAt),
      dst: ip(f.dstAt),
      srcPort: f.srcPort,
      dstPort: f.dstPort,
    }
  }

  #drop(s: ScannedSample): void {
    const detail = textAt(s, s.dropReasonAt) || textAt(s, s.trapAt)
    const place = textAt(s, s.functionAt)
    const packets = this.scale
    this.#second.drops += packets
    this.#dropSums.add(0, 1, packets, 0)
    const key = JSON.stringify([this.#agent, s.reason, detail, place, s.input, s.output])
    const entry = this.drops.entry(key, () => ({
      agent: this.#agent,
      reason: s.reason,
      detail,
      place,
      input: s.input,
      output: s.output,
      packets: 0,
      lastMs: 0,
      lastPacket: '',
    }))
    this.drops.add(entry, 1, packets, 0)
    const drop = this.drops.value(entry)
    drop.packets += packets
    // The text of a packet costs more than all the rest: one for each look is enough.
    if (s.headerAt >= 0 && (drop.lastPacket === '' || this.#nowMs - drop.lastMs > 100)) {
      drop.lastPacket = packetText(parsePacket(s.headerProtocol, s.bytes.subarray(s.headerAt, s.headerEnd)))
      drop.lastMs = this.#nowMs
    }
    if (drop.lastMs === 0) drop.lastMs = this.#nowMs
  }

  #queue(s: ScannedSample): void {
    if (s.queueDepth < 0 && s.transitDelay < 0) return
    const output = s.outputFormat === 0 ? s.output : DROPPED
    const key = `${this.#agent} ${output} ${s.queue}`
    let queue = this.queues.get(key)
    if (queue === undefined) {
      if (!this.queues.hasRoom(this.#nowMs)) return
      queue = {
        agent: this.#agent,
        output,
        queue: s.queue,
        delays: new Readings(),
        depths: new Readings(),
        history: new History(2),
        samples: 0,
        lastMs: 0,
      }
      this.queues.set(key, queue)
    }
    queue.samples++
    queue.lastMs = this.#nowMs
    if (s.transitDelay >= 0) {
      queue.delays.add(s.transitDelay, this.#nowMs)
      queue.history.add(0, s.transitDelay, this.#nowMs)
    }
    if (s.queueDepth >= 0) {
      queue.depths.add(s.queueDepth, this.#nowMs)
      queue.history.add(1, s.queueDepth, this.#nowMs)
    }
  }

  #counters(s: ScannedSample): void {
    if (this.#hasKernelCounts || s.sourceType !== 0 || (s.ifCountersAt < 0 && s.portNameAt < 0)) return
    const ifIndex = s.ifCountersAt >= 0 ? u32(s.bytes, s.ifCountersAt) : s.sourceIndex
    const port = this.#port(this.#agent, ifIndex)
    if (port === undefined) return
    port.lastMs = this.#nowMs
    if (s.portNameAt >= 0) port.name = textAt(s, s.portNameAt)
    if (s.ifCountersAt >= 0) this.#reading(port, s)
  }

  /** Takes what a running agent tells of its interfaces; counters samples, which come less often, are left out then. */
  takeInterfaces(agent: string, interfaces: readonly InterfaceStatus[], nowMs: number): void {
    this.advance(Math.max(nowMs, this.#nowMs))
    this.#hasKernelCounts = true
    const present = new Set<string>()
    for (const { name, ifIndex, speedBitsPerSecond, adminUp, operUp, counters } of interfaces) {
      const port = this.#port(agent, ifIndex)
      if (port === undefined) continue
      present.add(portKey(agent, ifIndex))
      port.name = name
      port.speed = speedBitsPerSecond
      port.status = (adminUp ? 1 : 0) | (operUp ? 2 : 0)
      if (counters === null) continue
      const now = [
        counters.rxBytes,
        counters.rxPackets,
        counters.rxErrors,
        counters.rxDropped,
        counters.txBytes,
        counters.txPackets,
        counters.txErrors,
        counters.txDropped,
      ]
      this.#grow(port, now, nowMs, KERNEL_IS_64)
    }
    for (const key of this.ports.keys()) if (!present.has(key)) this.ports.delete(key)
  }

  #port(agent: string, ifIndex: number): Port | undefined {
    const key = portKey(agent, ifIndex)
    const known = this.ports.get(key)
    if (known !== undefined) return known
    if (!this.ports.hasRoom(this.#nowMs)) return undefined
    const port: Port = {
      agent,
      ifIndex,
      name: '',
      type: 0,
      speed: 0,
      status: 0,
      uptimeMs: Number.NaN,
      lastMs: 0,
      counters: new Float64Array(PORT_COUNTERS),
      rates: new Float64Array(PORT_COUNTERS).fill(Number.NaN),
      grown: new Float64Array(PORT_COUNTERS),
      history: undefined,
    }
    this.ports.set(key, port)
    return port
  }

  #reading(port: Port, { bytes, ifCountersAt: at, uptimeMs }: ScannedSample): void {
    port.type = u32(bytes, at + 4)
    port.speed = u64(bytes, at + 8)
    port.status = u32(bytes, at + 20)
    const now = [
      u64(bytes, at + 24),
      sumOf(bytes, at + 32, 3),
      u32(bytes, at + 48),
      u32(bytes, at + 44),
      u64(bytes, at + 56),
      sumOf(bytes, at + 64, 3),
      u32(bytes, at + 80),
      u32(bytes, at + 76),
    ]
    this.#grow(port, now, uptimeMs, IS_64)
  }

  #grow(port: Port, now: readonly number[], uptimeMs: number, is64: readonly boolean[]): void {
    const elapsed = (uptimeMs - port.uptimeMs) / 1000
    // Of an agent that has started again nothing is known of the time between.
    const isNext = elapsed > 0
    for (let i = 0; i < PORT_COUNTERS; i++) {
      const grown = difference(now[i]!, port.counters[i]!, is64[i]!)
      port.rates[i] = isNext ? grown / elapsed : Number.NaN
      if (isNext) port.grown[i] = port.grown[i]! + grown
      port.counters[i] = now[i]!
    }
    port.uptimeMs = uptimeMs
    port.lastMs = this.#nowMs
    if (!isNext) return
    port.history ??= new History(2)
    port.history.add(0, port.rates[PORT.inOctets]! * 8, this.#nowMs)
    port.history.add(1, port.rates[PORT.outOctets]! * 8, this.#nowMs)
  }
}

/** By what the interfaces of all agents are kept. */
export function portKey(agent: string, ifIndex: number): string {
  return `${agent} ${ifIndex}`
}

/** The growth of a counter; 0 for one that is not counted or was set back. */
function difference(now: number, before: number, is64: boolean): number {
  if (now >= before) return now - before
  // A counter of 32 bits wraps; one of 64 bits has been set back.
  return is64 || before < 2 ** 31 ? 0 : now + 2 ** 32 - before
}

/** The sum of counters, without those that the platform does not have. */
function sumOf(bytes: Uint8Array, at: number, count: number): number {
  let sum = 0
  for (let i = 0; i < count; i++) {
    const value = u32(bytes, at + 4 * i)
    if (value !== UNKNOWN32) sum += value
  }
  return sum
}

/** 64-bit counters as doubles: rates are differences, and 2^53 octets are two days at 400 Gb/s. */
function u64(bytes: Uint8Array, at: number): number {
  const high = u32(bytes, at)
  const low = u32(bytes, at + 4)
  return high === UNKNOWN32 && low === UNKNOWN32 ? 0 : high * 2 ** 32 + low
}

function textAt({ bytes }: ScannedSample, at: number): string {
  if (at < 0) return ''
  const MOST_BYTES = 128
  const length = Math.min(u32(bytes, at), MOST_BYTES)
  return Buffer.from(bytes.buffer, bytes.byteOffset + at + 4, length).toString('utf8')
}
