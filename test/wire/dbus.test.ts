import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  DBUS_MESSAGE,
  DbusFormatError,
  type DbusMessage,
  dbusMessageLength,
  readDbusMessage,
  splitSignature,
  writeDbusMessage,
} from '../../agent/wire/dbus.ts'

/** The answer of dbus-daemon 1.14 to Hello, as it came. */
const HELLO = Buffer.from(
  '6c0201010900000001000000' + // little endian, method return, no reply expected, version 1; 9 bytes, serial 1
    '3d000000' + // 61 bytes of fields
    '06017300040000003a312e3000000000' + // destination :1.0
    '0501750001000000' + // reply serial 1
    '0801670001730000' + // signature s
    '07017300140000006f72672e667265656465736b746f702e4442757300000000' + // sender
    '040000003a312e3000', // ":1.0"
  'hex',
)

const UNITS: DbusMessage = {
  type: DBUS_MESSAGE.methodReturn,
  serial: 7,
  replySerial: 3,
  destination: ':1.4',
  signature: 'a(ssssssouso)a{sv}xtdbyqnay',
  body: [
    [
      ['a.service', 'über', 'loaded', 'active', 'running', '', '/a', 0, '', '/'],
      ['b.service', '', 'loaded', 'active', 'exited', '', '/b', 4294967295, '', '/'],
    ],
    [
      ['one', { signature: 'as', value: ['x', 'y'] }],
      ['two', { signature: 'u', value: 2 }],
    ],
    -1n,
    2n ** 64n - 1n,
    1.5,
    true,
    255,
    65535,
    -32768,
    Uint8Array.of(1, 2, 3),
  ],
}

describe('D-Bus messages', () => {
  test('what dbus-daemon sends', () => {
    assert.equal(dbusMessageLength(HELLO), HELLO.length)
    assert.deepEqual(readDbusMessage(HELLO), {
      type: DBUS_MESSAGE.methodReturn,
      serial: 1,
      replySerial: 1,
      destination: ':1.0',
      sender: 'org.freedesktop.DBus',
      signature: 's',
      body: [':1.0'],
    })
  })

  test('big endian', () => {
    // One header field of seven bytes, the signature u, and the body.
    const message = Buffer.from('42020001000000040000000100000007' + '0801670001750000' + 'deadbeef', 'hex')
    assert.deepEqual(readDbusMessage(message).body, [0xdeadbeef])
  })

  test('values of every type come back', () => {
    assert.deepEqual(readDbusMessage(writeDbusMessage(UNITS)), UNITS)
  })

  test('long messages come back', () => {
    const units = Array.from({ length: 300 }, (_, i) => [
      `u${i}.service`,
      'x'.repeat(i),
      '',
      '',
      '',
      '',
      '/a',
      i,
      '',
      '/',
    ])
    const message = { ...UNITS, signature: 'a(ssssssouso)', body: [units] }
    assert.deepEqual(readDbusMessage(writeDbusMessage(message)), message)
  })

  test('a message that is cut anywhere is an error with its place', () => {
    const bytes = writeDbusMessage(UNITS)
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(
        () => readDbusMessage(bytes.subarray(0, length)),
        (error: Error) =>
          error instanceof DbusFormatError && error.offset >= 0 && error.offset <= bytes.length,
      )
    }
  })

  test('bytes that are changed are read, or are an error', () => {
    const bytes = writeDbusMessage(UNITS)
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1 }), changes => {
        const changed = Uint8Array.from(bytes)
        for (const [at, value] of changes) changed[at] = value
        try {
          readDbusMessage(changed)
        } catch (error) {
          assert.ok(error instanceof DbusFormatError, String(error))
        }
      }),
      { numRuns: 2000 },
    )
  })

  test('signatures', () => {
    assert.deepEqual(splitSignature('sa{sv}u(i(ss))aai'), ['s', 'a{sv}', 'u', '(i(ss))', 'aai'])
    for (const bad of ['a', '(', '()', '(s', 'z', '{', 'a'.repeat(100), '('.repeat(100)]) {
      assert.throws(() => splitSignature(bad), DbusFormatError, bad)
    }
  })

  test('a length that no message has', () => {
    const head = Buffer.from(HELLO.subarray(0, 16))
    head.writeUInt32LE(0x7fffffff, 4)
    assert.throws(() => dbusMessageLength(head), /its length of \d+ bytes is not allowed at byte offset 4/)
    assert.throws(() => dbusMessageLength(Buffer.from('HTTP/1.1 400 Bad')), /expected the byte order l or B/)
  })
})
