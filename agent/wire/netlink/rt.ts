/** What the rtnetlink messages share: their numbers, the multicast groups, addresses as text. */
import { type Attributes, NetlinkFormatError, parseAttributes } from './attributes.ts'
import { MESSAGE_HEADER, type Message } from './message.ts'

/** Message types of NETLINK_ROUTE (include/uapi/linux/rtnetlink.h). */
export const RTM = {
  newLink: 16,
  delLink: 17,
  getLink: 18,
  newAddress: 20,
  delAddress: 21,
  getAddress: 22,
  newQdisc: 36,
  delQdisc: 37,
  getQdisc: 38,
  newFilter: 44,
  delFilter: 45,
  getFilter: 46,
  newAction: 48,
  delAction: 49,
  getAction: 50,
  newNsid: 88,
  getNsid: 90,
  newStats: 92,
  getStats: 94,
  newVlan: 112,
  delVlan: 113,
  getVlan: 114,
} as const

/** Multicast groups of NETLINK_ROUTE. */
export const RTNLGRP = {
  link: 1,
  tc: 4,
  ipv4Address: 5,
  ipv4Route: 7,
  ipv6Address: 9,
  ipv6Route: 11,
  bridgeVlan: 33,
} as const

/** The attributes that follow the `bytes` bytes of fixed header that the message begins its payload with. */
export function attributesAfter(message: Message, bytes: number): Attributes {
  const { view } = message
  const start = MESSAGE_HEADER + bytes
  if (view.byteLength < start) {
    throw new NetlinkFormatError(
      'wrong-size',
      0,
      `message ${message.type} needs ${start} bytes, has ${view.byteLength}`,
    )
  }
  return parseAttributes(view, start, view.byteLength)
}

/** A hardware address of any length as `02:00:00:00:00:01`; undefined for none. */
export function hardwareAddressText(bytes: Uint8Array | undefined): string | undefined {
  if (bytes === undefined || bytes.length === 0) return undefined
  return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join(':')
}
