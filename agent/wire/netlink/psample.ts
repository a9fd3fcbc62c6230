/**
 * PSAMPLE messages (include/uapi/linux/psample.h, net/psample/psample.c), read in place: the values go into a
 * record that the caller owns and reuses, the packet stays where it is. All integers are in host order except
 * those of the tunnel. Attribute 0 is a real attribute here: the input interface.
 */

import { ABSENT, type Tunnel } from '../../samples/packet-sample.ts'

/** Generic netlink family, and the multicast group of the samples. */
export const PSAMPLE_FAMILY = 'psample'
export const PSAMPLE_GROUP_PACKETS = 'packets'

const CMD_SAMPLE = 0

const ATTR = {
  iifindex: 0,
  oifindex: 1,
  origsize: 2,
  sampleGroup: 3,
  groupSeq: 4,
  sampleRate: 5,
  data: 6,
  tunnel: 8,
  outTc: 10,
  outTcOcc: 11,
  latency: 12,
  timestamp: 13,
  proto: 14,
  userCookie: 15,
  sampleProbability: 16,
} as const

const NLMSG_HEADER_BYTES = 16
const GENL_HEADER_BYTES = 4
const TYPE_MASK = 0x3fff
const UINT32_MAX = 0xffffffff

/** A sample as the kernel sent it; filled again by each call of readPsample(). */
export interface PsampleMessage {
  /** Input interface as sent: modulo 65536 up to kernel 7.2; 0 when absent. */
  inputIfIndex: number
  /** Output interface, likewise. */
  outputIfIndex: number
  /** Bytes of the attribute that carried them, 2 or 4; 0 when absent. 2 means: modulo 65536. */
  inputIfIndexBytes: number
  outputIfIndexBytes: number
  /** Octets of the packet from its link header on, without FCS and detached VLAN tag. */
  originalSize: number
  group: number
  /** Per group; +1 for each sample the kernel made. */
  groupSequence: number
  /** 1 in N. A probability (flag SAMPLE_PROBABILITY) is turned into the nearest N. */
  rate: number
  /** Byte offset and length of the packet's first bytes; length 0 when absent. */
  dataOffset: number
  dataLength: number
  /** Traffic class at egress, -1 when absent. */
  outTc: number
  /** Bytes queued in that class, at most 2^32-1; -1 when absent. */
  outTcOccupancy: number
  /** Nanoseconds in the device, at most 2^32-1; -1 when absent. */
  latency: number
  /** Nanoseconds since 1970 as two words; both 0 when absent. */
  timestampHigh: number
  timestampLow: number
  /** EtherType of the packet, 0 when absent. */
  protocol: number
  /** Byte offset and length of the tunnel key's attributes; length 0 when absent. See readTunnel(). */
  tunnelOffset: number
  tunnelLength: number
  /** Byte offset and length of the cookie of the tc or OVS action; length 0 when absent. */
  cookieOffset: number
  cookieLength: number
  /** What is wrong with the message when readPsample() returns false, and the byte offset of it. */
  problem: string
  problemOffset: number
}

export function emptyPsampleMessage(): PsampleMessage {
  return {
    inputIfIndex: 0,
    outputIfIndex: 0,
    inputIfIndexBytes: 0,
    outputIfIndexBytes: 0,
    originalSize: 0,
    group: 0,
    groupSequence: 0,
    rate: 0,
    dataOffset: 0,
    dataLength: 0,
    outTc: -1,
    outTcOccupancy: -1,
    latency: -1,
    timestampHigh: 0,
    timestampLow: 0,
    protocol: 0,
    tunnelOffset: 0,
    tunnelLength: 0,
    cookieOffset: 0,
    cookieLength: 0,
    problem: '',
    problemOffset: 0,
  }
}

/** Which of the attributes that every sample has were seen. */
const SEEN = { origsize: 1, group: 2, sequence: 4, rate: 8, all: 15 } as const

/**
 * Reads the netlink message at bytes `start` to `received` of `view` into `message`. Returns false when it cannot be
 * trusted (cut short, an attribute of the wrong size, one missing that every sample has, a packet longer than
 * its own size): `message.problem` says what, `message.problemOffset` where. Attributes not known here are
 * stepped over. Never throws.
 */
