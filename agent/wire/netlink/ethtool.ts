/**
 * ethtool over generic netlink (Linux 5.6; include/uapi/linux/ethtool_netlink.h, net/ethtool/): link modes and
 * the standard statistics. The family's id is looked up at run time (genl-ctrl.ts).
 */

import type { ModulePart } from '../modules/module.ts'
import { type Attributes, NetlinkFormatError, parseAttributes } from './attributes.ts'
import { FLAG, GENL_HEADER, genlRequest, type Message } from './message.ts'
import { attributesAfter } from './rt.ts'

/** Generic netlink family, and the multicast group of its notifications. */
export const ETHTOOL_FAMILY = 'ethtool'
export const ETHTOOL_GROUP_MONITOR = 'monitor'
const ETHTOOL_VERSION = 1

/** Requests and, counted apart from them, replies and notifications. */
const REQUEST = { linkModesGet: 4, moduleEepromGet: 31, statsGet: 32 } as const
export const ETHTOOL_REPLY = { linkModes: 4, linkModesNotify: 5, stats: 33 } as const

const HEADER = { ifIndex: 1, flags: 3 } as const
const COMPACT_BITSETS = 1
const LINKMODES = { header: 1, autonegotiation: 2, speed: 5, duplex: 6, lanes: 9 } as const
const STATS = { header: 2, groups: 3, group: 4 } as const
const GROUP = { id: 2, statistic: 4 } as const
const EEPROM = { header: 1, offset: 2, length: 3, page: 4, bank: 5, address: 6, data: 7 } as const
const BITSET = { noMask: 1, size: 2, value: 4 } as const

const SPEED_UNKNOWN = 0xffffffff
const DUPLEX = ['half', 'full'] as const

/** Groups of statistics (ETHTOOL_STATS_), by number; every kernel that has STATS_GET has these four. */
const STATS_GROUP = { phy: 0, mac: 1 } as const
const STATS_GROUPS_KNOWN = 4

export type Duplex = (typeof DUPLEX)[number]

export interface LinkModes {
  readonly ifIndex: number
  /** Mbit/s; undefined when the driver does not know (no link). */
  readonly speedMbps: number | undefined
  readonly duplex: Duplex | undefined
  readonly autonegotiation: boolean
  readonly lanes: number | undefined
}

/** Statistics of the group eth-mac (IEEE 802.3 §30.3.1), by number. */
const MAC_STATS = [
  'framesTransmittedOk',
  'singleCollisionFrames',
  'multipleCollisionFrames',
  'framesReceivedOk',
  'frameCheckSequenceErrors',
  'alignmentErrors',
  'octetsTransmittedOk',
  'framesWithDeferredTransmissions',
  'lateCollisions',
  'framesAbortedDueToExcessiveCollisions',
  'framesLostDueToInternalTransmitError',
  'carrierSenseErrors',
  'octetsReceivedOk',
  'framesLostDueToInternalReceiveError',
  'multicastFramesTransmittedOk',
  'broadcastFramesTransmittedOk',
  'framesWithExcessiveDeferral',
  'multicastFramesReceivedOk',
  'broadcastFramesReceivedOk',
  'inRangeLengthErrors',
  'outOfRangeLengthField',
  'frameTooLongErrors',
] as const

const PHY_STATS = ['symbolErrorsDuringCarrier'] as const

/** Statistics that the driver implements; the others are not there. */
export type EthernetMacStats = { readonly [K in (typeof MAC_STATS)[number]]?: bigint }
export type EthernetPhyStats = { readonly [K in (typeof PHY_STATS)[number]]?: bigint }

export interface EthernetStats {
  readonly ifIndex: number
  readonly mac: EthernetMacStats
  readonly phy: EthernetPhyStats
}

/** Request for the link modes of one interface. EOPNOTSUPP: the driver has none. */
export function getLinkModes(family: number, ifIndex: number): Uint8Array<ArrayBuffer> {
  return genlRequest(family, REQUEST.linkModesGet, ETHTOOL_VERSION)
    .nest(LINKMODES.header, header => header.u32(HEADER.ifIndex, ifIndex).u32(HEADER.flags, COMPACT_BITSETS))
    .build()
}

