import { isDeepStrictEqual } from 'node:util'
import type { DropmonConfig } from '../config/config.ts'
import type { RunningSource } from '../control/status.ts'
import { type DropCount, Notifier, type NotifierSettings } from '../datasource/notifier.ts'
import { DropNames } from '../drops/drop-names.ts'
import type { OwnDatagrams } from '../drops/own-datagrams.ts'
import type { Datagrams } from '../export/datagrams.ts'
import type { Ledger } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import type { Interfaces } from '../interfaces.ts'
import { type Drop, type DropSink, Names } from '../samples/drop.ts'
import { BpfDrops } from '../sources/bpf-drops.ts'
import { DropAlerts, type KnownInterfaces } from '../sources/drop-alerts.ts'
import { DropMonitorSource, type DropMonitorState } from '../sources/drop-monitor.ts'

/** The wiring of dropped packets: one notifier for as long as the agent runs, and the source that is configured. */

export interface DropReportsOptions {
  readonly datagrams: Datagrams
  readonly interfaces: KnownInterfaces & Pick<Interfaces, 'byIndex'>
  readonly ledger: Ledger
  readonly log: Logger
  readonly own: OwnDatagrams
  /** Has acceptFollowed() called for all that was dropped so far: who reports what is dropped next is another one. */
  readonly takeFollowed: () => void
}

export interface DropStatus {
  /** Where drops are seen now, and how that stands. */
  readonly source: DropSourceName
  readonly monitor: DropSourceState
  readonly offered: number
  readonly exported: number
  readonly leftOut: Notifier['leftOut']
  /** The pairs of reason and interface with the most drops; what the others come to together. */
  readonly by: readonly NamedDropCount[]
  readonly others?: { readonly pairs: number; readonly offered: number; readonly suppressed: number }
}

/** With the name that the interface has now; null when there is none of that number. */
export interface NamedDropCount extends DropCount {
  readonly interface: string | null
}

export type DropSourceName = 'eBPF' | 'drop monitor'
export type DropSourceState = DropMonitorState | 'starting'

/** Bytes of a dropped packet that are looked at, whatever is exported: up to the IP header behind two VLAN tags. */
const LEAST_BYTES = 64
/** Dropped packets that may wait in the kernel on each processor. */
const QUEUE_LENGTH = 1000
/** Rows of the status. */
const ROWS = 50

/** What holds for drops that others report while there is no dropmon block: its defaults. */
const DEFAULTS: NotifierSettings = {
  reasonNames: true,
  unknownTraps: false,
  host: true,
  hide: undefined,
  headerBytes: 128,
  limit: 100,
}

/** States in which what is wanted does not run, and nothing tells when it can. */
const NOT_RUNNING: ReadonlySet<DropSourceState> = new Set(['stopped', 'refused', 'taken by others'])

interface Wanted {
  readonly dropmon: DropmonConfig | undefined
  readonly headerBytes: number
}

const NO_FUNCTIONS =
  'functions that drop packets are not told: /proc/kallsyms has no addresses; needs CAP_SYSLOG and kernel.kptr_restrict below 2'

/** Where drops are to be seen. What only the drop monitor has is not silently left out. */
export function sourceOf({ source, start, softwarePassive, hardwarePassive }: DropmonConfig): DropSourceName {
  if (source === 'auto') return start && !softwarePassive && !hardwarePassive ? 'eBPF' : 'drop monitor'
  return source === 'ebpf' ? 'eBPF' : 'drop monitor'
}

export class DropReports {
  /** Of all sources, so that the notifier can tell names apart by their numbers. */
  readonly names = new Names()
  /** Takes a drop that another source than the configured one has seen; nothing may come from both. */
  readonly accept: DropSink
  /** To be called when all drops of a batch have been given to accept(). */
  readonly endBatch: () => void
  readonly #options: DropReportsOptions
  readonly #notifier: Notifier
  #bpf: BpfDrops | undefined
  #monitor: DropMonitorSource | undefined
  /** What reports drops, or did last. */
  #source: DropSourceName = 'eBPF'
  #words: DropNames | undefined
  /** What runs now. */
  #current: Wanted | undefined
  /** The end of the start that is under way. */
  #starting: Promise<void> = Promise.resolve()
  #state: DropSourceState = 'stopped'

  constructor(options: DropReportsOptions) {
    this.#options = options
    const { datagrams, ledger, own } = options
    const notifier = new Notifier({ datagrams, ledger, now: () => performance.now(), isOwn: own.has })
    this.#notifier = notifier
    notifier.change(DEFAULTS)
    this.accept = notifier.accept
    this.endBatch = notifier.endBatch
  }

  /** The kernel's words for what BPF programs tell of drops; its reasons are read on first use. */
  get words(): DropNames {
    this.#words ??= new DropNames(this.names)
    return this.#words
  }

