/**
 * Interface statistics by RTM_GETSTATS (Linux 4.7; include/uapi/linux/if_link.h): cheaper than a link with
 * everything else in it, and the only source of the LACP counters.
 *
 *     if_stats_msg  family u8 · pad u8 · pad u16 · ifindex u32 · filter_mask u32
 */
import {
  ATTRIBUTE_HEADER,
  type Attributes,
  align4,
  attributeLength,
  attributeType,
  NetlinkFormatError,
} from './attributes.ts'
import { FLAG, MESSAGE_HEADER, type Message, messageType } from './message.ts'
import { attributesAfter, RTM } from './rt.ts'

const STATS_HEADER = 12
const STATS = { link64: 1, linkXstats: 2, linkXstatsSlave: 3, offloadXstats: 4 } as const
const OFFLOAD_CPU_HIT = 1
/** LINK_XSTATS_TYPE_BOND, and the one kind of statistics in it. */
const XSTATS_BOND = 2
const BOND_3AD = 1

/** struct rtnl_link_stats64, in the kernel's order. All since the interface was made; 64 bits. */
const LINK_STATS64 = [
  'rxPackets',
  'txPackets',
  'rxBytes',
  'txBytes',
  'rxErrors',
  'txErrors',
  'rxDropped',
  'txDropped',
  /** Multicast packets received. */
  'multicast',
  'collisions',
  'rxLengthErrors',
  'rxOverErrors',
  'rxCrcErrors',
  'rxFrameErrors',
  'rxFifoErrors',
  'rxMissedErrors',
  'txAbortedErrors',
  'txCarrierErrors',
  'txFifoErrors',
  'txHeartbeatErrors',
  'txWindowErrors',
  'rxCompressed',
  'txCompressed',
  /** Since 4.6. */
  'rxNoHandler',
  /** Since 5.19. */
  'rxOtherHostDropped',
] as const

/** Bytes from the first of them to each that LinkCounters has. */
const PLACE = {
  rxPackets: 0,
  txPackets: 8,
  rxBytes: 16,
  txBytes: 24,
  rxErrors: 32,
  txErrors: 40,
  rxDropped: 48,
  txDropped: 56,
  multicast: 64,
  rxMissedErrors: 120,
} as const satisfies Record<keyof LinkCounters, number>

/** An object with all of them to begin with, so that those made of it are alike. */
const NO_STATS64 = Object.fromEntries(LINK_STATS64.map(name => [name, undefined]))

/** The first 23 counters are in every kernel. */
const LINK_STATS64_LEAST = 23

type RequiredCounter = Exclude<(typeof LINK_STATS64)[number], 'rxNoHandler' | 'rxOtherHostDropped'>

/** The kernel's counters of one interface; those that it does not know are undefined. */
export type LinkStats64 = { readonly [K in RequiredCounter]: bigint } & {
  readonly rxNoHandler: bigint | undefined
  readonly rxOtherHostDropped: bigint | undefined
}

/** Of them, those that the generic counters of an interface are made of. */
export type LinkCounters = Pick<
  LinkStats64,
  | 'rxPackets'
  | 'txPackets'
  | 'rxBytes'
  | 'txBytes'
  | 'rxErrors'
  | 'txErrors'
  | 'rxDropped'
  | 'txDropped'
  | 'multicast'
  | 'rxMissedErrors'
>

/** LACP counters of a bond or of one of its ports (BOND_3AD_STAT_, Linux 5.1), by their attribute number. */
const LACP_STATS = [
  'lacpduRx',
  'lacpduTx',
  'lacpduUnknownRx',
  'lacpduIllegalRx',
  'markerRx',
  'markerTx',
  'markerResponseRx',
  'markerResponseTx',
  'markerUnknownRx',
] as const

export type LacpStats = { readonly [K in (typeof LACP_STATS)[number]]: bigint | undefined }

export interface InterfaceStats {
  readonly ifIndex: number
  readonly link64: LinkStats64 | undefined
  /** Of link64, what the CPU saw of a switch port: the rest was forwarded by the hardware. */
  readonly cpu64: LinkStats64 | undefined
  /** LACP counters of the bond, when the interface is one. */
  readonly bond: LacpStats | undefined
  /** LACP counters of the port, when the interface is member of a bond. */
  readonly bondPort: LacpStats | undefined
}

/** Which statistics to ask for. */
export type StatsWanted = readonly (keyof typeof STATS)[]

/** Request for the statistics of one interface, or a dump of all when it is 0; each reply is an RTM_NEWSTATS. */
export function getStats(ifIndex: number, wanted: StatsWanted): Uint8Array<ArrayBuffer> {
  return getStatsOfEach([ifIndex], wanted)
}

