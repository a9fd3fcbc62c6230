/**
 * What the agent sends, as three other programs understand it: sfacctd (flows and counters), sfcapd with nfdump (flows)
 * and tshark (both, on the wire). The traffic is known packet by packet, and all of them have to tell the same of it.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import {
  type DissectedDatagram,
  type DissectedSample,
  dissectedFlows,
  type FlowTotal,
  number,
  type SfacctdCounters,
  startSfacctd,
  startSfcapd,
  startTshark,
  sumFlows,
  type Tree,
} from '../support/collectors.ts'
import {
  type Flow,
  type Lab,
  type LinkCounts,
  linkCounts,
  makeLab,
  sendFlow,
  sendFrames,
  sink,
  startAgent,
  until,
} from '../support/lab.ts'

const SFACCTD_PORT = 6343
const SFCAPD_PORT = 6344
const SUB_AGENT = 4711
const UDP = 17
/** Input or output of a packet that began or ended in the host itself. */
const INTERNAL = 0x3fffffff
const VLAN = 42
/** Octets of a frame beside the UDP payload: Ethernet 14, FCS 4, IPv4 20 or IPv6 40, UDP 8. */
const AROUND_IPV4 = 46
const AROUND_IPV6 = 66
const VLAN_TAG = 4
const FCS = 4

interface Observed {
  readonly lab: Lab
  /** Sent of each flow. */
  readonly packets: number
  /** Flow samples and counters samples that the agent says it has sent. */
  readonly flowSamples: number
  readonly countersSamples: number
  readonly sfacctd: { flows: FlowTotal[]; agents: ReadonlySet<string>; counters: SfacctdCounters[] }
  readonly sfcapd: { flows: FlowTotal[]; packets: number; sequenceErrors: number }
  /** Those to sfacctd, and those to sfcapd. */
  readonly wire: readonly (readonly DissectedDatagram[])[]
  /** eth0, before the first and after the last counters sample. */
  readonly before: LinkCounts
  readonly after: LinkCounts
}

/** Flows of known packets that come in, and one that goes out. */
function flowsOf({ host, peer }: Lab, packets: number): Flow[] {
  const flow = (from: string, to: string, port: number, payloadBytes: number) => ({
    from: { address: from, port },
    to: { address: to, port: port + 1000 },
    payloadBytes,
    packets,
  })
  return [
    flow(peer.eth0.ipv4, host.eth0.ipv4, 5001, 18),
    flow(peer.eth0.ipv4, host.eth0.ipv4, 5002, 1472),
    flow(peer.eth0.ipv6, host.eth0.ipv6, 5003, 200),
    flow(host.eth0.ipv4, peer.eth0.ipv4, 5004, 333),
  ]
}

const TAGGED = { fromPort: 5005, toPort: 6005, payloadBytes: 64 }

/** A UDP packet over IPv4 in an Ethernet frame with a VLAN tag. */
function taggedFrame({ host, peer }: Lab): Uint8Array {
  const { fromPort, toPort, payloadBytes } = TAGGED
  const bytes = Buffer.alloc(14 + 4 + 20 + 8 + payloadBytes)
  bytes.write(`${host.eth0.mac}${peer.eth0.mac}`.replaceAll(':', ''), 'hex')
  bytes.writeUInt32BE(0x8100_0000 + VLAN, 12)
  bytes.writeUInt16BE(0x0800, 16)
  const ip = bytes.subarray(18)
  ip[0] = 0x45
  ip.writeUInt16BE(20 + 8 + payloadBytes, 2)
  ip[8] = 64
  ip[9] = UDP
  ip.set(peer.eth0.ipv4.split('.').map(Number), 12)
  ip.set(host.eth0.ipv4.split('.').map(Number), 16)
  let sum = 0
  for (let at = 0; at < 20; at += 2) sum += ip.readUInt16BE(at)
  ip.writeUInt16BE(0xffff - ((sum & 0xffff) + (sum >> 16)), 10)
  ip.writeUInt16BE(fromPort, 20)
  ip.writeUInt16BE(toPort, 22)
  ip.writeUInt16BE(8 + payloadBytes, 24)
  return bytes
}

