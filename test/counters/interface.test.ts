import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, type TestContext, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { ethernetCountersOf } from '../../agent/counters/ethernet-counters.ts'
import {
  type IfCountersSources,
  ifCountersOf,
  ifCountersReader,
  neverBack,
  unicastOf,
} from '../../agent/counters/if-counters.ts'
import { interfaceReaders } from '../../agent/counters/interface-readers.ts'
import { InterfaceStatistics } from '../../agent/counters/interface-statistics.ts'
import { lagPortOf } from '../../agent/counters/lag-port.ts'
import { createLogger } from '../../agent/health/log.ts'
import { type Interface, Interfaces } from '../../agent/interfaces.ts'
import { NetlinkError } from '../../agent/kernel/netlink-socket.ts'
import type { EthernetStats } from '../../agent/wire/netlink/ethtool.ts'
import type { Link } from '../../agent/wire/netlink/rt-link.ts'
import type { InterfaceStats, LinkStats64 } from '../../agent/wire/netlink/rt-stats.ts'
import type { EthernetCounters, IfCounters } from '../../agent/wire/sflow/counters/interface.ts'
import { UNKNOWN32 } from '../../agent/wire/struct.ts'
import { port } from '../support/port.ts'

/** Counters that are all different, two of them past 32 bits. */
const STATS: LinkStats64 = {
  rxPackets: 0x1_0000_0100n,
  txPackets: 2000n,
  rxBytes: 0xffff_ffff_ffff_fff0n,
  txBytes: 3n,
  rxErrors: 4n,
  txErrors: 5n,
  rxDropped: 6n,
  txDropped: 7n,
  multicast: 0x10n,
  collisions: 9n,
  rxLengthErrors: 10n,
  rxOverErrors: 11n,
  rxCrcErrors: 12n,
  rxFrameErrors: 13n,
  rxFifoErrors: 14n,
  rxMissedErrors: 100n,
  txAbortedErrors: 16n,
  txCarrierErrors: 17n,
  txFifoErrors: 18n,
  txHeartbeatErrors: 19n,
  txWindowErrors: 20n,
  rxCompressed: 21n,
  txCompressed: 22n,
  rxNoHandler: 23n,
  rxOtherHostDropped: 24n,
}

const PORT = port(70_000, 'swp1', { speedBitsPerSecond: 400e9, promiscuous: true })

