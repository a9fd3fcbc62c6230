/**
 * A kernel that is locked down for confidentiality, as with secure boot it may be: what BPF may still do is done, and what
 * it may not is told. It cannot be undone, so that this file is the last one in its guest.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { SFLOW_PORT } from '../../../agent/wire/sflow/datagram.ts'
import { modprobe, run } from '../../support/guest.ts'
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

const LOCKDOWN = '/sys/kernel/security/lockdown'

modprobe('veth', 'sch_ingress', 'cls_bpf', 'drop_monitor')

test('locked down for confidentiality', async t => {
  run('mount', '-t', 'securityfs', 'securityfs', '/sys/kernel/security')
  writeFileSync(LOCKDOWN, 'confidentiality')
  assert.match(readFileSync(LOCKDOWN, 'utf8'), /\[confidentiality\]/)
  const lab = makeLab(t)
  const { host, peer } = lab
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  sink(t, host.namespace, { address: host.eth0.ipv4, port: 7001 })
  const agent = startAgent(
    t,
    lab,
    `polling = 0 pcap { dev = eth0 sampling = 1 } dropmon { } collector { ip = ${peer.mgmt0.ipv4} }`,
  )
  await agent.line(/^eth0 is sampled/)
  const from = { address: peer.eth0.ipv4, port: 7000 }
  const to = { address: host.eth0.ipv4, port: 7001 }
  sendFlow(peer.namespace, { from, to, payloadBytes: 100, packets: 5 })
  const sampled = () => flowSamplesOf(collector).filter(sample => udpPortOf(sample) === 7001)
  await until('samples', () => sampled().length === 5)
  const told = agent.log.map(({ msg }) => msg)
  const why = 'the kernel is locked down for confidentiality: start it with lockdown=integrity, or without'
  const without = told.find(msg => msg.startsWith('samples have no queue depth and no transit delay: '))
  assert.ok(without?.endsWith(why), told.join('\n'))
  // Drops come by the drop monitor then, or by BPF where its program needs no more than it may have.
  await agent.line(
    /^(listening for dropped packets|dropped packets are taken from the drop monitor, not from BPF: .*locked)/,
  )
  assert.equal((await agent.stop()).exit, 0)
})
