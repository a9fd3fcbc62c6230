import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { doubtsOf, type Machine } from '../../agent/command/doubts.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { makeCookie } from '../../agent/sources/tc-plan.ts'
import type { SampleAction } from '../../agent/wire/netlink/tc.ts'
import { ip } from '../support/lab.ts'
import { port } from '../support/port.ts'

/** A tc sampler of another program, or of ours with this sub-agent id. */
const action = (group: number, instance?: number): SampleAction => ({
  index: 1,
  rate: 100,
  group,
  truncate: 128,
  control: -1,
  cookie:
    instance === undefined ? new Uint8Array() : makeCookie({ instance, ifIndex: 2, direction: 'ingress' }),
  stats: { packets: 0n, bytes: 0n, hasHardwarePart: false },
})

const machine = (more: Partial<Machine> = {}): Machine => ({
  interfaces: new Map(
    [
      port(1, 'lo', { loopback: true }),
      port(2, 'swp1'),
      port(3, 'mgmt', { kind: 'vrf', alias: 'out of band' }),
      port(4, 'eth0'),
    ].map(one => [one.ifIndex, one]),
  ),
  addresses: new Set(['192.0.2.1', '2001:db8::1']),
  exists: path => path === '/var/run/netns/blue',
  sampleActions: [],
  nflogGroups: new Set(),
  hsflowd: undefined,
  ...more,
})

const C = 'collector { ip = 192.0.2.9 }'
const rows: [settings: string, doubts: readonly string[], more?: Partial<Machine>][] = [
  [C, []],
  ['collector { ip = 192.0.2.9 vrf = mgmt source = 192.0.2.1 }', []],
  ['collector { ip = 192.0.2.9 dev = mgnt }', ['dev: there is no interface mgnt now (mgmt)']],
  ['collector { ip = 192.0.2.9 vrf = red }', ['vrf: there is no interface red now']],
  [
    'collector { ip = 192.0.2.9 source = 192.0.2.7 }',
    ['source: no interface has the address 192.0.2.7 now: nothing can be sent from it'],
  ],
  // What is inside a namespace is not seen from outside.
  ['collector { ip = 192.0.2.9 namespace = blue source = 192.0.2.7 dev = x }', []],
  [
    'collector { ip = 192.0.2.9 namespace = red }',
    ['namespace: there is no network namespace /var/run/netns/red now'],
  ],
  [
    'collector { ip = 192.0.2.9 namespace = /proc/1/ns/none }',
    ['namespace: there is no network namespace /proc/1/ns/none now'],
  ],
  // DNS gives other collectors.
  [`dns-sd { } collector { ip = 192.0.2.9 dev = x }`, []],
  [`${C} agent = eth0`, []],
  [`${C} agent = "out of band"`, []],
  [`${C} agent = eth1`, ['agent: there is no interface eth1 now (eth0)']],
  [`${C} pcap { dev = eth0 } pcap { dev.pattern = ^sw }`, []],
  [`${C} pcap { dev = eth01 }`, ['dev: there is no interface eth01 now (eth0)']],
  [`${C} pcap { dev.pattern = ^enp }`, ['dev.pattern: no interface matches now']],
  [`${C} pcap { speed = 100G }`, []],
  [`${C} psample { } dent { }`, []],
  [
    `${C} psample { } dent { switchport = ^Ethernet }`,
    ['switchport: no interface is a port for tc samplers now'],
  ],
  [`${C} psample { } dent { } pcap { dev = eth0 }`, []],
  [
    `${C} psample { } dent { } pcap { }`,
    ['pcap: swp1 is sampled by tc too: collectors count its packets twice'],
  ],
  [
    `${C} psample { } dent { }`,
    ['psample: PSAMPLE group 1 is used by a tc sampler of another program: those samples come too'],
    { sampleActions: [action(1), action(7), action(1, 100_000)] },
  ],
  [
    `${C} psample { group = 3 egress = on } dent { }`,
    ['group: PSAMPLE group 4 is used by 2 tc samplers of another program: those samples come too'],
    { sampleActions: [action(4), action(4, 5)] },
  ],
  // As with hsflowd: what the file says for all speeds holds for those that are not known.
  [
    `${C} sampling = 10 pcap { dev = eth0 }`,
    [
      'sampling: eth0 is sampled 1 in 10000 by its speed (speed 10G / 1,000,000); sampling.bps_ratio = 0 takes this rate for all',
    ],
  ],
  [
    `${C} packetSamplingRate = 0 psample { } dent { } pcap { dev = eth0 }`,
    [
      'packetSamplingRate: swp1 is sampled 1 in 10000 by its speed (speed 10G / 1,000,000), and 1 more by theirs; sampling.bps_ratio = 0 takes this rate for all',
    ],
  ],
  [`${C} sampling = 10 sampling.bps_ratio = 0 pcap { dev = eth0 }`, []],
  [`${C} sampling = 10 sampling.10G = 100 pcap { dev = eth0 }`, []],
  [`${C} sampling = 10 pcap { dev = eth0 sampling = 5 }`, []],
  [`${C} sampling = 10000 pcap { dev = eth0 }`, []],
  [
    `${C} sampling = 10 pcap { dev = mgmt }`,
    [],
    { interfaces: new Map([[3, port(3, 'mgmt', { speedBitsPerSecond: 0 })]]) },
  ],
  [`${C} sampling = 10 psample { }`, []],
  [`${C} pcap { dev = eth0 }`, []],
  [`dns-sd { } sampling = 10 pcap { dev = eth0 }`, []],
  // Samplers of others are what it is for.
  [`${C} psample { }`, [], { sampleActions: [action(1)] }],
  [
    `${C} nflog { group = 5 }`,
    ['group: NFLOG group 5 is taken by another program now'],
    { nflogGroups: new Set([5]) },
  ],
  [`${C} nflog { group = 6 }`, [], { nflogGroups: new Set([5]) }],
  [
    C,
    ['sFlow: hsflowd runs too, process 7: while both do, collectors count this machine twice'],
    { hsflowd: 7 },
  ],
]
for (const [settings, expected, more] of rows) {
  test(`doubts: ${settings}${more === undefined ? '' : ` with ${Object.keys(more)}`}`, () => {
    const text = `sFlow { ${settings} }`
    const { config, places } = loadConfig(text, 'a')
    const doubts = doubtsOf(config!, places, machine(more)).map(
      ({ severity, column, length, message, suggestion }) => {
        assert.equal(severity, 'warning')
        const where = text.slice(column - 1, column - 1 + length)
        return `${where}: ${message}${suggestion === undefined ? '' : ` (${suggestion})`}`
      },
    )
    assert.deepEqual(doubts, expected)
  })
}

