import type { Config, PsampleConfig } from '../config/config.ts'
import { pcapDecisions } from '../config/pcap-rule.ts'
import { effectiveRate } from '../config/sampling-rate.ts'
import type { RunningSource, SampledBy } from '../control/status.ts'
import type { Sampler } from '../datasource/sampler.ts'
import type { Ledger } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import type { Interface, Interfaces } from '../interfaces.ts'
import type { PacketSink } from '../samples/packet-sample.ts'
import { PsampleSource } from '../sources/psample.ts'
import { type PsampleGroups, PsampleSamples } from '../sources/psample-samples.ts'
import { wantedSamplers } from '../sources/tc-ports.ts'
import { TcSamplers } from '../sources/tc-samplers.ts'

/**
 * The wiring of what the kernel and the switch sample themselves: PSAMPLE, and the tc samplers that weir has placed
 * to feed it.
 */

export interface KernelSamplersOptions {
  readonly log: Logger
  readonly ledger: Ledger
  readonly interfaces: Interfaces
  readonly sampler: Sampler
  /** Takes the samples. */
  readonly sink: PacketSink
  readonly onBatchEnd: () => void
  /** The rate that takes the place of a configured one while there are too many samples. */
  readonly withinBudget: (rate: number) => number
}

export class KernelSamplers {
  readonly #options: KernelSamplersOptions
  readonly #samples: PsampleSamples
  #psample: PsampleSource | undefined
  #tc: TcSamplers | undefined
  /** Packets that the tc samplers of an interface had counted when they were last asked. */
  readonly #counted = new Map<number, bigint>()
  #counting = false
  /** Of the interfaces that are to have tc samplers. */
  #rates: ReadonlyMap<number, number> = new Map()

  constructor(config: Config, options: KernelSamplersOptions) {
    this.#options = options
    const { interfaces, ledger, sink } = options
    this.#samples = new PsampleSamples({
      ...psampleGroups(config.psample),
      interfaces,
      ledger,
      sink,
      portOfGroup: group => this.#tc?.portOfGroup(group),
      portOfCookie: (view, offset, length) => this.#tc?.portOfCookie(view, offset, length),
    })
  }

  /** Goes on with the groups of this configuration. */
  changeGroups(config: Config): void {
    this.#samples.changeGroups(psampleGroups(config.psample))
  }

  /** Takes samples from PSAMPLE if the configuration asks for them and they are not taken yet. */
  async startPsample({ psample }: Config): Promise<void> {
    if (psample === undefined || this.#psample !== undefined) return
    const { ledger, log, onBatchEnd } = this.#options
    this.#psample = new PsampleSource({ samples: this.#samples, ledger, log, onBatchEnd })
    await this.#psample.start()
  }

  /** Readies tc samplers if the configuration asks for them and they are not there yet; place() places them. */
  async startTc({ psample, tc, subAgentId }: Config): Promise<void> {
    if (tc === undefined || this.#tc !== undefined) return
    const { log, interfaces } = this.#options
    if (psample === undefined) {
      log.warn('tc samplers need a psample block to be received: add psample { } to the configuration')
      return
    }
    const onGroup = () => this.#samples.forgetForeignGroups()
    this.#tc = new TcSamplers({ log, interfaces, instance: subAgentId, onGroup })
    await this.#tc.start()
  }

  /** Samplers as the configuration wants them on the interfaces that there are. */
  async place(config: Config): Promise<void> {
    const { tc, psample, headerBytes } = config
    const { interfaces, sampler, withinBudget } = this.#options
    if (this.#tc === undefined || tc === undefined || psample === undefined) return
    const rateOf = (port: Interface) => withinBudget(effectiveRate(config, port).rate)
    const wanted = wantedSamplers(interfaces.byIndex, { tc, psample, headerBytes }, rateOf)
    // What others feed into the groups may be finer. (Packets of a pcap block have the rate of that block.)
    const rates = new Map(wanted.map(({ ifIndex, rate }) => [ifIndex, rate]))
    this.#rates = rates
    for (const [ifIndex, { rule }] of pcapDecisions(config.pcap, interfaces.byIndex)) {
      sampler.configureRate(ifIndex, (rule === undefined ? rates.get(ifIndex) : undefined) ?? 0)
    }
    await this.#tc.apply(wanted)
  }

  /** An interface is gone. */
  forget(ifIndex: number): void {
    this.#counted.delete(ifIndex)
  }

  /** The tc samplers count every packet that passes them: sample pools are exact. To be called every second or so. */
  async poll(): Promise<void> {
    this.#psample?.poll()
    const tc = this.#tc
    if (tc === undefined || this.#counting) return
    this.#counting = true
    try {
      const passed = new Map<number, bigint>()
      const counts = await tc.counts()
      // Those of samplers that are gone meanwhile are no base for the next ones.
      if (this.#tc !== tc) return
      for (const { ifIndex, packets } of counts) {
        passed.set(ifIndex, (passed.get(ifIndex) ?? 0n) + packets)
      }
      for (const [ifIndex, packets] of passed) {
        this.#options.sampler.countedPackets(ifIndex, Number(packets - (this.#counted.get(ifIndex) ?? 0n)))
        this.#counted.set(ifIndex, packets)
      }
    } finally {
      this.#counting = false
    }
  }

  /** How an interface is sampled by tc; undefined when it is not. */
  sampledBy(ifIndex: number): SampledBy | undefined {
    const rate = this.#rates.get(ifIndex)
    if (this.#tc === undefined || rate === undefined) return undefined
    return { source: 'tc', rate, problem: this.#tc.problemOf(ifIndex) }
  }

  /** What runs now, for the status. */
  sources(): RunningSource[] {
    if (this.#psample === undefined) return []
    return [{ name: 'psample', state: this.#psample.state, balance: this.#psample.balance() }]
  }

  /** Takes the tc samplers away, when their packets have been counted; PSAMPLE goes on. */
  async stopTc(): Promise<void> {
    const tc = this.#tc
    if (tc === undefined) return
    try {
      await this.poll()
    } finally {
      await tc.stop()
      this.#tc = undefined
      this.#counted.clear()
      const { interfaces, sampler } = this.#options
      for (const ifIndex of interfaces.byIndex.keys()) sampler.configureRate(ifIndex, 0)
    }
  }

  stopPsample(): void {
    this.#psample?.stop()
    this.#psample = undefined
  }
}

function psampleGroups(psample: PsampleConfig | undefined): PsampleGroups {
  return {
    ingressGroup: psample?.ingress ? psample.group : undefined,
    egressGroup: psample?.egress ? psample.group + 1 : undefined,
    tunnels: psample?.tunnel === true,
  }
}
