import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { DISCARD_REASONS } from '../../../agent/wire/sflow/discard-reasons.ts'
import { counterRecord, type Declaration } from '../../../agent/wire/sflow/record.ts'
import { byFormat, counterRecords, flowRecords, sampleTypes } from '../../../agent/wire/sflow/registry.ts'
import { isAdded, u32 } from '../../../agent/wire/struct.ts'
import { padded, Reader, WireError, Writer } from '../../../agent/wire/xdr.ts'
import { arbitraryOf } from './values.ts'

const declarations: Declaration[] = [
  ...sampleTypes.values(),
  ...flowRecords.values(),
  ...counterRecords.values(),
]

/** Body sizes as published; `+` where there is more when texts, lists or late fields are not empty. */
const SIZES: Record<'sample' | 'flow' | 'counter', Record<string, string>> = {
  sample: {
    '0:1': '28',
    '0:2': '8',
    '0:3': '40',
    '0:4': '12',
    '0:5': '28',
    '4300:1002': '8+',
    '4300:1003': '16+',
  },
  flow: {
    '0:1': '16+',
    '0:2': '24',
    '0:3': '32',
    '0:4': '56',
    '0:1001': '16',
    '0:1002': '12+',
    '0:1003': '28+',
    '0:1004': '16+',
    '0:1005': '12+',
    '0:1006': '12+',
    '0:1007': '8+',
    '0:1008': '12+',
    '0:1009': '12+',
    '0:1010': '8+',
    '0:1011': '4',
    '0:1012': '4+',
    '0:1013': '8+',
    '0:1014': '40+',
    '0:1015': '44+',
    '0:1016': '4+',
    '0:1017': '16',
    '0:1018': '16',
    '0:1019': '8',
    '0:1020': '8',
    '0:1021': '24',
    '0:1022': '24',
    '0:1023': '32',
    '0:1024': '32',
    '0:1025': '56',
    '0:1026': '56',
    '0:1027': '4',
    '0:1028': '4',
    '0:1029': '4',
    '0:1030': '4',
    '0:1031': '40',
    '0:1032': '48',
    '0:1033': '12',
    '0:1034': '4+',
    '0:1035': '4+',
    '0:1036': '4',
    '0:1037': '12+',
    '0:1038': '4+',
    '0:1039': '4',
    '0:1040': '4',
    '0:1041': '8+',
    '0:1042': '4+',
    '0:1043': '8',
    '0:2000': '32',
    '0:2001': '12+',
    '0:2002': '12',
    '0:2003': '24+',
    '0:2100': '20',
    '0:2101': '44',
    '0:2102': '20',
    '0:2103': '44',
    '0:2200': '28+',
    '0:2202': '40+',
    '0:2203': '12+',
    '0:2204': '4+',
    '0:2205': '4+',
    '0:2206': '60+',
    '0:2207': '8+',
    '0:2208': '92',
    '0:2209': '48',
    '0:2210': '16',
    '4413:1': '4',
  },
  counter: {
    '0:1': '88',
    '0:2': '52',
    '0:3': '72',
    '0:4': '80',
    '0:5': '28',
    '0:6': '80',
    '0:7': '56',
    '0:8': '24',
    '0:9': '64',
    '0:10': '20+',
    '0:11': '20',
    '0:1001': '28',
    '0:1002': '12',
    '0:1003': '52',
    '0:1004': '12',
    '0:1005': '4+',
    '0:2000': '32+',
    '0:2001': '4+',
    '0:2002': '8',
    '0:2003': '68+',
    '0:2004': '72',
    '0:2005': '52',
    '0:2006': '40',
    '0:2007': '76',
    '0:2008': '100',
    '0:2009': '60',
    '0:2010': '28',
    '0:2100': '28',
    '0:2101': '12',
    '0:2102': '16',
    '0:2103': '52',
    '0:2104': '40',
    '0:2105': '12+',
    '0:2106': '100+',
    '0:2200': '144',
    '0:2201': '60',
    '0:2202': '48+',
    '0:2203': '40',
    '0:2204': '140',
    '0:2205': '92',
    '0:2206': '20',
    '0:2207': '24',
    '0:3000': '24',
    '0:3001': '12',
    '0:3002': '4',
    '0:3003': '12',
    '32473:1': '4+',
    '4413:1': '8',
    '4413:2': '24+',
    '4413:3': '144',
    '5703:1': '48',
  },
}

