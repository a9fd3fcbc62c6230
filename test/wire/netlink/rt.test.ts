import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { NetlinkFormatError } from '../../../agent/wire/netlink/attributes.ts'
import {
  dumpLinkModes,
  getEthernetStats,
  getLinkModes,
  readEthernetStats,
  readLinkModes,
} from '../../../agent/wire/netlink/ethtool.ts'
import { type Message, MessageBuilder } from '../../../agent/wire/netlink/message.ts'
import { hardwareAddressText, RTM } from '../../../agent/wire/netlink/rt.ts'
import { dumpAddresses, IFA_FLAG, readAddress } from '../../../agent/wire/netlink/rt-address.ts'
import {
  ARPHRD,
  BOND_MODE_LACP,
  dumpLinks,
  getLink,
  IFF,
  OPER_STATE,
  readLink,
  readLinkStats,
} from '../../../agent/wire/netlink/rt-link.ts'
import { getStats, readStats } from '../../../agent/wire/netlink/rt-stats.ts'

const recorded: Record<string, string> = JSON.parse(
  readFileSync(new URL('rt-recorded.json', import.meta.url), 'utf8'),
).messages

/** The message in these bytes, at an offset in a larger buffer as a receiver may have it. */
function message(bytes: Uint8Array): Message {
  const buffer = new Uint8Array(bytes.length + 24)
  buffer.set(bytes, 8)
  const view = new DataView(buffer.buffer, 8, bytes.length)
  return { type: view.getUint16(4, true), flags: view.getUint16(6, true), view }
}

const recordedMessage = (name: string) => message(Buffer.from(recorded[name]!, 'hex'))

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

function refuses(read: () => unknown, code: string, offset: number): void {
  assert.throws(read, (error: unknown) => {
    assert.ok(error instanceof NetlinkFormatError, `${error}`)
    assert.equal(error.code, code)
    assert.equal(error.offset, offset)
    return true
  })
}

/** An RTM_NEWLINK with these attributes. */
function linkMessage(build: (builder: MessageBuilder) => void): Uint8Array<ArrayBuffer> {
  const header = new DataView(new ArrayBuffer(16))
  header.setUint16(2, ARPHRD.ether, true)
  header.setInt32(4, 9, true)
  header.setUint32(8, IFF.up | IFF.lowerUp, true)
  const builder = new MessageBuilder(RTM.newLink, 0, new Uint8Array(header.buffer))
  build(builder.text(3, 'swp1'))
  return builder.build()
}

describe('link requests', () => {
  // length, type, flags, sequence, port; ifinfomsg; attributes. Written down from the kernel's headers.
  const rows: readonly [name: string, bytes: Uint8Array, expected: string][] = [
    [
      'all links',
      dumpLinks(),
      '28000000120001030000000000000000' + '00000000000000000000000000000000' + '08001d0008000000',
    ],
    ['one link', getLink(4), '20000000120001000000000000000000' + '00000000040000000000000000000000'],
    ['all addresses', dumpAddresses(), '18000000160001030000000000000000' + '0000000000000000'],
    [
      'link and LACP counters of one interface',
      getStats(4, ['link64', 'linkXstatsSlave']),
      '1c0000005e0001000000000000000000' + '000000000400000005000000',
    ],
    [
      'what the CPU saw of one interface',
      getStats(4, ['offloadXstats']),
      '1c0000005e0001000000000000000000' + '000000000400000008000000',
    ],
  ]
  for (const [name, bytes, expected] of rows) test(name, () => assert.equal(hex(bytes), expected))
})

