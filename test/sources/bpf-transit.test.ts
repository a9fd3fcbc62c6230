/**
 * Packets followed through a host that passes them on, between its two interfaces. The same tests run on Debian's
 * kernels (test/vm/guest).
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, beforeEach, describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { AF_PACKET, packetAddress } from '../../agent/kernel/sockaddr.ts'
import { INTERNAL_INTERFACE } from '../../agent/samples/packet-sample.ts'
import type { BpfPort } from '../../agent/sources/bpf-samples.ts'
import { DISCARD_REASONS } from '../../agent/wire/sflow/discard-reasons.ts'
import { BpfDriver, type DriverOptions, type Seen } from '../support/bpf-driver.ts'
import { inGuest, kernelAtLeast, run } from '../support/guest.ts'
import {
  ifIndexOf,
  ip,
  ipBatch,
  type Lab,
  linkCounts,
  makeLab,
  RunningAgent,
  type Scope,
  sendFlow,
  sendFrames,
  sink,
  until,
} from '../support/lab.ts'
import { ip4Header } from '../support/packets.ts'

const BYTES = 1000
/** EtherType for local experiments. */
const EXPERIMENTAL = 0x88b5
const FAR_AWAY = '198.51.100.9'
const MILLISECOND = 1_000_000
/** A host behind a device that a test adds. */
const BEYOND = '203.0.113.9'
/** What the machine may be busy with meanwhile; an emulated one is slow at everything. */
const SLACK = (inGuest ? 3000 : 100) * MILLISECOND
/** Between what tcpdump sees and what is reported, for most packets: some code, which an emulated machine is slow at, too. */
const CAPTURE_ERROR = (inGuest ? 2 : 0.2) * MILLISECOND

interface Scene {
  readonly lab: Lab
  readonly driver: BpfDriver
  /** Interfaces of the host: packets come in by the first and leave by the second. */
  readonly input: number
  readonly output: number
}

/** The host samples every packet of eth0 and passes on to mgmt0 what is for somebody there. */
async function passing(scope: Scope, lab: Lab, options: DriverOptions = {}): Promise<Scene> {
  const { host, peer } = lab
  ip(`netns exec ${host.namespace} sysctl -qw net.ipv4.ip_forward=1`)
  ip(`-n ${host.namespace} neighbour replace ${FAR_AWAY} lladdr ${peer.mgmt0.mac} dev mgmt0 nud permanent`)
  const driver = await BpfDriver.start(scope, host.namespace, { transit: true, ...options })
  const input = host.eth0.ifIndex
  await driver.call('add', portOf(input))
  return { lab, driver, input, output: host.mgmt0.ifIndex }
}

function portOf(ifIndex: number): BpfPort {
  return { ifIndex, name: 'eth0', rate: 1, forwards: true, promiscuous: false, layer3: false }
}

/** One for all tests, as a start takes long on an emulated machine; each test finds it without a queue or a sample. */
let scene: Scene
const cleanups: (() => void | Promise<void>)[] = []
before(async () => {
  const scope = { after: (cleanup: () => void | Promise<void>) => cleanups.push(cleanup) }
  scene = await passing(scope, makeLab(scope))
})
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup()
})
beforeEach(async () => {
  if (
    tc(scene.lab, 'qdisc show dev mgmt0 root') !== '' &&
    !/noqueue/.test(tc(scene.lab, 'qdisc show dev mgmt0'))
  )
    tc(scene.lab, 'qdisc del dev mgmt0 root')
  await scene.driver.call('reset')
})

