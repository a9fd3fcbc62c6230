/**
 * Links by rtnetlink (include/uapi/linux/if_link.h, net/core/rtnetlink.c): requests as bytes, replies and
 * notifications as values.
 *
 *     ifinfomsg  family u8 · pad u8 · type u16 (ARPHRD) · index i32 · flags u32 · change u32
 */
import type { Attributes } from './attributes.ts'
import { FLAG, MESSAGE_HEADER, type Message, MessageBuilder } from './message.ts'
import { attributesAfter, hardwareAddressText, RTM } from './rt.ts'
import { type LinkStats64, linkStats64 } from './rt-stats.ts'

const LINK_HEADER = 16

const IFLA = {
  address: 1,
  ifname: 3,
  mtu: 4,
  link: 5,
  master: 10,
  operstate: 16,
  linkinfo: 18,
  ifalias: 20,
  stats64: 23,
  extMask: 29,
  promiscuity: 30,
  physSwitchId: 36,
  linkNetnsid: 37,
  physPortName: 38,
  newIfindex: 49,
  permAddress: 54,
  parentDevice: 56,
} as const

const LINKINFO = { kind: 1, data: 2, slaveKind: 4, slaveData: 5 } as const
const VLAN_ID = 1
const BRIDGE_VLAN_FILTERING = 7
const BRIDGE_PORT_STATE = 1
const BOND = { mode: 1, adInfo: 23, adActorSysPriority: 24, adActorSystem: 26 } as const
const BOND_AD_INFO = { aggregator: 1, ports: 2, actorKey: 3, partnerKey: 4, partnerMac: 5 } as const
const BOND_SLAVE = {
  state: 1,
  miiStatus: 2,
  linkFailures: 3,
  permanentAddress: 4,
  aggregator: 6,
  actorState: 7,
  partnerState: 8,
} as const

/** RTEXT_FILTER_SKIP_STATS: without the counters of IPv6, which are half of the message. */
const SKIP_STATS = 8

/** Interface flags (include/uapi/linux/if.h). */
export const IFF = { up: 0x1, loopback: 0x8, pointToPoint: 0x10, running: 0x40, lowerUp: 0x10000 } as const

/** Hardware types of a link (include/uapi/linux/if_arp.h). */
export const ARPHRD = {
  ether: 1,
  infiniband: 32,
  ppp: 512,
  rawip: 519,
  tunnel: 768,
  tunnel6: 769,
  loopback: 772,
  sit: 776,
  ipgre: 778,
  ip6gre: 823,
  none: 0xfffe,
} as const

/** Operational state (RFC 2863, as the kernel numbers it): unknown is what drivers without the notion report. */
export const OPER_STATE = { unknown: 0, down: 2, lowerLayerDown: 3, dormant: 5, up: 6 } as const

/** BOND_MODE_8023AD: the bonding mode that speaks LACP. */
export const BOND_MODE_LACP = 4

/** A bond's own state. The aggregator exists in LACP mode; the actor is told only to CAP_NET_ADMIN. */
export interface BondInfo {
  readonly mode: number
  readonly aggregatorId: number | undefined
  readonly ports: number | undefined
  readonly actorKey: number | undefined
  readonly partnerKey: number | undefined
  readonly partnerMac: string | undefined
  readonly actorSystemPriority: number | undefined
  readonly actorSystem: string | undefined
}

/** A bond's member as the bond sees it. */
export interface BondPortInfo {
  /** 0 active, 1 backup. */
  readonly state: number
  /** 0 up, 1 going down, 2 down, 3 coming back. */
  readonly miiStatus: number
  readonly linkFailures: number
  readonly permanentAddress: string | undefined
  /** In LACP mode: the aggregator, and the state bits of IEEE 802.1AX §6.4.2.3. */
  readonly aggregatorId: number | undefined
  readonly actorState: number | undefined
  readonly partnerState: number | undefined
}

/** One interface as the kernel describes it. */
export interface Link {
  /** 0; others are notifications of a bridge or of IPv6 about a part of the link, also of parts that end. */
  readonly family: number
  readonly ifIndex: number
  readonly name: string
  /** One of ARPHRD, or another number of that registry. */
  readonly hardwareType: number
  /** Bits of IFF. */
  readonly flags: number
  readonly alias: string | undefined
  readonly mtu: number | undefined
  /** Hardware address; for Ethernet 6 bytes. */
  readonly address: string | undefined
  readonly permanentAddress: string | undefined
  /** One of OPER_STATE. */
  readonly operState: number
  /** ifIndex of the bridge, bond, VRF or team that it belongs to. */
  readonly master: number | undefined
  /** ifIndex of the link below (VLAN, macvlan), or of the other end (veth). */
  readonly link: number | undefined
  /** Namespace in which `link` counts, as this one numbers namespaces; undefined: this one. */
  readonly linkNetnsId: number | undefined
  /** What made it: `bridge`, `bond`, `veth`, `vlan`, …; undefined for a device driver's own. */
  readonly kind: string | undefined
  /** Kind of its master. */
  readonly slaveKind: string | undefined
  readonly vlanId: number | undefined
  /** A bridge that minds VLANs. */
  readonly vlanFiltering: boolean
  readonly bond: BondInfo | undefined
  readonly bondPort: BondPortInfo | undefined
  /** STP state of a bridge's port: 3 forwards. */
  readonly bridgePortState: number | undefined
  /** Device that carries it (PCI address, …), for hardware and what simulates it (Linux 5.14). */
  readonly parentDevice: string | undefined
  /** The same hex digits for all ports of one switch; undefined when it is not a switch's port. */
  readonly switchId: string | undefined
  readonly physicalPortName: string | undefined
  readonly promiscuity: number
  /** In the notification of a move to another namespace: the ifIndex that it has there. */
  readonly newIfIndex: number | undefined
}

