import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import {
  type Captured,
  CaptureMemory,
  datagramsFromPcap,
  isPcap,
  PcapReader,
  PcapWriter,
} from '../../agent/wire/pcap.ts'
import { WireError } from '../../agent/wire/xdr.ts'

const PORT = 6343
const PAYLOAD = Buffer.from('0000000500000001', 'hex')
const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')

const UDP = Buffer.concat([hex('c350 18c7 0010 0000'), PAYLOAD])
const IP4 = Buffer.concat([hex('45000024 00000000 40110000 c0000201 c0000202'), UDP])
const IP6 = Buffer.concat([
  hex('60000000 0010 11 40 20010db8000000000000000000000001 20010db8000000000000000000000002'),
  UDP,
])
const ETHERNET = Buffer.concat([hex('020000000002 020000000001 0800'), IP4])

/** Packets as a pcap file. */
function pcap(
  frames: readonly Uint8Array[],
  { magic = 'a1b2c3d4', little = false, linkType = 1 } = {},
): Buffer {
  const u16 = (value: number) => number(value, 2, little)
  const u32 = (value: number) => number(value, 4, little)
  const header = Buffer.from(magic, 'hex')
  const begin = Buffer.concat([header, u16(2), u16(4), u32(0), u32(0), u32(65_535), u32(linkType)])
  return Buffer.concat([
    begin,
    ...frames.map((frame, i) =>
      Buffer.concat([u32(1_700_000_000), u32(i + 1), u32(frame.length), u32(frame.length), frame]),
    ),
  ])
}

/** Blocks of a pcapng file. */
function block(type: number, body: Uint8Array, little: boolean): Buffer {
  const padding = Buffer.alloc(-body.length & 3)
  const length = number(12 + body.length + padding.length, 4, little)
  return Buffer.concat([number(type, 4, little), length, body, padding, length])
}

function pcapng(frames: readonly Uint8Array[], { little = true, options = '', linkType = 1 } = {}): Buffer {
  const u16 = (value: number) => number(value, 2, little)
  const u32 = (value: number) => number(value, 4, little)
  const section = Buffer.concat([u32(0x1a2b3c4d), u16(1), u16(0), Buffer.alloc(8, 0xff)])
  const description = Buffer.concat([u16(linkType), u16(0), u32(0), hex(options)])
  return Buffer.concat([
    block(0x0a0d0d0a, section, little),
    block(1, description, little),
    ...frames.map(frame => {
      const time = 1_700_000_000_000_001n
      const high = u32(Number(time >> 32n))
      const low = u32(Number(time & 0xffffffffn))
      const { length } = frame
      return block(6, Buffer.concat([u32(0), high, low, u32(length), u32(length), frame]), little)
    }),
  ])
}

function number(value: number, bytes: 2 | 4, little: boolean): Buffer {
  const buffer = Buffer.alloc(bytes)
  if (little) buffer.writeUIntLE(value, 0, bytes)
  else buffer.writeUIntBE(value, 0, bytes)
  return buffer
}

function read(bytes: Uint8Array): Captured[] {
  return [...datagramsFromPcap(bytes, PORT)]
}

function payloads(bytes: Uint8Array): string[] {
  return read(bytes).map(item => ('bytes' in item ? Buffer.from(item.bytes).toString('hex') : item.reason))
}

const WANTED = [PAYLOAD.toString('hex')]

suite('forms', () => {
  const rows: [name: string, bytes: Buffer, time: bigint | undefined][] = [
    ['pcap, microseconds, big-endian', pcap([ETHERNET]), 1_700_000_000_000_001_000n],
    [
      'pcap, microseconds, little-endian',
      pcap([ETHERNET], { magic: 'd4c3b2a1', little: true }),
      1_700_000_000_000_001_000n,
    ],
    ['pcap, nanoseconds, big-endian', pcap([ETHERNET], { magic: 'a1b23c4d' }), 1_700_000_000_000_000_001n],
    [
      'pcap, nanoseconds, little-endian',
      pcap([ETHERNET], { magic: '4d3cb2a1', little: true }),
      1_700_000_000_000_000_001n,
    ],
    ['pcapng, little-endian', pcapng([ETHERNET]), 1_700_000_000_000_001_000n],
    ['pcapng, big-endian', pcapng([ETHERNET], { little: false }), 1_700_000_000_000_001_000n],
    ['pcapng, nanoseconds', pcapng([ETHERNET], { options: '0900 0100 09000000' }), 1_700_000_000_000_001n],
    [
      'pcapng, time with an offset of 10 seconds',
      pcapng([ETHERNET], { options: '0e00 0800 0a00000000000000' }),
      1_700_000_010_000_001_000n,
    ],
    [
      'pcapng, packet without a time',
      Buffer.concat([
        pcapng([]),
        block(3, Buffer.concat([number(ETHERNET.length, 4, true), ETHERNET]), true),
      ]),
      undefined,
    ],
    [
      'pcapng, unknown block between',
      Buffer.concat([pcapng([]), block(0xbad, Buffer.alloc(5), true), pcapng([ETHERNET])]),
      1_700_000_000_000_001_000n,
    ],
  ]
  for (const [name, bytes, time] of rows) {
    test(name, () => {
      assert.ok(isPcap(bytes))
      const [item, ...more] = read(bytes)
      assert.ok(item !== undefined && 'bytes' in item)
      assert.deepEqual(Buffer.from(item.bytes), PAYLOAD)
      assert.equal(item.time, time)
      assert.equal(item.from, '192.0.2.1:50000')
      assert.equal(item.packet, 1)
      assert.deepEqual(more, [])
    })
  }
})

