/** The containerlab topologies, built with network namespaces, with real traffic. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { discardReason } from '../../agent/wire/sflow/discard-reasons.ts'
import { extendedQueue, extendedTransit } from '../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import { discardedPacket, type FlowSample } from '../../agent/wire/sflow/samples.ts'
import { Topology } from '../../packaging/containerlab/netns.ts'
import {
  type ArrivedSample,
  type Collector,
  flowSamplesOf,
  ifIndexOf,
  listen,
  sendFlow,
  sink,
  udpPortOf,
  until,
} from '../support/lab.ts'

let labs = 0

/** What goes wrong with an agent is shown beside the test that fails of it. */
function onOutput(node: string, text: string): void {
  for (const line of text.split('\n')) if (/"level":[4-6]0/.test(line)) console.log(`# ${node}: ${line}`)
}

function lab(t: TestContext, name: string): { topology: Topology; collector: Collector } {
  const topology = new Topology(name, { prefix: `wl${process.pid}-${++labs}`, onOutput })
  t.after(() => topology.stop())
  topology.start()
  const address = topology.address('collector')
  return { topology, collector: listen(t, topology.namespace('collector'), { address, port: SFLOW_PORT }) }
}

/** Flow samples of a UDP port that the agent with this address sent. */
function seen(collector: Collector, agent: string, port: number): ArrivedSample<FlowSample>[] {
  return flowSamplesOf(collector).filter(
    sample => sample.arrival.datagram.agent_address === agent && udpPortOf(sample) === port,
  )
}

test('leaf-spine: a flow is seen by the leaves and spines on its way, and at the right interfaces', async t => {
  const { topology, collector } = lab(t, 'leaf-spine')
  const far = await until('routes', () => {
    const routes = topology.run('leaf1', 'ip route show 10.1.2.0/24')
    return routes.includes('spine') || (routes.match(/nexthop/g) ?? []).length === 2 ? routes : undefined
  })
  assert.match(far, /proto bgp/)
  const [from, to] = ['10.1.1.2', '10.1.2.2'].map(address => ({ address, port: 7000 })) as [
    Endpoint,
    Endpoint,
  ]
  sink(t, topology.namespace('host2'), to)
  const agents = ['leaf1', 'leaf2', 'spine1', 'spine2']
  for (const agent of agents) await agentRuns(topology, collector, agent)
  const samplesOf = (agent: string) => seen(collector, topology.address(agent), to.port)
  const port = (node: string, device: string) => ifIndexOf(topology.namespace(node), device)
  const hasWay = (node: string, input: string, output: string) =>
    samplesOf(node).some(
      ({ value }) => value.input.value === port(node, input) && value.output.value === port(node, output),
    )
  // One flow takes one way, when the routers have agreed which: what was sent before that may have tried both.
  await until('one way through the fabric', async () => {
    collector.arrivals.length = 0
    await until('samples at both leaves', () => {
      sendFlow(topology.namespace('host1'), { from, to, payloadBytes: 400, packets: 200 })
      return samplesOf('leaf1').length > 5 && samplesOf('leaf2').length > 5
    })
    const [spine, other] = ['spine1', 'spine2'].filter(name => samplesOf(name).length > 0)
    if (spine === undefined || other !== undefined) return false
    const up = spine === 'spine1' ? 'eth1' : 'eth2'
    return hasWay('leaf1', 'eth3', up) && hasWay(spine, 'eth1', 'eth2') && hasWay('leaf2', up, 'eth3')
  })
})

