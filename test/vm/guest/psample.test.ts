/** PSAMPLE from a real kernel: a simulated switch, tc samplers under traffic, modules that come and go, overruns. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Ledger } from '../../../agent/health/ledger.ts'
import { createLogger } from '../../../agent/health/log.ts'
import { ABSENT, HEADER_PROTOCOL, type PacketSample } from '../../../agent/samples/packet-sample.ts'
import { PsampleSource } from '../../../agent/sources/psample.ts'
import { PsampleSamples } from '../../../agent/sources/psample-samples.ts'
import {
  ifIndex,
  ip,
  modprobe,
  neighbour,
  netdevsim,
  ping,
  run,
  sampler,
  tc,
  unload,
  until,
} from '../../support/guest.ts'

const INGRESS = 31
const EGRESS = 32
/** Octets on the wire of what ping() sends: Ethernet, IPv4, ICMP, 100 of data, FCS. */
const PING_FRAME = 14 + 20 + 8 + 100 + 4
/** Octets of netdevsim's packet: Ethernet, IPv4, UDP, 100 of data. */
const SWITCH_FRAME = 142
const LOST_NOTHING = { 'psample/socket-overrun': 0, 'psample/sequence-gap': 0, 'psample/malformed': 0 }

type Seen = Omit<PacketSample, 'headerWords' | 'headerOffset'> & { readonly header: Buffer }

/** A source that keeps what it delivers; it is started and stopped with the test. */
async function listen(t: TestContext, receiveBytes?: number) {
  const seen: Seen[] = []
  const ledger = new Ledger()
  const samples = new PsampleSamples({
    ingressGroup: INGRESS,
    egressGroup: EGRESS,
    tunnels: true,
    interfaces: { highestIfIndex: 1000, byLow16: () => undefined, isLayer3: () => false },
    ledger,
    sink: ({ headerWords, headerOffset, ...sample }) => {
      const header = Buffer.from(headerWords.buffer as ArrayBuffer, headerOffset, sample.headerLength)
      seen.push({
        ...sample,
        tunnel: sample.tunnel && structuredClone(sample.tunnel),
        header: Buffer.from(header),
      })
    },
  })
  const source = new PsampleSource({
    samples,
    ledger,
    log: createLogger(process.env.LOG ?? 'silent'),
    onBatchEnd: () => {},
    ...(receiveBytes === undefined ? {} : { receiveBytes }),
  })
  await source.start()
  t.after(() => source.stop())
  const losses = () => {
    source.poll()
    const psample = ledger.entries().filter(({ stage }) => stage === 'psample')
    return Object.fromEntries(psample.map(({ stage, cause, count }) => [`${stage}/${cause}`, count]))
  }
  const assertNothingLost = () => {
    const { 'psample/ambiguous-ifindex': ambiguous, ...others } = losses()
    assert.deepEqual({ ambiguous, ...others }, { ambiguous: 0, ...LOST_NOTHING })
  }
  return { seen, samples, source, ledger, losses, assertNothingLost }
}

test('a switch: every value is what the simulated hardware reports', async t => {
  const { seen, assertNothingLost } = await listen(t)
  const simulated = netdevsim(t, 10, 2)
  const [input, output] = simulated.ports.map(ifIndex) as [number, number]
  simulated.startSamples({
    group_num: INGRESS,
    rate: 512,
    trunc_size: 64,
    in_ifindex: input,
    out_ifindex: output,
    out_tc: 3,
    out_tc_occ_max: 1024,
    latency_max: 4096,
  })
  await until('twenty samples', () => seen.length >= 20)
  for (const sample of seen) {
    assert.equal(sample.dataSource, input)
    assert.equal(sample.inputIfIndex, input)
    assert.equal(sample.outputIfIndex, output)
    assert.equal(sample.samplingRate, 512)
    assert.equal(sample.frameLength, SWITCH_FRAME + 4)
    assert.equal(sample.stripped, 4)
    assert.equal(sample.headerProtocol, HEADER_PROTOCOL.ethernet)
    assert.equal(sample.headerLength, 64)
    assert.equal(sample.header.readUInt16BE(12), 0x0800)
    assert.deepEqual([...sample.header.subarray(26, 34)], [192, 0, 2, 1, 198, 51, 100, 1])
    assert.equal(sample.egressQueue, 3)
    assert.ok(sample.queueDepthBytes >= 0 && sample.queueDepthBytes < 1024, `${sample.queueDepthBytes}`)
    assert.ok(sample.transitDelayNs >= 0 && sample.transitDelayNs < 4096, `${sample.transitDelayNs}`)
    assert.ok(Math.abs(milliseconds(sample) - Date.now()) < 60_000, `${milliseconds(sample)}`)
    assert.equal(sample.lostBefore, 0)
  }
  for (const field of ['queueDepthBytes', 'transitDelayNs'] as const) {
    assert.ok(new Set(seen.map(sample => sample[field])).size > 5, `${field} varies`)
  }
  const times = seen.map(milliseconds)
  assert.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
  )
  assertNothingLost()
})

