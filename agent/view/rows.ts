/** What the model holds, as rows to be shown: grouped, filtered, sorted, named. Pure. */

import { printable } from '../health/printable.ts'
import { counted } from '../quantities.ts'
import { PROTOCOL_NAMES } from '../wire/packet.ts'
import { discardReason, meantDiscardReason } from '../wire/sflow/discard-reasons.ts'
import {
  type AgentSeen,
  DROPPED,
  type Flow,
  History,
  type Output,
  PORT,
  type Port,
  portKey,
  type Queue,
  type TrafficModel,
} from './model.ts'

/** What flows are grouped by. */
export interface FlowKey {
  readonly name: string
  readonly title: string
  readonly columns: readonly string[]
  readonly cells: (flow: Flow, names: Names) => readonly string[]
}

/** How an interface of an agent is called. */
export interface Names {
  (agent: string, ifIndex: number): string
  /** There are several agents, whose interfaces may have the same names. */
  readonly several: boolean
}

const ETHERTYPES: Readonly<Record<number, string>> = {
  2048: 'IPv4',
  2054: 'ARP',
  34525: 'IPv6',
  34887: 'MPLS',
  35020: 'LLDP',
  34825: 'LACP',
}

export const FLOW_KEYS: readonly FlowKey[] = [
  {
    name: 'flow',
    title: '5-tuple',
    columns: ['proto', 'source', 'destination'],
    cells: flow => [
      protocolText(flow),
      withPort(source(flow), flow.srcPort),
      withPort(destination(flow), flow.dstPort),
    ],
  },
  {
    name: 'pair',
    title: 'address pair',
    columns: ['source', 'destination'],
    cells: flow => [source(flow), destination(flow)],
  },
  { name: 'source', title: 'source', columns: ['source'], cells: flow => [source(flow)] },
  {
    name: 'destination',
    title: 'destination',
    columns: ['destination'],
    cells: flow => [destination(flow)],
  },
  {
    name: 'service',
    title: 'protocol and port',
    columns: ['proto', 'port'],
    cells: flow => [protocolText(flow), serviceOf(flow)],
  },
  {
    name: 'interfaces',
    title: 'interface pair',
    columns: ['in', 'out'],
    cells: (flow, names) => [
      `${names.several ? `${flow.agent} ` : ''}${names(flow.agent, flow.input)}`,
      outputText(flow.agent, flow.output, names),
    ],
  },
  {
    name: 'vlan',
    title: 'VLAN',
    columns: ['vlan'],
    cells: ({ vlan }) => [vlan < 0 ? 'untagged' : String(vlan)],
  },
  {
    name: 'macs',
    title: 'MAC pair',
    columns: ['source', 'destination'],
    cells: ({ srcMac, dstMac }) => [srcMac || '?', dstMac || '?'],
  },
  { name: 'agent', title: 'agent', columns: ['agent'], cells: ({ agent }) => [agent] },
]

export interface FlowRow {
  readonly cells: readonly string[]
  readonly bitsPerSecond: number
  readonly packetsPerSecond: number
  readonly samples: number
  /** At 95 %, as a part of the packets: 1.96 √(1/n) of n samples. */
  readonly error: number
}

export interface FlowTable {
  readonly rows: readonly FlowRow[]
  /** Rows there are, also those beyond `limit`. */
  readonly count: number
  readonly total: FlowRow
  /** Of flows that were evicted; undefined when there are none in the window. */
  readonly others: FlowRow | undefined
}

export type FlowSort = 'bits' | 'packets' | 'samples' | 'name'

export interface FlowQuery {
  readonly key: FlowKey
  readonly sort: FlowSort
  /** Words that a row has to contain, or not, with `!` before them. */
  readonly filter: string
  readonly limit: number
}

/** How far off an estimate from `samples` samples is, at 95 %, as a part of it. */
export function relativeError(samples: number): number {
  return samples > 0 ? 1.96 * Math.sqrt(1 / samples) : Number.POSITIVE_INFINITY
}

export function flowTable(model: TrafficModel, { key, sort, filter, limit }: FlowQuery): FlowTable {
  const names = namesOf(model)
  const matches = matcher(filter)
  const groups = new Map<
    string,
    { cells: readonly string[]; samples: number; packets: number; bytes: number }
  >()
  model.flows.each((flow, { samples, packets, bytes }) => {
    if (samples === 0 || (filter !== '' && !matches(flowText(flow, names)))) return
    const cells = key.cells(flow, names)
    const name = cells.join('\t')
    const group = groups.get(name)
    if (group === undefined) {
      groups.set(name, { cells, samples, packets, bytes })
    } else {
      group.samples += samples
      group.packets += packets
      group.bytes += bytes
    }
  })
  const { seconds } = model.clock
  const row = (
    cells: readonly string[],
    sums: { samples: number; packets: number; bytes: number },
  ): FlowRow => ({
    cells,
    bitsPerSecond: (sums.bytes * 8) / seconds,
    packetsPerSecond: sums.packets / seconds,
    samples: sums.samples,
    error: relativeError(sums.samples),
  })
  const rows = [...groups.values()].map(group =>
    row(
      group.cells.map(cell => printable(cell, 64)),
      group,
    ),
  )
  rows.sort(FLOW_ORDERS[sort])
  const others = model.flows.others()
  return {
    rows: rows.slice(0, limit),
    count: rows.length,
    total: row([], model.total()),
    others: others.samples > 0 && filter === '' ? row(['evicted'], others) : undefined,
  }
}

