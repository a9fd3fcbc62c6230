/**
 * The data path's own writer of flow_sample_expanded (0:3), sFlow v5 §5. It writes straight into the open
 * datagram and allocates nothing. The declarations in samples.ts and flow/ say the same thing readably; a test
 * compares the two byte by byte.
 */

import type { PacketSample, SampledTcp, Tunnel } from '../../samples/packet-sample.ts'

/** What the sampler knows of a data source when it hands over a sample. */
export interface FlowSourceState {
  /** Sequence number of this sample. */
  sequence: number
  /** Packets that could have been sampled, modulo 2^32. */
  samplePool: number
  /** Samples lost, modulo 2^32. */
  drops: number
}

/** One piece of memory, seen as bytes in network order and as 32-bit words for copying. */
export interface DatagramMemory {
  readonly view: DataView
  readonly words: Int32Array
}

const FLOW_SAMPLE_EXPANDED = 3
const SAMPLED_HEADER = 1
const EXTENDED_SWITCH = 1001
const EXTENDED_IPV4_TUNNEL = { egress: 1023, ingress: 1024 } as const
const EXTENDED_IPV6_TUNNEL = { egress: 1025, ingress: 1026 } as const
const EXTENDED_DECAPSULATE = { egress: 1027, ingress: 1028 } as const
const EXTENDED_VNI = { egress: 1029, ingress: 1030 } as const
const EXTENDED_EGRESS_QUEUE = 1036
const EXTENDED_TRANSIT = 1039
const EXTENDED_QUEUE = 1040
const EXTENDED_TIMESTAMP = 1043
const EXTENDED_TCP_INFO = 2209
const EXTENDED_ENTITIES = 2210

/** Format of an output that is a discard reason. */
const DISCARDED = 1

/** Bytes before the first record, format and length included. */
const SAMPLE_BYTES = 52
/** Bytes of a sampled_header record around the header itself. */
const HEADER_RECORD_BYTES = 24
const WORD_RECORD_BYTES = 12
const TIMESTAMP_RECORD_BYTES = 16
const SWITCH_RECORD_BYTES = 24
/** Of a tunnel record, what is not addresses. */
const TUNNEL_RECORD_BYTES = 32
const TCP_RECORD_BYTES = 56
const ENTITIES_RECORD_BYTES = 24
/** Data source type of containers and pods. */
const LOGICAL_ENTITY = 3
const IPPROTO_UDP = 17

/** Bytes that the sample takes without any header bytes: the least a datagram must have room for. */
export function flowSampleBytesWithoutHeader(sample: PacketSample): number {
  let bytes = SAMPLE_BYTES + HEADER_RECORD_BYTES
  if (sample.egressQueue >= 0) {
    bytes += WORD_RECORD_BYTES
    if (sample.queueDepthBytes >= 0) bytes += WORD_RECORD_BYTES
  }
  if (sample.transitDelayNs >= 0) bytes += WORD_RECORD_BYTES
  if (sample.timestampHigh !== 0) bytes += TIMESTAMP_RECORD_BYTES
  if (sample.inputVlan >= 0 || sample.outputVlan >= 0) bytes += SWITCH_RECORD_BYTES
  const { tunnel } = sample
  if (tunnel !== undefined) {
    bytes += TUNNEL_RECORD_BYTES + 2 * tunnel.addressBytes
    if (tunnel.id >= 0) bytes += WORD_RECORD_BYTES
  }
  if (sample.tcp !== undefined) bytes += TCP_RECORD_BYTES
  if (sample.innerOffset >= 0) bytes += WORD_RECORD_BYTES
  if (sample.innerVni >= 0) bytes += WORD_RECORD_BYTES
  if (sample.sourceEntity !== 0 || sample.destinationEntity !== 0) bytes += ENTITIES_RECORD_BYTES
  return bytes
}

/**
 * Writes `sample` at byte `offset` (a multiple of 4) and returns the offset behind it. The memory must have room
 * for flowSampleBytesWithoutHeader() and `headerLength` rounded up to 4; `headerLength` is at most
 * `sample.headerLength`. The header record comes first because a widely used decoder stops at the first record
 * it does not know. A queue depth without its queue is left out (extended_queue requires extended_egress_queue).
 */
