import type { Config } from '../config/config.ts'
import type { CollectorStatus } from '../export/collectors.ts'
import type { DatagramBalance } from '../export/exporter.ts'
import type { Balance, Ledger } from '../health/ledger.ts'
import type { Unheard } from '../health/listener.ts'
import { type LogEntry, recentProblems } from '../health/log.ts'
import type { Interface } from '../interfaces.ts'
import { isReplaced } from '../kernel/processes.ts'
import type { DropStatus } from '../parts/drop-reports.ts'
import { version } from '../version.ts'
import type { LinkStats64 } from '../wire/netlink/rt-stats.ts'
import { type LedgerStatus, ledgerOf } from './ledger.ts'

/**
 * What a running agent tells of itself, as it is sent over the control socket. All counts are since the agent started,
 * all rates are left to the reader, who looks twice: so nothing is kept, and nothing paid, while nobody looks.
 */

export interface Status {
  readonly agent: AgentStatus
  readonly process: ProcessStatus
  readonly collectors: readonly CollectorStatus[]
  readonly sources: readonly SourceStatus[]
  /** Those that are sampled, or have been. */
  readonly interfaces: readonly SampledInterface[]
  readonly drops: DropStatus | null
  /** Blocks that are to listen, and cannot. */
  readonly unheard: readonly Unheard[]
  readonly samples: {
    /** Flow samples written into datagrams, and merged into later ones because the feed's rate is finer. */
    readonly flows: number
    readonly merged: number
    /** Counters samples. */
    readonly counters: number
    /** Discarded packets. */
    readonly drops: number
    readonly datagrams: number
  }
  readonly ledger: LedgerStatus
  /** The last warnings and errors of the log, oldest first. */
  readonly log: readonly LogEntry[]
}

export interface AgentStatus {
  readonly version: string
  readonly pid: number
  readonly uptimeSeconds: number
  /** The file. */
  readonly configuration: string
  /** Null while no interface has one. */
  readonly address: string | null
  readonly addressInterface: string | null
  readonly subAgentId: number
  readonly pollingSeconds: number
  /** Whether a block of the configuration asks for packet samples. */
  readonly wantsPackets: boolean
  /** Whether its program has been replaced, as by an upgrade: it takes no other configuration then. */
  readonly replaced: boolean
}

export interface ProcessStatus {
  /** Time of processor, user and system, of all threads. */
  readonly cpuSeconds: number
  readonly residentBytes: number
  readonly heapBytes: number
}

/** Where samples come from, as its part tells it. */
export interface RunningSource {
  /** The stage of the ledger that has its losses. */
  readonly name: string
  /** In words: `listening`, `waiting for the kernel module`, … */
  readonly state: string
  /** Samples, or drops. */
  readonly balance: Balance
}

export interface SourceStatus {
  readonly name: string
  readonly state: string
  /** Samples, or drops: offered = delivered + lost + under way. */
  readonly offered: number
  readonly delivered: number
  readonly underWay: number
  /** Losses since the agent started, by cause. */
  readonly lost: Readonly<Record<string, number>>
}

export interface SampledInterface {
  readonly name: string
  readonly ifIndex: number
  /** 0 when unknown. */
  readonly speedBitsPerSecond: number
  readonly up: boolean
  /** What samples it; null when weir does not place the sampler. */
  readonly sampledBy: string | null
  /** Why it is not sampled though it is to be; null when it is. */
  readonly problem: string | null
  /** 1 in N as configured now; null when the feed decides. */
  readonly rate: number | null
  /** Of its data source, 32 bits each, as in its last sample. */
  readonly samples: number
  readonly pool: number
  readonly drops: number
}

export interface InterfaceStatus {
  readonly name: string
  readonly ifIndex: number
  readonly alias: string | null
  readonly kind: string | null
  readonly speedBitsPerSecond: number
  readonly adminUp: boolean
  readonly operUp: boolean
  /** Null when the kernel's counters cannot be read. */
  readonly counters: InterfaceCounters | null
}

/** The kernel's own counts since the interface was made; exact up to 2^53. */
export interface InterfaceCounters {
  readonly rxPackets: number
  readonly rxBytes: number
  readonly rxErrors: number
  readonly rxDropped: number
  readonly txPackets: number
  readonly txBytes: number
  readonly txErrors: number
  readonly txDropped: number
}

/** What status needs to see of the agent. */
export interface Observed {
  readonly config: Config
  readonly address: string | undefined
  readonly addressDevice: string | undefined
  readonly uptimeMs: number
  readonly ledger: Ledger
  readonly sampler: {
    readonly offered: number
    readonly exported: number
    readonly subSampled: number
    state(ifIndex: number): { sequence: number; samplePool: number; drops: number } | undefined
  }
  readonly counters: { readonly offered: number; readonly exported: number; readonly samples: number }
  readonly datagrams: DatagramBalance
  readonly collectors: readonly CollectorStatus[]
  readonly drops: DropStatus | undefined
  readonly interfaces: ReadonlyMap<number, Interface>
  readonly sources: readonly RunningSource[]
  readonly unheard: readonly Unheard[]
  interfaceCounters(): Promise<ReadonlyMap<number, LinkStats64>>
  /** How an interface is sampled by a sampler of ours. */
  sampledBy(ifIndex: number): SampledBy | undefined
}