/** Equal rows keep their places from one look to the next. */
const byName = (a: { cells: readonly string[] }, b: { cells: readonly string[] }) =>
  compare(a.cells.join('\t'), b.cells.join('\t'))
const FLOW_ORDERS: Readonly<Record<FlowSort, (a: FlowRow, b: FlowRow) => number>> = {
  bits: (a, b) => b.bitsPerSecond - a.bitsPerSecond || byName(a, b),
  packets: (a, b) => b.packetsPerSecond - a.packetsPerSecond || byName(a, b),
  samples: (a, b) => b.samples - a.samples || byName(a, b),
  name: byName,
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Everything about a flow that a filter may name. */
function flowText(flow: Flow, names: Names): string {
  const { agent, vlan, srcMac, dstMac, srcPort, dstPort } = flow
  return [
    protocolText(flow),
    withPort(source(flow), srcPort),
    withPort(destination(flow), dstPort),
    `in=${names(agent, flow.input)}`,
    `out=${outputText(agent, flow.output, names)}`,
    vlan < 0 ? 'untagged' : `vlan=${vlan}`,
    srcMac,
    dstMac,
    `agent=${agent}`,
  ].join(' ')
}

/** Whether a text has all the words of the filter and none of those after `!`; case does not matter. */
function matcher(filter: string): (text: string) => boolean {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean)
  const wanted = words.filter(word => !word.startsWith('!'))
  const unwanted = words.filter(word => word.startsWith('!') && word.length > 1).map(word => word.slice(1))
  return text => {
    const lower = text.toLowerCase()
    return wanted.every(word => lower.includes(word)) && !unwanted.some(word => lower.includes(word))
  }
}

export interface DropRow {
  readonly reason: string
  /** The kernel's own reason, or the hardware's trap. */
  readonly detail: string
  readonly input: string
  readonly output: string
  readonly place: string
  readonly agent: string
  readonly perSecond: number
  readonly packets: number
  readonly ageSeconds: number
  readonly lastPacket: string
}

export type DropSort = 'rate' | 'packets' | 'reason' | 'last'

export function dropRows(model: TrafficModel, sort: DropSort, filter: string): DropRow[] {
  const names = namesOf(model)
  const matches = matcher(filter)
  const rows: DropRow[] = []
  const { seconds, nowMs } = model.clock
  model.drops.each((drop, sums) => {
    const row = {
      reason: reasonText(drop.reason),
      detail: printable(drop.detail, 48),
      input: drop.input === 0 ? '' : names(drop.agent, drop.input),
      output: drop.output === 0 ? '' : names(drop.agent, drop.output),
      place: printable(drop.place, 64),
      agent: drop.agent,
      perSecond: sums.packets / seconds,
      packets: Math.round(drop.packets),
      ageSeconds: Math.max(nowMs - drop.lastMs, 0) / 1000,
      lastPacket: printable(drop.lastPacket, 200),
    }
    if (filter === '' || matches(Object.values(row).join(' '))) rows.push(row)
  })
  const byReason = (a: DropRow, b: DropRow) =>
    compare(`${a.reason} ${a.detail} ${a.input} ${a.place}`, `${b.reason} ${b.detail} ${b.input} ${b.place}`)
  const orders: Readonly<Record<DropSort, (a: DropRow, b: DropRow) => number>> = {
    rate: (a, b) => b.perSecond - a.perSecond || b.packets - a.packets || byReason(a, b),
    packets: (a, b) => b.packets - a.packets || byReason(a, b),
    reason: byReason,
    last: (a, b) => a.ageSeconds - b.ageSeconds || byReason(a, b),
  }
  return rows.sort(orders[sort])
}

/** The drops of one reason added up. */
export function dropsByReason(model: TrafficModel): { reason: string; perSecond: number; packets: number }[] {
  const sums = new Map<string, { reason: string; perSecond: number; packets: number }>()
  for (const { reason, perSecond, packets } of dropRows(model, 'rate', '')) {
    const sum = sums.get(reason) ?? { reason, perSecond: 0, packets: 0 }
    sum.perSecond += perSecond
    sum.packets += packets
    sums.set(reason, sum)
  }
  return [...sums.values()].sort((a, b) => b.perSecond - a.perSecond || b.packets - a.packets)
}

