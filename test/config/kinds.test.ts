import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as kind from '../../agent/config/kinds.ts'

/** A reading in one word: the value, `value!` with a remark, or `refused`; then what is suggested. */
function outcome<T>(kind: kind.Kind<T>, text: string): string {
  const reading = kind.read(text)
  const value = 'value' in reading ? JSON.stringify(reading.value) : 'refused'
  const remark = 'value' in reading && reading.remark !== undefined ? '!' : ''
  return `${value}${remark}${reading.suggestion === undefined ? '' : ` (${reading.suggestion})`}`
}

const tables: Record<string, [kind: kind.Kind<unknown>, rows: Record<string, string>]> = {
  'whole number': [
    kind.int(0, 10_000_000),
    {
      '0': '0',
      '400': '400',
      '1k': '1000',
      '1K': '1000',
      '2M': '2000000',
      '0x10': '16',
      '0X1fK': '31000',
      '10000000': '10000000',
      '10000001': 'refused',
      '1G': 'refused',
      '010': '8! (10)',
      '08': '0! (8)',
      '20s': '20!',
      '1.5k': '1000! (1500)',
      '10,000': '10! (10000)',
      '-1': 'refused',
      ten: 'refused',
      '': 'refused',
      K: 'refused',
    },
  ],
  fraction: [
    kind.fraction(),
    {
      '0': '0',
      '1': '1',
      '0.25': '0.25',
      '1e-3': '0.001',
      '1.1': 'refused',
      '.5': 'refused',
      '0.5%': '0.5!',
    },
  ],
  'on or off': [
    kind.onOff(),
    {
      on: 'true',
      OFF: 'false',
      yes: 'refused (on)',
      '0': 'refused (off)',
      false: 'refused (off)',
      maybe: 'refused',
    },
  ],
  words: [kind.oneOf('in', 'out'), { in: '"in"', OUT: '"out"', both: 'refused' }],
  list: [
    kind.someOf('flows', 'drops'),
    { flows: '["flows"]', 'drops,flows': '["flows","drops"]', 'flows,': 'refused', 'flows,x': 'refused' },
  ],
  host: [
    kind.host(),
    {
      '192.0.2.1': '"192.0.2.1"',
      '2001:db8::1': '"2001:db8::1"',
      'fe80::1%eth0': '"fe80::1%eth0"',
      'collector-1.example.com': '"collector-1.example.com"',
      localhost: '"localhost"',
      my_host: '"my_host"',
      '10.1': '"10.0.0.1"! (10.0.0.1)',
      '010.0.0.1': '"8.0.0.1"! (8.0.0.1)',
      '999.1.1.1': 'refused',
      '1.2.3.4.5': 'refused',
      '1.2.3.4:6343': 'refused (1.2.3.4 udpport = 6343)',
      '2001:db8::g': 'refused',
      'a..b': 'refused',
      '-a': 'refused',
      '': 'refused',
    },
  ],
  address: [
    kind.address(),
    { '192.0.2.1': '"192.0.2.1"', '::1': '"::1"', 'a.example': 'undefined!', 'x:y': 'refused' },
  ],
  'address block': [
    kind.cidr(),
    {
      '192.0.2.1': '{"address":"192.0.2.1","bits":32,"exclude":false}',
      '192.0.2.77/24': '{"address":"192.0.2.0","bits":24,"exclude":false}',
      '!10.0.0.0/255.0.0.0': '{"address":"10.0.0.0","bits":8,"exclude":true}',
      '10.1.2.3/0': '{"address":"0.0.0.0","bits":0,"exclude":false}',
      '2001:db8:1::5/32': '{"address":"2001:db8::","bits":32,"exclude":false}',
      '2001:db8::1': '{"address":"2001:db8::1","bits":128,"exclude":false}',
      '2001:db8::/ffff:ffff::': '{"address":"2001:db8::","bits":32,"exclude":false}',
      '10.0.0.0/33': 'refused',
      '10.0.0.0/255.0.255.0': 'refused',
      '10.0.0.0/': 'refused',
      '10.0.0.0/8/8': 'refused',
      'lan.example/24': 'undefined!',
      '!': 'refused',
    },
  ],
  speeds: [
    kind.speedRange(),
    {
      '1G': '{"min":1000000000,"max":1000000000}',
      '100m-10g': '{"min":100000000,"max":10000000000}',
      '1T-': '{"min":1000000000000,"max":null}', // JSON has no infinity
      '2.5G': '{"min":2500000000,"max":2500000000}',
      '0': '{"min":0,"max":0}',
      '10G-1G': '{"min":10000000000,"max":1000000000}!',
      '-1G': 'refused',
      fast: 'refused',
    },
  ],
  uuid: [
    kind.uuid(),
    {
      '00112233-4455-6677-8899-AABBCCDDEEFF': '"00112233-4455-6677-8899-aabbccddeeff"',
      '00112233445566778899aabbccddeeff': '"00112233-4455-6677-8899-aabbccddeeff"',
      '00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff': '"00112233-4455-6677-8899-aabbccddeeff"',
      '00112233-4455': 'refused',
      '00112233-4455-6677-8899-aabbccddeefg': 'refused',
    },
  ],
}
for (const [name, [of, rows]] of Object.entries(tables)) {
  for (const [text, expected] of Object.entries(rows)) {
    test(`${name}: ${text === '' ? 'empty' : text}`, () => assert.equal(outcome(of, text), expected))
  }
}

test('an open range of speeds has no upper end', () => {
  assert.deepEqual(kind.speedRange().read('1T-'), { value: { min: 1e12, max: Number.POSITIVE_INFINITY } })
})

test('a regular expression that is not valid says why', () => {
  assert.deepEqual(kind.regex().read('a['), {
    error: 'a bracket expression "[" that is not closed or not valid at character 2',
  })
})
