/** A configuration that changes while the kernel samples: the samples of an interface stay one sequence. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { modprobe } from '../../support/guest.ts'
import {
  flowSamplesOf,
  listen,
  makeLab,
  sendFlow,
  sink,
  startAgent,
  udpPortOf,
  until,
} from '../../support/lab.ts'

modprobe('veth', 'act_sample', 'cls_matchall', 'sch_ingress')

const UDP_PORT = 6343
const TRAFFIC_PORT = 7000
/** An emulated machine is slow, and slower still when the real one is busy. */
const START_MS = 60_000

test('tc samplers and PSAMPLE groups follow the configuration', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: UDP_PORT })
  const to = { address: host.eth0.ipv4, port: TRAFFIC_PORT }
  sink(t, host.namespace, to)
  const traffic = (packets: number) =>
    sendFlow(peer.namespace, {
      from: { address: peer.eth0.ipv4, port: TRAFFIC_PORT },
      to,
      payloadBytes: 100,
      packets,
    })
  const samples = () => flowSamplesOf(collector).filter(sample => udpPortOf(sample) === TRAFFIC_PORT)
  const base = `polling = 0 flush = 20\ncollector { ip = ${peer.mgmt0.ipv4} udpport = ${UDP_PORT} }`
  const dent = 'dent { switchport = ^eth0$ sw = on }'
  const agent = startAgent(t, lab, `${base} sampling.10G = 1 psample { } ${dent}`)
  const running = await until('start', () => agent.log.find(({ msg }) => msg === 'running'), START_MS)
  const change = async (settings: string) => {
    const before = agent.log.length
    writeFileSync(running.file as string, `sFlow {\n${base} ${settings}\n}\n`)
    agent.child.kill('SIGHUP')
    await agent.line(/^the configuration has changed$/, before)
  }
  /** Sends until the samplers are as they should be: each packet is then sampled. */
  const expectAll = async () => {
    await until('every packet to be sampled', async () => {
      const before = samples().length
      traffic(20)
      const end = performance.now() + 1000
      while (samples().length < before + 20 && performance.now() < end)
        await new Promise(r => setTimeout(r, 20))
      return samples().length === before + 20
    })
  }
  await expectAll()
  await change(`sampling.10G = 5 psample { } ${dent}`)
  await until('samples of the new rate', () => {
    traffic(20)
    return samples().at(-1)?.value.sampling_rate === 5
  })
  await change(`sampling.10G = 1 psample { group = 7 } ${dent}`)
  await expectAll()
  await change(`sampling.10G = 1 subAgentId = 5 psample { group = 7 } ${dent}`)
  await expectAll()
  assert.equal(samples().at(-1)!.arrival.datagram.sub_agent_id, 5)
  await change('sampling.10G = 1 subAgentId = 5')
  const before = samples().length
  traffic(20)
  await change(`sampling.10G = 1 subAgentId = 5 psample { } ${dent}`)
  await expectAll()
  assert.ok(samples().length >= before + 20)

  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  assert.deepEqual(status.lost, {})
  await until('all samples', () => flowSamplesOf(collector).length === status.flowSamples)
  const ofPort = flowSamplesOf(collector).filter(({ value }) => value.source_id.index === host.eth0.ifIndex)
  assert.deepEqual(
    ofPort.map(({ value }) => value.sequence_number),
    ofPort.map((_, i) => i + 1),
  )
  const pools = ofPort.map(({ value }) => value.sample_pool)
  assert.ok(
    pools.every((pool, i) => i === 0 || pool >= pools[i - 1]!),
    'pools never go back',
  )
})
