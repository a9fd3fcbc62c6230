/** What the first bytes of a packet say, as far as they go: link, network and transport header. */

import { formatIp4, formatIp6, formatMac } from './addresses.ts'

/** Fields that could be read; a packet that ends early has fewer. */
export interface Packet {
  src_mac?: string
  dst_mac?: string
  /** VLAN tags, outermost first. */
  vlans?: { id: number; priority: number }[]
  /** EtherType behind the tags; absent with an 802.3 length field. */
  ether_type?: number
  /** Labels, top first. */
  mpls_labels?: number[]
  arp_operation?: number
  /** Of ARP the sender's. */
  src_ip?: string
  /** Of ARP the target's. */
  dst_ip?: string
  ip_protocol?: number
  /** Type of service or traffic class. */
  tos?: number
  /** TTL or hop limit. */
  ttl?: number
  /** Of a fragment: where its data belongs, in bytes. 0 for the first one. */
  fragment_offset?: number
  src_port?: number
  dst_port?: number
  tcp_flags?: number
  icmp_type?: number
  icmp_code?: number
  /** Of UDP: where the payload begins in the bytes, and its length by the UDP header. */
  payload_offset?: number
  payload_length?: number
}

export const ETHERTYPE = {
  ipv4: 0x0800,
  arp: 0x0806,
  vlan: 0x8100,
  ipv6: 0x86dd,
  mpls: 0x8847,
  mplsMulticast: 0x8848,
  providerVlan: 0x88a8,
} as const

export const IP_PROTOCOL = {
  hopByHop: 0,
  icmp: 1,
  tcp: 6,
  udp: 17,
  routing: 43,
  fragment: 44,
  icmp6: 58,
  destination: 60,
  sctp: 132,
} as const

/** Reads a sampled header. `headerProtocol` is that of sampled_header: 1 Ethernet, 11 IPv4, 12 IPv6, 13 MPLS. */
export function parsePacket(headerProtocol: number, bytes: Uint8Array): Packet {
  switch (headerProtocol) {
    case 1:
      return parseEthernet(bytes)
    case 11:
      return parseNetwork(ETHERTYPE.ipv4, bytes, 0)
    case 12:
      return parseNetwork(ETHERTYPE.ipv6, bytes, 0)
    case 13:
      return parseNetwork(ETHERTYPE.mpls, bytes, 0)
    default:
      return {}
  }
}

/** Reads an Ethernet frame from its destination address on. */
export function parseEthernet(bytes: Uint8Array): Packet {
  if (bytes.length < 14) return {}
  const packet: Packet = { dst_mac: formatMac(bytes, 0), src_mac: formatMac(bytes, 6) }
  let type = u16(bytes, 12)
  let offset = 14
  while ((type === ETHERTYPE.vlan || type === ETHERTYPE.providerVlan) && offset + 4 <= bytes.length) {
    const tag = u16(bytes, offset)
    packet.vlans ??= []
    packet.vlans.push({ id: tag & 0xfff, priority: tag >> 13 })
    type = u16(bytes, offset + 2)
    offset += 4
  }
  const LEAST_ETHERTYPE = 0x600
  return type < LEAST_ETHERTYPE ? packet : { ...packet, ...parseNetwork(type, bytes, offset) }
}

/** Reads what an EtherType announces, from byte `offset` on. */
export function parseNetwork(etherType: number, bytes: Uint8Array, offset: number): Packet {
  const packet: Packet = { ether_type: etherType }
  switch (etherType) {
    case ETHERTYPE.ipv4:
      parseIp4(bytes, offset, packet)
      break
    case ETHERTYPE.ipv6:
      parseIp6(bytes, offset, packet)
      break
    case ETHERTYPE.arp:
      parseArp(bytes, offset, packet)
      break
    case ETHERTYPE.mpls:
    case ETHERTYPE.mplsMulticast:
      parseMpls(bytes, offset, packet)
      break
  }
  return packet
}

/** MPLS does not say what follows; an IP version in the first half byte is taken at its word. */
function parseMpls(bytes: Uint8Array, start: number, packet: Packet): void {
  const BOTTOM_OF_STACK = 1
  packet.mpls_labels = []
  let offset = start
  for (let bottom = false; !bottom && offset + 4 <= bytes.length; offset += 4) {
    packet.mpls_labels.push((u16(bytes, offset) << 4) | (bytes[offset + 2]! >> 4))
    bottom = (bytes[offset + 2]! & BOTTOM_OF_STACK) !== 0
  }
  if (offset >= bytes.length) return
  const version = bytes[offset]! >> 4
  if (version === 4) parseIp4(bytes, offset, packet)
  if (version === 6) parseIp6(bytes, offset, packet)
}

function parseArp(bytes: Uint8Array, offset: number, packet: Packet): void {
  const ETHERNET_AND_IPV4 = '1 2048 1540'
  if (offset + 28 > bytes.length) return
  if (`${u16(bytes, offset)} ${u16(bytes, offset + 2)} ${u16(bytes, offset + 4)}` !== ETHERNET_AND_IPV4)
    return
  packet.arp_operation = u16(bytes, offset + 6)
  packet.src_ip = formatIp4(bytes, offset + 14)
  packet.dst_ip = formatIp4(bytes, offset + 24)
}