export function readPsample(
  view: DataView,
  start: number,
  received: number,
  message: PsampleMessage,
): boolean {
  message.inputIfIndex = 0
  message.outputIfIndex = 0
  message.inputIfIndexBytes = 0
  message.outputIfIndexBytes = 0
  message.dataLength = 0
  message.outTc = -1
  message.outTcOccupancy = -1
  message.latency = -1
  message.timestampHigh = 0
  message.timestampLow = 0
  message.protocol = 0
  message.tunnelLength = 0
  message.cookieLength = 0
  let seen = 0
  let isProbability = false

  let at = start + NLMSG_HEADER_BYTES + GENL_HEADER_BYTES
  if (at > received) return wrong(message, 'shorter than its headers', start)
  if (view.getUint8(start + NLMSG_HEADER_BYTES) !== CMD_SAMPLE) return wrong(message, 'not a sample', start)
  const end = start + view.getUint32(start, true)
  if (end > received) return wrong(message, 'cut short', start)
  while (at + 4 <= end) {
    const length = view.getUint16(at, true)
    const type = view.getUint16(at + 2, true) & TYPE_MASK
    if (length < 4) return wrong(message, 'attribute shorter than its header', at)
    if (at + length > end) return wrong(message, 'attribute longer than the message', at)
    const value = at + 4
    const bytes = length - 4
    switch (type) {
      case ATTR.iifindex:
        if (bytes !== 2 && bytes !== 4) return wrong(message, 'IIFINDEX is not 2 or 4 bytes', at)
        message.inputIfIndex = bytes === 2 ? view.getUint16(value, true) : view.getUint32(value, true)
        message.inputIfIndexBytes = bytes
        break
      case ATTR.oifindex:
        if (bytes !== 2 && bytes !== 4) return wrong(message, 'OIFINDEX is not 2 or 4 bytes', at)
        message.outputIfIndex = bytes === 2 ? view.getUint16(value, true) : view.getUint32(value, true)
        message.outputIfIndexBytes = bytes
        break
      case ATTR.origsize:
        if (bytes !== 4) return wrong(message, 'ORIGSIZE is not 4 bytes', at)
        message.originalSize = view.getUint32(value, true)
        seen |= SEEN.origsize
        break
      case ATTR.sampleGroup:
        if (bytes !== 4) return wrong(message, 'SAMPLE_GROUP is not 4 bytes', at)
        message.group = view.getUint32(value, true)
        seen |= SEEN.group
        break
      case ATTR.groupSeq:
        if (bytes !== 4) return wrong(message, 'GROUP_SEQ is not 4 bytes', at)
        message.groupSequence = view.getUint32(value, true)
        seen |= SEEN.sequence
        break
      case ATTR.sampleRate:
        if (bytes !== 4) return wrong(message, 'SAMPLE_RATE is not 4 bytes', at)
        message.rate = view.getUint32(value, true)
        if (message.rate === 0) return wrong(message, 'SAMPLE_RATE is 0', at)
        seen |= SEEN.rate
        break
      case ATTR.data:
        message.dataOffset = value
        message.dataLength = bytes
        break
      case ATTR.tunnel:
        message.tunnelOffset = value
        message.tunnelLength = bytes
        break
      case ATTR.outTc:
        if (bytes !== 2) return wrong(message, 'OUT_TC is not 2 bytes', at)
        message.outTc = view.getUint16(value, true)
        break
      case ATTR.outTcOcc:
        if (bytes !== 8) return wrong(message, 'OUT_TC_OCC is not 8 bytes', at)
        message.outTcOccupancy = saturated(view, value)
        break
      case ATTR.latency:
        if (bytes !== 8) return wrong(message, 'LATENCY is not 8 bytes', at)
        message.latency = saturated(view, value)
        break
      case ATTR.timestamp:
        if (bytes !== 8) return wrong(message, 'TIMESTAMP is not 8 bytes', at)
        message.timestampLow = view.getUint32(value, true)
        message.timestampHigh = view.getUint32(value + 4, true)
        break
      case ATTR.proto:
        if (bytes !== 2) return wrong(message, 'PROTO is not 2 bytes', at)
        message.protocol = view.getUint16(value, true)
        break
      case ATTR.userCookie:
        message.cookieOffset = value
        message.cookieLength = bytes
        break
      case ATTR.sampleProbability:
        isProbability = true
        break
    }
    at += (length + 3) & ~3
  }
  if (seen !== SEEN.all) return wrong(message, missing(seen), start)
  if (message.dataLength > message.originalSize) {
    return wrong(message, 'DATA is longer than ORIGSIZE', message.dataOffset - 4)
  }
  if (isProbability) message.rate = Math.max(1, Math.round(UINT32_MAX / message.rate))
  return true
}

