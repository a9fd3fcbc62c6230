import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  bindNflog,
  emptyNflogPacket,
  isNflogPacket,
  NFPROTO,
  readNflog,
} from '../../../agent/wire/netlink/nflog.ts'

type Attribute = readonly [type: number, payload: string]

/** A message of the kernel's; attributes in hex. */
function message(attributes: readonly Attribute[], family = '02', group = '0005'): Uint8Array {
  const parts = attributes.map(([type, hex]) => {
    const payload = Buffer.from(hex.replaceAll(' ', ''), 'hex')
    const bytes = Buffer.alloc((4 + payload.length + 3) & ~3)
    bytes.writeUInt16LE(4 + payload.length, 0)
    bytes.writeUInt16LE(type, 2)
    payload.copy(bytes, 4)
    return bytes
  })
  const body = Buffer.concat([Buffer.from(`${family}00${group}`, 'hex'), ...parts])
  const header = Buffer.alloc(16)
  header.writeUInt32LE(16 + body.length, 0)
  header.writeUInt16LE(0x0400, 4)
  return new Uint8Array(Buffer.concat([header, body]))
}

function read(bytes: Uint8Array) {
  const packet = emptyNflogPacket()
  const ok = readNflog(new DataView(bytes.buffer, bytes.byteOffset), 0, bytes.length, packet)
  return { ok, packet }
}

const whole: readonly Attribute[] = [
  [1, '0800 02 00'],
  [10, '6100'],
  [4, '00000007'],
  [5, '00000009'],
  [6, '00000003'],
  [7, '00000004'],
  [15, '0001'],
  [16, '020000000001 020000000002 0800'],
  [3, '0000000065000000 00000000000f423f'],
  [12, 'fffffffe'],
  [20, '0600 0100 8100 0000 0600 0200 a014 0000'],
  [9, '4500003c'],
]

describe('NFLOG messages', () => {
  test('every attribute of use is read', () => {
    const bytes = message(whole)
    assert.ok(isNflogPacket(new DataView(bytes.buffer), 0))
    const { ok, packet } = read(bytes)
    assert.equal(ok, true, packet.problem)
    const { payloadOffset, linkOffset, ...values } = packet
    assert.deepEqual(values, {
      family: NFPROTO.ipv4,
      group: 5,
      hook: 2,
      protocol: 0x0800,
      inputDevice: 7,
      outputDevice: 9,
      physicalInput: 3,
      physicalOutput: 4,
      payloadLength: 4,
      hardwareType: 1,
      linkLength: 14,
      vlanProtocol: 0x8100,
      vlanTci: 0xa014,
      sequence: 0xfffffffe,
      seconds: 0x65000000,
      microseconds: 999_999,
      problem: '',
      problemOffset: 0,
    })
    assert.deepEqual([...bytes.subarray(payloadOffset, payloadOffset + 4)], [0x45, 0, 0, 0x3c])
    assert.deepEqual([...bytes.subarray(linkOffset, linkOffset + 2)], [2, 0])
  })

  test('the next message forgets the one before', () => {
    const packet = emptyNflogPacket()
    const [first, second] = [
      message(whole),
      message(
        [
          [1, '86dd0000'],
          [9, '60'],
        ],
        '0a',
      ),
    ]
    readNflog(new DataView(first.buffer), 0, first.length, packet)
    assert.equal(readNflog(new DataView(second.buffer), 0, second.length, packet), true)
    const { payloadOffset, payloadLength, linkOffset, ...values } = packet
    const { payloadOffset: _, payloadLength: __, linkOffset: ___, ...fresh } = emptyNflogPacket()
    assert.deepEqual(values, { ...fresh, family: NFPROTO.ipv6, group: 5, protocol: 0x86dd })
  })

  const wrong: readonly [name: string, bytes: Uint8Array, problem: string, offset: number][] = [
    ['headers only in part', message([]).subarray(0, 18), 'shorter than its headers', 0],
    ['no packet header', message([[9, '45']]), 'PACKET_HDR is missing', 0],
    ['no packet', message([[1, '08000000']]), 'PAYLOAD is missing', 0],
    [
      'a short interface',
      message([
        [1, '08000000'],
        [4, '0007'],
      ]),
      'attribute 4 of 2 bytes',
      28,
    ],
    ['cut short', message(whole).subarray(0, 40), 'attribute longer than the message', 36],
  ]
  for (const [name, bytes, problem, offset] of wrong) {
    test(`${name}: says what and where`, () => {
      const { ok, packet } = read(new Uint8Array(bytes))
      assert.deepEqual([ok, packet.problem, packet.problemOffset], [false, problem, offset])
    })
  }

  test('nothing makes it throw or read beyond the end', () => {
    fc.assert(
      fc.property(fc.nat(300), fc.array(fc.tuple(fc.nat(299), fc.nat(255))), (length, changes) => {
        const bytes = message(whole)
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
        const cut = new Uint8Array(bytes.subarray(0, Math.min(length, bytes.length)))
        const { ok, packet } = read(cut)
        if (ok) assert.ok(packet.payloadOffset + packet.payloadLength <= cut.length)
      }),
      { numRuns: 2000 },
    )
  })

  test('requests are as nfnetlink wants them', () => {
    const requests = bindNflog(5, { copyBytes: 128, bufferBytes: 16384, timeout: 10, threshold: 64 })
    assert.deepEqual(
      requests.map(bytes => Buffer.from(bytes.subarray(4)).toString('hex')),
      [
        '01040100 00000000 00000000 00000005 0500 0100 01000000',
        '01040100 00000000 00000000 00000005' +
          '0a00 0200 00000080 02 00 0000 0800 0300 00004000 0800 0400 0000000a 0800 0500 00000040 0600 0600 0001 0000',
      ].map(hex => hex.replaceAll(' ', '')),
    )
  })
})
