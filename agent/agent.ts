import { readFile } from 'node:fs/promises'
import { chooseAgentAddress } from './config/agent-address.ts'
import type { Config, DropmonConfig } from './config/config.ts'
import { pcapRate, pcapRule } from './config/pcap-rule.ts'
import { effectiveRate } from './config/sampling-rate.ts'
import { hostReaders } from './counters/host-readers.ts'
import { interfaceReaders } from './counters/interface-readers.ts'
import { InterfaceStatistics } from './counters/interface-statistics.ts'
import { CountersWriter } from './datasource/counters-writer.ts'
import { Notifier } from './datasource/notifier.ts'
import { Poller, type PollFailure } from './datasource/poller.ts'
import { Sampler } from './datasource/sampler.ts'
import { Classifier } from './drops/classifier.ts'
import { Collectors } from './export/collectors.ts'
import { Datagrams } from './export/datagrams.ts'
import { Ledger } from './health/ledger.ts'
import { type Logger, RateLimitedLog } from './health/log.ts'
import { type Interface, type InterfaceEvent, Interfaces } from './interfaces.ts'
import { UdpSender } from './kernel/udp-sender.ts'
import { DropAlerts } from './sources/drop-alerts.ts'
import { DropMonitorSource } from './sources/drop-monitor.ts'
import { PacketSocketSource } from './sources/packet-socket.ts'
import { PsampleSource } from './sources/psample.ts'
import { PsampleSamples } from './sources/psample-samples.ts'
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
/** Changes of interfaces come in bursts; samplers and the agent address follow after this time. */
const SETTLE_MS = 50

/** Bytes of a dropped packet that are looked at, whatever is exported: up to the IP header behind two VLAN tags. */
const LEAST_DROP_BYTES = 64
/** Dropped packets that may wait in the kernel on each processor. */
const DROP_QUEUE = 1000
/** Rows of the status about drops: the pairs of reason and interface with the most of them. */
const DROP_ROWS = 50

/** What reports dropped packets. */
interface Drops {
  readonly datagrams: Datagrams
  readonly notifier: Notifier
  readonly monitor: DropMonitorSource
}

export class Agent {
  readonly ledger = new Ledger()
  readonly #config: Config
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  readonly #startedMs = performance.now()
  readonly #interfaces: Interfaces
  readonly #collectors: Collectors
  readonly #datagrams: Datagrams
  readonly #sampler: Sampler
  readonly #counters: CountersWriter
  readonly #poller: Poller
  readonly #psampleSamples: PsampleSamples | undefined
  readonly #psample: PsampleSource | undefined
  readonly #taps: PacketSocketSource | undefined
  readonly #tc: TcSamplers | undefined
  readonly #drops: Drops | undefined
  #statistics: InterfaceStatistics | undefined
  /** Rate of each tapped interface. */
  readonly #tapped = new Map<number, number>()
  #address: string | undefined
  #forwards = false
  #housekeeping: NodeJS.Timeout | undefined
  #settling: NodeJS.Timeout | undefined
  /** Packets that the tc samplers of an interface had counted when they were last asked. */
  readonly #counted = new Map<number, bigint>()
  #counting = false
  #running = false

  /** Builds all parts; nothing is opened before start(). */
  constructor(config: Config, log: Logger) {
    this.#config = config
    this.#log = log
    const { ledger } = this
    this.#interfaces = new Interfaces({ log })
    this.#collectors = new Collectors({ collectors: config.collectors, ledger, log, open: UdpSender.open })
    const noAddress = ledger.loss(
      'datagrams',
      'no-agent-address',
      'no interface has an address to be known by; give one to an interface, or set agentIP',
    )
    const sequence = { last: 0 }
    const makeDatagrams = () =>
      new Datagrams(
        {
          agentAddress: Uint8Array.of(0, 0, 0, 0),
          subAgentId: config.subAgentId,
          maxBytes: config.datagramBytes,
          flushMs: config.flushMs,
        },
        (memory, spans, count) => {
          if (this.#address === undefined) noAddress.count += count
          else this.#collectors.send(memory, spans, count)
        },
        () => performance.now() - this.#startedMs,
        sequence,
      )
    this.#datagrams = makeDatagrams()
    this.#sampler = new Sampler(this.#datagrams, ledger, config.headerBytes)
    this.#counters = new CountersWriter(this.#datagrams, ledger)
    this.#poller = new Poller({
      ledger,
      sink: this.#counters.write,
      onFailure: failure => this.#readerFailed(failure),
    })

