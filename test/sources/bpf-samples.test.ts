/** Samples by BPF between two network namespaces. The same tests run on Debian's kernels (test/vm/guest). */
import assert from 'node:assert/strict'
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { Ledger } from '../../agent/health/ledger.ts'
import { builtFile } from '../../agent/kernel/addon.ts'
import { BpfObject } from '../../agent/kernel/bpf-object.ts'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { AF_PACKET, packetAddress } from '../../agent/kernel/sockaddr.ts'
import { emptyPacketSample, INTERNAL_INTERFACE } from '../../agent/samples/packet-sample.ts'
import { type BpfPort, BpfSamples } from '../../agent/sources/bpf-samples.ts'
import { BpfDriver, type DriverOptions, type Seen } from '../support/bpf-driver.ts'
import { inGuest, kernelAtLeast, run } from '../support/guest.ts'
import { ifIndexOf, ip, type Lab, linkCounts, makeLab, runWeir, until } from '../support/lab.ts'
import { ip4Header } from '../support/packets.ts'

const SOCK_RAW = 3
const ETH_P_ALL = 3
const SOL_PACKET = 263
const PACKET_VNET_HDR = 15
/** EtherType for local experiments: no protocol takes these frames, so nothing answers. */
const EXPERIMENTAL = 0x88b5

/** A frame whose 15th octet is `octet`. */
function frame(lab: Lab, bytes: number, octet = 0, tags: readonly number[] = []): Uint8Array {
  const whole = Buffer.alloc(bytes, 0x2a)
  whole.write(lab.host.eth0.mac.replaceAll(':', ''), 0, 'hex')
  whole.write(lab.peer.eth0.mac.replaceAll(':', ''), 6, 'hex')
  let at = 12
  for (const tag of tags) at = whole.writeUInt32BE(tag, at)
  at = whole.writeUInt16BE(EXPERIMENTAL, at)
  if (at < bytes) whole.writeUInt8(octet, at)
  return whole
}

/** Sends `count` frames, in turn from the list, by eth0 of a station. `options` are set on the packet socket. */
function send(
  { namespace, eth0 }: Lab['host'],
  frames: readonly Uint8Array[],
  count = frames.length,
  options: readonly number[] = [],
): void {
  const socket = KernelSocket.open('frames', AF_PACKET, SOCK_RAW, 0, namespace)
  try {
    for (const option of options) socket.setOption(SOL_PACKET, option, 1, 'set an option')
    socket.bind(packetAddress(ETH_P_ALL, eth0.ifIndex), 'bind')
    const memory = new Uint8Array(Buffer.concat(frames)).buffer
    const starts = [0]
    for (const { length } of frames) starts.push(starts.at(-1)! + length)
    const spans = new Int32Array(count * 2)
    for (let i = 0; i < count; i++) {
      spans[i * 2] = starts[i % frames.length]!
      spans[i * 2 + 1] = frames[i % frames.length]!.length
    }
    for (let sent = 0; sent < count; ) {
      const result = socket.sendBatch(memory, spans, sent, count - sent)
      assert.ok(result > 0, `errno ${-result}`)
      sent += result
    }
  } finally {
    socket.close()
  }
}

interface Scene {
  readonly lab: Lab
  readonly driver: BpfDriver
  readonly ifIndex: number
}

/** The host samples its eth0. */
async function sampling(t: TestContext, port: Partial<BpfPort>, options?: DriverOptions): Promise<Scene> {
  const lab = makeLab(t)
  const driver = await BpfDriver.start(t, lab.host.namespace, options)
  const { ifIndex } = lab.host.eth0
  await driver.call('add', { ...ordinary(ifIndex), ...port })
  return { lab, driver, ifIndex }
}

function ordinary(ifIndex: number): BpfPort {
  return { ifIndex, name: 'eth0', rate: 1, forwards: false, promiscuous: false, layer3: false }
}

/** All samples, when there are `count`. */
async function samples(driver: BpfDriver, count: number): Promise<Seen[]> {
  await until(`${count} samples`, async () => (await driver.call('tally')).delivered >= count)
  return driver.call('seen')
}