describe('recorded links', () => {
  test('a bridge', () => {
    const link = readLink(recordedMessage('bridge'))
    assert.equal(link.family, 0)
    assert.equal(link.ifIndex, 2)
    assert.equal(link.name, 'br0')
    assert.equal(link.kind, 'bridge')
    assert.equal(link.hardwareType, ARPHRD.ether)
    assert.equal(link.mtu, 1500)
    assert.equal(link.operState, OPER_STATE.up)
    assert.equal(link.address, '02:00:00:00:00:0a')
    assert.equal(link.master, undefined)
    assert.equal(link.alias, undefined)
  })

  test('a veth that is a bridge port', () => {
    const link = readLink(recordedMessage('bridgePort'))
    assert.deepEqual(
      { ...link, flags: link.flags & (IFF.up | IFF.lowerUp) },
      {
        family: 0,
        ifIndex: 4,
        name: 'va',
        hardwareType: ARPHRD.ether,
        flags: IFF.up | IFF.lowerUp,
        alias: 'uplink to rack 4',
        mtu: 1500,
        address: '02:00:00:00:00:0a',
        permanentAddress: undefined,
        operState: OPER_STATE.up,
        master: 2,
        link: 3,
        linkNetnsId: 0,
        kind: 'veth',
        slaveKind: 'bridge',
        vlanId: undefined,
        vlanFiltering: false,
        bond: undefined,
        bondPort: undefined,
        bridgePortState: 3,
        parentDevice: undefined,
        switchId: undefined,
        physicalPortName: undefined,
        promiscuity: 1,
        newIfIndex: undefined,
      },
    )
  })

  test('counters in the link and by RTM_GETSTATS are the same kind of value', () => {
    const inLink = readLinkStats(recordedMessage('bridgePortWithCounters'))!
    const alone = readStats(recordedMessage('stats'))
    assert.equal(alone.ifIndex, 4)
    assert.deepEqual(Object.keys(alone.link64!), Object.keys(inLink))
    assert.equal(typeof alone.link64!.rxOtherHostDropped, 'bigint')
    assert.equal(alone.cpu64, undefined)
    assert.equal(alone.bondPort, undefined)
  })
})

describe('recorded bonds and VLANs', () => {
  test('a bond in LACP mode; the actor is told only to those who may administer it', () => {
    const link = readLink(recordedMessage('lacpBond'))
    assert.equal(link.kind, 'bond')
    assert.deepEqual(link.bond, {
      mode: BOND_MODE_LACP,
      aggregatorId: 1,
      ports: 1,
      actorKey: 15,
      partnerKey: 1,
      partnerMac: '00:00:00:00:00:00',
      actorSystemPriority: 65535,
      actorSystem: '00:00:00:00:00:00',
    })
  })

  test('its port, with LACP states and counters', () => {
    const link = readLink(recordedMessage('lacpPort'))
    assert.equal(link.kind, 'veth')
    assert.equal(link.slaveKind, 'bond')
    assert.equal(link.master, 3)
    assert.equal(link.bondPort!.actorState, 0xcd)
    assert.equal(link.bondPort!.partnerState, 2)
    assert.equal(link.bondPort!.permanentAddress, link.address)
    const stats = readStats(recordedMessage('lacpPortStats'))
    assert.equal(stats.ifIndex, 5)
    assert.equal(stats.bondPort!.lacpduTx, 3n)
    assert.equal(stats.bondPort!.markerUnknownRx, 0n)
    assert.equal(stats.link64!.txPackets, 9n)
    assert.equal(readStats(recordedMessage('lacpBondStats')).bond!.lacpduTx, 3n)
  })

  test('a VLAN', () => {
    const link = readLink(recordedMessage('vlan'))
    assert.equal(link.kind, 'vlan')
    assert.equal(link.vlanId, 7)
    assert.equal(link.link, 3)
    assert.equal(link.operState, OPER_STATE.down)
  })
})

