import type { Interface } from '../interfaces.ts'
import type { EthernetStats } from '../wire/netlink/ethtool.ts'
import type { DriverStatistics } from './driver-statistics.ts'
import { EthernetCountersReader } from './ethernet-counters.ts'
import { ifCountersReader } from './if-counters.ts'
import type { InterfaceStatistics } from './interface-statistics.ts'
import { LagPortReader } from './lag-port.ts'
import type { Modules } from './modules.ts'
import { pfcReader } from './pfc.ts'
import { PortNameReader } from './port-name.ts'
import { queuesReader } from './queues.ts'
import type { CounterReader } from './reader.ts'

/** Whom to ask about interfaces. What is undefined is not asked for. */
export interface InterfaceSources {
  readonly statistics: InterfaceStatistics
  readonly driver?: DriverStatistics | undefined
  readonly modules?: Modules | undefined
  /** Tell of priority flow control, and of queueing disciplines. */
  readonly pfc?: boolean
  readonly queues?: boolean
  /** The interface by the name that it is to be sent with; its own if not given. */
  readonly named?: (port: Interface | undefined) => Interface | undefined
  /** Kinds of virtual interface that turned out to count nothing at a MAC; filled here. */
  readonly withoutMac?: Set<string>
}

/**
 * The readers of the data source of one interface (0:ifIndex), in the order of their records: those that every
 * receiver knows first. `port` gives the interface as it is now, undefined when it is gone; it must not become
 * another interface that happens to get the same ifIndex.
 */
export function interfaceReaders(
  ifIndex: number,
  port: () => Interface | undefined,
  sources: InterfaceSources,
): CounterReader[] {
  const { statistics, modules, pfc, queues, named = itself } = sources
  const ethernet = new EthernetStatistics(ifIndex, port, sources)
  const readers: CounterReader[] = [
    ifCountersReader({
      port,
      stats: () => statistics.stats(ifIndex, ['link64']),
      ethernet,
      links: statistics.links,
    }),
    new EthernetCountersReader(ethernet),
    new LagPortReader(port, statistics),
    new PortNameReader(port, named),
  ]
  // Modules and flow control are of devices that a driver made.
  const isDevice = port()?.kind === undefined
  if (isDevice && modules !== undefined) readers.push(modules.reader(port))
  if (isDevice && pfc) readers.push(pfcReader(port, name => statistics.pfc(name)))
  if (queues) readers.push(queuesReader(port, () => statistics.qdiscs()))
  return readers
}

const itself = (port: Interface | undefined) => port

/** What an interface's driver counts by the names of IEEE 802.3. */
export interface EthernetQuestion {
  /** False when it is known that nothing is counted: then there is no need to ask. */
  readonly mayCount: boolean
  ask(): Promise<EthernetStats | undefined>
}

/**
 * Most virtual interfaces, and many drivers, count nothing at the MAC. They are found out by the first answer while the
 * interface is up, and not asked again: on a host with thousands that is half of all questions. Those that have no
 * standard statistics are asked for those of the driver's own from then on.
 */
class EthernetStatistics implements EthernetQuestion {
  readonly #ifIndex: number
  readonly #port: () => Interface | undefined
  readonly #sources: InterfaceSources
  #standard = true
  #own: boolean
  /** Those who ask meanwhile share the answer. */
  #underWay: Promise<EthernetStats | undefined> | undefined

  constructor(ifIndex: number, port: () => Interface | undefined, sources: InterfaceSources) {
    this.#ifIndex = ifIndex
    this.#port = port
    this.#sources = sources
    // What is not made by a device's driver counts no frames on a cable.
    this.#own = sources.driver !== undefined && port()?.kind === undefined
  }

  get mayCount(): boolean {
    if (this.#standard && this.#sources.withoutMac?.has(this.#port()?.kind ?? '')) this.#standard = false
    return this.#standard || this.#own
  }

  ask(): Promise<EthernetStats | undefined> {
    this.#underWay ??= this.#ask().finally(() => {
      this.#underWay = undefined
    })
    return this.#underWay
  }

  async #ask(): Promise<EthernetStats | undefined> {
    const { statistics, driver } = this.#sources
    const { adminUp = false, kind, name = '' } = this.#port() ?? {}
    if (this.#standard) {
      const stats = await statistics.ethernet(this.#ifIndex)
      if (counts(stats)) {
        this.#own = false
        return stats
      }
      if (adminUp) this.#hasNoStandard()
    }
    if (kind !== undefined) this.#own = false
    if (!this.#own || driver === undefined) return undefined
    const stats = await driver.read(this.#ifIndex, name)
    if (!counts(stats) && adminUp) this.#own = false
    return stats
  }

  #hasNoStandard(): void {
    this.#standard = false
    const { kind, parentDevice } = this.#port() ?? {}
    // One driver makes all of a kind, unless they belong to hardware, as the ports of a DSA switch do.
    if (kind !== undefined && parentDevice === undefined) this.#sources.withoutMac?.add(kind)
  }
}

function counts(stats: EthernetStats | undefined): stats is EthernetStats {
  return stats !== undefined && Object.keys({ ...stats.mac, ...stats.phy }).length > 0
}