describe('a sample', () => {
  test('of a received frame: where it came in, what it is, when it was', async t => {
    const { lab, driver, ifIndex } = await sampling(t, {})
    const sent = frame(lab, 1000, 7)
    const before = BigInt(Date.now()) * 1_000_000n
    send(lab.peer, [sent])
    const [sample] = await samples(driver, 1)
    const { header, timestampHigh, timestampLow, ...fields } = sample!
    assert.deepEqual(header, Buffer.from(sent.subarray(0, 128)))
    const { headerWords, headerOffset, timestampHigh: _, timestampLow: __, ...unknown } = emptyPacketSample()
    assert.deepEqual(fields, {
      ...unknown,
      dataSource: ifIndex,
      samplingRate: 1,
      inputIfIndex: ifIndex,
      outputIfIndex: INTERNAL_INTERFACE,
      headerProtocol: 1,
      frameLength: 1004,
      stripped: 4,
      headerLength: 128,
      tagKept: true,
    })
    const time = (BigInt(timestampHigh) << 32n) | BigInt(timestampLow)
    const SECOND = 1_000_000_000n
    assert.ok(time > before - SECOND && time < before + 10n * SECOND, `${time} is not about ${before}`)
  })

  test('of a sent frame: made here', async t => {
    const { lab, driver, ifIndex } = await sampling(t, {})
    send(lab.host, [frame(lab, 100)])
    const [sample] = await samples(driver, 1)
    assert.deepEqual([sample!.inputIfIndex, sample!.outputIfIndex], [INTERNAL_INTERFACE, ifIndex])
  })

  test('of a router: the output of what it receives is not known, the input of what it sends is', async t => {
    const { lab, driver, ifIndex } = await sampling(t, { forwards: true })
    const { host, peer } = lab
    const out = host.mgmt0.ifIndex
    await driver.call('add', { ...ordinary(out), name: 'mgmt0', forwards: true })
    ip(`netns exec ${host.namespace} sysctl -qw net.ipv4.ip_forward=1`)
    // The peer sends to its own address on the other cable by way of the host, which passes it on.
    const packet = Buffer.from(frame(lab, 60))
    packet.writeUInt16BE(0x0800, 12)
    packet.set(ip4Header({ bytes: 46, protocol: 253, from: peer.eth0.ipv4, to: '198.51.100.9' }), 14)
    ip(`-n ${host.namespace} neighbour replace 198.51.100.9 lladdr ${peer.mgmt0.mac} dev mgmt0 nud permanent`)
    send(peer, [packet])
    const ways = (await samples(driver, 2)).map(sample => [sample.inputIfIndex, sample.outputIfIndex])
    assert.deepEqual(ways, [
      [ifIndex, 0],
      [ifIndex, out],
    ])
  })

  test('of a frame for another station did not end here', async t => {
    const { lab, driver, ifIndex } = await sampling(t, {})
    const sent = frame(lab, 100)
    sent.set([0x02, 0, 0, 0, 0, 0x99])
    send(lab.peer, [sent])
    const [sample] = await samples(driver, 1)
    assert.deepEqual([sample!.inputIfIndex, sample!.outputIfIndex], [ifIndex, 0])
  })

  const HEADERS: { name: string; bytes: number; tags?: number[]; headerBytes: number }[] = [
    { name: 'no payload', bytes: 14, headerBytes: 128 },
    { name: 'one octet', bytes: 15, headerBytes: 128 },
    { name: 'one octet less than is taken', bytes: 127, headerBytes: 128 },
    { name: 'as many octets as are taken', bytes: 128, headerBytes: 128 },
    { name: 'a full frame', bytes: 1514, headerBytes: 128 },
    { name: 'a VLAN tag', bytes: 200, tags: [0x8100_6064], headerBytes: 128 },
    { name: 'a VLAN tag and hardly more', bytes: 20, tags: [0x8100_0001], headerBytes: 128 },
    { name: 'a VLAN tag and as many octets as are taken', bytes: 128, tags: [0x8100_0001], headerBytes: 128 },
    { name: 'two VLAN tags', bytes: 400, tags: [0x88a8_0064, 0x8100_0065], headerBytes: 128 },
    { name: 'the longest header', bytes: 1000, tags: [0x8100_0001], headerBytes: 256 },
    { name: 'a short header', bytes: 1000, headerBytes: 14 },
    { name: 'one octet of a header', bytes: 1000, tags: [0x8100_0001], headerBytes: 1 },
    { name: 'a header that ends inside the tag', bytes: 1000, tags: [0x8100_0fff], headerBytes: 15 },
  ]
  for (const headerBytes of new Set(HEADERS.map(row => row.headerBytes))) {
    test(`has the frame as it was on the wire, up to ${headerBytes} octets`, async t => {
      const { lab, driver } = await sampling(t, {}, { headerBytes })
      const rows = HEADERS.filter(row => row.headerBytes === headerBytes)
      const sent = rows.map(({ bytes, tags }) => frame(lab, bytes, 0, tags))
      send(lab.peer, sent)
      const got = await samples(driver, rows.length)
      for (const [i, { name, bytes }] of rows.entries()) {
        await t.test(name, () => {
          assert.deepEqual(got[i]!.header, Buffer.from(sent[i]!.subarray(0, headerBytes)))
          assert.equal(got[i]!.frameLength, bytes + 4)
        })
      }
    })
  }

  test('of a large packet is one of its segments, and the pool counts them all', async t => {
    const { lab, driver, ifIndex } = await sampling(t, {})
    const { host, peer } = lab
    const HEADERS_BYTES = 54
    const payload = 5 * 1000 + 500
    const packet = Buffer.alloc(10 + HEADERS_BYTES + payload)
    // struct virtio_net_hdr: checksum wanted, TCPv4, header length, segment size, checksum from, checksum at.
    packet.set([1, 1])
    packet.writeUInt16LE(HEADERS_BYTES, 2)
    packet.writeUInt16LE(1000, 4)
    packet.writeUInt16LE(34, 6)
    packet.writeUInt16LE(16, 8)
    packet.write(peer.eth0.mac.replaceAll(':', ''), 10, 'hex')
    packet.write(host.eth0.mac.replaceAll(':', ''), 16, 'hex')
    packet.writeUInt16BE(0x0800, 22)
    packet.set(ip4Header({ bytes: 40 + payload, protocol: 6, from: host.eth0.ipv4, to: peer.eth0.ipv4 }), 24)
    // TCP without options, RST: nobody answers.
    packet.set([0x50, 0x04], 24 + 20 + 12)
    send(host, [packet], 1, [PACKET_VNET_HDR])
    const lengths = (await samples(driver, 6)).map(({ frameLength }) => frameLength)
    assert.deepEqual(lengths, [...Array(5).fill(HEADERS_BYTES + 1000 + 4), HEADERS_BYTES + 500 + 4])
    await driver.call('poll')
    assert.deepEqual(await driver.call('counts', ifIndex), { packets: 6, chosen: 6, lost: 0 })
  })
})

