/**
 * NFLOG messages of nfnetlink (include/uapi/linux/netfilter/nfnetlink_log.h, net/netfilter/nfnetlink_log.c): packets that
 * a firewall rule has logged, read in place, and the requests to be sent them. Their integers are in network order.
 *
 *     nfgenmsg  family u8 · version u8 · group be16
 */
import { MessageBuilder } from './message.ts'

const NFNL_SUBSYS_ULOG = 4
const TYPE_PACKET = (NFNL_SUBSYS_ULOG << 8) | 0
const TYPE_CONFIG = (NFNL_SUBSYS_ULOG << 8) | 1

const CONFIG = { command: 1, mode: 2, bufferSize: 3, timeout: 4, threshold: 5, flags: 6 } as const
const COMMAND_BIND = 1
const COPY_PACKET = 2
const FLAG_SEQUENCE = 1

const ATTR = {
  packetHeader: 1,
  timestamp: 3,
  inputDevice: 4,
  outputDevice: 5,
  physicalInput: 6,
  physicalOutput: 7,
  payload: 9,
  sequence: 12,
  hardwareType: 15,
  hardwareHeader: 16,
  vlan: 20,
  layer2Header: 21,
} as const
const VLAN = { protocol: 1, tci: 2 } as const

const NLMSG_HEADER_BYTES = 16
const NFGEN_BYTES = 4
const TYPE_MASK = 0x3fff

/** Families of netfilter that packets are logged in. */
export const NFPROTO = { ipv4: 2, netdev: 5, bridge: 7, ipv6: 10 } as const
/** Places in the path of a packet, the same for IPv4, IPv6 and bridges. */
export const HOOK = { preRouting: 0, localIn: 1, forward: 2, localOut: 3, postRouting: 4 } as const
/** Places of family netdev. */
export const NETDEV_HOOK = { ingress: 0, egress: 1 } as const

/** A packet as the kernel logged it; filled again by each call of readNflog(). */
export interface NflogPacket {
  /** One of NFPROTO. */
  family: number
  group: number
  hook: number
  /** EtherType, 0 when absent. */
  protocol: number
  /** ifIndexes, 0 when absent; the physical ones are ports of a bridge. */
  inputDevice: number
  outputDevice: number
  physicalInput: number
  physicalOutput: number
  /** The packet from its network header on. */
  payloadOffset: number
  payloadLength: number
  /** ARPHRD number of the link header, and the header itself; length 0 when absent. */
  hardwareType: number
  linkOffset: number
  linkLength: number
  /** VLAN tag that is in neither; protocol 0 when there is none. */
  vlanProtocol: number
  vlanTci: number
  /** Per group, +1 for each packet logged; -1 when absent. */
  sequence: number
  /** Seconds since 1970 and microseconds; both 0 when absent. */
  seconds: number
  microseconds: number
  /** What is wrong when readNflog() returns false, and the byte offset of it. */
  problem: string
  problemOffset: number
}

export function emptyNflogPacket(): NflogPacket {
  return {
    family: 0,
    group: 0,
    hook: 0,
    protocol: 0,
    inputDevice: 0,
    outputDevice: 0,
    physicalInput: 0,
    physicalOutput: 0,
    payloadOffset: 0,
    payloadLength: 0,
    hardwareType: 0,
    linkOffset: 0,
    linkLength: 0,
    vlanProtocol: 0,
    vlanTci: 0,
    sequence: -1,
    seconds: 0,
    microseconds: 0,
    problem: '',
    problemOffset: 0,
  }
}

/** True when the message at byte `at` is a logged packet. */
export function isNflogPacket(view: DataView, at: number): boolean {
  return view.getUint16(at + 4, true) === TYPE_PACKET
}

/**
 * Reads the message at bytes `start` to `end` of `view`. Returns false when it is cut short or has an attribute of the
 * wrong size, or no packet. Attributes not known here are stepped over. Never throws.
 */