export function writeFlowSample(
  memory: DatagramMemory,
  offset: number,
  sample: PacketSample,
  source: FlowSourceState,
  headerLength: number,
): number {
  const view = memory.view
  view.setUint32(offset, FLOW_SAMPLE_EXPANDED)
  view.setUint32(offset + 8, source.sequence)
  view.setUint32(offset + 12, 0)
  view.setUint32(offset + 16, sample.dataSource)
  view.setUint32(offset + 20, sample.samplingRate)
  view.setUint32(offset + 24, source.samplePool)
  view.setUint32(offset + 28, source.drops)
  view.setUint32(offset + 32, 0)
  view.setUint32(offset + 36, sample.inputIfIndex)
  const isDropped = sample.discardReason >= 0
  view.setUint32(offset + 40, isDropped ? DISCARDED : 0)
  view.setUint32(offset + 44, isDropped ? sample.discardReason : sample.outputIfIndex)

  let at = offset + SAMPLE_BYTES
  const paddedHeader = (headerLength + 3) & ~3
  view.setUint32(at, SAMPLED_HEADER)
  view.setUint32(at + 4, HEADER_RECORD_BYTES - 8 + paddedHeader)
  view.setUint32(at + 8, sample.headerProtocol)
  view.setUint32(at + 12, sample.frameLength)
  view.setUint32(at + 16, sample.stripped)
  view.setUint32(at + 20, headerLength)
  at = copyHeader(memory, at + HEADER_RECORD_BYTES, sample, headerLength)

  let records = 1
  if (sample.inputVlan >= 0 || sample.outputVlan >= 0) {
    view.setUint32(at, EXTENDED_SWITCH)
    view.setUint32(at + 4, SWITCH_RECORD_BYTES - 8)
    // ABSENT is the wire's own unknown: all ones.
    view.setInt32(at + 8, sample.inputVlan)
    view.setInt32(at + 12, sample.inputPriority)
    view.setInt32(at + 16, sample.outputVlan)
    view.setInt32(at + 20, sample.outputPriority)
    at += SWITCH_RECORD_BYTES
    records++
  }
  if (sample.egressQueue >= 0) {
    at = writeWordRecord(view, at, EXTENDED_EGRESS_QUEUE, sample.egressQueue)
    records++
    if (sample.queueDepthBytes >= 0) {
      at = writeWordRecord(view, at, EXTENDED_QUEUE, sample.queueDepthBytes)
      records++
    }
  }
  if (sample.transitDelayNs >= 0) {
    at = writeWordRecord(view, at, EXTENDED_TRANSIT, sample.transitDelayNs)
    records++
  }
  if (sample.timestampHigh !== 0) {
    view.setUint32(at, EXTENDED_TIMESTAMP)
    view.setUint32(at + 4, 8)
    view.setUint32(at + 8, sample.timestampHigh)
    view.setUint32(at + 12, sample.timestampLow)
    at += TIMESTAMP_RECORD_BYTES
    records++
  }
  if (sample.tunnel !== undefined) {
    const way = sample.tunnel.isOutput ? 'egress' : 'ingress'
    at = writeTunnel(view, at, sample.tunnel, way)
    records++
    if (sample.tunnel.id >= 0) {
      at = writeWordRecord(view, at, EXTENDED_VNI[way], sample.tunnel.id)
      records++
    }
  }
  if (sample.tcp !== undefined) {
    at = writeTcp(view, at, sample.tcp)
    records++
  }
  if (sample.innerOffset >= 0 || sample.innerVni >= 0) {
    // What comes in is going to be decapsulated; what goes out has been encapsulated (tunnel structures, 2012).
    const way = sample.dataSource === sample.inputIfIndex ? 'egress' : 'ingress'
    if (sample.innerOffset >= 0) {
      at = writeWordRecord(view, at, EXTENDED_DECAPSULATE[way], sample.innerOffset)
      records++
    }
    if (sample.innerVni >= 0) {
      at = writeWordRecord(view, at, EXTENDED_VNI[way], sample.innerVni)
      records++
    }
  }
  if (sample.sourceEntity !== 0 || sample.destinationEntity !== 0) {
    at = writeEntities(view, at, sample.sourceEntity, sample.destinationEntity)
    records++
  }
  view.setUint32(offset + 48, records)
  view.setUint32(offset + 4, at - offset - 8)
  return at
}