describe('counting', () => {
  test('sampling is fair, and nothing is lost uncounted: a million packets of ten flows in turn', async t => {
    const PACKETS = 1_000_000
    const RATE = 10
    const { lab, driver, ifIndex } = await sampling(t, { rate: RATE })
    const flows = Array.from({ length: 10 }, (_, octet) => frame(lab, 60, octet))
    const before = linkCounts(lab.host.namespace, 'eth0')
    send(lab.peer, flows, PACKETS)
    const after = linkCounts(lab.host.namespace, 'eth0')
    assert.equal(after.rxPackets - before.rxPackets, PACKETS)
    await driver.call('poll')
    const counts = (await driver.call('counts', ifIndex))!
    assert.equal(counts.packets, PACKETS)
    assert.deepEqual(await driver.call('pools'), { [ifIndex]: PACKETS })
    const { delivered, byOctet } = await driver.call('tally')
    await until(
      'every sample',
      async () => (await driver.call('tally')).delivered === counts.chosen - counts.lost,
    )
    assert.deepEqual(counts.lost, (await driver.call('losses'))['ring-full'])
    assert.ok(delivered > 0)
    // Five standard deviations of a binomial distribution: one run in a million is outside.
    const deviation = (packets: number) => 5 * Math.sqrt(packets * (1 / RATE) * (1 - 1 / RATE))
    assert.ok(Math.abs(counts.chosen - PACKETS / RATE) < deviation(PACKETS), `${counts.chosen} chosen`)
    if (counts.lost > 0) return
    for (const [octet, count] of byOctet.entries()) {
      assert.ok(Math.abs(count - PACKETS / 100) < deviation(PACKETS / 10), `flow ${octet}: ${count}`)
    }
  })

  test('pools are told of packets when their samples have been delivered', async t => {
    const { lab, driver } = await sampling(t, {})
    const standstill = driver.call('blockAndPoll', 500)
    send(lab.peer, [frame(lab, 60)], 1000)
    assert.equal(await standstill, 0)
    assert.deepEqual(Object.values(await driver.call('pools')), [1000])
  })

  test('a full ring: chosen = delivered + lost, and the samples behind tell of it', async t => {
    const PACKETS = 40_000
    const { lab, driver, ifIndex } = await sampling(t, {})
    const standstill = driver.call('block', 1500)
    send(lab.peer, [frame(lab, 60)], PACKETS)
    await standstill
    await driver.call('poll')
    const { chosen, lost } = (await driver.call('counts', ifIndex))!
    assert.equal(chosen, PACKETS)
    // A slow sender is still at it when the reader goes on.
    assert.ok(lost > 0, `only ${lost} lost`)
    await samples(driver, PACKETS - lost)
    send(lab.peer, [frame(lab, 60)])
    await samples(driver, PACKETS - lost + 1)
    const { delivered, told } = await driver.call('tally')
    assert.deepEqual({ delivered, told }, { delivered: PACKETS - lost + 1, told: lost })
    assert.equal((await driver.call('losses'))['ring-full'], lost)
  })

  test('the ring has room for more samples when they are to have short headers', async t => {
    const HEADER_BYTES = 20
    // What goes before a header, with two words for a tag and two for the record; and the bytes of the ring.
    const PACKETS = Math.floor((4 << 20) / (72 + 16 + 24 + 8)) - 100
    const { lab, driver, ifIndex } = await sampling(t, {}, { headerBytes: HEADER_BYTES })
    const standstill = driver.call('block', 1500)
    send(lab.peer, [frame(lab, 60)], PACKETS)
    await standstill
    await samples(driver, PACKETS)
    await driver.call('poll')
    assert.deepEqual(await driver.call('counts', ifIndex), { packets: PACKETS, chosen: PACKETS, lost: 0 })
  })

  test('a sample that comes after a pause wakes the reader', async t => {
    const { lab, driver } = await sampling(t, {})
    for (let count = 1; count <= 3; count++) {
      // Longer than the reader looks by itself.
      await new Promise(resolve => setTimeout(resolve, 300))
      send(lab.peer, [frame(lab, 60)])
      await samples(driver, count)
    }
  })
})