/** True while a packet socket, or a UDP socket of a collector, holds what its program has not received yet. */
function hasQueues(namespace: string, kind: 'packet' | 'udp'): boolean {
  const files = kind === 'packet' ? ['/proc/net/packet'] : ['/proc/net/udp', '/proc/net/udp6']
  const tables = execFileSync('ip', ['netns', 'exec', namespace, 'cat', ...files], { encoding: 'utf8' })
  const ports = [SFACCTD_PORT, SFCAPD_PORT].map(port => port.toString(16).toUpperCase()).join('|')
  // "… rmem user inode", and "number: address:port remote state tx_queue:rx_queue …".
  const queue =
    kind === 'packet'
      ? / (\d+) +\d+ +\d+ *$/gm
      : new RegExp(`^ *\\d+: [0-9A-F]+:(?:${ports}) \\S+ \\S+ [0-9A-F]+:([0-9A-F]+) `, 'gm')
  const queues = [...tables.matchAll(queue)].map(match => Number.parseInt(match[1]!, 16))
  // Without a packet socket the agent samples by BPF: the ring buffer, which is not shown, holds many portions.
  assert.ok(kind === 'packet' || queues.length > 0, `no ${kind} socket in ${namespace}`)
  return queues.some(bytes => bytes > 0)
}

/** Runs the agent and the three collectors, sends `packets` packets of each flow (a multiple of 50 × `rate`), and ends them all. */
async function observe(
  t: TestContext,
  rate: number,
  packets: number,
  useIpv6Agent: boolean,
): Promise<Observed> {
  const lab = makeLab(t)
  const { host, peer } = lab
  const addresses = useIpv6Agent ? [peer.mgmt0.ipv6, peer.mgmt0.ipv4] : [peer.mgmt0.ipv4, peer.mgmt0.ipv6]
  const place = { namespace: peer.namespace, folder: join(lab.folder, 'collectors') }
  mkdirSync(place.folder)
  const [sfacctd, sfcapd, tshark] = await Promise.all([
    startSfacctd(t, place, { address: addresses[0]!, port: SFACCTD_PORT }),
    startSfcapd(t, place, { address: addresses[1]!, port: SFCAPD_PORT }),
    startTshark(t, place, 'mgmt0', [SFACCTD_PORT, SFCAPD_PORT]),
  ])
  const flows = flowsOf(lab, packets)
  for (const { from, to } of flows) {
    sink(t, from.address === host.eth0.ipv4 ? peer.namespace : host.namespace, to)
  }

  const before = linkCounts(host.namespace, 'eth0')
  // Wireshark does not step over the content of flow records that it does not know: no queues, no depths.
  const agent = startAgent(
    t,
    lab,
    `sampling = ${rate}
    polling = 1
    subAgentId = ${SUB_AGENT}
    ${useIpv6Agent ? `agentIP = ${host.eth0.ipv6}` : ''}
    collector { ip = ${addresses[0]} udpport = ${SFACCTD_PORT} }
    collector { ip = ${addresses[1]} udpport = ${SFCAPD_PORT} }
    ebpf { transit = off }
    pcap { dev = eth0 sampling = ${rate} }`,
  )
  await agent.line(/^eth0 is sampled/)
  // In portions, so that no socket on the way is ever full: what is to be compared must not be lost.
  const portion = 50 * rate
  for (let sent = 0; sent < packets; sent += portion) {
    for (const flow of flows) {
      const from = flow.from.address === host.eth0.ipv4 ? host : peer
      sendFlow(from.namespace, { ...flow, packets: portion })
    }
    sendFrames(peer.namespace, peer.eth0.ifIndex, taggedFrame(lab), portion)
    await until(
      'empty queues',
      () => !hasQueues(host.namespace, 'packet') && !hasQueues(peer.namespace, 'udp'),
    )
  }
  // Two counters samples of eth0 at least, the second behind the traffic.
  const polled = ofInterface(sfacctd.counters(), host.eth0.ifIndex).length
  await until('counters sample behind the traffic', () => {
    return ofInterface(sfacctd.counters(), host.eth0.ifIndex).length >= Math.max(polled + 1, 2)
  })
  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  // Polls are missed when the machine stands still for a while; samples are not.
  const lost = Object.keys(status.lost).filter(cause => !cause.startsWith('counters/'))
  assert.deepEqual(lost, [])
  const after = linkCounts(host.namespace, 'eth0')
  const counters = sfacctd.counters()
  const [fromSfacctd, fromSfcapd, datagrams] = await Promise.all([
    sfacctd.end(),
    sfcapd.end(),
    tshark.end(2 * status.datagrams),
  ])
  return {
    lab,
    packets,
    flowSamples: status.flowSamples,
    countersSamples: status.countersSamples,
    sfacctd: { ...fromSfacctd, counters },
    sfcapd: fromSfcapd,
    wire: [SFACCTD_PORT, SFCAPD_PORT].map(port => datagrams.filter(({ toPort }) => toPort === port)),
    before,
    after,
  }
}