/** Requests for the statistics of several interfaces, one behind the other. */
export function getStatsOfEach(ifIndexes: readonly number[], wanted: StatsWanted): Uint8Array<ArrayBuffer> {
  let mask = 0
  for (const name of wanted) mask |= 1 << (STATS[name] - 1)
  // As words and not by a builder: a host with thousands of interfaces asks thousands of times.
  const words = new Uint32Array(ifIndexes.length * REQUEST_WORDS)
  for (let i = 0, at = 0; i < ifIndexes.length; i++, at += REQUEST_WORDS) {
    words[at] = REQUEST_WORDS * 4
    words[at + 1] = RTM.getStats | (FLAG.request << 16)
    words[at + 5] = ifIndexes[i]!
    words[at + 6] = mask
  }
  return new Uint8Array(words.buffer)
}

const REQUEST_WORDS = (MESSAGE_HEADER + STATS_HEADER) / 4

/** Reads an RTM_NEWSTATS. */
export function readStats(message: Message): InterfaceStats {
  const attributes = attributesAfter(message, STATS_HEADER)
  return {
    ifIndex: message.view.getUint32(MESSAGE_HEADER + 4, true),
    link64: linkStats64(attributes, STATS.link64),
    cpu64: cpuStats(attributes.nest(STATS.offloadXstats)),
    bond: lacpStats(attributes.nest(STATS.linkXstats)),
    bondPort: lacpStats(attributes.nest(STATS.linkXstatsSlave)),
  }
}

/** The interface that the RTM_NEWSTATS at byte `at` is about. */
export function statsIfIndex(view: DataView, at: number): number {
  return view.getUint32(at + MESSAGE_HEADER + 4, true)
}

/** Of the RTM_NEWSTATS in bytes `start` to `end` the counters of the link and nothing else: made for thousands of them. */
export function readLinkCounters(view: DataView, start: number, end: number): LinkCounters {
  const attributes = start + MESSAGE_HEADER + STATS_HEADER
  const type = messageType(view, start)
  if (type !== RTM.newStats || end < attributes) {
    throw new NetlinkFormatError(
      'wrong-size',
      start,
      `message ${type} of ${end - start} bytes is no statistics`,
    )
  }
  for (let at = attributes, length = 0; at < end; at += align4(length)) {
    length = attributeLength(view, at, end)
    if (attributeType(view, at) !== STATS.link64) continue
    if (length - ATTRIBUTE_HEADER < 8 * LINK_STATS64_LEAST) {
      throw new NetlinkFormatError('wrong-size', at, `link statistics of ${length - ATTRIBUTE_HEADER} bytes`)
    }
    const first = at + ATTRIBUTE_HEADER
    return {
      rxPackets: view.getBigUint64(first + PLACE.rxPackets, true),
      txPackets: view.getBigUint64(first + PLACE.txPackets, true),
      rxBytes: view.getBigUint64(first + PLACE.rxBytes, true),
      txBytes: view.getBigUint64(first + PLACE.txBytes, true),
      rxErrors: view.getBigUint64(first + PLACE.rxErrors, true),
      txErrors: view.getBigUint64(first + PLACE.txErrors, true),
      rxDropped: view.getBigUint64(first + PLACE.rxDropped, true),
      txDropped: view.getBigUint64(first + PLACE.txDropped, true),
      multicast: view.getBigUint64(first + PLACE.multicast, true),
      rxMissedErrors: view.getBigUint64(first + PLACE.rxMissedErrors, true),
    }
  }
  throw new NetlinkFormatError('missing', start, 'statistics without those of the link')
}

function cpuStats(offload: Attributes | undefined): LinkStats64 | undefined {
  return offload === undefined ? undefined : linkStats64(offload, OFFLOAD_CPU_HIT)
}

/** The struct rtnl_link_stats64 in attribute `type`; its length tells how many counters the kernel has. */
export function linkStats64(attributes: Attributes, type: number): LinkStats64 | undefined {
  const bytes = attributes.bytes(type)
  if (bytes === undefined) return undefined
  const present = bytes.length >> 3
  if (present < LINK_STATS64_LEAST) {
    const at = bytes.byteOffset - attributes.view.byteOffset - ATTRIBUTE_HEADER
    throw new NetlinkFormatError('wrong-size', at, `link statistics of ${bytes.length} bytes`)
  }
  const counters = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const stats: Record<string, bigint | undefined> = { ...NO_STATS64 }
  for (let index = 0; index < LINK_STATS64.length && index < present; index++) {
    stats[LINK_STATS64[index]!] = counters.getBigUint64(8 * index, true)
  }
  return stats as LinkStats64
}

function lacpStats(xstats: Attributes | undefined): LacpStats | undefined {
  const counters = xstats?.nest(XSTATS_BOND)?.nest(BOND_3AD)
  if (counters === undefined) return undefined
  return Object.fromEntries(LACP_STATS.map((name, type) => [name, counters.u64(type)])) as LacpStats
}
