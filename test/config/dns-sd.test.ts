import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chooseTargets, withDiscovered } from '../../agent/config/dns-sd.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { effectiveRate } from '../../agent/config/sampling-rate.ts'
import type { SrvRecord } from '../../agent/wire/dns.ts'

const srv = (target: string, priority: number, weight: number): SrvRecord => ({
  type: 'SRV',
  ttlSeconds: 60,
  priority,
  weight,
  port: 6343,
  target,
})
const chosen = async (records: SrvRecord[], unknown: string[] = [], host = 'host1') =>
  (await chooseTargets(records, host, async name => !unknown.includes(name))).map(target => target.host)

test('targets: all of the best priority; the next when none of it has an address', async () => {
  const records = [srv('c', 20, 0), srv('a', 10, 0), srv('b', 10, 0)]
  assert.deepEqual(await chosen(records), ['a', 'b'])
  assert.deepEqual(await chosen(records, ['a']), ['b'])
  assert.deepEqual(await chosen(records, ['a', 'b']), ['c'])
  assert.deepEqual(await chosen(records, ['a', 'b', 'c']), ['a', 'b'], 'they are tried again')
})

test('targets: the root as target says that there is no such service', async () => {
  assert.deepEqual(await chosen([srv('', 0, 0)]), [])
})

test('targets: where weights differ, hosts share them in proportion, and each stays with its own', async () => {
  const records = [srv('a', 0, 30), srv('b', 0, 10), srv('c', 0, 0)]
  const hosts = Array.from({ length: 2000 }, (_, i) => `host${i}`)
  const choices = await Promise.all(hosts.map(host => chosen(records, [], host)))
  const count = (name: string) => choices.filter(choice => choice.length === 1 && choice[0] === name).length
  assert.ok(count('a') > 1400 && count('a') < 1600, `${count('a')} of 2000 chose a`)
  assert.equal(count('a') + count('b'), 2000)
  const without = await Promise.all(hosts.map(host => chosen(records.slice(0, 1), [], host)))
  assert.ok(without.every(([only]) => only === 'a'))
})

const FILE = `sFlow {
  sampling = 5 sampling.1G = 6 polling = 7 headerBytes = 100 datagramBytes = 1200 subAgentId = 9
  agentIP = 192.0.2.1 agent.cidr = 10.0.0.0/8
  collector { ip = 192.0.2.9 }
  dns-sd { domain = .example.test }
  pcap { dev = eth0 }
}`

function configured(texts: string[], targets = [{ host: 'a.example.test', port: 7000 }]) {
  const remarks: string[] = []
  const file = loadConfig(FILE, 'weir.conf').config
  assert.ok(file)
  const discovered = { targets, texts, ttlSeconds: 60 }
  return { config: withDiscovered(file, discovered, text => remarks.push(text)), remarks, file }
}

test('settings: what DNS does not say is the default, whatever the file says', () => {
  const { config, remarks, file } = configured([])
  assert.deepEqual(remarks, [])
  assert.deepEqual(
    config.collectors.map(({ host, port }) => [host, port]),
    [['a.example.test', 7000]],
  )
  assert.deepEqual([config.sampling.rate, config.sampling.bySpeed.size], [400, 0])
  assert.deepEqual([config.polling.seconds, config.headerBytes], [30, 128])
  assert.deepEqual([config.datagramBytes, config.subAgentId], [1200, 9], 'not a matter of DNS')
  assert.deepEqual(config.agent, file.agent)
  assert.equal(config.pcap.length, 1)
})

test('settings: those of DNS', () => {
  const { config, remarks } = configured([
    'txtvers=1',
    'Sampling=50',
    'sampling.10G=1000',
    'polling=20',
    'agentIP=203.0.113.1',
    'agent.cidr=172.16.0.0/12',
    'headerBytes=1000',
  ])
  assert.deepEqual(remarks, [])
  const speedBitsPerSecond = 10e9
  assert.equal(effectiveRate(config, { speedBitsPerSecond, adminUp: true }).rule, 'sampling.10G = 1000 (DNS)')
  assert.deepEqual([config.sampling.rate, config.polling.seconds, config.headerBytes], [50, 20, 256])
  assert.equal(config.agent.address, '203.0.113.1')
  assert.deepEqual(
    config.agent.cidrs.map(({ address }) => address),
    ['172.16.0.0'],
  )
})

test('settings: what cannot be used is told, and the rest holds', () => {
  const { config, remarks } = configured(
    [
      'polling=often',
      'sampling=7',
      'dropLimit=5',
      'dropLimit=many',
      'nonsense',
      'collector { ip = 192.0.2.66 }=1',
      'agent="} evil',
    ],
    [
      { host: 'a.example.test', port: 7000 },
      { host: 'a b', port: 7000 },
    ],
  )
  assert.equal(config.sampling.rate, 7)
  assert.equal(config.agent.device, '"} evil')
  assert.equal(config.collectors.length, 1)
  assert.deepEqual(remarks, [
    'SRV a b: ip: expected an IP address or a host name, got "a b"',
    'TXT "nonsense": not a setting that DNS can give',
    'TXT "collector { ip = 192.0.2.66 }=1": not a setting that DNS can give',
    'TXT "polling=often": polling: expected a whole number from 0 to 300, got "often"',
    'TXT "dropLimit=5": the file has no dropmon { }, so that no drops are reported',
    'TXT "dropLimit=many": expected a whole number from 0 to 10000',
  ])
})

test('dropLimit: how many drops are reported, and whether they are', () => {
  const dropmon = (block: string, texts: string[]) => {
    const { config } = loadConfig(`sFlow { dns-sd { } dropmon { ${block} } }`, 'weir.conf')
    const discovered = { targets: [{ host: 'a', port: 1 }], texts, ttlSeconds: 60 }
    const given = config!.dropmon!
    const effective = withDiscovered(config!, discovered, text => assert.fail(text)).dropmon
    if (effective === undefined) return undefined
    const names = Object.keys(given) as (keyof typeof given)[]
    return Object.fromEntries(names.filter(n => given[n] !== effective[n]).map(n => [n, effective[n]]))
  }
  assert.deepEqual(dropmon('', []), {})
  assert.deepEqual(dropmon('limit = 9', ['dropLimit=55']), { limit: 55 })
  assert.deepEqual(dropmon('', ['DROPLIMIT = 0']), undefined)
  assert.deepEqual(dropmon('start = off hw = off sw = off rn = off', ['dropLimit=7']), {
    start: true,
    software: true,
    reasonNames: true,
    hardwarePassive: true,
    limit: 7,
  })
})

test('nothing is sampled, polled or sent before the first answer, or when the service is withdrawn', () => {
  const { file, config } = configured([], [])
  for (const idle of [config, withDiscovered(file, undefined, () => {})]) {
    assert.deepEqual([idle.collectors, idle.pcap, idle.polling.seconds], [[], [], 0])
  }
})
