import type { Interface } from '../interfaces.ts'
import type { EthernetStats } from '../wire/netlink/ethtool.ts'
import type { DriverStatistics } from './driver-statistics.ts'
import { ethernetCountersReader } from './ethernet-counters.ts'
import { ifCountersReader } from './if-counters.ts'
import type { InterfaceStatistics } from './interface-statistics.ts'
import { lagPortReader } from './lag-port.ts'
import type { Modules } from './modules.ts'
import { pfcReader } from './pfc.ts'
import { portNameReader } from './port-name.ts'
import { queuesReader } from './queues.ts'
import { type CounterReader, shared } from './reader.ts'

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
}

/**
 * The readers of the data source of one interface (0:ifIndex), in the order of their records: those that every
 * receiver knows first. `port` gives the interface as it is now, undefined when it is gone; it must not become
 * another interface that happens to get the same ifIndex.
 */
export function interfaceReaders(
  ifIndex: number,
  port: () => Interface | undefined,
  { statistics, driver, modules, pfc, queues, named = port => port }: InterfaceSources,
): CounterReader[] {
  const ethernet = ethernetOf(ifIndex, port, statistics, driver)
  const readers: CounterReader[] = [
    ifCountersReader({ port, stats: () => statistics.stats(ifIndex, ['link64']), ethernet }),
    ethernetCountersReader(ethernet),
    lagPortReader(port, statistics),
    portNameReader(() => named(port())),
  ]
  if (modules !== undefined) readers.push(modules.reader(port))
  if (pfc) readers.push(pfcReader(port, name => statistics.pfc(name)))
  if (queues) readers.push(queuesReader(port, () => statistics.qdiscs()))
  return readers
}

/** What an interface's driver counts by the names of IEEE 802.3; undefined, each time, when it does not. */
export type AskEthernet = () => Promise<EthernetStats | undefined> | undefined

/**
 * Most virtual interfaces, and many drivers, count nothing at the MAC. They are found out by the first answer while the
 * interface is up, and not asked again: on a host with thousands that is half of all questions. Those that have no
 * standard statistics are asked for those of the driver's own from then on.
 */
function ethernetOf(
  ifIndex: number,
  port: () => Interface | undefined,
  statistics: InterfaceStatistics,
  driver: DriverStatistics | undefined,
): AskEthernet {
  let standard = true
  let own = driver !== undefined
  const ask = shared(async () => {
    const { adminUp = false, kind, name = '' } = port() ?? {}
    if (standard) {
      const stats = await statistics.ethernet(ifIndex)
      if (counts(stats)) {
        own = false
        return stats
      }
      if (adminUp) standard = false
    }
    // What is not made by a device's driver counts no frames on a cable.
    if (kind !== undefined) own = false
    if (!own || driver === undefined) return undefined
    const stats = await driver.read(ifIndex, name)
    if (!counts(stats) && adminUp) own = false
    return stats
  })
  return () => (standard || own ? ask() : undefined)
}

function counts(stats: EthernetStats | undefined): stats is EthernetStats {
  return stats !== undefined && Object.keys({ ...stats.mac, ...stats.phy }).length > 0
}