suite('link types', () => {
  const cooked = hex('0000 0001 0006 020000000001 0000')
  const rows: [name: string, linkType: number, frame: Buffer][] = [
    ['Ethernet with a VLAN tag', 1, Buffer.concat([ETHERNET.subarray(0, 12), hex('81000064 0800'), IP4])],
    ['raw IPv4', 101, IP4],
    ['raw IPv6', 101, IP6],
    ['IPv4', 228, IP4],
    ['IPv6', 229, IP6],
    ['loopback of BSD', 0, Buffer.concat([hex('02000000'), IP4])],
    ['loopback of BSD, IPv6', 0, Buffer.concat([hex('1e000000'), IP6])],
    ['loopback of OpenBSD', 108, Buffer.concat([hex('00000002'), IP4])],
    ['Linux cooked', 113, Buffer.concat([cooked, hex('0800'), IP4])],
    ['Linux cooked 2', 276, Buffer.concat([hex('86dd 0000 00000002 0001 00 06 0200000000010000'), IP6])],
  ]
  for (const [name, linkType, frame] of rows) {
    test(name, () => assert.deepEqual(payloads(pcap([frame], { linkType })), WANTED))
  }

  test('one that is not known', () => {
    assert.throws(() => read(pcap([ETHERNET], { linkType: 105 })), {
      code: 'format',
      offset: 20,
      message: 'in capture: link type 105 is not supported at byte offset 20',
    })
    assert.deepEqual(
      payloads(Buffer.concat([pcapng([ETHERNET, ETHERNET], { linkType: 105 }), pcapng([ETHERNET])])),
      ['link type 105 is not supported', ...WANTED],
    )
  })
})

test('other packets are passed over', () => {
  const otherPort = Buffer.from(ETHERNET)
  otherPort.writeUInt16BE(53, 36)
  const tcp = Buffer.from(ETHERNET)
  tcp[23] = 6
  assert.deepEqual(payloads(pcap([otherPort, tcp, hex('0203'), ETHERNET, Buffer.alloc(0)])), WANTED)
})

test('a fragment and a datagram that was cut are reported with their place', () => {
  const fragment = Buffer.from(ETHERNET)
  fragment.writeUInt16BE(0x2000, 20)
  assert.deepEqual(read(pcap([fragment, ETHERNET.subarray(0, 44)])), [
    { packet: 1, offset: 40, reason: 'first fragment of a datagram from 192.0.2.1:50000' },
    {
      packet: 2,
      offset: 40 + ETHERNET.length + 16,
      reason: 'cut by the capture: a datagram from 192.0.2.1:50000',
    },
  ])
})

