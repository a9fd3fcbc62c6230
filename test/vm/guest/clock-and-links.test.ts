/** What happens to a machine beside the agent: it is killed, the clock is set, all interfaces go and come back. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { modprobe } from '../../support/guest.ts'
import {
  type Collector,
  countersSamplesOf,
  flowSamplesOf,
  ip,
  ipBatch,
  type Lab,
  listen,
  makeLab,
  runWeir,
  sendFlow,
  sink,
  startAgent,
  udpPortOf,
  until,
} from '../../support/lab.ts'

modprobe('veth', 'act_sample', 'cls_matchall', 'sch_ingress')

const UDP_PORT = 6343
const TRAFFIC_PORT = 7000
const PATIENCE_MS = 120_000

function settingsFor({ peer }: Lab): string {
  return `polling = 1
    flush = 20
    sampling = 1
    sampling.10G = 1
    collector { ip = ${peer.mgmt0.ipv4} udpport = ${UDP_PORT} }
    psample { }
    tc { switchport = ^eth0$ sw = on }`
}

/** What classifies packets on the interfaces of the host: queueing disciplines and filters. */
function classifiers({ host }: Lab): string {
  const tc = (...args: string[]) =>
    execFileSync('tc', ['-n', host.namespace, ...args], { encoding: 'utf8' }).trim()
  return ['eth0', 'mgmt0']
    .flatMap(device => [
      tc('qdisc', 'show', 'dev', device),
      ...['ingress', 'egress'].map(direction => tc('filter', 'show', 'dev', device, direction)),
    ])
    .join('\n')
}

/** Samplers of tc on the host's eth0. */
function samplersOf({ host }: Lab): number {
  const args = ['-n', host.namespace, 'filter', 'show', 'dev', 'eth0', 'ingress']
  return execFileSync('tc', args, { encoding: 'utf8' }).match(/action order \d+: sample/g)?.length ?? 0
}

/** Sends until samples of both kinds have come that were not there before. */
async function expectSamples({ host, peer }: Lab, collector: Collector): Promise<void> {
  collector.arrivals.length = 0
  await until('counters samples', () => countersSamplesOf(collector, { type: 2, index: 1 })[0], PATIENCE_MS)
  const look = () => {
    sendFlow(peer.namespace, {
      from: { address: peer.eth0.ipv4, port: TRAFFIC_PORT },
      to: { address: host.eth0.ipv4, port: TRAFFIC_PORT },
      payloadBytes: 100,
      packets: 5,
    })
    return flowSamplesOf(collector).find(sample => udpPortOf(sample) === TRAFFIC_PORT)
  }
  await until('flow samples', look, PATIENCE_MS)
}

test('the clock is set and all interfaces go: samples come again by themselves', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: UDP_PORT })
  sink(t, host.namespace, { address: '0.0.0.0', port: TRAFFIC_PORT })
  const agent = startAgent(t, lab, `${settingsFor(lab)} pcap { dev = mgmt0 }`)
  await agent.line(/^running$/)
  await expectSamples(lab, collector)

  let { uptime } = collector.arrivals.at(-1)!.datagram
  for (const step of ['+1 hour', '-2 hours', '+1 hour']) {
    execFileSync('date', ['--set', step], { stdio: 'ignore' })
    await expectSamples(lab, collector)
    const now = collector.arrivals.at(-1)!.datagram.uptime
    assert.ok(now > uptime && now - uptime < 10 * 60_000, `${step}: uptime ${uptime} → ${now}`)
    uptime = now
  }

  ipBatch(host.namespace, ['link delete eth0', 'link delete mgmt0'])
  await new Promise(resolve => setTimeout(resolve, 3000))
  assert.equal(agent.child.exitCode, null, agent.stderr)
  for (const device of ['eth0', 'mgmt0'] as const) {
    ip(`link add ${device} netns ${host.namespace} type veth peer name ${device} netns ${peer.namespace}`)
    for (const station of [host, peer]) {
      const { mac, ipv4 } = station[device]
      ipBatch(station.namespace, [
        `link set ${device} address ${mac}`,
        `link set ${device} up`,
        `address add ${ipv4}/24 dev ${device}`,
      ])
    }
  }
  await expectSamples(lab, collector)
  assert.equal(samplersOf(lab), 1)
  assert.equal((await agent.stop()).exit, 0)
})

test('killed: `weir cleanup`, or the next one that ends, leaves the interfaces as they were', async t => {
  const lab = makeLab(t)
  const before = classifiers(lab)
  // BPF programs go with their process, and reading the names of all functions takes an emulated processor ten seconds.
  const kill = async () => {
    const agent = startAgent(t, lab, settingsFor(lab))
    await until('a sampler', () => samplersOf(lab) === 1, PATIENCE_MS)
    agent.child.kill('SIGKILL')
    await agent.ended
    assert.equal(samplersOf(lab), 1, 'nobody could take it away')
  }
  await kill()
  const cleanup = runWeir(t, ['ip', 'netns', 'exec', lab.host.namespace], ['cleanup'])
  assert.equal(await cleanup.ended, 0, cleanup.stderr)
  assert.equal(classifiers(lab), before)

  await kill()
  const next = startAgent(t, lab, settingsFor(lab))
  await next.line(/^running$/)
  assert.equal(samplersOf(lab), 1)
  assert.equal((await next.stop()).exit, 0)
  assert.equal(classifiers(lab), before)
})