function tc({ host }: Lab, line: string): string {
  return execFileSync('ip', ['netns', 'exec', host.namespace, 'tc', ...line.split(' ')], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/**
 * The other end of mgmt0 takes packets only when this processor has nothing else to do: some hundred packets on the
 * way to it fill its ring, and those behind them wait in the queue.
 */
function holdReceiver(t: TestContext, { host, peer }: Lab): void {
  const CPU = '0'
  const inPeer = (...command: string[]) => run('ip', 'netns', 'exec', peer.namespace, ...command)
  const threads = () => run('ps', '-e', '-o', 'pid=,comm=').match(/\d+(?= napi\/mgmt0)/g) ?? []
  const others: readonly string[] = threads()
  // Packets take the ring when neither end gives it large ones.
  run('ip', 'netns', 'exec', host.namespace, 'ethtool', '-K', 'mgmt0', 'tso', 'off')
  inPeer('ethtool', '-K', 'mgmt0', 'gro', 'on')
  inPeer('sh', '-c', 'echo 1 >/sys/class/net/mgmt0/threaded')
  for (const thread of threads().filter(pid => !others.includes(pid))) {
    run('chrt', '--idle', '--pid', '0', thread)
    run('taskset', '--pid', '--cpu-list', CPU, thread)
  }
  const mask = /mask: (\w+)/.exec(run('taskset', '--pid', String(process.pid)))![1]!
  run('taskset', '--pid', '--cpu-list', CPU, String(process.pid))
  t.after(() => {
    run('taskset', '--pid', mask, String(process.pid))
    inPeer('sh', '-c', 'echo 0 >/sys/class/net/mgmt0/threaded')
    inPeer('ethtool', '-K', 'mgmt0', 'gro', 'off')
    run('ip', 'netns', 'exec', host.namespace, 'ethtool', '-K', 'mgmt0', 'tso', 'on')
  })
}

/** Leads BEYOND through a device of the host. */
function layWay({ host, peer }: Lab, device: string): void {
  ipBatch(host.namespace, [
    `route replace ${BEYOND} dev ${device}`,
    `neighbour replace ${BEYOND} lladdr ${peer.mgmt0.mac} dev ${device} nud permanent`,
  ])
}

/** tcpdump at both interfaces of the host, with the kernel's own times. */
class Capture {
  readonly #child: RunningAgent

  constructor(t: TestContext, { host }: Lab) {
    const tcpdump = 'tcpdump -i any -nn -l --immediate-mode --time-stamp-precision=nano -tt ip proto 253'
    this.#child = new RunningAgent(t, [
      'ip',
      ...`netns exec ${host.namespace} sh -c`.split(' '),
      `exec ${tcpdump} >&2`,
    ])
  }

  async started(): Promise<void> {
    await until('tcpdump', () => /listening on/.test(this.#child.stderr))
  }

  /** Nanoseconds between input and output of each packet, in turn. */
  async transits(packets: number): Promise<number[]> {
    const times = (way: string) =>
      [...this.#child.stderr.matchAll(new RegExp(`^(\\d+)\\.(\\d{9}) ${way} `, 'gm'))].map(
        ([, seconds, nanoseconds]) => BigInt(seconds! + nanoseconds!),
      )
    await until('both times', () => times('mgmt0 Out').length >= packets)
    const inputs = times('eth0 +In')
    return times('mgmt0 Out').map((time, i) => Number(time - inputs[i]!))
  }
}

/** Gives mgmt0 a qdisc; false when the kernel does not have that kind. */
function hasQdisc(lab: Lab, qdisc: string): boolean {
  try {
    tc(lab, `qdisc replace dev mgmt0 root ${qdisc}`)
    return true
  } catch (error) {
    if (!(error as Error).message.includes('qdisc kind is unknown')) throw error
    return false
  }
}

/** Sends packets of `BYTES` octets, for the host to pass on, as fast as it takes them. */
function send({ host, peer }: Lab, count: number, to = FAR_AWAY): void {
  const packet = Buffer.alloc(BYTES)
  packet.write(host.eth0.mac.replaceAll(':', ''), 0, 'hex')
  packet.write(peer.eth0.mac.replaceAll(':', ''), 6, 'hex')
  packet.writeUInt16BE(0x0800, 12)
  packet.set(ip4Header({ bytes: BYTES - 14, protocol: 253, from: peer.eth0.ipv4, to }), 14)
  sendFrames(peer.namespace, peer.eth0.ifIndex, packet, count)
}

/** Sends one TCP packet of so many segments of 1000 octets, as a virtual machine would. */
function sendLarge({ host, peer }: Lab, segments: number, to = FAR_AWAY): void {
  const ETH_P_ALL = 3
  const SOCK_RAW = 3
  const SOL_PACKET = 263
  const PACKET_VNET_HDR = 15
  const packet = Buffer.alloc(10 + 54 + segments * 1000)
  // struct virtio_net_hdr: checksum wanted, TCPv4, header length, segment size, checksum from, checksum at.
  packet.set([1, 1])
  for (const [i, word] of [54, 1000, 34, 16].entries()) packet.writeUInt16LE(word, 2 + 2 * i)
  packet.write(host.eth0.mac.replaceAll(':', ''), 10, 'hex')
  packet.write(peer.eth0.mac.replaceAll(':', ''), 16, 'hex')
  packet.writeUInt16BE(0x0800, 22)
  const bytes = packet.length - 24
  packet.set(ip4Header({ bytes, protocol: 6, from: peer.eth0.ipv4, to }), 24)
  packet.set([0x50, 0x10], 24 + 20 + 12)
  const socket = KernelSocket.open('frames', AF_PACKET, SOCK_RAW, 0, peer.namespace)
  try {
    socket.setOption(SOL_PACKET, PACKET_VNET_HDR, 1, 'set an option')
    socket.bind(packetAddress(ETH_P_ALL, peer.eth0.ifIndex), 'bind')
    const memory = new Uint8Array(packet).buffer
    assert.equal(socket.sendBatch(memory, Int32Array.of(0, packet.length), 0, 1), 1)
  } finally {
    socket.close()
  }
}

async function samples(driver: BpfDriver, count: number): Promise<Seen[]> {
  await until(`${count} samples`, async () => (await driver.call('tally')).delivered >= count)
  return driver.call('seen')
}

/** What following has found out. */
function found({ inputIfIndex, outputIfIndex, egressQueue, queueDepthBytes, transitDelayNs }: Seen) {
  return { inputIfIndex, outputIfIndex, egressQueue, queueDepthBytes, hasDelay: transitDelayNs >= 0 }
}

/** sFlow discard reason of this name. */
function codeOf(name: string): number {
  return DISCARD_REASONS.find(([, known]) => known === name)![0]
}

function timeOf({ timestampHigh, timestampLow }: Seen): bigint {
  return (BigInt(timestampHigh) << 32n) | BigInt(timestampLow)
}

const UNKNOWN = { egressQueue: -1, queueDepthBytes: -1, hasDelay: false }

describe('a packet that is passed on', () => {
  test('without a queue: where it left, an empty queue, and some time', async () => {
    const { lab, driver, input, output } = scene
    send(lab, 3)
    for (const sample of await samples(driver, 3)) {
      const expected = { inputIfIndex: input, outputIfIndex: output, egressQueue: 0, queueDepthBytes: 0 }
      assert.deepEqual(found(sample), { ...expected, hasDelay: true })
      assert.ok(sample.transitDelayNs > 0 && sample.transitDelayNs < SLACK)
    }
  })

  for (const qdisc of ['pfifo limit 1000', 'pfifo_fast', 'htb default 1', 'fq_codel']) {
    test(`with ${qdisc}`, async t => {
      const { lab, driver, output } = scene
      if (!hasQdisc(lab, qdisc)) return t.skip('the kernel does not have it')
      send(lab, 1)
      const [sample] = await samples(driver, 1)
      assert.deepEqual([sample!.outputIfIndex, sample!.queueDepthBytes], [output, 0])
      assert.ok(sample!.transitDelayNs > 0)
    })
  }

  test('behind a bottleneck: the depth is what waits, the delay what it takes to send it', async () => {
    const PACKETS = 50
    const { lab, driver } = scene
    // One octet takes a microsecond; two packets may go at once.
    tc(lab, `qdisc replace dev mgmt0 root tbf rate 8mbit burst ${2 * BYTES} limit 200000`)
    send(lab, PACKETS)
    const all = await samples(driver, PACKETS)
    const last = all.at(-1)!
    assert.ok(last.queueDepthBytes % BYTES === 0, `${last.queueDepthBytes} is no number of packets`)
    const deepest = Math.max(...all.map(sample => sample.queueDepthBytes))
    assert.ok(deepest > (PACKETS / 2) * BYTES, `${deepest} bytes at most`)
    // This machine's kernel may run no tracing program for a packet now and then (bpf/README.md).
    const seen = all.filter(({ transitDelayNs }) => transitDelayNs >= 0)
    assert.ok(seen.length >= PACKETS - 2, `${PACKETS - seen.length} were not seen leaving`)
    for (const { queueDepthBytes, transitDelayNs } of seen) {
      const expected = queueDepthBytes * 1000
      // A part of the packet before may be on its way, and the machine has other things to do.
      assert.ok(
        transitDelayNs > expected - 3 * MILLISECOND && transitDelayNs < expected + SLACK,
        `${queueDepthBytes} bytes: ${transitDelayNs} ns`,
      )
    }
  })

  // So slow that nothing leaves while the test looks; a first packet may go at once.
  const SLOW: [kind: string, ...lines: string[]][] = [
    ['tbf', `qdisc replace dev mgmt0 root tbf rate 100bit burst ${BYTES} limit 200000`],
    [
      'htb',
      'qdisc replace dev mgmt0 root handle 1: htb default 1',
      `class add dev mgmt0 parent 1: classid 1:1 htb rate 100bit burst ${BYTES} cburst ${BYTES}`,
    ],
  ]
  for (const [kind, ...lines] of SLOW) {
    test(`the depth is the backlog that tc shows for ${kind}`, async t => {
      const { lab, driver } = scene
      if (!hasQdisc(lab, kind === 'htb' ? 'htb' : 'pfifo')) return t.skip('the kernel does not have it')
      for (const line of lines) tc(lab, line)
      send(lab, 10)
      const [{ backlog }] = JSON.parse(tc(lab, '-s -j qdisc show dev mgmt0')) as [{ backlog: number }]
      assert.ok(backlog >= 8 * BYTES && backlog % BYTES === 0, `${backlog} bytes wait`)
      send(lab, 1)
      tc(lab, 'qdisc del dev mgmt0 root')
      const depths = (await samples(driver, 11)).map(sample => sample.queueDepthBytes)
      assert.equal(Math.max(...depths), backlog)
    })
  }

  test('with mq: the queue that it took, and the depth of that one', async () => {
    const { lab, driver, input } = scene
    const { host, peer } = lab
    const queues = 'numtxqueues 2 numrxqueues 2'
    ip(
      `link add wide0 netns ${host.namespace} ${queues} type veth peer name wide0 netns ${peer.namespace} ${queues}`,
    )
    const wide = ifIndexOf(host.namespace, 'wide0')
    let waiting: { parent: string; backlog: number }[] = []
    try {
      for (const { namespace } of [host, peer]) ip(`-n ${namespace} link set wide0 addrgenmode none up`)
      layWay(lab, 'wide0')
      tc(lab, 'qdisc replace dev wide0 root handle 1: mq')
      for (const queue of [1, 2]) {
        const slow = `tbf rate 100bit burst ${BYTES} limit 200000`
        tc(lab, `qdisc replace dev wide0 parent 1:${queue} handle 1${queue}: ${slow}`)
      }
      send(lab, 10, BEYOND)
      const qdiscs = JSON.parse(tc(lab, '-s -j qdisc show dev wide0')) as (typeof waiting)[number][]
      waiting = qdiscs.filter(({ parent, backlog }) => parent !== undefined && backlog > 0)
      send(lab, 1, BEYOND)
    } finally {
      ip(`-n ${host.namespace} link del wide0`)
    }
    // All packets are of one flow.
    assert.deepEqual([waiting.length, waiting[0]!.backlog], [1, 9 * BYTES])
    const all = (await samples(driver, 11)).filter(({ inputIfIndex }) => inputIfIndex === input)
    for (const { egressQueue } of all) assert.equal(`1:${egressQueue + 1}`, waiting[0]!.parent)
    assert.equal(Math.max(...all.map(({ queueDepthBytes }) => queueDepthBytes)), 9 * BYTES)
    assert.equal(all.find(({ transitDelayNs }) => transitDelayNs >= 0)!.outputIfIndex, wide)
  })

  test('the depth of pfifo_fast, which each processor counts for itself', async t => {
    if (!kernelAtLeast(6, 16)) return t.skip('veth never lets packets wait before Linux 6.16')
    const PACKETS = 600
    const TRIES = 20
    const { lab, driver } = scene
    tc(lab, 'qdisc replace dev mgmt0 root pfifo_fast')
    holdReceiver(t, lab)
    // Whoever else needs the processor takes it from the sender, too: then the queue does not fill, and it is tried again.
    for (let tries = 1; ; tries++) {
      send(lab, PACKETS)
      const all = await samples(driver, tries * PACKETS)
      const depths = all.slice(-PACKETS).map(sample => sample.queueDepthBytes)
      assert.ok(depths.every(depth => depth % BYTES === 0))
      const deeper = depths.filter((depth, i) => i > 0 && depth === depths[i - 1]! + BYTES)
      if (deeper.length > PACKETS / 20) break
      assert.ok(tries < TRIES, `${deeper.length} of ${PACKETS} found one packet more than the one before`)
    }
  })

  test('with a delay of 5 ms by netem, as tcpdump sees it', async t => {
    const PACKETS = 5
    const { lab, driver } = scene
    if (!hasQdisc(lab, 'netem delay 5ms')) return t.skip('the kernel does not have it')
    const capture = new Capture(t, lab)
    await capture.started()
    for (let count = 1; count <= PACKETS; count++) {
      send(lab, 1)
      await samples(driver, count)
    }
    const seen = await capture.transits(PACKETS)
    const delays = (await driver.call('seen')).map(({ transitDelayNs }) => transitDelayNs)
    for (const delay of delays) assert.ok(delay >= 5 * MILLISECOND && delay < SLACK, `${delay} ns`)
    // tcpdump's time is taken shortly before the ingress hook, and behind the queue shortly before the driver.
    const errors = delays.map((delay, i) => Math.abs(delay - seen[i]!)).sort((a, b) => a - b)
    t.diagnostic(`reported ${delays} ns, by tcpdump ${seen} ns`)
    assert.ok(errors[PACKETS >> 1]! < CAPTURE_ERROR, `differs from tcpdump by ${errors} ns`)
  })

  /** Upper devices of low0, and the kernel module that each takes. */
  const STACKED: [kind: string, ...lines: string[]][] = [
    ['macvlan', 'link add upper0 link low0 type macvlan mode bridge'],
    ['vlan', 'link add upper0 link low0 type vlan id 100'],
    ['vxlan', 'link add upper0 type vxlan id 42 dev low0 remote 192.0.2.130 dstport 4789'],
    [
      'bond',
      'link add upper0 type bond mode active-backup',
      'link set low0 down',
      'link set low0 master upper0',
    ],
  ]
  for (const [kind, ...lines] of STACKED) {
    test(`through a stacked device, ${kind}: the lowest one counts`, async t => {
      const { lab, driver, input } = scene
      const { host, peer } = lab
      ip(`link add low0 netns ${host.namespace} type veth peer name low0 netns ${peer.namespace}`)
      t.after(() => void ip(`-n ${host.namespace} link del low0`))
      const low = ifIndexOf(host.namespace, 'low0')
      ipBatch(host.namespace, ['link set low0 addrgenmode none up', 'address add 192.0.2.129/28 dev low0'])
      ip(`-n ${peer.namespace} link set low0 addrgenmode none up`)
      ip(`-n ${host.namespace} neighbour replace 192.0.2.130 lladdr ${peer.mgmt0.mac} dev low0 nud permanent`)
      try {
        for (const line of lines) ip(`-n ${host.namespace} ${line}`)
      } catch (error) {
        if (!/Unknown device type|not supported/.test((error as Error).message)) throw error
        return t.skip('the kernel does not have it')
      }
      if (kind === 'bond') t.after(() => void ip(`-n ${host.namespace} link del upper0`))
      ip(`-n ${host.namespace} link set upper0 addrgenmode none up`)
      await until('carrier', () => /state (UP|UNKNOWN)/.test(ip(`-n ${host.namespace} link show upper0`)))
      layWay(lab, 'upper0')
      send(lab, 1, BEYOND)
      const sample = await until('the packet', async () =>
        (await driver.call('seen')).find(({ inputIfIndex }) => inputIfIndex === input),
      )
      assert.equal(sample.outputIfIndex, low)
      assert.ok(sample.transitDelayNs > 0)
    })
  }

  test('a large packet that is cut into segments counts as those, and is followed as its first', async () => {
    const SEGMENTS = 5
    const { lab, driver, output } = scene
    run('ip', 'netns', 'exec', lab.host.namespace, 'ethtool', '-K', 'mgmt0', 'tso', 'off')
    try {
      sendLarge(lab, SEGMENTS)
    } finally {
      run('ip', 'netns', 'exec', lab.host.namespace, 'ethtool', '-K', 'mgmt0', 'tso', 'on')
    }
    const all = await samples(driver, SEGMENTS)
    assert.equal(all.length, SEGMENTS)
    for (const { outputIfIndex, frameLength, transitDelayNs } of all) {
      assert.deepEqual([outputIfIndex, frameLength], [output, 54 + 1000 + 4])
      assert.ok(transitDelayNs > 0)
    }
  })

  test('what is left of a large packet in a queue is not taken for a later one', async t => {
    const SEGMENTS = 5
    /** Packets that are followed at a time: the one behind so many has the place of the first. */
    const PLACES = 8192
    const BURST = 500
    const LATER = 20
    const { lab, driver } = scene
    const { host, peer } = lab
    const slow = `tbf rate 100bit burst ${1.5 * BYTES} limit 2000000`
    ip(`link add low0 netns ${host.namespace} type veth peer name low0 netns ${peer.namespace}`)
    t.after(() => void ip(`-n ${host.namespace} link del low0`))
    for (const { namespace } of [host, peer]) ip(`-n ${namespace} link set low0 addrgenmode none up`)
    layWay(lab, 'low0')
    for (const device of ['mgmt0', 'low0']) tc(lab, `qdisc replace dev ${device} root ${slow}`)
    // Its first segment leaves, the others wait.
    sendLarge(lab, SEGMENTS)
    let expected = SEGMENTS
    await samples(driver, expected)
    for (let sent = 0; sent < PLACES - LATER / 2; sent += BURST) {
      const frame = Buffer.alloc(BYTES)
      frame.writeUInt16BE(EXPERIMENTAL, 12)
      const count = Math.min(BURST, PLACES - LATER / 2 - sent)
      sendFrames(peer.namespace, peer.eth0.ifIndex, frame, count)
      expected += count
      await samples(driver, expected)
    }
    for (let i = 0; i < LATER; i++) sendLarge(lab, SEGMENTS, BEYOND)
    // Again, one segment leaves.
    expected += SEGMENTS
    await samples(driver, expected)
    const before = linkCounts(peer.namespace, 'mgmt0').rxPackets
    tc(lab, 'qdisc change dev mgmt0 root tbf rate 1gbit burst 100000 limit 2000000')
    send(lab, 1)
    await until('the segments', () => linkCounts(peer.namespace, 'mgmt0').rxPackets - before === SEGMENTS)
    await samples(driver, expected + 1)
    await sleep(100)
    assert.equal((await driver.call('tally')).delivered, expected + 1)
    tc(lab, 'qdisc del dev low0 root')
    await samples(driver, expected + 1 + (LATER - 1) * SEGMENTS)
  })

  test('across a bridge', async t => {
    const { lab, driver, input, output } = scene
    const { host, peer } = lab
    ip(`-n ${host.namespace} link add bridge0 type bridge`)
    t.after(() => void ip(`-n ${host.namespace} link del bridge0`))
    for (const port of ['eth0', 'mgmt0']) ip(`-n ${host.namespace} link set ${port} master bridge0`)
    ip(`-n ${host.namespace} link set bridge0 addrgenmode none up`)
    ip(`netns exec ${host.namespace} bridge fdb replace ${peer.mgmt0.mac} dev mgmt0 master static`)
    const frame = Buffer.alloc(BYTES)
    frame.write(peer.mgmt0.mac.replaceAll(':', ''), 0, 'hex')
    frame.write(peer.eth0.mac.replaceAll(':', ''), 6, 'hex')
    frame.writeUInt16BE(EXPERIMENTAL, 12)
    sendFrames(peer.namespace, peer.eth0.ifIndex, frame, 1)
    // The bridge speaks itself, too.
    const isOurs = ({ header }: Seen) => header.readUInt16BE(12) === EXPERIMENTAL
    const sample = await until('the frame', async () => (await driver.call('seen')).find(isOurs))
    assert.deepEqual([sample.inputIfIndex, sample.outputIfIndex], [input, output])
    assert.ok(sample.transitDelayNs > 0)
  })
})

describe('a packet that is not passed on', () => {
  test('dropped at a full queue: the reason is the output, and the drop is told with the queue', async () => {
    const PACKETS = 50
    const { lab, driver, input, output } = scene
    tc(lab, `qdisc replace dev mgmt0 root tbf rate 8mbit burst ${BYTES} limit ${5 * BYTES}`)
    send(lab, PACKETS)
    const all = await samples(driver, PACKETS)
    const [{ drops: dropped }] = JSON.parse(tc(lab, '-s -j qdisc show dev mgmt0')) as [{ drops: number }]
    assert.ok(dropped > 0)
    const without = all.filter(sample => sample.transitDelayNs < 0)
    assert.equal(without.length, dropped)
    for (const sample of without) {
      assert.deepEqual([sample.discardReason, sample.egressQueue], [codeOf('no_buffer_space'), 0])
    }
    assert.equal((await driver.call('losses')).dropped, dropped)
    const drops = await driver.call('drops')
    assert.equal(drops.length, dropped)
    for (const [i, { timestamp, header, reason, ...drop }] of drops.entries()) {
      assert.match(reason!, /QDISC/)
      assert.deepEqual(header, without[i]!.header)
      assert.ok(timestamp >= timeOf(without[i]!))
      const way = { inputIfIndex: input, outputIfIndex: output, egressQueue: 0 }
      assert.deepEqual(drop, { ...way, symbol: drop.symbol, etherType: 0x0800, frameLength: BYTES + 4 })
    }
  })

  test('dropped before it came to a queue', async () => {
    const { lab, driver, input } = scene
    send(lab, 1, '203.0.113.7')
    // The other one is the answer that there is no way.
    const sample = (await samples(driver, 2)).find(({ inputIfIndex }) => inputIfIndex === input)
    assert.deepEqual(found(sample!), { ...UNKNOWN, inputIfIndex: input, outputIfIndex: 0 })
    assert.equal(sample!.discardReason, codeOf('net_unreachable'))
    assert.equal((await driver.call('losses')).dropped, 1)
    const [drop] = await driver.call('drops')
    assert.match(`${drop!.reason} ${drop!.symbol}`, /IP_INNOROUTES|NOT_SPECIFIED ip_error\+0x/)
    assert.deepEqual([drop!.outputIfIndex, drop!.egressQueue], [0, -1])
  })

  test('for the host itself', async t => {
    const { lab, driver, input } = scene
    const { host, peer } = lab
    const to = { address: host.eth0.ipv4, port: 7000 }
    sink(t, host.namespace, to)
    sendFlow(peer.namespace, {
      from: { address: peer.eth0.ipv4, port: 7000 },
      to,
      payloadBytes: 100,
      packets: 3,
    })
    for (const sample of await samples(driver, 3)) {
      assert.deepEqual(found(sample), { ...UNKNOWN, inputIfIndex: input, outputIfIndex: INTERNAL_INTERFACE })
    }
  })

  test('one that is made here has a queue, and no delay', async t => {
    const { lab, driver, input } = scene
    const { host, peer } = lab
    const from = { address: host.eth0.ipv4, port: 7000 }
    const to = { address: peer.eth0.ipv4, port: 7000 }
    sink(t, peer.namespace, to)
    sendFlow(host.namespace, { from, to, payloadBytes: 100, packets: 1 })
    const [sample] = await samples(driver, 1)
    const expected = { inputIfIndex: INTERNAL_INTERFACE, outputIfIndex: input, egressQueue: 0 }
    assert.deepEqual(found(sample!), { ...expected, queueDepthBytes: 0, hasDelay: false })
  })
})

test('every chosen packet is reported once, whatever becomes of it', async () => {
  const PACKETS = 20_000
  const BURST = 500
  const { lab, driver, input } = scene
  const before = { ...(await driver.call('counts', input))! }
  tc(lab, `qdisc replace dev mgmt0 root tbf rate 800mbit burst 20000 limit 100000`)
  for (let sent = 0; sent < PACKETS; sent += BURST) {
    send(lab, BURST)
    // What waits in the queue is the sender's, who may only have so much.
    await sleep(10)
  }
  await driver.call('poll')
  const counted = (await driver.call('counts', input))!
  const lost = counted.lost - before.lost
  assert.equal(counted.chosen - before.chosen, PACKETS)
  await samples(driver, PACKETS - lost)
  await driver.call('remove', input)
  assert.equal((await driver.call('tally')).delivered, PACKETS - lost)
  await driver.call('add', portOf(input))
})

test('two agents: a packet is followed by one of them, and the other one says so', async t => {
  const { lab, driver, input } = scene
  const other = await BpfDriver.start(t, lab.host.namespace, { instance: 1, transit: true })
  await other.call('add', portOf(input))
  send(lab, 5)
  const followed = async (one: BpfDriver) =>
    (await samples(one, 5)).filter(sample => sample.transitDelayNs >= 0).length
  assert.deepEqual([await followed(driver), await followed(other)].sort(), [0, 5])
  for (const one of [driver, other]) await one.call('poll')
  const counted = [driver, other].map(async one => (await one.call('losses'))['not-followed'])
  assert.deepEqual((await Promise.all(counted)).sort(), [0, 5])
  // A killed one would leave its programs at clsact, where the kernel has no TCX.
  await other.call('stop')
})

test('a tc program of others that lets packets pass makes us lose sight of them', async t => {
  const lab = makeLab(t)
  const { host } = lab
  const TC_ACT_OK = '0'
  const script = join(import.meta.dirname, '../support/tc-program.ts')
  const command = [process.execPath, script, String(host.eth0.ifIndex), TC_ACT_OK]
  const other = new RunningAgent(t, ['ip', 'netns', 'exec', host.namespace, ...command])
  const isAttached = await until('program', () => /attached|EINVAL/.exec(other.stderr)?.[0])
  if (isAttached === 'EINVAL') return t.skip('the kernel has no TCX')
  const { driver, input } = await passing(t, lab)
  send(lab, 1)
  const [sample] = await samples(driver, 1)
  assert.deepEqual(found(sample!), { ...UNKNOWN, inputIfIndex: input, outputIfIndex: 0 })
  assert.equal((await driver.call('losses'))['lost-sight'], 1)
})

test('the interface is no longer sampled while packets wait in the queue', async () => {
  const { lab, driver, input } = scene
  tc(lab, `qdisc replace dev mgmt0 root tbf rate 100bit burst ${BYTES} limit 200000`)
  send(lab, 10)
  await samples(driver, 1)
  await driver.call('remove', input)
  assert.equal((await driver.call('tally')).delivered, 10)
  assert.equal((await driver.call('losses'))['lost-sight'], 9)
  await driver.call('add', portOf(input))
})
