/** Socket addresses as the kernel lays them out: family in host order, the rest as noted. */
import { parseIp4, parseIp6 } from '../wire/addresses.ts'

export const AF_INET = 2
export const AF_INET6 = 10
export const AF_PACKET = 17

/**
 * struct sockaddr_in (family, port in network order, 4 bytes of address, 8 unused) or sockaddr_in6 (family, port in
 * network order, flow label, 16 bytes of address, scope) of a numeric address; undefined when it is not one. The
 * scope stays 0: a socket bound to a device takes that device's.
 */
export function internetAddress(address: string, port: number): Uint8Array | undefined {
  const ip4 = parseIp4(address)
  const ip = ip4 ?? parseIp6(address)
  if (ip === undefined) return undefined
  const bytes = new Uint8Array(ip4 === undefined ? 28 : 16)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, ip4 === undefined ? AF_INET6 : AF_INET, true)
  view.setUint16(2, port)
  bytes.set(ip, ip4 === undefined ? 8 : 4)
  return bytes
}

/** Family of a socket address. */
export function addressFamily(address: Uint8Array): number {
  return address[0]! | (address[1]! << 8)
}

/**
 * struct sockaddr_ll for bind(): family, protocol (an EtherType in network order), interface, and the 12 bytes that
 * only received addresses fill.
 */
export function packetAddress(protocol: number, ifIndex: number): Uint8Array {
  const bytes = new Uint8Array(20)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, AF_PACKET, true)
  view.setUint16(2, protocol)
  view.setInt32(4, ifIndex, true)
  return bytes
}
