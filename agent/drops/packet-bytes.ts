/** Reading the first bytes of a dropped packet where they are. */
import type { Drop } from '../samples/drop.ts'
import { HEADER_PROTOCOL } from '../samples/packet-sample.ts'

const ETH_P_IP = 0x0800
const ETH_P_IPV6 = 0x86dd
const VLAN_TAGS = new Set([0x8100, 0x88a8])

/** Offset of the IP header in the sampled one, -1 when there is none. */
export function ipOffset(drop: Drop): number {
  if (drop.headerProtocol !== HEADER_PROTOCOL.ethernet) return 0
  let at = 12
  while (VLAN_TAGS.has(wordAt(drop, at))) at += 4
  const type = wordAt(drop, at)
  return type === ETH_P_IP || type === ETH_P_IPV6 ? at + 2 : -1
}

/** One byte of the header, -1 behind its end. */
export function byteAt(drop: Drop, at: number): number {
  if (at >= drop.headerLength) return -1
  const offset = drop.headerOffset + at
  return (drop.headerWords[offset >> 2]! >>> ((offset & 3) * 8)) & 0xff
}

/** Two bytes of the header in network order; negative behind its end. */
function wordAt(drop: Drop, at: number): number {
  return byteAt(drop, at) * 256 + byteAt(drop, at + 1)
}