test('packets of a tunnel tell of its outer headers, on their way in and out', async t => {
  modprobe('veth', 'vxlan', 'act_sample', 'cls_matchall', 'sch_ingress', 'act_tunnel_key', 'act_mirred')
  const { seen, assertNothingLost } = await listen(t)
  neighbour(t, 'v0')
  const there = '-n weir-V-v0'
  ip(`${there} link add vx0 type vxlan id 42 remote 192.0.2.1 dstport 4789 udpcsum`)
  ip('link add vx0 type vxlan external dstport 4789')
  t.after(() => ip('link del vx0'))
  for (const [place, address] of [
    ['', '198.18.0.1'],
    [there, '198.18.0.2'],
  ]) {
    ip(`${place} link set vx0 addrgenmode none up`.trim())
    ip(`${place} address add ${address}/24 dev vx0`.trim())
  }
  // What this end sends gets its outer headers before it is sampled.
  tc('qdisc add dev vx0 clsact')
  const headers = 'action tunnel_key set src_ip 192.0.2.1 dst_ip 192.0.2.2 id 42 dst_port 4789'
  tc(`filter add dev vx0 egress matchall ${headers} action sample rate 1 group ${EGRESS} trunc 128 continue`)
  sampler('vx0', 'ingress', { rate: 1, group: INGRESS })
  run('ip', 'netns', 'exec', 'weir-V-v0', 'ping', '-q', '-c', '3', '-i', '0.2', '198.18.0.1')
  const device = ifIndex('vx0')
  for (const isOutput of [false, true]) {
    const ways = () => seen.filter(sample => sample.tunnel?.isOutput === isOutput)
    await until('three samples', () => ways().length >= 3)
    const { dataSource, tunnel } = ways().at(-1)!
    const [near, far] = [address16(192, 0, 2, 1), address16(192, 0, 2, 2)]
    assert.equal(dataSource, device)
    assert.deepEqual(
      { ...tunnel!, sourcePort: 0 },
      {
        isOutput,
        addressBytes: 4,
        source: isOutput ? near : far,
        destination: isOutput ? far : near,
        tos: 0,
        sourcePort: 0,
        destinationPort: 4789,
        id: 42,
      },
    )
  }
  assertNothingLost()
})

test('a switch: what the hardware does not report is absent, the whole packet is taken', async t => {
  const { seen, assertNothingLost } = await listen(t)
  const simulated = netdevsim(t, 10, 2)
  const [input] = simulated.ports.map(ifIndex)
  simulated.startSamples({
    group_num: INGRESS,
    trunc_size: 0,
    in_ifindex: input!,
    out_ifindex: 0,
    out_tc: 65535,
    out_tc_occ_max: 0,
    latency_max: 0,
  })
  await until('three samples', () => seen.length >= 3)
  for (const sample of seen) {
    assert.equal(sample.dataSource, input)
    assert.equal(sample.outputIfIndex, 0)
    assert.equal(sample.headerLength, SWITCH_FRAME)
    assert.equal(sample.egressQueue, ABSENT)
    assert.equal(sample.queueDepthBytes, ABSENT)
    assert.equal(sample.transitDelayNs, ABSENT)
  }
  assertNothingLost()
})

