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

/**
 * What a packet says, as numbers and places: read again and again into the same object, with nothing allocated. Places
 * are indices of `bytes`. -1 stands for what is not there.
 */
export class PacketFields {
  bytes: Uint8Array = new Uint8Array(0)
  /** Destination MAC address; the source follows. */
  macAt = -1
  /** First VLAN tag: 2 bytes of priority and number, then the EtherType behind it. */
  vlanAt = -1
  vlanCount = 0
  etherType = -1
  /** First label stack entry. */
  mplsAt = -1
  mplsCount = 0
  arpOperation = -1
  /** 4 or 6 where srcAt and dstAt are addresses of that version (of ARP: 4), else 0. */
  ipVersion = 0
  /** The IP header. */
  ipAt = -1
  srcAt = -1
  dstAt = -1
  ipProtocol = -1
  /** What the IP header carries; of a fragment only the first one's. */
  transportAt = -1
  tos = -1
  ttl = -1
  fragmentOffset = -1
  srcPort = -1
  dstPort = -1
  tcpFlags = -1
  icmpType = -1
  icmpCode = -1
  /** Of UDP: the payload, and its length by the UDP header. */
  payloadAt = -1
  payloadLength = -1

  /** Reads a sampled header. `headerProtocol` is that of sampled_header: 1 Ethernet, 11 IPv4, 12 IPv6, 13 MPLS. */
  read(headerProtocol: number, bytes: Uint8Array, at: number, end: number): void {
    switch (headerProtocol) {
      case 1:
        this.readEthernet(bytes, at, end)
        break
      case 11:
        this.readNetwork(ETHERTYPE.ipv4, bytes, at, end)
        break
      case 12:
        this.readNetwork(ETHERTYPE.ipv6, bytes, at, end)
        break
      case 13:
        this.readNetwork(ETHERTYPE.mpls, bytes, at, end)
        break
      default:
        this.#begin(bytes)
    }
  }

  /** Reads an Ethernet frame from its destination address on. */
  readEthernet(bytes: Uint8Array, at: number, end: number): void {
    const LEAST_ETHERTYPE = 0x600
    this.#begin(bytes)
    if (end - at < 14) return
    this.macAt = at
    let type = u16(bytes, at + 12)
    let offset = at + 14
    while ((type === ETHERTYPE.vlan || type === ETHERTYPE.providerVlan) && offset + 4 <= end) {
      if (this.vlanCount++ === 0) this.vlanAt = offset
      type = u16(bytes, offset + 2)
      offset += 4
    }
    if (type >= LEAST_ETHERTYPE) this.#network(type, bytes, offset, end)
  }

  /** Reads what an EtherType announces. */
  readNetwork(etherType: number, bytes: Uint8Array, at: number, end: number): void {
    this.#begin(bytes)
    this.#network(etherType, bytes, at, end)
  }

