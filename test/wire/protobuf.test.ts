import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { ProtobufError, ProtobufMessage, writeProtobuf } from '../../agent/wire/protobuf.ts'

const read = (hex: string) => new ProtobufMessage(Buffer.from(hex.replaceAll(' ', ''), 'hex'))

describe('protocol buffers', () => {
  // The examples of the encoding guide.
  test('a number, a text, and a message in a message', () => {
    assert.equal(read('08 96 01').number(1), 150)
    assert.equal(read('12 07 74 65 73 74 69 6e 67').text(2), 'testing')
    assert.equal(read('1a 03 08 96 01').message(3)!.number(1), 150)
    assert.equal(Buffer.from(writeProtobuf([[1, 150]])).toString('hex'), '089601')
    assert.equal(Buffer.from(writeProtobuf([[2, 'testing']])).toString('hex'), '120774657374696e67')
  })

  test('what is not there is nothing, and the last one counts', () => {
    const empty = read('')
    assert.deepEqual(
      [empty.number(1), empty.text(1), empty.message(1), empty.texts(1)],
      [0, '', undefined, []],
    )
    assert.equal(read('08 01 08 02').number(1), 2)
    assert.deepEqual(read('0a 01 61 0a 01 62').texts(1), ['a', 'b'])
    assert.deepEqual([...read('0a 06 0a 01 6b 12 01 76').map(1)], [['k', 'v']])
    // Fields of fixed size are stepped over.
    assert.equal(read('09 0102030405060708 15 01020304 18 05').number(3), 5)
  })

  for (const [name, hex, expected] of [
    ['a number without its end', '08 96', /a number without its end at byte offset 1/],
    ['a number too long', '08 ffffffffffffffffffff 01', /a number of more than ten bytes at byte offset 1/],
    ['text past the end', '12 07 74', /a field of 7 bytes, 1 left at byte offset 2/],
    ['text of an impossible length', '12 ffffffffffffffffff01', /left at byte offset 11/],
    ['a group', '0b 0c', /field 1 has the unknown type 3 at byte offset 0/],
  ] as const) {
    test(name, () => {
      assert.throws(
        () => read(hex),
        (error: Error) => error instanceof ProtobufError && expected.test(error.message),
      )
    })
  }

  test('any bytes are read, or are an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
        try {
          const message = new ProtobufMessage(bytes)
          for (let field = 1; field < 5; field++) message.map(field)
        } catch (error) {
          assert.ok(error instanceof ProtobufError, String(error))
        }
      }),
      { numRuns: 2000 },
    )
  })
})