/** What samples an interface, or is to. */
export interface SampledBy {
  readonly source: string
  readonly rate: number
  /** Why it does not. */
  readonly problem?: string | undefined
}

export function statusOf(observed: Observed): Status {
  const { config, address, addressDevice, uptimeMs } = observed
  return {
    agent: {
      version,
      pid: process.pid,
      uptimeSeconds: uptimeMs / 1000,
      configuration: config.file,
      address: address ?? null,
      addressInterface: addressDevice ?? null,
      subAgentId: config.subAgentId,
      pollingSeconds: config.polling.seconds,
      wantsPackets: wantsPackets(config),
      replaced: isReplaced('self'),
    },
    process: processStatus(),
    collectors: observed.collectors,
    sources: sourcesOf(observed),
    interfaces: sampledInterfaces(observed),
    drops: observed.drops ?? null,
    unheard: observed.unheard,
    samples: {
      flows: observed.sampler.exported,
      merged: observed.sampler.subSampled,
      counters: observed.counters.samples,
      drops: observed.drops?.exported ?? 0,
      datagrams: observed.datagrams.given,
    },
    ledger: ledgerOf(observed),
    log: recentProblems(),
  }
}

/** Whether a configuration asks for packet samples: counters alone may be all that is wanted. 1 in 0 asks for none. */
export function wantsPackets({
  psample,
  tc,
  nflog,
  pcap,
  sampling: { rate, bySpeed, bpsRatio },
}: Config): boolean {
  if (psample !== undefined || (nflog !== undefined && rate > 0)) return true
  const bySpeeds = rate > 0 || (bpsRatio ?? 0) > 0 || [...bySpeed.values()].some(one => one > 0)
  return (
    (tc !== undefined && bySpeeds) ||
    pcap.some(({ sampling }) => (sampling === undefined ? bySpeeds : sampling > 0))
  )
}

export function sourcesOf({ sources, ledger }: Observed): SourceStatus[] {
  return sources.map(({ name, state, balance: { offered, delivered, lost } }) => {
    const losses = ledger.entries().filter(({ stage }) => stage === name)
    return {
      name,
      state,
      offered,
      delivered,
      underWay: Math.max(offered - delivered - lost, 0),
      lost: Object.fromEntries(losses.map(({ cause, count }) => [cause, count])),
    }
  })
}

export async function interfacesOf({ interfaces, interfaceCounters }: Observed): Promise<InterfaceStatus[]> {
  const all = await interfaceCounters().catch(() => undefined)
  return [...interfaces.values()].map(port => ({
    name: port.name,
    ifIndex: port.ifIndex,
    alias: port.alias ?? null,
    kind: port.kind ?? null,
    speedBitsPerSecond: port.speedBitsPerSecond,
    adminUp: port.adminUp,
    operUp: port.operUp,
    counters: countersOf(all?.get(port.ifIndex)),
  }))
}

function countersOf(counters: LinkStats64 | undefined): InterfaceCounters | null {
  if (counters === undefined) return null
  return {
    rxPackets: Number(counters.rxPackets),
    rxBytes: Number(counters.rxBytes),
    rxErrors: Number(counters.rxErrors),
    rxDropped: Number(counters.rxDropped),
    txPackets: Number(counters.txPackets),
    txBytes: Number(counters.txBytes),
    txErrors: Number(counters.txErrors),
    txDropped: Number(counters.txDropped),
  }
}

function sampledInterfaces({ interfaces, sampler, sampledBy }: Observed): SampledInterface[] {
  return [...interfaces.values()].flatMap(({ name, ifIndex, speedBitsPerSecond, operUp }) => {
    const by = sampledBy(ifIndex)
    const state = sampler.state(ifIndex)
    if (by === undefined && state === undefined) return []
    return [
      {
        name,
        ifIndex,
        speedBitsPerSecond,
        up: operUp,
        sampledBy: by?.source ?? null,
        problem: by?.problem ?? null,
        rate: by?.rate ?? null,
        samples: state?.sequence ?? 0,
        pool: state?.samplePool ?? 0,
        drops: state?.drops ?? 0,
      },
    ]
  })
}

function processStatus(): ProcessStatus {
  const { user, system } = process.cpuUsage()
  const { rss, heapUsed } = process.memoryUsage()
  return { cpuSeconds: (user + system) / 1e6, residentBytes: rss, heapBytes: heapUsed }
}