  #begin(bytes: Uint8Array): void {
    this.bytes = bytes
    this.macAt = -1
    this.vlanAt = -1
    this.vlanCount = 0
    this.etherType = -1
    this.mplsAt = -1
    this.mplsCount = 0
    this.arpOperation = -1
    this.ipVersion = 0
    this.ipAt = -1
    this.srcAt = -1
    this.dstAt = -1
    this.ipProtocol = -1
    this.transportAt = -1
    this.tos = -1
    this.ttl = -1
    this.fragmentOffset = -1
    this.srcPort = -1
    this.dstPort = -1
    this.tcpFlags = -1
    this.icmpType = -1
    this.icmpCode = -1
    this.payloadAt = -1
    this.payloadLength = -1
  }

  #network(etherType: number, bytes: Uint8Array, at: number, end: number): void {
    this.etherType = etherType
    switch (etherType) {
      case ETHERTYPE.ipv4:
        this.#ip4(bytes, at, end)
        break
      case ETHERTYPE.ipv6:
        this.#ip6(bytes, at, end)
        break
      case ETHERTYPE.arp:
        this.#arp(bytes, at, end)
        break
      case ETHERTYPE.mpls:
      case ETHERTYPE.mplsMulticast:
        this.#mpls(bytes, at, end)
        break
    }
  }

  /** MPLS does not say what follows; an IP version in the first half byte is taken at its word. */
  #mpls(bytes: Uint8Array, start: number, end: number): void {
    const BOTTOM_OF_STACK = 1
    this.mplsAt = start
    let at = start
    for (let bottom = false; !bottom && at + 4 <= end; at += 4) {
      this.mplsCount++
      bottom = (bytes[at + 2]! & BOTTOM_OF_STACK) !== 0
    }
    if (at >= end) return
    const version = bytes[at]! >> 4
    if (version === 4) this.#ip4(bytes, at, end)
    if (version === 6) this.#ip6(bytes, at, end)
  }

  #arp(bytes: Uint8Array, at: number, end: number): void {
    const isEthernetAndIp4 =
      at + 28 <= end && u16(bytes, at) === 1 && u16(bytes, at + 2) === 0x0800 && u16(bytes, at + 4) === 0x0604
    if (!isEthernetAndIp4) return
    this.arpOperation = u16(bytes, at + 6)
    this.ipVersion = 4
    this.srcAt = at + 14
    this.dstAt = at + 24
  }

  #ip4(bytes: Uint8Array, at: number, end: number): void {
    const MORE_FRAGMENTS = 0x2000
    if (at + 20 > end || bytes[at]! >> 4 !== 4) return
    const headerLength = (bytes[at]! & 15) * 4
    if (headerLength < 20) return
    const fragment = u16(bytes, at + 6)
    this.ipVersion = 4
    this.ipAt = at
    this.tos = bytes[at + 1]!
    this.ttl = bytes[at + 8]!
    this.ipProtocol = bytes[at + 9]!
    this.srcAt = at + 12
    this.dstAt = at + 16
    if ((fragment & (MORE_FRAGMENTS | 0x1fff)) !== 0) this.fragmentOffset = (fragment & 0x1fff) * 8
    this.#transport(bytes, at + headerLength, end)
  }

  #ip6(bytes: Uint8Array, start: number, end: number): void {
    if (start + 40 > end || bytes[start]! >> 4 !== 6) return
    this.ipVersion = 6
    this.ipAt = start
    this.tos = (u16(bytes, start) >> 4) & 0xff
    this.ttl = bytes[start + 7]!
    this.srcAt = start + 8
    this.dstAt = start + 24
    let next = bytes[start + 6]!
    let at = start + 40
    while (isExtension(next) && at + 8 <= end) {
      if (next === IP_PROTOCOL.fragment) this.fragmentOffset = u16(bytes, at + 2) & 0xfff8
      const length = next === IP_PROTOCOL.fragment ? 8 : (bytes[at + 1]! + 1) * 8
      next = bytes[at]!
      at += length
    }
    this.ipProtocol = next
    this.#transport(bytes, at, end)
  }

  #transport(bytes: Uint8Array, at: number, end: number): void {
    if (this.fragmentOffset > 0 || at + 4 > end) return
    this.transportAt = at
    switch (this.ipProtocol) {
      case IP_PROTOCOL.icmp:
      case IP_PROTOCOL.icmp6:
        this.icmpType = bytes[at]!
        this.icmpCode = bytes[at + 1]!
        break
      case IP_PROTOCOL.tcp:
        this.#ports(bytes, at)
        if (at + 14 <= end) this.tcpFlags = bytes[at + 13]!
        break
      case IP_PROTOCOL.udp:
        this.#ports(bytes, at)
        if (at + 8 <= end) {
          this.payloadAt = at + 8
          this.payloadLength = Math.max(u16(bytes, at + 4) - 8, 0)
        }
        break
      case IP_PROTOCOL.sctp:
        this.#ports(bytes, at)
        break
    }
  }

  #ports(bytes: Uint8Array, at: number): void {
    this.srcPort = u16(bytes, at)
    this.dstPort = u16(bytes, at + 2)
  }
}

function isExtension(next: number): boolean {
  const { hopByHop, routing, fragment, destination } = IP_PROTOCOL
  return next === hopByHop || next === routing || next === fragment || next === destination
}

const fields = new PacketFields()

/** Reads a sampled header. `headerProtocol` is that of sampled_header: 1 Ethernet, 11 IPv4, 12 IPv6, 13 MPLS. */
export function parsePacket(headerProtocol: number, bytes: Uint8Array): Packet {
  fields.read(headerProtocol, bytes, 0, bytes.length)
  const { macAt, vlanAt, etherType, mplsAt, ipVersion, arpOperation } = fields
  const packet: Packet = {}
  if (macAt >= 0) {
    packet.dst_mac = formatMac(bytes, macAt)
    packet.src_mac = formatMac(bytes, macAt + 6)
  }
  if (vlanAt >= 0) {
    packet.vlans = []
    for (let i = 0; i < fields.vlanCount; i++) {
      const tag = u16(bytes, vlanAt + 4 * i)
      packet.vlans.push({ id: tag & 0xfff, priority: tag >> 13 })
    }
  }
  if (etherType >= 0) packet.ether_type = etherType
  if (mplsAt >= 0) {
    packet.mpls_labels = []
    for (let i = 0; i < fields.mplsCount; i++) {
      const at = mplsAt + 4 * i
      packet.mpls_labels.push((u16(bytes, at) << 4) | (bytes[at + 2]! >> 4))
    }
  }
  if (arpOperation >= 0) packet.arp_operation = arpOperation
  if (fields.ipProtocol >= 0) {
    packet.tos = fields.tos
    packet.ttl = fields.ttl
    packet.ip_protocol = fields.ipProtocol
  }
  if (ipVersion !== 0) {
    const format = ipVersion === 4 ? formatIp4 : formatIp6
    packet.src_ip = format(bytes, fields.srcAt)
    packet.dst_ip = format(bytes, fields.dstAt)
  }
  if (fields.fragmentOffset >= 0) packet.fragment_offset = fields.fragmentOffset
  if (fields.srcPort >= 0) {
    packet.src_port = fields.srcPort
    packet.dst_port = fields.dstPort
  }
  if (fields.tcpFlags >= 0) packet.tcp_flags = fields.tcpFlags
  if (fields.icmpType >= 0) {
    packet.icmp_type = fields.icmpType
    packet.icmp_code = fields.icmpCode
  }
  if (fields.payloadAt >= 0) {
    packet.payload_offset = fields.payloadAt
    packet.payload_length = fields.payloadLength
  }
  return packet
}

function u16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!
}

export const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
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

export const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR']

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