export function readNflog(view: DataView, start: number, end: number, packet: NflogPacket): boolean {
  packet.hook = 0
  packet.protocol = 0
  packet.inputDevice = 0
  packet.outputDevice = 0
  packet.physicalInput = 0
  packet.physicalOutput = 0
  packet.payloadLength = 0
  packet.hardwareType = 0
  packet.linkLength = 0
  packet.vlanProtocol = 0
  packet.vlanTci = 0
  packet.sequence = -1
  packet.seconds = 0
  packet.microseconds = 0
  let hasHeader = false

  let at = start + NLMSG_HEADER_BYTES + NFGEN_BYTES
  if (at > end) return wrong(packet, 'shorter than its headers', start)
  packet.family = view.getUint8(start + NLMSG_HEADER_BYTES)
  packet.group = view.getUint16(start + NLMSG_HEADER_BYTES + 2)
  while (at + 4 <= end) {
    const length = view.getUint16(at, true)
    const type = view.getUint16(at + 2, true) & TYPE_MASK
    if (length < 4) return wrong(packet, 'attribute shorter than its header', at)
    if (at + length > end) return wrong(packet, 'attribute longer than the message', at)
    const value = at + 4
    const bytes = length - 4
    if (bytes < (LEAST_BYTES[type] ?? 0)) return wrong(packet, `attribute ${type} of ${bytes} bytes`, at)
    switch (type) {
      case ATTR.packetHeader:
        packet.protocol = view.getUint16(value)
        packet.hook = view.getUint8(value + 2)
        hasHeader = true
        break
      case ATTR.timestamp:
        // Seconds fit into the lower half until 2106.
        packet.seconds = view.getUint32(value + 4)
        packet.microseconds = view.getUint32(value + 12)
        break
      case ATTR.inputDevice:
        packet.inputDevice = view.getUint32(value)
        break
      case ATTR.outputDevice:
        packet.outputDevice = view.getUint32(value)
        break
      case ATTR.physicalInput:
        packet.physicalInput = view.getUint32(value)
        break
      case ATTR.physicalOutput:
        packet.physicalOutput = view.getUint32(value)
        break
      case ATTR.payload:
        packet.payloadOffset = value
        packet.payloadLength = bytes
        break
      case ATTR.sequence:
        packet.sequence = view.getUint32(value)
        break
      case ATTR.hardwareType:
        packet.hardwareType = view.getUint16(value)
        break
      case ATTR.hardwareHeader:
      case ATTR.layer2Header:
        packet.linkOffset = value
        packet.linkLength = bytes
        break
      case ATTR.vlan:
        readVlan(view, value, value + bytes, packet)
        break
    }
    at += (length + 3) & ~3
  }
  if (!hasHeader) return wrong(packet, 'PACKET_HDR is missing', start)
  if (packet.payloadLength === 0) return wrong(packet, 'PAYLOAD is missing', start)
  return true
}

/** Least payload bytes of each attribute, by type. */
const LEAST_BYTES: readonly number[] = [0, 4, 0, 16, 4, 4, 4, 4, 0, 0, 0, 0, 4, 0, 0, 2, 0, 0, 0, 0, 0, 0]

function readVlan(view: DataView, start: number, end: number, packet: NflogPacket): void {
  for (let at = start; at + 6 <= end; ) {
    const length = view.getUint16(at, true)
    if (length < 6) return
    const type = view.getUint16(at + 2, true) & TYPE_MASK
    if (type === VLAN.protocol) packet.vlanProtocol = view.getUint16(at + 4)
    else if (type === VLAN.tci) packet.vlanTci = view.getUint16(at + 4)
    at += (length + 3) & ~3
  }
}

function wrong(packet: NflogPacket, problem: string, offset: number): false {
  packet.problem = problem
  packet.problemOffset = offset
  return false
}

export interface NflogWishes {
  /** Octets of each packet from its network header on. */
  readonly copyBytes: number
  /** Bytes that packets may fill in the kernel before they are sent, and hundredths of a second they may wait. */
  readonly bufferBytes: number
  readonly timeout: number
  /** Packets that may wait together. */
  readonly threshold: number
}

/** Requests that bind the socket which sends them to a group, in their order. */
export function bindNflog(group: number, wishes: NflogWishes): readonly Uint8Array<ArrayBuffer>[] {
  const mode = new Uint8Array(6)
  new DataView(mode.buffer).setUint32(0, wishes.copyBytes)
  mode[4] = COPY_PACKET
  return [
    config(group).bytes(CONFIG.command, Uint8Array.of(COMMAND_BIND)).build(),
    config(group)
      .bytes(CONFIG.mode, mode)
      .bytes(CONFIG.bufferSize, be32(wishes.bufferBytes))
      .bytes(CONFIG.timeout, be32(wishes.timeout))
      .bytes(CONFIG.threshold, be32(wishes.threshold))
      .bytes(CONFIG.flags, Uint8Array.of(0, FLAG_SEQUENCE))
      .build(),
  ]
}

function config(group: number): MessageBuilder {
  return new MessageBuilder(TYPE_CONFIG, 0, Uint8Array.of(0, 0, group >> 8, group & 0xff))
}

function be32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value)
  return bytes
}
