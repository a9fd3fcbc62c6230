import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { headersBytes, segmentFrameBytes } from '../../agent/wire/segment.ts'

const MAC_ADDRESSES = '0200000000010200000000ff'
const IP4_TCP = '4500002800010000400600007f0000017f000001'
const IP4_OPTIONS_UDP = '4600002800010000401100007f0000017f00000101010101'
const IP6_TCP = `6000000000140640${'20'.repeat(32)}`
const TCP = '0001000200000000000000005000000000000000'
const TCP_OPTIONS = `00010002000000000000000080000000000000000101080a${'00'.repeat(8)}`

const ROWS: { name: string; hex: string; link?: boolean; bytes: number }[] = [
  { name: 'IPv4, TCP', hex: `${MAC_ADDRESSES}0800${IP4_TCP}${TCP}`, bytes: 54 },
  { name: 'IPv4, TCP with options', hex: `${MAC_ADDRESSES}0800${IP4_TCP}${TCP_OPTIONS}`, bytes: 66 },
  {
    name: 'IPv4 with options, UDP',
    hex: `${MAC_ADDRESSES}0800${IP4_OPTIONS_UDP}0001000200080000`,
    bytes: 46,
  },
  { name: 'IPv6, TCP', hex: `${MAC_ADDRESSES}86dd${IP6_TCP}${TCP}`, bytes: 74 },
  { name: 'one VLAN tag', hex: `${MAC_ADDRESSES}810000010800${IP4_TCP}${TCP}`, bytes: 58 },
  { name: 'two VLAN tags', hex: `${MAC_ADDRESSES}88a80001810000010800${IP4_TCP}${TCP}`, bytes: 62 },
  { name: 'no link header', hex: IP4_TCP + TCP, link: false, bytes: 40 },
  {
    name: 'cut before the length of the TCP header',
    hex: `${MAC_ADDRESSES}0800${IP4_TCP}000100020000`,
    bytes: 0,
  },
  { name: 'cut inside the IP header', hex: `${MAC_ADDRESSES}080045000028`, bytes: 0 },
  {
    name: 'another transport',
    hex: `${MAC_ADDRESSES}0800${IP4_TCP.replace('4006', '4084')}${TCP}`,
    bytes: 0,
  },
  { name: 'not IP', hex: `${MAC_ADDRESSES}0806${'00'.repeat(40)}`, bytes: 0 },
  { name: 'nothing', hex: '', bytes: 0 },
]

describe('headers at the start of each segment', () => {
  for (const { name, hex, link = true, bytes } of ROWS) {
    test(name, () => {
      const packet = Buffer.from(`ffff${hex}`, 'hex')
      const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
      assert.equal(headersBytes(view, 2, packet.length - 2, link), bytes)
    })
  }

  test('whatever the octets are, nothing outside them is read', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.boolean(), (bytes, link) => {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
        const headers = headersBytes(view, 0, bytes.length, link)
        assert.ok(headers >= 0)
      }),
    )
  })
})

test('segments of a packet have its octets, and the headers again for each but one', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 120 }),
      fc.integer({ min: 1, max: 9000 }),
      fc.integer({ min: 2, max: 60 }),
      fc.nat(),
      (headers, segmentBytes, segments, rest) => {
        const lastBytes = 1 + (rest % segmentBytes)
        const whole = headers + (segments - 1) * segmentBytes + lastBytes
        const of = (isLast: boolean) => segmentFrameBytes(whole, segments, segmentBytes, headers, isLast)
        assert.equal((segments - 1) * of(false) + of(true), whole + (segments - 1) * headers)
      },
    ),
  )
})

test('with headers of unknown length segments are of one size', () => {
  assert.equal(segmentFrameBytes(3100, 3, 1000, 0, true), 1034)
  assert.equal(segmentFrameBytes(3100, 3, 1000, 0, false), 1034)
})
