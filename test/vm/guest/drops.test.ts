/**
 * Dropped packets on a real kernel in its first network namespace, as collectors receive them: software drops provoked
 * one by one and the traps of a simulated switch, seen by BPF and by the drop monitor at the same time; floods; other
 * users of the drop monitor.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Ledger } from '../../../agent/health/ledger.ts'
import { createLogger } from '../../../agent/health/log.ts'
import { resolveFamily } from '../../../agent/kernel/genl.ts'
import { NETLINK_GENERIC, NetlinkError, NetlinkSocket } from '../../../agent/kernel/netlink-socket.ts'
import { DropAlerts } from '../../../agent/sources/drop-alerts.ts'
import { DropMonitorSource } from '../../../agent/sources/drop-monitor.ts'
import {
  configureDropMonitor,
  getDropMonitorConfig,
  readDropMonitorConfig,
  startDropMonitor,
  stopDropMonitor,
} from '../../../agent/wire/netlink/drop-monitor.ts'
import {
  brief,
  type DropLab,
  dropLab,
  dropsOf,
  endDrops,
  flood,
  type Observer,
  prepareDrops,
  provoke,
  sendRefused,
  withHeader,
} from '../../support/drop-lab.ts'
import { ifIndex, modprobe, netdevsim, run, unload } from '../../support/guest.ts'
import { type Collector, sendFlow, until } from '../../support/lab.ts'

modprobe('nf_tables', 'veth', 'drop_monitor', 'cls_bpf', 'sch_ingress', 'bridge', 'sch_tbf', 'netdevsim')

/** Traps of netdevsim, with their discard reasons. */
const TRAPS: Readonly<Record<string, readonly [group: string, code: number]>> = {
  source_mac_is_multicast: ['l2_drops', 263],
  vlan_tag_mismatch: ['l2_drops', 264],
  ingress_vlan_filter: ['l2_drops', 265],
  ingress_spanning_tree_filter: ['l2_drops', 266],
  port_list_is_empty: ['l2_drops', 267],
  port_loopback_filter: ['l2_drops', 268],
  fid_miss: ['l2_drops', 284],
  blackhole_route: ['l3_drops', 269],
  ttl_value_is_too_small: ['l3_exceptions', 257],
  tail_drop: ['buffer_drops', 259],
  ingress_flow_action_drop: ['acl_drops', 258],
  egress_flow_action_drop: ['acl_drops', 258],
}
const HIDDEN = 'port_loopback_filter'

const SOURCES = { eBPF: 'ebpf', 'drop monitor': 'drop_monitor' } as const

