/**
 * The interfaces of one network namespace: what they are called, how fast they are, what they belong to, which
 * addresses they have. Read once from rtnetlink and ethtool netlink, then kept by the kernel's notifications.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Logger } from './health/log.ts'
import { resolveFamily } from './kernel/genl.ts'
import { NETLINK_GENERIC, NETLINK_ROUTE, NetlinkError, NetlinkSocket } from './kernel/netlink-socket.ts'
import { inTurns } from './turns.ts'
import { NetlinkFormatError } from './wire/netlink/attributes.ts'
import {
  type Duplex,
  dumpLinkModes,
  ETHTOOL_FAMILY,
  ETHTOOL_GROUP_MONITOR,
  ETHTOOL_REPLY,
  getLinkModes,
  type LinkModes,
  readLinkModes,
} from './wire/netlink/ethtool.ts'
import { genlCommand, type Message } from './wire/netlink/message.ts'
import { RTM, RTNLGRP } from './wire/netlink/rt.ts'
import { dumpAddresses, IFA_FLAG, type InterfaceAddress, readAddress } from './wire/netlink/rt-address.ts'
import { ARPHRD, dumpLinks, IFF, type Link, OPER_STATE, readLink } from './wire/netlink/rt-link.ts'

/** One interface as it is now. A change makes a new object; this one stays as it was. */
export interface Interface {
  readonly ifIndex: number
  readonly name: string
  readonly alias: string | undefined
  /** Hardware address as text; undefined when the interface has none. */
  readonly mac: string | undefined
  /** IANAifType, for `ifType` of the generic counters. */
  readonly ifType: number
  /** ARPHRD number of the kernel. */
  readonly hardwareType: number
  /** What made it: `bridge`, `bond`, `veth`, `vlan`, …; undefined for a device driver's own. */
  readonly kind: string | undefined
  readonly adminUp: boolean
  readonly operUp: boolean
  /** 0 when unknown, as it is without a link. */
  readonly speedBitsPerSecond: number
  readonly duplex: Duplex | undefined
  readonly mtu: number
  readonly promiscuous: boolean
  readonly loopback: boolean
  /** Bridge, bond, team or VRF that it belongs to, and of which kind that is. */
  readonly masterIfIndex: number | undefined
  readonly masterKind: string | undefined
  /** The link below (VLAN, macvlan) or the other end (veth); in namespace `linkNetnsId` if that is defined. */
  readonly linkIfIndex: number | undefined
  readonly linkNetnsId: number | undefined
  readonly vlanId: number | undefined
  /** A bridge that minds VLANs. */
  readonly vlanFiltering: boolean
  /** Hex digits that all ports of one switch share; undefined when it is not a switch's port. */
  readonly switchId: string | undefined
  readonly physicalPortName: string | undefined
  /** The hardware that carries it (PCI address, …). */
  readonly parentDevice: string | undefined
  readonly addresses: readonly InterfaceAddress[]
}

/** `change` tells that at least one field of the interface differs; its ifIndex stays. */
export type InterfaceEvent =
  | { readonly type: 'add'; readonly after: Interface }
  | { readonly type: 'change'; readonly before: Interface; readonly after: Interface }
  | { readonly type: 'remove'; readonly before: Interface }

export interface InterfacesOptions {
  readonly log: Logger
  /** Network namespace, a name or a path; default: our own. */
  readonly namespace?: string | undefined
  /** Receive buffer for notifications, bytes. */
  readonly receiveBytes?: number
}

/** An address that the agent could be known by. */
export interface LocalAddress {
  readonly address: string
  readonly prefixLength: number
  readonly ifIndex: number
  readonly interfaceName: string
  readonly alias: string | undefined
  readonly vlan: boolean
  readonly up: boolean
  readonly permanent: boolean
  /** Scope as rtnetlink numbers it: 0 everywhere, 253 the link, 254 this host. */
  readonly scope: number
}