describe('if_counters', () => {
  test('each field has its counter, cut to its width and no further', () => {
    assert.deepEqual(ifCountersOf(PORT, STATS, {}, unicastOf(STATS, {})), {
      ifIndex: 70_000,
      ifType: 6,
      ifSpeed: 400_000_000_000n,
      ifDirection: 1,
      ifStatus: 3,
      ifInOctets: 0xffff_ffff_ffff_fff0n,
      ifInUcastPkts: 0xf0,
      ifInMulticastPkts: 0x10,
      ifInBroadcastPkts: UNKNOWN32,
      ifInDiscards: 106,
      ifInErrors: 4,
      ifInUnknownProtos: UNKNOWN32,
      ifOutOctets: 3n,
      ifOutUcastPkts: 2000,
      ifOutMulticastPkts: UNKNOWN32,
      ifOutBroadcastPkts: UNKNOWN32,
      ifOutDiscards: 7,
      ifOutErrors: 5,
      ifPromiscuousMode: 1,
    })
  })

  test('what the MAC counts takes its place and leaves unicast the rest', () => {
    const mac = {
      multicastFramesReceivedOk: 0x20n,
      broadcastFramesReceivedOk: 0x30n,
      multicastFramesTransmittedOk: 400n,
      broadcastFramesTransmittedOk: 500n,
    }
    const counters = ifCountersOf(PORT, STATS, mac, unicastOf(STATS, mac))
    assert.equal(counters.ifInUcastPkts, 0xb0)
    assert.equal(counters.ifInMulticastPkts, 0x20)
    assert.equal(counters.ifInBroadcastPkts, 0x30)
    assert.equal(counters.ifOutUcastPkts, 1100)
    assert.equal(counters.ifOutMulticastPkts, 400)
    assert.equal(counters.ifOutBroadcastPkts, 500)
  })

  const states: [
    name: string,
    port: Partial<Interface>,
    status: number,
    direction: number,
    promiscuous: number,
  ][] = [
    ['up', {}, 3, 1, 1],
    ['up without a carrier', { operUp: false, duplex: undefined }, 1, 0, 1],
    ['down', { adminUp: false, operUp: false, duplex: undefined, promiscuous: false }, 0, 0, 0],
    ['half duplex', { duplex: 'half' }, 3, 2, 1],
  ]
  for (const [name, port, status, direction, promiscuous] of states) {
    test(name, () => {
      const counters = ifCountersOf({ ...PORT, ...port }, STATS, {}, unicastOf(STATS, {}))
      assert.deepEqual(
        [counters.ifStatus, counters.ifDirection, counters.ifPromiscuousMode],
        [status, direction, promiscuous],
      )
    })
  }

  test('a MAC that counts more multicasts than packets were received leaves no unicast', () => {
    assert.equal(unicastOf({ ...STATS, rxPackets: 5n, multicast: 9n }, {}).received, 0n)
  })

  test('unicast does not go back when only multicasts were counted meanwhile', () => {
    const first = unicastOf({ ...STATS, rxPackets: 100n, multicast: 40n }, {})
    const second = neverBack(unicastOf({ ...STATS, rxPackets: 100n, multicast: 43n }, {}), first)
    assert.equal(second.received, 60n)
    const third = neverBack(unicastOf({ ...STATS, rxPackets: 110n, multicast: 43n }, {}), second)
    assert.equal(third.received, 67n)
  })

  test('unicast follows counters that were reset', () => {
    const first = unicastOf({ ...STATS, rxPackets: 100n, multicast: 40n }, {})
    assert.equal(neverBack(unicastOf({ ...STATS, rxPackets: 3n, multicast: 1n }, {}), first).received, 2n)
  })

  const sources = {
    port: () => PORT,
    stats: async () => undefined,
    ethernet: { mayCount: true, ask: async () => undefined },
  }

  test('no record for an interface that is gone', async () => {
    assert.equal(await ifCountersReader(sources).read(), undefined)
  })

  const mac = {
    multicastFramesReceivedOk: 0x20n,
    broadcastFramesReceivedOk: 0x30n,
    multicastFramesTransmittedOk: 400n,
    broadcastFramesTransmittedOk: 500n,
  }
  const answer = async () => ({ ifIndex: PORT.ifIndex, mac, phy: {} })
  const failure = () => Promise.reject(new NetlinkError(5, 'read the Ethernet statistics'))

  /** A reader of the fields that depend on the MAC, whose answers come one after the other. */
  function macFields(...answers: IfCountersSources['ethernet']['ask'][]) {
    const ethernet = { mayCount: true, ask: () => answers.shift()!() }
    const reader = ifCountersReader({
      ...sources,
      stats: async () => ({ link64: STATS }) as InterfaceStats,
      ethernet,
    })
    return async () => {
      const counters = (await reader.read())!
      const { ifInUcastPkts, ifInMulticastPkts, ifInBroadcastPkts, ifOutMulticastPkts } = counters
      return [ifInUcastPkts, ifInMulticastPkts, ifInBroadcastPkts, ifOutMulticastPkts]
    }
  }
  const KNOWN = [0xb0, 0x20, 0x30, 400]
  const WITHOUT = [0xf0, 0x10, UNKNOWN32, UNKNOWN32]

  test('the last answer of the MAC stands for one that fails', async () => {
    const read = macFields(answer, failure, answer)
    for (let reading = 1; reading <= 3; reading++) assert.deepEqual(await read(), KNOWN, `reading ${reading}`)
  })

  test('a MAC that fails at the first reading is not known in any', async () => {
    const read = macFields(failure, answer)
    for (let reading = 1; reading <= 2; reading++)
      assert.deepEqual(await read(), WITHOUT, `reading ${reading}`)
  })

  test('a driver that is slow costs its own ethernet_counters only', async t => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    let end: (stats: EthernetStats) => void = () => {}
    const statistics = {
      stats: async () => ({ link64: STATS }),
      ethernet: () => new Promise<EthernetStats>(resolve => (end = resolve)),
    } as unknown as InterfaceStatistics
    const [interfaceReader, ethernetReader] = interfaceReaders(PORT.ifIndex, () => PORT, { statistics })
    const counters = interfaceReader!.read()
    const late = ethernetReader!.read()
    t.mock.timers.tick(300)
    assert.equal(((await counters) as IfCounters).ifInMulticastPkts, 0x10)
    end({ ...(await answer()), phy: { symbolErrorsDuringCarrier: 12n } })
    assert.equal(((await late) as EthernetCounters).dot3StatsSymbolErrors, 12)
  })
})

