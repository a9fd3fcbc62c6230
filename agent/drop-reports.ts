import { isDeepStrictEqual } from 'node:util'
import type { DropmonConfig } from './config/config.ts'
import type { RunningSource } from './control/status.ts'
import { type DropCount, Notifier, type NotifierSettings } from './datasource/notifier.ts'
import type { Datagrams } from './export/datagrams.ts'
import type { Ledger } from './health/ledger.ts'
import type { Logger } from './health/log.ts'
import { type Drop, type DropSink, Names } from './samples/drop.ts'
import { DropAlerts, type KnownInterfaces } from './sources/drop-alerts.ts'
import { DropMonitorSource, type DropMonitorState } from './sources/drop-monitor.ts'

/** The wiring of dropped packets: one notifier for as long as the agent runs, and the source that is configured. */

export interface DropReportsOptions {
  readonly datagrams: Datagrams
  readonly interfaces: KnownInterfaces
  readonly ledger: Ledger
  readonly log: Logger
}

export interface DropStatus {
  readonly monitor: DropMonitorState
  readonly offered: number
  readonly exported: number
  readonly leftOut: Notifier['leftOut']
  /** The pairs of reason and interface with the most drops; what the others come to together. */
  readonly by: readonly DropCount[]
  readonly others?: { readonly pairs: number; readonly offered: number; readonly suppressed: number }
}

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

export class DropReports {
  /** Of all sources, so that the notifier can tell names apart by their numbers. */
  readonly names = new Names()
  /** Takes a drop that another source than the configured one has seen; nothing may come from both. */
  readonly accept: DropSink
  /** To be called when all drops of a batch have been given to accept(). */
  readonly endBatch: () => void
  readonly #options: DropReportsOptions
  readonly #notifier: Notifier
  #monitor: DropMonitorSource | undefined
  /** What runs now. */
  #current: { readonly dropmon: DropmonConfig | undefined; readonly headerBytes: number } | undefined

  constructor(options: DropReportsOptions) {
    this.#options = options
    const { datagrams, ledger } = options
    const notifier = new Notifier({ datagrams, ledger, now: () => performance.now() })
    this.#notifier = notifier
    notifier.change(DEFAULTS)
    this.accept = notifier.accept
    this.endBatch = notifier.endBatch
  }

  /** Starts, stops or goes on with other settings; the same settings again change nothing. */
  async change(dropmon: DropmonConfig | undefined, headerBytes: number): Promise<void> {
    const wanted = { dropmon, headerBytes }
    if (isDeepStrictEqual(wanted, this.#current)) return
    await this.stop()
    this.#current = wanted
    const notifier = this.#notifier
    notifier.change({ ...(dropmon ?? DEFAULTS), headerBytes })
    if (dropmon === undefined) return
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
    return this.#monitor?.state === 'listening'
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
    this.#monitor?.poll()
  }

  /** Leaves the kernel's monitor as it was found. May be called twice. */
  async stop(): Promise<void> {
    const monitor = this.#monitor
    this.#monitor = undefined
    this.#current = undefined
    await monitor?.stop()
  }

  /** What runs now, for the status. */
  sources(): RunningSource[] {
    if (this.#monitor === undefined) return []
    return [{ name: 'drop-monitor', state: this.#monitor.state, delivered: this.#notifier.offered }]
  }

  /** Undefined while dropped packets were never reported. */
  status(): DropStatus | undefined {
    const { offered, exported, leftOut } = this.#notifier
    const monitor = this.#monitor?.state ?? 'stopped'
    if (monitor === 'stopped' && offered === 0) return undefined
    const counts = this.#notifier.counts().sort((a, b) => b.offered - a.offered)
    const rest = counts.slice(ROWS)
    const others = {
      pairs: rest.length,
      offered: rest.reduce((sum, row) => sum + row.offered, 0),
      suppressed: rest.reduce((sum, row) => sum + row.suppressed, 0),
    }
    const by = counts.slice(0, ROWS)
    return { monitor, offered, exported, leftOut, by, ...(rest.length > 0 ? { others } : {}) }
  }
}