    const onBatchEnd = () => this.#datagrams.send()
    const { psample, tc, pcap } = config
    if (psample !== undefined) {
      if (tc !== undefined) {
        this.#tc = new TcSamplers({
          log,
          interfaces: this.#interfaces,
          instance: config.subAgentId,
          onGroup: () => this.#psampleSamples?.forgetForeignGroups(),
        })
      }
      this.#psampleSamples = new PsampleSamples({
        ingressGroup: psample.ingress ? psample.group : undefined,
        egressGroup: psample.egress ? psample.group + 1 : undefined,
        interfaces: this.#interfaces,
        ledger,
        sink: this.#sampler.accept,
        portOfGroup: this.#tc?.portOfGroup,
        portOfCookie: this.#tc?.portOfCookie,
      })
      this.#psample = new PsampleSource({ samples: this.#psampleSamples, ledger, log, onBatchEnd })
    }
    if (pcap.length > 0) {
      const { headerBytes } = config
      this.#taps = new PacketSocketSource({ ledger, sink: this.#sampler.accept, onBatchEnd, headerBytes })
    }
    if (config.dropmon !== undefined) this.#drops = this.#buildDrops(config.dropmon, makeDatagrams())
  }

  /** Drops go into datagrams of their own: collectors that do not know them lose the rest of a datagram. */
  #buildDrops(dropmon: DropmonConfig, datagrams: Datagrams): Drops {
    const { ledger } = this
    const { headerBytes } = this.#config
    const { start, software, hardware, force } = dropmon
    const notifier = new Notifier({
      datagrams,
      ledger,
      classifier: new Classifier(dropmon),
      headerBytes,
      limit: dropmon.limit,
      now: () => performance.now(),
    })
    const alerts = new DropAlerts({
      software: software || dropmon.softwarePassive,
      hardware: hardware || dropmon.hardwarePassive,
      interfaces: this.#interfaces,
      ledger,
      sink: notifier.accept,
      onLost: notifier.lost,
    })
    const truncateBytes = Math.max(headerBytes, LEAST_DROP_BYTES)
    const monitor = new DropMonitorSource({
      alerts,
      ledger,
      log: this.#log,
      onBatchEnd: notifier.endBatch,
      onLost: notifier.lost,
      start,
      wishes: { software, hardware, force, truncateBytes, queueLength: DROP_QUEUE },
      mostPerSecond: dropmon.mostPerSecond,
      mostSeconds: dropmon.mostSeconds,
    })
    return { datagrams, notifier, monitor }
  }

  /**
   * Starts everything. Fails only when there is nothing to run on (no netlink); what a part may not do or does not
   * find is logged, and the rest runs.
   */
  async start(): Promise<void> {
    this.#running = true
    const config = this.#config
    await this.#interfaces.start()
    this.#forwards = await forwardsPackets()
    this.#electAddress()
    this.#collectors.start()
    await this.#attempt('counters', () => this.#startPolling())
    this.#interfaces.subscribe(event => this.#interfaceChanged(event))
    if (config.tc !== undefined && config.psample === undefined) {
      this.#log.warn('tc samplers need a psample block to be received: add psample { } to the configuration')
    }
    await this.#attempt('psample', () => this.#psample?.start())
    await this.#attempt('tc', () => this.#tc?.start())
    await this.#attempt('dropmon', () => this.#drops?.monitor.start())
    await this.#placeSamplers()
    this.#housekeeping = setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS)
    this.#log.info(
      { agent: this.#address, collectors: config.collectors.map(({ name }) => name), file: config.file },
      'running',
    )
  }

  /** Stops in reverse, sends what is open and leaves nothing of ours in the kernel. May be called twice. */
  async stop(): Promise<void> {
    if (!this.#running) return
    this.#running = false
    clearInterval(this.#housekeeping)
    clearTimeout(this.#settling)
    this.#poller.stop()
    await this.#attempt('tc', () => this.#tc?.stop())
    await this.#attempt('dropmon', () => this.#drops?.monitor.stop())
    this.#keepHouse()
    this.#taps?.stop()
    this.#psample?.stop()
    this.#datagrams.stop()
    this.#drops?.datagrams.stop()
    this.logStatus()
    this.#collectors.stop()
    this.#statistics?.close()
    this.#interfaces.stop()
  }

  /** Writes what was sent and what was lost to the log. */
  logStatus(): void {
    const losses = this.ledger.entries().filter(loss => loss.count > 0)
    this.#log.info(
      {
        flowSamples: this.#sampler.exported,
        countersSamples: this.#counters.samples,
        ...(this.#drops === undefined ? {} : { drops: dropStatus(this.#drops) }),
        datagrams: this.#datagrams.closed + (this.#drops?.datagrams.closed ?? 0),
        collectors: this.#collectors.status(),
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
    const { polling, uuid } = this.#config
    if (polling.seconds === 0) return
    const intervalMs = polling.seconds * 1000
    this.#poller.start()
    // The host comes first: the first source is polled at once.
    const interfaces = () => this.#interfaces.byIndex.values()
    this.#poller.add({ ...HOST, intervalMs, readers: hostReaders({ uuid, interfaces }) })
    this.#statistics = await InterfaceStatistics.open()
    for (const port of this.#interfaces.byIndex.values()) this.#poll(port)
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
    if (event.type === 'remove') {
      const { ifIndex } = event.before
      this.#poller.remove(INTERFACE, ifIndex)
      // At once: another interface may get the same ifIndex before the samplers are looked at.
      this.#taps?.remove(ifIndex)
      this.#tapped.delete(ifIndex)
      this.#sampler.forget(ifIndex)
      this.#counted.delete(ifIndex)
    } else if (event.type === 'add' || event.before.adminUp !== event.after.adminUp) {
      this.#poll(event.after)
    }
    this.#settling ??= setTimeout(() => {
      this.#settling = undefined
      this.#electAddress()
      void this.#placeSamplers()
    }, SETTLE_MS)
  }

  #electAddress(): void {
    const { chosen, note } = chooseAgentAddress(this.#interfaces.localAddresses(), this.#config.agent)
    if (chosen?.address === this.#address) return
    this.#address = chosen?.address
    if (note !== undefined) this.#log.warn(note)
    if (chosen === undefined) {
      this.#log.warn('no interface has an address to be known by: nothing is sent until one has')
      return
    }
    this.#log.info({ interface: chosen.interfaceName, why: chosen.why }, `agent address ${chosen.address}`)
    const address = parseIp4(chosen.address) ?? parseIp6(chosen.address)!
    // All that is open goes out under the old address before the numbers start again.
    this.#drops?.datagrams.flush()
    this.#datagrams.changeAgentAddress(address)
    this.#drops?.datagrams.changeAgentAddress(address)
  }

  /** Samplers follow the interfaces: tc filters, and packet sockets for the pcap blocks. */
  async #placeSamplers(): Promise<void> {
    const { tc, psample, headerBytes } = this.#config
    const { byIndex } = this.#interfaces
    for (const port of byIndex.values()) this.#placeTap(port)
    if (this.#tc === undefined || tc === undefined || psample === undefined) return
    const rateOf = (port: Interface) => effectiveRate(this.#config, port).rate
    const wanted = wantedSamplers(byIndex, { tc, psample, headerBytes }, rateOf)
    await this.#attempt('tc', () => this.#tc?.apply(wanted))
  }

  #placeTap(port: Interface): void {
    const taps = this.#taps
    if (taps === undefined) return
    const { ifIndex, name } = port
    const log = this.#log.child({ part: 'pcap', interface: name })
    const { rule, index, why } = pcapRule(this.#config.pcap, port)
    const { rate, rule: reason } =
      rule === undefined ? { rate: 0, rule: 'no pcap block' } : pcapRate(this.#config, index, port)
    const before = this.#tapped.get(ifIndex) ?? 0
    if (rate === before) return
    try {
      if (rate === 0) taps.remove(ifIndex)
      else if (before > 0) taps.setRate(ifIndex, rate)
      else {
        const forwards = this.#forwards || port.kind === 'bridge' || port.masterKind === 'bridge'
        const warning = taps.add({ ifIndex, name, rate, promiscuous: rule!.promisc, forwards })
        if (warning !== undefined) log.warn(warning)
      }
      this.#tapped.set(ifIndex, rate)
      if (rate > 0) log.info({ why, reason }, `${name} is sampled 1 in ${rate} by a packet socket`)
      else log.info({ why, reason }, `${name} is not sampled any more`)
    } catch (error) {
      log.error(`${name} is not sampled: ${(error as Error).message}`)
    }
  }

  #readerFailed({ sourceIndex, reader, error }: PollFailure): void {
    this.#limited.line(`${reader} ${error.message}`, held =>
      this.#log.warn({ part: 'counters', source: sourceIndex, held }, `${reader}: ${error.message}`),
    )
  }

  #keepHouse(): void {
    this.#psample?.poll()
    this.#taps?.poll()
    this.#drops?.monitor.poll()
    void this.#attempt('tc', () => this.#countPools())
    const problem = this.#counters.takeProblem()
    if (problem !== undefined) this.#limited.line('counters', held => this.#log.warn({ held }, problem))
  }

  /** The tc samplers count every packet that passes them: sample pools are exact. */
  async #countPools(): Promise<void> {
    if (this.#tc === undefined || this.#counting) return
    this.#counting = true
    try {
      const passed = new Map<number, bigint>()
      for (const { ifIndex, packets } of await this.#tc.counts()) {
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

/** True when this host passes packets on between its interfaces: what comes in need not end here. */
async function forwardsPackets(): Promise<boolean> {
  const files = ['/proc/sys/net/ipv4/ip_forward', '/proc/sys/net/ipv6/conf/all/forwarding']
  const values = await Promise.all(files.map(file => readFile(file, 'utf8').catch(() => '0')))
  return values.some(value => value.trim() !== '0')
}

function dropStatus({ notifier, monitor }: Drops): object {
  const { offered, exported, leftOut } = notifier
  const counts = notifier.counts().sort((a, b) => b.offered - a.offered)
  const rest = counts.slice(DROP_ROWS)
  const others = {
    pairs: rest.length,
    offered: rest.reduce((sum, row) => sum + row.offered, 0),
    suppressed: rest.reduce((sum, row) => sum + row.suppressed, 0),
  }
  const by = counts.slice(0, DROP_ROWS)
  return { monitor: monitor.state, offered, exported, leftOut, by, ...(rest.length > 0 ? { others } : {}) }
}
