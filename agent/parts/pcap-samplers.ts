import { readFileSync } from 'node:fs'
import type { Config } from '../config/config.ts'
import { type PcapDecision, pcapDecisions, pcapRate } from '../config/pcap-rule.ts'
import type { RunningSource, SampledBy } from '../control/status.ts'
import type { Sampler } from '../datasource/sampler.ts'
import type { Balance, Ledger } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import type { Interface, Interfaces } from '../interfaces.ts'
import type { PacketSink } from '../samples/packet-sample.ts'
import { BpfSamples } from '../sources/bpf-samples.ts'
import { PacketSocketSource } from '../sources/packet-socket.ts'
import type { DropReports } from './drop-reports.ts'

/** The wiring of the pcap blocks: which interfaces are sampled, at which rate, and by BPF or by packet sockets. */

export interface PcapSamplersOptions {
  readonly log: Logger
  readonly ledger: Ledger
  readonly interfaces: Interfaces
  readonly sampler: Sampler
  /** Takes the samples. */
  readonly sink: PacketSink
  readonly onBatchEnd: () => void
  /** How long a source may keep samples for itself, milliseconds. */
  readonly lookMs: () => number
  /** Takes sampled packets that the kernel drops. */
  readonly drops: DropReports
  /** The rate that takes the place of a configured one while there are too many samples. */
  readonly withinBudget: (rate: number) => number
  /** Told when placing has to be done again. */
  readonly onChange: () => void
}

const FORWARDING = ['/proc/sys/net/ipv4/ip_forward', '/proc/sys/net/ipv6/conf/all/forwarding']

const NO_FUNCTIONS =
  'reasons of drops may be less exact: /proc/kallsyms tells no addresses; needs CAP_SYSLOG and kernel.kptr_restrict below 2'

/** How an interface is sampled. */
interface Placed {
  readonly rate: number
  readonly promiscuous: boolean
  readonly forwards: boolean
}

export class PcapSamplers {
  readonly #options: PcapSamplersOptions
  readonly #placed = new Map<number, Placed>()
  /**
   * Interfaces that are to be sampled and cannot be: the rate, and why. One whose programs were removed by others is
   * placed all the same, until they are back.
   */
  readonly #refused = new Map<number, { readonly rate: number; readonly problem: string }>()
  /** Why BPF is not used, until that is told. */
  #withoutBpf: string | undefined
  /** The balances of sources that are stopped, by name. */
  readonly #ended = new Map<string, Balance>()
  /** Undefined while there is no pcap block. */
  #source: BpfSamples | PacketSocketSource | undefined
  #forwards = false
  /** Times that programs were put back. */
  #repairs = 0

  constructor(options: PcapSamplersOptions) {
    this.#options = options
  }

  /** Opens the source, unless it is. */
  async start(config: Config): Promise<void> {
    this.#forwards = forwardsPackets()
    this.#source ??= await this.#open(config)
  }

  /** Samplers as the configuration wants them on the interfaces that there are. */
  async place(config: Config): Promise<void> {
    const source = this.#source
    if (source === undefined) return
    const { byIndex } = this.#options.interfaces
    const decisions = pcapDecisions(config.pcap, byIndex)
    const placed = [...byIndex.values()].map(port =>
      this.#place(source, config, port, decisions.get(port.ifIndex)!),
    )
    await Promise.all(placed)
  }

  /** An interface is gone: another may get the same ifIndex at once. */
  async remove(ifIndex: number): Promise<void> {
    this.#placed.delete(ifIndex)
    this.#refused.delete(ifIndex)
    await this.#source?.remove(ifIndex)
  }