  /** Starts, stops or goes on with other settings; with the same again, only what was refused is tried again. */
  async change(dropmon: DropmonConfig | undefined, headerBytes: number): Promise<void> {
    const wanted = { dropmon, headerBytes }
    const isSame = isDeepStrictEqual(wanted, this.#current)
    if (isSame && (dropmon === undefined || !NOT_RUNNING.has(this.#sourceState()))) return
    this.#current = wanted
    await this.#stopSources()
    if (!isSame) this.#notifier.change({ ...(dropmon ?? DEFAULTS), headerBytes })
    if (dropmon === undefined) return
    if (sourceOf(dropmon) === 'drop monitor') await this.#startMonitor(dropmon, headerBytes)
    // The kernel's table of functions takes a tenth of a second, for which nothing else waits.
    else this.#starting = this.#startBpf(dropmon, headerBytes)
  }

  async #startBpf(dropmon: DropmonConfig, headerBytes: number): Promise<void> {
    const wanted = this.#current
    const log = this.#options.log.child({ part: 'dropmon' })
    this.#state = 'starting'
    let bpf: BpfDrops | undefined
    try {
      bpf = await this.#openBpf(dropmon, headerBytes)
      if (this.#current !== wanted) {
        await bpf.stop()
        return
      }
      this.#options.takeFollowed()
      this.#options.own.tell(bpf)
      bpf.begin()
      this.#bpf = bpf
      this.#source = 'eBPF'
      this.#state = 'listening'
      const { feeds, everywhere } = bpf
      const without =
        dropmon.hardware && !feeds.includes('hardware') ? '; this kernel has no hardware drops' : ''
      const where = everywhere ? 'of all network namespaces' : 'of this network namespace'
      log.info({ feeds }, `listening for dropped packets ${where} by BPF${without}`)
    } catch (error) {
      this.#options.own.tell(undefined)
      await bpf?.stop()
      if (this.#current !== wanted) return
      const { message } = error as Error
      if (dropmon.source === 'ebpf') {
        this.#state = 'refused'
        log.error(`dropped packets are not reported: ${message}`)
        return
      }
      log.warn(`dropped packets are taken from the drop monitor, not from BPF: ${message}`)
      await this.#startMonitor(dropmon, headerBytes)
    }
  }

  async #openBpf({ software, hardware, limit }: DropmonConfig, headerBytes: number): Promise<BpfDrops> {
    const { datagrams, interfaces, ledger, log } = this.#options
    if (!(await this.words.load())) log.warn({ part: 'dropmon' }, NO_FUNCTIONS)
    return BpfDrops.open({
      receiver: this.#notifier,
      names: this.names,
      words: this.words,
      interfaces: interfaces.byIndex,
      ledger,
      software,
      hardware,
      headerBytes: Math.max(headerBytes, LEAST_BYTES),
      lookMs: () => datagrams.lookMs,
      limit,
    })
  }

  async #startMonitor(dropmon: DropmonConfig, headerBytes: number): Promise<void> {
    const notifier = this.#notifier
    const { interfaces, ledger, log } = this.#options
    const { start, software, hardware, force } = dropmon
    const alerts = new DropAlerts({
      software: software || dropmon.softwarePassive,
      hardware: hardware || dropmon.hardwarePassive,
      interfaces,
      ledger,
      sink: notifier.accept,
      names: this.names,
      onLost: notifier.lost,
    })
    const truncateBytes = Math.max(headerBytes, LEAST_BYTES)
    this.#source = 'drop monitor'
    this.#monitor = new DropMonitorSource({
      alerts,
      ledger,
      log,
      onBatchEnd: notifier.endBatch,
      onLost: notifier.lost,
      start,
      wishes: { software, hardware, force, truncateBytes, queueLength: QUEUE_LENGTH },
      mostPerSecond: dropmon.mostPerSecond,
      mostSeconds: dropmon.mostSeconds,
    })
    await this.#monitor.start()
  }

  /** True while what the kernel drops is being reported by the configured source. */
  get isReporting(): boolean {
    return this.#sourceState() === 'listening'
  }

  /**
   * Takes the drop of a packet that was sampled and followed. It is reported unless the configured source does that with
   * all drops, or is told to leave those of the kernel out. Gives the sFlow discard reason, undefined when nothing was
   * lost.
   */
  readonly acceptFollowed = (drop: Drop): number | undefined => {
    const isWanted = this.#current !== undefined && this.#current.dropmon?.software !== false
    if (isWanted && !this.isReporting) this.#notifier.accept(drop)
    return this.#notifier.discardReasonOf(drop)
  }

  /** To be called every second or so. */
  poll(): void {
    this.#bpf?.poll()
    this.#monitor?.poll()
  }

  /** Leaves the kernel as it was found. May be called twice. */
  async stop(): Promise<void> {
    this.#current = undefined
    await this.#stopSources()
  }

  async #stopSources(): Promise<void> {
    await this.#starting
    const [bpf, monitor] = [this.#bpf, this.#monitor]
    this.#options.takeFollowed()
    bpf?.end()
    this.#options.own.tell(undefined)
    this.#bpf = undefined
    this.#monitor = undefined
    this.#state = 'stopped'
    await bpf?.stop()
    await monitor?.stop()
  }

  #sourceState(): DropSourceState {
    return this.#monitor?.state ?? this.#state
  }

  /** What runs now, for the status. */
  sources(): RunningSource[] {
    const state = this.#sourceState()
    if (state === 'stopped') return []
    if (this.#monitor !== undefined)
      return [{ name: 'drop-monitor', state, balance: this.#monitor.balance() }]
    const delivered = this.#notifier.offered
    const lost = this.#options.ledger.total('bpf-drops')
    return [{ name: 'bpf-drops', state, balance: { offered: delivered + lost, delivered, lost } }]
  }

  /** Undefined while dropped packets were never reported. */
  status(): DropStatus | undefined {
    const { offered, exported, leftOut } = this.#notifier
    const monitor = this.#sourceState()
    const source = this.#source
    if (monitor === 'stopped' && offered === 0) return undefined
    const counts = this.#notifier.counts().sort((a, b) => b.offered - a.offered)
    const rest = counts.slice(ROWS)
    const others = {
      pairs: rest.length,
      offered: rest.reduce((sum, row) => sum + row.offered, 0),
      suppressed: rest.reduce((sum, row) => sum + row.suppressed, 0),
    }
    const { byIndex } = this.#options.interfaces
    const by = counts
      .slice(0, ROWS)
      .map(one => ({ ...one, interface: byIndex.get(one.ifIndex)?.name ?? null }))
    return { source, monitor, offered, exported, leftOut, by, ...(rest.length > 0 ? { others } : {}) }
  }
}
