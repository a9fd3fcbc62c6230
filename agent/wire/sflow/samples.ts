/** The samples a datagram consists of. */

import {
  bits,
  c32,
  c64,
  f32,
  f64,
  ip4,
  ip6,
  list,
  mac,
  oneOf,
  struct,
  text,
  u32,
  u64,
  union,
  type ValueOf,
} from '../struct.ts'
import type { Reader, Writer } from '../xdr.ts'
import { discardReason, meantDiscardReason } from './discard-reasons.ts'
import { dataSourceType, interfaceFormat } from './enumerations.ts'
import { type CounterRecord, type Declaration, dataFormat, type FlowRecord, sampleType } from './record.ts'

const SFLOW_V5 = 'sFlow v5 (2004) §5.3'

/** Interface formats: what the number beside it means. */
export const INTERFACE_INDEX = 0
export const INTERFACE_DISCARDED = 1
export const INTERFACE_MULTIPLE = 2

const compactSource = bits({ type: 8, index: 24 }, 'data source in one word')
const compactInterface = (doc: string) => bits({ format: 2, value: 30 }, `${doc}, in one word`)

const expandedSource = struct(
  { type: oneOf(dataSourceType, 'what the index counts'), index: u32('number in that space') },
  'data source',
)
const expandedInterface = (doc: string) =>
  struct(
    {
      format: oneOf(interfaceFormat, 'what the value means'),
      value: u32('ifIndex (0 unknown, 0x3fffffff this device), discard reason, or number of interfaces'),
    },
    doc,
  )

const packetCounts = {
  sampling_rate: u32('one in this many packets is sampled', 'packets'),
  sample_pool: c32('packets that could have been sampled', 'packets'),
  drops: c32('samples lost in the agent', 'samples'),
}

export const flowSample = sampleType(0, 1, 'flow_sample', SFLOW_V5, 'flow', {
  sequence_number: u32('of the flow samples of this source'),
  source_id: compactSource,
  ...packetCounts,
  input: compactInterface('interface the packet came in by'),
  output: compactInterface('interface the packet went out by'),
})

export const countersSample = sampleType(0, 2, 'counters_sample', SFLOW_V5, 'counter', {
  sequence_number: u32('of the counters samples of this source'),
  source_id: compactSource,
})

export const flowSampleExpanded = sampleType(0, 3, 'flow_sample_expanded', SFLOW_V5, 'flow', {
  sequence_number: u32('of the flow samples of this source'),
  source_id: expandedSource,
  ...packetCounts,
  input: expandedInterface('interface the packet came in by'),
  output: expandedInterface('interface the packet went out by'),
})

export const countersSampleExpanded = sampleType(0, 4, 'counters_sample_expanded', SFLOW_V5, 'counter', {
  sequence_number: u32('of the counters samples of this source'),
  source_id: expandedSource,
})

export const discardedPacket = sampleType(
  0,
  5,
  'discarded_packet',
  'dropped packet structures (2020)',
  'flow',
  {
    sequence_number: u32('of the discarded packets of this source'),
    source_id: expandedSource,
    drops: c32('notifications not sent: rate limit or lack of resources', 'notifications'),
    inputifindex: u32('ifIndex the packet came in by, 0 if unknown'),
    outputifindex: u32('ifIndex the packet should have gone out by, 0 if not known'),
    reason: {
      ...oneOf(discardReason, 'why the packet was dropped'),
      read: (reader: Reader, name: string) => meantDiscardReason(reader.u32(name)),
    },
  },
)

export const rtmetric = sampleType(4300, 1002, 'rtmetric', 'InMon real-time metrics', undefined, {
  datasource: text('name of the source'),
  metrics: list(
    struct({
      name: text('name of the metric', 64),
      metric: union(
        {
          0: text('text', 255),
          1: c32('counter'),
          2: c64('counter'),
          3: u32('gauge'),
          4: u64('gauge'),
          5: f32('gauge'),
          6: f64('gauge'),
        },
        'its value',
      ),
    }),
    'metrics',
  ),
})

