/** Datagrams for the tests of views, from plain words. */

import { parseIp4 } from '../../agent/wire/addresses.ts'
import { type RecordBlock, recordOf, type SampleBlock } from '../../agent/wire/sflow/block.ts'
import { ifCounters, portName } from '../../agent/wire/sflow/counters/interface.ts'
import { encodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import {
  extendedEgressQueue,
  extendedFunction,
  extendedLinuxDropReason,
  extendedQueue,
  extendedTransit,
} from '../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import {
  countersSampleExpanded,
  discardedPacket,
  flowSampleExpanded,
} from '../../agent/wire/sflow/samples.ts'

export interface Packet {
  readonly src?: string
  readonly dst?: string
  readonly sport?: number
  readonly dport?: number
  readonly vlan?: number
  readonly bytes?: number
}

/** The first bytes of a UDP packet in Ethernet. */
export function header({
  src = '10.0.0.1',
  dst = '10.0.0.2',
  sport = 40_000,
  dport = 53,
  vlan,
}: Packet): Buffer {
  const macs = '02000000000202000000000' + '1'
  const tag = vlan === undefined ? '' : `8100${vlan.toString(16).padStart(4, '0')}`
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
  const port = (value: number) => value.toString(16).padStart(4, '0')
  const ip = `4500002c000000004011${'0000'}${hex(parseIp4(src)!)}${hex(parseIp4(dst)!)}`
  return Buffer.from(`${macs}${tag}0800${ip}${port(sport)}${port(dport)}00180000${'00'.repeat(16)}`, 'hex')
}

export interface FlowWords extends Packet {
  readonly rate?: number
  readonly source?: number
  readonly input?: number
  readonly output?: number
  readonly queue?: number
  readonly depth?: number
  readonly delay?: number
}

function packetRecord(words: Packet): RecordBlock {
  const { bytes = 1000 } = words
  return recordOf(sampledHeader, { protocol: 1, frame_length: bytes, stripped: 4, header: header(words) })
}

export function flow(words: FlowWords): SampleBlock {
  const { rate = 100, input = 2, output = 3, source = input, queue, depth, delay } = words
  const records = [packetRecord(words)]
  if (queue !== undefined) records.push(recordOf(extendedEgressQueue, { queue }))
  if (depth !== undefined) records.push(recordOf(extendedQueue, { depth }))
  if (delay !== undefined) records.push(recordOf(extendedTransit, { delay }))
  const value = {
    sequence_number: 1,
    source_id: { type: 0, index: source },
    sampling_rate: rate,
    sample_pool: 0,
    drops: 0,
    input: { format: 0, value: input },
    output: { format: 0, value: output },
  }
  return { sample: flowSampleExpanded, value, records }
}

export interface DropWords extends Packet {
  readonly reason?: number
  readonly kernel?: string
  readonly place?: string
  readonly input?: number
}

export function drop(words: DropWords): SampleBlock {
  const { reason = 258, kernel, place, input = 2 } = words
  const records = [packetRecord(words)]
  if (kernel !== undefined) records.push(recordOf(extendedLinuxDropReason, { reason: kernel }))
  if (place !== undefined) records.push(recordOf(extendedFunction, { symbol: place }))
  const value = {
    sequence_number: 1,
    source_id: { type: 0, index: input },
    drops: 0,
    inputifindex: input,
    outputifindex: 0,
    reason,
  }
  return { sample: discardedPacket, value, records }
}

export interface CounterWords {
  readonly name?: string
  readonly inOctets?: bigint
  readonly outOctets?: bigint
  readonly inPackets?: number
  readonly inErrors?: number
  readonly outDiscards?: number
  readonly speed?: bigint
  readonly up?: boolean
}

export function counters(ifIndex: number, words: CounterWords): SampleBlock {
  const { name, inOctets = 0n, outOctets = 0n, inPackets = 0, inErrors = 0, outDiscards = 0 } = words
  const { speed = 1_000_000_000n, up = true } = words
  const UNKNOWN = 0xffffffff
  const records: RecordBlock[] = [
    recordOf(ifCounters, {
      ifIndex,
      ifType: 6,
      ifSpeed: speed,
      ifDirection: 1,
      ifStatus: up ? 3 : 1,
      ifInOctets: inOctets,
      ifInUcastPkts: inPackets,
      ifInMulticastPkts: UNKNOWN,
      ifInBroadcastPkts: UNKNOWN,
      ifInDiscards: 0,
      ifInErrors: inErrors,
      ifInUnknownProtos: UNKNOWN,
      ifOutOctets: outOctets,
      ifOutUcastPkts: 0,
      ifOutMulticastPkts: UNKNOWN,
      ifOutBroadcastPkts: UNKNOWN,
      ifOutDiscards: outDiscards,
      ifOutErrors: 0,
      ifPromiscuousMode: 0,
    }),
  ]
  if (name !== undefined) records.push(recordOf(portName, { name }))
  const value = { sequence_number: 1, source_id: { type: 0, index: ifIndex } }
  return { sample: countersSampleExpanded, value, records }
}

let sequence = 0

/** A datagram of agent 192.0.2.1, or another. */
export function datagram(
  samples: readonly SampleBlock[],
  { agent = '192.0.2.1', uptime = 1000 } = {},
): Uint8Array {
  return encodeDatagram({
    agent_address: agent,
    sub_agent_id: 0,
    sequence_number: ++sequence,
    uptime,
    samples,
  })
}