test('by BPF and by the drop monitor at the same time', async t => {
  const lab = dropLab(t, 'first')
  const settings = (source: Observer['source'], more: string) =>
    `source = ${SOURCES[source]} hide = ^${HIDDEN} ${more}`
  const observe = async (source: Observer['source'], port: number): Promise<Observer> => {
    const collector = lab.listen(port)
    const agent = await lab.start(settings(source, 'limit = 10000'), { port })
    await agent.line(/^listening for dropped packets/)
    return { source, agent, collector }
  }
  const bpf = await observe('eBPF', 6343)
  const monitor = await observe('drop monitor', 6344)
  const observers = [bpf, monitor]
  await provoke(t, lab, prepareDrops(t, lab), observers)

  await t.test('BPF: packets that were made here, which the drop monitor does not see', async () => {
    sendRefused(lab, 3)
    const made = () =>
      dropsOf(bpf.collector).filter(({ reason, header }) => reason === 258 && header.protocol === 11)
    await until('drops', () => made().length === 3)
    for (const drop of made()) {
      const told = JSON.stringify(brief(drop))
      assert.deepEqual([drop.inputifindex, drop.outputifindex], [0, lab.ifIndex.vd], told)
      assert.deepEqual([drop.header.frame_length, drop.header.stripped], [78, 0], told)
    }
  })

  await t.test('BPF: a drop in another namespace, whose interfaces are not those of this one', async () => {
    const from = { address: '192.0.2.1', port: 4002 }
    sendFlow('/proc/self/ns/net', {
      from,
      to: { address: '192.0.2.2', port: 4003 },
      payloadBytes: 10,
      packets: 1,
    })
    const there = () =>
      dropsOf(bpf.collector).filter(
        ({ reason, header }) => reason === 3 && header.header[33] === 2 && header.header[37] === 0xa3,
      )
    await until('the drop', () => there().length === 1)
    assert.deepEqual([there()[0]!.inputifindex, there()[0]!.outputifindex], [0, 0])
  })

  const simulated = netdevsim(t, 10, 2)
  for (const trap of Object.keys(TRAPS)) {
    try {
      run('devlink', 'trap', 'set', simulated.devlink, 'trap', trap, 'action', 'trap')
    } catch (error) {
      // Exceptions are always on.
      if (trap !== 'fid_miss' && trap !== 'ttl_value_is_too_small') throw error
    }
  }
  const ports = simulated.ports.map(ifIndex)
  for (const { source, collector } of observers) {
    await t.test(`${source}: each trap of the hardware from each port`, async () => {
      const trapped = () => dropsOf(collector).filter(({ trap }) => trap !== undefined)
      const missing = () => {
        const seen = new Set(trapped().map(({ trap, inputifindex }) => `${trap!.trap} ${inputifindex}`))
        return Object.keys(TRAPS)
          .filter(trap => trap !== HIDDEN)
          .filter(trap => !ports.every(port => seen.has(`${trap} ${port}`)))
      }
      await until('every trap', () => missing().length === 0).catch(() =>
        assert.fail(`no ${missing().join(', ')}`),
      )
      for (const { trap, reason, linux, header, outputifindex } of trapped()) {
        const [group, code] = TRAPS[trap!.trap]!
        assert.deepEqual([trap!.group, reason, linux, outputifindex], [group, code, undefined, 0])
        assert.equal(header.frame_length, 142 + 4)
        assert.equal(header.header.length, 128)
        assert.deepEqual([...header.header.subarray(26, 34)], [192, 0, 2, 1, 198, 51, 100, 1])
        assert.notEqual(trap!.trap, HIDDEN, 'it is hidden')
      }
    })
  }
  simulated.remove()

  await t.test('a flood of one reason does not hide another, and every drop is accounted for', async () => {
    const LIMIT = 50
    const FLOOD = 8000
    for (const { agent, source } of observers) {
      const before = agent.log.length
      agent.change(`dropmon { ${settings(source, `limit = ${LIMIT} hw = off`)} }`)
      await agent.line(/^listening for dropped packets/, before)
    }
    const startedMs = performance.now()
    const before = observers.map(({ collector }) => dropsOf(collector).length)
    const { rare } = flood(lab, FLOOD)
    for (const { collector } of observers)
      await until('the rare drops', () => withHeader(dropsOf(collector), rare).length >= 1)
    for (const [i, { agent, collector, source }] of observers.entries()) {
      const { status, lost } = await endDrops(agent, collector)
      const seconds = Math.ceil((performance.now() - startedMs) / 1000) + 1
      const arrived = dropsOf(collector).length - before[i]!
      t.diagnostic(JSON.stringify({ source, status, lost, arrived, seconds }))
      assert.ok(arrived <= LIMIT * seconds, `${arrived} in ${seconds} s`)
      const row = status.by.find(
        ({ reason, ifIndex }) => reason === 'NO_SOCKET' && ifIndex === lab.ifIndex.vd,
      )!
      if (source === 'eBPF') {
        assert.equal(row.offered, FLOOD)
      } else {
        // What the kernel could not queue or deliver, it counted; other drops of the machine are among it.
        const missed = (lost['drop-monitor/kernel-queue'] ?? 0) + (lost['drop-monitor/socket-overrun'] ?? 0)
        assert.ok(row.offered <= FLOOD && row.offered + missed >= FLOOD, `${row.offered} + ${missed}`)
      }
      assert.ok(status.leftOut.hidden! > 0, 'the hidden trap')
    }
  })
  for (const { collector, source } of observers) {
    const delays = dropsOf(collector)
      .map(({ time, nanoseconds }) => time - Number(nanoseconds / 1_000_000n))
      .sort((a, b) => a - b)
    t.diagnostic(
      `${source}: from drop to collector: median ${delays[delays.length >> 1]} ms, most ${delays.at(-1)} ms`,
    )
  }
})