/** The same of every interface of the namespace that has link modes, as a dump. */
export function dumpLinkModes(family: number): Uint8Array<ArrayBuffer> {
  return genlRequest(family, REQUEST.linkModesGet, ETHTOOL_VERSION, FLAG.dump)
    .nest(LINKMODES.header, header => header.u32(HEADER.flags, COMPACT_BITSETS))
    .build()
}

/** Reads the reply to getLinkModes() or dumpLinkModes(), or a notification of the group `monitor`. */
export function readLinkModes(message: Message): LinkModes {
  const attributes = attributesAfter(message, GENL_HEADER)
  const speed = attributes.u32(LINKMODES.speed)
  return {
    ifIndex: interfaceOf(attributes, LINKMODES.header),
    speedMbps: speed === SPEED_UNKNOWN ? undefined : speed,
    duplex: DUPLEX[attributes.u8(LINKMODES.duplex) ?? -1],
    autonegotiation: attributes.u8(LINKMODES.autonegotiation) === 1,
    lanes: attributes.u32(LINKMODES.lanes),
  }
}

/** Request for the statistics groups eth-mac and eth-phy of one interface (Linux 5.13). */
export function getEthernetStats(family: number, ifIndex: number): Uint8Array<ArrayBuffer> {
  const groups = (1 << STATS_GROUP.phy) | (1 << STATS_GROUP.mac)
  return genlRequest(family, REQUEST.statsGet, ETHTOOL_VERSION)
    .nest(STATS.header, header => header.u32(HEADER.ifIndex, ifIndex).u32(HEADER.flags, COMPACT_BITSETS))
    .nest(STATS.groups, set =>
      set
        .flag(BITSET.noMask)
        .u32(BITSET.size, STATS_GROUPS_KNOWN)
        .bytes(BITSET.value, Uint8Array.of(groups, 0, 0, 0)),
    )
    .build()
}

/** Reads the reply to getEthernetStats(). */
export function readEthernetStats(message: Message): EthernetStats {
  const attributes = attributesAfter(message, GENL_HEADER)
  const groups = attributes
    .all(STATS.group)
    .map(group => parseAttributes(attributes.view, group.start, group.end))
  return {
    ifIndex: interfaceOf(attributes, STATS.header),
    mac: statistics(groups, STATS_GROUP.mac, MAC_STATS),
    phy: statistics(groups, STATS_GROUP.phy, PHY_STATS),
  }
}

/**
 * Request for a part of the memory of the module in an interface (Linux 5.13; before, and where the driver can do no
 * better, only the pages that its older interface has). Needs CAP_NET_ADMIN. At most 128 bytes, within half a page.
 */
export function getModuleEeprom(family: number, ifIndex: number, part: ModulePart): Uint8Array<ArrayBuffer> {
  return genlRequest(family, REQUEST.moduleEepromGet, ETHTOOL_VERSION)
    .nest(EEPROM.header, header => header.u32(HEADER.ifIndex, ifIndex))
    .u32(EEPROM.offset, part.offset)
    .u32(EEPROM.length, part.length)
    .u8(EEPROM.page, part.page)
    .u8(EEPROM.bank, part.bank)
    .u8(EEPROM.address, part.address)
    .build()
}

/** Reads the reply to getModuleEeprom(): a window on the bytes of the module. */
export function readModuleEeprom(message: Message): Uint8Array {
  const data = attributesAfter(message, GENL_HEADER).bytes(EEPROM.data)
  if (data === undefined) throw new NetlinkFormatError('missing', 0, 'no data in an answer of a module')
  return data
}

/** The kernel puts each statistic into a nest of its own, and leaves out those that the driver does not fill. */
function statistics<Name extends string>(
  groups: readonly Attributes[],
  id: number,
  names: readonly Name[],
): { readonly [K in Name]?: bigint } {
  const values: { [K in Name]?: bigint } = {}
  for (const group of groups) {
    if (group.u32(GROUP.id) !== id) continue
    for (const nest of group.all(GROUP.statistic)) {
      const statistic = parseAttributes(group.view, nest.start, nest.end)
      for (const { type } of statistic.list) {
        const name = names[type]
        if (name !== undefined) values[name] = statistic.u64(type)!
      }
    }
  }
  return values
}

function interfaceOf(attributes: Attributes, header: number): number {
  const ifIndex = attributes.nest(header)?.u32(HEADER.ifIndex)
  if (ifIndex === undefined) throw new NetlinkFormatError('missing', 0, 'no interface in an ethtool message')
  return ifIndex
}