/** A burst of about a thousand notifications. */
const RECEIVE_BYTES = 4 * 1024 * 1024
const RETRY_MS = 1000
/** Some dozens of links: what is received of a dump in one turn of the event loop. */
const DUMP_BATCH = { slots: 2, batches: 1 } as const
/** About half a minute together. */
const DUMP_TRIES = 40
const DUMP_PAUSE_MS = 50

export class Interfaces {
  /** Times that everything was read again because notifications were lost. */
  resyncs = 0
  /** Messages from the kernel that could not be read. */
  malformed = 0

  readonly #options: InterfacesOptions
  readonly #log: Logger
  readonly #interfaces = new Map<number, Interface>()
  readonly #byName = new Map<string, number>()
  readonly #byLow16 = new Map<number, Set<number>>()
  readonly #links = new Map<number, Link>()
  readonly #addresses = new Map<number, readonly InterfaceAddress[]>()
  readonly #modes = new Map<number, LinkModes>()
  readonly #listeners = new Set<(event: InterfaceEvent) => void>()
  /** ifIndexes whose link modes are being asked for; true: once more after that. */
  readonly #asking = new Map<number, boolean>()
  /** Notifications that wait for a dump to be complete; undefined when none is under way. */
  #waiting: Message[] | undefined
  #lostMeanwhile = false
  #events: NetlinkSocket | undefined
  #control: NetlinkSocket | undefined
  #ethtool: { readonly socket: NetlinkSocket; readonly family: number } | undefined
  #retry: NodeJS.Timeout | undefined
  #highest = 0