  /** Gives what was dropped so far of the packets that are being followed. */
  takeFollowed(): void {
    if (this.#source instanceof BpfSamples) this.#source.drain()
  }

  /** To be called every second or so. */
  poll(): void {
    this.#source?.poll()
    if (this.#source !== undefined) this.#followForwarding()
  }

  /** What runs now, for the status. */
  sources(): RunningSource[] {
    const source = this.#source
    const names = new Set(this.#ended.keys())
    if (source !== undefined) names.add(nameOf(source))
    return [...names].map(name => {
      const isRunning = source !== undefined && nameOf(source) === name
      const balance = sum(this.#ended.get(name), isRunning ? source.balance : undefined)
      return { name, state: isRunning ? 'sampling' : 'stopped', balance }
    })
  }

  /** How an interface is sampled; undefined when it is not. */
  sampledBy(ifIndex: number): SampledBy | undefined {
    const one = this.#placed.get(ifIndex) ?? this.#refused.get(ifIndex)
    const problem = this.#refused.get(ifIndex)?.problem
    return one && this.#source && { source: nameOf(this.#source), rate: one.rate, problem }
  }

  async stop(): Promise<void> {
    const source = this.#source
    this.#source = undefined
    const { interfaces, log } = this.#options
    for (const ifIndex of this.#placed.keys()) {
      const name = interfaces.byIndex.get(ifIndex)?.name ?? ifIndex
      log.info({ part: 'pcap', interface: name }, `${name} is not sampled any more`)
    }
    this.#placed.clear()
    this.#refused.clear()
    this.#withoutBpf = undefined
    await source?.stop()
    if (source !== undefined) {
      this.#ended.set(nameOf(source), sum(this.#ended.get(nameOf(source)), source.balance))
    }
  }

  /** BPF where the kernel lets us, with following or without; else packet sockets. */
  async #open({ headerBytes, subAgentId, transit }: Config): Promise<BpfSamples | PacketSocketSource> {
    const { ledger, sampler, sink, drops, onBatchEnd } = this.#options
    const log = this.#options.log.child({ part: 'pcap' })
    const common = { ledger, sink, onBatchEnd, headerBytes }
    const onCounted = (ifIndex: number, packets: number) => sampler.countedPackets(ifIndex, packets)
    const names = drops.words
    const following = {
      names,
      onDrop: drops.acceptFollowed,
      onBatchEnd: () => {
        drops.endBatch()
        onBatchEnd()
      },
    }
    const open = async (transit: boolean) => {
      const source = await BpfSamples.open({
        ...common,
        ...following,
        instance: subAgentId,
        onCounted,
        onRepair: this.#repaired,
        lookMs: this.#options.lookMs,
        transit,
      })
      if (transit && !(await names.load())) log.warn(NO_FUNCTIONS)
      return source
    }
    try {
      if (!transit) return await open(false)
      try {
        return await open(true)
      } catch (error) {
        const source = await open(false)
        log.warn(`samples have no queue depth and no transit delay: ${(error as Error).message}`)
        return source
      }
    } catch (error) {
      this.#withoutBpf = (error as Error).message
      return new PacketSocketSource(common)
    }
  }

  async #place(
    source: BpfSamples | PacketSocketSource,
    config: Config,
    port: Interface,
    { rule, index, why }: PcapDecision,
  ): Promise<void> {
    const { headerBytes } = config
    const { ifIndex, name } = port
    const { rate: configured, rule: reason } =
      rule === undefined ? { rate: 0, rule: 'no pcap block' } : pcapRate(config, index, port)
    const rate = this.#options.withinBudget(configured)
    const promiscuous = rule?.promisc === true
    const forwards = this.#forwards || port.kind === 'bridge' || port.masterKind === 'bridge'
    const before = this.#placed.get(ifIndex)
    const isSame = before?.promiscuous === promiscuous && before.forwards === forwards
    if (rate === (before?.rate ?? 0) && (rate === 0 || isSame)) return
    // At another rate, programs that cannot be put back are not there either.
    const missing = rate > 0 && isSame ? this.#refused.get(ifIndex)?.problem : undefined
    if (missing === undefined) this.#refused.delete(ifIndex)
    else this.#refused.set(ifIndex, { rate, problem: missing })
    // Not before: each change of one interface comes by here for all of them.
    const log = this.#options.log.child({ part: 'pcap', interface: name })
    if (rate === 0) this.#placed.delete(ifIndex)
    else this.#placed.set(ifIndex, { rate, promiscuous, forwards })
    try {
      if (rate === 0) await end(source, ifIndex)
      else if (isSame) source.setRate(ifIndex, rate)
      else {
        if (before !== undefined) await end(source, ifIndex)
        const layer3 = this.#options.interfaces.isLayer3(ifIndex)
        const warning = await source.add({ ifIndex, name, rate, promiscuous, forwards, layer3, headerBytes })
        if (warning !== undefined) log.warn(warning)
      }
      if (rate > 0) this.#tellOfPacketSockets()
      const by = source instanceof BpfSamples ? 'BPF' : 'a packet socket'
      if (missing !== undefined)
        log.warn({ why, reason }, `${name} is to be sampled 1 in ${rate}: ${missing}`)
      else if (rate > 0) log.info({ why, reason }, `${name} is sampled 1 in ${rate} by ${by}`)
      else log.info({ why, reason }, `${name} is not sampled any more`)
    } catch (error) {
      this.#placed.delete(ifIndex)
      // What stands in the way of BPF stands in the way of packet sockets, mostly: both are one line.
      const both = this.#withoutBpf === undefined ? '' : `; nor by BPF: ${this.#withoutBpf}`
      const problem = `${(error as Error).message}${both}`
      this.#refused.set(ifIndex, { rate, problem })
      log.error(`${name} is not sampled: ${problem}`)
    }
  }

  readonly #repaired = (ifIndex: number, problem: string | undefined): void => {
    const placed = this.#placed.get(ifIndex)
    if (placed === undefined) return
    const before = this.#refused.get(ifIndex)?.problem
    const name = this.#options.interfaces.byIndex.get(ifIndex)?.name ?? `interface ${ifIndex}`
    const log = this.#options.log.child({ part: 'pcap', interface: name })
    if (problem === undefined) {
      this.#refused.delete(ifIndex)
      this.#repairs++
      log.warn({ repairs: this.#repairs }, `the BPF programs of ${name} were removed by others: put back`)
    } else {
      this.#refused.set(ifIndex, { rate: placed.rate, problem })
      if (problem !== before)
        log.error(`${name} is not sampled, its programs were removed by others: ${problem}`)
    }
  }

  #tellOfPacketSockets(): void {
    if (this.#withoutBpf === undefined) return
    const log = this.#options.log.child({ part: 'pcap' })
    log.warn(
      `sampling by packet sockets, not BPF, so of each packet one interface is known and pools are estimates: ${this.#withoutBpf}`,
    )
    this.#withoutBpf = undefined
  }

  /** A host may become a router while the agent runs: what comes in then need not end here. */
  #followForwarding(): void {
    const forwards = forwardsPackets()
    if (forwards === this.#forwards || this.#source === undefined) return
    this.#forwards = forwards
    this.#options.onChange()
  }
}

function sum(a: Balance = NOTHING, b: Balance = NOTHING): Balance {
  return { offered: a.offered + b.offered, delivered: a.delivered + b.delivered, lost: a.lost + b.lost }
}

const NOTHING: Balance = { offered: 0, delivered: 0, lost: 0 }

function nameOf(source: BpfSamples | PacketSocketSource): string {
  return source instanceof BpfSamples ? 'bpf' : 'packet-socket'
}

/** Ends sampling of an interface; what was picked before still comes. */
async function end(source: BpfSamples | PacketSocketSource, ifIndex: number): Promise<void> {
  if (source instanceof BpfSamples) await source.remove(ifIndex)
  else source.end(ifIndex)
}

/**
 * True when this host passes packets on between its interfaces: what comes in need not end here. It is asked every second,
 * and no other thread is woken for it: these files are a word of the kernel's memory each.
 */
function forwardsPackets(): boolean {
  return FORWARDING.some(file => {
    try {
      return readFileSync(file, 'utf8').trim() !== '0'
    } catch {
      // This kernel has no IPv6.
      return false
    }
  })
}