describe('links made by hand', () => {
  test('a bond in LACP mode', () => {
    const bytes = linkMessage(link =>
      link.nest(18, info =>
        info.text(1, 'bond').nest(2, data =>
          data
            .u8(1, BOND_MODE_LACP)
            .nest(23, ad =>
              ad
                .u16(1, 7)
                .u16(2, 2)
                .u16(3, 15)
                .u16(4, 1001)
                .bytes(5, Uint8Array.of(2, 0, 0, 0, 0xff, 1)),
            )
            .u16(24, 65535)
            .bytes(26, Uint8Array.of(2, 0, 0, 0, 0, 9)),
        ),
      ),
    )
    assert.deepEqual(readLink(message(bytes)).bond, {
      mode: 4,
      aggregatorId: 7,
      ports: 2,
      actorKey: 15,
      partnerKey: 1001,
      partnerMac: '02:00:00:00:ff:01',
      actorSystemPriority: 65535,
      actorSystem: '02:00:00:00:00:09',
    })
  })

  test('a member of a bond', () => {
    const bytes = linkMessage(link =>
      link.u32(10, 12).nest(18, info =>
        info.text(4, 'bond').nest(5, data =>
          data
            .u8(1, 0)
            .u8(2, 0)
            .u32(3, 2)
            .bytes(4, Uint8Array.of(2, 0, 0, 0, 0, 5))
            .u16(5, 0)
            .u16(6, 7)
            .u8(7, 0x3d)
            .u16(8, 0x3f),
        ),
      ),
    )
    const link = readLink(message(bytes))
    assert.equal(link.master, 12)
    assert.deepEqual(link.bondPort, {
      state: 0,
      miiStatus: 0,
      linkFailures: 2,
      permanentAddress: '02:00:00:00:00:05',
      aggregatorId: 7,
      actorState: 0x3d,
      partnerState: 0x3f,
    })
  })

  test('a VLAN, and a switch port', () => {
    const vlan = linkMessage(link =>
      link.u32(5, 3).nest(18, info => info.text(1, 'vlan').nest(2, data => data.u16(1, 4094))),
    )
    assert.equal(readLink(message(vlan)).vlanId, 4094)
    const port = linkMessage(link =>
      link
        .bytes(36, Uint8Array.of(0x52, 0x54, 0, 0xab))
        .text(38, 'p1')
        .text(56, '0000:03:00.0'),
    )
    const link = readLink(message(port))
    assert.equal(link.switchId, '525400ab')
    assert.equal(link.physicalPortName, 'p1')
    assert.equal(link.parentDevice, '0000:03:00.0')
  })

  test('counters of an older kernel, without the last two', () => {
    const counters = new BigUint64Array(23).map((_, i) => 2n ** 53n + BigInt(i))
    const stats64 = readLinkStats(
      message(linkMessage(link => link.bytes(23, new Uint8Array(counters.buffer)))),
    )
    assert.equal(stats64!.rxPackets, 2n ** 53n)
    assert.equal(stats64!.rxBytes, 2n ** 53n + 2n)
    assert.equal(stats64!.txCompressed, 2n ** 53n + 22n)
    assert.equal(stats64!.rxNoHandler, undefined)
    assert.equal(stats64!.rxOtherHostDropped, undefined)
  })

  test('LACP counters; attribute 0 is the first of them', () => {
    const builder = new MessageBuilder(RTM.newStats, 0, Uint8Array.of(0, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0))
    builder.nest(3, xstats =>
      xstats.nest(2, bond =>
        bond.nest(1, ad =>
          ad
            .u64(0, 11n)
            .u64(1, 12n)
            .u64(4, 1n << 60n),
        ),
      ),
    )
    const stats = readStats(message(builder.build()))
    assert.equal(stats.ifIndex, 9)
    assert.equal(stats.bondPort!.lacpduRx, 11n)
    assert.equal(stats.bondPort!.lacpduTx, 12n)
    assert.equal(stats.bondPort!.markerRx, 1n << 60n)
    assert.equal(stats.bondPort!.markerUnknownRx, undefined)
    assert.equal(stats.bond, undefined)
  })
})

describe('malformed links', () => {
  const rows: readonly [name: string, bytes: Uint8Array, code: string, offset: number][] = [
    ['shorter than its header', linkMessage(() => {}).slice(0, 31), 'wrong-size', 0],
    ['an MTU of 2 bytes', linkMessage(link => link.u16(4, 1500)), 'wrong-size', 44],
    ['two names', linkMessage(link => link.text(3, 'swp2')), 'repeated', 44],
    ['counters of 100 bytes', linkMessage(link => link.bytes(23, new Uint8Array(100))), 'wrong-size', 44],
    [
      'a VLAN id of 4 bytes',
      linkMessage(link => link.nest(18, info => info.text(1, 'vlan').nest(2, data => data.u32(1, 1)))),
      'wrong-size',
      64,
    ],
    ['an attribute cut short', linkMessage(link => link.u32(4, 1500)).slice(0, 50), 'past-end', 44],
  ]
  for (const [name, bytes, code, offset] of rows) {
    test(name, () => refuses(() => [readLink(message(bytes)), readLinkStats(message(bytes))], code, offset))
  }

  test('any bytes in a link: read, or refused at a place inside', () => {
    const whole = Buffer.from(recorded.bridgePortWithCounters!, 'hex')
    fc.assert(
      fc.property(
        fc.nat(whole.length - 1),
        fc.nat(255),
        fc.integer({ min: 16, max: whole.length }),
        (at, value, length) => {
          const bytes = Uint8Array.from(whole.subarray(0, length))
          if (at < length) bytes[at] = value
          try {
            readLink(message(bytes))
            readLinkStats(message(bytes))
          } catch (error) {
            assert.ok(error instanceof NetlinkFormatError, `${error}`)
            assert.ok(error.offset >= 0 && error.offset <= length)
          }
        },
      ),
      { numRuns: 1000 },
    )
  })
})

