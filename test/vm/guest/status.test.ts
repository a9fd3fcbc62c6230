/** The sums that a running agent tells, under more samples than it takes from PSAMPLE. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { ControlClient } from '../../../agent/control/client.ts'
import type { Identity } from '../../../agent/control/ledger.ts'
import type { Status } from '../../../agent/control/status.ts'
import { SFLOW_PORT } from '../../../agent/wire/sflow/datagram.ts'
import { modprobe } from '../../support/guest.ts'
import { flowSamplesOf, listen, makeLab, sendFlow, sink, startAgent, until } from '../../support/lab.ts'

const PORT = 7000
const BURST = 20_000

test('a burst that overruns PSAMPLE: both sides of each stage are equal', async t => {
  modprobe('veth', 'act_sample', 'cls_matchall', 'sch_ingress', 'psample')
  const lab = makeLab(t)
  const { host, peer, folder } = lab
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const socket = join(folder, 'control.sock')
  const agent = startAgent(
    t,
    lab,
    `polling = 0 sampling.10G = 1 collector { ip = ${peer.mgmt0.ipv4} }
     psample { group = 7 } dent { switchport = "^eth0$" sw = on }`,
    { args: ['--control', socket] },
  )
  await agent.line(/^running$/)
  const client = await until('control socket', () => ControlClient.open(socket).catch(() => undefined))
  t.after(() => client.close())
  const send = (packets: number) =>
    sendFlow(peer.namespace, {
      from: { address: peer.eth0.ipv4, port: PORT },
      to: { address: host.eth0.ipv4, port: PORT },
      payloadBytes: 200,
      packets,
    })
  // Only what comes in is sampled.
  sink(t, host.namespace, { address: host.eth0.ipv4, port: PORT })
  const before = await client.ask<Status>('status')
  assert.equal(before.interfaces.find(({ name }) => name === 'eth0')?.sampledBy, 'tc')

  agent.child.kill('SIGSTOP')
  send(BURST)
  agent.child.kill('SIGCONT')
  // One behind the loss has the sequence number that shows it.
  await until('loss', async () => lostOf(await client.ask<Status>('status')) > 0)
  send(10)
  const stage = (status: Status, name: string): Identity =>
    status.ledger.identities.find(one => one.stage === name)!
  const status = await until('rest', async () => {
    const now = await client.ask<Status>('status')
    return stage(now, 'psample').offered === BURST + 10 && now
  })
  for (const { stage, difference, underWay } of status.ledger.identities) {
    assert.equal(difference, 0, stage)
    assert.equal(underWay, 0, stage)
  }
  assert.equal(status.samples.flows + lostOf(status), BURST + 10)
  await until('all samples', () => flowSamplesOf(collector).length === status.samples.flows)
})

function lostOf({ ledger }: Status): number {
  return ledger.losses.filter(({ stage }) => stage === 'psample').reduce((sum, { count }) => sum + count, 0)
}
