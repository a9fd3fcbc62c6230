/** The sampling rate of an interface follows its speed and the configuration, and each sample tells the rate it was taken at. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { modprobe } from '../../support/guest.ts'
import {
  flowSamplesOf,
  ip,
  listen,
  makeLab,
  sendFlow,
  sink,
  startAgent,
  udpPortOf,
  until,
} from '../../support/lab.ts'

modprobe('veth', 'bonding', 'act_sample', 'cls_matchall', 'sch_ingress')

const UDP_PORT = 6343
const TRAFFIC_PORT = 7000

test('rates by speed of a bond whose members come and go', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const stations = [host, peer]
  for (const member of ['slave1', 'slave2']) {
    ip(`link add ${member} netns ${host.namespace} type veth peer name ${member} netns ${peer.namespace}`)
  }
  for (const [i, { namespace }] of stations.entries()) {
    ip(`-n ${namespace} link add bond0 type bond mode balance-rr miimon 20`)
    for (const member of ['slave1', 'slave2']) ip(`-n ${namespace} link set ${member} master bond0`)
    ip(`-n ${namespace} link set bond0 address 02:00:00:00:09:0${i + 1} up`)
    ip(`-n ${namespace} address add 203.0.113.${i + 1}/24 dev bond0`)
    ip(`-n ${namespace} neighbour add 203.0.113.${2 - i} lladdr 02:00:00:00:09:0${2 - i} dev bond0`)
  }
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: UDP_PORT })
  const base = `polling = 0 flush = 20 sampling = 77 psample { } dent { switchport = ^bond0$ sw = on }
    collector { ip = ${peer.mgmt0.ipv4} udpport = ${UDP_PORT} }`
  const agent = startAgent(t, lab, `${base} sampling.20G = 2 sampling.10G = 5`)
  const { file } = await agent.line(/^running$/)
  const change = async (settings: string) => {
    const before = agent.log.length
    writeFileSync(file as string, `sFlow {\n${base} ${settings}\n}\n`)
    agent.child.kill('SIGHUP')
    await agent.line(/^the configuration has changed$/, before)
  }
  /** What the kernel was told, as tc shows it; 0 for no sampler. */
  const rateOfKernel = () => {
    const words = ['-n', host.namespace, 'filter', 'show', 'dev', 'bond0', 'ingress']
    const shown = execFileSync('tc', words, { encoding: 'utf8' })
    return Number(/sample rate 1\/(\d+)/.exec(shown)?.[1] ?? 0)
  }
  const expectRate = (rate: number, why: string) =>
    until(
      () => `1 in ${rate}: ${why}; the kernel has 1 in ${rateOfKernel()}`,
      () => rateOfKernel() === rate,
    )
  let port = TRAFFIC_PORT
  /** Samples that come now tell this rate. */
  const expectSamples = async (rate: number) => {
    const to = { address: '203.0.113.1', port: ++port }
    sink(t, host.namespace, to)
    const samples = () => flowSamplesOf(collector).filter(sample => udpPortOf(sample) === to.port)
    sendFlow(peer.namespace, {
      from: { address: '203.0.113.2', port: TRAFFIC_PORT },
      to,
      payloadBytes: 100,
      packets: 100,
    })
    await until('samples', () => samples().length >= 5)
    for (const { value } of samples()) assert.equal(value.sampling_rate, rate)
  }
  const link = (words: string) => {
    for (const { namespace } of stations) ip(`-n ${namespace} link set ${words}`)
  }

  await expectRate(2, 'two members of 10 Gb/s')
  await expectSamples(2)
  link('slave2 down')
  await expectRate(5, 'one member left')
  await expectSamples(5)
  link('slave2 up')
  await expectRate(2, 'both again')
  await expectSamples(2)

  await change('sampling.bps_ratio = 1M')
  await expectRate(20_000, 'by ratio')
  await change('sampling.bps_ratio = 4M')
  await expectRate(5000, 'by another ratio')
  await change('')
  await expectRate(20_000, 'by speed')
  await change('sampling.bps_ratio = 0')
  await expectRate(77, 'no ratio: the rate for all')
  await change('sampling.20G = 0')
  await expectRate(0, 'none for this speed')
  await change('sampling.20G = 3')
  await expectRate(3, 'and again')
  ip(`-n ${host.namespace} link set bond0 down`)
  await expectRate(0, 'down')
  ip(`-n ${host.namespace} link set bond0 up`)
  await expectRate(3, 'up')
  for (const member of ['slave1', 'slave2']) ip(`-n ${host.namespace} link set ${member} down`)
  await expectRate(77, 'no member, so that the speed is not known')
  await agent.stop()
})
