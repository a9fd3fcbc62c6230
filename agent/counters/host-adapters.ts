/** host_adapters (0:2001): the interfaces by which others know this host. */

import type { Interface } from '../interfaces.ts'
import { type HostAdapters, hostAdapters } from '../wire/sflow/counters/host.ts'
import type { CounterReader } from './reader.ts'

/** What the rule of hostAdaptersOf() wants to know of an interface. */
export type Adapter = Pick<
  Interface,
  'ifIndex' | 'loopback' | 'adminUp' | 'kind' | 'mac' | 'switchId' | 'linkNetnsId'
>

export function hostAdaptersReader(adapters: () => Iterable<Adapter>): CounterReader<typeof hostAdapters> {
  return { record: hostAdapters, read: async () => hostAdaptersOf(adapters()) }
}

/** More than this would fill a datagram on a host of many VLANs. */
const MOST_ADAPTERS = 32

/**
 * The interfaces that are up and have a MAC address, in the order of their ifIndex, at most 32. Not the ports of a
 * switch, and no veth: its address is known to nobody but its other end. Only in a container, which has no device of a
 * driver, those that lead out are its adapters.
 */
export function hostAdaptersOf(interfaces: Iterable<Adapter>): HostAdapters {
  const all = [...interfaces]
  const hasDevice = all.some(({ kind, loopback }) => kind === undefined && !loopback)
  const chosen = all
    .filter(({ adminUp, switchId }) => adminUp && switchId === undefined)
    .filter(({ kind, linkNetnsId }) => kind !== 'veth' || (!hasDevice && linkNetnsId !== undefined))
    .filter(({ mac }) => mac !== undefined && MAC.test(mac) && mac !== '00:00:00:00:00:00')
    .sort((a, b) => a.ifIndex - b.ifIndex)
    .slice(0, MOST_ADAPTERS)
  return { adapters: chosen.map(({ ifIndex, mac }) => ({ ifIndex, mac_address: [mac!] })) }
}

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/