test('a switch: values beyond 32 bits saturate', async t => {
  const { seen } = await listen(t)
  const simulated = netdevsim(t, 10, 1)
  // Random values below 2^63: all but one in two thousand million exceed 32 bits.
  const most = 2n ** 63n
  simulated.startSamples({ group_num: INGRESS, out_tc: 0, out_tc_occ_max: most, latency_max: most })
  await until('five samples', () => seen.length >= 5)
  for (const sample of seen) {
    assert.equal(sample.queueDepthBytes, 0xffff_ffff)
    assert.equal(sample.transitDelayNs, 0xffff_ffff)
  }
})

test('a switch: groups that nobody asked for are left to others', async t => {
  const { seen, samples, assertNothingLost } = await listen(t)
  const simulated = netdevsim(t, 10, 1)
  simulated.startSamples({ group_num: EGRESS + 1 })
  await until('three messages', () => samples.foreign >= 3)
  assert.equal(seen.length, 0)
  assertNothingLost()
})

test('tc samplers: each packet in and out of a veth, one by one', async t => {
  const { seen, assertNothingLost } = await listen(t)
  neighbour(t, 'vps')
  const port = ifIndex('vps')
  sampler('vps', 'ingress', { rate: 1, group: INGRESS, truncate: 64 })
  sampler('vps', 'egress', { rate: 1, group: EGRESS, truncate: 64 })
  ping(200)
  await until('400 samples', () => seen.length >= 400)
  assert.equal(seen.length, 400)

  const requests = seen.filter(sample => sample.outputIfIndex === port)
  const replies = seen.filter(sample => sample.inputIfIndex === port)
  for (const [samples, icmpType, other] of [
    [requests, 8, 'inputIfIndex'],
    [replies, 0, 'outputIfIndex'],
  ] as const) {
    assert.equal(samples.length, 200)
    const sequence = samples.map(({ header }) => header.readUInt16BE(40))
    assert.deepEqual(
      sequence,
      Array.from({ length: 200 }, (_, i) => sequence[0]! + i),
    )
    for (const sample of samples) {
      assert.equal(sample.dataSource, port)
      assert.equal(sample[other], 0)
      assert.equal(sample.samplingRate, 1)
      assert.equal(sample.frameLength, PING_FRAME)
      assert.equal(sample.headerLength, 64)
      assert.equal(sample.header[34], icmpType)
    }
  }
  assertNothingLost()
})

test('tc samplers: 1 in 10 is about a tenth', async t => {
  const { seen, assertNothingLost } = await listen(t)
  neighbour(t, 'vps')
  sampler('vps', 'ingress', { rate: 10, group: INGRESS })
  ping(5000)
  await new Promise(resolve => setTimeout(resolve, 200))
  // A binomial of 5000 and 0.1 has mean 500 and deviation 21; six deviations fail once in a thousand million.
  assert.ok(Math.abs(seen.length - 500) < 128, `${seen.length} samples`)
  for (const sample of seen) assert.equal(sample.samplingRate, 10)
  assertNothingLost()
})

test('the module comes after the start, goes, and comes back', async t => {
  // Without its helper program the kernel loads no module by itself.
  writeFileSync('/proc/sys/kernel/modprobe', '\n')
  t.after(() => writeFileSync('/proc/sys/kernel/modprobe', '/sbin/modprobe\n'))
  const modules = ['netdevsim', 'act_sample', 'openvswitch', 'psample']
  for (const name of modules) unload(name)
  assert.ok(!existsSync('/sys/module/psample'))

  const { seen, source, assertNothingLost } = await listen(t)
  assert.equal(source.state, 'waiting for the kernel module')
  for (const round of [1, 2, 3]) {
    modprobe('psample')
    await until(`listening in round ${round}`, () => source.state === 'listening')
    const simulated = netdevsim(t, 10, 1)
    simulated.startSamples({ group_num: INGRESS })
    const before = seen.length
    await until(`three samples in round ${round}`, () => seen.length >= before + 3)
    simulated.remove()
    for (const name of modules) unload(name)
    await until(`waiting in round ${round}`, () => source.state === 'waiting for the kernel module')
  }
  // Each round the group's sequence began again; that is no loss.
  assertNothingLost()
})

