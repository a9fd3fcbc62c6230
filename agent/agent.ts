import { readFile } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import type { RunningSettings } from './auto-file.ts'
import { chooseAgentAddress } from './config/agent-address.ts'
import type { Config, PsampleConfig } from './config/config.ts'
import { pcapRate, pcapRule } from './config/pcap-rule.ts'
import { effectiveRate } from './config/sampling-rate.ts'
import { hostReaders } from './counters/host-readers.ts'
import { interfaceReaders } from './counters/interface-readers.ts'
import { InterfaceStatistics } from './counters/interface-statistics.ts'
import { Budget } from './datasource/budget.ts'
import { CountersWriter } from './datasource/counters-writer.ts'
import { Poller, type PollFailure } from './datasource/poller.ts'
import { Sampler } from './datasource/sampler.ts'
import { DropReports } from './drop-reports.ts'
import type { Datagrams } from './export/datagrams.ts'
import { Exporter } from './export/exporter.ts'
import { Ledger } from './health/ledger.ts'
import { type Logger, RateLimitedLog } from './health/log.ts'
import { type Interface, type InterfaceEvent, Interfaces } from './interfaces.ts'
import { UdpSender } from './kernel/udp-sender.ts'
import { BpfSamples } from './sources/bpf-samples.ts'
import { PacketSocketSource } from './sources/packet-socket.ts'
import { PsampleSource } from './sources/psample.ts'
import { type PsampleGroups, PsampleSamples } from './sources/psample-samples.ts'
import { wantedSamplers } from './sources/tc-ports.ts'
import { TcSamplers } from './sources/tc-samplers.ts'
import { parseIp4, parseIp6 } from './wire/addresses.ts'

/**
 * The wiring: builds every part, starts them in order, tells them of interfaces that come and go, and stops them in
 * reverse. It knows each part by name and none from the inside.
 */

/** Data source of the host as a whole. */
const HOST = { type: 2, index: 1 } as const
/** Data source type of an interface. */
const INTERFACE = 0
/** Kernel counts are read, and the ledger brought up to date, this often. */
const HOUSEKEEPING_MS = 1000
/** The largest N of 1 in N that the kernel's samplers take. */
const MOST_RATE = 2 ** 32 - 1
/** Changes of interfaces come in bursts; samplers and the agent address follow after this time. */
const SETTLE_MS = 50
/** An agent address that no interface has any more is kept for this time. */
const ADDRESS_HOLD_MS = 5000

export class Agent {
  readonly ledger = new Ledger()
  #config: Config
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  readonly #startedMs = performance.now()
  readonly #interfaces: Interfaces
  readonly #exporter: Exporter
  readonly #datagrams: Datagrams
  readonly #sampler: Sampler
  readonly #counters: CountersWriter
  readonly #poller: Poller
  readonly #psampleSamples: PsampleSamples
  #psample: PsampleSource | undefined
  /** Samplers for the pcap blocks; undefined while there are none. */
  #taps: BpfSamples | PacketSocketSource | undefined
  #tc: TcSamplers | undefined
  readonly #drops: DropReports
  #statistics: InterfaceStatistics | undefined
  readonly #tapped = new Map<number, Tapped>()
  #budget: Budget | undefined
  /** Samples, and the time, when the budget was last looked at. */
  #budgeted = { samples: 0, atMs: 0 }
  #address: string | undefined
  /** That of the run before. */
  readonly #previousAddress: string | undefined
  /** The interface that has the address. */
  #addressDevice: string | undefined
  #hasElected = false
  /** Since when no interface has the agent address, and when to look again. */
  #missingSince: number | undefined
  #missing: NodeJS.Timeout | undefined
  #forwards = false
  #housekeeping: NodeJS.Timeout | undefined
  #settling: NodeJS.Timeout | undefined
  /** Packets that the tc samplers of an interface had counted when they were last asked. */
  readonly #counted = new Map<number, bigint>()
  #counting = false
  #running = false
  /** The end of the start and all changes of the configuration so far; one is made at a time. */
  #changes: Promise<void> = Promise.resolve()

