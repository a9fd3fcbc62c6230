import type { Interface } from '../interfaces.ts'
import type { EthernetStats } from '../wire/netlink/ethtool.ts'
import { ethernetCountersReader } from './ethernet-counters.ts'
import { ifCountersReader } from './if-counters.ts'
import type { InterfaceStatistics } from './interface-statistics.ts'
import { lagPortReader } from './lag-port.ts'
import { portNameReader } from './port-name.ts'
import { type CounterReader, shared } from './reader.ts'

/**
 * The readers of the data source of one interface (0:ifIndex), in the order of their records: those that every
 * receiver knows first. `port` gives the interface as it is now, undefined when it is gone; it must not become
 * another interface that happens to get the same ifIndex.
 */
export function interfaceReaders(
  ifIndex: number,
  port: () => Interface | undefined,
  statistics: InterfaceStatistics,
): CounterReader[] {
  const ethernet = shared(ethernetOf(ifIndex, port, statistics))
  return [
    ifCountersReader({ port, stats: () => statistics.stats(ifIndex, ['link64']), ethernet }),
    ethernetCountersReader(ethernet),
    lagPortReader(port, statistics),
    portNameReader(port),
  ]
}

/**
 * Most virtual interfaces, and many drivers, count nothing at the MAC. They are found out by the first answer while the
 * interface is up, and not asked again: on a host with thousands that is half of all questions.
 */
function ethernetOf(
  ifIndex: number,
  port: () => Interface | undefined,
  statistics: InterfaceStatistics,
): () => Promise<EthernetStats | undefined> {
  let counts = true
  return async () => {
    if (!counts) return undefined
    const isUp = port()?.adminUp ?? false
    const stats = await statistics.ethernet(ifIndex)
    if (stats !== undefined && Object.keys({ ...stats.mac, ...stats.phy }).length > 0) return stats
    if (isUp) counts = false
    return undefined
  }
}
