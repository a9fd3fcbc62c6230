import assert from 'node:assert/strict'
import { test } from 'node:test'
import { differences, formatDifference, saysTheSame } from '../../agent/config/differences.ts'
import { loadConfig } from '../../agent/config/load.ts'

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
      'polling.seconds: 20 → 10',
      'agent.address: 10.0.0.1 → none',
      'uuid: none → 00112233-4455-6677-8899-aabbccddeeff',
    ],
  },
  {
    name: 'a collector before the others',
    before: ONE,
    after: `collector { ip = 2001:db8::1 } ${ONE}`,
    expected: ['collector [2001:db8::1]:6343: none → 2001:db8::1 port 6343'],
  },
  {
    name: 'a collector of the same name',
    before: 'collector { ip = 192.0.2.1 name = main }',
    after: 'collector { ip = 192.0.2.1 name = main separate = on }',
    expected: ['collector main.separate: false → true'],
  },
  {
    name: 'an expression',
    before: `${ONE} psample { } dent { }`,
    after: `${ONE} psample { } dent { switchport = ^eth }`,
    expected: ['tc.switchport: /^swp[0-9s]+$/s → /^eth/s', 'tc.switchportGiven: false → true'],
  },
]
for (const { name, before, after, expected } of rows) {
  test(`differences: ${name}`, () => {
    const [a, b] = [configOf(before, 'a'), configOf(after, 'b')]
    assert.deepEqual(differences(a, b).map(formatDifference), expected)
    assert.equal(saysTheSame(a, b), expected.length === 0)
  })
}

test('secrets are not told', () => {
  const difference = { name: 'web.token', before: undefined, after: '9b1f2c7e4d8a4f60' }
  assert.equal(formatDifference(difference), 'web.token: changed')
})