function ofInterface(counters: readonly SfacctdCounters[], ifIndex: number): SfacctdCounters[] {
  return counters.filter(line => line.ifIndex === ifIndex)
}

/** What each flow has to come to when every packet is sampled. */
function everyPacket(lab: Lab, packets: number): FlowTotal[] {
  const { host, peer } = lab
  const inward = { input: host.eth0.ifIndex, output: INTERNAL }
  const outward = { input: INTERNAL, output: host.eth0.ifIndex }
  const common = { protocol: UDP, rate: 1, samples: packets }
  const untagged = flowsOf(lab, packets).map(({ from, to, payloadBytes }) => {
    const frame = payloadBytes + (from.address.includes(':') ? AROUND_IPV6 : AROUND_IPV4)
    const way = from.address === host.eth0.ipv4 ? outward : inward
    return { ...common, ...way, from, to, vlan: 0, octets: packets * frame }
  })
  const tagged = {
    ...common,
    ...inward,
    from: { address: peer.eth0.ipv4, port: TAGGED.fromPort },
    to: { address: host.eth0.ipv4, port: TAGGED.toPort },
    vlan: VLAN,
    octets: packets * (TAGGED.payloadBytes + AROUND_IPV4 + VLAN_TAG),
  }
  return sumFlows([...untagged, tagged])
}

/** Sequence numbers count up from 1 without a gap: of datagrams, and of samples for each data source and kind. */
function checkSequences(datagrams: readonly DissectedDatagram[]): void {
  assert.deepEqual(
    datagrams.map(({ sequence }) => sequence),
    datagrams.map((_, i) => i + 1),
  )
  const last = new Map<string, number>()
  for (const { format, sourceType, sourceIndex, sequence } of datagrams.flatMap(({ samples }) => samples)) {
    const source = `${format} of ${sourceType}:${sourceIndex}`
    const next = (last.get(source) ?? 0) + 1
    assert.equal(sequence, next, `sequence of samples ${source}`)
    last.set(source, sequence)
  }
}

/** tshark does not step over counter records that it does not know, as those of hosts are. */
function isOfHost({ sourceType }: DissectedSample): boolean {
  return sourceType === 2
}

/** The names that sfacctd and tshark give to fields of if_counters. */
const IF_COUNTERS = [
  ['ifIndex', 'ifindex'],
  ['ifType', 'iftype'],
  ['ifSpeed', 'ifspeed'],
  ['ifDirection', 'ifdirection'],
  ['ifInOctets', 'ifinoct'],
  ['ifInUcastPkts', 'ifinpkt'],
  ['ifInMulticastPkts', 'ifinmcast'],
  ['ifInBroadcastPkts', 'ifinbcast'],
  ['ifInDiscards', 'ifindisc'],
  ['ifInErrors', 'ifinerr'],
  ['ifInUnknownProtos', 'ifinunk'],
  ['ifOutOctets', 'ifoutoct'],
  ['ifOutUcastPkts', 'ifoutpkt'],
  ['ifOutMulticastPkts', 'ifoutmcast'],
  ['ifOutBroadcastPkts', 'ifoutbcast'],
  ['ifOutDiscards', 'ifoutdisc'],
  ['ifOutErrors', 'ifouterr'],
  ['ifPromiscuousMode', 'ifpromisc'],
] as const

