import { resolveFamily } from '../kernel/genl.ts'
import {
  NETLINK_GENERIC,
  NETLINK_ROUTE,
  NetlinkSocket,
  type NetlinkSocketOptions,
  type ReadInPlace,
} from '../kernel/netlink-socket.ts'
import { getPfc, type PfcState, readPfc } from '../wire/netlink/dcb.ts'
import {
  ETHTOOL_FAMILY,
  type EthernetStats,
  getEthernetStats,
  readEthernetStats,
} from '../wire/netlink/ethtool.ts'
import type { QdiscStats } from '../wire/netlink/qdisc-stats.ts'
import { getLink, type Link, readLink } from '../wire/netlink/rt-link.ts'
import {
  getStats,
  getStatsOfEach,
  type InterfaceStats,
  type LinkCounters,
  type LinkStats64,
  readLinkCounters,
  readStats,
  type StatsWanted,
  statsIfIndex,
} from '../wire/netlink/rt-stats.ts'
import { BULK_RECEIVE_BYTES, Questions } from './questions.ts'
import { qdiscsOf } from './queues.ts'
import type { BulkQuestion } from './reader.ts'

/** The counters of links by ifIndex, or why they could not be read. Of one that is gone there is nothing. */
export type Links = ReadonlyMap<number, LinkCounters | Error>

/** The kernel answers at once: what has not come by then is lost, and holds back the questions behind it. */
const SOCKET = { timeoutMs: 2000 } as const

interface Ethtool {
  readonly questions: Questions
  readonly family: number
}

/**
 * Asks the kernel for the figures of single interfaces, on sockets that serve nothing else. An interface that is gone,
 * and a driver that has no such figures, are no errors: the answer is then undefined.
 */
export class InterfaceStatistics {
  readonly #route: Questions
  /** Apart, because a driver may have to ask its firmware. */
  readonly #bridging: Questions
  readonly #qdiscs: ReturnType<typeof qdiscsOf>
  readonly #ethtool: Ethtool | undefined

  /** `namespace`: name or path of a network namespace; undefined for our own. Needs no privilege. */
  static async open(namespace?: string): Promise<InterfaceStatistics> {
    const open = (operation: string, options: NetlinkSocketOptions = {}) =>
      new Questions(
        NetlinkSocket.open(NETLINK_ROUTE, { ...SOCKET, ...options, namespace, strictChecking: true }),
        operation,
      )
    const route = open('read the statistics of interfaces', { receiveBytes: BULK_RECEIVE_BYTES })
    try {
      const bridging = open('read the flow control of interfaces')
      try {
        return new InterfaceStatistics(route, bridging, await openEthtool(namespace))
      } catch (error) {
        bridging.close()
        throw error
      }
    } catch (error) {
      route.close()
      throw error
    }
  }

  private constructor(route: Questions, bridging: Questions, ethtool: Ethtool | undefined) {
    this.#route = route
    this.#bridging = bridging
    this.#ethtool = ethtool
    this.#qdiscs = qdiscsOf(route)
  }

  async stats(ifIndex: number, wanted: StatsWanted): Promise<InterfaceStats | undefined> {
    const reply = await this.#route.ask(getStats(ifIndex, wanted))
    return reply && readStats(reply)
  }

  /** The counters of many links by ifIndex, those of 128 in one instant. */
  readonly links: BulkQuestion<Links> = {
    ask: async indexes => {
      const links = new Map<number, LinkCounters | Error>()
      const question = (some: readonly number[]) => getStatsOfEach(some, ['link64'])
      const take: ReadInPlace = (view, at, end) => {
        const counters = readLinkCounters(view, at, end)
        links.set(statsIfIndex(view, at), counters)
      }
      await this.#route.askAll(indexes, question, take, (ifIndex, error) => links.set(ifIndex, error))
      return links
    },
  }

  /** The kernel's counters of all interfaces, by ifIndex; for people who look, not for polling. */
  async all(): Promise<Map<number, LinkStats64>> {
    const parts = await this.#route.dump(getStats(0, ['link64']))
    const known = parts
      .map(readStats)
      .flatMap(({ ifIndex, link64 }) => (link64 ? [[ifIndex, link64] as const] : []))
    return new Map(known)
  }

  /** The link with what its bond says of it. */
  async link(ifIndex: number): Promise<Link | undefined> {
    const reply = await this.#route.ask(getLink(ifIndex))
    return reply && readLink(reply)
  }

  /** What the driver counts by the names of IEEE 802.3; often little or nothing (Linux 5.13). */
  async ethernet(ifIndex: number): Promise<EthernetStats | undefined> {
    if (this.#ethtool === undefined) return undefined
    const { questions, family } = this.#ethtool
    const reply = await questions.ask(getEthernetStats(family, ifIndex))
    return reply && readEthernetStats(reply)
  }

  /** What priority flow control has counted; undefined when the driver has none. */
  async pfc(name: string): Promise<PfcState | undefined> {
    const reply = await this.#bridging.ask(getPfc(name))
    return reply && readPfc(reply)
  }

  /** What queueing disciplines have counted, by ifIndex. */
  readonly qdiscs = (): Promise<ReadonlyMap<number, readonly QdiscStats[]>> => this.#qdiscs()

  /** Questions under way fail. May be called twice. */
  close(): void {
    this.#route.close()
    this.#bridging.close()
    this.#ethtool?.questions.close()
  }
}

/** Undefined where the kernel has no ethtool netlink (before 5.6). */
async function openEthtool(namespace: string | undefined): Promise<Ethtool | undefined> {
  const socket = NetlinkSocket.open(NETLINK_GENERIC, { ...SOCKET, namespace })
  const family = await resolveFamily(socket, ETHTOOL_FAMILY).catch((error: Error) => {
    socket.close()
    throw error
  })
  if (family !== undefined) {
    return {
      questions: new Questions(socket, 'read the Ethernet statistics of interfaces'),
      family: family.id,
    }
  }
  socket.close()
  return undefined
}