test('the source loads the module where the kernel can', async t => {
  for (const name of ['netdevsim', 'act_sample', 'openvswitch', 'psample']) unload(name)
  const { source } = await listen(t)
  assert.equal(source.state, 'listening')
  assert.ok(existsSync('/sys/module/psample'))
})

test('overrun: packets offered = samples received + losses counted', async t => {
  const { seen, samples, source, losses } = await listen(t, 65_536)
  neighbour(t, 'vps')
  sampler('vps', 'ingress', { rate: 1, group: INGRESS })
  sampler('vps', 'egress', { rate: 1, group: EGRESS })
  // ping() holds the event loop, so that nobody takes samples while it runs.
  for (let burst = 0; burst < 3; burst++) {
    ping(1000)
    await new Promise(resolve => setTimeout(resolve, 100))
    source.poll()
  }
  // A last packet each way shows the gap before it.
  ping(1)
  await until(
    'the last packets',
    () => seen.at(-1)?.header[34] === 0 && seen.at(-1)!.header.readUInt16BE(40) === 1,
  )

  const offered = ['ingress', 'egress'].map(direction => {
    const [, packets] = /Sent \d+ bytes (\d+) pkt/.exec(tc(`-s filter show dev vps ${direction}`))!
    return Number(packets)
  })
  assert.deepEqual(offered, [3001, 3001])
  const lost = losses()
  assert.ok(lost['psample/socket-overrun']! > 1000, JSON.stringify(lost))
  assert.deepEqual(
    { ...lost, 'psample/socket-overrun': 0 },
    { 'psample/ambiguous-ifindex': 0, ...LOST_NOTHING },
  )
  assert.equal(samples.delivered + lost['psample/socket-overrun']!, 6002)
  assert.equal(seen.length, samples.delivered)
  // The same number again, as the gaps in the kernel's sequence show it.
  assert.equal(
    seen.reduce((sum, sample) => sum + sample.lostBefore, 0),
    lost['psample/socket-overrun'],
  )
})

test('without CAP_NET_ADMIN the refusal says what is needed, and the agent runs on', () => {
  modprobe('psample')
  const script = `
    import { Ledger } from './agent/health/ledger.ts'
    import { createLogger } from './agent/health/log.ts'
    import { PsampleSource } from './agent/sources/psample.ts'
    import { PsampleSamples } from './agent/sources/psample-samples.ts'
    const ledger = new Ledger()
    const interfaces = { highestIfIndex: 1, byLow16: () => undefined, isLayer3: () => false }
    const options = { ingressGroup: 1, egressGroup: 2, interfaces, ledger, sink: () => {} }
    const samples = new PsampleSamples(options)
    const source = new PsampleSource({ samples, ledger, log: createLogger('info'), onBatchEnd: () => {} })
    await source.start()
    source.poll()
    console.log(source.state)
    source.stop()`
  const command = [
    '--bounding-set',
    '-net_admin',
    '--inh-caps',
    '-net_admin',
    '--reuid',
    '65534',
    process.execPath,
  ]
  const child = spawnSync('setpriv', [...command, '--input-type=module', '-e', script], {
    cwd: join(import.meta.dirname, '../../..'),
    encoding: 'utf8',
  })
  assert.equal(child.status, 0, child.stderr)
  assert.equal(child.stdout, 'refused\n')
  assert.match(child.stderr, /join netlink group psample packets: EPERM .*needs CAP_NET_ADMIN/)
})

function milliseconds({ timestampHigh, timestampLow }: Seen): number {
  return Number(((BigInt(timestampHigh >>> 0) << 32n) | BigInt(timestampLow >>> 0)) / 1_000_000n)
}

function address16(...bytes: number[]): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => bytes[i] ?? 0)
}
