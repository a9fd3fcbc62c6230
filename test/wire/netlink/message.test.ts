import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  align4,
  attributeLength,
  attributeType,
  listAttributes,
  NetlinkFormatError,
  parseAttributes,
} from '../../../agent/wire/netlink/attributes.ts'
import {
  FLAG,
  genlRequest,
  MESSAGE_HEADER,
  MESSAGE_TYPE,
  MessageBuilder,
  messageFlags,
  messageLength,
  messageType,
  readAck,
} from '../../../agent/wire/netlink/message.ts'

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex.replaceAll(/\s/g, ''), 'hex'))
const viewOf = (data: Uint8Array) => new DataView(data.buffer, data.byteOffset, data.byteLength)
const view = (hex: string) => viewOf(bytes(hex))
const hex = (data: Uint8Array) => Buffer.from(data).toString('hex')

/** Asserts that `work` throws this format error at this offset. */
function refuses(work: () => unknown, code: string, offset: number, text: RegExp): void {
  assert.throws(work, error => {
    assert.ok(error instanceof NetlinkFormatError)
    assert.deepEqual({ code: error.code, offset: error.offset }, { code, offset })
    assert.match(error.message, text)
    return true
  })
}

describe('building', () => {
  test('a request is laid out as the kernel defines it', () => {
    // Bytes by hand from include/uapi/linux/{netlink,rtnetlink,pkt_sched}.h.
    const header = bytes('00 000000 07000000 0000ffff f1ffffff 00000000')
    const message = new MessageBuilder(36, FLAG.create | FLAG.exclusive, header).text(1, 'clsact').build()
    assert.equal(
      hex(message),
      hex(
        bytes(`30000000 2400 0106 00000000 00000000
               00 000000 07000000 0000ffff f1ffffff 00000000
               0b00 0100 636c7361637400 00`),
      ),
    )
  })

  test('generic netlink has its own header', () => {
    const message = genlRequest(16, 3, 2).text(2, 'psample').build()
    assert.equal(
      hex(message),
      hex(bytes('20000000 1000 0100 00000000 00000000 03020000 0c00 0200 7073616d706c6500')),
    )
  })

  test('every kind of attribute', () => {
    const message = new MessageBuilder(20, 0)
      .flag(0)
      .u8(1, 0x12)
      .u16(2, 0x1234)
      .u32(3, 0x12345678)
      .u64(4, 0x123456789abcdef0n)
      .bytes(5, Uint8Array.of(1, 2, 3, 4, 5))
      .nest(6, inside => inside.u8(0, 1).nest(7, deeper => deeper.flag(8)))
      .build()
    assert.equal(
      hex(message.subarray(MESSAGE_HEADER)),
      hex(
        bytes(`0400 0000
               0500 0100 12000000
               0600 0200 34120000
               0800 0300 78563412
               0c00 0400 f0debc9a78563412
               0900 0500 0102030405000000
               1400 0680 0500 0000 01000000 0800 0780 0400 0800`),
      ),
    )
  })

  test('a message grows as far as its attributes need', () => {
    const long = 'x'.repeat(300)
    const message = new MessageBuilder(36, 0)
      .text(1, long)
      .bytes(2, new Uint8Array(900).fill(7))
      .text(3, long)
      .build()
    const view = new DataView(message.buffer)
    assert.equal(view.getUint32(0, true), message.length)
    const set = parseAttributes(view, 16, message.length)
    assert.equal(set.text(1), long)
    assert.deepEqual(set.bytes(2), new Uint8Array(900).fill(7))
    assert.equal(set.text(3), long)
  })

  const outOfRange: [string, (builder: MessageBuilder) => unknown][] = [
    ['u8 of 256', builder => builder.u8(1, 256)],
    ['negative u32', builder => builder.u32(1, -1)],
    ['u32 of 2^32', builder => builder.u32(1, 2 ** 32)],
    ['fraction', builder => builder.u16(1, 0.5)],
    ['u64 of 2^64', builder => builder.u64(1, 2n ** 64n)],
    ['text with a NUL', builder => builder.text(1, 'a\0b')],
    ['type beyond 16 bits', builder => builder.flag(0x10000)],
    ['payload beyond 16 bits of length', builder => builder.bytes(1, new Uint8Array(65532))],
    [
      'nest beyond 16 bits of length',
      builder => builder.nest(1, n => n.bytes(1, new Uint8Array(40000)).bytes(2, new Uint8Array(40000))),
    ],
  ]
  for (const [name, build] of outOfRange) {
    test(`${name} is refused, not cut`, () => {
      assert.throws(() => build(new MessageBuilder(16, 0)), RangeError)
    })
  }

  test('the longest payload fits', () => {
    const message = new MessageBuilder(16, 0).bytes(1, new Uint8Array(65531).fill(7)).build()
    const [attribute] = listAttributes(viewOf(message), MESSAGE_HEADER, message.length)
    assert.equal(attribute!.end - attribute!.start, 65531)
  })

  test('a builder goes on after build()', () => {
    const builder = new MessageBuilder(16, 0).u8(1, 1)
    const first = builder.build()
    const second = builder.u8(2, 2).build()
    assert.equal(first.length, 24)
    assert.equal(second.length, 32)
    assert.equal(viewOf(second).getUint32(0, true), 32)
  })
})

