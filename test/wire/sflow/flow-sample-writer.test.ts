import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  ABSENT,
  emptyPacketSample,
  INTERNAL_INTERFACE,
  type Tunnel,
} from '../../../agent/samples/packet-sample.ts'
import { formatIp4, formatIp6 } from '../../../agent/wire/addresses.ts'
import { type RecordValue, recordOf, sampleSize, writeSample } from '../../../agent/wire/sflow/block.ts'
import { extendedTcpInfo } from '../../../agent/wire/sflow/flow/application.ts'
import { extendedSwitch } from '../../../agent/wire/sflow/flow/extended.ts'
import {
  extendedEgressQueue,
  extendedQueue,
  extendedTimestamp,
  extendedTransit,
} from '../../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../../agent/wire/sflow/flow/header.ts'
import {
  extendedDecapsulateEgress,
  extendedDecapsulateIngress,
  extendedIpv4TunnelEgress,
  extendedIpv4TunnelIngress,
  extendedIpv6TunnelEgress,
  extendedIpv6TunnelIngress,
  extendedVniEgress,
  extendedVniIngress,
} from '../../../agent/wire/sflow/flow/tunnel.ts'
import {
  flowSampleBytesWithoutHeader,
  writeFlowSample,
} from '../../../agent/wire/sflow/flow-sample-writer.ts'
import { flowSampleExpanded } from '../../../agent/wire/sflow/samples.ts'
import { padded, Writer } from '../../../agent/wire/xdr.ts'

const word = fc.integer({ min: 0, max: 0xffffffff })
const wordOrAbsent = fc.oneof(word, fc.constant(ABSENT))
const ifIndex = fc.oneof(fc.integer({ min: 0, max: 0x7fffffff }), fc.constant(INTERNAL_INTERFACE))

const tunnels = fc.record({
  isOutput: fc.boolean(),
  addressBytes: fc.constantFrom<4 | 16>(4, 16),
  source: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  destination: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  tos: fc.nat(255),
  sourcePort: fc.nat(65535),
  destinationPort: fc.nat(65535),
  id: wordOrAbsent,
})

const tcps = fc.record({
  direction: fc.constantFrom(1, 2),
  sndMss: word,
  rcvMss: word,
  unacked: word,
  lost: word,
  retransmits: word,
  pathMtu: word,
  rtt: word,
  rttVariance: word,
  congestionWindow: word,
  reordering: word,
  leastRtt: word,
})

const cases = fc.record({
  sample: fc.record({
    dataSource: fc.oneof(ifIndex, fc.constant(7)),
    samplingRate: word,
    inputIfIndex: fc.oneof(ifIndex, fc.constant(7)),
    outputIfIndex: ifIndex,
    discardReason: fc.oneof(fc.integer({ min: 0, max: 372 }), fc.constant(ABSENT)),
    headerProtocol: fc.constantFrom(1, 11, 12),
    frameLength: word,
    stripped: fc.nat(100),
    egressQueue: wordOrAbsent,
    queueDepthBytes: wordOrAbsent,
    transitDelayNs: wordOrAbsent,
    timestampHigh: fc.oneof(word, fc.constant(0)),
    timestampLow: word,
    inputVlan: fc.constantFrom(ABSENT, 1, 4094),
    inputPriority: fc.constantFrom(ABSENT, 0, 7),
    outputVlan: fc.constantFrom(ABSENT, 1, 4094),
    outputPriority: fc.constantFrom(ABSENT, 0, 7),
    tunnel: fc.option(tunnels, { nil: undefined }),
    tcp: fc.option(tcps, { nil: undefined }),
    innerOffset: fc.constantFrom(ABSENT, 0, 50),
    innerVni: fc.constantFrom(ABSENT, 0, 0xffffff),
  }),
  source: fc.record({ sequence: word, samplePool: word, drops: word }),
  header: fc.uint8Array({ maxLength: 256 }),
  /** Of the header, bytes that do not go into the datagram. */
  cut: fc.nat(64),
})

test('the writer of the data path writes what the declarations say', () => {
  fc.assert(
    fc.property(cases, ({ sample, source, header, cut }) => {
      const length = Math.max(header.length - cut, 0)
      const records = recordsOf(sample, header.subarray(0, length))
      const declared = {
        sample: flowSampleExpanded,
        value: {
          sequence_number: source.sequence,
          source_id: { type: 0, index: sample.dataSource },
          sampling_rate: sample.samplingRate,
          sample_pool: source.samplePool,
          drops: source.drops,
          input: { format: 0, value: sample.inputIfIndex },
          output:
            sample.discardReason === ABSENT
              ? { format: 0, value: sample.outputIfIndex }
              : { format: 1, value: sample.discardReason },
        },
        records,
      }
      const expected = new Uint8Array(1024).fill(0xaa)
      const writer = new Writer(new DataView(expected.buffer), 40)
      writeSample(writer, declared)

      const written = new Uint8Array(1024).fill(0xaa)
      const headerMemory = new Uint8Array(8 + padded(header.length)).fill(0xbb)
      headerMemory.set(header, 8)
      const packet = {
        ...emptyPacketSample(),
        ...sample,
        headerWords: new Int32Array(headerMemory.buffer),
        headerOffset: 8,
        headerLength: header.length,
      }
      const memory = { view: new DataView(written.buffer), words: new Int32Array(written.buffer) }
      const end = writeFlowSample(memory, 40, packet, source, length)

      assert.deepEqual(written, expected)
      assert.equal(end, writer.offset)
      assert.equal(sampleSize(declared), end - 40)
      assert.equal(flowSampleBytesWithoutHeader(packet) + padded(length), end - 40)
    }),
    { numRuns: 500 },
  )
})