describe('while the programs run', () => {
  test('rates and directions change', async t => {
    const { lab, driver, ifIndex } = await sampling(t, { rate: 2 ** 31 })
    const expectSamples = async (expected: number) => {
      const { delivered } = await driver.call('tally')
      send(lab.peer, [frame(lab, 60)], 5)
      send(lab.host, [frame(lab, 60)], 3)
      await driver.call('setRate', ifIndex, 1)
      send(lab.host, [frame(lab, 60)])
      assert.equal((await samples(driver, delivered + expected + 1)).length, delivered + expected + 1)
    }
    await expectSamples(0)
    await expectSamples(8)
    await driver.call('setRate', ifIndex, 1, 0)
    await expectSamples(5)
    await driver.call('setRate', ifIndex, 0, 1)
    await expectSamples(3)
    const rates = (await driver.call('seen')).map(sample => sample.samplingRate)
    assert.deepEqual(new Set(rates), new Set([1]))
  })

  test('an interface is deleted and another one comes with its ifIndex', async t => {
    const { lab, driver } = await sampling(t, {})
    const { namespace } = lab.host
    const INDEX = 77
    const plugIn = async () => {
      ip(
        `-n ${namespace} link add late0 index ${INDEX} type veth peer name late0 netns ${lab.peer.namespace}`,
      )
      for (const station of [lab.host, lab.peer])
        ip(`-n ${station.namespace} link set late0 addrgenmode none up`)
      await driver.call('add', { ...ordinary(INDEX), name: 'late0' })
    }
    const expectSample = async () => {
      const { delivered } = await driver.call('tally')
      const eth0 = { ...lab.peer.eth0, ifIndex: ifIndexOf(lab.peer.namespace, 'late0') }
      send({ ...lab.peer, eth0 }, [frame(lab, 60)])
      assert.equal((await samples(driver, delivered + 1)).at(-1)!.dataSource, INDEX)
    }
    await plugIn()
    await expectSample()
    ip(`-n ${namespace} link del late0`)
    await driver.call('poll')
    const removed = driver.call('remove', INDEX)
    await plugIn()
    await removed
    await expectSample()
    await driver.call('stop')
  })

  test('interfaces that share a slot are told apart', async t => {
    const { lab, driver, ifIndex } = await sampling(t, {})
    const twin = ifIndex + 1024
    ip(
      `-n ${lab.host.namespace} link add late0 index ${twin} type veth peer name late0 netns ${lab.peer.namespace}`,
    )
    for (const { namespace } of [lab.host, lab.peer]) ip(`-n ${namespace} link set late0 addrgenmode none up`)
    await driver.call('add', { ...ordinary(twin), name: 'late0', rate: 2 ** 31 })
    const eth0 = { ...lab.peer.eth0, ifIndex: ifIndexOf(lab.peer.namespace, 'late0') }
    send({ ...lab.peer, eth0 }, [frame(lab, 60)], 7)
    send(lab.peer, [frame(lab, 60)], 5)
    await samples(driver, 5)
    await driver.call('poll')
    assert.deepEqual(await driver.call('counts', twin), { packets: 7, chosen: 0, lost: 0 })
    assert.deepEqual(await driver.call('counts', ifIndex), { packets: 5, chosen: 5, lost: 0 })
    await driver.call('remove', ifIndex)
    send({ ...lab.peer, eth0 }, [frame(lab, 60)], 3)
    await driver.call('poll')
    assert.deepEqual(await driver.call('counts', twin), { packets: 10, chosen: 0, lost: 0 })
  })

  test('an interface that does not exist is refused, and nothing is left of it', async t => {
    const { driver } = await sampling(t, {})
    await assert.rejects(driver.call('add', ordinary(4000)), { code: 'ENODEV' })
    assert.equal(await driver.call('counts', 4000), undefined)
  })

  test('an interface for which the maps have no room is refused, and nothing is left of it', async t => {
    const lab = makeLab(t)
    const driver = await BpfDriver.start(t, lab.host.namespace)
    await driver.call('fillRates')
    const { ifIndex } = lab.host.eth0
    await assert.rejects(driver.call('add', { ...ordinary(ifIndex), promiscuous: true }), { code: 'E2BIG' })
    assert.equal(await driver.call('counts', ifIndex), undefined)
    assert.equal(promiscuity(lab), '0')
    assert.equal(attached(lab), '')
    await driver.call('stop')
  })

  test('another agent, started before or after, takes nothing away', async t => {
    const { lab, driver, ifIndex } = await sampling(t, {})
    const other = await BpfDriver.start(t, lab.host.namespace, { instance: 1 })
    await other.call('add', ordinary(ifIndex))
    send(lab.peer, [frame(lab, 60)], 5)
    await samples(driver, 5)
    await samples(other, 5)
    await other.call('stop')
    send(lab.peer, [frame(lab, 60)], 5)
    await samples(driver, 10)
  })

  test('promiscuous as long as it is sampled', async t => {
    const { lab, driver, ifIndex } = await sampling(t, { promiscuous: true })
    assert.equal(promiscuity(lab), '1')
    await driver.call('remove', ifIndex)
    assert.equal(promiscuity(lab), '0')
  })
})

