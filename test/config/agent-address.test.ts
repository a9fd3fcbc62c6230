import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AddressCandidate, chooseAgentAddress } from '../../agent/config/agent-address.ts'
import type { AgentAddressConfig } from '../../agent/config/config.ts'

const NO_RULES: AgentAddressConfig = { address: undefined, device: undefined, cidrs: [] }

function candidate(address: string, more: Partial<AddressCandidate> = {}): AddressCandidate {
  return {
    address,
    ifIndex: 2,
    interfaceName: 'eth0',
    alias: undefined,
    vlan: false,
    up: true,
    permanent: true,
    ...more,
  }
}

function cidr(text: string) {
  const [, mark, address, bits] = /^(!?)(.*)\/(\d+)$/.exec(text)!
  return { address: address!, bits: Number(bits), exclude: mark === '!' }
}

const classes: [address: string, vlan: boolean, score: number][] = [
  ['0.0.0.0', false, 0],
  ['224.0.0.1', false, 0],
  ['240.0.0.1', false, 1],
  ['::', false, 0],
  ['ff02::1', false, 0],
  ['::1', false, 3],
  ['127.0.0.1', false, 4],
  ['127.0.0.1', true, 4],
  ['169.254.1.1', false, 5],
  ['169.254.1.1', true, 5],
  ['fe80::1', false, 6],
  ['fe80::1', true, 6],
  ['2001:db8::1', true, 7],
  ['10.0.0.1', true, 8],
  ['203.0.113.1', true, 8],
  ['fd00::1', false, 9],
  ['fd00::1', true, 9],
  ['2001:db8::1', false, 10],
  ['10.255.0.1', false, 11],
  ['172.16.0.1', false, 11],
  ['172.31.255.1', false, 11],
  ['172.32.0.1', false, 12],
  ['192.168.3.1', false, 11],
  ['203.0.113.1', false, 12],
]
for (const [address, vlan, score] of classes) {
  test(`agent address: ${address}${vlan ? ' on a VLAN' : ''} scores ${score}`, () => {
    const { chosen } = chooseAgentAddress([candidate(address, { vlan })], NO_RULES)
    assert.equal(chosen?.score, score)
    assert.equal(chosen.address, address, 'the only candidate is chosen whatever its score')
  })
}

const eth0 = { interfaceName: 'eth0', ifIndex: 2 }
const eth1 = { interfaceName: 'eth1', ifIndex: 3, alias: 'uplink' }
const choices: [
  name: string,
  candidates: AddressCandidate[],
  rules: Partial<AgentAddressConfig>,
  ranking: [address: string, score: number][],
][] = [
  [
    'public before private before IPv6',
    [candidate('2001:db8::1'), candidate('10.0.0.1'), candidate('203.0.113.1')],
    {},
    [
      ['203.0.113.1', 12],
      ['10.0.0.1', 11],
      ['2001:db8::1', 10],
    ],
  ],
  [
    'the block named first counts most',
    [candidate('203.0.113.1'), candidate('10.0.0.1'), candidate('192.168.0.1')],
    { cidrs: [cidr('10.0.0.0/8'), cidr('192.168.0.0/16')] },
    [
      ['10.0.0.1', 11 + 26],
      ['192.168.0.1', 11 + 13],
      ['203.0.113.1', 12],
    ],
  ],
  [
    'of blocks that overlap, the one named last decides',
    [candidate('10.1.0.1'), candidate('10.2.0.1')],
    { cidrs: [cidr('10.1.0.0/16'), cidr('10.0.0.0/8')] },
    [
      ['10.1.0.1', 11 + 13],
      ['10.2.0.1', 11 + 13],
    ],
  ],
  [
    'an exclusion sets 0',
    [candidate('203.0.113.1'), candidate('fe80::1')],
    { cidrs: [cidr('!203.0.113.0/24')] },
    [
      ['fe80::1', 6],
      ['203.0.113.1', 0],
    ],
  ],
  [
    'what is excluded is taken when there is nothing else',
    [candidate('203.0.113.1')],
    { cidrs: [cidr('!0.0.0.0/0')] },
    [['203.0.113.1', 0]],
  ],
  [
    'an exclusion before a wider block does not count',
    [candidate('10.1.0.1')],
    { cidrs: [cidr('!10.1.0.0/16'), cidr('10.0.0.0/8')] },
    [['10.1.0.1', 11 + 13]],
  ],
  [
    'a block of the other family does not match',
    [candidate('::1')],
    { cidrs: [cidr('0.0.0.0/0')] },
    [['::1', 3]],
  ],
  [
    'the device lifts even its worst address above others',
    [candidate('203.0.113.1', eth0), candidate('fe80::1', eth1)],
    { device: 'eth1' },
    [
      ['fe80::1', 6 + 13],
      ['203.0.113.1', 12],
    ],
  ],
  [
    'the device may be named by its alias',
    [candidate('203.0.113.1', eth0), candidate('10.0.0.1', eth1)],
    { device: 'uplink' },
    [
      ['10.0.0.1', 11 + 13],
      ['203.0.113.1', 12],
    ],
  ],
  [
    'a name counts before an alias',
    [candidate('10.0.0.1', { ...eth0, alias: 'eth1' }), candidate('10.0.0.2', eth1)],
    { device: 'eth1' },
    [
      ['10.0.0.2', 11 + 13],
      ['10.0.0.1', 11],
    ],
  ],
  [
    'tie: an address that may expire stands behind one that is configured',
    [candidate('2001:db8::1', { ...eth0, permanent: false }), candidate('2001:db8::2', eth1)],
    {},
    [
      ['2001:db8::2', 10],
      ['2001:db8::1', 10],
    ],
  ],
  [
    'tie: for IPv4 this makes no difference (DHCP)',
    [candidate('10.0.0.1', { ...eth0, permanent: false }), candidate('10.0.0.2', eth1)],
    {},
    [
      ['10.0.0.1', 11],
      ['10.0.0.2', 11],
    ],
  ],
  [
    'tie: lower ifIndex',
    [candidate('10.0.0.9', eth1), candidate('10.0.0.1', eth0)],
    {},
    [
      ['10.0.0.1', 11],
      ['10.0.0.9', 11],
    ],
  ],
  [
    'tie on one interface: as the kernel lists them',
    [candidate('10.0.0.9'), candidate('10.0.0.1')],
    {},
    [
      ['10.0.0.9', 11],
      ['10.0.0.1', 11],
    ],
  ],
  [
    'an address on two interfaces has the better score and the lower ifIndex',
    [
      candidate('10.0.0.5', { interfaceName: 'eth3', ifIndex: 5 }),
      candidate('10.0.0.1', { ...eth0, vlan: true }),
      candidate('10.0.0.1', { interfaceName: 'eth9', ifIndex: 9 }),
    ],
    {},
    [
      ['10.0.0.1', 11],
      ['10.0.0.5', 11],
    ],
  ],
  [
    'of an interface that is down, the first IPv4 address and all of IPv6',
    [candidate('10.0.0.1'), candidate('10.0.0.2'), candidate('2001:db8::1')].map(one => ({
      ...one,
      up: false,
    })),
    {},
    [
      ['10.0.0.1', 11],
      ['2001:db8::1', 10],
    ],
  ],
]
for (const [name, candidates, rules, ranking] of choices) {
  test(`agent address: ${name}`, () => {
    const { chosen, ranked, note } = chooseAgentAddress(candidates, { ...NO_RULES, ...rules })
    assert.deepEqual(
      ranked.map(({ address, score }) => [address, score]),
      ranking,
    )
    assert.equal(chosen, ranked[0])
    assert.equal(note, undefined)
  })
}