type Fields = Pick<
  ReturnType<typeof emptyPacketSample>,
  | 'headerProtocol'
  | 'frameLength'
  | 'stripped'
  | 'egressQueue'
  | 'queueDepthBytes'
  | 'transitDelayNs'
  | 'timestampHigh'
  | 'timestampLow'
  | 'inputVlan'
  | 'inputPriority'
  | 'outputVlan'
  | 'outputPriority'
  | 'tunnel'
  | 'tcp'
  | 'innerOffset'
  | 'innerVni'
  | 'dataSource'
  | 'inputIfIndex'
>

function tunnelRecords(tunnel: Tunnel): RecordValue[] {
  const { isOutput, addressBytes, tos, id } = tunnel
  const bytes = (address: Uint8Array) => address.subarray(0, addressBytes)
  const common = {
    length: 0,
    protocol: tunnel.destinationPort === 0 ? 0 : 17,
    src_port: tunnel.sourcePort,
    dst_port: tunnel.destinationPort,
    tcp_flags: 0,
  }
  const records: RecordValue[] = []
  if (addressBytes === 4) {
    const addresses = {
      src_ip: formatIp4(bytes(tunnel.source)),
      dst_ip: formatIp4(bytes(tunnel.destination)),
    }
    const record = isOutput ? extendedIpv4TunnelEgress : extendedIpv4TunnelIngress
    records.push(recordOf(record, { ...common, ...addresses, tos }))
  } else {
    const addresses = {
      src_ip: formatIp6(bytes(tunnel.source)),
      dst_ip: formatIp6(bytes(tunnel.destination)),
    }
    const record = isOutput ? extendedIpv6TunnelEgress : extendedIpv6TunnelIngress
    records.push(recordOf(record, { ...common, ...addresses, priority: tos }))
  }
  if (id !== ABSENT) records.push(recordOf(isOutput ? extendedVniEgress : extendedVniIngress, { vni: id }))
  return records
}

function recordsOf(sample: Fields, header: Uint8Array): RecordValue[] {
  const { headerProtocol: protocol, frameLength: frame_length, stripped } = sample
  const records: RecordValue[] = [recordOf(sampledHeader, { protocol, frame_length, stripped, header })]
  if (sample.inputVlan !== ABSENT || sample.outputVlan !== ABSENT) {
    const values = {
      src_vlan: sample.inputVlan >>> 0,
      src_priority: sample.inputPriority >>> 0,
      dst_vlan: sample.outputVlan >>> 0,
      dst_priority: sample.outputPriority >>> 0,
    }
    records.push(recordOf(extendedSwitch, values))
  }
  if (sample.egressQueue !== ABSENT) {
    records.push(recordOf(extendedEgressQueue, { queue: sample.egressQueue }))
    if (sample.queueDepthBytes !== ABSENT) {
      records.push(recordOf(extendedQueue, { depth: sample.queueDepthBytes }))
    }
  }
  if (sample.transitDelayNs !== ABSENT) {
    records.push(recordOf(extendedTransit, { delay: sample.transitDelayNs }))
  }
  if (sample.timestampHigh !== 0) {
    const nanoseconds = (BigInt(sample.timestampHigh) << 32n) | BigInt(sample.timestampLow)
    records.push(recordOf(extendedTimestamp, { nanoseconds }))
  }
  if (sample.tunnel !== undefined) records.push(...tunnelRecords(sample.tunnel))
  const { tcp } = sample
  if (tcp !== undefined) {
    const values = {
      direction: tcp.direction,
      snd_mss: tcp.sndMss,
      rcv_mss: tcp.rcvMss,
      unacked: tcp.unacked,
      lost: tcp.lost,
      retrans: tcp.retransmits,
      pmtu: tcp.pathMtu,
      rtt: tcp.rtt,
      rttvar: tcp.rttVariance,
      snd_cwnd: tcp.congestionWindow,
      reordering: tcp.reordering,
      min_rtt: tcp.leastRtt,
    }
    records.push(recordOf(extendedTcpInfo, values))
  }
  const isIngress = sample.dataSource === sample.inputIfIndex
  if (sample.innerOffset !== ABSENT) {
    const record = isIngress ? extendedDecapsulateEgress : extendedDecapsulateIngress
    records.push(recordOf(record, { inner_header_offset: sample.innerOffset }))
  }
  if (sample.innerVni !== ABSENT) {
    records.push(recordOf(isIngress ? extendedVniEgress : extendedVniIngress, { vni: sample.innerVni }))
  }
  return records
}