describe('the end', () => {
  test('stop() leaves nothing on the interface, and delivers what was chosen', async t => {
    const { lab, driver } = await sampling(t, {})
    send(lab.peer, [frame(lab, 60)], 100)
    await driver.call('stop')
    assert.equal((await driver.call('tally')).delivered, 100)
    assert.equal(attached(lab), '')
  })

  test('a killed agent: what it left is replaced by the next one, and removed with it', async t => {
    const { lab, driver, ifIndex } = await sampling(t, {})
    driver.kill()
    const next = await BpfDriver.start(t, lab.host.namespace)
    await next.call('add', ordinary(ifIndex))
    send(lab.peer, [frame(lab, 60)])
    await samples(next, 1)
    await next.call('stop')
    await until('nothing', () => attached(lab) === '')
  })
})

describe('a clsact of others', () => {
  const byOthers = ({ host }: Lab, ...commands: string[]) => {
    const text = commands.map(command => `${command}\\n`).join('')
    run('ip', 'netns', 'exec', host.namespace, 'sh', '-c', `printf '${text}' | tc -b -`)
  }
  const ADD = 'qdisc add dev eth0 clsact'
  const DELETE = 'qdisc del dev eth0 clsact'

  test('stays when a killed agent is cleaned up after', async t => {
    const lab = makeLab(t)
    byOthers(lab, ADD)
    const empty = attached(lab)
    assert.match(empty, /clsact/)
    const { ifIndex } = lab.host.eth0
    const driver = await BpfDriver.start(t, lab.host.namespace)
    await driver.call('add', ordinary(ifIndex))
    driver.kill()
    const next = await BpfDriver.start(t, lab.host.namespace)
    await next.call('add', ordinary(ifIndex))
    await next.call('stop')
    await until('no program', () => attached(lab) === empty)
  })

  test('takes the programs with it when it goes, and they come back', async t => {
    if (kernelAtLeast(6, 6)) return t.skip('programs by TCX have nothing to do with it')
    const { lab, driver } = await sampling(t, {})
    const putBack = async (times: number) => {
      await until('repair', async () => (await driver.call('repairs')).length >= times)
      send(lab.peer, [frame(lab, 60)], 5)
      send(lab.host, [frame(lab, 60)], 5)
      await samples(driver, 10 * times)
      assert.deepEqual(await driver.call('repairs'), new Array<string>(times).fill('put back'))
    }
    byOthers(lab, DELETE)
    await putBack(1)
    byOthers(lab, 'filter del dev eth0 egress')
    await putBack(2)
    // The one that is there now is not the one that we made.
    byOthers(lab, DELETE, ADD)
    await putBack(3)
    await driver.call('stop')
    assert.match(attached(lab), /^qdisc clsact ffff: \S+ ffff:fff1 ?$/)
  })
})