test('ddos: the victim stands out; what the router throws away is told with its reason', async t => {
  const { topology, collector } = lab(t, 'ddos')
  await agentRuns(topology, collector, 'router')
  const victim = { address: '198.51.100.2', port: 80 }
  sink(t, topology.namespace('victim'), victim)
  const flood = () => {
    // A hundred sources, as a network of attackers has them: ports of one address here.
    for (let port = 20_000; port < 20_100; port++) {
      const from = { address: '192.0.2.2', port }
      sendFlow(topology.namespace('attacker'), { from, to: victim, payloadBytes: 200, packets: 5 })
    }
  }
  const attack = () => seen(collector, topology.address('router'), victim.port)
  await until('the attack in the samples', () => {
    flood()
    return attack().length > 100
  })
  const port = (device: string) => ifIndexOf(topology.namespace('router'), device)
  const sources = new Set<number>()
  for (const { value, records } of attack()) {
    const { header } = findRecord(records, sampledHeader)!
    const view = new DataView(header.buffer, header.byteOffset, header.byteLength)
    // IPv4 behind an Ethernet header: destination address, UDP source port.
    assert.equal(view.getUint32(30), 0xc6336402)
    sources.add(view.getUint16(34))
    assert.equal(value.sampling_rate, 10)
    assert.ok(
      [value.input.value, value.output.value].includes(port('eth2')) || value.input.value === port('eth1'),
    )
  }
  assert.ok(sources.size > 20, `${sources.size} sources`)

  // The victim is taken off the net, and the flood ends at the router.
  topology.run('router', 'ip route add blackhole 198.51.100.2/32')
  const drops = () =>
    collector.arrivals.flatMap(({ datagram }) =>
      datagram.samples.flatMap(sample =>
        'sample' in sample && sample.sample === discardedPacket ? [sample.value as DiscardedPacket] : [],
      ),
    )
  await until('drops', () => {
    flood()
    return drops().filter(({ inputifindex }) => inputifindex === port('eth1')).length > 10
  })
  const reasons = new Map<string, number>()
  for (const { reason } of drops()) {
    const name = discardReason[reason] ?? String(reason)
    reasons.set(name, (reasons.get(name) ?? 0) + 1)
  }
  const [most] = [...reasons].sort(([, a], [, b]) => b - a)
  console.log(`# reasons: ${[...reasons].map(([name, count]) => `${name} ${count}`).join(', ')}`)
  assert.match(most![0], /route|unreach|blackhole/i)
})

test('queue-depth: the queue before a bottleneck and the time in it', async t => {
  const { topology, collector } = lab(t, 'queue-depth')
  await agentRuns(topology, collector, 'router')
  const to = { address: '198.51.100.2', port: 7000 }
  sink(t, topology.namespace('right'), to)
  const from = { address: '192.0.2.2', port: 7000 }
  const measured = () =>
    seen(collector, topology.address('router'), to.port).flatMap(({ records }) => {
      const queue = findRecord(records, extendedQueue)
      const transit = findRecord(records, extendedTransit)
      return queue === undefined || transit === undefined
        ? []
        : [{ depth: queue.depth, delay: transit.delay }]
    })
  // Sixty packets of 1,000 octets fill a queue of 100 kB, which takes 10 Mbit/s some 50 ms to empty.
  await until('a deep queue', () => {
    sendFlow(topology.namespace('left'), { from, to, payloadBytes: 1000, packets: 60 })
    return measured().some(({ depth, delay }) => depth > 20_000 && delay > 5_000_000)
  })
  // The deeper the queue that a packet finds, the longer it waits: at 10 Mbit/s 800 ns an octet, after the first burst.
  const deep = measured().filter(({ depth }) => depth > 20_000)
  for (const { depth, delay } of deep) {
    assert.ok(delay > (depth - 17_000) * 800 * 0.5, `${depth} octets, ${delay} ns`)
  }
})

interface DiscardedPacket {
  readonly inputifindex: number
  readonly reason: number
}

interface Endpoint {
  readonly address: string
  readonly port: number
}

async function agentRuns(topology: Topology, collector: Collector, node: string): Promise<void> {
  const address = topology.address(node)
  await until(`datagrams of ${node}`, () =>
    collector.arrivals.some(({ datagram }) => datagram.agent_address === address),
  )
}
