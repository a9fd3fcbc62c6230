/**
 * Interface counters on kernels with what a development machine may lack: LACP between two bonds, dummy devices, a
 * simulated switch.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { DriverStatistics } from '../../../agent/counters/driver-statistics.ts'
import { interfaceReaders } from '../../../agent/counters/interface-readers.ts'
import { InterfaceStatistics } from '../../../agent/counters/interface-statistics.ts'
import { Modules } from '../../../agent/counters/modules.ts'
import { Poller } from '../../../agent/datasource/poller.ts'
import { Ledger } from '../../../agent/health/ledger.ts'
import { createLogger } from '../../../agent/health/log.ts'
import { Interfaces } from '../../../agent/interfaces.ts'
import { isPolled } from '../../../agent/parts/interface-polling.ts'
import { ARPHRD } from '../../../agent/wire/netlink/rt-link.ts'
import type { IfCounters, LagPortStats } from '../../../agent/wire/sflow/counters/interface.ts'
import { ifIndex, inGuest, ip, modprobe, netdevsim, run, until } from '../../support/guest.ts'

/** State bits of IEEE 802.1AX §6.4.2.3. */
const LACP_ACTIVITY = 0x01
const AGGREGATION = 0x04
const SYNCHRONISATION = 0x08
const COLLECTING = 0x10
const DISTRIBUTING = 0x20
const DEFAULTED = 0x40
const WORKING = LACP_ACTIVITY | AGGREGATION | SYNCHRONISATION | COLLECTING | DISTRIBUTING

type IpStats = Record<'rx' | 'tx', Record<'bytes' | 'packets', number>>

const FAR = 'weir-c-far'

