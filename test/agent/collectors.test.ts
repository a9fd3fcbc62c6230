/** Collectors that cannot be reached, each in its own way, beside others that can: these get everything. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type Collector,
  countersSamplesOf,
  ip,
  ipBatch,
  listen,
  makeLab,
  startAgent,
  until,
} from '../support/lab.ts'

const HOST = { type: 2, index: 1 }
const LOG_WARN = 40
const PORT = 6343
/** Both ends of an interface that comes late. */
const LATE = { here: '203.0.113.1', there: '203.0.113.2' }

test('collectors that cannot be reached do no harm to others', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  // There is no default route: what is not on a cable is unreachable.
  ip(`-n ${peer.namespace} address add ${LATE.there}/32 dev lo`)
  const good = {
    ipv4: listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: PORT }),
    ipv6: listen(t, peer.namespace, { address: peer.mgmt0.ipv6, port: PORT }),
    bound: listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: PORT + 1 }),
    elsewhere: listen(t, peer.namespace, { address: '127.0.0.1', port: PORT + 2 }),
  }
  const named = ['127.0.0.1', '::1'].map(address => listen(t, host.namespace, { address, port: PORT + 3 }))
  const agent = startAgent(
    t,
    lab,
    `  polling = 1
    collector { name = unresolved ip = collector.invalid }
    collector { name = closed ip = ${peer.mgmt0.ipv4} udpport = ${PORT + 9} }
    collector { name = unrouted ip = 198.18.0.1 }
    collector { name = late ip = ${LATE.there} dev = late0 }
    collector { name = missing ip = ${peer.mgmt0.ipv4} namespace = weir-K-missing }
    collector { name = ipv4 ip = ${peer.mgmt0.ipv4} }
    collector { name = ipv6 ip = ${peer.mgmt0.ipv6} }
    collector { name = bound ip = ${peer.mgmt0.ipv4} udpport = ${PORT + 1} dev = mgmt0 }
    collector { name = elsewhere ip = 127.0.0.1 udpport = ${PORT + 2} namespace = ${peer.namespace} }
    collector { name = localhost ip = localhost udpport = ${PORT + 3} }`,
  )
  const polls = (collector: Collector) => countersSamplesOf(collector, HOST).length
  for (const collector of Object.values(good)) await until('two polls', () => polls(collector) >= 2)
  const isNamed = () => named.find(({ arrivals }) => arrivals.length > 0)
  await until('datagrams at localhost', isNamed)

  // The one whose device is missing is tried again, and found when the device is there, even for a second time.
  const late = listen(t, peer.namespace, { address: LATE.there, port: PORT })
  const plugIn = async () => {
    ip(`-n ${host.namespace} link add late0 type veth peer name late0 netns ${peer.namespace}`)
    ipBatch(host.namespace, [`address add ${LATE.here}/24 dev late0`, 'link set late0 up'])
    ipBatch(peer.namespace, ['link set late0 up'])
    const before = late.arrivals.length
    await until('datagrams through the late device', () => late.arrivals.length > before)
  }
  await plugIn()
  ip(`-n ${host.namespace} link del late0`)
  await agent.line(/^datagrams to 203.0.113.2 port 6343 are not sent: /)
  await plugIn()

  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  const of = (name: string) => status.collectors.find(collector => collector.name === name)!

  for (const [name, { arrivals }] of Object.entries(good)) {
    await until(`last datagram at ${name}`, () => arrivals.length === status.datagrams)
    assert.deepEqual(
      arrivals.map(({ datagram }) => datagram.sequence_number),
      arrivals.map((_, i) => i + 1),
    )
    assert.deepEqual(
      [of(name).offered, of(name).sent, of(name).lost],
      [status.datagrams, status.datagrams, 0],
    )
    assert.equal(of(name).problem, undefined)
  }
  for (const { name, offered, sent, lost } of status.collectors) {
    assert.deepEqual([offered, sent + lost], [status.datagrams, status.datagrams], name)
    const counted = ['not-ready', 'not-sent'].map(cause => status.lost[`collector ${name}/${cause}`] ?? 0)
    assert.equal(counted[0]! + counted[1]!, lost, name)
  }
  assert.ok(of('localhost').sent > 0)
  assert.ok(of('late').sent >= late.arrivals.length && of('late').lost > 0)
  for (const name of ['unresolved', 'unrouted', 'missing']) assert.equal(of(name).sent, 0)

  const warnings = new Map<unknown, string[]>()
  for (const { level, collector, msg } of agent.log) {
    if (level >= LOG_WARN && collector !== undefined) {
      warnings.set(collector, [...(warnings.get(collector) ?? []), msg])
    }
  }
  const [first, ...more] = warnings.get('late')!
  warnings.delete('late')
  assert.equal(first, 'send through late0: ENODEV (no such device)')
  // Which of them comes depends on how far the kernel is with the device when a datagram is sent, or a socket opened.
  for (const msg of more) {
    assert.match(msg, /^(datagrams|send|connect) (to|through) \S+.*: (ENODEV|ENETUNREACH|ENXIO)/)
  }
  assert.deepEqual(Object.fromEntries(warnings), {
    unresolved: ["cannot resolve 'collector.invalid': getaddrinfo EAI_AGAIN collector.invalid"],
    closed: [`datagrams to ${peer.mgmt0.ipv4} port ${PORT + 9} do not arrive: ECONNREFUSED`],
    unrouted: ['connect to 198.18.0.1 port 6343: ENETUNREACH (network is unreachable)'],
    missing: ['open network namespace /var/run/netns/weir-K-missing: ENOENT (no such file or directory)'],
  })
  assert.ok(of('closed').reported > 0)
})
