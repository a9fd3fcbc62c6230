/** Dropped packets by BPF in a network namespace, as a collector receives them. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  brief,
  type DropLab,
  type DropStatus,
  dropLab,
  dropsOf,
  endDrops,
  flood,
  prepareDrops,
  provoke,
  type ReasonCount,
  sendRefused,
  withHeader,
} from '../support/drop-lab.ts'
import { ifIndexOf, ip, sendFlow, sendFrames, until } from '../support/lab.ts'

const LISTENING = /^listening for dropped packets of this network namespace by BPF/
const DRIVER = join(import.meta.dirname, '../support/drop-driver.ts')
const isRoot = process.getuid!() === 0

test('drops of a namespace arrive with reason, interfaces and header', {
  skip: isRoot ? false : 'needs root',
}, async t => {
  const lab = dropLab(t, 'own')
  const collector = lab.listen()
  const agent = await lab.start('limit = 10000 hw = off')
  await agent.line(LISTENING)
  await provoke(t, lab, prepareDrops(t, lab), [{ source: 'eBPF', agent, collector }])

  await t.test('packets that were made here have no link header', async () => {
    const before = dropsOf(collector).length
    sendRefused(lab, 3)
    const made = () =>
      dropsOf(collector)
        .slice(before)
        .filter(({ reason }) => reason === 258)
    await until('drops', () => made().length === 3)
    for (const drop of made()) {
      const told = JSON.stringify(brief(drop))
      assert.deepEqual([drop.inputifindex, drop.outputifindex], [0, lab.ifIndex.vd], told)
      assert.equal(drop.header.protocol, 11, told)
      assert.deepEqual([drop.header.frame_length, drop.header.stripped], [78, 0], told)
      assert.equal(drop.header.header.length, 78)
      assert.deepEqual([...drop.header.header.subarray(12, 20)], [192, 0, 2, 1, 192, 0, 2, 2])
    }
  })

  await t.test('a frame that is nothing but its link header', async () => {
    const sent = lab.frame({ etherType: 0x88b7 }).subarray(0, 14)
    const bare = () => dropsOf(collector).filter(({ header }) => header.frame_length === 18)
    lab.send(sent, 1)
    await until('the drop', () => bare().length === 1)
    assert.deepEqual(Buffer.from(bare()[0]!.header.header), Buffer.from(sent))
  })

  await t.test('nothing of another namespace', async () => {
    // The peer has no socket there, either; what comes later shows that there was time.
    const before = dropsOf(collector).length
    const foreign = { from: { address: '192.0.2.1', port: 4002 }, to: { address: '192.0.2.2', port: 4003 } }
    sendFlow(lab.host!, { ...foreign, payloadBytes: 10, packets: 1 })
    lab.send(lab.frame({ port: 9 }), 1)
    await until('another drop', () => dropsOf(collector).length > before)
    assert.deepEqual(
      dropsOf(collector)
        .slice(before)
        .map(({ inputifindex, reason }) => [inputifindex, reason]),
      [[lab.ifIndex.vd, 3]],
    )
  })

  const { status, lost } = await endDrops(agent, collector)
  assert.deepEqual([status.source, status.monitor], ['eBPF', 'stopped'])
  const counts = status.by.map(({ ifIndex, code, offered }) => `${ifIndex} ${code} ${offered}`)
  assert.ok(counts.includes(`${lab.ifIndex.vd} 3 21`), counts.join(', '))
  t.diagnostic(JSON.stringify({ status, lost }))
})

test('a flood is held back in the kernel, hides nothing, and is counted exactly', {
  skip: isRoot ? false : 'needs root',
}, async t => {
  const LIMIT = 50
  const FLOOD = 40_000
  const lab = dropLab(t, 'own')
  const collector = lab.listen()
  const startedMs = performance.now()
  const agent = await lab.start(`limit = ${LIMIT} hw = off`)
  await agent.line(LISTENING)
  const { rare } = flood(lab, FLOOD)
  await until('the rare drops', () => withHeader(dropsOf(collector), rare).length >= 1)
  const { status, lost } = await endDrops(agent, collector)
  const seconds = Math.ceil((performance.now() - startedMs) / 1000) + 1
  const of = (reason: string) =>
    status.by.find(row => row.reason === reason && row.ifIndex === lab.ifIndex.vd)
  assert.equal(of('NO_SOCKET')!.offered, FLOOD)
  assert.equal(of('IP_CSUM')!.offered, 4)
  assert.ok(dropsOf(collector).length <= LIMIT * seconds, `${dropsOf(collector).length} in ${seconds} s`)
  assert.equal(lost['bpf-drops/ring-full'] ?? 0, 0)
  const suppressed = status.by.reduce((sum, row) => sum + row.suppressed, 0)
  assert.equal(lost['notifier/suppressed'], suppressed)
  assert.equal(
    suppressed + status.exported,
    status.offered - Object.values(status.leftOut).reduce((a, b) => a + b),
  )
  // Held back before the last sample was sent, or after it.
  assert.ok(dropsOf(collector).at(-1)!.drops <= suppressed)
})

test('what is hidden, and what the host refuses, is left out in the kernel and counted', {
  skip: isRoot ? false : 'needs root',
}, async t => {
  const lab = dropLab(t, 'own')
  const collector = lab.listen()
  const agent = await lab.start('limit = 1000 hw = off host = off hide = ^(IP_CSUM|ip_rcv_finish)')
  await agent.line(LISTENING)
  lab.run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
  lab.send(lab.frame({ port: 9 }), 30)
  lab.send(lab.frame({ wrongIpChecksum: true }), 40)
  lab.send(lab.frame({ wrongUdpChecksum: true, port: 79 }), 50)
  await until('drops', () => dropsOf(collector).length >= 50)
  const { status } = await endDrops(agent, collector)
  assert.deepEqual(
    status.by.map(({ code, offered }) => [code, offered]),
    [[316, 50]],
  )
  const { host, hidden } = status.leftOut
  assert.deepEqual({ host, hidden }, { host: 30, hidden: 40 })
})

test('datagrams of the agent to collectors that do not answer make no more of them', {
  skip: isRoot ? false : 'needs root',
}, async t => {
  const lab = dropLab(t, 'own')
  const collector = lab.listen()
  const agent = await lab.start('hw = off')
  await agent.line(LISTENING)
  lab.run('sysctl', '-qw', 'net.ipv6.conf.lo.disable_ipv6=0', 'net.ipv4.neigh.vd.retrans_time_ms=100')
  const before = agent.log.length
  // Nobody has the first address, and nobody listens at the others, where the packet has no sender any more.
  agent.change(
    'collector { ip = 192.0.2.77 } collector { ip = 192.0.2.1 udpport = 99 } collector { ip = ::1 udpport = 99 } ' +
      'pcap { dev = vout sampling = 1 } dropmon { limit = 10 hw = off }',
  )
  await agent.line(LISTENING, before)
  await agent.line(/^vout is sampled 1 in 1 by BPF/)
  const SAMPLED = 500
  for (let i = 1; i <= 2; i++) {
    lab.send(lab.frame({ etherType: 0x88b5 }), SAMPLED, 'vout')
    await until('own datagrams', async () => (await leftOut()) >= 180 * i)
  }
  async function leftOut() {
    const { drops } = (await agent.status()) as unknown as { drops: DropStatus }
    return drops.leftOut['own-datagram'] ?? 0
  }
  // What waits for the neighbour is dropped when its collector is gone.
  lab.run('sysctl', '-qw', 'net.ipv4.neigh.vd.retrans_time_ms=1000')
  lab.run('ip', 'neighbour', 'flush', 'to', '192.0.2.77')
  const waiting = () => lab.run('ip', 'neighbour', 'show', 'to', '192.0.2.77')
  lab.send(lab.frame({ etherType: 0x88b5 }), SAMPLED, 'vout')
  await until('a neighbour that is looked for', () => waiting().includes('INCOMPLETE'))
  agent.change('pcap { dev = vout sampling = 1 } dropmon { limit = 10 hw = off }')
  await until('one collector', async () => ((await agent.status()).collectors as unknown[]).length === 1)
  assert.match(waiting(), /INCOMPLETE/)
  await until('a neighbour that is not found', () => waiting().includes('FAILED'))
  const { status } = await endDrops(agent, collector)
  t.diagnostic(JSON.stringify(status))
  // Nor are they among what the limit holds back.
  assert.deepEqual(
    status.by.map(({ reason, offered }) => [reason, offered]),
    [['UNHANDLED_PROTO', 3 * SAMPLED]],
  )
  assert.ok(dropsOf(collector).every(({ linux }) => linux === 'UNHANDLED_PROTO'))
})

test('a changed configuration, and a source that is forced', {
  skip: isRoot ? false : 'needs root',
}, async t => {
  const lab = dropLab(t, 'own')
  const collector = lab.listen()
  const agent = await lab.start('hw = off')
  await agent.line(LISTENING)
  const arrived = () => dropsOf(collector).map(({ linux }) => linux!)
  lab.send(lab.frame({ port: 9 }), 1)
  await until('a drop', () => arrived().length === 1)

  let before = agent.log.length
  agent.change('dropmon { source = ebpf hw = off hide = NO_SOCKET }')
  await agent.line(LISTENING, before)
  lab.send(lab.frame({ port: 9 }), 1)
  lab.send(lab.frame({ wrongIpChecksum: true }), 1)
  await until('another drop', () => arrived().length === 2)
  assert.deepEqual(arrived(), ['NO_SOCKET', 'IP_CSUM'])

  // There is no drop monitor in a namespace, and where there is none at all it is waited for.
  before = agent.log.length
  agent.change('dropmon { source = drop_monitor }')
  await agent.line(/the kernel has no drop monitor here/, before)
  assert.equal(arrived().length, 2)

  before = agent.log.length
  agent.change('dropmon { hw = off }')
  await agent.line(LISTENING, before)
  lab.send(lab.frame({ port: 9 }), 1)
  await until('a third drop', () => arrived().length === 3)
  await endDrops(agent, collector)
})

test('without the capabilities the drop monitor is taken, or nothing when BPF is asked for', {
  skip: isRoot ? false : 'needs root',
}, async t => {
  const lab = dropLab(t, 'own')
  const under = [
    'setpriv',
    '--bounding-set',
    '-bpf,-sys_admin,-perfmon',
    '--inh-caps',
    '-bpf,-sys_admin,-perfmon',
  ]
  const agent = await lab.start('hw = off', { under })
  await agent.line(/^dropped packets are taken from the drop monitor, not from BPF: .*EPERM.*needs CAP_BPF/)
  const before = agent.log.length
  agent.change('dropmon { source = ebpf }')
  await agent.line(/^dropped packets are not reported: .*EPERM.*needs CAP_BPF/, before)
  assert.equal((await agent.stop()).exit, 0)
})

interface DriverStatus {
  readonly offered: number
  readonly exported: number
  readonly by: readonly ReasonCount[]
}

/** Sees drops in the lab's host with this many slots. */
async function startDriver(t: TestContext, { host }: DropLab, slots: number, limit: number) {
  const command = ['netns', 'exec', host!, process.execPath, DRIVER, `${slots}`, `${limit}`]
  const child = spawn('ip', command, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  let text = ''
  child.stdout.setEncoding('utf8').on('data', part => {
    text += part
  })
  await until('the driver', () => text.includes('ready'))
  return {
    async end(): Promise<DriverStatus> {
      const ended = new Promise(resolve => child.on('close', resolve))
      child.kill('SIGTERM')
      await ended
      return JSON.parse(text.split('\n')[1]!) as DriverStatus
    },
  }
}

test('more reasons and interfaces than are kept apart: all are counted', {
  skip: isRoot ? false : 'needs root',
}, async t => {
  const lab = dropLab(t, 'own')
  const cases = prepareDrops(t, lab)
  for (const slots of [12, 2]) {
    const driver = await startDriver(t, lab, slots, 1000)
    const FEW = 3
    const MANY = 400
    const steady = cases.filter(({ dropped, count }) => dropped === undefined && count === undefined)
    for (const { frame, cable } of steady) lab.send(lab.frame(frame), FEW, cable)
    for (const { frame, cable } of steady) lab.send(lab.frame(frame), MANY - FEW, cable)
    const told = await driver.end()
    // What a bridge says by itself may be dropped, too.
    const surplus = told.offered - steady.length * MANY
    assert.ok(surplus >= 0 && surplus < FEW, JSON.stringify(told))
    // What was reported has its reason and its interface, whatever its slot.
    for (const { name, code, cable = 'vd' } of steady) {
      const own = told.by.find(row => row.code === code && row.ifIndex === lab.ifIndex[cable])
      if (slots > 2) assert.ok(own!.offered >= 1, `${name}: ${JSON.stringify(told.by)}`)
    }
    assert.equal(
      told.by.reduce((sum, { offered, suppressed }) => sum + offered - suppressed, 0),
      told.exported,
    )
  }
})

test('interfaces that come and go leave nothing behind', { skip: isRoot ? false : 'needs root' }, async t => {
  const lab = dropLab(t, 'own')
  // What is held back is counted by the slot.
  const driver = await startDriver(t, lab, 8, 2)
  const ROUNDS = 9
  const COUNT = 50
  const frame = lab.frame({ etherType: 0x88b6 })
  const indexes: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    lab.batch('ip', [`link add vgone type veth peer name vgonep netns ${lab.peer}`, 'link set vgone up'])
    ip(`-n ${lab.peer} link set vgonep up`)
    indexes.push(ifIndexOf(lab.host!, 'vgone'))
    sendFrames(lab.peer, ifIndexOf(lab.peer, 'vgonep'), frame, COUNT)
    lab.run('ip', 'link', 'del', 'vgone')
    // A slot is given away again after three of the driver's seconds.
    await sleep(800)
  }
  const { by } = await driver.end()
  // Each has its own row: what is counted together has none.
  for (const ifIndex of indexes) {
    const row = by.find(one => one.ifIndex === ifIndex && one.code === 325)
    assert.equal(row?.offered, COUNT, JSON.stringify({ indexes, by }))
  }
})
