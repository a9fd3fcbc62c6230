import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import { pcapRate, pcapRule, type TappedPort } from '../../agent/config/pcap-rule.ts'

const rows: [name: string, blocks: string, port: Partial<TappedPort>, index: number, why: string][] = [
  ['no block', '', {}, -1, 'there is no pcap { }'],
  ['an empty block takes hardware', 'pcap { }', {}, 0, 'pcap[0] matches'],
  ['an empty block takes bridges', 'pcap { }', { kind: 'bridge' }, 0, 'pcap[0] matches'],
  [
    'an empty block leaves veth out',
    'pcap { }',
    { kind: 'veth' },
    -1,
    'pcap[0] leaves out interfaces of kind veth unless dev names them',
  ],
  ['dev takes any kind', 'pcap { dev = eth0 }', { kind: 'veth' }, 0, 'pcap[0] matches'],
  ['dev is the whole name', 'pcap { dev = eth }', {}, -1, 'no pcap { } names it'],
  ['a pattern matches anywhere', 'pcap { dev.pattern = th }', {}, 0, 'pcap[0] matches'],
  ['a pattern that does not match', 'pcap { dev.pattern = ^th }', {}, -1, 'no pcap { } names it'],
  [
    'a pattern leaves VLANs out',
    'pcap { dev.pattern = ^eth }',
    { kind: 'vlan' },
    -1,
    'pcap[0] leaves out interfaces of kind vlan unless dev names them',
  ],
  ['dev counts, not the pattern beside it', 'pcap { dev = eth0 dev.pattern = ^x }', {}, 0, 'pcap[0] matches'],
  ['speed, exactly', 'pcap { speed = 10G }', {}, 0, 'pcap[0] matches'],
  ['speed in a range', 'pcap { speed = 1G-10G }', {}, 0, 'pcap[0] matches'],
  ['speed out of range', 'pcap { speed = 1G }', {}, -1, 'pcap[0] asks for another speed'],
  [
    'speed not known',
    'pcap { speed = 1G- }',
    { speedBitsPerSecond: 0 },
    -1,
    'its speed is not known, and pcap[0] asks for one',
  ],
  ['a range from 0 takes it', 'pcap { speed = 0-1G }', { speedBitsPerSecond: 0 }, 0, 'pcap[0] matches'],
  ['speed counts beside dev', 'pcap { dev = eth0 speed = 1G }', {}, -1, 'pcap[0] asks for another speed'],
  ['the last block that matches decides', 'pcap { } epcap { } pcap { dev = x }', {}, 1, 'pcap[1] matches'],
]
for (const [name, blocks, port, index, why] of rows) {
  test(`pcap: ${name}`, () => {
    const { config } = loadConfig(`sFlow { collector { ip = 192.0.2.1 } ${blocks} }`, 'x')
    const rules = config!.pcap
    const decision = pcapRule(rules, { name: 'eth0', kind: undefined, speedBitsPerSecond: 10e9, ...port })
    assert.deepEqual(decision, { rule: rules[index], index, why })
  })
}

test('pcap: the rate of a block, else by speed', () => {
  const text =
    'sFlow { collector { ip = 192.0.2.1 } sampling.10G = 7\n pcap { }\n pcap { sampling = 50 }\n pcap { sampling = 0 } }'
  const config = loadConfig(text, 'x').config!
  const up = { speedBitsPerSecond: 10e9, adminUp: true }
  assert.deepEqual(pcapRate(config, 0, up), { rate: 7, rule: 'sampling.10G = 7 (line 1)' })
  assert.deepEqual(pcapRate(config, 1, up), { rate: 50, rule: 'pcap[1].sampling = 50 (line 3)' })
  assert.deepEqual(pcapRate(config, 2, up), { rate: 0, rule: 'pcap[2].sampling = 0 (line 4)' })
  const down = { rate: 0, rule: 'the interface is administratively down' }
  assert.deepEqual(pcapRate(config, 1, { ...up, adminUp: false }), down)
})
