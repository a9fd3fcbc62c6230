/** Which interfaces pcap { } samples follows what is plugged in, and what is put upon what. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ip, type LogLine, makeLab, startAgent } from '../support/lab.ts'

test('interfaces that come, and bridges that get ports, while no packet is sampled twice', async t => {
  const lab = makeLab(t)
  const { namespace } = lab.host
  const agent = startAgent(
    t,
    lab,
    `polling = 0
    collector { ip = ${lab.peer.mgmt0.ipv4} }
    pcap { dev.pattern = ^(eth|br) sampling = 1000 }
    pcap { dev = late0 sampling = 7 }`,
  )
  await agent.line(/^running$/)
  assert.deepEqual(sampled(agent.log), ['eth0 is sampled 1 in 1000 by BPF'])

  ip(`-n ${namespace} link add br0 type bridge`)
  ip(`-n ${namespace} link set br0 up`)
  await agent.line(/^br0 is sampled 1 in 1000/)

  // What the bridge passes on is seen at its port from now on.
  ip(`-n ${namespace} link set eth0 master br0`)
  const { why } = await agent.line(/^br0 is not sampled any more/)
  assert.equal(why, 'its packets are sampled at eth0')

  ip(`-n ${namespace} link add late0 type veth peer name late1`)
  ip(`-n ${namespace} link set late0 up`)
  await agent.line(/^late0 is sampled 1 in 7/)

  const from = agent.log.length
  ip(`-n ${namespace} link set eth0 nomaster`)
  await agent.line(/^br0 is sampled 1 in 1000/, from)
  assert.equal((await agent.stop()).exit, 0)
})

function sampled(log: readonly LogLine[]): string[] {
  return log.map(({ msg }) => msg).filter(msg => / is sampled /.test(msg))
}