/** The drop monitor, used as another program would. */
async function otherUser(t: TestContext) {
  const socket = NetlinkSocket.open(NETLINK_GENERIC)
  const { id } = (await resolveFamily(socket, 'NET_DM'))!
  // A test that failed may have left it on.
  for (const feed of ['software', 'hardware'] as const) await socket.request(stopDropMonitor(id, feed))
  t.after(async () => {
    await socket.request(stopDropMonitor(id, 'software'))
    socket.close()
  })
  const isOn = async () => {
    try {
      await socket.request(startDropMonitor(id, 'software'))
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'EAGAIN') return true
      throw error
    }
    await socket.request(stopDropMonitor(id, 'software'))
    return false
  }
  return {
    isOn,
    configure: async (packets: boolean, truncateBytes: number, queueLength = 500) => {
      await socket.request(stopDropMonitor(id, 'software'))
      await socket.request(configureDropMonitor(id, { packets, truncateBytes, queueLength }))
    },
    start: () => socket.request(startDropMonitor(id, 'software')),
    stop: () => socket.request(stopDropMonitor(id, 'software')),
    config: async () => readDropMonitorConfig((await socket.request(getDropMonitorConfig(id)))!),
  }
}

/** Sends frames to a closed port until so many more drops have arrived. */
async function dropsArrive(lab: DropLab, collector: Collector, count = 5): Promise<void> {
  const frame = lab.frame({ port: 9 })
  const seen = () => withHeader(dropsOf(collector), frame).length
  const before = seen()
  lab.send(frame, count)
  await until('drops', () => seen() >= before + count)
}

const MONITOR = 'source = drop_monitor hw = off'

