/** A path to a collector on which a router finds datagrams too long: the agent learns it from the network. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { ip, listen, makeLab, sendFlow, sink, startAgent, until } from '../support/lab.ts'

const PORT = 6343
const TRAFFIC_PORT = 7000
/** The least that IPv6 takes, and less than any datagram that is full. */
const MTU = 1280
/** IPv4's or IPv6's header and UDP's. */
const HEADERS = { 4: 28, 6: 48 }

test('datagrams become as short as the narrowest link on their path', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const far = `${peer.namespace}-far`
  ip(`netns add ${far}`)
  t.after(() => void ip(`netns del ${far}`))
  ip(`link add eth2 netns ${peer.namespace} type veth peer name eth0 netns ${far}`)
  for (const [namespace, device, end] of [
    [peer.namespace, 'eth2', 1],
    [far, 'eth0', 2],
  ]) {
    ip(`-n ${namespace} link set ${device} mtu ${MTU} up`)
    ip(`-n ${namespace} address add 203.0.113.${end}/24 dev ${device}`)
    ip(`-n ${namespace} address add 2001:db8:3::${end}/64 dev ${device} nodad`)
  }
  ip(`-n ${host.namespace} route add 203.0.113.0/24 via ${peer.mgmt0.ipv4}`)
  ip(`-n ${host.namespace} route add 2001:db8:3::/64 via ${peer.mgmt0.ipv6}`)
  ip(`-n ${far} route add default via 203.0.113.1`)
  ip(`-n ${far} route add default via 2001:db8:3::1`)
  for (const name of ['ipv4/ip_forward', 'ipv6/conf/all/forwarding']) {
    const words = ['netns', 'exec', peer.namespace, 'tee', `/proc/sys/net/${name}`]
    execFileSync('ip', words, { input: '1', stdio: ['pipe', 'ignore', 'pipe'] })
  }
  const collectors = {
    4: listen(t, far, { address: '203.0.113.2', port: PORT }),
    6: listen(t, far, { address: '2001:db8:3::2', port: PORT }),
  }
  const to = { address: peer.eth0.ipv4, port: TRAFFIC_PORT }
  sink(t, peer.namespace, to)
  const from = { address: host.eth0.ipv4, port: TRAFFIC_PORT }
  // Each collector has datagrams of its own, so that each path is used to its full.
  const agent = startAgent(
    t,
    lab,
    `polling = 0 flush = 20 pcap { dev = eth0 sampling = 1 }
    collector { ip = 203.0.113.2 udpport = ${PORT} }
    collector { ip = 2001:db8:3::2 udpport = ${PORT} send = flows }`,
  )
  await agent.line(/^eth0 is sampled/)
  for (const family of [4, 6] as const) {
    const { arrivals } = collectors[family]
    const most = MTU - HEADERS[family]
    await until(`full datagrams of IPv${family} on the path`, () => {
      sendFlow(host.namespace, { from, to, payloadBytes: 100, packets: 50 })
      // A sample of that flow has less than 250 bytes: a datagram that is full leaves no more room than that.
      return arrivals.slice(-5).filter(({ bytes }) => bytes <= most && bytes > most - 250).length >= 2
    })
    const learnt = arrivals.length
    await until('datagrams after that', () => {
      sendFlow(host.namespace, { from, to, payloadBytes: 100, packets: 50 })
      return arrivals.length > learnt + 10
    })
    for (const { bytes } of arrivals.slice(learnt)) assert.ok(bytes <= most, `${bytes} bytes`)
  }
  const { collectors: status } = await agent.status()
  assert.deepEqual(
    status.map(({ lost }) => lost),
    [0, 0],
  )
})