/** What a decoder that lacks a counter has to be told. */
const UNKNOWN32 = 0xffffffff
const ETHERNET = 6
const FULL_DUPLEX = 1
const UP = 3
/** What veth says of itself. */
const VETH_BITS_PER_SECOND = 10_000_000_000

/** What the traffic comes to in the kernel's counters of the host. */
function trafficOf(lab: Lab, packets: number) {
  const flows = everyPacket(lab, packets)
  const outward = (flow: FlowTotal) => flow.flow.includes(`${INTERNAL}>`)
  const sum = (part: FlowTotal[]) => ({
    octets: part.reduce((octets, flow) => octets + flow.octets - flow.samples * FCS, 0),
    frames: part.reduce((frames, flow) => frames + flow.samples, 0),
  })
  return [
    { field: 'ifIn', ...sum(flows.filter(flow => !outward(flow))) },
    { field: 'ifOut', ...sum(flows.filter(outward)) },
  ] as const
}

function checkCounters({ lab, packets, sfacctd, wire, before, after }: Observed): void {
  const { ifIndex } = lab.host.eth0
  const lines = ofInterface(sfacctd.counters, ifIndex)
  assert.ok(lines.length >= 2, `${lines.length} counters samples`)
  const dissected = new Map(
    wire[0]!
      .flatMap(({ samples }) => samples)
      .filter(({ sourceType, sourceIndex }) => sourceType === 0 && sourceIndex === ifIndex)
      .filter(({ format }) => format === 4)
      .map(({ sequence, tree }) => [sequence, tree['Generic interface counters'] as Tree]),
  )
  assert.ok(dissected.size > 0, 'tshark shows counters samples')
  for (const [i, line] of lines.entries()) {
    const tree = dissected.get(Number(line.sflow_cnt_seq))
    if (tree !== undefined) {
      for (const [ours, theirs] of IF_COUNTERS) {
        assert.equal(number(tree, `sflow_245.${theirs}`), line[ours], `${ours} of sample ${i + 1}`)
      }
      assert.equal(number(tree, 'sflow_245.ifadmin_status'), 1)
      assert.equal(number(tree, 'sflow_245.ifoper_status'), 1)
    }
    assert.deepEqual(
      [line.ifType, line.ifSpeed, line.ifDirection, line.ifStatus],
      [ETHERNET, VETH_BITS_PER_SECOND, FULL_DUPLEX, UP],
    )
    assert.deepEqual(
      [line.ifInBroadcastPkts, line.ifInUnknownProtos, line.ifOutMulticastPkts, line.ifOutBroadcastPkts],
      [UNKNOWN32, UNKNOWN32, UNKNOWN32, UNKNOWN32],
    )
    const earlier = lines[i - 1]
    const kernel = [
      ['ifInOctets', 'rxBytes'],
      ['ifInUcastPkts', 'rxPackets'],
      ['ifOutOctets', 'txBytes'],
      ['ifOutUcastPkts', 'txPackets'],
    ] as const
    for (const [field, count] of kernel) {
      const value = Number(line[field])
      const least = Number(earlier?.[field] ?? before[count])
      assert.ok(value >= least, `${field} of sample ${i + 1}: ${value} < ${least}`)
      assert.ok(value <= after[count], `${field} of sample ${i + 1}: ${value} > ${after[count]}`)
    }
  }
  // The last one is behind the traffic: all of it is counted, in octets without FCS.
  const last = lines.at(-1)!
  for (const { field, octets, frames } of trafficOf(lab, packets)) {
    assert.ok(
      Number(last[`${field}Octets`]) >= octets,
      `${field}Octets ${last[`${field}Octets`]} < ${octets}`,
    )
    assert.ok(Number(last[`${field}UcastPkts`]) >= frames, `${field}UcastPkts < ${frames}`)
  }
}

