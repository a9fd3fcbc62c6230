/** More packets than the agent takes: what was offered is exported or counted as lost, to the packet. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import {
  flowSamplesOf,
  type LinkCounts,
  linkCounts,
  listen,
  makeLab,
  sendFlow,
  sink,
  startAgent,
  until,
} from '../support/lab.ts'

const PORT = 7000
const BURST = 20_000

const SOURCES = [
  { name: 'the ring buffer', loss: 'bpf/ring-full', under: [] },
  {
    name: 'the packet socket',
    loss: 'packet-socket/socket-overrun',
    under: ['setpriv', '--bounding-set=-sys_admin,-bpf', '--inh-caps=-sys_admin,-bpf'],
  },
]
for (const { name, loss, under } of SOURCES) {
  test(`a burst that overruns ${name}: offered = exported + counted loss`, async t => {
    const lab = makeLab(t)
    const { host, peer } = lab
    const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
    const agent = startAgent(
      t,
      lab,
      `polling = 0
    collector { ip = ${peer.mgmt0.ipv4} }
    pcap { dev = eth0 sampling = 1 }`,
      { under },
    )
    await agent.line(/^running$/)
    const to = { address: host.eth0.ipv4, port: PORT }
    sink(t, host.namespace, to)
    const send = (packets: number) =>
      sendFlow(peer.namespace, {
        from: { address: peer.eth0.ipv4, port: PORT },
        to,
        payloadBytes: 1000,
        packets,
      })
    const total = ({ rxPackets, txPackets }: LinkCounts) => rxPackets + txPackets
    const before = total(linkCounts(host.namespace, 'eth0'))

    // The agent stands still while the packets come: whatever the machine does, its buffer is full.
    agent.child.kill('SIGSTOP')
    send(BURST)
    agent.child.kill('SIGCONT')
    // A sample behind the loss carries it in its `drops`, when the agent has asked the kernel for the count.
    const { lost } = await until('counted loss', async () => {
      const status = await agent.status()
      return status.lost[loss] !== undefined && status
    })
    send(10)
    const offered = total(linkCounts(host.namespace, 'eth0')) - before
    assert.equal(offered, BURST + 10)

    const counted = lost[loss]!
    await until('the rest as samples', () => flowSamplesOf(collector).length >= offered - counted)
    const samples = flowSamplesOf(collector)
    assert.equal(samples.length + counted, offered)
    const { value } = samples.at(-1)!
    assert.equal(value.drops, counted)
    assert.equal(value.sequence_number, samples.length)

    const { exit, status } = await agent.stop()
    assert.equal(exit, 0)
    assert.equal(status.flowSamples, samples.length)
    assert.deepEqual(status.lost, { [loss]: counted })
  })
}
