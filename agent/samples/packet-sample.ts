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
  /** Samples the kernel is known to have lost since the previous one of this source. */
  lostBefore: number
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
    lostBefore: 0,
  }
}
