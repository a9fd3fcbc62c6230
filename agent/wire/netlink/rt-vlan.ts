/**
 * VLANs of bridge ports by rtnetlink (include/uapi/linux/if_bridge.h, net/bridge/br_vlan.c, Linux 5.6).
 *
 *     br_vlan_msg       family u8 · reserved u8 · reserved u16 · ifindex u32
 *     bridge_vlan_info  flags u16 · vid u16
 */
import type { Attributes } from './attributes.ts'
import { NetlinkFormatError, parseAttributes } from './attributes.ts'
import { FLAG, MESSAGE_HEADER, type Message, MessageBuilder } from './message.ts'
import { attributesAfter, RTM } from './rt.ts'

const VLAN_HEADER = 8
const AF_BRIDGE = 7
const ENTRY = 1
const ENTRY_INFO = 1
const ENTRY_RANGE = 2
const FLAG_PVID = 2
const FLAG_UNTAGGED = 4
const VIDS = 4096

/** VLANs `first` to `last` of one bridge port, inclusive. */
export interface PortVlans {
  readonly first: number
  readonly last: number
  /** Frames that come in without a tag are of this VLAN. */
  readonly pvid: boolean
  /** Its frames leave the port without a tag. */
  readonly untagged: boolean
}

/** Request for the VLANs of all bridge ports of the namespace, the bridges themselves among them. */
export function dumpVlans(): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(VLAN_HEADER)
  header[0] = AF_BRIDGE
  return new MessageBuilder(RTM.getVlan, FLAG.dump, header).build()
}

/** Reads an RTM_NEWVLAN: a port, and VLANs that it is a member of. */
export function readVlans(message: Message): { readonly ifIndex: number; readonly vlans: PortVlans[] } {
  const attributes = attributesAfter(message, VLAN_HEADER)
  const vlans = attributes
    .all(ENTRY)
    .map(({ start, end }) => readEntry(parseAttributes(message.view, start, end), start))
  return { ifIndex: message.view.getUint32(MESSAGE_HEADER + 4, true), vlans }
}

function readEntry(entry: Attributes, start: number): PortVlans {
  const info = entry.bytes(ENTRY_INFO)
  if (info === undefined || info.length < 4) {
    throw new NetlinkFormatError(
      'wrong-size',
      start,
      `VLAN entry with ${info?.length ?? 0} bytes of information`,
    )
  }
  const view = new DataView(info.buffer, info.byteOffset, info.length)
  const flags = view.getUint16(0, true)
  const first = view.getUint16(2, true)
  const last = entry.u16(ENTRY_RANGE) ?? first
  if (first >= VIDS || last >= VIDS || last < first) {
    throw new NetlinkFormatError('out-of-range', start, `VLANs ${first} to ${last}`)
  }
  return { first, last, pvid: (flags & FLAG_PVID) !== 0, untagged: (flags & FLAG_UNTAGGED) !== 0 }
}
