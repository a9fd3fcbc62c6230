import { readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { countedDevices, type NetworkDevice } from '../counters/host-net-io.ts'
import type { NamespaceDevices } from '../counters/virt-net-io.ts'
import type { Interface } from '../interfaces.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../kernel/netlink-socket.ts'
import { dumpAddresses, readAddress } from '../wire/netlink/rt-address.ts'
import { dumpLinks, IFF, type Link, readLink } from '../wire/netlink/rt-link.ts'
import { getNamespaceId, readNamespaceId } from '../wire/netlink/rt-netns.ts'

/** The network devices inside the namespace of a container, and which interfaces of ours are their other ends. */

export interface Namespace {
  readonly devices: NamespaceDevices
  readonly adapters: readonly GuestAdapter[]
  /** Addresses that others reach it by. */
  readonly addresses: readonly string[]
}

export interface GuestAdapter {
  /** Our end of the cable; 0 when there is none here. */
  readonly ifIndex: number
  readonly mac: string
}

/** What the interfaces of this host have to tell for that. */
export type HostEnd = Pick<Interface, 'ifIndex' | 'kind' | 'linkIfIndex' | 'linkNetnsId'>

const MOST_ADAPTERS = 32
const SCOPE_UNIVERSE = 0

/**
 * Looks into the network namespace of a process. Undefined when it is ours too. Needs CAP_SYS_ADMIN, and the right to
 * trace the process.
 *
 * Of a veth, both ends know the other's ifIndex, and the id by which their own namespace knows the other's. We ask the
 * kernel for that id of the container's namespace, so the pair is certain, whatever the names and addresses are.
 */
export async function lookIntoNamespace(
  root: string,
  pid: number,
  hostInterfaces: () => Iterable<HostEnd>,
): Promise<Namespace | undefined> {
  const path = join(root, `proc/${pid}/ns/net`)
  const [theirs, ours] = await Promise.all([readlink(path), readlink('/proc/self/ns/net')])
  if (theirs === ours) return undefined
  const slots = 4
  const inside = NetlinkSocket.open(NETLINK_ROUTE, { namespace: path, slots, strictChecking: true })
  const here = NetlinkSocket.open(NETLINK_ROUTE, { slots })
  try {
    const [links, addresses, idOfUs, idOfThem] = await Promise.all([
      inside.dump(dumpLinks(), 'list the interfaces of a container'),
      inside.dump(dumpAddresses(), 'list the addresses of a container'),
      namespaceId(inside, process.pid),
      namespaceId(here, pid),
    ])
    const devices = links.map(message => toDevice(readLink(message)))
    const ends = new Map<number, number>()
    for (const { ifIndex, kind, linkIfIndex, linkNetnsId } of hostInterfaces()) {
      if (kind !== 'veth' || linkIfIndex === undefined || linkNetnsId === undefined) continue
      if (linkNetnsId === idOfThem) ends.set(linkIfIndex, ifIndex)
    }
    return {
      devices: { pid, counted: devicesOf(devices, idOfUs) },
      addresses: addresses
        .map(readAddress)
        .filter(address => address !== undefined && address.scope === SCOPE_UNIVERSE)
        .map(address => address!.address),
      adapters: devices
        .filter(({ adminUp, loopback, mac }) => adminUp && !loopback && mac !== undefined && MAC.test(mac))
        .map(({ ifIndex, mac }) => ({ ifIndex: ends.get(ifIndex) ?? 0, mac: mac! }))
        .slice(0, MOST_ADAPTERS),
    }
  } finally {
    inside.close()
    here.close()
  }
}

const MAC = /^(?!00:00:00:00:00:00)[0-9a-f]{2}(:[0-9a-f]{2}){5}$/

async function namespaceId(socket: NetlinkSocket, pid: number): Promise<number | undefined> {
  const reply = await socket.request(getNamespaceId(pid), 'ask for the id of a network namespace')
  return reply === undefined ? undefined : readNamespaceId(reply)
}

/**
 * Devices whose sum holds each packet of the container once: those whose other end is with us; else, behind a router of
 * its own, those that lead out by the rule for hosts.
 */
export function devicesOf(devices: readonly NetworkDevice[], idOfUs: number | undefined): Set<string> {
  const toUs = devices.filter(({ linkNetnsId }) => linkNetnsId !== undefined && linkNetnsId === idOfUs)
  return toUs.length > 0 ? new Set(toUs.map(({ name }) => name)) : countedDevices(devices)
}

function toDevice(
  link: Link,
): NetworkDevice & { readonly adminUp: boolean; readonly mac: string | undefined } {
  return {
    ifIndex: link.ifIndex,
    name: link.name,
    loopback: (link.flags & IFF.loopback) !== 0,
    adminUp: (link.flags & IFF.up) !== 0,
    kind: link.kind,
    masterIfIndex: link.master,
    linkIfIndex: link.link === 0 ? undefined : link.link,
    linkNetnsId: link.linkNetnsId,
    physicalPortName: link.physicalPortName,
    mac: link.address,
  }
}