test('ethernet_counters: each field has its statistic, all ones where the driver has none', () => {
  const mac = {
    alignmentErrors: 1n,
    frameCheckSequenceErrors: 2n,
    singleCollisionFrames: 3n,
    multipleCollisionFrames: 4n,
    framesWithDeferredTransmissions: 5n,
    lateCollisions: 6n,
    framesAbortedDueToExcessiveCollisions: 7n,
    framesLostDueToInternalTransmitError: 8n,
    carrierSenseErrors: 9n,
    framesLostDueToInternalReceiveError: 0x1_0000_000an,
  }
  assert.deepEqual(ethernetCountersOf({ ifIndex: 1, mac, phy: { symbolErrorsDuringCarrier: 12n } }), {
    dot3StatsAlignmentErrors: 1,
    dot3StatsFCSErrors: 2,
    dot3StatsSingleCollisionFrames: 3,
    dot3StatsMultipleCollisionFrames: 4,
    dot3StatsSQETestErrors: UNKNOWN32,
    dot3StatsDeferredTransmissions: 5,
    dot3StatsLateCollisions: 6,
    dot3StatsExcessiveCollisions: 7,
    dot3StatsInternalMacTransmitErrors: 8,
    dot3StatsCarrierSenseErrors: 9,
    dot3StatsFrameTooLongs: UNKNOWN32,
    dot3StatsInternalMacReceiveErrors: 10,
    dot3StatsSymbolErrors: 12,
  })
})

describe('lag_port_stats', () => {
  const bond = {
    address: '02:00:00:00:00:0b',
    bond: { mode: 4, aggregatorId: 1, partnerMac: '02:00:00:00:00:0c', actorSystem: undefined },
  } as Link
  const member = { bondPort: { aggregatorId: 1, actorState: 0x3d, partnerState: 0x3f } } as Link
  const lacp = {
    lacpduRx: 1n,
    lacpduTx: 2n,
    lacpduUnknownRx: 3n,
    lacpduIllegalRx: 4n,
    markerRx: 5n,
    markerTx: 6n,
    markerResponseRx: 7n,
    markerResponseTx: 8n,
    markerUnknownRx: 9n,
  }

  test('a member of the active aggregator', () => {
    assert.deepEqual(lagPortOf(12, member, bond, lacp), {
      dot3adAggPortActorSystemID: '02:00:00:00:00:0b',
      dot3adAggPortPartnerOperSystemID: '02:00:00:00:00:0c',
      dot3adAggPortAttachedAggID: 12,
      dot3adAggPortState: Uint8Array.of(0, 0x3d, 0, 0x3f),
      dot3adAggPortStatsLACPDUsRx: 1,
      dot3adAggPortStatsMarkerPDUsRx: 5,
      dot3adAggPortStatsMarkerResponsePDUsRx: 7,
      dot3adAggPortStatsUnknownRx: 12,
      dot3adAggPortStatsIllegalRx: 4,
      dot3adAggPortStatsLACPDUsTx: 2,
      dot3adAggPortStatsMarkerPDUsTx: 6,
      dot3adAggPortStatsMarkerResponsePDUsTx: 8,
    })
  })

  test('a configured actor system comes before the address of the bond', () => {
    const actorSystem = '02:00:00:00:00:0d'
    const configured = { ...bond, bond: { ...bond.bond!, actorSystem } }
    assert.equal(lagPortOf(12, member, configured, lacp).dot3adAggPortActorSystemID, actorSystem)
    const notConfigured = { ...bond, bond: { ...bond.bond!, actorSystem: '00:00:00:00:00:00' } }
    assert.equal(lagPortOf(12, member, notConfigured, lacp).dot3adAggPortActorSystemID, bond.address)
  })

  test('a member of another aggregator has a partner that is not known', () => {
    const other = { bondPort: { ...member.bondPort!, aggregatorId: 2 } } as Link
    const record = lagPortOf(12, other, bond, lacp)
    assert.equal(record.dot3adAggPortPartnerOperSystemID, '00:00:00:00:00:00')
    assert.deepEqual(record.dot3adAggPortState, Uint8Array.of(0, 0x3d, 0, 0x3f))
  })

  test('a bond without LACP, and a team', () => {
    const roundRobin = { ...bond, bond: { ...bond.bond!, mode: 0 } }
    for (const record of [
      lagPortOf(12, member, roundRobin, lacp),
      lagPortOf(12, undefined, undefined, undefined),
    ]) {
      assert.equal(record.dot3adAggPortAttachedAggID, 12)
      assert.equal(record.dot3adAggPortActorSystemID, '00:00:00:00:00:00')
      assert.deepEqual(record.dot3adAggPortState, new Uint8Array(4))
      assert.equal(record.dot3adAggPortStatsLACPDUsRx, UNKNOWN32)
      assert.equal(record.dot3adAggPortStatsUnknownRx, UNKNOWN32)
    }
  })
})

