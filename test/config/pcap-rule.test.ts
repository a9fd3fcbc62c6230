import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import {
  pcapDecisions,
  pcapRate,
  portsWithoutCounters,
  type TappedPort,
} from '../../agent/config/pcap-rule.ts'
import type { Interface } from '../../agent/interfaces.ts'
import { port as makePort } from '../support/port.ts'

function rulesOf(blocks: string) {
  return loadConfig(`sFlow { collector { ip = 192.0.2.1 } ${blocks} }`, 'x').config!.pcap
}

function mapOf(...ports: readonly Interface[]): ReadonlyMap<number, Interface> {
  return new Map(ports.map(port => [port.ifIndex, port]))
}

const rows: [name: string, blocks: string, port: Partial<TappedPort>, index: number, why: string][] = [
  ['no block', '', {}, -1, 'there is no pcap { }'],
  ['an empty block takes hardware', 'pcap { }', {}, 0, 'pcap { } matches'],
  ['an empty block takes bridges', 'pcap { }', { kind: 'bridge' }, 0, 'pcap { } matches'],
  [
    'an empty block leaves veth out',
    'pcap { }',
    { kind: 'veth' },
    -1,
    'an interface of kind veth is sampled only when dev or dev.pattern names it',
  ],
  ['dev takes any kind', 'pcap { dev = eth0 }', { kind: 'veth' }, 0, 'pcap { dev = eth0 } matches'],
  ['dev is the whole name', 'pcap { dev = eth }', {}, -1, 'no pcap { } names it'],
  ['a pattern matches anywhere', 'pcap { dev.pattern = th }', {}, 0, 'pcap { dev.pattern = th } matches'],
  ['a pattern that does not match', 'pcap { dev.pattern = ^th }', {}, -1, 'no pcap { } names it'],
  [
    'a pattern takes any kind',
    'pcap { dev.pattern = ^eth }',
    { kind: 'veth' },
    0,
    'pcap { dev.pattern = ^eth } matches',
  ],
  [
    'loopback has to be named',
    'pcap { dev.pattern = . }',
    { loopback: true },
    -1,
    'the loopback interface is sampled only when dev names it',
  ],
  [
    'dev counts, not the pattern beside it',
    'pcap { dev = eth0 dev.pattern = ^x }',
    {},
    0,
    'pcap { dev = eth0 } matches',
  ],
  ['speed, exactly', 'pcap { speed = 10G }', {}, 0, 'pcap { speed = 10G } matches'],
  ['speed in a range', 'pcap { speed = 1G-10G }', {}, 0, 'pcap { speed = 1G-10G } matches'],
  ['speed out of range', 'pcap { speed = 1G }', {}, -1, 'pcap { speed = 1G } asks for another speed'],
  [
    'speed not known',
    'pcap { speed = 1G- }',
    { speedBitsPerSecond: 0 },
    -1,
    'its speed is not known, and pcap { speed = 1G- } asks for one',
  ],
  [
    'a range from 0 takes it',
    'pcap { speed = 0-1G }',
    { speedBitsPerSecond: 0 },
    0,
    'pcap { speed = 0-1G } matches',
  ],
  [
    'speed counts beside dev',
    'pcap { dev = eth0 speed = 1G }',
    {},
    -1,
    'pcap { dev = eth0 speed = 1G } asks for another speed',
  ],
  ['the last block that matches decides', 'pcap { } epcap { } pcap { dev = x }', {}, 1, 'pcap { } matches'],
]
for (const [name, blocks, values, index, why] of rows) {
  test(`pcap: ${name}`, () => {
    const rules = rulesOf(blocks)
    const decisions = pcapDecisions(rules, mapOf(makePort(2, 'eth0', values)))
    assert.deepEqual([...decisions], [[2, { rule: rules[index], index, why }]])
  })
}

