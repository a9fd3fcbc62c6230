import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  addr,
  bits,
  c32,
  c64,
  f32,
  fixedOpaque,
  i32,
  ip4,
  type Kind,
  list,
  mac,
  pct,
  struct,
  text,
  u32,
  u64,
  union,
  uuid,
} from '../../agent/wire/struct.ts'
import { Reader, type WireErrorCode, Writer } from '../../agent/wire/xdr.ts'

/** The bytes of a value as hexadecimal digits. */
function written<T>(kind: Kind<T>, value: T): string {
  const bytes = new Uint8Array(kind.size(value))
  const writer = new Writer(new DataView(bytes.buffer))
  kind.write(writer, value, 'field')
  assert.equal(writer.offset, bytes.length)
  return Buffer.from(bytes).toString('hex')
}

function readerOf(hex: string): Reader {
  return new Reader(Buffer.from(hex, 'hex'), ['datagram', 'record'])
}

suite('written', () => {
  const rows: [name: string, hex: string, kind: Kind<unknown>, value: unknown][] = [
    ['u32', 'fffffffe', u32(''), 0xfffffffe],
    ['negative i32', 'fffffffe', i32(''), -2],
    ['c32 wraps at 2^32', '00000005', c32(''), 2 ** 32 + 5],
    ['u64, high word first', '0000000100000002', u64(''), 0x1_0000_0002n],
    ['c64 wraps at 2^64', '0000000000000007', c64(''), 2n ** 64n + 7n],
    ['f32 unknown load', 'bf800000', f32(''), -1],
    ['pct', '00001d74', pct(''), 7540],
    ['pct unknown', 'ffffffff', pct(''), -1],
    ['pct that is not a number is unknown', 'ffffffff', pct(''), Number.NaN],
    ['pct above 100 %', '00002710', pct(''), 10_001],
    ['text with padding', '00000005' + '68656c6c6f000000', text(''), 'hello'],
    ['empty text', '00000000', text(''), ''],
    ['text cut between characters', '00000003' + '61c3a900', text('', 4), 'aéé'],
    ['text of exactly the limit', '00000004' + '61626364', text('', 4), 'abcd'],
    ['text ends before NUL', '00000001' + '61000000', text(''), 'a\0b'],
    ['mac', '0200000000010000', mac(''), '02:00:00:00:00:01'],
    ['fixed opaque with padding', '0102030405000000', fixedOpaque(5, ''), Uint8Array.of(1, 2, 3, 4, 5)],
    ['IPv4 address', '00000001c0000201', addr(''), '192.0.2.1'],
    ['IPv6 address', '00000002' + '20010db8000000000000000000000001', addr(''), '2001:db8::1'],
    ['unknown address', '0000000100000000', addr(''), ''],
    ['bits', '030186a1', bits({ type: 8, index: 24 }, ''), { type: 3, index: 100_001 }],
    ['all bits', 'bfffffff', bits({ format: 2, value: 30 }, ''), { format: 2, value: 0x3fffffff }],
    ['list', '00000002' + '00000001' + '00000002', list(u32(''), ''), [1, 2]],
    ['union', '00000001' + '00000009', union({ 1: u32('') }, ''), { type: 1, value: 9 }],
  ]
  for (const [name, hex, kind, value] of rows) {
    test(name, () => assert.equal(written(kind, value), hex))
  }
})

