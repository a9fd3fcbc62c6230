import assert from 'node:assert/strict'
import { isIPv4, isIPv6 } from 'node:net'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import {
  formatIp4,
  formatIp6,
  formatMac,
  formatUuid,
  parseIp4,
  parseIp6,
  parseMac,
  parseUuid,
} from '../../agent/wire/addresses.ts'

suite('IPv6 text (RFC 5952)', () => {
  const rows: [bytes: string, text: string][] = [
    ['00000000000000000000000000000000', '::'],
    ['00000000000000000000000000000001', '::1'],
    ['20010db8000000000000000000000000', '2001:db8::'],
    ['20010db8000000000001000000000001', '2001:db8::1:0:0:1'],
    ['20010db8000000010001000100010001', '2001:db8:0:1:1:1:1:1'],
    ['20010000000000010000000000000001', '2001:0:0:1::1'],
    ['00010000000000000000000000000000', '1::'],
    ['fe8000000000000002aabbfffeccddee', 'fe80::2aa:bbff:fecc:ddee'],
    ['00000000000000000000ffffc0000201', '::ffff:192.0.2.1'],
  ]
  for (const [hex, text] of rows) {
    test(text, () => {
      const bytes = Buffer.from(hex, 'hex')
      assert.equal(formatIp6(bytes), text)
      assert.deepEqual(Buffer.from(parseIp6(text)!), bytes)
    })
  }

  const accepted: [text: string, hex: string][] = [
    ['2001:DB8:0:0:0:0:0:1', '20010db8000000000000000000000001'],
    ['64:ff9b::192.0.2.33', '0064ff9b0000000000000000c0000221'],
    ['1:2:3:4:5:6:7::', '00010002000300040005000600070000'],
  ]
  for (const [text, hex] of accepted) {
    test(`accepts ${text}`, () => assert.equal(Buffer.from(parseIp6(text)!).toString('hex'), hex))
  }

  for (const text of [
    '',
    ':',
    ':::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '1::2::3',
    '12345::',
    'g::',
    '192.0.2.1::',
    '::192.0.2.1:1',
    '::192.0.2',
    'fe80::1%eth0',
    ':1:2:3:4:5:6:7:8',
  ]) {
    test(`refuses ${JSON.stringify(text)}`, () => assert.equal(parseIp6(text), undefined))
  }
})

test('all addresses are read back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), bytes => {
      assert.ok(isIPv6(formatIp6(bytes)))
      assert.ok(isIPv4(formatIp4(bytes)))
      assert.deepEqual(parseIp6(formatIp6(bytes)), bytes)
      assert.deepEqual(parseIp4(formatIp4(bytes, 4)), bytes.slice(4, 8))
      assert.deepEqual(parseMac(formatMac(bytes, 3)), bytes.slice(3, 9))
      assert.deepEqual(parseUuid(formatUuid(bytes)), bytes)
    }),
  )
})

test('IPv6 text is taken as the system takes it', () => {
  const piece = fc.constantFrom('', ':', '::', '0', '1', 'ffff', '1.2.3.4', '255', '.', 'x')
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 18 }), pieces => {
      const text = pieces.join('')
      assert.equal(parseIp6(text) !== undefined, isIPv6(text), text)
    }),
    { numRuns: 2000 },
  )
})

for (const text of ['1.2.3', '1.2.3.4.5', '01.2.3.4', '256.1.1.1', ' 1.2.3.4', '1.2.3.4a']) {
  test(`refuses IPv4 ${JSON.stringify(text)}`, () => assert.equal(parseIp4(text), undefined))
}

test('MAC and UUID in upper case are accepted', () => {
  assert.deepEqual(parseMac('0A:00:00:00:00:FF'), Uint8Array.of(10, 0, 0, 0, 0, 255))
  assert.equal(
    formatUuid(parseUuid('00112233-4455-6677-8899-AABBCCDDEEFF')!),
    '00112233-4455-6677-8899-aabbccddeeff',
  )
})
