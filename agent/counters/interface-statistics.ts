import { resolveFamily } from '../kernel/genl.ts'
import { NETLINK_GENERIC, NETLINK_ROUTE, NetlinkError, NetlinkSocket } from '../kernel/netlink-socket.ts'
import {
  ETHTOOL_FAMILY,
  type EthernetStats,
  getEthernetStats,
  readEthernetStats,
} from '../wire/netlink/ethtool.ts'
import type { Message } from '../wire/netlink/message.ts'
import { getLink, type Link, readLink } from '../wire/netlink/rt-link.ts'
import {
  getStats,
  type InterfaceStats,
  type LinkStats64,
  readStats,
  type StatsWanted,
} from '../wire/netlink/rt-stats.ts'

/**
 * Asks the kernel for the figures of single interfaces, on sockets that serve nothing else. An interface that is gone,
 * and a driver that has no such figures, are no errors: the answer is then undefined.
 */
export class InterfaceStatistics {
  readonly #route: NetlinkSocket
  readonly #ethtool: { readonly socket: NetlinkSocket; readonly family: number } | undefined

  /** `namespace`: name or path of a network namespace; undefined for our own. Needs no privilege. */
  static async open(namespace?: string): Promise<InterfaceStatistics> {
    const route = NetlinkSocket.open(NETLINK_ROUTE, { namespace, strictChecking: true })
    try {
      const socket = NetlinkSocket.open(NETLINK_GENERIC, { namespace })
      const family = await resolveFamily(socket, ETHTOOL_FAMILY).catch((error: Error) => {
        socket.close()
        throw error
      })
      if (family === undefined) socket.close()
      return new InterfaceStatistics(route, family && { socket, family: family.id })
    } catch (error) {
      route.close()
      throw error
    }
  }

  private constructor(
    route: NetlinkSocket,
    ethtool: { readonly socket: NetlinkSocket; readonly family: number } | undefined,
  ) {
    this.#route = route
    this.#ethtool = ethtool
  }

  async stats(ifIndex: number, wanted: StatsWanted): Promise<InterfaceStats | undefined> {
    const operation = `read the statistics of interface ${ifIndex}`
    const reply = await unlessAbsent(this.#route.request(getStats(ifIndex, wanted), operation))
    return reply && readStats(reply)
  }

  /** The kernel's counters of all interfaces, by ifIndex; for people who look, not for polling. */
  async all(): Promise<Map<number, LinkStats64>> {
    const parts = await this.#route.dump(getStats(0, ['link64']), 'read the statistics of all interfaces')
    const known = parts
      .map(readStats)
      .flatMap(({ ifIndex, link64 }) => (link64 ? [[ifIndex, link64] as const] : []))
    return new Map(known)
  }

  /** The link with what its bond says of it. */
  async link(ifIndex: number): Promise<Link | undefined> {
    const operation = `read the link of interface ${ifIndex}`
    const reply = await unlessAbsent(this.#route.request(getLink(ifIndex), operation))
    return reply && readLink(reply)
  }

  /** What the driver counts by the names of IEEE 802.3; often little or nothing (Linux 5.13). */
  async ethernet(ifIndex: number): Promise<EthernetStats | undefined> {
    if (this.#ethtool === undefined) return undefined
    const { socket, family } = this.#ethtool
    const operation = `read the Ethernet statistics of interface ${ifIndex}`
    const reply = await unlessAbsent(socket.request(getEthernetStats(family, ifIndex), operation))
    return reply && readEthernetStats(reply)
  }

  /** Questions under way fail. May be called twice. */
  close(): void {
    this.#route.close()
    this.#ethtool?.socket.close()
  }
}

/** EOPNOTSUPP: the driver has no ethtool operations, or the kernel's ethtool no statistics (before 5.13). */
async function unlessAbsent(reply: Promise<Message | undefined>): Promise<Message | undefined> {
  try {
    return await reply
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
    if (error.code === 'ENODEV' || error.code === 'EOPNOTSUPP') return undefined
    throw error
  }
}