describe('attributes', () => {
  // Two attributes: type 0 with a u16, type 0x8006 (marked as nested) with one inside.
  const good = '0600 0000 3412 0000  0c00 0680 0800 0300 78563412'

  test('type 0 is an attribute and the nested mark is no part of the type', () => {
    const set = parseAttributes(view(good), 0, 20)
    assert.equal(set.u16(0), 0x1234)
    assert.equal(set.nest(6)?.u32(3), 0x12345678)
    assert.ok(set.has(0))
    assert.equal(set.has(1), false)
    assert.equal(set.u32(9), undefined)
  })

  test('the network byte order mark is no part of the type', () => {
    assert.equal(attributeType(view('0400 0240'), 0), 2)
  })

  test('a nest without the mark is read all the same', () => {
    assert.equal(parseAttributes(view('0c00 0600 0800 0300 78563412'), 0, 12).nest(6)?.u32(3), 0x12345678)
  })

  test('in place: the same attributes without an allocation for each', () => {
    const data = view(good)
    const seen: number[][] = []
    for (let at = 0, length = 0; at < 20; at += align4(length)) {
      length = attributeLength(data, at, 20)
      seen.push([attributeType(data, at), at, length])
    }
    assert.deepEqual(seen, [
      [0, 0, 6],
      [6, 8, 12],
    ])
  })

  test('the last attribute may lack its padding', () => {
    assert.equal(parseAttributes(view('0500 0100 2a'), 0, 5).u8(1), 42)
  })

  test('text ends at the first NUL, or with the payload', () => {
    const set = parseAttributes(view('0800 0100 61006200  0600 0200 6162 0000 0400 0300'), 0, 20)
    assert.equal(set.text(1), 'a')
    assert.equal(set.text(2), 'ab')
    assert.equal(set.text(3), '')
  })

  test('the full range of each number', () => {
    const data = view('0500 0100 ff000000 0600 0200 ffff0000 0800 0300 ffffffff 0c00 0400 ffffffffffffffff')
    const set = parseAttributes(data, 0, data.byteLength)
    assert.equal(set.u8(1), 0xff)
    assert.equal(set.u16(2), 0xffff)
    assert.equal(set.u32(3), 0xffffffff)
    assert.equal(set.i32(3), -1)
    assert.equal(set.u64(4), 0xffff_ffff_ffff_ffffn)
  })

  test('unknown attributes are stepped over', () => {
    const set = parseAttributes(view('0700 ff3f 010203 00 0800 0300 78563412'), 0, 16)
    assert.equal(set.u32(3), 0x12345678)
  })

  test('repeated ones are all there, and refused where one is expected', () => {
    const set = parseAttributes(view('0500 0100 01000000 0500 0100 02000000'), 0, 16)
    assert.deepEqual(
      set.all(1).map(({ start }) => set.view.getUint8(start)),
      [1, 2],
    )
    refuses(() => set.u8(1), 'repeated', 8, /attribute 1 occurs again/)
    assert.throws(() => set.has(1), NetlinkFormatError)
  })

  const broken: [string, string, string, number, RegExp][] = [
    ['header cut short', '0600 0000 3412 0000 0800 03', 'past-end', 8, /needs 4 bytes, 3 left/],
    ['length 0', '0600 0000 3412 0000 0000 0100', 'short-length', 8, /length 0,/],
    ['length 3', '0300 0100', 'short-length', 0, /length 3,/],
    [
      'length past the end',
      '0600 0000 3412 0000 0900 0300 78563412',
      'past-end',
      8,
      /3 needs 9 bytes, 8 left/,
    ],
    ['length of 64 KiB', 'ffff 0100', 'past-end', 0, /needs 65535 bytes, 4 left/],
  ]
  for (const [name, data, code, offset, text] of broken) {
    test(`${name} is an error with its place`, () => {
      refuses(() => parseAttributes(view(data), 0, view(data).byteLength), code, offset, text)
    })
  }

  test('a number of another size is an error with its place', () => {
    const set = parseAttributes(view('0400 0100 0700 0300 010203 00'), 0, 12)
    refuses(() => set.u32(3), 'wrong-size', 4, /attribute 3 has 3 bytes instead of 4/)
    refuses(() => set.u8(1), 'wrong-size', 0, /attribute 1 has 0 bytes instead of 1/)
  })

  test('a nest that reaches past its parent is an error with the place inside', () => {
    const set = parseAttributes(view('0c00 0600 0900 0300 78563412 00000000'), 0, 12)
    refuses(() => set.nest(6), 'past-end', 4, /needs 9 bytes, 8 left/)
  })

  test('property: what is built is read back', () => {
    const attribute = fc.record(
      { type: fc.integer({ min: 0, max: 0x3fff }), payload: fc.uint8Array({ maxLength: 64 }) },
      { noNullPrototype: true },
    )
    fc.assert(
      fc.property(fc.array(attribute, { maxLength: 20 }), list => {
        const builder = new MessageBuilder(16, 0)
        for (const { type, payload } of list) builder.bytes(type, payload)
        const message = builder.build()
        const data = viewOf(message)
        const read = listAttributes(data, MESSAGE_HEADER, messageLength(data, 0, message.length))
        assert.deepEqual(
          read.map(({ type, start, end }) => ({ type, payload: message.slice(start, end) })),
          list,
        )
      }),
    )
  })

  test('property: any bytes are attributes or an error inside them', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), data => {
        try {
          for (const { start, end } of listAttributes(viewOf(data), 0, data.length)) {
            assert.ok(start <= end && end <= data.length)
          }
        } catch (error) {
          assert.ok(error instanceof NetlinkFormatError)
          assert.ok(error.offset >= 0 && error.offset < data.length)
        }
      }),
    )
  })
})

