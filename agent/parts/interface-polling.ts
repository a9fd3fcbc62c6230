import { isDeepStrictEqual } from 'node:util'
import type { Config, CountersConfig, PcapConfig } from '../config/config.ts'
import { portsWithoutCounters } from '../config/pcap-rule.ts'
import { DriverStatistics } from '../counters/driver-statistics.ts'
import { type InterfaceSources, interfaceReaders } from '../counters/interface-readers.ts'
import { InterfaceStatistics } from '../counters/interface-statistics.ts'
import { Modules } from '../counters/modules.ts'
import type { Poller } from '../datasource/poller.ts'
import type { Logger } from '../health/log.ts'
import type { Interface, InterfaceEvent, Interfaces } from '../interfaces.ts'
import { CAPABILITIES, effectiveCapabilities } from '../kernel/privileges.ts'
import { inTurns } from '../turns.ts'
import type { LinkStats64 } from '../wire/netlink/rt-stats.ts'

/**
 * The wiring of the counters of interfaces: opens what they are asked of, and tells the poller which interfaces there are
 * to poll.
 */

/** Data source type of an interface. */
const INTERFACE = 0

export interface InterfacePollingOptions {
  readonly poller: Poller
  readonly interfaces: Interfaces
  readonly log: Logger
  /** The interface by the name that it is to be sent with. */
  readonly named: (port: Interface | undefined) => Interface | undefined
}

export class InterfacePolling {
  readonly #poller: Poller
  readonly #interfaces: Interfaces
  readonly #log: Logger
  readonly #named: InterfacePollingOptions['named']
  readonly #polled = new Set<number>()
  #settings:
    | {
        readonly intervalMs: number
        readonly counters: CountersConfig
        readonly pcap: readonly PcapConfig[]
      }
    | undefined
  #sources: InterfaceSources | undefined

  constructor({ poller, interfaces, log, named }: InterfacePollingOptions) {
    this.#poller = poller
    this.#interfaces = interfaces
    this.#log = log
    this.#named = named
  }

  async start(config: Config): Promise<void> {
    this.#settings = settingsOf(config)
    const statistics = await InterfaceStatistics.open()
    const driver = DriverStatistics.open()
    const { pfc, queues, moduleSeconds } = config.counters
    const modules = await this.#openModules(moduleSeconds)
    const named = this.#named
    this.#sources = { statistics, driver, modules, pfc, queues, named, withoutMac: new Set() }
    await this.#pollAll()
  }

  /** Goes on with another configuration; does nothing when it says the same of counters. */
  async change(config: Config): Promise<void> {
    const before = this.#settings
    const now = settingsOf(config)
    const sources = this.#sources
    if (before === undefined || sources === undefined || isDeepStrictEqual(before, now)) return
    this.#settings = now
    if (isDeepStrictEqual([before.counters, before.pcap], [now.counters, now.pcap])) {
      for (const ifIndex of this.#polled) this.#poller.changeInterval(INTERFACE, ifIndex, now.intervalMs)
      return
    }
    sources.modules?.close()
    const { pfc, queues, moduleSeconds } = now.counters
    this.#sources = { ...sources, pfc, queues, modules: await this.#openModules(moduleSeconds) }
    for (const ifIndex of [...this.#polled]) this.#forget(ifIndex)
    await this.#pollAll()
  }

  interfaceChanged(event: InterfaceEvent): void {
    if (event.type === 'remove') this.#forget(event.before.ifIndex)
    else this.#poll(event.after)
  }

  /** The kernel's counters of all interfaces now, by ifIndex. */
  async all(): Promise<ReadonlyMap<number, LinkStats64>> {
    return (await this.#sources?.statistics.all()) ?? new Map()
  }

  /** May be called twice. */
  stop(): void {
    this.#sources?.statistics.close()
    this.#sources?.driver?.close()
    this.#sources?.modules?.close()
  }

  async #openModules(seconds: number): Promise<Modules | undefined> {
    if (seconds === 0) return undefined
    // The kernel reads modules for CAP_NET_ADMIN only (net/ethtool/netlink.c).
    if (!((effectiveCapabilities() >> BigInt(CAPABILITIES.CAP_NET_ADMIN)) & 1n)) {
      this.#log.info(
        { part: 'counters' },
        `pluggable modules are not read: needs CAP_NET_ADMIN, which counters { modules = ${seconds} } keeps`,
      )
      return undefined
    }
    try {
      return await Modules.open({ intervalMs: seconds * 1000 })
    } catch (error) {
      this.#log.warn(`modules are not read: ${(error as Error).message}`)
      return undefined
    }
  }

  /** Those that come or go between two turns are told of as events. */
  #pollAll(): Promise<void> {
    const { byIndex } = this.#interfaces
    return inTurns(byIndex.keys(), ifIndex => {
      const port = byIndex.get(ifIndex)
      if (port !== undefined) this.#poll(port)
    })
  }

  #poll(port: Interface): void {
    const { ifIndex, name } = port
    const sources = this.#sources
    if (sources === undefined || this.#settings === undefined) return
    const { intervalMs, counters, pcap } = this.#settings
    // Only of a bridge's port there is more to ask, and that looks at all interfaces.
    const isLeftOut =
      port.masterKind === 'bridge' && portsWithoutCounters(pcap, this.#interfaces.byIndex).has(ifIndex)
    const isWanted = !isLeftOut && isPolled(port, counters, this.#polled.has(ifIndex))
    if (!isWanted) this.#forget(ifIndex)
    if (!isWanted || this.#polled.has(ifIndex)) return
    this.#polled.add(ifIndex)
    const now = () => this.#interfaces.byIndex.get(ifIndex)
    const readers = interfaceReaders(ifIndex, now, sources)
    this.#poller.add({ type: INTERFACE, index: ifIndex, intervalMs, readers })
    this.#log.debug({ part: 'counters', interface: name }, `${name} is polled`)
  }

  #forget(ifIndex: number): void {
    if (!this.#polled.delete(ifIndex)) return
    this.#poller.remove(INTERFACE, ifIndex)
    this.#sources?.driver?.forget(ifIndex)
  }
}

function settingsOf({ polling, counters, pcap }: Config) {
  return { intervalMs: polling.seconds * 1000, counters, pcap }
}

/**
 * Ports of a switch are polled from the first moment to the last, whatever their state: that one is down is what an
 * operator looks for. Others, of which a host may have many that it never uses, from the first time they are up; then they
 * stay, and tell when they go down. A pattern in the configuration decides by the name alone.
 */
export function isPolled(
  port: Pick<Interface, 'name' | 'loopback' | 'switchId' | 'adminUp'>,
  { interfaces }: Pick<CountersConfig, 'interfaces'>,
  wasPolled: boolean,
): boolean {
  if (interfaces !== undefined) return interfaces.test(port.name)
  // Loopback has nothing that a network engineer asks for.
  if (port.loopback) return false
  return wasPolled || port.adminUp || port.switchId !== undefined
}
