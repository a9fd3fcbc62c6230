/** Blocks: samples in a datagram and records in a sample are format, length and a body of that length. */

import type { ValueOf } from '../struct.ts'
import { padded, type Writer } from '../xdr.ts'
import {
  type CounterRecord,
  type Declaration,
  dataFormat,
  type FlowRecord,
  type SampleType,
} from './record.ts'

/** A block whose body is not understood. */
export interface RawBlock {
  readonly enterprise: number
  readonly format: number
  readonly raw: Uint8Array
  /** Where the block begins in the datagram it was read from. */
  readonly offset?: number
}

/** One record with its value. */
export interface RecordValue<D extends Declaration = FlowRecord | CounterRecord> {
  readonly record: D
  /** The value that belongs to `record`. */
  readonly value: unknown
  /** What follows the known fields: a later revision of the structure. */
  readonly tail?: Uint8Array
  /** Where the record begins in the datagram it was read from. */
  readonly offset?: number
}

/** One sample with its value. */
export interface SampleValue {
  readonly sample: SampleType
  /** The value that belongs to `sample`. */
  readonly value: unknown
  readonly records: readonly RecordBlock[]
  /** What follows the last record. */
  readonly tail?: Uint8Array
  /** Where the sample begins in the datagram it was read from. */
  readonly offset?: number
}

export type RecordBlock = RecordValue | RawBlock
export type SampleBlock = SampleValue | RawBlock

/** A record with a value that the compiler has checked against its declaration. */
export function recordOf<D extends FlowRecord | CounterRecord>(record: D, value: ValueOf<D>): RecordValue<D> {
  return { record, value }
}

/** The value of the first record of this declaration. */
export function findRecord<D extends FlowRecord | CounterRecord>(
  records: readonly RecordBlock[],
  record: D,
): ValueOf<D> | undefined {
  const found = records.find(block => 'record' in block && block.record === record)
  return found === undefined ? undefined : ((found as RecordValue).value as ValueOf<D>)
}

/** Format and length. */
const HEAD_BYTES = 8

/** Bytes that writeSample will write. */
export function sampleSize(block: SampleBlock): number {
  if ('raw' in block) return HEAD_BYTES + padded(block.raw.length)
  const { sample, value, records, tail } = block
  let bytes = HEAD_BYTES + sample.size(value as ValueOf<SampleType>) + padded(tail?.length ?? 0)
  if (sample.records !== undefined) {
    bytes += 4
    for (let i = 0; i < records.length; i++) bytes += recordSize(records[i]!)
  }
  return bytes
}

function recordSize(block: RecordBlock): number {
  if ('raw' in block) return HEAD_BYTES + padded(block.raw.length)
  const { record, value, tail } = block
  return HEAD_BYTES + record.size(value as ValueOf<Declaration>) + padded(tail?.length ?? 0)
}

/**
 * Writes a sample with its format and length. Fails with a WireError when a value does not fit its field or the
 * sample does not fit the writer; what was written until then is to be discarded.
 */
export function writeSample(writer: Writer, block: SampleBlock): void {
  if ('raw' in block) {
    const lengthAt = beginBlock(writer, block.enterprise, block.format)
    writer.bytes(block.raw, 'sample')
    endBlock(writer, lengthAt)
    return
  }
  const { sample, value, records, tail } = block
  const lengthAt = beginBlock(writer, sample.enterprise, sample.format)
  sample.write(writer, value as ValueOf<SampleType>)
  if (sample.records !== undefined) {
    writer.u32(records.length, 'records')
    for (let i = 0; i < records.length; i++) writeRecord(writer, records[i]!)
  }
  if (tail !== undefined) writer.bytes(tail, 'tail')
  endBlock(writer, lengthAt)
}

function writeRecord(writer: Writer, block: RecordBlock): void {
  if ('raw' in block) {
    const lengthAt = beginBlock(writer, block.enterprise, block.format)
    writer.bytes(block.raw, 'record')
    endBlock(writer, lengthAt)
    return
  }
  const { record, value, tail } = block
  const lengthAt = beginBlock(writer, record.enterprise, record.format)
  record.write(writer, value as ValueOf<Declaration>)
  if (tail !== undefined) writer.bytes(tail, 'tail')
  endBlock(writer, lengthAt)
}

/** Format, and room for the length of what follows; gives the place for endBlock(). */
function beginBlock(writer: Writer, enterprise: number, format: number): number {
  writer.u32(dataFormat(enterprise, format), 'format')
  const lengthAt = writer.offset
  writer.u32(0, 'length')
  return lengthAt
}

function endBlock(writer: Writer, lengthAt: number): void {
  writer.view.setUint32(lengthAt, writer.offset - lengthAt - 4)
}