  constructor(options: InterfacesOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'interfaces' })
  }

  /**
   * Reads all interfaces and follows their changes from then on. Needs no privilege. Once it is done all interfaces
   * are known with their speed; nobody is told of them as an event.
   */
  async start(): Promise<void> {
    const { namespace, receiveBytes = RECEIVE_BYTES } = this.#options
    this.#control = NetlinkSocket.open(NETLINK_ROUTE, { namespace, strictChecking: true, ...DUMP_BATCH })
    this.#events = NetlinkSocket.open(NETLINK_ROUTE, {
      namespace,
      receiveBytes,
      groups: [RTNLGRP.link, RTNLGRP.ipv4Address, RTNLGRP.ipv6Address],
      onNotification: message =>
        this.#waiting === undefined ? this.#notified(message) : this.#waiting.push(message),
      onOverrun: () => this.#overrun(),
    })
    try {
      await this.#openEthtool()
      await this.#load()
    } catch (error) {
      this.stop()
      throw error
    }
  }

  /** Closes the sockets. What is known stays readable. May be called twice. */
  stop(): void {
    clearTimeout(this.#retry)
    this.#listeners.clear()
    for (const socket of [this.#events, this.#control, this.#ethtool?.socket]) socket?.close()
    this.#events = undefined
    this.#control = undefined
    this.#ethtool = undefined
  }

  /** All interfaces by ifIndex, in the order of their appearance. */
  get byIndex(): ReadonlyMap<number, Interface> {
    return this.#interfaces
  }

  byName(name: string): Interface | undefined {
    const ifIndex = this.#byName.get(name)
    return ifIndex === undefined ? undefined : this.#interfaces.get(ifIndex)
  }

  /** All ifIndexes whose low 16 bits are these; PSAMPLE tells no more of them. */
  byLow16(low: number): ReadonlySet<number> | undefined {
    return this.#byLow16.get(low)
  }

  /** The largest ifIndex there is now; 0 when there is none. */
  get highestIfIndex(): number {
    return this.#highest
  }

  /** True when the interface carries packets without a link header: tunnels, PPP, `tun`, WireGuard. */
  isLayer3(ifIndex: number): boolean {
    const hardwareType = this.#interfaces.get(ifIndex)?.hardwareType
    return hardwareType !== undefined && LAYER3_HARDWARE.has(hardwareType)
  }

  /**
   * Calls `listener` for each change from now on, after the look-ups show it. A new interface is told of at once;
   * its speed follows as a change, usually within a millisecond. An interface that is removed and made again under
   * the same name is another one, with another ifIndex. Returns a function that ends the subscription.
   */
  subscribe(listener: (event: InterfaceEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** All addresses that interfaces have now. */
  localAddresses(): LocalAddress[] {
    return [...this.#interfaces.values()].flatMap(port =>
      port.addresses.map(({ address, prefixLength, scope, flags }) => ({
        address,
        prefixLength,
        ifIndex: port.ifIndex,
        interfaceName: port.name,
        alias: port.alias,
        vlan: port.kind === 'vlan',
        up: port.adminUp,
        permanent: (flags & IFA_FLAG.permanent) !== 0,
        scope,
      })),
    )
  }

  /** Speeds come from ethtool netlink (Linux 5.6). Where the kernel does not have it they stay unknown. */
  async #openEthtool(): Promise<void> {
    const { namespace } = this.#options
    const socket = NetlinkSocket.open(NETLINK_GENERIC, {
      namespace,
      ...DUMP_BATCH,
      onNotification: message => this.#read(() => this.#linkModesNotified(message)),
    })
    const family = await resolveFamily(socket, ETHTOOL_FAMILY)
    if (family === undefined) {
      this.#log.warn('the kernel has no ethtool netlink (Linux 5.6): the speed of interfaces is not known')
      socket.close()
      return
    }
    this.#ethtool = { socket, family: family.id }
    const monitor = family.groups.get(ETHTOOL_GROUP_MONITOR)
    if (monitor !== undefined) socket.join(monitor, `${ETHTOOL_FAMILY} ${ETHTOOL_GROUP_MONITOR}`)
  }

  /**
   * Reads everything, and then what was notified meanwhile. A notification can be older than the dump, but they
   * come in order and each describes the whole link: after the last of them the state is right.
   */
  async #load(): Promise<void> {
    const control = this.#control
    if (control === undefined) return
    const waiting: Message[] = []
    this.#waiting = waiting
    this.#lostMeanwhile = false
    try {
      const links = await this.#dump(control, dumpLinks(), readLink, 'list interfaces')
      const addresses = await this.#dump(control, dumpAddresses(), readAddress, 'list addresses')
      const modes = await this.#dumpLinkModes()
      await this.#replace(links, addresses, modes, () => this.#control === control)
    } finally {
      this.#waiting = undefined
    }
    for (const message of waiting) this.#notified(message)
    if (this.#lostMeanwhile) this.#overrun()
  }

  /** What `read` makes of each entry; those that it cannot read are left out. */
  async #dump<T extends object>(
    socket: NetlinkSocket,
    request: Uint8Array,
    read: (message: Message) => T | undefined,
    operation: string,
  ): Promise<T[]> {
    const known = (message: Message) => {
      let entry: T | undefined
      this.#read(() => {
        entry = read(message)
      })
      return entry
    }
    const entries = await patiently(() => socket.dumpInPlace(request, known, operation))
    return entries.filter(entry => entry !== undefined)
  }

  async #dumpLinkModes(): Promise<LinkModes[]> {
    if (this.#ethtool === undefined) return []
    const { socket, family } = this.#ethtool
    try {
      return await this.#dump(socket, dumpLinkModes(family), readLinkModes, 'list link modes')
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error
      this.#log.warn(`${error.message}: the speed of interfaces is not known`)
      return []
    }
  }

  /** In several turns, as long as `isOpen`; what is notified meanwhile has to wait. */
  async #replace(
    links: readonly Link[],
    addresses: readonly InterfaceAddress[],
    modes: readonly LinkModes[],
    isOpen: () => boolean,
  ): Promise<void> {
    if (!isOpen()) return
    const present = new Map(links.map(link => [link.ifIndex, link]))
    this.#addresses.clear()
    for (const added of addresses) this.#addressAdded(added)
    this.#modes.clear()
    for (const linkModes of modes) this.#modes.set(linkModes.ifIndex, linkModes)
    for (const [ifIndex, link] of this.#links) {
      const now = present.get(ifIndex)
      if (now === undefined || isAnother(link, now)) this.#removed(ifIndex)
    }
    await inTurns(present, ([ifIndex, link]) => {
      if (!isOpen()) return
      this.#links.set(ifIndex, link)
      this.#update(ifIndex)
    })
  }

  #overrun(): void {
    if (this.#waiting !== undefined) {
      this.#lostMeanwhile = true
      return
    }
    this.resyncs++
    this.#log.warn({ resyncs: this.resyncs }, 'notifications were lost: reading all interfaces again')
    this.#load().catch((error: Error) => {
      if (this.#control === undefined) return
      this.#log.error(`${error.message}; trying again`)
      this.#retry = setTimeout(() => this.#overrun(), RETRY_MS)
    })
  }

  #notified(message: Message): void {
    this.#read(() => {
      if (message.type === RTM.newLink) this.#linkNotified(readLink(message))
      else if (message.type === RTM.delLink) {
        const link = readLink(message)
        if (isWhole(link)) this.#removed(link.ifIndex)
      } else if (message.type === RTM.newAddress) {
        const added = readAddress(message)
        if (added === undefined) return
        this.#addressAdded(added)
        this.#update(added.ifIndex)
      } else if (message.type === RTM.delAddress) {
        const ifIndex = this.#addressRemoved(message)
        if (ifIndex !== undefined) this.#update(ifIndex)
      }
    })
  }

  #linkNotified(link: Link): void {
    if (!isWhole(link)) return
    const before = this.#links.get(link.ifIndex)
    this.#links.set(link.ifIndex, link)
    this.#update(link.ifIndex)
    const isAlike =
      before !== undefined && hasCarrier(before) === hasCarrier(link) && before.master === link.master
    if (!isAlike) this.#askLinkModes(link.ifIndex)
    // The speed of a bond is that of its active members together. It looks at them in its own time, after the change of
    // a carrier, and then there is one more notification of the member, which tells nothing new of the member itself.
    for (const master of new Set([before?.master, link.master])) {
      if (master !== undefined) this.#askLinkModes(master)
    }
  }

  #askLinkModes(ifIndex: number): void {
    if (this.#ethtool === undefined) return
    if (this.#asking.has(ifIndex)) {
      // The answer under way may be from before the change.
      this.#asking.set(ifIndex, true)
      return
    }
    const { socket, family } = this.#ethtool
    this.#asking.set(ifIndex, false)
    socket
      .request(getLinkModes(family, ifIndex), `ask for the speed of interface ${ifIndex}`)
      .then(reply => {
        if (reply !== undefined) this.#read(() => this.#linkModes(readLinkModes(reply)))
      })
      .catch((error: NetlinkError) => {
        // EOPNOTSUPP: a driver without the notion; ENODEV: the interface is gone by now.
        this.#modes.delete(ifIndex)
        this.#update(ifIndex)
        this.#log.debug(error.message)
      })
      .finally(() => {
        const again = this.#asking.get(ifIndex)
        this.#asking.delete(ifIndex)
        if (again) this.#askLinkModes(ifIndex)
      })
  }

  #linkModesNotified(message: Message): void {
    if (genlCommand(message.view, 0) === ETHTOOL_REPLY.linkModesNotify)
      this.#linkModes(readLinkModes(message))
  }

  #linkModes(modes: LinkModes): void {
    if (!this.#links.has(modes.ifIndex)) return
    this.#modes.set(modes.ifIndex, modes)
    this.#update(modes.ifIndex)
  }

  #addressAdded(added: InterfaceAddress): void {
    const addresses = this.#addresses.get(added.ifIndex) ?? []
    const known = addresses.findIndex(address => isSameAddress(address, added))
    const now = known < 0 ? [...addresses, added] : addresses.with(known, added)
    this.#addresses.set(added.ifIndex, now)
  }

  /** Gives the ifIndex that the message was about. */
  #addressRemoved(message: Message): number | undefined {
    const removed = readAddress(message)
    if (removed === undefined) return undefined
    const addresses = this.#addresses.get(removed.ifIndex) ?? []
    this.#addresses.set(
      removed.ifIndex,
      addresses.filter(address => !isSameAddress(address, removed)),
    )
    return removed.ifIndex
  }

  /** Describes the interface anew from what is known of it, and tells if that made a difference. */
  #update(ifIndex: number): void {
    const link = this.#links.get(ifIndex)
    if (link === undefined) return
    const after = describe(link, this.#addresses.get(ifIndex) ?? [], this.#modes.get(ifIndex))
    const before = this.#interfaces.get(ifIndex)
    if (before !== undefined && isDeepStrictEqual(before, after)) return
    this.#interfaces.set(ifIndex, after)
    if (before !== undefined && before.name !== after.name) this.#forgetName(before)
    this.#byName.set(after.name, ifIndex)
    if (before !== undefined) {
      this.#tell({ type: 'change', before, after })
      return
    }
    const low = ifIndex & 0xffff
    const alike = this.#byLow16.get(low)
    if (alike === undefined) this.#byLow16.set(low, new Set([ifIndex]))
    else alike.add(ifIndex)
    this.#highest = Math.max(this.#highest, ifIndex)
    this.#tell({ type: 'add', after })
  }

  #removed(ifIndex: number): void {
    this.#links.delete(ifIndex)
    this.#addresses.delete(ifIndex)
    this.#modes.delete(ifIndex)
    const before = this.#interfaces.get(ifIndex)
    if (before === undefined) return
    this.#interfaces.delete(ifIndex)
    this.#forgetName(before)
    const alike = this.#byLow16.get(ifIndex & 0xffff)
    alike?.delete(ifIndex)
    if (alike?.size === 0) this.#byLow16.delete(ifIndex & 0xffff)
    if (ifIndex === this.#highest) {
      this.#highest = 0
      for (const other of this.#interfaces.keys()) this.#highest = Math.max(this.#highest, other)
    }
    this.#tell({ type: 'remove', before })
  }

  #forgetName(port: Interface): void {
    // Another one may have the name by now.
    if (this.#byName.get(port.name) === port.ifIndex) this.#byName.delete(port.name)
  }

  #tell(event: InterfaceEvent): void {
    for (const listener of this.#listeners) listener(event)
  }

  /** Runs `read`; a message that it cannot read is counted and left out. */
  #read(read: () => void): void {
    try {
      read()
    } catch (error) {
      if (!(error instanceof NetlinkFormatError)) throw error
      this.malformed++
      this.#log.warn({ malformed: this.malformed }, `message of the kernel left out: ${error.message}`)
    }
  }
}