test('the drop monitor and others who use it', async t => {
  const lab = dropLab(t, 'first')
  const collector = lab.listen()
  const other = await otherUser(t)

  await t.test('it is as it was when the agent has ended; settings change meanwhile', async () => {
    await other.configure(false, 0, 500)
    const before = await other.config()
    const agent = await lab.start(MONITOR)
    await agent.line(/^listening/)
    assert.deepEqual(await other.config(), { packets: true, truncateBytes: 128, queueLength: 1000 })
    assert.equal(await other.isOn(), true)
    await dropsArrive(lab, collector)

    const known = dropsOf(collector).length
    const reasons = () =>
      dropsOf(collector)
        .slice(known)
        .map(({ linux }) => linux!)
        .filter(reason => ['NO_SOCKET', 'IP_CSUM'].includes(reason))
    let lines = agent.log.length
    agent.change(`dropmon { ${MONITOR} hide = NO_SOCKET }`)
    await agent.line(/^listening/, lines)
    lab.send(lab.frame({ port: 9 }), 1)
    lab.send(lab.frame({ wrongIpChecksum: true }), 1)
    await until('another drop', () => reasons().length === 1)
    assert.deepEqual(reasons(), ['IP_CSUM'])

    lines = agent.log.length
    agent.change('dropmon { start = off }')
    await agent.line(/listening to a drop monitor that others start/, lines)
    assert.equal(await other.isOn(), false)
    await other.configure(true, 128)
    await other.start()
    await dropsArrive(lab, collector)
    await other.stop()
    await other.configure(false, 0, 500)

    agent.change('')
    lines = agent.log.length
    // Nobody listens there: the agent's own datagrams are dropped, and no drops to report.
    agent.change(`collector { ip = 127.0.0.1 udpport = 99 } dropmon { ${MONITOR} }`)
    await agent.line(/^listening/, lines)
    for (let i = 0; i < 3; i++) await dropsArrive(lab, collector)
    const { status } = await endDrops(agent, collector)
    assert.ok(status.leftOut['own-datagram']! >= 2, JSON.stringify(status.leftOut))
    const toThere = dropsOf(collector).filter(
      ({ header: { header } }) => header[30] === 127 && header[36] === 0 && header[37] === 99,
    )
    assert.deepEqual(toThere.map(brief), [])
    assert.deepEqual(await other.config(), before)
    assert.equal(await other.isOn(), false)
  })

  await t.test('somebody has it on for packets: the agent listens and leaves it on', async () => {
    await other.configure(true, 0, 300)
    await other.start()
    const before = await other.config()
    const agent = await lab.start(MONITOR)
    await agent.line(/others have software drops on already/)
    await dropsArrive(lab, collector)
    await agent.stop()
    assert.equal(await other.isOn(), true)
    assert.deepEqual(await other.config(), before)
  })

  await t.test(
    'somebody has it on for summaries: left alone without force, taken with it and given back',
    async () => {
      await other.configure(false, 0, 300)
      await other.start()
      const before = await other.config()
      const agent = await lab.start(`${MONITOR} force = off`)
      await agent.line(/another program has it on, in a mode without packets/)
      assert.deepEqual(await other.config(), before)
      assert.equal(await other.isOn(), true)
      agent.change(`dropmon { ${MONITOR} }`)
      await agent.line(/^listening/)
      await dropsArrive(lab, collector)
      await agent.stop()
      assert.deepEqual(await other.config(), before)
      assert.equal(await other.isOn(), true)
      await other.stop()
    },
  )

  await t.test('a flood beyond all measure: the monitor rests, and comes back by itself', async () => {
    let received = 0
    const ledger = new Ledger()
    const alerts = new DropAlerts({
      software: true,
      hardware: false,
      interfaces: { byIndex: new Set([lab.ifIndex.vd]), isLayer3: () => false },
      ledger,
      sink: () => received++,
      onLost: () => {},
    })
    const source = new DropMonitorSource({
      alerts,
      ledger,
      log: createLogger('fatal'),
      onBatchEnd: () => {},
      onLost: () => {},
      start: true,
      wishes: { software: true, hardware: false, force: true, truncateBytes: 128, queueLength: 1000 },
      mostPerSecond: 500,
      mostSeconds: 1,
      probeMs: 1000,
    })
    t.after(() => source.stop())
    await source.start()
    assert.equal(source.state, 'listening')
    await until('its rest', async () => {
      lab.send(lab.frame({ port: 9 }), 2000)
      await sleep(100)
      source.poll()
      await sleep(20)
      return source.state === 'resting'
    })
    assert.equal(await other.isOn(), false)
    await until('its return', async () => {
      source.poll()
      return source.state === 'listening'
    })
    const before = received
    lab.send(lab.frame({ port: 9 }), 5)
    await until('drops', () => received >= before + 5)
    await source.stop()
  })

  await t.test('without the capability to listen the agent says so and runs on', async () => {
    const agent = await lab.start(MONITOR, { under: ['setpriv', '--bounding-set', '-sys_admin'] })
    await agent.line(/^join netlink group NET_DM events: EPERM .*: needs CAP_SYS_ADMIN$/)
    assert.equal((await agent.stop()).exit, 0)
  })
})

test('a drop monitor that comes later', async t => {
  unload('drop_monitor')
  // Looking the family up loads the module, unless that is forbidden.
  writeFileSync('/proc/sys/kernel/modprobe', '/bin/false')
  t.after(() => writeFileSync('/proc/sys/kernel/modprobe', '/sbin/modprobe'))
  const lab = dropLab(t, 'first')
  const collector = lab.listen()
  const agent = await lab.start(MONITOR)
  await agent.line(/the kernel has no drop monitor here/)
  modprobe('drop_monitor')
  await agent.line(/^listening for dropped packets/)
  await dropsArrive(lab, collector)
  await agent.stop()
})

test('BPF in a namespace of a container, which has no drop monitor', async t => {
  const lab = dropLab(t, 'own')
  const collector = lab.listen()
  const agent = await lab.start('')
  await agent.line(/^listening for dropped packets of this network namespace by BPF$/)
  await dropsArrive(lab, collector)
  for (const { inputifindex } of dropsOf(collector)) assert.equal(inputifindex, lab.ifIndex.vd)
  await endDrops(agent, collector)
})