/** Median, upper percentiles and the greatest. */
export interface Percentiles {
  readonly count: number
  readonly p50: number
  readonly p95: number
  readonly p99: number
  readonly max: number
}

/** Of ascending values: the least one that so many are not above (nearest rank). */
export function percentiles(sorted: Float64Array): Percentiles | undefined {
  const count = sorted.length
  if (count === 0) return undefined
  const at = (part: number) => sorted[Math.min(Math.ceil(part * count), count) - 1]!
  return { count, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: sorted[count - 1]! }
}

export interface QueueRow {
  readonly agent: string
  readonly output: string
  /** Empty for delays without a queue. */
  readonly queue: string
  readonly samples: number
  /** Nanoseconds, of the window. */
  readonly delay: Percentiles | undefined
  /** Bytes, of the window. */
  readonly depth: Percentiles | undefined
  /** The greatest of each of the last seconds, NaN where there was none. */
  readonly delays: readonly number[]
  readonly depths: readonly number[]
}

export type QueueSort = 'delay' | 'depth' | 'samples' | 'name'

/** Plots end with the second of `untilMs`. */
export function queueRows(
  model: TrafficModel,
  sort: QueueSort,
  filter: string,
  seconds: number,
  untilMs = model.clock.nowMs,
): QueueRow[] {
  const names = namesOf(model)
  const matches = matcher(filter)
  const { nowMs, windowMs } = model.clock
  const isSeen = ({ history }: Queue) =>
    [0, 1].some(series => history.last(series, History.SECONDS, nowMs).some(value => !Number.isNaN(value)))
  const rows = [...model.queues.values()].filter(isSeen).map((queue: Queue): QueueRow => {
    return {
      agent: queue.agent,
      output: queue.output === DROPPED ? '(dropped)' : names(queue.agent, queue.output),
      queue: queue.queue < 0 ? '' : String(queue.queue),
      samples: queue.samples,
      delay: percentiles(queue.delays.sorted(nowMs - windowMs)),
      depth: percentiles(queue.depths.sorted(nowMs - windowMs)),
      delays: queue.history.last(0, seconds, untilMs),
      depths: queue.history.last(1, seconds, untilMs),
    }
  })
  const name = (row: QueueRow) => `${row.agent} ${row.output} ${row.queue}`
  const byQueue = (a: QueueRow, b: QueueRow) => compare(name(a), name(b))
  const greatest = (row: QueueRow, of: 'delay' | 'depth') => row[of]?.p99 ?? -1
  const orders: Readonly<Record<QueueSort, (a: QueueRow, b: QueueRow) => number>> = {
    delay: (a, b) => greatest(b, 'delay') - greatest(a, 'delay') || byQueue(a, b),
    depth: (a, b) => greatest(b, 'depth') - greatest(a, 'depth') || byQueue(a, b),
    samples: (a, b) => b.samples - a.samples || byQueue(a, b),
    name: byQueue,
  }
  return rows.filter(row => filter === '' || matches(name(row))).sort(orders[sort])
}

export interface PortRow {
  readonly agent: string
  readonly ifIndex: number
  readonly name: string
  readonly up: boolean
  /** Bits per second; 0 if not known. */
  readonly speed: number
  /** For each second; NaN before there are two readings. */
  readonly inBits: number
  readonly outBits: number
  readonly inPackets: number
  readonly outPackets: number
  /** The busier direction, as a part of the speed; NaN if not known. */
  readonly utilisation: number
  /** Since it was first seen. */
  readonly errors: number
  readonly discards: number
  readonly ageSeconds: number
  readonly inHistory: readonly number[]
  readonly outHistory: readonly number[]
}

export type PortSort = 'bits' | 'utilisation' | 'errors' | 'name'