/**
 * Repeats a dump whose table does not stand still, as with thousands of interfaces that are being made or come up: it
 * does in a while.
 */
async function patiently<T>(dump: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await dump()
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.code !== 'EINTR' || tries === DUMP_TRIES) throw error
      await sleep(Math.min(tries * DUMP_PAUSE_MS, RETRY_MS))
    }
  }
}

/**
 * False for notifications about a part of a link: those of a bridge, which announce a port that leaves the bridge as
 * RTM_DELLINK, and those of wireless extensions, which consist of the name and an event.
 */
function isWhole(link: Link): boolean {
  return link.family === 0 && link.mtu !== undefined
}

/** The ifIndex is the same, yet after lost notifications it may stand for another interface. */
function isAnother(before: Link, now: Link): boolean {
  return before.kind !== now.kind || (before.name !== now.name && before.address !== now.address)
}

function hasCarrier(link: Link): boolean {
  return (link.flags & IFF.lowerUp) !== 0
}

function isSameAddress(a: InterfaceAddress, b: InterfaceAddress): boolean {
  return a.address === b.address && a.prefixLength === b.prefixLength
}

function describe(
  link: Link,
  addresses: readonly InterfaceAddress[],
  modes: LinkModes | undefined,
): Interface {
  const adminUp = (link.flags & IFF.up) !== 0
  // Drivers without an operational state leave it unknown; then the carrier tells.
  const operUp =
    link.operState === OPER_STATE.up || (link.operState === OPER_STATE.unknown && hasCarrier(link))
  return {
    ifIndex: link.ifIndex,
    name: link.name,
    alias: link.alias,
    mac: link.address,
    ifType: ifTypeOf(link),
    hardwareType: link.hardwareType,
    kind: link.kind,
    adminUp,
    operUp: adminUp && operUp,
    speedBitsPerSecond: (modes?.speedMbps ?? 0) * 1_000_000,
    duplex: modes?.duplex,
    mtu: link.mtu ?? 0,
    promiscuous: link.promiscuity > 0,
    loopback: (link.flags & IFF.loopback) !== 0,
    masterIfIndex: link.master,
    masterKind: link.slaveKind,
    // 0: the link below is gone, or is in a namespace that has no id here.
    linkIfIndex: link.link === 0 ? undefined : link.link,
    linkNetnsId: link.linkNetnsId,
    vlanId: link.vlanId,
    vlanFiltering: link.vlanFiltering,
    switchId: link.switchId,
    physicalPortName: link.physicalPortName,
    parentDevice: link.parentDevice,
    addresses,
  }
}