function writeWordRecord(view: DataView, at: number, format: number, value: number): number {
  view.setUint32(at, format)
  view.setUint32(at + 4, 4)
  view.setUint32(at + 8, value)
  return at + WORD_RECORD_BYTES
}

/** An entity that is not known is 0:0. */
function writeEntities(view: DataView, at: number, source: number, destination: number): number {
  view.setUint32(at, EXTENDED_ENTITIES)
  view.setUint32(at + 4, ENTITIES_RECORD_BYTES - 8)
  view.setUint32(at + 8, source === 0 ? 0 : LOGICAL_ENTITY)
  view.setUint32(at + 12, source)
  view.setUint32(at + 16, destination === 0 ? 0 : LOGICAL_ENTITY)
  view.setUint32(at + 20, destination)
  return at + ENTITIES_RECORD_BYTES
}

function writeTcp(view: DataView, at: number, tcp: SampledTcp): number {
  view.setUint32(at, EXTENDED_TCP_INFO)
  view.setUint32(at + 4, TCP_RECORD_BYTES - 8)
  view.setUint32(at + 8, tcp.direction)
  view.setUint32(at + 12, tcp.sndMss)
  view.setUint32(at + 16, tcp.rcvMss)
  view.setUint32(at + 20, tcp.unacked)
  view.setUint32(at + 24, tcp.lost)
  view.setUint32(at + 28, tcp.retransmits)
  view.setUint32(at + 32, tcp.pathMtu)
  view.setUint32(at + 36, tcp.rtt)
  view.setUint32(at + 40, tcp.rttVariance)
  view.setUint32(at + 44, tcp.congestionWindow)
  view.setUint32(at + 48, tcp.reordering)
  view.setUint32(at + 52, tcp.leastRtt)
  return at + TCP_RECORD_BYTES
}

/**
 * sampled_ipv4 or sampled_ipv6 of the outer headers. Their length is not known (0), and the protocol only where there
 * are ports: UDP (VXLAN, Geneve).
 */
function writeTunnel(view: DataView, start: number, tunnel: Tunnel, way: 'egress' | 'ingress'): number {
  const { addressBytes, source, destination } = tunnel
  const format = addressBytes === 4 ? EXTENDED_IPV4_TUNNEL[way] : EXTENDED_IPV6_TUNNEL[way]
  view.setUint32(start, format)
  view.setUint32(start + 4, TUNNEL_RECORD_BYTES + 2 * addressBytes - 8)
  view.setUint32(start + 8, 0)
  view.setUint32(start + 12, tunnel.destinationPort === 0 ? 0 : IPPROTO_UDP)
  let at = start + 16
  for (let i = 0; i < addressBytes; i++) {
    view.setUint8(at + i, source[i]!)
    view.setUint8(at + addressBytes + i, destination[i]!)
  }
  at += 2 * addressBytes
  view.setUint32(at, tunnel.sourcePort)
  view.setUint32(at + 4, tunnel.destinationPort)
  // TCP flags: there is no TCP among the outer headers.
  view.setUint32(at + 8, 0)
  view.setUint32(at + 12, tunnel.tos)
  return at + 16
}

/** Copies whole words, then clears the pad bytes of the last one: stale bytes never leave the machine. */
function copyHeader(memory: DatagramMemory, at: number, sample: PacketSample, headerLength: number): number {
  const { words, view } = memory
  const source = sample.headerWords
  const from = sample.headerOffset >> 2
  const to = at >> 2
  const count = (headerLength + 3) >> 2
  for (let i = 0; i < count; i++) words[to + i] = source[from + i]!
  const end = at + (count << 2)
  for (let pad = at + headerLength; pad < end; pad++) view.setUint8(pad, 0)
  return end
}
