import { isDeepStrictEqual } from 'node:util'
import type { Config, NflogConfig } from '../config/config.ts'
import type { RunningSource } from '../control/status.ts'
import type { Ledger } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import type { PacketSink } from '../samples/packet-sample.ts'
import { NflogSource } from '../sources/nflog.ts'
import { NflogSamples } from '../sources/nflog-samples.ts'

/** The wiring of the nflog block: packets that a firewall rule logs. */

export interface NflogSamplingOptions {
  readonly log: Logger
  readonly ledger: Ledger
  /** Takes the samples. */
  readonly sink: PacketSink
  readonly onBatchEnd: () => void
  /** The rate that takes the place of a configured one while there are too many samples. */
  readonly withinBudget: (rate: number) => number
}

/** What of the configuration matters here. */
export type NflogSettings = Pick<Config, 'nflog' | 'sampling' | 'headerBytes'>

interface Running {
  readonly settings: { readonly nflog: NflogConfig; readonly headerBytes: number }
  readonly samples: NflogSamples
  readonly source: NflogSource
}

export class NflogSampling {
  readonly #options: NflogSamplingOptions
  #running: Running | undefined
  #rate = 0

  constructor(options: NflogSamplingOptions) {
    this.#options = options
  }

  /** Starts, stops or goes on with other settings; the same settings again change nothing. */
  async change({ nflog, sampling, headerBytes }: NflogSettings): Promise<void> {
    this.#rate = sampling.rate
    // As everywhere, 1 in 0 is none: the group is left to others.
    const settings = nflog && sampling.rate > 0 ? { nflog, headerBytes } : undefined
    if (!isDeepStrictEqual(settings, this.#running?.settings)) {
      this.stop()
      if (settings !== undefined) await this.#start(settings)
    }
    this.followBudget()
  }

  /** The rate is what the budget makes of the configured one. */
  followBudget(): void {
    this.#running?.samples.changeRate(this.#options.withinBudget(this.#rate))
  }

  /** To be called every second or so. */
  poll(): void {
    this.#running?.source.poll()
  }

  /** What runs now, for the status. */
  sources(): RunningSource[] {
    if (this.#running === undefined) return []
    const { source, samples } = this.#running
    return [{ name: 'nflog', state: source.state, balance: samples.balance() }]
  }

  /** May be called twice. */
  stop(): void {
    this.#running?.source.stop()
    this.#running = undefined
  }

  async #start(settings: Running['settings']): Promise<void> {
    const { ledger, log, sink, onBatchEnd, withinBudget } = this.#options
    const { group, probability } = settings.nflog
    const samples = new NflogSamples({
      ruleRate: probability === undefined ? 1 : Math.max(1, Math.floor(1 / probability)),
      rate: withinBudget(this.#rate),
      ledger,
      sink,
      random: Math.random,
    })
    const { headerBytes } = settings
    const source = new NflogSource({ group, headerBytes, samples, ledger, log, onBatchEnd })
    this.#running = { settings, samples, source }
    await source.start()
  }
}