/** Values of IANAifType-MIB. */
const IF_TYPE = {
  other: 1,
  ethernetCsmacd: 6,
  ppp: 23,
  softwareLoopback: 24,
  propVirtual: 53,
  tunnel: 131,
  l2vlan: 135,
  ieee8023adLag: 161,
  infiniband: 199,
  bridge: 209,
} as const

/** Kinds of link that say more than the hardware type, which is Ethernet for most of them. */
const IF_TYPE_BY_KIND: ReadonlyMap<string, number> = new Map([
  ['bridge', IF_TYPE.bridge],
  ['openvswitch', IF_TYPE.bridge],
  ['bond', IF_TYPE.ieee8023adLag],
  ['team', IF_TYPE.ieee8023adLag],
  ['vlan', IF_TYPE.l2vlan],
  ['dummy', IF_TYPE.propVirtual],
  ['ifb', IF_TYPE.propVirtual],
  ['vrf', IF_TYPE.propVirtual],
  ['macvlan', IF_TYPE.propVirtual],
  ['macvtap', IF_TYPE.propVirtual],
  ['ipvlan', IF_TYPE.propVirtual],
  ['tun', IF_TYPE.propVirtual],
  ['vxlan', IF_TYPE.tunnel],
  ['geneve', IF_TYPE.tunnel],
  ['gretap', IF_TYPE.tunnel],
  ['ip6gretap', IF_TYPE.tunnel],
  ['erspan', IF_TYPE.tunnel],
  ['ip6erspan', IF_TYPE.tunnel],
  ['wireguard', IF_TYPE.tunnel],
])