export const rtflow = sampleType(4300, 1003, 'rtflow', 'InMon real-time flows', undefined, {
  datasource: text('name of the source'),
  sampling_rate: u32('one in this many is sampled'),
  sample_pool: c32('what could have been sampled'),
  fields: list(
    struct({
      name: text('name of the field', 64),
      field: union(
        {
          0: text('text', 255),
          1: mac('MAC address'),
          2: ip4('IPv4 address'),
          3: ip6('IPv6 address'),
          4: u32('number'),
          5: u64('number'),
          6: f32('number'),
          7: f64('number'),
        },
        'its value',
      ),
    }),
    'fields of the flow',
  ),
})

/** The same in compact and in expanded form. */
export type FlowSample = ValueOf<typeof flowSampleExpanded>
/** The same in compact and in expanded form. */
export type CountersSample = ValueOf<typeof countersSampleExpanded>
export type DiscardedPacket = ValueOf<typeof discardedPacket>
export type DataSource = CountersSample['source_id']
export type Interface = FlowSample['input']

/** One record of a sample to be written. */
export interface RecordValue<D extends Declaration> {
  readonly record: D
  /** The value that belongs to `record`. */
  readonly value: unknown
}

/** A counters sample to be written. */
export interface CountersSampleInput {
  /** Of the counters samples of this source, from 1. */
  readonly sequence: number
  /** Data source type: 0 interface, 2 physical entity, 3 logical entity. */
  readonly sourceType: number
  readonly sourceIndex: number
  /** Generic counters before media counters, new structures last: some receivers stop at what they do not know. */
  readonly records: readonly RecordValue<CounterRecord>[]
}

/** A discarded packet to be written. */
export interface DiscardedPacketInput {
  readonly sample: DiscardedPacket
  /** The sampled header first. */
  readonly records: readonly RecordValue<FlowRecord>[]
}

/** A record with the value that fits its declaration, checked by the compiler. */
export function recordOf<D extends Declaration>(record: D, value: ValueOf<D>): RecordValue<D> {
  return { record, value }
}

/** Format and length, before every sample and record. */
const HEAD_BYTES = 8

/** Bytes that writeCountersSample will write. */
export function countersSampleSize(input: CountersSampleInput): number {
  return HEAD_BYTES + countersSampleExpanded.minSize + recordsSize(input.records)
}

/**
 * Writes counters_sample_expanded (0:4) with its format and length. Fails with a WireError when a value does not
 * fit its field or the sample does not fit the writer; what was written until then is to be discarded.
 */
export function writeCountersSample(writer: Writer, input: CountersSampleInput): void {
  const { sequence, sourceType, sourceIndex, records } = input
  writeBlock(writer, countersSampleExpanded, () => {
    const source_id = { type: sourceType, index: sourceIndex }
    countersSampleExpanded.write(writer, { sequence_number: sequence, source_id })
    writeRecords(writer, records)
  })
}

/** Bytes that writeDiscardedPacket will write. */
export function discardedPacketSize(input: DiscardedPacketInput): number {
  return HEAD_BYTES + discardedPacket.minSize + recordsSize(input.records)
}

/** Writes discarded_packet (0:5) with its format and length; fails as writeCountersSample does. */
export function writeDiscardedPacket(writer: Writer, input: DiscardedPacketInput): void {
  writeBlock(writer, discardedPacket, () => {
    discardedPacket.write(writer, input.sample)
    writeRecords(writer, input.records)
  })
}

function recordsSize(records: readonly RecordValue<Declaration>[]): number {
  let bytes = 4
  for (const { record, value } of records) {
    bytes += HEAD_BYTES + record.size(value as ValueOf<Declaration>)
  }
  return bytes
}

function writeRecords(writer: Writer, records: readonly RecordValue<Declaration>[]): void {
  writer.u32(records.length, 'records')
  for (const { record, value } of records) {
    writeBlock(writer, record, () => record.write(writer, value as ValueOf<Declaration>))
  }
}

/** Format, length, and whatever `body` writes. */
export function writeBlock(
  writer: Writer,
  block: { readonly enterprise: number; readonly format: number },
  body: () => void,
): void {
  writer.u32(dataFormat(block.enterprise, block.format), 'format')
  const lengthAt = writer.offset
  writer.u32(0, 'length')
  body()
  writer.view.setUint32(lengthAt, writer.offset - lengthAt - 4)
}
