/** The configuration of a container, from its environment. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { containerConfiguration } from '../../agent/command/container.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { makeLab, runWeir } from '../support/lab.ts'
import { PROGRAM } from '../support/program.ts'

describe('from the environment', () => {
  test('everything that can be said', () => {
    const text = containerConfiguration({
      COLLECTOR: '192.0.2.1, [2001:db8::1]:6344 collector.example.com:7000,2001:db8::2',
      SAMPLING: '100',
      POLLING: '5',
      AGENT: 'eth0',
      INTERFACES: 'eth1-eth3 swp9',
      DROPS: 'on',
      SUBAGENT: '7',
    })
    const { config, problems } = loadConfig(text, 'container')
    assert.deepEqual(problems, [], text)
    assert.deepEqual(
      config!.collectors.map(({ host, port }) => `${host} ${port}`),
      ['192.0.2.1 6343', '2001:db8::1 6344', 'collector.example.com 7000', '2001:db8::2 6343'],
    )
    assert.equal(config!.sampling.rate, 100)
    assert.equal(config!.polling.seconds, 5)
    assert.equal(config!.agent.device, 'eth0')
    assert.equal(config!.subAgentId, 7)
    assert.notEqual(config!.dropmon, undefined)
    assert.deepEqual(
      config!.pcap.map(({ device, sampling }) => [device, sampling]),
      [undefined, 'eth1', 'eth2', 'eth3', 'swp9'].map(device => [device, 100]),
    )
  })

  test('the least', () => {
    const { config, problems } = loadConfig(containerConfiguration({ COLLECTOR: '192.0.2.1' }), 'container')
    assert.deepEqual(problems, [])
    assert.equal(config!.pcap.length, 33)
    assert.equal(config!.dropmon, undefined)
  })

  test('SAMPLING=0 takes no packets; an address for AGENT', () => {
    const text = containerConfiguration({ COLLECTOR: '192.0.2.1', SAMPLING: '0', AGENT: '192.0.2.9' })
    const { config } = loadConfig(text, 'container')
    assert.deepEqual(config!.pcap, [])
    assert.equal(config!.agent.address, '192.0.2.9')
  })

  for (const [environment, expected] of [
    [{}, /^COLLECTOR names nobody to send to, and no \/etc\/weir\.conf or \/etc\/hsflowd\.conf is mounted$/],
    [{ COLLECTOR: 'a:b:c' }, /^COLLECTOR: "a:b:c" is no ADDRESS or ADDRESS:PORT$/],
    [{ COLLECTOR: 'a}{b' }, /^COLLECTOR: "a\}\{b" is no ADDRESS/],
    [{ COLLECTOR: 'a', SAMPLING: '1k' }, /^SAMPLING=1k: expected a whole number$/],
    [{ COLLECTOR: 'a', POLLING: '-1' }, /^POLLING=-1: expected a whole number$/],
    [{ COLLECTOR: 'a', DROPS: 'yes' }, /^DROPS=yes: expected on or off$/],
    [{ COLLECTOR: 'a', INTERFACES: 'eth9-1' }, /^INTERFACES: "eth9-1" is no range of up to 512$/],
    [{ COLLECTOR: 'a', INTERFACES: 'eth9-eth1' }, /^INTERFACES: "eth9-eth1" is no range of up to 512$/],
    [
      { COLLECTOR: 'a', SAMPLING: '10000001' },
      /^SAMPLING=10000001: sampling: expected a whole number from 0 to 10000000, got "10000001"$/,
    ],
    [
      { COLLECTOR: '192.0.2.1 192.0.2.2:99999' },
      /^COLLECTOR=192\.0\.2\.1 192\.0\.2\.2:99999: udpport: expected a whole number from 1 to 65535, got "99999"$/,
    ],
    [{ COLLECTOR: 'a', INTERFACES: 'eth0}' }, /^INTERFACES: "eth0\}" is no name of an interface$/],
  ] as const) {
    test(`refused: ${JSON.stringify(environment)}`, () => {
      assert.throws(() => containerConfiguration(environment), { message: expected })
    })
  }
})

test('WEIR_HEAP_MB limits the heap of the agent, also when it gives up privileges', async t => {
  const lab = makeLab(t)
  const inside = (...environment: string[]) => [
    ...['ip', 'netns', 'exec', lab.host.namespace, 'unshare', '-m'],
    ...['sh', '-c', 'mount -t tmpfs none /run && exec "$@"', 'sh'],
    ...['env', `COLLECTOR=${lab.peer.mgmt0.ipv4}`, 'SAMPLING=0', ...environment],
  ]
  const agent = runWeir(t, inside('WEIR_HEAP_MB=96'), ['container'])
  await agent.line(/^running$/)
  const flags = readFileSync(`/proc/${agent.child.pid}/cmdline`, 'utf8').split('\0').slice(1, 3)
  assert.deepEqual(flags, ['--max-old-space-size=96', PROGRAM])
  assert.equal((await agent.stop()).exit, 0)
  assert.doesNotMatch(agent.stderr, /Warning/)

  const wrong = runWeir(t, inside('WEIR_HEAP_MB=96M'), ['container'])
  assert.equal(await wrong.ended, 1)
  assert.equal(wrong.stderr, 'weir: WEIR_HEAP_MB=96M: expected a whole number\n')
})