const IF_TYPE_BY_HARDWARE: ReadonlyMap<number, number> = new Map([
  [ARPHRD.ether, IF_TYPE.ethernetCsmacd],
  [ARPHRD.loopback, IF_TYPE.softwareLoopback],
  [ARPHRD.ppp, IF_TYPE.ppp],
  [ARPHRD.infiniband, IF_TYPE.infiniband],
  [ARPHRD.tunnel, IF_TYPE.tunnel],
  [ARPHRD.tunnel6, IF_TYPE.tunnel],
  [ARPHRD.sit, IF_TYPE.tunnel],
  [ARPHRD.ipgre, IF_TYPE.tunnel],
  [ARPHRD.ip6gre, IF_TYPE.tunnel],
  [ARPHRD.none, IF_TYPE.propVirtual],
])

const LAYER3_HARDWARE: ReadonlySet<number> = new Set([
  ARPHRD.ppp,
  ARPHRD.rawip,
  ARPHRD.tunnel,
  ARPHRD.tunnel6,
  ARPHRD.sit,
  ARPHRD.ipgre,
  ARPHRD.ip6gre,
  ARPHRD.none,
])

function ifTypeOf(link: Link): number {
  const byKind = link.kind === undefined ? undefined : IF_TYPE_BY_KIND.get(link.kind)
  return byKind ?? IF_TYPE_BY_HARDWARE.get(link.hardwareType) ?? IF_TYPE.other
}