  /**
   * Builds all parts; nothing is opened before start(). `previousAddress`: what the agent was known by in its run before,
   * to be known by again where there is no reason against it.
   */
  constructor(config: Config, log: Logger, previousAddress?: string) {
    this.#previousAddress = previousAddress
    this.#config = config
    this.#log = log
    const { ledger } = this
    this.#interfaces = new Interfaces({ log })
    this.#exporter = new Exporter({
      collectors: config.collectors,
      datagrams: {
        subAgentId: config.subAgentId,
        maxBytes: config.datagramBytes,
        flushMs: config.flushMs,
      },
      ledger,
      log,
      open: UdpSender.open,
      uptimeMs: () => performance.now() - this.#startedMs,
    })
    this.#datagrams = this.#exporter.datagrams
    this.#sampler = new Sampler(this.#datagrams, ledger, config.headerBytes)
    this.#counters = new CountersWriter(this.#datagrams, ledger)
    this.#poller = new Poller({
      ledger,
      sink: this.#counters.write,
      onFailure: failure => this.#readerFailed(failure),
    })
    this.#psampleSamples = new PsampleSamples({
      ...psampleGroups(config.psample),
      interfaces: this.#interfaces,
      ledger,
      sink: this.#sampler.accept,
      portOfGroup: group => this.#tc?.portOfGroup(group),
      portOfCookie: (view, offset, length) => this.#tc?.portOfCookie(view, offset, length),
    })
    this.#drops = new DropReports({ datagrams: this.#datagrams, interfaces: this.#interfaces, ledger, log })
  }

  /**
   * Starts everything. Fails only when there is nothing to run on (no netlink); what a part may not do or does not
   * find is logged, and the rest runs.
   */
  start(): Promise<void> {
    const started = this.#start()
    this.#changes = started.catch(() => {})
    return started
  }

  async #start(): Promise<void> {
    this.#running = true
    const config = this.#config
    await this.#interfaces.start()
    this.#forwards = await forwardsPackets()
    this.#electAddress()
    this.#exporter.start()
    this.#interfaces.subscribe(event => this.#interfaceChanged(event))
    await this.#attempt('counters', () => this.#startPolling())
    await this.#startSources()
    if (!this.#running) return
    this.#startBudget()
    this.#housekeeping = setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS)
    this.#log.info(
      { agent: this.#address, collectors: config.collectors.map(({ name }) => name), file: config.file },
      'running',
    )
  }

  /**
   * Goes on with another configuration. What it does not change goes on untouched: sockets, sequence numbers, sample
   * pools. Changes are made one after the other.
   */
  change(config: Config): Promise<void> {
    this.#changes = this.#changes.then(() => this.#attempt('configuration', () => this.#change(config)))
    return this.#changes
  }

  async #change(config: Config): Promise<void> {
    if (!this.#running) return
    const before = this.#config
    const differs = (...names: (keyof Config)[]) =>
      names.some(name => !isDeepStrictEqual(before[name], config[name]))
    this.#config = config
    if (differs('subAgentId', 'datagramBytes', 'flushMs')) {
      const { subAgentId, datagramBytes, flushMs } = config
      this.#exporter.changeDatagrams({ subAgentId, maxBytes: datagramBytes, flushMs })
    }
    if (differs('collectors')) this.#exporter.changeCollectors(config.collectors)
    if (differs('agent')) this.#electAddress()
    if (differs('budget')) this.#startBudget()
    if (differs('uuid')) this.#pollHost()
    if (differs('polling')) this.#changePolling()
    this.#sampler.headerBytes = config.headerBytes
    // The cookies of the tc samplers carry the sub-agent.
    if (config.tc === undefined || config.psample === undefined || differs('subAgentId')) await this.#stopTc()
    if (config.psample === undefined) this.#stopPsample()
    // What the programs in the kernel are told when they are loaded.
    if (config.pcap.length === 0 || differs('headerBytes', 'transit', 'subAgentId')) await this.#stopTaps()
    this.#psampleSamples.changeGroups(psampleGroups(config.psample))
    await this.#startSources()
  }

  /** Stops in reverse, sends what is open and leaves nothing of ours in the kernel. May be called twice. */
  async stop(): Promise<void> {
    if (!this.#running) return
    this.#running = false
    await this.#changes
    clearInterval(this.#housekeeping)
    clearTimeout(this.#settling)
    clearTimeout(this.#missing)
    this.#poller.stop()
    await this.#stopTc()
    await this.#attempt('dropmon', () => this.#drops.stop())
    this.#keepHouse()
    await this.#stopTaps()
    this.#stopPsample()
    this.#datagrams.flush()
    this.logStatus()
    this.#exporter.stop()
    this.#statistics?.close()
    this.#interfaces.stop()
  }

  /** What holds now, for programs that want to send as this agent does. */
  settings(): RunningSettings {
    return {
      config: this.#config,
      address: this.#address,
      device: this.#addressDevice,
      collectorAddresses: this.#exporter.status().map(({ address }) => address),
    }
  }

  /** Writes what was sent and what was lost to the log. */
  logStatus(): void {
    const losses = this.ledger.entries().filter(loss => loss.count > 0)
    this.#log.info(
      {
        flowSamples: this.#sampler.exported,
        countersSamples: this.#counters.samples,
        drops: this.#drops.status(),
        datagrams: this.#exporter.closed,
        collectors: this.#exporter.status(),
        lost: Object.fromEntries(losses.map(loss => [`${loss.stage}/${loss.cause}`, loss.count])),
      },
      'status',
    )
  }

  /** A part that cannot start or stop is told of and left out; the others go on. */
  async #attempt(part: string, action: () => Promise<void> | void): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.#log.error({ part }, (error as Error).message)
    }
  }

  /** Host counters at once, interface counters spread over the interval. */
  async #startPolling(): Promise<void> {
    this.#poller.start()
    // The host comes first: the first source is polled at once.
    this.#pollHost()
    this.#statistics = await InterfaceStatistics.open()
    for (const port of this.#interfaces.byIndex.values()) this.#poll(port)
  }

  #pollHost(): void {
    const { polling, uuid } = this.#config
    const interfaces = () => this.#interfaces.byIndex.values()
    const intervalMs = polling.seconds * 1000
    this.#poller.add({ ...HOST, intervalMs, readers: hostReaders({ uuid, interfaces }) })
  }

  #changePolling(): void {
    const intervalMs = this.#config.polling.seconds * 1000
    this.#poller.changeInterval(HOST.type, HOST.index, intervalMs)
    for (const index of this.#interfaces.byIndex.keys()) {
      this.#poller.changeInterval(INTERFACE, index, intervalMs)
    }
  }

  /** Polls an interface that is up; loopback has nothing that a network engineer asks for. */
  #poll(port: Interface): void {
    if (this.#statistics === undefined || port.loopback) return
    const index = port.ifIndex
    if (!port.adminUp) {
      this.#poller.remove(INTERFACE, index)
      return
    }
    const intervalMs = this.#config.polling.seconds * 1000
    const now = () => this.#interfaces.byIndex.get(index)
    const readers = interfaceReaders(index, now, this.#statistics)
    this.#poller.add({ type: INTERFACE, index, intervalMs, readers })
  }

  #interfaceChanged(event: InterfaceEvent): void {
    if (!this.#running) return
    if (event.type === 'remove') {
      const { ifIndex } = event.before
      this.#poller.remove(INTERFACE, ifIndex)
      // At once: another interface may get the same ifIndex before the samplers are looked at.
      void this.#attempt('pcap', () => this.#taps?.remove(ifIndex))
      this.#tapped.delete(ifIndex)
      this.#sampler.forget(ifIndex)
      this.#counted.delete(ifIndex)
    } else if (event.type === 'add' || event.before.adminUp !== event.after.adminUp) {
      this.#poll(event.after)
    }
    this.#settling ??= setTimeout(() => {
      this.#settling = undefined
      this.#electAddress()
      this.#placeSoon()
    }, SETTLE_MS)
  }

  #electAddress(): void {
    const addresses = this.#interfaces.localAddresses()
    const { chosen, note } = chooseAgentAddress(
      addresses,
      this.#config.agent,
      this.#address ?? this.#previousAddress,
    )
    const before = this.#address
    if (chosen?.address === before && this.#hasElected) {
      this.#keepAddress(chosen?.interfaceName)
      return
    }
    // An address that is gone is often back in a moment (DHCP, a flap): to collectors it is who we are.
    const isGone = !addresses.some(({ address }) => address === before)
    if (before !== undefined && isGone && !this.#isOverdue()) return
    this.#keepAddress(chosen?.interfaceName)
    this.#hasElected = true
    this.#address = chosen?.address
    if (chosen === undefined) this.#exporter.changeAgentAddress(undefined)
    if (note !== undefined) this.#log.warn(note)
    if (chosen === undefined) {
      this.#log.warn('no interface has an address to be known by: nothing is sent until one has')
      return
    }
    const facts = { interface: chosen.interfaceName, why: chosen.why, before }
    // Collectors see another agent from now on.
    if (before === undefined) this.#log.info(facts, `agent address ${chosen.address}`)
    else this.#log.warn(facts, `agent address ${chosen.address}, no longer ${before}`)
    this.#exporter.changeAgentAddress(parseIp4(chosen.address) ?? parseIp6(chosen.address)!)
  }

  /** The agent address is one that the host has. */
  #keepAddress(device: string | undefined): void {
    this.#addressDevice = device
    clearTimeout(this.#missing)
    this.#missing = undefined
    this.#missingSince = undefined
  }

  /** Whether the agent address has been missing for long enough to take another; looks again when it will have been. */
  #isOverdue(): boolean {
    this.#missingSince ??= performance.now()
    const left = this.#missingSince + ADDRESS_HOLD_MS - performance.now()
    if (left <= 0) return true
    this.#missing ??= setTimeout(() => {
      this.#missing = undefined
      this.#electAddress()
    }, left)
    return false
  }

  /** A batch of samples has been written: full datagrams go out, the open one waits for more. */
  readonly #onBatchEnd = (): void => this.#datagrams.send()

  /** Starts the sources of packets that the configuration asks for and that do not run yet; then places samplers. */
  async #startSources(): Promise<void> {
    const { psample, tc, pcap, dropmon, headerBytes, subAgentId } = this.#config
    const { ledger } = this
    if (psample !== undefined && this.#psample === undefined) {
      this.#psample = new PsampleSource({
        samples: this.#psampleSamples,
        ledger,
        log: this.#log,
        onBatchEnd: this.#onBatchEnd,
      })
      await this.#attempt('psample', () => this.#psample?.start())
    }
    if (psample === undefined && tc !== undefined) {
      this.#log.warn('tc samplers need a psample block to be received: add psample { } to the configuration')
    } else if (tc !== undefined && this.#tc === undefined) {
      this.#tc = new TcSamplers({
        log: this.#log,
        interfaces: this.#interfaces,
        instance: subAgentId,
        onGroup: () => this.#psampleSamples.forgetForeignGroups(),
      })
      await this.#attempt('tc', () => this.#tc?.start())
    }
    if (pcap.length > 0) this.#taps ??= await this.#openTaps()
    await this.#attempt('dropmon', () => this.#drops.change(dropmon, headerBytes))
    await this.#placeSamplers()
  }

  async #stopTaps(): Promise<void> {
    const taps = this.#taps
    this.#taps = undefined
    for (const ifIndex of this.#tapped.keys()) {
      const name = this.#interfaces.byIndex.get(ifIndex)?.name ?? ifIndex
      this.#log.info({ part: 'pcap', interface: name }, `${name} is not sampled any more`)
    }
    this.#tapped.clear()
    await this.#attempt('pcap', () => taps?.stop())
  }

  async #stopTc(): Promise<void> {
    const tc = this.#tc
    if (tc === undefined) return
    await this.#attempt('tc', () => this.#countPools())
    await this.#attempt('tc', () => tc.stop())
    this.#tc = undefined
    this.#counted.clear()
  }

  #stopPsample(): void {
    this.#psample?.stop()
    this.#psample = undefined
  }

  /** Places samplers when what is being changed now is done. */
  #placeSoon(): void {
    this.#changes = this.#changes.then(() => this.#attempt('samplers', () => this.#placeSamplers()))
  }

  /** Samplers follow the interfaces: tc filters, and packet sockets for the pcap blocks. */
  async #placeSamplers(): Promise<void> {
    if (!this.#running) return
    const { tc, psample, headerBytes } = this.#config
    const { byIndex } = this.#interfaces
    const taps = this.#taps
    if (taps !== undefined) await Promise.all([...byIndex.values()].map(port => this.#placeTap(taps, port)))
    if (this.#tc === undefined || tc === undefined || psample === undefined) return
    const rateOf = (port: Interface) => this.#withinBudget(effectiveRate(this.#config, port).rate)
    const wanted = wantedSamplers(byIndex, { tc, psample, headerBytes }, rateOf)
    await this.#attempt('tc', () => this.#tc?.apply(wanted))
  }

  /** BPF where the kernel lets us, with following or without; else packet sockets. */
  async #openTaps(): Promise<BpfSamples | PacketSocketSource> {
    const { ledger } = this
    const { headerBytes, subAgentId, transit } = this.#config
    const log = this.#log.child({ part: 'pcap' })
    const common = { ledger, sink: this.#sampler.accept, onBatchEnd: this.#onBatchEnd, headerBytes }
    const onCounted = (ifIndex: number, packets: number) => this.#sampler.countedPackets(ifIndex, packets)
    const open = (transit: boolean) =>
      BpfSamples.open({ ...common, instance: subAgentId, onCounted, transit })
    try {
      if (!transit) return await open(false)
      try {
        return await open(true)
      } catch (error) {
        const taps = await open(false)
        log.warn(`samples have no queue depth and no transit delay: ${(error as Error).message}`)
        return taps
      }
    } catch (error) {
      log.warn(
        `sampling by packet sockets, not BPF, so of each packet one interface is known and pools are estimates: ${(error as Error).message}`,
      )
      return new PacketSocketSource(common)
    }
  }

  async #placeTap(taps: BpfSamples | PacketSocketSource, port: Interface): Promise<void> {
    const { headerBytes } = this.#config
    const { ifIndex, name } = port
    const log = this.#log.child({ part: 'pcap', interface: name })
    const { rule, index, why } = pcapRule(this.#config.pcap, port)
    const { rate: configured, rule: reason } =
      rule === undefined ? { rate: 0, rule: 'no pcap block' } : pcapRate(this.#config, index, port)
    const rate = this.#withinBudget(configured)
    const promiscuous = rule?.promisc === true
    const forwards = this.#forwards || port.kind === 'bridge' || port.masterKind === 'bridge'
    const before = this.#tapped.get(ifIndex)
    const isSame = before?.promiscuous === promiscuous && before.forwards === forwards
    if (rate === (before?.rate ?? 0) && (rate === 0 || isSame)) return
    if (rate === 0) this.#tapped.delete(ifIndex)
    else this.#tapped.set(ifIndex, { rate, promiscuous, forwards })
    try {
      if (rate === 0) await end(taps, ifIndex)
      else if (isSame) taps.setRate(ifIndex, rate)
      else {
        if (before !== undefined) await end(taps, ifIndex)
        const layer3 = this.#interfaces.isLayer3(ifIndex)
        const warning = await taps.add({ ifIndex, name, rate, promiscuous, forwards, layer3, headerBytes })
        if (warning !== undefined) log.warn(warning)
      }
      const by = taps instanceof BpfSamples ? 'BPF' : 'a packet socket'
      if (rate > 0) log.info({ why, reason }, `${name} is sampled 1 in ${rate} by ${by}`)
      else log.info({ why, reason }, `${name} is not sampled any more`)
    } catch (error) {
      this.#tapped.delete(ifIndex)
      log.error(`${name} is not sampled: ${(error as Error).message}`)
    }
  }

  #readerFailed({ sourceIndex, reader, error }: PollFailure): void {
    this.#limited.line(`${reader} ${error.message}`, held =>
      this.#log.warn({ part: 'counters', source: sourceIndex, held }, `${reader}: ${error.message}`),
    )
  }

  #startBudget(): void {
    const { budget } = this.#config
    this.#budget = budget === undefined ? undefined : new Budget(budget)
    this.#budgeted = { samples: this.#sampler.offered, atMs: performance.now() }
  }

  /** A rate as it is while there are more samples than they may be. */
  #withinBudget(rate: number): number {
    return Math.min(rate * (this.#budget?.factor ?? 1), MOST_RATE)
  }

  #keepBudget(budget: Budget): void {
    const now = { samples: this.#sampler.offered, atMs: performance.now() }
    const before = this.#budgeted
    this.#budgeted = now
    const samples = now.samples - before.samples
    if (!budget.update(samples, now.atMs - before.atMs)) return
    const facts = { samples, budget: budget.perSecond }
    if (budget.factor === 1) this.#log.info(facts, 'sampling rates are those of the configuration again')
    else
      this.#log.warn(facts, `sampling rates are multiplied with ${budget.factor} to stay within the budget`)
    void this.#placeSamplers()
  }

  #keepHouse(): void {
    if (this.#budget !== undefined) this.#keepBudget(this.#budget)
    this.#psample?.poll()
    this.#taps?.poll()
    this.#drops.poll()
    void this.#followForwarding()
    void this.#attempt('tc', () => this.#countPools())
    const problem = this.#counters.takeProblem()
    if (problem !== undefined) this.#limited.line('counters', held => this.#log.warn({ held }, problem))
  }

  /** A host may become a router while the agent runs: what comes in then need not end here. */
  async #followForwarding(): Promise<void> {
    const forwards = await forwardsPackets()
    if (forwards === this.#forwards || !this.#running) return
    this.#forwards = forwards
    this.#placeSoon()
  }

  /** The tc samplers count every packet that passes them: sample pools are exact. */
  async #countPools(): Promise<void> {
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
        this.#sampler.countedPackets(ifIndex, Number(packets - (this.#counted.get(ifIndex) ?? 0n)))
        this.#counted.set(ifIndex, packets)
      }
    } finally {
      this.#counting = false
    }
  }
}

/** How a tapped interface is sampled. */
interface Tapped {
  readonly rate: number
  readonly promiscuous: boolean
  readonly forwards: boolean
}

function psampleGroups(psample: PsampleConfig | undefined): PsampleGroups {
  return {
    ingressGroup: psample?.ingress ? psample.group : undefined,
    egressGroup: psample?.egress ? psample.group + 1 : undefined,
  }
}

/** Ends sampling of an interface; what was picked before still comes. */
async function end(taps: BpfSamples | PacketSocketSource, ifIndex: number): Promise<void> {
  if (taps instanceof BpfSamples) await taps.remove(ifIndex)
  else taps.end(ifIndex)
}

/** True when this host passes packets on between its interfaces: what comes in need not end here. */
async function forwardsPackets(): Promise<boolean> {
  const files = ['/proc/sys/net/ipv4/ip_forward', '/proc/sys/net/ipv6/conf/all/forwarding']
  const values = await Promise.all(files.map(file => readFile(file, 'utf8').catch(() => '0')))
  return values.some(value => value.trim() !== '0')
}