let namespaces = 0

function ip(line: string): string {
  return execFileSync('ip', line.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** A namespace with a bridge of two veths, whose other ends are in a second namespace with an address each. */
async function lab(t: TestContext) {
  const near = `weir-c-${process.pid}-${++namespaces}`
  const far = `${near}-far`
  for (const namespace of [near, far]) {
    ip(`netns add ${namespace}`)
    t.after(() => ip(`netns del ${namespace}`))
  }
  ip(`-n ${near} link add br0 type bridge`)
  ip(`-n ${near} link set br0 up`)
  for (const i of [1, 2]) {
    ip(`-n ${near} link add v${i} type veth peer name p${i} netns ${far}`)
    ip(`-n ${near} link set v${i} master br0 up`)
    ip(`-n ${far} link set p${i} up`)
  }
  ip(`-n ${near} address add 192.0.2.1/24 dev br0`)
  ip(`-n ${far} address add 192.0.2.2/24 dev p1`)
  const interfaces = new Interfaces({ log: createLogger('silent'), namespace: near })
  await interfaces.start()
  t.after(() => interfaces.stop())
  const statistics = await InterfaceStatistics.open(near)
  t.after(() => statistics.close())
  const readers = (name: string) => {
    const { ifIndex } = interfaces.byName(name)!
    return interfaceReaders(ifIndex, () => interfaces.byIndex.get(ifIndex), { statistics })
  }
  return { near, far, interfaces, statistics, readers }
}

interface IpStatistics {
  readonly ifindex: number
  readonly stats64: {
    readonly rx: Record<'bytes' | 'packets' | 'errors' | 'dropped' | 'multicast' | 'missed_errors', number>
    readonly tx: Record<'bytes' | 'packets' | 'errors' | 'dropped', number>
  }
}

/** The record with fields of what iproute2 shows; both numbers are small here. */
function fieldsShownByIp({ ifindex, stats64: { rx, tx } }: IpStatistics) {
  return {
    ifIndex: ifindex,
    ifInOctets: BigInt(rx.bytes),
    ifInUcastPkts: rx.packets - rx.multicast,
    ifInMulticastPkts: rx.multicast,
    ifInDiscards: rx.dropped + (rx.missed_errors ?? 0),
    ifInErrors: rx.errors,
    ifOutOctets: BigInt(tx.bytes),
    ifOutUcastPkts: tx.packets,
    ifOutDiscards: tx.dropped,
    ifOutErrors: tx.errors,
  }
}

describe('interfaces of a namespace', () => {
  test('the counters of veth and bridge are those that ip shows', async t => {
    const { near, far, readers } = await lab(t)
    execFileSync('ip', ['netns', 'exec', far, 'ping', '-q', '-c', '20', '-i', '0.01', '192.0.2.1'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const name of ['v1', 'v2', 'br0']) {
      const shown = () => fieldsShownByIp(JSON.parse(ip(`-n ${near} -s -s -j link show ${name}`))[0])
      // The kernel sends by itself (neighbour discovery): what did not move around the reading can be compared.
      let expected = shown()
      let counters: IfCounters
      for (let tries = 1; ; tries++) {
        counters = (await readers(name)[0]!.read()) as IfCounters
        const before = expected
        expected = shown()
        if (isDeepStrictEqual(before, expected)) break
        assert.ok(tries < 100, `${name} does not come to rest`)
      }
      assert.deepEqual(pick(counters, expected), expected, name)
      assert.equal(counters.ifInBroadcastPkts, UNKNOWN32)
      assert.equal(counters.ifPromiscuousMode, name === 'br0' ? 0 : 1, 'members of a bridge are promiscuous')
    }
    const [counters] = await Promise.all(readers('v1').map(reader => reader.read()))
    assert.ok((counters as IfCounters).ifInUcastPkts >= 20)
  })

  test('a veth has if_counters and port_name, and says so in the same way each time', async t => {
    const { readers } = await lab(t)
    const v1 = readers('v1')
    for (let poll = 1; poll <= 2; poll++) {
      const values = await Promise.all(
        v1.map(async reader => ({ name: reader.record.name, value: await reader.read() })),
      )
      assert.deepEqual(
        values.filter(({ value }) => value !== undefined).map(({ name }) => name),
        ['if_counters', 'port_name'],
        `poll ${poll}`,
      )
      assert.deepEqual(values.at(-1)!.value, { name: 'v1' })
    }
  })

  test('after the first reading virtual interfaces are asked for together, and say the same', async t => {
    const { near, interfaces, statistics } = await lab(t)
    const names = ['v1', 'v2', 'br0']
    const indexes = names.map(name => interfaces.byName(name)!.ifIndex)
    const withoutMac = new Set<string>()
    const readers = indexes.map(
      ifIndex =>
        interfaceReaders(ifIndex, () => interfaces.byIndex.get(ifIndex), { statistics, withoutMac })[0]!,
    )
    assert.deepEqual(
      readers.map(({ bulk }) => bulk),
      [undefined, undefined, undefined],
    )
    assert.ok(await readers[0]!.read())
    // What is known of one veth holds for all; of bridges nothing is known yet.
    assert.deepEqual(
      readers.map(({ bulk }) => bulk !== undefined),
      [true, true, false],
    )
    ip(`-n ${near} link set v1 down`)
    const gone = indexes[2]! + 100
    for (let tries = 1; ; tries++) {
      const links = await statistics.links.ask([...indexes, gone])
      assert.deepEqual([...links.keys()], indexes)
      const alone = await Promise.all(readers.map(reader => reader.read()))
      const read = readers.map(reader => reader.read(links))
      // What the kernel sends by itself may come between.
      if (isDeepStrictEqual(read, alone)) break
      assert.ok(tries < 100, 'they do not come to rest')
    }
  })

  test('the state follows the interface, the records end with it', async t => {
    const { near, far, interfaces, readers } = await lab(t)
    const v1 = readers('v1')
    const told = () =>
      new Promise<void>(resolve => {
        const end = interfaces.subscribe(() => {
          end()
          resolve()
        })
      })
    const status = async () => ((await v1[0]!.read()) as IfCounters).ifStatus
    // The link of a cable comes a little after both its ends are up.
    while ((await status()) !== 3) await told()
    const down = told()
    ip(`-n ${far} link set p1 down`)
    await down
    assert.equal(await status(), 1)
    const gone = told()
    ip(`-n ${near} link del v1`)
    await gone
    for (const reader of v1) assert.equal(await reader.read(), undefined, reader.record.name)
  })

  test('an interface that is gone, but not yet known to be, is no error', async t => {
    const { near, interfaces, readers } = await lab(t)
    const [first] = readers('v1')
    interfaces.stop()
    ip(`-n ${near} link del v1`)
    assert.equal(await first!.read(), undefined)
  })
})

/** The fields of `from` that `like` has. */
function pick<T extends object>(from: object, like: T): Partial<T> {
  return Object.fromEntries(
    Object.keys(like).map(key => [key, (from as Record<string, unknown>)[key]]),
  ) as Partial<T>
}
