import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { BtfError, readBtfEnum, readBtfStruct, readBtfTracePoint } from '../../agent/wire/btf.ts'

/** Type information with these types (32-bit words) and strings; `base` strings come before its own. */
function btf(types: readonly number[], strings: string): Uint8Array {
  const text = new TextEncoder().encode(strings)
  const bytes = new Uint8Array(24 + types.length * 4 + text.length)
  const view = new DataView(bytes.buffer)
  const header = [0x0001_eb9f, 24, 0, types.length * 4, types.length * 4, text.length]
  for (const [i, word] of [...header, ...types].entries()) view.setUint32(i * 4, word >>> 0, true)
  bytes.set(text, 24 + types.length * 4)
  return bytes
}

const kind = (number: number, members = 0) => (number << 24) | members
//               0 1    5   9
const STRINGS = '\0int\0one\0two\0'
const INT = [1, kind(1), 4, 0]
const ENUM = [5, kind(6, 2), 4, 5, 0x10001, 9, 7]

describe('enumerations from type information', () => {
  test('values by name, behind types of other kinds', () => {
    const struct = [1, kind(4, 2), 8, 1, 1, 0, 1, 1, 32]
    const array = [0, kind(3), 0, 1, 1, 4]
    const found = readBtfEnum(btf([...INT, ...struct, ...array, ...ENUM], STRINGS), 'one')
    assert.deepEqual(
      [...found!],
      [
        ['one', 0x10001],
        ['two', 7],
      ],
    )
  })

  test('64-bit enumerations', () => {
    const wide = [9, kind(19, 1), 8, 5, 3, 0]
    assert.deepEqual([...readBtfEnum(btf([...INT, ...wide], STRINGS), 'two')!], [['one', 3]])
  })

  test('a module continues the strings of the kernel', () => {
    const base = btf([...INT, ...ENUM], STRINGS)
    const own = STRINGS.length
    const module = btf([own, kind(6, 2), 4, own, 1, 9, 2], 'mine\0')
    assert.deepEqual(
      [...readBtfEnum(module, 'mine', base)!],
      [
        ['mine', 1],
        ['two', 2],
      ],
    )
  })

  test('one that is not there', () => {
    assert.equal(readBtfEnum(btf([...INT, ...ENUM], STRINGS), 'three'), undefined)
  })

  test('members of a structure, with bit fields and without', () => {
    const plain = [1, kind(4, 2), 12, 5, 1, 0, 9, 1, 64]
    const bitFields = [5, ((1 << 31) | kind(4, 2)) >>> 0, 4, 1, 1, 0x0300_0000, 9, 1, 0x0500_0010]
    const bytes = btf([...INT, ...plain, ...bitFields], STRINGS)
    const members = (name: string) => [...readBtfStruct(bytes, name)!.members]
    assert.equal(readBtfStruct(bytes, 'int')!.bytes, 12)
    assert.deepEqual(members('int'), [
      ['one', 0],
      ['two', 8],
    ])
    assert.deepEqual(members('one'), [
      ['int', 0],
      ['two', 2],
    ])
    assert.equal(readBtfStruct(bytes, 'two'), undefined)
  })

  test('a structure of the running kernel', () => {
    // Part of the interface to user space (include/uapi/linux/bpf.h), so its members never move.
    const members = readBtfStruct(readFileSync('/sys/kernel/btf/vmlinux'), '__sk_buff')!.members
    assert.deepEqual([members.get('ifindex'), members.get('data')], [40, 76])
  })

  test('parameters of a trace point, whose function may come before its name or behind it', () => {
    const names = '\0btf_trace_one\0btf_trace_two\0btf_trace_three\0'
    const typedef = (name: number, type: number) => [name, kind(8), type]
    const pointer = (type: number) => [0, kind(2), type]
    const prototype = (parameters: number) => [0, kind(13, parameters), 0, ...Array(2 * parameters).fill(0)]
    // Types are numbered from 1 on.
    const types = [
      ...[typedef(1, 2), pointer(3), prototype(5)],
      ...[prototype(1), pointer(4), typedef(15, 5)],
      ...[typedef(29, 0), typedef(29, 99)],
    ].flat()
    const of = (name: string) => readBtfTracePoint(btf(types, names), name)
    assert.deepEqual([of('one'), of('two'), of('three'), of('four')], [4, 0, undefined, undefined])
  })

  test('a trace point of the running kernel', () => {
    const bytes = readFileSync('/sys/kernel/btf/vmlinux')
    assert.equal(readBtfTracePoint(bytes, 'net_dev_queue'), 1)
    assert.equal(readBtfTracePoint(bytes, 'no_such_trace_point'), undefined)
  })

  const bad: readonly [name: string, bytes: Uint8Array, offset: number][] = [
    ['empty', new Uint8Array(0), 0],
    ['another magic', btf(INT, STRINGS).fill(0, 0, 2), 0],
    ['types past the end', btf(INT, STRINGS).fill(0xff, 12, 15), 8],
    ['strings past the end', btf(INT, STRINGS).fill(0xff, 20, 23), 16],
    ['a kind that is not known', btf([1, kind(31), 4], STRINGS), 24],
    ['a type cut short', btf([...INT, ...ENUM.slice(0, 4)], STRINGS), 40],
    ['a name outside of the strings', btf([99, kind(6), 4], STRINGS), 24 + 12 + 99],
  ]
  for (const [name, bytes, offset] of bad) {
    test(name, () => {
      assert.throws(
        () => readBtfEnum(bytes, 'one'),
        (error: unknown) => error instanceof BtfError && error.offset === offset,
      )
    })
  }
})
