import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { endpoint, packetText, parsePacket } from '../../agent/wire/packet.ts'

const MACS = '020000000002' + '020000000001'
const TO = '02:00:00:00:00:01 > 02:00:00:00:00:02'
const IP4_TCP = '450000280001000040060000' + 'c6336407' + 'c000020a'
const TCP = '9c40' + '0017' + '00000000' + '00000000' + '5012' + 'ffff' + '0000' + '0000'
const IP6 = '20010db8000000000000000000000001' + '20010db8000000000000000000000002'

suite('packets as text', () => {
  const rows: [name: string, protocol: number, hex: string, text: string][] = [
    ['TCP', 1, `${MACS}0800${IP4_TCP}${TCP}`, `${TO} 198.51.100.7:40000 > 192.0.2.10:23 TCP SYN,ACK ttl 64`],
    [
      'TCP cut before its flags',
      1,
      `${MACS}0800${IP4_TCP}9c400017`,
      `${TO} 198.51.100.7:40000 > 192.0.2.10:23 TCP ttl 64`,
    ],
    ['IPv4 without a link header', 11, IP4_TCP, '198.51.100.7 > 192.0.2.10 TCP ttl 64'],
    [
      'one VLAN tag',
      1,
      `${MACS}8100a064` + `0800${IP4_TCP}`,
      `${TO} vlan 100 priority 5 198.51.100.7 > 192.0.2.10 TCP ttl 64`,
    ],
    [
      'two VLAN tags',
      1,
      `${MACS}88a800648100000a0800${IP4_TCP}`,
      `${TO} vlan 100 priority 0 vlan 10 priority 0 198.51.100.7 > 192.0.2.10 TCP ttl 64`,
    ],
    ['a VLAN tag cut', 1, `${MACS}810000`, `${TO} type 0x8100`],
    [
      'UDP over IPv6 behind an extension header',
      12,
      `6a500000001000ff${IP6}1100000000000000003518c700080000`,
      '[2001:db8::1]:53 > [2001:db8::2]:6343 UDP tos 165 ttl 255',
    ],
    [
      'ICMPv6',
      12,
      `60000000000a3aff${IP6}87000000`,
      '2001:db8::1 > 2001:db8::2 ICMPv6 type 135 code 0 ttl 255',
    ],
    [
      'first IPv6 fragment',
      12,
      `6000000000102c40${IP6}1100000100000001003518c700080000`,
      '[2001:db8::1]:53 > [2001:db8::2]:6343 UDP fragment at 0 ttl 64',
    ],
    [
      'later IPv6 fragment: its bytes are not ports',
      12,
      `6000000000102c40${IP6}110000b900000001003518c700080000`,
      '2001:db8::1 > 2001:db8::2 UDP fragment at 184 ttl 64',
    ],
    [
      'later IPv4 fragment',
      11,
      '4500002800012003' + '40110000' + 'c6336407' + 'c000020a' + '003518c7',
      '198.51.100.7 > 192.0.2.10 UDP fragment at 24 ttl 64',
    ],
    [
      'IPv4 options are stepped over',
      11,
      '46000028000100004011' + '0000' + 'c6336407' + 'c000020a' + '94040000' + '003518c7',
      '198.51.100.7:53 > 192.0.2.10:6343 UDP ttl 64',
    ],
    [
      'ICMP',
      11,
      '45000028000100004001' + '0000' + 'c6336407' + 'c000020a' + '0b000000',
      '198.51.100.7 > 192.0.2.10 ICMP type 11 code 0 ttl 64',
    ],
    [
      'unknown protocol',
      11,
      '450000280001000040fd' + '0000' + 'c6336407' + 'c000020a',
      '198.51.100.7 > 192.0.2.10 protocol 253 ttl 64',
    ],
    [
      'ARP',
      1,
      `${MACS}08060001080006040001020000000001c0000201000000000000c0000202`,
      `${TO} 192.0.2.1 > 192.0.2.2 ARP request`,
    ],
    ['MPLS', 13, `00064040000c8140${IP4_TCP}`, 'mpls 100/200 198.51.100.7 > 192.0.2.10 TCP ttl 64'],
    ['MPLS with something else inside', 1, `${MACS}88470006414000000000`, `${TO} mpls 100 type 0x8847`],
    ['another EtherType', 1, `${MACS}88cc0000`, `${TO} type 0x88cc`],
    ['802.3 length', 1, `${MACS}00260000`, TO],
    ['an IPv4 header that is too short to be one', 11, `44${IP4_TCP.slice(2)}`, 'type 0x0800'],
    ['a link protocol without a parser', 7, 'ff030021', ''],
    ['nothing', 1, '', ''],
  ]
  for (const [name, protocol, hex, text] of rows) {
    test(name, () => assert.equal(packetText(parsePacket(protocol, Buffer.from(hex, 'hex'))), text))
  }
})

test('any bytes are read without an error, and the payload of UDP is behind its header', () => {
  const protocol = fc.constantFrom(1, 11, 12, 13, 15)
  const start = fc.constantFrom(
    '',
    MACS,
    `${MACS}0800${IP4_TCP}`,
    `${MACS}86dd6000000000102c40${IP6}`,
    '45',
    '60',
  )
  fc.assert(
    fc.property(protocol, start, fc.uint8Array({ maxLength: 120 }), (protocol, prefix, bytes) => {
      const whole = Buffer.concat([Buffer.from(prefix, 'hex'), bytes])
      const packet = parsePacket(protocol, whole)
      assert.equal(typeof packetText(packet), 'string')
      if (packet.payload_offset !== undefined) assert.ok(packet.payload_offset <= whole.length)
    }),
    { numRuns: 1000 },
  )
})

test('endpoint', () => {
  assert.equal(endpoint('192.0.2.1', 80), '192.0.2.1:80')
  assert.equal(endpoint('2001:db8::1', 80), '[2001:db8::1]:80')
  assert.equal(endpoint('2001:db8::1', undefined), '2001:db8::1')
})
