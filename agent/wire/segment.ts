/**
 * Large packets that the kernel handles in one piece and that are many on the wire (GSO, GRO): what one segment of
 * them is. Reads in place and allocates nothing.
 */
import { ETHERTYPE, IP_PROTOCOL } from './packet.ts'

const MAC_ADDRESSES_BYTES = 12
const VLAN_TAG_BYTES = 4
const IP4_LEAST_BYTES = 20
const IP6_BYTES = 40
const UDP_BYTES = 8

/**
 * Octets of the link, network and transport header at the start of each segment: `length` octets of the packet are
 * at `offset`. `hasLinkHeader`: it begins with an Ethernet header. 0 when it is neither TCP nor UDP over IP, or cut
 * too short to tell.
 */
export function headersBytes(view: DataView, offset: number, length: number, hasLinkHeader: boolean): number {
  const end = offset + length
  let at = offset
  if (hasLinkHeader) {
    at += MAC_ADDRESSES_BYTES
    while (at + VLAN_TAG_BYTES <= end && isVlan(view.getUint16(at))) at += VLAN_TAG_BYTES
    at += 2
  }
  if (at + IP4_LEAST_BYTES > end) return 0
  let protocol: number
  if (view.getUint8(at) >> 4 === 4) {
    protocol = view.getUint8(at + 9)
    at += (view.getUint8(at) & 15) * 4
  } else if (view.getUint8(at) >> 4 === 6) {
    protocol = view.getUint8(at + 6)
    at += IP6_BYTES
  } else {
    return 0
  }
  if (protocol === IP_PROTOCOL.udp) at += UDP_BYTES
  else if (protocol === IP_PROTOCOL.tcp && at + 13 <= end) at += (view.getUint8(at + 12) >> 4) * 4
  else return 0
  return at - offset
}

function isVlan(etherType: number): boolean {
  return etherType === ETHERTYPE.vlan || etherType === ETHERTYPE.providerVlan
}

/**
 * Octets of one of `segments` segments of a packet of `frameBytes` octets: headers and `segmentBytes` of payload; the
 * last one has what is left. With headers of unknown length (0) every segment is taken to be of the same size.
 */
export function segmentFrameBytes(
  frameBytes: number,
  segments: number,
  segmentBytes: number,
  headers: number,
  isLast: boolean,
): number {
  if (headers === 0) return Math.ceil(frameBytes / segments)
  return isLast ? frameBytes - (segments - 1) * segmentBytes : headers + segmentBytes
}
