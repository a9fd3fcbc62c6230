/** The agent address through changes of the host's addresses. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { ip, listen, makeLab, startAgent, until } from '../support/lab.ts'

test('an address that is gone for a moment is kept, with its sequence of datagrams', async t => {
  const lab = makeLab(t)
  const { namespace, eth0 } = lab.host
  const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
  const agent = startAgent(t, lab, `polling = 1 agent = eth0 collector { ip = ${lab.peer.mgmt0.ipv4} }`)
  await agent.line(/^running$/)
  await until('a datagram', () => collector.arrivals.length > 0)
  ip(`-n ${namespace} address del ${eth0.ipv4}/24 dev eth0`)
  const before = collector.arrivals.length
  await until('datagrams without the address', () => collector.arrivals.length > before + 1)
  ip(`-n ${namespace} address add ${eth0.ipv4}/24 dev eth0`)
  const after = collector.arrivals.length
  await until('datagrams with the address again', () => collector.arrivals.length > after + 1)
  const datagrams = collector.arrivals.map(({ datagram }) => datagram)
  assert.deepEqual(new Set(datagrams.map(datagram => datagram.agent_address)), new Set([eth0.ipv4]))
  assert.deepEqual(
    datagrams.map(datagram => datagram.sequence_number),
    datagrams.map((_, i) => i + 1),
  )
})

test('a host without any address says so', async t => {
  const lab = makeLab(t)
  const { namespace } = lab.host
  for (const device of ['eth0', 'mgmt0', 'lo']) ip(`-n ${namespace} address flush dev ${device}`)
  const agent = startAgent(t, lab, 'polling = 1 collector { ip = 192.0.2.77 }')
  await agent.line(/^no interface has an address to be known by: nothing is sent until one has$/)
})