describe('addresses', () => {
  test('IPv4', () => {
    assert.deepEqual(readAddress(recordedMessage('addressIpv4')), {
      ifIndex: 2,
      address: '192.0.2.1',
      prefixLength: 24,
      scope: 0,
      flags: IFA_FLAG.permanent,
    })
  })
  test('IPv4 on a point-to-point link is the own address', () => {
    const address = readAddress(recordedMessage('addressPointToPoint'))
    assert.equal(address!.address, '198.51.100.1')
    assert.equal(address!.prefixLength, 32)
  })
  test('IPv6', () => {
    const address = readAddress(recordedMessage('addressIpv6'))
    assert.equal(address!.address, '2001:db8::1')
    assert.equal(address!.prefixLength, 64)
    assert.equal(address!.flags & IFA_FLAG.permanent, IFA_FLAG.permanent)
    assert.equal(readAddress(recordedMessage('addressLinkLocal'))!.scope, 253)
  })
  test('another family is left out', () => {
    const bytes = Buffer.from(recorded.addressIpv4!, 'hex')
    bytes[16] = 28
    assert.equal(readAddress(message(bytes)), undefined)
  })
  test('an address of the wrong length', () => {
    const bytes = Buffer.from(recorded.addressIpv4!, 'hex')
    bytes[16] = 10
    refuses(() => readAddress(message(bytes)), 'wrong-size', 32)
  })
  test('no address', () => {
    const bytes = new MessageBuilder(RTM.newAddress, 0, Uint8Array.of(2, 24, 0, 0, 2, 0, 0, 0)).build()
    refuses(() => readAddress(message(bytes)), 'missing', 0)
  })
  test('hardware addresses of any length', () => {
    assert.equal(hardwareAddressText(Uint8Array.of(0xc0, 0, 2, 1)), 'c0:00:02:01')
    assert.equal(hardwareAddressText(new Uint8Array(0)), undefined)
  })
})

describe('ethtool', () => {
  test('requests', () => {
    const header = '14000180' + '0800010004000000' + '0800030001000000'
    assert.equal(hex(getLinkModes(0x15, 4)), `2800000015000100000000000000000004010000${header}`)
    assert.equal(
      hex(dumpLinkModes(0x15)),
      '20000000150001030000000000000000' + '04010000' + '0c000180' + '0800030001000000',
    )
    assert.equal(
      hex(getEthernetStats(0x15, 4)),
      '40000000150001000000000000000000' +
        '20010000' +
        '14000280' +
        '0800010004000000' +
        '0800030001000000' +
        '18000380' +
        '04000100' +
        '0800020004000000' +
        '0800040003000000',
    )
  })

  test('recorded link modes of a veth', () => {
    assert.deepEqual(readLinkModes(recordedMessage('linkModes')), {
      ifIndex: 4,
      speedMbps: 10000,
      duplex: 'full',
      autonegotiation: false,
      lanes: undefined,
    })
  })

  test('unknown speed and duplex', () => {
    const bytes = new MessageBuilder(21, 0, Uint8Array.of(4, 1, 0, 0))
      .nest(1, header => header.u32(1, 4))
      .u32(5, 0xffffffff)
      .u8(6, 255)
      .build()
    const modes = readLinkModes(message(bytes))
    assert.equal(modes.speedMbps, undefined)
    assert.equal(modes.duplex, undefined)
  })

  test('recorded statistics of a driver that has none', () => {
    assert.deepEqual(readEthernetStats(recordedMessage('ethernetStatsOfVeth')), {
      ifIndex: 4,
      mac: {},
      phy: {},
    })
  })

  test('statistics, each in a nest of its own; unknown ones are stepped over', () => {
    const bytes = new MessageBuilder(21, 0, Uint8Array.of(33, 1, 0, 0))
      .nest(2, header => header.u32(1, 4).text(2, 'swp1'))
      .nest(4, group =>
        group
          .u32(2, 1)
          .u32(3, 18)
          .nest(4, statistic => statistic.u64(0, 100n))
          .nest(4, statistic => statistic.u64(4, 1n << 63n))
          .nest(4, statistic => statistic.u64(18, 9n))
          .nest(4, statistic => statistic.u64(99, 9n)),
      )
      .nest(4, group =>
        group
          .u32(2, 0)
          .u32(3, 17)
          .nest(4, statistic => statistic.u64(0, 7n)),
      )
      .build()
    assert.deepEqual(readEthernetStats(message(bytes)), {
      ifIndex: 4,
      mac: { framesTransmittedOk: 100n, frameCheckSequenceErrors: 1n << 63n, broadcastFramesReceivedOk: 9n },
      phy: { symbolErrorsDuringCarrier: 7n },
    })
  })

  test('a reply about no interface', () => {
    refuses(
      () => readLinkModes(message(new MessageBuilder(21, 0, Uint8Array.of(4, 1, 0, 0)).build())),
      'missing',
      0,
    )
  })
})