/** Plots end with the second of `untilMs`. */
export function portRows(
  model: TrafficModel,
  sort: PortSort,
  filter: string,
  seconds: number,
  untilMs = model.clock.nowMs,
): PortRow[] {
  const matches = matcher(filter)
  const names = namesOf(model)
  const { nowMs } = model.clock
  const none = new Array<number>(seconds).fill(Number.NaN)
  const rows = [...model.ports.values()].map((port: Port): PortRow => {
    const { rates, grown, speed } = port
    const inBits = rates[PORT.inOctets]! * 8
    const outBits = rates[PORT.outOctets]! * 8
    return {
      agent: port.agent,
      ifIndex: port.ifIndex,
      name: names(port.agent, port.ifIndex),
      up: (port.status & 3) === 3,
      speed,
      inBits,
      outBits,
      inPackets: rates[PORT.inPackets]!,
      outPackets: rates[PORT.outPackets]!,
      utilisation: speed > 0 ? Math.max(inBits, outBits) / speed : Number.NaN,
      errors: grown[PORT.inErrors]! + grown[PORT.outErrors]!,
      discards: grown[PORT.inDiscards]! + grown[PORT.outDiscards]!,
      ageSeconds: Math.max(nowMs - port.lastMs, 0) / 1000,
      inHistory: port.history?.last(0, seconds, untilMs) ?? none,
      outHistory: port.history?.last(1, seconds, untilMs) ?? none,
    }
  })
  const byIndex = (a: PortRow, b: PortRow) => compare(a.agent, b.agent) || a.ifIndex - b.ifIndex
  const known = (value: number) => (Number.isNaN(value) ? -1 : value)
  const bits = (row: PortRow) => known(row.inBits + row.outBits)
  const orders: Readonly<Record<PortSort, (a: PortRow, b: PortRow) => number>> = {
    bits: (a, b) => bits(b) - bits(a) || byIndex(a, b),
    utilisation: (a, b) => known(b.utilisation) - known(a.utilisation) || byIndex(a, b),
    errors: (a, b) => b.errors + b.discards - a.errors - a.discards || byIndex(a, b),
    name: (a, b) => compare(a.name, b.name) || byIndex(a, b),
  }
  const isWanted = (row: PortRow) =>
    filter === '' || matches(`${row.name} ${row.agent} ${row.up ? 'up' : 'down'}`)
  return rows.filter(isWanted).sort(orders[sort])
}

export interface AgentRow {
  readonly agent: string
  readonly subAgent: number
  readonly datagrams: number
  readonly missing: number
  readonly restarts: number
  readonly flows: number
  readonly drops: number
  readonly counters: number
  readonly ageSeconds: number
  readonly uptimeSeconds: number
}

export function agentRows(model: TrafficModel, filter: string): AgentRow[] {
  const matches = matcher(filter)
  const { nowMs } = model.clock
  return [...model.agents.values()]
    .filter(({ stream }) => filter === '' || matches(`${stream.agent} ${stream.subAgent}`))
    .map(({ stream, lastMs, uptimeMs }: AgentSeen) => ({
      agent: stream.agent,
      subAgent: stream.subAgent,
      datagrams: stream.datagrams.received,
      missing: stream.datagrams.lost,
      restarts: stream.datagrams.restarts,
      flows: stream.samples.flow,
      drops: stream.samples.discard,
      counters: stream.samples.counters,
      ageSeconds: Math.max(nowMs - lastMs, 0) / 1000,
      uptimeSeconds: uptimeMs / 1000,
    }))
    .sort((a, b) => compare(a.agent, b.agent) || a.subAgent - b.subAgent)
}

const INTERNAL: readonly number[] = [0x3fffffff, 0xffffffff]

/** Whether more than one agent was heard. */
export function hasSeveralAgents(model: TrafficModel): boolean {
  let first: string | undefined
  for (const { stream } of model.agents.values()) {
    first ??= stream.agent
    if (stream.agent !== first) return true
  }
  return false
}

/** The names that port_name records tell, else numbers. */
export function namesOf(model: TrafficModel): Names {
  const name = (agent: string, ifIndex: number) => {
    if (INTERNAL.includes(ifIndex)) return 'internal'
    if (ifIndex === 0) return '?'
    const known = model.ports.get(portKey(agent, ifIndex))?.name
    return known === undefined || known === '' ? String(ifIndex) : printable(known, 32)
  }
  return Object.assign(name, { several: hasSeveralAgents(model) })
}

function outputText(agent: string, { format, value }: Output, names: Names): string {
  if (format === 1) return `dropped: ${reasonText(value)}`
  if (format === 2) return counted(value, 'interface')
  return names(agent, value)
}

function reasonText(code: number): string {
  return discardReason[meantDiscardReason(code)] ?? String(code)
}

function protocolText({ protocol, etherType }: Flow): string {
  if (protocol >= 0) return PROTOCOL_NAMES[protocol] ?? `IP ${protocol}`
  if (etherType < 0) return '?'
  return ETHERTYPES[etherType] ?? `0x${etherType.toString(16).padStart(4, '0')}`
}

function source({ src, srcMac }: Flow): string {
  return src || srcMac || '?'
}

function destination({ dst, dstMac }: Flow): string {
  return dst || dstMac || '?'
}

function withPort(address: string, port: number): string {
  if (port < 0) return address
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** The port that tells the service: the lower one, because clients take high ones. */
function serviceOf({ srcPort, dstPort }: Flow): string {
  return srcPort < 0 ? '-' : String(Math.min(srcPort, dstPort))
}
