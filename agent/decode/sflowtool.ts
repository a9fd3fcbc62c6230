/**
 * Lines as `sflowtool -l` writes them, for the scripts that read those: FLOW for each flow sample, CNTR for each
 * if_counters. What differs from weir's own view of a packet is kept as it is there: the VLAN is the innermost one, an
 * IPv6 address is written in full, ports are those of TCP, UDP and ICMP (type and code) alone, and the last but one
 * number of an IPv6 packet still counts its link header.
 */

import { IP_PROTOCOL, PacketFields } from '../wire/packet.ts'
import { type ScannedSample, u32 } from './scanner.ts'
import { literal, type TextBuffer } from './text-buffer.ts'

const VLAN_TYPES: readonly number[] = [0x8100, 0x88a8, 0x9100, 0x9200, 0x9300]
const NO_ADDRESS = '-'
const FLOW = literal('FLOW,')
const CNTR = literal('CNTR,')
const HEX = literal(',0x')
const COMMA = 44
const NEW_LINE = 10

/** What sflowtool finds in a sampled header. */
class Decoded {
  hasMacs = false
  macAt = 0
  etherType = 0
  inVlan = 0
  outVlan = 0
  ipAt = 0
  isIp4 = false
  isIp6 = false
}

const decoded = new Decoded()
const fields = new PacketFields()

/** Writes the lines of a sample; those of other kinds have none. */
export function sflowtoolLines(s: ScannedSample, out: TextBuffer): void {
  if (s.kind === 'flow') flowLine(s, out)
  if (s.kind === 'counters' && s.ifCountersAt >= 0) counterLine(s, out)
}

function flowLine(s: ScannedSample, out: TextBuffer): void {
  const { bytes } = s
  decode(s)
  out.put(FLOW)
  address(out, bytes, s.agentAt, s.agentLength)
  out.character(COMMA)
  signed(out, s.input)
  out.character(COMMA)
  signed(out, s.output)
  out.character(COMMA)
  if (decoded.hasMacs) {
    out.bytesInHex(bytes, decoded.macAt + 6, decoded.macAt + 12)
    out.character(COMMA)
    out.bytesInHex(bytes, decoded.macAt, decoded.macAt + 6)
  } else {
    out.ascii('000000000000,000000000000')
  }
  out.put(HEX)
  out.hex(decoded.etherType, 4)
  out.character(COMMA)
  out.number(decoded.inVlan)
  out.character(COMMA)
  out.number(decoded.outVlan)
  out.character(COMMA)
  network(out, bytes, s.headerEnd)
  out.character(COMMA)
  signed(out, s.headerAt < 0 ? 0 : s.frameLength)
  out.character(COMMA)
  signed(
    out,
    s.headerAt < 0 ? 0 : s.frameLength - s.stripped - (decoded.isIp4 ? decoded.ipAt - s.headerAt : 0),
  )
  out.character(COMMA)
  signed(out, s.rate)
  out.character(NEW_LINE)
}

/** Addresses, protocol, TOS, TTL, ports and TCP flags. */
function network(out: TextBuffer, bytes: Uint8Array, end: number): void {
  const { isIp4, isIp6, ipAt } = decoded
  if (!isIp4 && !isIp6) {
    out.ascii(`${NO_ADDRESS},${NO_ADDRESS},0,0x00,0,0,0,0x00`)
    return
  }
  fields.readNetwork(isIp4 ? 0x0800 : 0x86dd, bytes, ipAt, end)
  if (fields.ipVersion === 0) {
    out.ascii(`${NO_ADDRESS},${NO_ADDRESS},0,0x00,0,0,0,0x00`)
    return
  }
  const length = isIp4 ? 4 : 16
  address(out, bytes, fields.srcAt, length)
  out.character(COMMA)
  address(out, bytes, fields.dstAt, length)
  out.character(COMMA)
  out.number(fields.ipProtocol)
  out.put(HEX)
  out.hex(fields.tos, 2)
  out.character(COMMA)
  out.number(fields.ttl)
  let first = 0
  let second = 0
  if (fields.ipProtocol === IP_PROTOCOL.icmp && fields.icmpType >= 0) {
    first = fields.icmpType
    second = fields.icmpCode
  } else if (fields.ipProtocol === IP_PROTOCOL.tcp || fields.ipProtocol === IP_PROTOCOL.udp) {
    first = Math.max(fields.srcPort, 0)
    second = Math.max(fields.dstPort, 0)
  }
  out.character(COMMA)
  out.number(first)
  out.character(COMMA)
  out.number(second)
  out.put(HEX)
  out.hex(Math.max(fields.tcpFlags, 0), 2)
}