test('agent address: agentIP decides, local or not, and the others are still ranked', () => {
  const rules = { ...NO_RULES, address: '2001:DB8:0::7', device: 'eth0' }
  const { chosen, ranked } = chooseAgentAddress([candidate('10.0.0.1')], rules)
  assert.deepEqual(chosen, {
    address: '2001:db8::7',
    interfaceName: undefined,
    score: 0,
    why: 'agentIP = 2001:DB8:0::7',
  })
  assert.equal(ranked.length, 1)
  assert.equal(
    chooseAgentAddress([candidate('2001:db8::7')], rules).chosen?.interfaceName,
    'eth0',
    'a local one knows its interface',
  )
})

test('agent address: a device that nothing is called leaves an ordinary choice, and a note', () => {
  const { chosen, note } = chooseAgentAddress([candidate('10.0.0.1')], { ...NO_RULES, device: 'eth7' })
  assert.equal(chosen?.score, 11)
  assert.equal(note, 'agent = eth7: no interface of this name or alias has an address')
})

test('agent address: the reason adds up', () => {
  const rules = { ...NO_RULES, device: 'eth0', cidrs: [cidr('10.0.0.0/8')] }
  const { chosen } = chooseAgentAddress([candidate('10.0.0.1')], rules)
  assert.equal(chosen?.why, 'IPv4 private 11, agent.cidr 10.0.0.0/8 +13, agent = eth0 +13')
  assert.equal(chosen.score, 11 + 13 + 13)
})

test('agent address: without candidates there is none', () => {
  assert.deepEqual(chooseAgentAddress([], NO_RULES), { chosen: undefined, ranked: [], note: undefined })
})

test('agent address: among equals the one chosen before stays, and only among equals', () => {
  const equals = [candidate('10.0.0.1', { ifIndex: 2 }), candidate('10.0.0.2', { ifIndex: 3 })]
  const choose = (previous: string | undefined, more: AddressCandidate[] = []) =>
    chooseAgentAddress([...equals, ...more], NO_RULES, previous).chosen?.address
  assert.equal(choose(undefined), '10.0.0.1')
  assert.equal(choose('10.0.0.2'), '10.0.0.2')
  assert.equal(choose('10.9.9.9'), '10.0.0.1', 'it is not there any more')
  assert.equal(choose('10.0.0.2', [candidate('203.0.113.1', { ifIndex: 9 })]), '203.0.113.1')
})