describe('interface counters', { skip: inGuest ? false : 'in a virtual machine only' }, () => {
  const interfaces = new Interfaces({ log: createLogger('silent') })
  let statistics: InterfaceStatistics

  before(async () => {
    modprobe('bonding', 'dummy', 'veth')
    await interfaces.start()
    statistics = await InterfaceStatistics.open()
  })
  after(() => {
    statistics.close()
    interfaces.stop()
  })

  /** The record of this name for the interface; undefined when it has none. */
  async function read(name: string, record: string): Promise<unknown> {
    const index = ifIndex(name)
    await until(`${name} known`, () => interfaces.byIndex.has(index))
    const readers = interfaceReaders(index, () => interfaces.byIndex.get(index), { statistics })
    return readers.find(reader => reader.record.name === record)!.read()
  }

  /** Two ports here and two there, a wire between each pair, and a bond on either side. */
  function bonds(t: { after(cleanup: () => void): void }, mode: string): void {
    ip(`netns add ${FAR}`)
    t.after(() => ip(`netns del ${FAR}`))
    const options = mode === '802.3ad' ? 'lacp_rate fast' : ''
    ip(`link add near type bond mode ${mode} miimon 50 ${options}`.trim())
    t.after(() => ip('link del near'))
    ip(`-n ${FAR} link add far type bond mode ${mode} miimon 50 ${options}`.trim())
    for (const i of [1, 2]) {
      ip(`link add m${i} type veth peer name n${i} netns ${FAR}`)
      t.after(() => run('sh', '-c', `ip link del m${i} 2>/dev/null || true`))
      ip(`link set m${i} master near`)
      ip(`-n ${FAR} link set n${i} master far`)
    }
    ip(`-n ${FAR} link set far up`)
    ip('link set near up')
  }

  test('members of a bond that speaks LACP: states, systems and PDUs are those of the kernel', async t => {
    bonds(t, '802.3ad')
    const nearMac = readFileSync('/sys/class/net/near/address', 'utf8').trim()
    const [far] = JSON.parse(ip(`-n ${FAR} -j link show far`)) as { address: string }[]
    let members: LagPortStats[] = []
    const deadline = performance.now() + 30_000
    const works = ({ dot3adAggPortState: [, actor, , partner] }: LagPortStats) =>
      (actor! & WORKING) === WORKING && (partner! & WORKING) === WORKING
    do {
      await new Promise(resolve => setTimeout(resolve, 200))
      members = (await Promise.all(['m1', 'm2'].map(name => read(name, 'lag_port_stats')))) as LagPortStats[]
    } while (!members.every(works) && performance.now() < deadline)

    for (const [i, member] of members.entries()) {
      const name = `m${i + 1}`
      assert.ok(works(member), `${name}: states ${member.dot3adAggPortState}`)
      assert.equal(member.dot3adAggPortState[1]! & DEFAULTED, 0, name)
      assert.equal(member.dot3adAggPortActorSystemID, nearMac)
      assert.equal(member.dot3adAggPortPartnerOperSystemID, far!.address)
      assert.equal(member.dot3adAggPortAttachedAggID, ifIndex('near'))
      assert.ok(member.dot3adAggPortStatsLACPDUsRx > 0, `${name}: LACPDUs received`)
      assert.ok(member.dot3adAggPortStatsLACPDUsTx > 0, `${name}: LACPDUs sent`)
      assert.equal(member.dot3adAggPortStatsIllegalRx, 0)
      // The bond tells the same in text.
      const text = readFileSync('/proc/net/bonding/near', 'utf8').split(`Slave Interface: ${name}\n`)[1]!
      const states = [...text.matchAll(/port state: (\d+)/g)].map(match => Number(match[1]))
      assert.deepEqual(states.slice(0, 2), [member.dot3adAggPortState[1], member.dot3adAggPortState[3]], name)
    }
    assert.equal(await read('near', 'lag_port_stats'), undefined, 'the bond itself is no member')
    const bond = (await read('near', 'if_counters')) as IfCounters
    assert.equal(bond.ifType, 161)

    const sentBefore = members[0]!.dot3adAggPortStatsLACPDUsTx
    await new Promise(resolve => setTimeout(resolve, 3000))
    const later = (await read('m1', 'lag_port_stats')) as LagPortStats
    const sent = later.dot3adAggPortStatsLACPDUsTx - sentBefore
    assert.ok(sent >= 1 && sent <= 10, `one LACPDU a second at the fast rate: ${sent} in 3 s`)
  })

  test('a member without a partner says so', async t => {
    bonds(t, '802.3ad')
    ip(`-n ${FAR} link set n2 nomaster`)
    ip(`-n ${FAR} link set n2 up`)
    const state = async () => ((await read('m2', 'lag_port_stats')) as LagPortStats).dot3adAggPortState
    const deadline = performance.now() + 30_000
    while (((await state())[1]! & DEFAULTED) === 0 && performance.now() < deadline) {
      await new Promise(resolve => setTimeout(resolve, 200))
    }
    const [, actor] = await state()
    assert.ok((actor! & DEFAULTED) !== 0, `actor state ${actor}`)
    assert.equal(actor! & DISTRIBUTING, 0)
  })

  test('members of a bond without LACP have the aggregate and no LACP', async t => {
    bonds(t, 'active-backup')
    const member = (await read('m1', 'lag_port_stats')) as LagPortStats
    assert.equal(member.dot3adAggPortAttachedAggID, ifIndex('near'))
    assert.deepEqual([...member.dot3adAggPortState], [0, 0, 0, 0])
    assert.equal(member.dot3adAggPortStatsLACPDUsRx, 0xffffffff)
  })

  test('a dummy counts what is sent to it, as ip shows', async t => {
    ip('link add d0 type dummy')
    t.after(() => ip('link del d0'))
    ip('address add 198.51.100.1/24 dev d0')
    ip('link set d0 up')
    run('sh', '-c', 'ping -q -c 10 -i 0.01 -W 1 198.51.100.9 || true')
    ip('link set d0 down')
    const counters = (await read('d0', 'if_counters')) as IfCounters
    const [shown] = JSON.parse(ip('-s -j link show d0')) as {
      stats64: { tx: { bytes: number; packets: number; dropped: number } }
    }[]
    assert.ok(shown!.stats64.tx.packets > 0)
    assert.equal(counters.ifOutOctets, BigInt(shown!.stats64.tx.bytes))
    assert.equal(counters.ifOutUcastPkts, shown!.stats64.tx.packets)
    assert.equal(counters.ifOutDiscards, shown!.stats64.tx.dropped)
  })

  test('a port of a simulated switch: its counters, and what its driver has of ethernet_counters', async t => {
    const { ports } = netdevsim(t, 77, 1)
    const [port] = ports
    const counters = (await read(port!, 'if_counters')) as IfCounters
    assert.equal(counters.ifIndex, ifIndex(port!))
    assert.equal(counters.ifType, 6)
    // The port counts by these names exactly if ethtool shows any of them.
    const shown = run('sh', '-c', `ethtool -S ${port} --groups eth-mac eth-phy 2>/dev/null || true`)
    const counts = /eth-(mac|phy)-/.test(shown)
    assert.equal((await read(port!, 'ethernet_counters')) !== undefined, counts, shown)
  })

  test('a switch, a bond, a cable and a dummy in one request: the figures of ip, and nobody has what it lacks', async t => {
    const { ports } = netdevsim(t, 78, 2)
    bonds(t, 'active-backup')
    ip('link add d1 type dummy')
    t.after(() => ip('link del d1'))
    ip('address add 198.51.100.5/24 dev d1')
    ip('link set d1 up')
    run('sh', '-c', 'ping -q -c 7 -i 0.01 -W 1 198.51.100.9 || true')
    // Nothing more is sent to it, and the others are quiet without IPv6.
    ip('link set d1 down')
    const names = [...ports, 'd1', 'near', 'm1', 'm2']
    for (const name of names) writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1')
    const driver = DriverStatistics.open()
    const modules = (await Modules.open({ intervalMs: 1000 }))!
    t.after(() => {
      driver.close()
      modules.close()
    })
    const all = names.map(name => {
      const index = ifIndex(name)
      const port = () => interfaces.byIndex.get(index)
      return { name, readers: interfaceReaders(index, port, { statistics, driver, modules, pfc: true }) }
    })
    await until('all known', () => names.every(name => interfaces.byName(name) !== undefined))
    const readAll = () =>
      Promise.all(
        all.map(async ({ readers }) => {
          const values = await Promise.all(
            readers.map(async reader => [reader.record.name, await reader.read()]),
          )
          return Object.fromEntries(values.filter(([, value]) => value !== undefined))
        }),
      )
    const shown = () => JSON.parse(ip('-s -j link show')) as { ifname: string; stats64: IpStats }[]
    await readAll()
    for (const [i, records] of (await readAll()).entries()) {
      const name = names[i]!
      // No driver here has modules, flow control, or statistics of its own by the names of IEEE 802.3.
      const expected = ['if_counters', ...(/^m/.test(name) ? ['lag_port_stats'] : []), 'port_name']
      const found = Object.keys(records).filter(record => record !== 'ethernet_counters')
      assert.deepEqual(found, expected, name)
      const counters = records.if_counters as IfCounters
      const { stats64 } = shown().find(({ ifname }) => ifname === name)!
      // What still moves is at most what ip shows now.
      assert.ok(counters.ifInOctets <= BigInt(stats64.rx.bytes), name)
      assert.ok(counters.ifOutOctets <= BigInt(stats64.tx.bytes), name)
      if (name === 'd1') assert.equal(counters.ifOutOctets, BigInt(stats64.tx.bytes))
      if (name === 'd1') assert.ok(stats64.tx.packets >= 1)
    }
  })

  test('the port of a switch is polled while it is down, an interface that was never up is not', async t => {
    const { ports } = netdevsim(t, 79, 1)
    ip(`link set ${ports[0]} down`)
    ip('link add d2 type dummy')
    t.after(() => ip('link del d2'))
    const known = (name: string) => interfaces.byName(name)
    await until('port down', () => known(ports[0]!)?.adminUp === false && known('d2') !== undefined)
    const all = { interfaces: undefined }
    assert.equal(isPolled(known(ports[0]!)!, all, false), true)
    assert.equal(isPolled(known('d2')!, all, false), false)
    const counters = (await read(ports[0]!, 'if_counters')) as IfCounters
    assert.equal(counters.ifStatus, 0)
  })

  test('300 interfaces are polled in time', async t => {
    const count = 300
    const intervalMs = 10_000
    const lines = Array.from({ length: count }, (_, i) => `link add name bulk${i} up type dummy`)
    run('sh', '-c', `printf '%s\\n' "$1" | ip -batch -`, 'sh', lines.join('\n'))
    t.after(() => run('sh', '-c', `seq 0 ${count - 1} | sed 's/^/link del bulk/' | ip -batch -`))
    await until('all interfaces known', () => interfaces.byName(`bulk${count - 1}`) !== undefined)
    const ledger = new Ledger()
    const polled = new Set<number>()
    const failures = new Map<string, number>()
    const poller = new Poller({
      ledger,
      // An emulated machine that shares its processors: late is not lost.
      timeoutMs: 60_000,
      onFailure: ({ reader, error }) => {
        const text = `${reader}: ${error.message}`
        failures.set(text, (failures.get(text) ?? 0) + 1)
      },
      sink: ({ sourceIndex }) => {
        polled.add(sourceIndex)
        return 1
      },
    })
    t.after(() => poller.stop())
    const bulk = [...interfaces.byIndex.values()].filter(
      ({ name, hardwareType }) => hardwareType === ARPHRD.ether && name.startsWith('bulk'),
    )
    assert.equal(bulk.length, count)
    for (const { ifIndex } of bulk) {
      const readers = interfaceReaders(ifIndex, () => interfaces.byIndex.get(ifIndex), { statistics })
      poller.add({ type: 0, index: ifIndex, intervalMs, readers })
    }
    poller.start()
    await until('each interface polled once', () => polled.size === count, 60_000)
    polled.clear()
    await until('each polled again', () => polled.size === count, 6 * intervalMs)
    const lost = ledger.entries().filter(({ count }) => count > 0)
    assert.deepEqual(lost, [], JSON.stringify({ lost, failures: [...failures], readers: poller.status() }))
  })
})