function decode(s: ScannedSample): void {
  const { bytes, headerAt: start, headerEnd: end } = s
  decoded.hasMacs = false
  decoded.etherType = 0
  decoded.isIp4 = s.headerProtocol === 11
  decoded.isIp6 = s.headerProtocol === 12
  decoded.ipAt = start
  decoded.inVlan = Math.max(s.sourceVlan, 0)
  decoded.outVlan = Math.max(s.destinationVlan, 0)
  if (start < 0) {
    decoded.isIp4 = false
    decoded.isIp6 = false
    return
  }
  if (s.headerProtocol !== 1 || end - start < 14) return
  decoded.hasMacs = true
  decoded.macAt = start
  let type = (bytes[start + 12]! << 8) | bytes[start + 13]!
  let at = start + 14
  while (VLAN_TYPES.includes(type)) {
    if (end - at < 4) return
    if (s.sourceVlan < 0) decoded.inVlan = ((bytes[at]! << 8) | bytes[at + 1]!) & 0xfff
    type = (bytes[at + 2]! << 8) | bytes[at + 3]!
    at += 4
  }
  const MOST_8023_LENGTH = 1500
  if (type <= MOST_8023_LENGTH) {
    const isSnap = end - at >= 8 && u32(bytes, at) >>> 8 === 0xaaaa03
    if (!isSnap || (bytes[at + 3]! | bytes[at + 4]! | bytes[at + 5]!) !== 0) return
    type = (bytes[at + 6]! << 8) | bytes[at + 7]!
    at += 8
  }
  decoded.etherType = type
  decoded.ipAt = at
  decoded.isIp4 = type === 0x0800 && end - at >= 20 && bytes[at]! >> 4 === 4 && (bytes[at]! & 15) >= 5
  decoded.isIp6 = type === 0x86dd && end - at >= 40 && bytes[at]! >> 4 === 6
}

function counterLine(s: ScannedSample, out: TextBuffer): void {
  const { bytes, ifCountersAt: at } = s
  out.put(CNTR)
  address(out, bytes, s.agentAt, s.agentLength)
  // Places of the words; those of 64 bits are marked by a minus.
  for (const place of IF_COUNTERS) {
    out.character(COMMA)
    if (place < 0) out.number64(bytes, at - place)
    else out.number(u32(bytes, at + place))
  }
  out.character(NEW_LINE)
}

const IF_COUNTERS = [0, 4, -8, 16, 20, -24, 32, 36, 40, 44, 48, 52, -56, 64, 68, 72, 76, 80, 84] as const

/** sflowtool prints these with %d. */
function signed(out: TextBuffer, value: number): void {
  const number = value | 0
  if (number < 0) {
    out.ascii('-')
    out.number(-number)
  } else {
    out.number(number)
  }
}

function address(out: TextBuffer, bytes: Uint8Array, at: number, length: number): void {
  if (length === 4) {
    out.ip4(bytes, at)
  } else if (length === 16) {
    for (let i = 0; i < 16; i += 2) {
      if (i > 0) out.ascii(':')
      out.bytesInHex(bytes, at + i, at + i + 2)
    }
  } else {
    out.ascii(NO_ADDRESS)
  }
}