/** A 64-bit value in host order, held at 2^32-1 when it is larger: a wrapped delay would look like a short one. */
function saturated(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) === 0 ? view.getUint32(at, true) : UINT32_MAX
}

function wrong(message: PsampleMessage, problem: string, offset: number): false {
  message.problem = problem
  message.problemOffset = offset
  return false
}

function missing(seen: number): string {
  if ((seen & SEEN.origsize) === 0) return 'ORIGSIZE is missing'
  if ((seen & SEEN.group) === 0) return 'SAMPLE_GROUP is missing'
  if ((seen & SEEN.sequence) === 0) return 'GROUP_SEQ is missing'
  return 'SAMPLE_RATE is missing'
}

/** Attributes of the tunnel key (enum psample_tunnel_key_attr). */
const TUNNEL = {
  id: 0,
  ipv4Source: 1,
  ipv4Destination: 2,
  tos: 3,
  sourcePort: 9,
  destinationPort: 10,
  ipv6Source: 12,
  ipv6Destination: 13,
} as const

/**
 * Reads the tunnel key of a message that has one into `tunnel`; which way the packet goes is not told. Returns false
 * when its attributes are cut short, or when it has no addresses. Unlike everything else here, its integers are in
 * network order.
 */
export function readTunnel(view: DataView, message: PsampleMessage, tunnel: Tunnel): boolean {
  const end = message.tunnelOffset + message.tunnelLength
  tunnel.tos = 0
  tunnel.sourcePort = 0
  tunnel.destinationPort = 0
  tunnel.id = ABSENT
  let addresses = 0
  for (let at = message.tunnelOffset; at + 4 <= end; ) {
    const length = view.getUint16(at, true)
    const type = view.getUint16(at + 2, true) & TYPE_MASK
    const bytes = length - 4
    if (bytes < 0 || at + length > end || bytes < TUNNEL_BYTES[type]!) return false
    const value = at + 4
    switch (type) {
      case TUNNEL.id:
        // A key of 64 bits, of which no tunnel uses more than the lower half.
        tunnel.id = view.getUint32(value + 4)
        break
      case TUNNEL.ipv4Source:
      case TUNNEL.ipv6Source:
        tunnel.addressBytes = copyAddress(view, value, bytes, tunnel.source)
        addresses++
        break
      case TUNNEL.ipv4Destination:
      case TUNNEL.ipv6Destination:
        tunnel.addressBytes = copyAddress(view, value, bytes, tunnel.destination)
        addresses++
        break
      case TUNNEL.tos:
        tunnel.tos = view.getUint8(value)
        break
      case TUNNEL.sourcePort:
        tunnel.sourcePort = view.getUint16(value)
        break
      case TUNNEL.destinationPort:
        tunnel.destinationPort = view.getUint16(value)
        break
    }
    at += (length + 3) & ~3
  }
  return addresses > 0
}

/** Least payload bytes of each tunnel attribute, by type; the rest are options of no interest here. */
const TUNNEL_BYTES = [8, 4, 4, 1, 1, 0, 0, 0, 0, 2, 2, 0, 16, 16, 0, 0, 0]

function copyAddress(view: DataView, offset: number, bytes: number, to: Uint8Array): 4 | 16 {
  const size = bytes < 16 ? 4 : 16
  for (let i = 0; i < 16; i++) to[i] = i < size ? view.getUint8(offset + i) : 0
  return size
}
