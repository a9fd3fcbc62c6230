import { isDeepStrictEqual } from 'node:util'
import { EntityAnnotator } from './annotations/entities.ts'
import { InnerHeaderAnnotator } from './annotations/inner-header.ts'
import { VlanAnnotator } from './annotations/vlans.ts'
import type { RunningSettings } from './auto-file.ts'
import { BridgeVlans } from './bridge-vlans.ts'
import type { Config } from './config/config.ts'
import type { ControlServer } from './control/server.ts'
import { interfacesOf, type Observed, statusOf } from './control/status.ts'
import { Budget } from './datasource/budget.ts'
import { CountersWriter } from './datasource/counters-writer.ts'
import { Poller, type PollFailure } from './datasource/poller.ts'
import { Sampler } from './datasource/sampler.ts'
import { OwnDatagrams } from './drops/own-datagrams.ts'
import type { Datagrams } from './export/datagrams.ts'
import { Exporter } from './export/exporter.ts'
import { Ledger } from './health/ledger.ts'
import { type Logger, RateLimitedLog } from './health/log.ts'
import { type InterfaceEvent, Interfaces } from './interfaces.ts'
import { followNetwork } from './kernel/network-changes.ts'
import { UdpSender } from './kernel/udp-sender.ts'
import { AgentAddress } from './parts/agent-address.ts'
import { ApplicationSources } from './parts/application-sources.ts'
import { controlSocket } from './parts/control-socket.ts'
import { DropReports } from './parts/drop-reports.ts'
import { HostPolling } from './parts/host-polling.ts'
import { InterfacePolling } from './parts/interface-polling.ts'
import { KernelSamplers } from './parts/kernel-samplers.ts'
import { MetricsReports } from './parts/metrics-reports.ts'
import { NflogSampling } from './parts/nflog-sampling.ts'
import { PcapSamplers } from './parts/pcap-samplers.ts'
import { TcpAnnotations } from './parts/tcp-annotations.ts'
import { VirtualSources } from './parts/virtual-sources.ts'
import { WebPage } from './parts/web-page.ts'
import type { PacketSample } from './samples/packet-sample.ts'

/**
 * The wiring: builds every part, starts them in order, tells them of interfaces that come and go, and stops them in
 * reverse. It knows each part by name and none from the inside.
 */

/** Kernel counts are read, and the ledger brought up to date, this often. */
const HOUSEKEEPING_MS = 1000
/** The largest N of 1 in N that the kernel's samplers take. */
const MOST_RATE = 2 ** 32 - 1
/** Changes of interfaces come in bursts; samplers and the agent address follow after this time. */
const SETTLE_MS = 50

export class Agent {
  readonly ledger = new Ledger()
  #config: Config
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  readonly #startedMs = performance.now()
  readonly #interfaces: Interfaces
  readonly #exporter: Exporter
  readonly #datagrams: Datagrams
  readonly #bridgeVlans: BridgeVlans
  readonly #vlans: VlanAnnotator
  readonly #innerHeader = new InnerHeaderAnnotator()
  readonly #entities = new EntityAnnotator()
  readonly #tcp: TcpAnnotations
  readonly #sampler: Sampler
  readonly #counters: CountersWriter
  readonly #poller: Poller
  readonly #kernelSamplers: KernelSamplers
  readonly #pcapSamplers: PcapSamplers
  readonly #nflog: NflogSampling
  readonly #drops: DropReports
  readonly #metrics: MetricsReports
  readonly #web: WebPage
  readonly #applications: ApplicationSources
  readonly #virtual: VirtualSources
  readonly #hostPolling: HostPolling
  readonly #interfacePolling: InterfacePolling
  #budget: Budget | undefined
  /** Samples, and the time, when the budget was last looked at. */
  #budgeted = { samples: 0, atMs: 0 }
  readonly #address: AgentAddress
  #housekeeping: NodeJS.Timeout | undefined
  #settling: NodeJS.Timeout | undefined
  #running = false
  /** The end of the start and all changes of the configuration so far; one is made at a time. */
  #changes: Promise<void> = Promise.resolve()
  /** Resolves when the start has ended, well or not. */
  readonly #started = Promise.withResolvers<void>()