suite('broken captures', () => {
  const file = pcap([ETHERNET])
  const blocks = pcapng([ETHERNET])
  const changed = (bytes: Buffer, offset: number, text: string) => {
    const copy = Buffer.from(bytes)
    copy.set(hex(text), offset)
    return copy
  }
  const rows: [name: string, bytes: Uint8Array, code: string, offset: number, message: string][] = [
    ['empty', Buffer.alloc(0), 'truncated', 0, 'the header needs 24 bytes, 0 left'],
    ['half a header', file.subarray(0, 20), 'truncated', 0, 'the header needs 24 bytes, 20 left'],
    ['another file', Buffer.from('#!/bin/sh\n'), 'format', 0, '0x23212f62 does not begin a capture'],
    ['half a packet', file.subarray(0, 60), 'truncated', 24, 'packet 1 is cut, 36 bytes left'],
    ['a packet of 4 GiB', changed(file, 32, 'ffffffff'), 'length', 32, 'packet 1 has 4294967295 bytes'],
    ['half a block', blocks.subarray(0, 60), 'truncated', 48, 'packet 1 is cut, 12 bytes left'],
    ['no byte order', changed(blocks, 8, '00000000'), 'format', 8, 'section header without a byte order'],
    ['block of no length', changed(blocks, 32, '00000000'), 'length', 32, 'block of type 1 has 0 bytes'],
    [
      'block whose lengths differ',
      changed(blocks, 44, '18000000'),
      'length',
      44,
      'block of type 1 ends with another length',
    ],
    [
      'interface without a description',
      changed(blocks, 56, '07000000'),
      'format',
      56,
      'interface 7 is not described',
    ],
    [
      'packet longer than its block',
      changed(blocks, 68, 'ff000000'),
      'truncated',
      56,
      `block of type 6 needs 275 bytes, has ${20 + ETHERNET.length + 2}`,
    ],
    [
      'option longer than its block',
      pcapng([], { options: '0900 ff00 09000000' }),
      'truncated',
      46,
      'option 9 has 255 bytes',
    ],
  ]
  for (const [name, bytes, code, offset, message] of rows) {
    test(name, () => {
      assert.throws(() => read(bytes), {
        name: 'WireError',
        code,
        offset,
        message: `in capture: ${message} at byte offset ${offset}`,
      })
    })
  }
})

test('a capture in pieces is the same capture', () => {
  const capture = fc.constantFrom(
    pcap([ETHERNET, IP4, ETHERNET]),
    pcapng([ETHERNET, ETHERNET.subarray(0, 44), ETHERNET]),
    Buffer.concat([pcapng([ETHERNET], { little: false }), pcapng([ETHERNET])]),
  )
  fc.assert(
    fc.property(capture, fc.array(fc.nat(40), { minLength: 1 }), (bytes, sizes) => {
      const reader = new PcapReader(PORT)
      const items: Captured[] = []
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const size = sizes[i % sizes.length]! + 1
        for (const item of reader.push(bytes.subarray(at, at + size))) items.push(item)
        at += size
      }
      reader.end()
      assert.deepEqual(items.map(plain), read(bytes).map(plain))
    }),
  )
})

test('a capture with bytes changed is read or refused with a place inside of it', () => {
  const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(
      fc.constantFrom(pcap([ETHERNET, ETHERNET]), pcapng([ETHERNET, ETHERNET])),
      changes,
      (bytes, list) => {
        const copy = Buffer.from(bytes)
        for (const [at, byte] of list) copy[at % copy.length] = byte
        try {
          read(copy)
        } catch (error) {
          assert.ok(error instanceof WireError, String(error))
          assert.ok(error.offset >= 0 && error.offset <= copy.length)
        }
      },
    ),
    { numRuns: 2000 },
  )
})

test('packets are written into memory that is used again, whatever was in it', () => {
  const memory = new CaptureMemory()
  const first = memory.bytes
  const writer = new PcapWriter(1, memory)
  const time = 1_700_000_000_000_000_001n
  for (let length = ETHERNET.length; length > 0; length--) {
    memory.length = 0
    memory.bytes.fill(0xee)
    writer.header()
    // In the middle of a datagram.
    const bytes = Buffer.concat([hex('ffff'), ETHERNET])
    for (let i = 0; i < 3; i++) writer.packet({ bytes, start: 2, end: 2 + length }, ETHERNET.length, time)
    const captured = datagramsFromPcap(memory.bytes.slice(0, memory.length), PORT)
    assert.equal(captured.length, length < 38 ? 0 : 3, `${length} bytes`)
    if (length === ETHERNET.length) {
      for (const one of captured)
        assert.deepEqual('bytes' in one && [one.time, Buffer.from(one.bytes)], [time, PAYLOAD])
    }
  }
  assert.equal(memory.bytes, first)

  const large = { bytes: new Uint8Array(100_000).fill(7), start: 0, end: 100_000 }
  const before = memory.bytes.slice(0, memory.length)
  writer.packet(large, 100_000, time)
  assert.deepEqual(memory.bytes.slice(0, before.length), before)
  assert.deepEqual(memory.bytes.slice(before.length + 16, memory.length), large.bytes)
})

function plain(item: Captured): unknown {
  return 'bytes' in item ? { ...item, bytes: Buffer.from(item.bytes).toString('hex') } : item
}