describe('messages', () => {
  const broken: [string, string, string, RegExp][] = [
    ['header cut short', '10000000 1000 0000 00000000 000000', 'past-end', /needs 16 bytes, 15 left/],
    ['length 0', '00000000 1000 0000 00000000 00000000', 'short-length', /length 0,/],
    ['length past the end', '14000000 1000 0000 00000000 00000000', 'past-end', /needs 20 bytes, 16 left/],
    ['length of 4 GiB', 'ffffffff 1000 0000 00000000 00000000', 'past-end', /needs 4294967295 bytes/],
  ]
  for (const [name, data, code, text] of broken) {
    test(`${name} is an error`, () => {
      refuses(() => messageLength(view(data), 0, view(data).byteLength), code, 0, text)
    })
  }

  test('type and flags', () => {
    const data = view('10000000 2300 0200 07000000 09000000')
    assert.equal(messageLength(data, 0, 16), 16)
    assert.equal(messageType(data, 0), 0x23)
    assert.equal(messageFlags(data, 0), FLAG.multi)
  })
})

describe('acknowledgements', () => {
  const ack = (data: string) => {
    const all = view(data)
    return readAck(all, 0, messageLength(all, 0, all.byteLength))
  }
  const request = '24000000 2400 0506 01000000 00000000'

  test('success', () => {
    const found = ack(`24000000 0200 0001 01000000 00000000 00000000 ${request}`)
    assert.deepEqual(found, { errno: 0, text: undefined, offset: undefined })
  })

  test('refused, with the words of the kernel behind the header of the request', () => {
    // flags: capped, attributes follow. EPERM; text "no"; offset 28.
    const found = ack(
      `34000000 0200 0003 01000000 00000000 ffffffff ${request} 0700 0100 6e6f0000 0800 0200 1c000000`,
    )
    assert.deepEqual(found, { errno: 1, text: 'no', offset: 28 })
  })

  test('refused, with the words behind the whole request', () => {
    const body = '00 000000 07000000 0000ffff f1ffffff 00000000'
    const found = ack(`40000000 0200 0002 01000000 00000000 eaffffff ${request} ${body} 0700 0100 6e6f0000`)
    assert.deepEqual(found, { errno: 22, text: 'no', offset: undefined })
  })

  test('the end of a dump, good or not', () => {
    assert.equal(ack('14000000 0300 0200 01000000 00000000 00000000').errno, 0)
    assert.equal(ack('14000000 0300 0200 01000000 00000000 f0ffffff').errno, 16)
    assert.equal(ack('14000000 0300 0200 01000000 00000000 20000000').errno, 0)
  })

  test('the end of a dump with the words of the kernel', () => {
    const found = ack('1c000000 0300 0202 01000000 00000000 eaffffff 0700 0100 6e6f0000')
    assert.deepEqual(found, { errno: 22, text: 'no', offset: undefined })
  })

  const broken: [string, string, string, number][] = [
    ['error without the request', '14000000 0200 0000 01000000 00000000 ffffffff', 'wrong-size', 0],
    ['done without a status', '10000000 0300 0000 01000000 00000000', 'wrong-size', 0],
    [
      'request longer than the message',
      '24000000 0200 0002 01000000 00000000 eaffffff 34000000 2400 0506 01000000 00000000',
      'past-end',
      20,
    ],
    [
      'attribute past the end',
      `28000000 0200 0003 01000000 00000000 ffffffff ${request} 0800 0100`,
      'past-end',
      36,
    ],
  ]
  for (const [name, data, code, offset] of broken) {
    test(`${name} is an error with its place`, () => {
      refuses(() => ack(data), code, offset, /byte offset/)
    })
  }

  test('property: any error message is read or refused', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 80 }),
        fc.constantFrom(0, 0x100, 0x200, 0x300),
        (tail, flags) => {
          const message = new Uint8Array(MESSAGE_HEADER + tail.length)
          message.set(tail, MESSAGE_HEADER)
          const data = viewOf(message)
          data.setUint32(0, message.length, true)
          data.setUint16(4, MESSAGE_TYPE.error, true)
          data.setUint16(6, flags, true)
          try {
            assert.ok(readAck(data, 0, message.length).errno >= 0)
          } catch (error) {
            assert.ok(error instanceof NetlinkFormatError)
            assert.ok(error.offset < message.length)
          }
        },
      ),
    )
  })
})
