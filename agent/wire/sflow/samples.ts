/** The samples a datagram consists of. */

import {
  bits,
  c32,
  c64,
  f32,
  f64,
  ip4,
  ip6,
  type Kind,
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
import { type RecordValue, type SampleBlock, type SampleValue, sampleSize, writeSample } from './block.ts'
import { discardReason, meantDiscardReason } from './discard-reasons.ts'
import { dataSourceType, interfaceFormat } from './enumerations.ts'
import { type CounterRecord, type FlowRecord, sampleType } from './record.ts'

const SFLOW_V5 = 'sFlow v5 (2004) §5'

/** Interface formats: what the number beside it means. */
export const INTERFACE_INDEX = 0
export const INTERFACE_DISCARDED = 1
export const INTERFACE_MULTIPLE = 2

const compactSource = bits({ type: 8, index: 24 }, 'data source in one word')

const expandedSource = struct(
  { type: oneOf(dataSourceType, 'what the index counts'), index: u32('number in that space') },
  'data source',
)

const INPUT = 'interface the packet came in by'
const OUTPUT = 'interface the packet went out by'

const compactInterface = (doc: string) => bits({ format: 2, value: 30 }, `${doc}, in one word`)

const expandedInterface = (doc: string) =>
  struct(
    {
      format: oneOf(interfaceFormat, 'what the value means'),
      value: u32('ifIndex (0 unknown, 0x3fffffff this device), discard reason, or number of interfaces'),
    },
    doc,
  )

/** Warns of formats that the field may not have. */
function withFormats<T extends { readonly format: number }>(kind: Kind<T>, most: number): Kind<T> {
  return {
    ...kind,
    read(reader: Reader, name: string) {
      const at = reader.offset
      const value = kind.read(reader, name)
      if (value.format > most) {
        reader.warn('interface-format', `${name} has the format ${value.format}, which it may not have`, at)
      }
      return value
    },
  }
}

const packetCounts = {
  sampling_rate: u32('one in this many packets is sampled', 'packets'),
  sample_pool: c32('packets that could have been sampled', 'packets'),
  drops: c32('samples lost in the agent', 'samples'),
}

export const flowSample = sampleType(0, 1, 'flow_sample', SFLOW_V5, 'flow', {
  sequence_number: u32('of the flow samples of this source'),
  source_id: compactSource,
  ...packetCounts,
  input: withFormats(compactInterface(INPUT), INTERFACE_INDEX),
  output: withFormats(compactInterface(OUTPUT), INTERFACE_MULTIPLE),
})

export const countersSample = sampleType(0, 2, 'counters_sample', SFLOW_V5, 'counter', {
  sequence_number: u32('of the counters samples of this source'),
  source_id: compactSource,
})

export const flowSampleExpanded = sampleType(0, 3, 'flow_sample_expanded', SFLOW_V5, 'flow', {
  sequence_number: u32('of the flow samples of this source'),
  source_id: expandedSource,
  ...packetCounts,
  input: withFormats(expandedInterface(INPUT), INTERFACE_INDEX),
  output: withFormats(expandedInterface(OUTPUT), INTERFACE_MULTIPLE),
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
  readonly packet: DiscardedPacket
  /** The sampled header first. */
  readonly records: readonly RecordValue<FlowRecord>[]
}

/** Bytes that writeCountersSample will write. */
export function countersSampleSize(input: CountersSampleInput): number {
  return sampleSize(countersSampleValue(input))
}

/**
 * Writes counters_sample_expanded (0:4) with its format and length. Fails with a WireError when a value does not
 * fit its field or the sample does not fit the writer; what was written until then is to be discarded.
 */
export function writeCountersSample(writer: Writer, input: CountersSampleInput): void {
  writeSample(writer, countersSampleValue(input))
}

function countersSampleValue(input: CountersSampleInput): SampleValue {
  const value: CountersSample = {
    sequence_number: input.sequence,
    source_id: { type: input.sourceType, index: input.sourceIndex },
  }
  return { sample: countersSampleExpanded, value, records: input.records }
}

/** Bytes that writeDiscardedPacket will write. */
export function discardedPacketSize(input: DiscardedPacketInput): number {
  return sampleSize({ sample: discardedPacket, value: input.packet, records: input.records })
}

/** Writes discarded_packet (0:5) with its format and length; fails as writeCountersSample does. */
export function writeDiscardedPacket(writer: Writer, input: DiscardedPacketInput): void {
  writeSample(writer, { sample: discardedPacket, value: input.packet, records: input.records })
}

/** The value of a flow sample in either form. */
export function flowSampleOf(block: SampleBlock): FlowSample | undefined {
  if (!('sample' in block)) return undefined
  const isFlow = block.sample === flowSample || block.sample === flowSampleExpanded
  return isFlow ? (block.value as FlowSample) : undefined
}

/** The value of a counters sample in either form. */
export function countersSampleOf(block: SampleBlock): CountersSample | undefined {
  if (!('sample' in block)) return undefined
  const isCounters = block.sample === countersSample || block.sample === countersSampleExpanded
  return isCounters ? (block.value as CountersSample) : undefined
}

/** The value of a discarded packet. */
export function discardedPacketOf(block: SampleBlock): DiscardedPacket | undefined {
  return 'sample' in block && block.sample === discardedPacket ? (block.value as DiscardedPacket) : undefined
}
