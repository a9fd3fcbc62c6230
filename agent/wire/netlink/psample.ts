/**
 * PSAMPLE messages (include/uapi/linux/psample.h, net/psample/psample.c), read in place: the values go into a
 * record that the caller owns and reuses, the packet stays where it is. All integers are in host order except
 * those of the tunnel. Attribute 0 is a real attribute here: the input interface.
 */

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
  /** Byte offset and length of the tunnel key's attributes; length 0 when absent. See readTunnelKey(). */
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

/** The tunnel a packet came through or will go into (include/net/ip_tunnels.h), as PSAMPLE reports it. */
export interface TunnelKey {
  readonly id: bigint | undefined
  /** Outer addresses, 4 or 16 bytes in network order, copied. */
  readonly source: Uint8Array | undefined
  readonly destination: Uint8Array | undefined
  readonly tos: number
  readonly ttl: number
  readonly sourcePort: number
  readonly destinationPort: number
  readonly dontFragment: boolean
  readonly checksum: boolean
  readonly oam: boolean
}

/**
 * The tunnel key of a message that has one, or undefined when its attributes are cut short. Allocates: it is for
 * those who export tunnels, not for every sample. Unlike everything else here, its integers are in network order.
 */
export function readTunnelKey(view: DataView, message: PsampleMessage): TunnelKey | undefined {
  const end = message.tunnelOffset + message.tunnelLength
  const key = {
    id: undefined as bigint | undefined,
    source: undefined as Uint8Array | undefined,
    destination: undefined as Uint8Array | undefined,
    tos: 0,
    ttl: 0,
    sourcePort: 0,
    destinationPort: 0,
    dontFragment: false,
    checksum: false,
    oam: false,
  }
  for (let at = message.tunnelOffset; at + 4 <= end; ) {
    const length = view.getUint16(at, true)
    const type = view.getUint16(at + 2, true) & TYPE_MASK
    const bytes = length - 4
    if (bytes < 0 || at + length > end || bytes < TUNNEL_BYTES[type]!) return undefined
    const value = at + 4
    if (type === 0) key.id = view.getBigUint64(value)
    else if (type === 1) key.source = copy(view, value, 4)
    else if (type === 2) key.destination = copy(view, value, 4)
    else if (type === 3) key.tos = view.getUint8(value)
    else if (type === 4) key.ttl = view.getUint8(value)
    else if (type === 5) key.dontFragment = true
    else if (type === 6) key.checksum = true
    else if (type === 7) key.oam = true
    else if (type === 9) key.sourcePort = view.getUint16(value)
    else if (type === 10) key.destinationPort = view.getUint16(value)
    else if (type === 12) key.source = copy(view, value, 16)
    else if (type === 13) key.destination = copy(view, value, 16)
    at += (length + 3) & ~3
  }
  return key
}

/** Least payload bytes of each tunnel attribute, by type; the rest are options of no interest here. */
const TUNNEL_BYTES = [8, 4, 4, 1, 1, 0, 0, 0, 0, 2, 2, 0, 16, 16, 0, 0, 0]

function copy(view: DataView, offset: number, bytes: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + offset, bytes).slice()
}