suite('refused', () => {
  const rows: [name: string, message: string, kind: Kind<unknown>, value: unknown][] = [
    ['negative u32', 'field: expected a whole number from 0 to 4294967295, got -1', u32(''), -1],
    [
      'u32 of 33 bits',
      'field: expected a whole number from 0 to 4294967295, got 4294967296',
      u32(''),
      2 ** 32,
    ],
    ['broken c32', 'field: expected a whole number from 0 to 9007199254740991, got 1.5', c32(''), 1.5],
    ['i32', 'field: expected a whole number from -2147483648 to 2147483647, got NaN', i32(''), Number.NaN],
    ['u64', 'field: expected a bigint from 0 to 18446744073709551615, got -1', u64(''), -1n],
    ['c64 as a number', 'field: expected a bigint from 0 to 18446744073709551615, got 7', c64(''), 7],
    ['mac', 'field: expected a MAC address, got "02:00"', mac(''), '02:00'],
    ['ip4', 'field: expected an IPv4 address, got "192.0.2.256"', ip4(''), '192.0.2.256'],
    ['uuid', 'field: expected a UUID, got "1"', uuid(''), '1'],
    ['address', 'field: expected an IP address, got "example.org"', addr(''), 'example.org'],
    ['fixed opaque', 'field: expected 16 bytes, got 3', fixedOpaque(16, ''), new Uint8Array(3)],
    [
      'compact index of 25 bits',
      'field.index: expected a whole number of 24 bits, got 16777216',
      bits({ type: 8, index: 24 }, ''),
      { type: 0, index: 2 ** 24 },
    ],
    ['list', 'field: expected at most 1 elements, got 2', list(u32(''), '', 1), [1, 2]],
    ['union', 'field: expected a known type, got 2', union({ 1: u32('') }, ''), { type: 2, value: 0 }],
    [
      'element',
      'field[1].a: expected a whole number from 0 to 4294967295, got -1',
      list(struct({ a: u32('') }), ''),
      [{ a: 1 }, { a: -1 }],
    ],
  ]
  for (const [name, message, kind, value] of rows) {
    test(name, () => {
      const writer = new Writer(new DataView(new ArrayBuffer(64)), 8)
      const offset = name === 'element' ? 16 : name === 'list' ? 8 : writer.offset
      assert.throws(() => kind.write(writer, value, 'field'), {
        code: 'value',
        offset,
        message: `${message} at byte offset ${offset}`,
      })
    })
  }
})

suite('not readable', () => {
  const rows: [
    name: string,
    hex: string,
    kind: Kind<unknown>,
    code: WireErrorCode,
    offset: number,
    message: string,
  ][] = [
    ['no bytes', '', u32(''), 'truncated', 0, 'field needs 4 bytes, 0 left'],
    ['half of a u64', '00000001', u64(''), 'truncated', 0, 'field needs 8 bytes, 4 left'],
    [
      'text longer than what is left',
      '0000000561626364',
      text(''),
      'truncated',
      4,
      'field needs 5 bytes, 4 left',
    ],
    ['text of 4 GiB', 'ffffffff61626364', text(''), 'truncated', 4, 'field needs 4294967295 bytes, 4 left'],
    [
      'list longer than what is left',
      '0000000300000001',
      list(u32(''), ''),
      'count',
      0,
      'field has 3 elements of at least 4 bytes, 4 bytes left',
    ],
    [
      'list of 2^32-1',
      'ffffffff00000001',
      list(u32(''), ''),
      'count',
      0,
      'field has 4294967295 elements of at least 4 bytes, 4 bytes left',
    ],
    ['address type', '00000003', addr(''), 'address-type', 0, 'field has address type 3, not 0, 1 or 2'],
    ['union type', '00000007', union({ 1: u32('') }, ''), 'discriminant', 0, 'field has the unknown type 7'],
    [
      'second element',
      '00000002' + '00000000' + '00000009',
      list(text(''), ''),
      'truncated',
      12,
      'field[1] needs 9 bytes, 0 left',
    ],
  ]
  for (const [name, hex, kind, code, offset, message] of rows) {
    test(name, () => {
      assert.throws(() => kind.read(readerOf(hex), 'field'), {
        name: 'WireError',
        code,
        offset,
        path: ['datagram', 'record'],
        message: `in datagram: in record: ${message} at byte offset ${offset}`,
      })
    })
  }
})

suite('readable with a warning', () => {
  const rows: [
    name: string,
    hex: string,
    kind: Kind<unknown>,
    value: unknown,
    code: string,
    offset: number,
  ][] = [
    ['padding', '0000000161000100', text(''), 'a', 'padding', 6],
    ['text over its limit', '0000000361626300', text('', 2), 'abc', 'text-length', 0],
    ['text that is not UTF-8', '00000001ff000000', text(''), '�', 'text-encoding', 0],
    ['list over its limit', '000000020000000100000002', list(u32(''), '', 1), [1, 2], 'list-length', 0],
  ]
  for (const [name, hex, kind, value, code, offset] of rows) {
    test(name, () => {
      const reader = readerOf(hex)
      assert.deepEqual(kind.read(reader, 'field'), value)
      assert.deepEqual(
        reader.problems.map(problem => [problem.severity, problem.code, problem.offset]),
        [['warning', code, offset]],
      )
    })
  }
})

test('padding may lack at the end of a structure of unaligned length', () => {
  const reader = readerOf('000000056162636465')
  assert.equal(text('').read(reader, 'field'), 'abcde')
  assert.equal(reader.left, 0)
})

test('address type 0 is the unknown address', () => {
  assert.equal(addr('').read(readerOf('00000000'), 'field'), '')
})