/** What holds at any rate: all three saw the same, all of it, once. */
function checkAgreement(observed: Observed, agentAddress: string): void {
  const { lab, sfacctd, sfcapd, wire, flowSamples, countersSamples } = observed
  const samples = wire[0]!.flatMap(datagram => datagram.samples)
  assert.deepEqual(sfcapd.flows, sfacctd.flows, 'nfdump and sfacctd')
  assert.equal(sfcapd.sequenceErrors, 0)
  assert.deepEqual(dissectedFlows(samples), sfacctd.flows, 'tshark and sfacctd')
  assert.equal(samples.length, flowSamples + countersSamples)

  assert.deepEqual(sfacctd.agents, new Set([agentAddress]))
  for (const datagrams of wire) {
    checkSequences(datagrams)
    for (const { agent, subAgentId, malformed, sampleCount, samples } of datagrams) {
      assert.equal(agent, agentAddress)
      assert.equal(subAgentId, SUB_AGENT)
      if (!samples.some(isOfHost)) assert.deepEqual([malformed, samples.length], [false, sampleCount])
    }
    const uptimes = datagrams.map(({ uptimeMs }) => uptimeMs)
    assert.deepEqual(
      uptimes,
      uptimes.toSorted((a, b) => a - b),
    )
  }
  const [toSfacctd, toSfcapd] = wire.map(datagrams => datagrams.map(({ toPort, ...datagram }) => datagram))
  assert.deepEqual(toSfcapd, toSfacctd, 'both collectors get the same')

  for (const { format, sourceType, sourceIndex, tree } of samples) {
    if (format !== 3) continue
    assert.deepEqual([sourceType, sourceIndex], [0, lab.host.eth0.ifIndex])
    assert.equal(number(tree, 'sflow.flow_sample.dropped_packets'), 0)
    const header = tree['Raw packet header'] as Tree
    const frame = number(header, 'sflow_245.header.frame_length')
    const stripped = number(header, 'sflow_245.header.payload_stripped')
    assert.equal(stripped, 4)
    assert.equal(
      number(header, 'sflow_245.header.sampled_header_length'),
      Math.min(128, frame - stripped),
      `header of a frame of ${frame} octets`,
    )
  }
  checkCounters(observed)
}

function poolOf(datagrams: readonly DissectedDatagram[]): number {
  const last = datagrams.flatMap(({ samples }) => samples).findLast(({ format }) => format === 3)
  return number(last!.tree, 'sflow.flow_sample.sample_pool')
}

describe('collectors of others', { concurrency: 2 }, () => {
  test('every packet sampled: exactly what was sent', async t => {
    const packets = 500
    const observed = await observe(t, 1, packets, false)
    const { lab, sfacctd, sfcapd, wire, flowSamples } = observed
    checkAgreement(observed, lab.host.eth0.ipv4)
    assert.deepEqual(sfacctd.flows, everyPacket(lab, packets))
    assert.equal(sfcapd.packets, 5 * packets)
    assert.equal(poolOf(wire[0]!), flowSamples)
  })

  test('1 in 10 sampled: what was sent, within the bound of chance; the agent known by IPv6', async t => {
    const packets = 4000
    const rate = 10
    const observed = await observe(t, rate, packets, true)
    const { lab, sfcapd, wire } = observed
    checkAgreement(observed, lab.host.eth0.ipv6)
    const total = 5 * packets
    // The number of samples is binomial; five standard deviations are left by chance once in 1.7 million runs.
    const bound = (n: number) => 5 * Math.sqrt(n * rate * (1 - 1 / rate))
    assert.ok(
      Math.abs(sfcapd.packets - total) <= bound(total),
      `${sfcapd.packets} packets estimated, ${total} sent`,
    )
    const expected = everyPacket(lab, packets)
    assert.deepEqual(
      sfcapd.flows.map(({ flow }) => flow),
      expected.map(({ flow }) => flow.replace('1/1', `1/${rate}`)),
    )
    for (const [i, { flow, samples, octets }] of sfcapd.flows.entries()) {
      const estimate = samples * rate
      assert.ok(Math.abs(estimate - packets) <= bound(packets), `${flow}: ${estimate} of ${packets} packets`)
      assert.equal(octets / samples, expected[i]!.octets / packets, `frame length of ${flow}`)
    }
    // The kernel's own count, read once a second; what came since then is estimated, or waits for the next count.
    const pool = poolOf(wire[0]!)
    assert.ok(pool > 0 && pool <= total + bound(total), `a pool of ${pool}`)
  })
})