/** A host with all that stands upon each other. */
const HOST = mapOf(
  makePort(1, 'lo', { loopback: true }),
  makePort(2, 'eth0'),
  makePort(3, 'eth1', { masterIfIndex: 10, masterKind: 'bond' }),
  makePort(4, 'eth2', { masterIfIndex: 10, masterKind: 'bond' }),
  makePort(5, 'eth3', { masterIfIndex: 12, masterKind: 'bridge' }),
  makePort(6, 'veth7', { kind: 'veth', masterIfIndex: 12, masterKind: 'bridge', linkNetnsId: 0 }),
  makePort(7, 'veth8', { kind: 'veth', masterIfIndex: 13, masterKind: 'bridge', linkNetnsId: 1 }),
  makePort(10, 'bond0', { kind: 'bond', masterIfIndex: 14, masterKind: 'bridge' }),
  makePort(11, 'eth0.10', { kind: 'vlan', linkIfIndex: 2 }),
  makePort(12, 'br0', { kind: 'bridge' }),
  makePort(13, 'docker0', { kind: 'bridge' }),
  makePort(14, 'br1', { kind: 'bridge' }),
)

const SETS: [name: string, blocks: string, chosen: string][] = [
  [
    'all: the lowest of each, and a bridge whose ports are not taken',
    'pcap { }',
    'eth0 eth1 eth2 eth3 docker0',
  ],
  ['a pattern for what stands above', 'pcap { dev.pattern = ^(bond|br) }', 'bond0 br0'],
  [
    'a pattern for veths takes them, and not their bridge',
    'pcap { } pcap { dev.pattern = ^veth }',
    'eth0 eth1 eth2 eth3 veth7 veth8',
  ],
  ['a bond that is named, and not its members', 'pcap { } pcap { dev = bond0 }', 'eth0 eth3 bond0 docker0'],
  [
    'a bridge that is named: nothing below it, however deep',
    'pcap { } pcap { dev = br1 }',
    'eth0 eth3 docker0 br1',
  ],
  [
    'what is named is sampled, whatever is below',
    'pcap { dev = bond0 } pcap { dev = eth1 } pcap { dev = lo }',
    'lo eth1 bond0',
  ],
  [
    'a VLAN that is named, and not its parent',
    'pcap { } pcap { dev = eth0.10 }',
    'eth1 eth2 eth3 eth0.10 docker0',
  ],
]
for (const [name, blocks, chosen] of SETS) {
  test(`pcap: of interfaces upon each other: ${name}`, () => {
    const decisions = pcapDecisions(rulesOf(blocks), HOST)
    const names = [...decisions].filter(([, { rule }]) => rule).map(([ifIndex]) => HOST.get(ifIndex)!.name)
    assert.equal(names.join(' '), chosen)
  })
}

test('pcap: why an interface is left to another', () => {
  const why = (blocks: string, ifIndex: number) => pcapDecisions(rulesOf(blocks), HOST).get(ifIndex)!.why
  assert.equal(why('pcap { }', 10), 'its packets are sampled at eth1, eth2')
  assert.equal(why('pcap { }', 14), 'its packets are sampled at eth1, eth2')
  assert.equal(why('pcap { }', 11), 'its packets are sampled at eth0')
  assert.equal(why('pcap { } pcap { dev = br1 }', 3), 'its packets are sampled at br1')
})

test('pcap: vport = off leaves out the counters of the ports of a bridge that are not sampled', () => {
  const leftOut = (blocks: string) =>
    [...portsWithoutCounters(rulesOf(blocks), HOST)].map(ifIndex => HOST.get(ifIndex)!.name)
  assert.deepEqual(leftOut('pcap { }'), [])
  assert.deepEqual(leftOut('pcap { dev = br0 }'), [])
  assert.deepEqual(leftOut('pcap { dev = br0 vport = off }'), ['eth3', 'veth7'])
  assert.deepEqual(leftOut('pcap { dev = br0 vport = off } pcap { dev = eth3 }'), ['veth7'])
})

test('pcap: the rate of a block, else by speed', () => {
  const text =
    'sFlow { collector { ip = 192.0.2.1 } sampling.10G = 7\n pcap { }\n pcap { sampling = 50 }\n pcap { sampling = 0 } }'
  const config = loadConfig(text, 'x').config!
  const up = { speedBitsPerSecond: 10e9, adminUp: true }
  assert.deepEqual(pcapRate(config, 0, up), { rate: 7, rule: 'sampling.10G = 7 (line 1)' })
  assert.deepEqual(pcapRate(config, 1, up), { rate: 50, rule: 'pcap { sampling = 50 } (line 3)' })
  assert.deepEqual(pcapRate(config, 2, up), { rate: 0, rule: 'pcap { sampling = 0 } (line 4)' })
  const down = { rate: 0, rule: 'the interface is administratively down' }
  assert.deepEqual(pcapRate(config, 1, { ...up, adminUp: false }), down)
})
