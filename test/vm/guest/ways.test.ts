/** The ways of datagrams to collectors: a VRF and the main table with the same networks, devices, namespaces. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { modprobe } from '../../support/guest.ts'
import { ip, listen, makeLab, startAgent, until } from '../../support/lab.ts'
import { PROGRAM } from '../../support/program.ts'

modprobe('veth', 'vrf')

const UDP_PORT = 6343

test('a collector in a VRF and one outside it have the same address', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  // mgmt0 goes into a VRF. eth1 leads to another network with the same numbers, by the main table.
  ip(`-n ${host.namespace} link add mgmt type vrf table 10`)
  ip(`-n ${host.namespace} link set mgmt up`)
  ip(`-n ${host.namespace} link set mgmt0 master mgmt`)
  const twin = `${peer.namespace}-twin`
  ip(`netns add ${twin}`)
  t.after(() => void ip(`netns del ${twin}`))
  ip(`link add eth1 netns ${host.namespace} type veth peer name eth0 netns ${twin}`)
  for (const [namespace, device, address] of [
    [host.namespace, 'eth1', host.mgmt0.ipv4],
    [twin, 'eth0', peer.mgmt0.ipv4],
  ]) {
    ip(`-n ${namespace} address add ${address}/24 dev ${device}`)
    ip(`-n ${namespace} link set ${device} up`)
  }
  ip(`-n ${host.namespace} address add 198.51.100.77/24 dev mgmt0`)

  const address = peer.mgmt0.ipv4
  const here = (port: number) => listen(t, peer.namespace, { address, port })
  const there = listen(t, twin, { address, port: UDP_PORT })
  const inVrf = here(UDP_PORT)
  const byDevice = here(UDP_PORT + 1)
  const fromNamespace = here(UDP_PORT + 2)
  const fromSource = here(UDP_PORT + 3)
  const agent = startAgent(
    t,
    lab,
    `polling = 1 flush = 20 subAgentId = 7
    collector { ip = ${address} vrf = mgmt }
    collector { ip = ${address} }
    collector { ip = ${address} udpport = ${UDP_PORT + 1} dev = mgmt0 }
    collector { ip = ${address} udpport = ${UDP_PORT + 2} namespace = ${peer.namespace} }
    collector { ip = ${address} udpport = ${UDP_PORT + 3} vrf = mgmt source = 198.51.100.77 }`,
  )
  for (const [what, { arrivals }] of Object.entries({ inVrf, there, byDevice, fromSource, fromNamespace })) {
    await until(`datagrams ${what}`, () => arrivals.length > 1)
    for (const { datagram } of arrivals) assert.equal(datagram.sub_agent_id, 7)
  }

  // The VRF goes, and its collector only; it comes again, with another ifIndex.
  ip(`-n ${host.namespace} link del mgmt`)
  const names = [
    `${address}:6343 via mgmt`,
    `${address}:6343`,
    `${address}:6344 via mgmt0`,
    `${address}:6345 in ${peer.namespace}`,
    `${address}:6346 via mgmt from 198.51.100.77`,
  ]
  const status = async () => (await agent.status()).collectors
  await until('loss', async () => {
    const [first, second] = await status()
    assert.equal(second?.lost, 0)
    return first !== undefined && first.lost > 0
  })
  assert.deepEqual(
    (await status()).map(({ name }) => name),
    names,
  )
  const { lost } = await agent.status()
  const causes = Object.keys(lost).filter(cause => cause.startsWith('collector '))
  assert.ok(
    causes.every(cause => /^collector \S+ via mgmt( from \S+)?\//.test(cause)) && causes.length > 0,
    causes.join(),
  )
  const weir = [process.execPath, PROGRAM]
  const { spawnargs } = agent.child
  const file = spawnargs[spawnargs.indexOf('-f') + 1]!
  const check = () => {
    const args = ['netns', 'exec', host.namespace, ...weir, 'check', '-f', file]
    return execFileSync('ip', args, { encoding: 'utf8' })
  }
  assert.match(check(), /: warning: there is no interface mgmt now\n/)

  ip(`-n ${host.namespace} link add mgmt type vrf table 10`)
  ip(`-n ${host.namespace} link set mgmt up`)
  ip(`-n ${host.namespace} link set mgmt0 master mgmt`)
  const before = inVrf.arrivals.length
  await until('datagrams in the VRF again', () => inVrf.arrivals.length > before)
  assert.match(check(), /: ok\n$/)
  await agent.stop()
})
