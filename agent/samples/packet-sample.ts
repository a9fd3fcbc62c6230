import type { TcpState } from '../wire/netlink/inet-diag.ts'

/**
 * What every packet source delivers. A source owns one PacketSample and fills it again for each packet, so
 * that the path from the kernel to the datagram allocates nothing; a receiver takes what it needs before it
 * returns and keeps no reference.
 */

/** The interface value for "this device itself": as input, it made the packet; as output, it received it. */
export const INTERNAL_INTERFACE = 0x3fffffff

/** Marks an optional number of a PacketSample as not known. */
export const ABSENT = -1

/** `header_protocol` of the sampled header (sFlow v5 §5). */
export const HEADER_PROTOCOL = { ethernet: 1, ipv4: 11, ipv6: 12 } as const

export interface PacketSample {
  /** ifIndex of the data source: the interface that was sampled. */
  dataSource: number
  /** 1 in N: the N in force when the packet was taken. */
  samplingRate: number
  /** ifIndex, 0 when unknown, or INTERNAL_INTERFACE. */
  inputIfIndex: number
  /** ifIndex, 0 when unknown, or INTERNAL_INTERFACE. */
  outputIfIndex: number
  /** sFlow discard reason when the packet was dropped on its way, and so has no output; or ABSENT. */
  discardReason: number
  /** One of HEADER_PROTOCOL. */
  headerProtocol: number
  /** Octets on the wire: link header, payload and FCS. */
  frameLength: number
  /** Of those, octets removed before sampling (the FCS: 4). */
  stripped: number
  /**
   * The sampled header: `headerLength` octets at byte `headerOffset` of `headerWords.buffer`, in wire order.
   * `headerOffset` is a multiple of 4, and the words that hold the header are all inside `headerWords`.
   * Borrowed: valid until the batch callback returns.
   */
  headerWords: Int32Array
  headerOffset: number
  headerLength: number
  /** Egress queue (traffic class) of the output interface, or ABSENT. */
  egressQueue: number
  /** Bytes in that queue when the packet arrived at it, at most 2^32-1, or ABSENT. */
  queueDepthBytes: number
  /** Nanoseconds the packet spent in the device, at most 2^32-1, or ABSENT. */
  transitDelayNs: number
  /** Nanoseconds since 1970 (UTC) as two 32-bit words; both 0 when unknown. */
  timestampHigh: number
  timestampLow: number
  /** True when a VLAN tag that the frame had on the wire is in the header; false when it may have been taken off. */
  tagKept: boolean
  /** VLAN (1 to 4094) and priority (0 to 7) at the input and at the output, or ABSENT. */
  inputVlan: number
  inputPriority: number
  outputVlan: number
  outputPriority: number
  /** The outer headers that the packet came in or will leave with; undefined when there are none. Borrowed likewise. */
  tunnel: Tunnel | undefined
  /** What the kernel knows of the TCP connection, when one end of it is here. Borrowed likewise. */
  tcp: SampledTcp | undefined
  /** Where the inner header of a tunnelled packet begins in the sampled header, and its virtual network; or ABSENT. */
  innerOffset: number
  innerVni: number
  /** Data source indexes of the containers or pods that the packet comes from and goes to; 0 for none. */
  sourceEntity: number
  destinationEntity: number
  /** Samples the kernel is known to have lost since the previous one of this source. */
  lostBefore: number
}

/** The state of a connection, with the packet's direction: 1 received, 2 sent. */
export interface SampledTcp extends TcpState {
  direction: number
}

/** The outer headers of a tunnelled packet (include/net/ip_tunnels.h), to be filled by the source that owns it. */
export interface Tunnel {
  /** The packet will leave with them; else it came in with them. */
  isOutput: boolean
  /** Addresses of 4 or 16 bytes, in network order. */
  addressBytes: 4 | 16
  readonly source: Uint8Array
  readonly destination: Uint8Array
  tos: number
  /** UDP ports, 0 for tunnels without. */
  sourcePort: number
  destinationPort: number
  /** Virtual network identifier or key (32 bits), or ABSENT. */
  id: number
}

export function emptyTunnel(): Tunnel {
  return {
    isOutput: false,
    addressBytes: 4,
    source: new Uint8Array(16),
    destination: new Uint8Array(16),
    tos: 0,
    sourcePort: 0,
    destinationPort: 0,
    id: ABSENT,
  }
}

/** Receives one sample; `sample` is borrowed until the call returns. */
export type PacketSink = (sample: PacketSample) => void

/** A sample with nothing known, to be filled by the source that owns it. */
export function emptyPacketSample(): PacketSample {
  return {
    dataSource: 0,
    samplingRate: 0,
    inputIfIndex: 0,
    outputIfIndex: 0,
    discardReason: ABSENT,
    headerProtocol: HEADER_PROTOCOL.ethernet,
    frameLength: 0,
    stripped: 0,
    headerWords: new Int32Array(0),
    headerOffset: 0,
    headerLength: 0,
    egressQueue: ABSENT,
    queueDepthBytes: ABSENT,
    transitDelayNs: ABSENT,
    timestampHigh: 0,
    timestampLow: 0,
    tagKept: false,
    inputVlan: ABSENT,
    inputPriority: ABSENT,
    outputVlan: ABSENT,
    outputPriority: ABSENT,
    tunnel: undefined,
    tcp: undefined,
    innerOffset: ABSENT,
    innerVni: ABSENT,
    sourceEntity: 0,
    destinationEntity: 0,
    lostBefore: 0,
  }
}

/**
 * Makes `to` what `from` is, with memory of its own: as much of the header as `words` holds, and `tunnel` for the outer
 * headers.
 */
export function copyPacketSample(
  from: PacketSample,
  to: PacketSample,
  words: Int32Array,
  tunnel: Tunnel,
): void {
  Object.assign(to, from)
  to.headerWords = words
  to.headerOffset = 0
  to.headerLength = Math.min(from.headerLength, words.length * 4)
  const start = from.headerOffset >> 2
  for (let i = 0; i < (to.headerLength + 3) >> 2; i++) words[i] = from.headerWords[start + i]!
  if (from.tunnel === undefined) return
  const { source, destination, ...rest } = from.tunnel
  Object.assign(tunnel, rest)
  tunnel.source.set(source)
  tunnel.destination.set(destination)
  to.tunnel = tunnel
}
