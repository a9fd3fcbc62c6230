/** Packets that a firewall rule logs, all the way to the wire, and the group free again afterwards. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import {
  flowSamplesOf,
  listen,
  makeLab,
  sendFlow,
  sink,
  startAgent,
  udpPortOf,
  until,
} from '../support/lab.ts'

const GROUP = 9

test('nflog', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const inHost = ['netns', 'exec', host.namespace]
  const rule = `udp dport 7001 log group ${GROUP}`
  execFileSync('ip', [...inHost, 'nft', '-f', '-'], {
    input: `table ip weir { chain logged { type filter hook input priority 0; ${rule}\n }\n }\n`,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  sink(t, host.namespace, { address: host.eth0.ipv4, port: 7001 })
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const agent = startAgent(
    t,
    lab,
    `polling = 0 sampling = 1 nflog { group = ${GROUP} } collector { ip = ${peer.mgmt0.ipv4} }`,
  )
  await agent.line(/^listening to NFLOG group 9$/)
  const from = { address: peer.eth0.ipv4, port: 7000 }
  const to = { address: host.eth0.ipv4, port: 7001 }
  sendFlow(peer.namespace, { from, to, payloadBytes: 100, packets: 5 })
  const samples = await until(
    'the samples',
    () => flowSamplesOf(collector).length >= 5 && flowSamplesOf(collector),
  )
  for (const sample of samples) {
    assert.equal(sample.value.input.value, host.eth0.ifIndex)
    assert.equal(sample.value.sampling_rate, 1)
    assert.equal(udpPortOf(sample), 7001)
  }
  assert.equal(samples.length, 5)
  const bound = () =>
    execFileSync('ip', [...inHost, 'cat', '/proc/net/netfilter/nfnetlink_log'], { encoding: 'utf8' })
  assert.match(bound(), /^ +9 /m)
  // 1 in 0 is none, and the group is free for others.
  const { file } = await agent.line(/^running$/)
  writeFileSync(
    file as string,
    `sFlow { sampling = 0 nflog { group = ${GROUP} } collector { ip = ${peer.mgmt0.ipv4} } }`,
  )
  agent.child.kill('SIGHUP')
  await until('the group to be free', () => bound() === '')
  assert.equal((await agent.stop()).exit, 0)
  assert.equal(bound(), '')
})
