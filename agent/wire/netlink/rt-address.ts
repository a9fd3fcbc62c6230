/**
 * Addresses of interfaces by rtnetlink (include/uapi/linux/if_addr.h).
 *
 *     ifaddrmsg  family u8 · prefixlen u8 · flags u8 · scope u8 · index u32
 */
import { formatIp4, formatIp6 } from '../addresses.ts'
import { ATTRIBUTE_HEADER, NetlinkFormatError } from './attributes.ts'
import { FLAG, MESSAGE_HEADER, type Message, MessageBuilder } from './message.ts'
import { attributesAfter, RTM } from './rt.ts'

const ADDRESS_HEADER = 8
const AF_INET = 2
const AF_INET6 = 10
const IFA = { address: 1, local: 2, flags: 8 } as const

/** Flags of an address. */
export const IFA_FLAG = {
  /** IPv4: not the first of its network. */
  secondary: 0x1,
  /** Duplicate address detection found another owner. */
  dadFailed: 0x8,
  deprecated: 0x20,
  tentative: 0x40,
  /** Not from autoconfiguration with a lifetime. */
  permanent: 0x80,
} as const

export interface InterfaceAddress {
  readonly ifIndex: number
  /** The interface's own address as text; on a point-to-point link not the peer's. */
  readonly address: string
  readonly prefixLength: number
  /** RT_SCOPE_… of rtnetlink.h: 0 universe, 200 site, 253 link, 254 host, or between; smaller reaches farther. */
  readonly scope: number
  /** Bits of IFA_FLAG. */
  readonly flags: number
}

/** Request for all IPv4 and IPv6 addresses of the namespace. */
export function dumpAddresses(): Uint8Array<ArrayBuffer> {
  return new MessageBuilder(RTM.getAddress, FLAG.dump, new Uint8Array(ADDRESS_HEADER)).build()
}

/** Reads an RTM_NEWADDR or RTM_DELADDR; undefined for a family that is neither IPv4 nor IPv6. */
export function readAddress(message: Message): InterfaceAddress | undefined {
  const attributes = attributesAfter(message, ADDRESS_HEADER)
  const { view } = message
  // IFA_LOCAL is the own address where both are there; IFA_ADDRESS then is the peer's.
  const bytes = attributes.bytes(IFA.local) ?? attributes.bytes(IFA.address)
  const family = view.getUint8(MESSAGE_HEADER)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  if (bytes === undefined) throw new NetlinkFormatError('missing', 0, 'no address in an address message')
  if (bytes.length !== (family === AF_INET ? 4 : 16)) {
    const at = bytes.byteOffset - view.byteOffset - ATTRIBUTE_HEADER
    throw new NetlinkFormatError('wrong-size', at, `address of ${bytes.length} bytes in family ${family}`)
  }
  return {
    ifIndex: view.getUint32(MESSAGE_HEADER + 4, true),
    address: family === AF_INET ? formatIp4(bytes) : formatIp6(bytes),
    prefixLength: view.getUint8(MESSAGE_HEADER + 1),
    scope: view.getUint8(MESSAGE_HEADER + 3),
    flags: attributes.u32(IFA.flags) ?? view.getUint8(MESSAGE_HEADER + 2),
  }
}
