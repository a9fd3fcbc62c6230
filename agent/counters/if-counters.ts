/** if_counters (0:1) of one interface, from its state and its 64-bit link statistics. */

import type { Interface } from '../interfaces.ts'
import { low32 } from '../kernel/files.ts'
import type { EthernetMacStats, EthernetStats } from '../wire/netlink/ethtool.ts'
import type { InterfaceStats, LinkCounters } from '../wire/netlink/rt-stats.ts'
import { type IfCounters, ifCounters } from '../wire/sflow/counters/interface.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { EthernetQuestion } from './interface-readers.ts'
import type { Links } from './interface-statistics.ts'
import type { Answer, BulkQuestion, CounterReader } from './reader.ts'

export interface IfCountersSources {
  /** The interface as it is now; undefined when it is gone. */
  readonly port: () => Interface | undefined
  readonly stats: () => Promise<InterfaceStats | undefined>
  /** What its driver counts at the MAC. */
  readonly ethernet: EthernetQuestion
  /** Gives the same as stats() for many interfaces at once, by ifIndex. */
  readonly links?: BulkQuestion<Links>
}

/** A driver that asks its firmware takes some milliseconds for an answer. */
const PATIENCE_MS = 300

export function ifCountersReader(sources: IfCountersSources): IfCountersReader {
  return new IfCountersReader(sources)
}

/**
 * The structure does not depend on what the MAC counts. When that is not told, or not soon, the last answer stands for
 * it, so that what it counts comes with a later reading. When even the first reading has none, the structure goes
 * without for good: a counter is known in all readings or in none.
 *
 * A class and no closures, as is what else there is for each interface: there may be thousands.
 */
class IfCountersReader implements CounterReader<typeof ifCounters, Links> {
  readonly record = ifCounters
  readonly #sources: IfCountersSources
  #last: Unicast | undefined
  #mac = NO_MAC
  #asksMac = true

  constructor(sources: IfCountersSources) {
    this.#sources = sources
  }

  /** Those that have nothing to ask before are asked for together. */
  get bulk(): IfCountersSources['links'] {
    return this.#asksMac && this.#sources.ethernet.mayCount ? undefined : this.#sources.links
  }

  read(links?: Links): Answer<IfCounters | undefined> {
    if (links === undefined) return this.#ask()
    const port = this.#sources.port()
    const link = links.get(port?.ifIndex ?? 0)
    if (link instanceof Error) throw link
    return this.#counters(port, link)
  }

  async #ask(): Promise<IfCounters | undefined> {
    const { port, stats, ethernet } = this.#sources
    // First the multicasts, then all packets: the difference then errs towards too many.
    if (this.#asksMac && ethernet.mayCount) {
      const answer = await within(PATIENCE_MS, macOf(ethernet.ask()))
      this.#asksMac = answer !== undefined || this.#last !== undefined
      this.#mac = answer ?? this.#mac
    } else this.#asksMac = false
    const link = (await stats())?.link64
    return this.#counters(port(), link)
  }

  #counters(port: Interface | undefined, link: LinkCounters | undefined): IfCounters | undefined {
    if (link === undefined || port === undefined) return undefined
    this.#last = neverBack(unicastOf(link, this.#mac), this.#last)
    return ifCountersOf(port, link, this.#mac, this.#last)
  }
}

const NO_MAC: EthernetMacStats = {}

/** Empty when it counts nothing. */
async function macOf(ethernet: Promise<EthernetStats | undefined>): Promise<EthernetMacStats> {
  return (await ethernet)?.mac ?? NO_MAC
}

/** The answer; undefined when the question fails, or is still under way after that time. */
function within<T>(ms: number, question: Promise<T>): Promise<T | undefined> {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, ms, undefined).unref()
    const end = (answer: T | undefined) => {
      clearTimeout(timer)
      resolve(answer)
    }
    question.then(end, () => end(undefined))
  })
}

/** Unicast packets are what is left of all packets. */
export interface Unicast {
  readonly received: bigint
  readonly sent: bigint
  /** All packets, with multicasts and broadcasts. */
  readonly allReceived: bigint
  readonly allSent: bigint
}

export function unicastOf(link: LinkCounters, mac: EthernetMacStats): Unicast {
  const received = link.rxPackets - (multicastReceived(link, mac) + (mac.broadcastFramesReceivedOk ?? 0n))
  const sent =
    link.txPackets - (mac.multicastFramesTransmittedOk ?? 0n) - (mac.broadcastFramesTransmittedOk ?? 0n)
  // A MAC also counts multicasts that it does not deliver.
  return {
    received: larger(received, 0n),
    sent: larger(sent, 0n),
    allReceived: link.rxPackets,
    allSent: link.txPackets,
  }
}

/**
 * The counters of the difference are not read in one instant, so that it can come out a few packets lower than before.
 * A collector would take that for 2^32 packets: the higher value stays until the kernel's own counter went back.
 */
export function neverBack(now: Unicast, last: Unicast | undefined): Unicast {
  if (last === undefined || now.allReceived < last.allReceived || now.allSent < last.allSent) return now
  return {
    ...now,
    received: larger(now.received, last.received),
    sent: larger(now.sent, last.sent),
  }
}

function larger(a: bigint, b: bigint): bigint {
  if (a < b) return b
  return a
}

/** The link's own counter in drivers that do not count at the MAC. */
function multicastReceived(link: LinkCounters, mac: EthernetMacStats): bigint {
  return mac.multicastFramesReceivedOk ?? link.multicast
}

const DIRECTION = { full: 1, half: 2 } as const
const DIRECTION_UNKNOWN = 0
const ADMIN_UP = 1
const OPER_UP = 2

/**
 * Discards are what had to be dropped though nothing was wrong with it, in the host (rx_dropped) and in the device for
 * want of buffers (rx_missed_errors, which the former does not contain: include/uapi/linux/if_link.h). The kernel
 * counts packets of unknown protocols among the former, so that `ifInUnknownProtos` is not known.
 */
export function ifCountersOf(
  port: Interface,
  link: LinkCounters,
  mac: EthernetMacStats,
  unicast: Unicast,
): IfCounters {
  const known = (counter: bigint | undefined) => (counter === undefined ? UNKNOWN32 : low32(counter))
  return {
    ifIndex: port.ifIndex,
    ifType: port.ifType,
    ifSpeed: BigInt(port.speedBitsPerSecond),
    ifDirection: port.duplex === undefined ? DIRECTION_UNKNOWN : DIRECTION[port.duplex],
    ifStatus: (port.adminUp ? ADMIN_UP : 0) | (port.operUp ? OPER_UP : 0),
    ifInOctets: link.rxBytes,
    ifInUcastPkts: low32(unicast.received),
    ifInMulticastPkts: low32(multicastReceived(link, mac)),
    ifInBroadcastPkts: known(mac.broadcastFramesReceivedOk),
    ifInDiscards: low32(link.rxDropped + link.rxMissedErrors),
    ifInErrors: low32(link.rxErrors),
    ifInUnknownProtos: UNKNOWN32,
    ifOutOctets: link.txBytes,
    ifOutUcastPkts: low32(unicast.sent),
    ifOutMulticastPkts: known(mac.multicastFramesTransmittedOk),
    ifOutBroadcastPkts: known(mac.broadcastFramesTransmittedOk),
    ifOutDiscards: low32(link.txDropped),
    ifOutErrors: low32(link.txErrors),
    ifPromiscuousMode: port.promiscuous ? 1 : 0,
  }
}
