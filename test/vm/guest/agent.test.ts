/** The whole agent on a real kernel: what hardware and tc samplers offer, as a collector receives it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { findRecord } from '../../../agent/wire/sflow/block.ts'
import {
  extendedEgressQueue,
  extendedQueue,
  extendedTimestamp,
  extendedTransit,
} from '../../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../../agent/wire/sflow/flow/header.ts'
import { ip, modprobe, netdevsim, run } from '../../support/guest.ts'
import {
  flowSamplesOf,
  listen,
  makeLab,
  type Station,
  sendFlow,
  sink,
  startAgent,
  until,
} from '../../support/lab.ts'

modprobe('veth', 'act_sample', 'cls_matchall', 'sch_ingress')

const UDP_PORT = 6343
const GROUP = 31

test('a switch: queue, depth, transit delay and timestamp reach the collector', async t => {
  const lab = makeLab(t)
  const simulated = netdevsim(t, 10, 2)
  // The switch moves into the agent's namespace, where its ports get new names and indexes.
  run('devlink', 'dev', 'reload', simulated.devlink, 'netns', lab.host.namespace)
  const links = JSON.parse(ip(`-n ${lab.host.namespace} -j -d link show`)) as LinkJson[]
  const [input, output] = links.filter(link => link.parentbus === 'netdevsim').map(link => link.ifindex)
  assert.ok(input !== undefined && output !== undefined, 'the switch has two ports in the namespace')
  const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: UDP_PORT })
  const agent = startAgent(
    t,
    lab,
    `polling = 0
     psample { group = ${GROUP} }
     collector { ip = ${lab.peer.mgmt0.ipv4} udpport = ${UDP_PORT} }`,
  )
  await agent.line(/^listening for samples$/)
  simulated.startSamples({
    group_num: GROUP,
    rate: 4000,
    in_ifindex: input,
    out_ifindex: output,
    out_tc: 5,
    out_tc_occ_max: 65536,
    latency_max: 1048576,
  })
  await until('ten flow samples', () => flowSamplesOf(collector).length >= 10)
  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  assert.deepEqual(status.lost, {})

  const samples = flowSamplesOf(collector)
  assert.equal(samples.length, status.flowSamples)
  samples.forEach(({ value, records, arrival }, index) => {
    assert.equal(value.sequence_number, index + 1)
    assert.deepEqual(value.source_id, { type: 0, index: input })
    assert.deepEqual(value.input, { format: 0, value: input })
    assert.deepEqual(value.output, { format: 0, value: output })
    assert.equal(value.sampling_rate, 4000)
    assert.equal(value.sample_pool, 4000 * (index + 1))
    assert.equal(value.drops, 0)
    const header = findRecord(records, sampledHeader)!
    assert.equal(header.frame_length, 142 + 4)
    assert.equal(header.stripped, 4)
    assert.equal(header.header.length, 128)
    assert.equal(findRecord(records, extendedEgressQueue)!.queue, 5)
    assert.ok(findRecord(records, extendedQueue)!.depth < 65536)
    assert.ok(findRecord(records, extendedTransit)!.delay < 1048576)
    const seenMs = Number(findRecord(records, extendedTimestamp)!.nanoseconds / 1_000_000n)
    assert.ok(seenMs <= arrival.time && seenMs > arrival.time - 10_000, `${arrival.time - seenMs} ms old`)
  })
})

test('overload: packets offered = samples at the collector + losses reported in them', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: UDP_PORT })
  sink(t, peer.namespace, { address: peer.eth0.ipv4, port: 9 })
  sink(t, host.namespace, { address: host.eth0.ipv4, port: 9 })
  const agent = startAgent(
    t,
    lab,
    `polling = 0
     sampling = 1
     sampling.10G = 1
     psample { group = ${GROUP} egress = on }
     tc { switchport = ^eth0$ sw = on }
     collector { ip = ${peer.mgmt0.ipv4} udpport = ${UDP_PORT} }`,
  )
  // The samplers are in place when it says so.
  await agent.line(/^running$/)
  const exchange = (packets: number) => {
    for (const [from, to] of [
      [host, peer],
      [peer, host],
    ] as const) {
      const target = { address: to.eth0.ipv4, port: 9 }
      const source = { address: from.eth0.ipv4, port: 1009 }
      sendFlow(from.namespace, { from: source, to: target, payloadBytes: 100, packets })
    }
  }
  const offered = () => packetsOffered(host).reduce((sum, packets) => sum + packets, 0)
  const last = () => flowSamplesOf(collector).at(-1)!.value

  // While the agent stands still, its socket takes what fits and the kernel drops the rest.
  exchange(100)
  agent.child.kill('SIGSTOP')
  exchange(15_000)
  agent.child.kill('SIGCONT')
  await until('all that the socket held', async () => {
    const before = flowSamplesOf(collector).length
    await sleep(1000)
    return before > 200 && flowSamplesOf(collector).length === before
  })
  // The next packet each way reports the gap before it.
  exchange(1)
  await sleep(1000)
  assert.equal(offered(), 2 * 15_101)
  assert.ok(last().drops > 5000, `${last().drops} drops`)
  assert.equal(flowSamplesOf(collector).length + last().drops, offered())

  // The samplers' count was taken while samples of the packets in it still waited, which then raised the pool again;
  // it stands still until traffic has caught up, and is exact from then on.
  for (let attempt = 0; last().sample_pool !== offered() && attempt < 10; attempt++) {
    exchange(2000)
    await sleep(1500)
    exchange(1)
    await sleep(1000)
  }
  const total = offered()
  assert.equal(last().sample_pool, total)
  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)

  const samples = flowSamplesOf(collector).map(({ value }) => value)
  assert.equal(samples.length, status.flowSamples)
  assert.equal(samples.length + last().drops, total)
  assert.deepEqual(status.lost, { 'psample/socket-overrun': last().drops })
  samples.forEach((sample, index) => {
    const before = samples[index - 1] ?? { sample_pool: 0, drops: 0 }
    assert.deepEqual(sample.source_id, { type: 0, index: host.eth0.ifIndex })
    assert.equal(sample.sequence_number, index + 1)
    assert.ok(sample.sample_pool >= before.sample_pool)
    assert.ok(sample.drops >= before.drops)
  })
  for (const direction of ['ingress', 'egress']) {
    assert.equal(run('tc', '-n', host.namespace, 'filter', 'show', 'dev', 'eth0', direction), '')
  }
})

interface LinkJson {
  readonly ifindex: number
  readonly parentbus?: string
}

/** Packets that each tc sampler on eth0 has counted. */
function packetsOffered({ namespace }: Station): number[] {
  return ['ingress', 'egress'].map(direction => {
    const shown = run('tc', '-n', namespace, '-s', 'filter', 'show', 'dev', 'eth0', direction)
    return Number(/Sent \d+ bytes (\d+) pkt/.exec(shown)![1])
  })
}
