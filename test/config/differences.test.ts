import assert from 'node:assert/strict'
import { test } from 'node:test'
import { differences, formatDifference, saysTheSame } from '../../agent/config/differences.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { type Entries, settings } from '../../agent/config/settings.ts'

function configOf(settings: string, file = 'a') {
  const { config } = loadConfig(`sFlow { ${settings} }`, file)
  assert.ok(config)
  return config
}

const ONE = 'collector { ip = 192.0.2.1 }'
const rows: { name: string; before: string; after: string; expected: string[] }[] = [
  { name: 'nothing', before: ONE, after: `\n\n sampling = 400 ${ONE}`, expected: [] },
  {
    name: 'a value, one that is new and one that is gone',
    before: `${ONE} polling = 20 agentIP = 10.0.0.1`,
    after: `${ONE} polling = 10 uuid = 00112233-4455-6677-8899-aabbccddeeff`,
    expected: [
      'polling: 20 → 10',
      'agentIP: 10.0.0.1 → none',
      'uuid: none → 00112233-4455-6677-8899-aabbccddeeff',
    ],
  },
  {
    name: 'a collector before the others',
    before: ONE,
    after: `collector { ip = 2001:db8::1 } ${ONE}`,
    expected: ['collector [2001:db8::1]:6343: none → { ip = 2001:db8::1 send = flows, counters, drops }'],
  },
  {
    name: 'a collector of the same name',
    before: 'collector { ip = 192.0.2.1 name = main }',
    after: 'collector { ip = 192.0.2.1 name = main separate = on }',
    expected: ['collector main.separate: off → on'],
  },
  {
    name: 'an expression',
    before: `${ONE} psample { } dent { }`,
    after: `${ONE} psample { } dent { switchport = ^eth }`,
    expected: ['dent.switchport: ^swp[0-9s]+$ (default) → ^eth'],
  },
  {
    name: 'the expression of the default, given',
    before: `${ONE} psample { } dent { }`,
    after: `${ONE} psample { } dent { switchport = ^swp[0-9s]+$ }`,
    expected: ['dent.switchport: ^swp[0-9s]+$ (default) → ^swp[0-9s]+$'],
  },
  {
    name: 'blocks that come and go, also empty ones',
    before: `${ONE} tcp { } dns-sd { }`,
    after: `${ONE} psample { group = 7 } nvml { }`,
    expected: ['dns-sd: { } → none', 'tcp: { } → none', 'psample: none → { group = 7 }', 'nvml: none → { }'],
  },
  {
    name: 'pcap blocks, by what they name',
    before: `${ONE} pcap { dev = eth1 sampling = 100 } pcap { speed = 1G- }`,
    after: `${ONE} pcap { speed = 1G-10G } pcap { dev = eth0 promisc = on } pcap { dev = eth1 sampling = 200 }`,
    expected: [
      'pcap eth1.sampling: 100 → 200',
      'pcap 1G-: { speed = 1G- } → none',
      'order of pcap: eth1, 1G- → 1G-10G, eth0, eth1',
      'pcap 1G-10G: none → { speed = 1G-10G }',
      'pcap eth0: none → { dev = eth0 promisc = on }',
    ],
  },
  {
    name: 'rates, families and addresses',
    before: `${ONE} sampling.10G = 5000 sampling.web = 7 agent.cidr = 10.0.0.0/8`,
    after: `${ONE} sampling.10G = 6000 polling.web = 3 agent.cidr = !10.1.0.0/16 agent.cidr = 10.0.0.0/8`,
    expected: [
      'sampling.10G: 5000 → 6000',
      'agent.cidr: 10.0.0.0/8 → !10.1.0.0/16, 10.0.0.0/8',
      'sampling.web: 7 → none',
      'polling.web: none → 3',
    ],
  },
  {
    name: 'a token is not told, wherever it stands',
    before: `${ONE} web { listen = 127.0.0.1:8008 }`,
    after: `${ONE} web { listen = /run/weir/web.sock token = 9b1f2c7e4d8a4f60 } metrics { listen = [::1]:9143 }`,
    expected: [
      'web.listen: 127.0.0.1:8008 → /run/weir/web.sock',
      'web.token: changed',
      'metrics: none → { listen = [::1]:9143 }',
    ],
  },
  {
    name: 'a block with a token',
    before: ONE,
    after: `${ONE} web { listen = 127.0.0.1:8008 token = 9b1f2c7e4d8a4f60 }`,
    expected: ['web: none → { listen = 127.0.0.1:8008 token = … }'],
  },
]
for (const { name, before, after, expected } of rows) {
  test(`differences: ${name}`, () => {
    const [a, b] = [configOf(before, 'a'), configOf(after, 'b')]
    assert.deepEqual(differences(a, b).map(formatDifference), expected)
    assert.equal(saysTheSame(a, b), expected.length === 0)
  })
}

/** Each setting that has an effect, at another value than its default. */
function* examples(entries: Entries, block = ''): Generator<{ word: string; text: string }> {
  for (const [name, entry] of Object.entries(entries)) {
    if (entry.inactive !== undefined || entry.deprecated !== undefined) continue
    if (entry.form === 'block') yield* examples(entry.entries, name)
    else {
      const value =
        entry.initial === 'on' ? 'off' : entry.initial === 'off' ? 'on' : (entry.example ?? undefined)
      if (value === undefined) continue
      const suffixed = entry.suffix === undefined ? name : `${name}x`
      yield { word: block === '' ? suffixed : `${block}.${suffixed}`, text: `${suffixed} = ${value}` }
    }
  }
}

test('every setting is told by its name in the file', () => {
  // A rate of another speed than any is for other programs; two names for one thing are told by the first.
  const other: Readonly<Record<string, string>> = { 'collector.vrf': 'collector.dev' }
  let told = 0
  for (const { word, text } of examples(settings)) {
    const [block, name] = word.split(/\.(.*)/) as [string, string | undefined]
    const isInBlock = name !== undefined && settings[block as keyof typeof settings]?.form === 'block'
    const rest = block === 'collector' ? 'ip = 192.0.2.1' : ''
    const inBlock = (what: string) => `${block === 'collector' ? '' : ONE} ${block} { ${rest} ${what} }`
    const a = loadConfig(`sFlow { ${isInBlock ? inBlock('') : ONE} }`, '').config
    const b = loadConfig(`sFlow { ${isInBlock ? inBlock(text) : `${ONE} ${text}`} }`, '').config
    if (a === undefined || b === undefined || saysTheSame(a, b)) continue
    const names = differences(a, b).map(one => one.name.replace(/^(collector|pcap) .*\.(?=[a-z])/, '$1.'))
    // A block that asks for nothing without its setting comes as a whole; so does one that is known by it.
    const expected = new Set([word, other[word], block, `order of ${block}`])
    assert.ok(
      names.some(one => expected.has(one) || one.startsWith(`${block} `)),
      `${word}: ${names.join(', ')}`,
    )
    told++
  }
  assert.ok(told > 40, `${told} settings`)
})