test('the agent tells of programs that others have removed, and counts them', async t => {
  if (kernelAtLeast(6, 6)) return t.skip('programs by TCX have nothing to do with a clsact')
  const lab = makeLab(t)
  const { namespace } = lab.host
  const file = join(lab.folder, 'weir.conf')
  const control = join(lab.folder, 'control.sock')
  const write = (rate: number) =>
    writeFileSync(
      file,
      `sFlow { collector { ip = ${lab.peer.mgmt0.ipv4} } pcap { dev = eth0 sampling = ${rate} } }`,
    )
  write(1)
  const inside = ['ip', 'netns', 'exec', namespace]
  const agent = runWeir(t, inside, ['run', '-f', file, '--control', control])
  await agent.line(/^eth0 is sampled 1 in 1 by BPF$/)
  const tc = (text: string) => ip(`netns exec ${namespace} tc qdisc ${text}`)
  tc('del dev eth0 clsact')
  const { repairs } = await agent.line(/^the BPF programs of eth0 were removed by others: put back$/)
  assert.equal(repairs, 1)

  // An ingress qdisc is in the way: the programs are missing at any rate, and come back when it has gone.
  const before = agent.log.length
  run(
    'ip',
    ...inside.slice(1),
    'sh',
    '-c',
    "printf 'qdisc del dev eth0 clsact\\nqdisc add dev eth0 ingress\\n' | tc -b -",
  )
  await agent.line(/^eth0 is not sampled, its programs were removed by others: add clsact: /, before)
  write(2)
  agent.child.kill('SIGHUP')
  await agent.line(/^eth0 is to be sampled 1 in 2: add clsact: /, before)
  const status = async () => {
    const command = runWeir(t, [], ['status', '--json', '--socket', control])
    await command.ended
    return (JSON.parse(command.stdout) as { interfaces: { problem: string | null; rate: number }[] })
      .interfaces
  }
  const [missing] = await status()
  assert.match(missing!.problem!, /^add clsact: /)
  assert.equal(missing!.rate, 2)
  tc('del dev eth0 ingress')
  await agent.line(/^the BPF programs of eth0 were removed by others: put back$/, before)
  assert.equal((await status())[0]!.problem, null)
  assert.equal((await agent.stop()).exit, 0)
  assert.equal(attached(lab), '')
})