test('weir check looks at the machine it runs on, unless the file is for another one', t => {
  const namespace = `weir-D-${process.pid}`
  ip(`netns add ${namespace}`)
  t.after(() => ip(`netns del ${namespace}`))
  const check = (...args: string[]) => {
    const weir = [
      process.execPath,
      join(import.meta.dirname, '../../agent/main.ts'),
      'check',
      '-f',
      '-',
      ...args,
    ]
    return spawnSync('ip', ['netns', 'exec', namespace, ...weir], {
      input: 'sFlow { collector { ip = 192.0.2.9 dev = mgmt source = 192.0.2.1 } }',
      encoding: 'utf8',
    })
  }
  const before = check('--strict')
  assert.equal(before.stderr, '')
  assert.match(
    before.stdout,
    /no interface mgmt now\n(.*\n)*.*the address 192\.0\.2\.1 now(.*\n)*<stdin>: ok, 2 warnings\n/,
  )
  assert.equal(before.status, 1, '--strict')
  assert.deepEqual([check('--file-only', '--strict').stdout, check().status], ['<stdin>: ok\n', 0])

  ip(`-n ${namespace} link add mgmt type veth peer name other`)
  ip(`-n ${namespace} address add 192.0.2.1/24 dev mgmt`)
  const after = check('--strict')
  assert.deepEqual([after.stdout, after.status], ['<stdin>: ok\n', 0])
})