  /**
   * Builds all parts; nothing is opened before start(). `previousAddress`: what the agent was known by in its run before,
   * to be known by again where there is no reason against it.
   */
  constructor(config: Config, log: Logger, previousAddress?: string) {
    this.#config = config
    this.#log = log
    const { ledger } = this
    const own = new OwnDatagrams(log)
    this.#interfaces = new Interfaces({ log })
    this.#innerHeader.enabled = config.innerHeader
    this.#bridgeVlans = new BridgeVlans(this.#interfaces, log)
    this.#vlans = new VlanAnnotator(this.#bridgeVlans)
    this.#exporter = new Exporter({
      collectors: config.collectors,
      datagrams: {
        subAgentId: config.subAgentId,
        maxBytes: config.datagramBytes,
        flushMs: config.flushMs,
      },
      ledger,
      log,
      open: target => own.watch(UdpSender.open(target)),
      follow: followNetwork,
      uptimeMs: () => performance.now() - this.#startedMs,
    })
    this.#datagrams = this.#exporter.datagrams
    this.#sampler = new Sampler(this.#datagrams, ledger, config.headerBytes)
    this.#tcp = new TcpAnnotations({
      interfaces: this.#interfaces,
      ledger,
      log,
      sink: this.#sampler.accept,
      onBatchEnd: () => this.#datagrams.send(),
    })
    this.#counters = new CountersWriter(this.#datagrams, ledger)
    this.#poller = new Poller({
      ledger,
      sink: this.#counters.write,
      onFailure: failure => this.#readerFailed(failure),
    })
    this.#applications = new ApplicationSources({ datagrams: this.#datagrams, ledger, log })
    this.#hostPolling = new HostPolling({
      poller: this.#poller,
      interfaces: this.#interfaces,
      log,
      others: () => this.#virtual.hostReaders(),
    })
    this.#interfacePolling = new InterfacePolling({
      poller: this.#poller,
      interfaces: this.#interfaces,
      log,
      named: port => this.#virtual.named(port),
    })
    const status = () => statusOf(this.#observe())
    this.#metrics = new MetricsReports({ datagrams: this.#datagrams, ledger, log, status })
    this.#web = new WebPage({
      exporter: this.#exporter,
      interfaces: () => interfacesOf(this.#observe()),
      address: () => this.#address.address,
      log,
    })
    this.#drops = new DropReports({
      datagrams: this.#datagrams,
      interfaces: this.#interfaces,
      ledger,
      log,
      own,
      takeFollowed: () => this.#pcapSamplers.takeFollowed(),
    })
    const samplers = {
      log,
      ledger,
      interfaces: this.#interfaces,
      sampler: this.#sampler,
      sink: this.#accept,
      onBatchEnd: this.#onBatchEnd,
      withinBudget: this.#withinBudget,
    }
    this.#kernelSamplers = new KernelSamplers(config, samplers)
    this.#nflog = new NflogSampling(samplers)
    this.#pcapSamplers = new PcapSamplers({
      ...samplers,
      lookMs: () => this.#datagrams.lookMs,
      drops: this.#drops,
      onChange: () => this.#placeSoon(),
    })
    this.#address = new AgentAddress(config.agent, {
      log,
      previous: previousAddress,
      addresses: () => this.#interfaces.localAddresses(),
      onChange: address => this.#exporter.changeAgentAddress(address),
    })
    this.#virtual = new VirtualSources({
      poller: this.#poller,
      ledger,
      log,
      interfaces: this.#interfaces,
      agentAddress: () => this.#address.address,
      onMarked: groups => this.#entities.setEntities(groups),
    })
  }

  /**
   * Starts everything. Fails only when there is nothing to run on (no netlink); what a part may not do or does not
   * find is logged, and the rest runs.
   */
  start(): Promise<void> {
    const started = this.#start()
    this.#changes = started.catch(() => {})
    void this.#changes.then(this.#started.resolve)
    return started
  }

  async #start(): Promise<void> {
    this.#running = true
    const config = this.#config
    await this.#interfaces.start()
    await this.#attempt('bridge', () => this.#bridgeVlans.start())
    this.#address.elect()
    this.#exporter.start()
    this.#interfaces.subscribe(event => this.#interfaceChanged(event))
    await this.#attempt('counters', () => this.#startPolling())
    await this.#attempt('virtual', () => this.#virtual.change(config))
    await this.#attempt('tcp', () => this.#tcp.change(config.tcp))
    await this.#startSources()
    if (!this.#running) return
    this.#startBudget()
    this.#housekeeping = setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS)
    this.#log.info(
      {
        agent: this.#address.address,
        collectors: config.collectors.map(({ name }) => name),
        file: config.file,
      },
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
    if (differs('agent')) this.#address.change(config.agent)
    if (differs('budget')) this.#startBudget()
    await this.#attempt('counters', () => this.#hostPolling.change(config))
    await this.#attempt('virtual', () => this.#virtual.change(config))
    await this.#attempt('counters', () => this.#interfacePolling.change(config))
    if (differs('tcp')) await this.#attempt('tcp', () => this.#tcp.change(config.tcp))
    this.#sampler.headerBytes = config.headerBytes
    this.#innerHeader.enabled = config.innerHeader
    // The cookies of the tc samplers carry the sub-agent.
    if (config.tc === undefined || config.psample === undefined || differs('subAgentId')) {
      await this.#attempt('tc', () => this.#kernelSamplers.stopTc())
    }
    if (config.psample === undefined) this.#kernelSamplers.stopPsample()
    // What the programs in the kernel are told when they are loaded.
    if (config.pcap.length === 0 || differs('headerBytes', 'transit', 'subAgentId')) {
      await this.#attempt('pcap', () => this.#pcapSamplers.stop())
    }
    this.#kernelSamplers.changeGroups(config)
    await this.#startSources()
  }

  /** Stops in reverse, sends what is open and leaves nothing of ours in the kernel. May be called twice. */
  async stop(): Promise<void> {
    if (!this.#running) return
    this.#running = false
    await this.#changes
    clearInterval(this.#housekeeping)
    clearTimeout(this.#settling)
    this.#address.stop()
    this.#poller.stop()
    this.#metrics.stop()
    this.#web.stop()
    await this.#attempt('tc', () => this.#kernelSamplers.stopTc())
    this.#virtual.stop()
    this.#keepHouse()
    // Which of the drops that it has followed are reported depends on what else reports them.
    await this.#attempt('pcap', () => this.#pcapSamplers.stop())
    await this.#attempt('dropmon', () => this.#drops.stop())
    this.#applications.stop()
    this.#kernelSamplers.stopPsample()
    this.#nflog.stop()
    this.#tcp.stop()
    this.#datagrams.flush()
    this.logStatus()
    this.#exporter.stop()
    this.#bridgeVlans.stop()
    this.#hostPolling.stop()
    this.#interfacePolling.stop()
    this.#interfaces.stop()
  }

  /** What holds now, for programs that want to send as this agent does. */
  settings(): RunningSettings {
    return {
      config: this.#config,
      address: this.#address.address,
      device: this.#address.device,
      collectorAddresses: this.#exporter.status().map(({ address }) => address),
    }
  }

  /**
   * A socket that answers questions about this agent, once it has started; not yet listening. `group` as for
   * ControlServer.
   */
  controlSocket(path: string, group: string | undefined): ControlServer {
    const exporter = this.#exporter
    const interfaces = this.#interfaces.byIndex
    return controlSocket({
      path,
      group,
      log: this.#log,
      exporter,
      interfaces,
      started: this.#started.promise,
      observe: () => this.#observe(),
    })
  }

  #observe(): Observed {
    const drops = this.#drops.status()
    return {
      config: this.#config,
      address: this.#address.address,
      addressDevice: this.#address.device,
      uptimeMs: performance.now() - this.#startedMs,
      ledger: this.ledger,
      sampler: this.#sampler,
      counters: this.#counters,
      datagrams: this.#exporter.balance,
      collectors: this.#exporter.status(),
      drops,
      interfaces: this.#interfaces.byIndex,
      sources: [
        ...this.#kernelSamplers.sources(),
        ...this.#pcapSamplers.sources(),
        ...this.#nflog.sources(),
        ...this.#drops.sources(),
      ],
      unheard: [this.#metrics.listener, this.#web.listener, this.#applications].flatMap(one => one.unheard()),
      interfaceCounters: () => this.#interfacePolling.all(),
      sampledBy: ifIndex => this.#pcapSamplers.sampledBy(ifIndex) ?? this.#kernelSamplers.sampledBy(ifIndex),
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
        applications: this.#applications.status(),
        virtual: this.#virtual.status(),
        tcp: this.#tcp.status(),
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
    this.#hostPolling.change(this.#config)
    await this.#interfacePolling.start(this.#config)
  }

  #interfaceChanged(event: InterfaceEvent): void {
    if (!this.#running) return
    if (event.type === 'remove') {
      const { ifIndex } = event.before
      // At once: another interface may get the same ifIndex before the samplers are looked at.
      void this.#attempt('pcap', () => this.#pcapSamplers.remove(ifIndex))
      this.#kernelSamplers.forget(ifIndex)
      this.#sampler.forget(ifIndex)
    }
    this.#interfacePolling.interfaceChanged(event)
    this.#settling ??= setTimeout(() => {
      this.#settling = undefined
      this.#address.elect()
      this.#tcp.followAddresses()
      this.#placeSoon()
    }, SETTLE_MS)
  }

  /** A sample of any source: what is known of its packet elsewhere is added, and it is written. */
  readonly #accept = (sample: PacketSample): void => {
    this.#vlans.annotate(sample)
    this.#innerHeader.annotate(sample)
    this.#entities.annotate(sample)
    if (!this.#tcp.hold(sample)) this.#sampler.accept(sample)
  }

  /** A batch of samples has been written: full datagrams go out, the open one waits for more. */
  readonly #onBatchEnd = (): void => {
    this.#tcp.endBatch()
    this.#datagrams.send()
  }

  /** Starts the sources of packets that the configuration asks for and that do not run yet; then places samplers. */
  async #startSources(): Promise<void> {
    const config = this.#config
    await this.#attempt('psample', () => this.#kernelSamplers.startPsample(config))
    await this.#attempt('tc', () => this.#kernelSamplers.startTc(config))
    await this.#attempt('nflog', () => this.#nflog.change(config))
    if (config.pcap.length > 0) await this.#attempt('pcap', () => this.#pcapSamplers.start(config))
    await this.#attempt('dropmon', () => this.#drops.change(config.dropmon, config.headerBytes))
    await this.#attempt('json', () => this.#applications.change(config))
    const { metrics, polling } = config
    await this.#attempt('metrics', () => this.#metrics.change(metrics, polling.seconds * 1000))
    await this.#attempt('web', () => this.#web.change(config.web))
    await this.#placeSamplers()
  }

  /** Places samplers when what is being changed now is done. */
  #placeSoon(): void {
    this.#changes = this.#changes.then(() => this.#attempt('samplers', () => this.#placeSamplers()))
  }

  /** Samplers follow the interfaces. */
  async #placeSamplers(): Promise<void> {
    if (!this.#running) return
    await this.#attempt('pcap', () => this.#pcapSamplers.place(this.#config))
    await this.#attempt('tc', () => this.#kernelSamplers.place(this.#config))
    this.#nflog.followBudget()
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
  readonly #withinBudget = (rate: number): number => Math.min(rate * (this.#budget?.factor ?? 1), MOST_RATE)

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
    this.#pcapSamplers.poll()
    this.#nflog.poll()
    this.#drops.poll()
    this.#applications.poll()
    void this.#attempt('tc', () => this.#kernelSamplers.poll())
    const problem = this.#counters.takeProblem()
    if (problem !== undefined) this.#limited.line('counters', held => this.#log.warn({ held }, problem))
  }
}