test('records of another version are counted, and nothing is made of them', async t => {
  if (inGuest)
    return t.skip('it is not the kernel that is tested, and to compile takes long on an emulated machine')
  const lab = makeLab(t)
  const bpf = join(import.meta.dirname, '../../bpf')
  for (const file of readdirSync(bpf)) copyFileSync(join(bpf, file), join(lab.folder, file))
  const header = readFileSync(join(bpf, 'events.h'), 'utf8')
  writeFileSync(join(lab.folder, 'events.h'), header.replace('(HEADER_MOST + 16)', '(HEADER_MOST + 32)'))
  const object = join(lab.folder, 'other.o')
  const libbpf = run('sh', join(import.meta.dirname, '../../packaging/libbpf.sh')).trim()
  const machine = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
  const include = [`-I${libbpf}/include`, '-idirafter', `/usr/include/${machine}-linux-gnu`]
  const options = ['-target', 'bpf', '-mcpu=v3', '-O2', '-g', ...include]
  run('clang-14', ...options, '-c', '-o', object, join(lab.folder, 'sample.bpf.c'))
  // In the place of ours, for the driver alone.
  const mount = `mount --bind ${object} ${builtFile('bpf/sample.bpf.o')} && exec "$@"`
  const driver = await BpfDriver.start(t, lab.host.namespace, {
    under: ['unshare', '-m', 'sh', '-c', mount, 'sh'],
  })
  const { ifIndex } = lab.host.eth0
  await driver.call('add', ordinary(ifIndex))
  send(lab.peer, [frame(lab, 60)], 5)
  await until('the records', async () => (await driver.call('losses'))['unknown-record'] === 5)
  assert.equal((await driver.call('tally')).delivered, 0)
})

test('without permission it says what is needed', async t => {
  const lab = makeLab(t)
  const under = ['setpriv', '--bounding-set=-sys_admin,-bpf', '--inh-caps=-sys_admin,-bpf']
  await assert.rejects(BpfDriver.start(t, lab.host.namespace, { under }), {
    code: 'EPERM',
    message:
      'load bpf/sample.bpf.o: EPERM (operation not permitted): needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN',
  })
})

test('what was loaded is given back when the kernel refuses a trace point', async t => {
  const programs = () =>
    readdirSync('/proc/self/fd').filter(descriptor => {
      try {
        return /^prog_id:/m.test(readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'))
      } catch {
        // That of the folder itself, which is closed again.
        return false
      }
    })
  const { attachTracing } = BpfObject.prototype
  let loaded = 0
  t.mock.method(BpfObject.prototype, 'attachTracing', function (this: BpfObject, program: string) {
    if (program === 'weir_queue') return attachTracing.call(this, program)
    loaded = programs().length
    return Promise.reject(new Error('refused'))
  })
  const ignore = () => undefined
  const open = BpfSamples.open({
    ledger: new Ledger(),
    sink: ignore,
    onBatchEnd: ignore,
    onCounted: ignore,
    headerBytes: 128,
    transit: true,
    names: { reason: ignore, symbol: ignore },
    onDrop: ignore,
    onRepair: ignore,
    instance: 1,
  })
  await assert.rejects(open, { message: 'refused' })
  assert.ok(loaded > 0)
  assert.deepEqual(programs(), [])
})

function promiscuity({ host }: Lab): string {
  return /promiscuity (\d+)/.exec(ip(`-n ${host.namespace} -d link show eth0`))![1]!
}

/** What is at the tc hooks of the host's eth0, whether it came there by TCX or by clsact. */
function attached({ host }: Lab): string {
  const tc = (what: string) => ip(`netns exec ${host.namespace} tc ${what} show dev eth0`)
  const qdiscs = tc('qdisc')
    .split('\n')
    .filter(line => line.includes('clsact'))
  return [...qdiscs, tc('filter').trim()].join('')
}
