/**
 * The data path's own writer of discarded_packet (0:5, dropped packet structures of 2020). It writes straight into
 * the open datagram and allocates nothing. The declarations in samples.ts and flow/ say the same thing readably; a
 * test compares the two byte by byte.
 */

import type { Drop, Name } from '../../samples/drop.ts'
import type { DatagramMemory } from './flow-sample-writer.ts'

/** What the notifier knows when it hands over a drop. */
export interface DiscardState {
  /** Sequence number of this sample. */
  sequence: number
  /** Notifications not sent, modulo 2^32. */
  drops: number
}

const DISCARDED_PACKET = 5
const SAMPLED_HEADER = 1
const EXTENDED_EGRESS_QUEUE = 1036
const EXTENDED_FUNCTION = 1038
const EXTENDED_HW_TRAP = 1041
const EXTENDED_LINUX_DROP_REASON = 1042
const EXTENDED_TIMESTAMP = 1043

/** Bytes before the first record, format and length included. */
const SAMPLE_BYTES = 40
/** Bytes of a sampled_header record around the header itself. */
const HEADER_RECORD_BYTES = 24
const RECORD_BYTES = 8
const QUEUE_RECORD_BYTES = 12
const TIMESTAMP_RECORD_BYTES = 16

/** Bytes that the sample takes without any header bytes: the least a datagram must have room for. */
export function discardedPacketBytesWithoutHeader(drop: Drop): number {
  let bytes = SAMPLE_BYTES + HEADER_RECORD_BYTES
  if (drop.symbol !== undefined) bytes += RECORD_BYTES + textBytes(drop.symbol)
  if (drop.trap !== undefined) bytes += RECORD_BYTES + textBytes(drop.trapGroup) + textBytes(drop.trap)
  if (drop.reason !== undefined) bytes += RECORD_BYTES + textBytes(drop.reason)
  if (drop.timestampHigh !== 0) bytes += TIMESTAMP_RECORD_BYTES
  if (drop.egressQueue >= 0) bytes += QUEUE_RECORD_BYTES
  return bytes
}

/**
 * Writes `drop` with sFlow discard reason `reason` at byte `offset` (a multiple of 4) and returns the offset behind
 * it. The data source is 0:0, all ports of the machine. The memory must have room for
 * discardedPacketBytesWithoutHeader() and `headerLength` rounded up to 4; `headerLength` is at most
 * `drop.headerLength`. The header record comes first because a widely used decoder stops at the first record it
 * does not know.
 */
export function writeDrop(
  memory: DatagramMemory,
  offset: number,
  drop: Drop,
  reason: number,
  state: DiscardState,
  headerLength: number,
): number {
  const view = memory.view
  view.setUint32(offset, DISCARDED_PACKET)
  view.setUint32(offset + 8, state.sequence)
  view.setUint32(offset + 12, 0)
  view.setUint32(offset + 16, 0)
  view.setUint32(offset + 20, state.drops)
  view.setUint32(offset + 24, drop.inputIfIndex)
  view.setUint32(offset + 28, drop.outputIfIndex)
  view.setUint32(offset + 32, reason)

  let at = offset + SAMPLE_BYTES
  view.setUint32(at, SAMPLED_HEADER)
  view.setUint32(at + 4, HEADER_RECORD_BYTES - RECORD_BYTES + ((headerLength + 3) & ~3))
  view.setUint32(at + 8, drop.headerProtocol)
  view.setUint32(at + 12, drop.frameLength)
  view.setUint32(at + 16, drop.stripped)
  view.setUint32(at + 20, headerLength)
  at = copyHeader(memory, at + HEADER_RECORD_BYTES, drop, headerLength)

  let records = 1
  if (drop.symbol !== undefined) {
    view.setUint32(at, EXTENDED_FUNCTION)
    view.setUint32(at + 4, textBytes(drop.symbol))
    at = writeText(view, at + RECORD_BYTES, drop.symbol)
    records++
  }
  if (drop.trap !== undefined) {
    view.setUint32(at, EXTENDED_HW_TRAP)
    view.setUint32(at + 4, textBytes(drop.trapGroup) + textBytes(drop.trap))
    at = writeText(view, at + RECORD_BYTES, drop.trapGroup)
    at = writeText(view, at, drop.trap)
    records++
  }
  if (drop.reason !== undefined) {
    view.setUint32(at, EXTENDED_LINUX_DROP_REASON)
    view.setUint32(at + 4, textBytes(drop.reason))
    at = writeText(view, at + RECORD_BYTES, drop.reason)
    records++
  }
  if (drop.timestampHigh !== 0) {
    view.setUint32(at, EXTENDED_TIMESTAMP)
    view.setUint32(at + 4, 8)
    view.setUint32(at + 8, drop.timestampHigh)
    view.setUint32(at + 12, drop.timestampLow)
    at += TIMESTAMP_RECORD_BYTES
    records++
  }
  if (drop.egressQueue >= 0) {
    view.setUint32(at, EXTENDED_EGRESS_QUEUE)
    view.setUint32(at + 4, 4)
    view.setUint32(at + 8, drop.egressQueue)
    at += QUEUE_RECORD_BYTES
    records++
  }
  view.setUint32(offset + 36, records)
  view.setUint32(offset + 4, at - offset - 8)
  return at
}

function textBytes(name: Name | undefined): number {
  return name === undefined ? 4 : 4 + ((name.bytes.length + 3) & ~3)
}

/** Length, bytes, zeros up to a multiple of 4. */
function writeText(view: DataView, at: number, name: Name | undefined): number {
  const length = name === undefined ? 0 : name.bytes.length
  view.setUint32(at, length)
  const start = at + 4
  const end = start + ((length + 3) & ~3)
  for (let i = 0; i < length; i++) view.setUint8(start + i, name!.bytes[i]!)
  for (let pad = start + length; pad < end; pad++) view.setUint8(pad, 0)
  return end
}

/** Copies whole words, then clears the pad bytes of the last one: stale bytes never leave the machine. */
function copyHeader(memory: DatagramMemory, at: number, drop: Drop, headerLength: number): number {
  const { words, view } = memory
  const from = drop.headerOffset >> 2
  const to = at >> 2
  const count = (headerLength + 3) >> 2
  for (let i = 0; i < count; i++) words[to + i] = drop.headerWords[from + i]!
  const end = at + (count << 2)
  for (let pad = at + headerLength; pad < end; pad++) view.setUint8(pad, 0)
  return end
}