suite('sizes are those of the standard', () => {
  for (const family of ['sample', 'flow', 'counter'] as const) {
    test(family, () => {
      const sizes = declarations
        .filter(declaration => declaration.family === family)
        .map(({ enterprise, format, minSize, fixed }) => [
          `${enterprise}:${format}`,
          fixed ? `${minSize}` : `${minSize}+`,
        ])
      assert.deepEqual(Object.fromEntries(sizes), SIZES[family])
    })
  }
})

suite('every structure', () => {
  for (const declaration of declarations) {
    const { family, name, enterprise, format } = declaration
    test(`${family} ${enterprise}:${format} ${name}`, () => {
      fc.assert(
        fc.property(arbitraryOf(declaration), value => roundTrips(declaration, value)),
        { numRuns: 50 },
      )
    })
  }
})

const GUARD = 0xaa
const START = 12

function roundTrips(declaration: Declaration, value: Record<string, unknown>): void {
  const size = declaration.size(value)
  assert.equal(size % 4, 0)
  const memory = new Uint8Array(START + size + 8).fill(GUARD)
  const writer = new Writer(new DataView(memory.buffer), START, START + size)
  declaration.write(writer, value)
  assert.equal(writer.offset, START + size, 'size() is what write() wrote')
  assert.ok(
    memory.subarray(0, START).every(byte => byte === GUARD),
    'bytes before are left alone',
  )
  assert.ok(
    memory.subarray(START + size).every(byte => byte === GUARD),
    'bytes behind are left alone',
  )

  const reader = new Reader(memory, [], START, START + size)
  assert.deepEqual(declaration.read(reader), value)
  assert.equal(reader.left, 0)
  assert.deepEqual(
    reader.problems.filter(problem => problem.code !== 'interface-format'),
    [],
  )

  failsWhenFull(declaration, value, size)
  failsWhenTruncated(declaration, memory, size)
}

function failsWhenFull(declaration: Declaration, value: Record<string, unknown>, size: number): void {
  const writer = new Writer(new DataView(new ArrayBuffer(size)), 0, size - 4)
  assert.throws(
    () => declaration.write(writer, value),
    error => error instanceof WireError && error.code === 'space' && error.offset <= size - 4,
  )
}

function failsWhenTruncated(declaration: Declaration, memory: Uint8Array, size: number): void {
  const late = Object.values(declaration.fields).some(isAdded) ? declaration.minSize : size
  for (let length = 0; length < late; length += 4) {
    assert.throws(
      () => declaration.read(new Reader(memory, [], START, START + length)),
      error =>
        error instanceof WireError &&
        (error.code === 'truncated' || error.code === 'count') &&
        error.offset >= START &&
        error.offset <= START + length,
    )
  }
}

test('structures that grew are read in every published length', () => {
  for (const [declaration, ...lengths] of [
    [counterRecords.get(2003)!, 68, 80],
    [counterRecords.get(2106)!, 100, 108],
  ] as const) {
    for (const length of lengths) {
      const value = declaration.read(new Reader(new Uint8Array(length)))
      assert.equal(declaration.size(value), length)
    }
  }
})

test('two declarations with one number are refused', () => {
  const first = counterRecord(1, 2, 'first', '', { a: u32('') })
  const second = counterRecord(1, 2, 'second', '', { a: u32('') })
  assert.throws(() => byFormat([first, second]), { message: 'second has the number 1:2 of first' })
})

test('discard reasons ascend, have no gaps above 255 and no name twice', () => {
  const codes = DISCARD_REASONS.map(([code]) => code)
  const expected = [
    ...Array.from({ length: 16 }, (_, i) => i),
    ...Array.from({ length: 117 }, (_, i) => 256 + i),
  ]
  assert.deepEqual(codes, expected)
  assert.equal(new Set(DISCARD_REASONS.map(([, name]) => name)).size, codes.length)
})

test('padded', () => {
  assert.deepEqual([0, 1, 3, 4, 5].map(padded), [0, 4, 4, 4, 8])
})