/** Request for all links of the namespace. */
export function dumpLinks(): Uint8Array<ArrayBuffer> {
  return new MessageBuilder(RTM.getLink, FLAG.dump, new Uint8Array(LINK_HEADER))
    .u32(IFLA.extMask, SKIP_STATS)
    .build()
}

/** Request for one link; the reply is an RTM_NEWLINK. */
export function getLink(ifIndex: number): Uint8Array<ArrayBuffer> {
  const header = new DataView(new ArrayBuffer(LINK_HEADER))
  header.setInt32(4, ifIndex, true)
  return new MessageBuilder(RTM.getLink, 0, new Uint8Array(header.buffer)).build()
}

/** Reads an RTM_NEWLINK or RTM_DELLINK. */
export function readLink(message: Message): Link {
  const attributes = attributesAfter(message, LINK_HEADER)
  const info = attributes.nest(IFLA.linkinfo)
  const kind = info?.text(LINKINFO.kind)
  const data = info?.nest(LINKINFO.data)
  const slaveKind = info?.text(LINKINFO.slaveKind)
  const slaveData = info?.nest(LINKINFO.slaveData)
  return {
    family: message.view.getUint8(MESSAGE_HEADER),
    ifIndex: message.view.getInt32(MESSAGE_HEADER + 4, true),
    name: attributes.text(IFLA.ifname) ?? '',
    hardwareType: message.view.getUint16(MESSAGE_HEADER + 2, true),
    flags: message.view.getUint32(MESSAGE_HEADER + 8, true),
    alias: attributes.text(IFLA.ifalias),
    mtu: attributes.u32(IFLA.mtu),
    address: hardwareAddressText(attributes.bytes(IFLA.address)),
    permanentAddress: hardwareAddressText(attributes.bytes(IFLA.permAddress)),
    operState: attributes.u8(IFLA.operstate) ?? OPER_STATE.unknown,
    master: attributes.u32(IFLA.master),
    link: attributes.u32(IFLA.link),
    linkNetnsId: attributes.i32(IFLA.linkNetnsid),
    kind,
    slaveKind,
    vlanId: kind === 'vlan' ? data?.u16(VLAN_ID) : undefined,
    vlanFiltering: kind === 'bridge' && data?.u8(BRIDGE_VLAN_FILTERING) === 1,
    bond: kind === 'bond' && data !== undefined ? bondInfo(data) : undefined,
    bondPort: slaveKind === 'bond' && slaveData !== undefined ? bondPortInfo(slaveData) : undefined,
    bridgePortState: slaveKind === 'bridge' ? slaveData?.u8(BRIDGE_PORT_STATE) : undefined,
    parentDevice: attributes.text(IFLA.parentDevice),
    switchId: hexText(attributes.bytes(IFLA.physSwitchId)),
    physicalPortName: attributes.text(IFLA.physPortName),
    promiscuity: attributes.u32(IFLA.promiscuity) ?? 0,
    newIfIndex: attributes.i32(IFLA.newIfindex),
  }
}

/** The counters in an RTM_NEWLINK; apart from readLink() because most who follow links do not want them. */
export function readLinkStats(message: Message): LinkStats64 | undefined {
  return linkStats64(attributesAfter(message, LINK_HEADER), IFLA.stats64)
}

function bondInfo(data: Attributes): BondInfo {
  const aggregator = data.nest(BOND.adInfo)
  return {
    mode: data.u8(BOND.mode) ?? 0,
    aggregatorId: aggregator?.u16(BOND_AD_INFO.aggregator),
    ports: aggregator?.u16(BOND_AD_INFO.ports),
    actorKey: aggregator?.u16(BOND_AD_INFO.actorKey),
    partnerKey: aggregator?.u16(BOND_AD_INFO.partnerKey),
    partnerMac: hardwareAddressText(aggregator?.bytes(BOND_AD_INFO.partnerMac)),
    actorSystemPriority: data.u16(BOND.adActorSysPriority),
    actorSystem: hardwareAddressText(data.bytes(BOND.adActorSystem)),
  }
}

function bondPortInfo(data: Attributes): BondPortInfo {
  return {
    state: data.u8(BOND_SLAVE.state) ?? 0,
    miiStatus: data.u8(BOND_SLAVE.miiStatus) ?? 0,
    linkFailures: data.u32(BOND_SLAVE.linkFailures) ?? 0,
    permanentAddress: hardwareAddressText(data.bytes(BOND_SLAVE.permanentAddress)),
    aggregatorId: data.u16(BOND_SLAVE.aggregator),
    actorState: data.u8(BOND_SLAVE.actorState),
    partnerState: data.u16(BOND_SLAVE.partnerState),
  }
}

function hexText(bytes: Uint8Array | undefined): string | undefined {
  return hardwareAddressText(bytes)?.replaceAll(':', '')
}