function parseIp4(bytes: Uint8Array, offset: number, packet: Packet): void {
  const MORE_FRAGMENTS = 0x2000
  if (offset + 20 > bytes.length || bytes[offset]! >> 4 !== 4) return
  const headerLength = (bytes[offset]! & 15) * 4
  if (headerLength < 20) return
  const fragment = u16(bytes, offset + 6)
  packet.tos = bytes[offset + 1]!
  packet.ttl = bytes[offset + 8]!
  packet.ip_protocol = bytes[offset + 9]!
  packet.src_ip = formatIp4(bytes, offset + 12)
  packet.dst_ip = formatIp4(bytes, offset + 16)
  if ((fragment & (MORE_FRAGMENTS | 0x1fff)) !== 0) packet.fragment_offset = (fragment & 0x1fff) * 8
  parseTransport(bytes, offset + headerLength, packet)
}

function parseIp6(bytes: Uint8Array, start: number, packet: Packet): void {
  if (start + 40 > bytes.length || bytes[start]! >> 4 !== 6) return
  packet.tos = (u16(bytes, start) >> 4) & 0xff
  packet.ttl = bytes[start + 7]!
  packet.src_ip = formatIp6(bytes, start + 8)
  packet.dst_ip = formatIp6(bytes, start + 24)
  let next = bytes[start + 6]!
  let offset = start + 40
  while (isExtension(next) && offset + 8 <= bytes.length) {
    if (next === IP_PROTOCOL.fragment) packet.fragment_offset = u16(bytes, offset + 2) & 0xfff8
    const length = next === IP_PROTOCOL.fragment ? 8 : (bytes[offset + 1]! + 1) * 8
    next = bytes[offset]!
    offset += length
  }
  packet.ip_protocol = next
  parseTransport(bytes, offset, packet)
}

function isExtension(next: number): boolean {
  const { hopByHop, routing, fragment, destination } = IP_PROTOCOL
  return next === hopByHop || next === routing || next === fragment || next === destination
}

function parseTransport(bytes: Uint8Array, offset: number, packet: Packet): void {
  const isLaterFragment = packet.fragment_offset !== undefined && packet.fragment_offset > 0
  if (isLaterFragment || offset + 4 > bytes.length) return
  switch (packet.ip_protocol) {
    case IP_PROTOCOL.icmp:
    case IP_PROTOCOL.icmp6:
      packet.icmp_type = bytes[offset]!
      packet.icmp_code = bytes[offset + 1]!
      break
    case IP_PROTOCOL.tcp:
      readPorts(bytes, offset, packet)
      if (offset + 14 <= bytes.length) packet.tcp_flags = bytes[offset + 13]!
      break
    case IP_PROTOCOL.udp:
      readPorts(bytes, offset, packet)
      if (offset + 8 <= bytes.length) {
        packet.payload_offset = offset + 8
        packet.payload_length = Math.max(u16(bytes, offset + 4) - 8, 0)
      }
      break
    case IP_PROTOCOL.sctp:
      readPorts(bytes, offset, packet)
      break
  }
}

function readPorts(bytes: Uint8Array, offset: number, packet: Packet): void {
  packet.src_port = u16(bytes, offset)
  packet.dst_port = u16(bytes, offset + 2)
}

function u16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  1: 'ICMP',
  2: 'IGMP',
  6: 'TCP',
  17: 'UDP',
  41: 'IPv6',
  47: 'GRE',
  50: 'ESP',
  58: 'ICMPv6',
  89: 'OSPF',
  112: 'VRRP',
  132: 'SCTP',
}

const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR']

/** One line: `02:00:00:00:00:01 > 02:00:00:00:00:02 198.51.100.7:40000 > 192.0.2.10:23 TCP SYN ttl 64` */
export function packetText(packet: Packet): string {
  const words: string[] = []
  if (packet.src_mac !== undefined) words.push(`${packet.src_mac} > ${packet.dst_mac}`)
  for (const vlan of packet.vlans ?? []) words.push(`vlan ${vlan.id} priority ${vlan.priority}`)
  if (packet.mpls_labels !== undefined) words.push(`mpls ${packet.mpls_labels.join('/')}`)
  if (packet.src_ip !== undefined) {
    words.push(`${endpoint(packet.src_ip, packet.src_port)} > ${endpoint(packet.dst_ip!, packet.dst_port)}`)
  } else if (packet.ether_type !== undefined) {
    words.push(`type 0x${packet.ether_type.toString(16).padStart(4, '0')}`)
  }
  const { arp_operation, ip_protocol, tcp_flags, icmp_type, fragment_offset, tos, ttl } = packet
  if (arp_operation !== undefined)
    words.push(`ARP ${['', 'request', 'reply'][arp_operation] ?? arp_operation}`)
  if (ip_protocol !== undefined) words.push(PROTOCOL_NAMES[ip_protocol] ?? `protocol ${ip_protocol}`)
  if (tcp_flags !== undefined)
    words.push(TCP_FLAGS.filter((_, bit) => (tcp_flags >> bit) & 1).join(',') || 'none')
  if (icmp_type !== undefined) words.push(`type ${icmp_type} code ${packet.icmp_code}`)
  if (fragment_offset !== undefined) words.push(`fragment at ${fragment_offset}`)
  if (tos !== undefined && tos !== 0) words.push(`tos ${tos}`)
  if (ttl !== undefined) words.push(`ttl ${ttl}`)
  return words.join(' ')
}

/** `192.0.2.1:80` or `[2001:db8::1]:80`; the address alone without a port. */
export function endpoint(address: string, port: number | undefined): string {
  if (port === undefined) return address
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}
