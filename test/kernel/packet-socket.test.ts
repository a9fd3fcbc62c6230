import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { describe, type TestContext, test } from 'node:test'
import { Ledger } from '../../agent/health/ledger.ts'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { setTimestamp } from '../../agent/kernel/packet-socket.ts'
import { AF_PACKET, packetAddress } from '../../agent/kernel/sockaddr.ts'
import { UdpSender } from '../../agent/kernel/udp-sender.ts'
import { HEADER_PROTOCOL, INTERNAL_INTERFACE, type PacketSample } from '../../agent/samples/packet-sample.ts'
import { type PacketPort, PacketSocketSource } from '../../agent/sources/packet-socket.ts'
import { type End, ip, ipBatch, makeCable, makeNamespace, until, waitForCarrier } from './namespaces.ts'

const SOCK_RAW = 3
const FCS = 4

interface Taken extends PacketSample {
  header: string
}

/** A source in the namespace of `end`, and what it delivers. */
function source(t: TestContext, end: End, receiveBytes?: number) {
  const ledger = new Ledger()
  const samples: Taken[] = []
  const packets = new PacketSocketSource({
    ledger,
    namespace: end.namespace,
    ...(receiveBytes === undefined ? {} : { receiveBytes }),
    sink: sample => {
      assert.equal(sample.headerOffset % 4, 0)
      const { buffer } = sample.headerWords
      const header = Buffer.from(buffer as ArrayBuffer, sample.headerOffset, sample.headerLength).toString(
        'hex',
      )
      samples.push({ ...sample, header })
    },
    onBatchEnd: () => {},
  })
  t.after(() => packets.stop())
  const add = (port: Partial<PacketPort> = {}) =>
    packets.add({
      headerBytes: 128,
      ifIndex: end.ifIndex,
      name: end.device,
      rate: 1,
      promiscuous: false,
      forwards: false,
      ...port,
    })
  return { ledger, samples, packets, add }
}

/** Sends frames as they are out of one end of the cable; the kernel at the other end answers none of them. */
function frameSender(t: TestContext, end: End) {
  const socket = KernelSocket.open('frames', AF_PACKET, SOCK_RAW, 0, end.namespace)
  t.after(() => socket.close())
  socket.bind(packetAddress(0, end.ifIndex), 'bind')
  return (frame: Uint8Array<ArrayBuffer>, count = 1) => {
    const spans = new Int32Array(count * 2)
    for (let i = 0; i < count; i++) spans[i * 2 + 1] = frame.length
    for (let sent = 0; sent < count; ) {
      const taken = socket.sendBatch(frame.buffer, spans, sent, count - sent)
      assert.ok(taken > 0, `${taken} frames sent`)
      sent += taken
    }
  }
}

/** An Ethernet frame of 200 bytes: addresses, then `tail`, then numbered bytes. */
function frame(to: End | string, from: End, tail: string): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from({ length: 200 }, (_, i) => i)
  const mac = typeof to === 'string' ? to : to.mac
  bytes.set(Buffer.from((mac + from.mac).replaceAll(':', '') + tail, 'hex'))
  return bytes
}

const hex = (bytes: Uint8Array, length: number) => Buffer.from(bytes.subarray(0, length)).toString('hex')

describe('both directions', () => {
  test('of an ordinary host: the other interface is the internal one', async t => {
    const [a, b] = makeCable(t)
    const { samples, packets, add } = source(t, a)
    assert.equal(add(), undefined)
    const before = BigInt(Date.now()) * 1_000_000n
    const [there, back] = [frame(b, a, '88b5'), frame(a, b, '88b5')]
    frameSender(t, a)(there, 2)
    frameSender(t, b)(back, 3)
    await until('five samples', () => samples.length >= 5)
    const sent = samples.filter(sample => sample.outputIfIndex === a.ifIndex)
    const received = samples.filter(sample => sample.inputIfIndex === a.ifIndex)
    assert.equal(sent.length, 2)
    assert.equal(received.length, 3)
    assert.ok(sent.every(sample => sample.inputIfIndex === INTERNAL_INTERFACE))
    assert.ok(received.every(sample => sample.outputIfIndex === INTERNAL_INTERFACE))
    for (const sample of samples) {
      assert.equal(sample.dataSource, a.ifIndex)
      assert.equal(sample.samplingRate, 1)
      assert.equal(sample.headerProtocol, HEADER_PROTOCOL.ethernet)
      assert.equal(sample.frameLength, 200 + FCS)
      assert.equal(sample.stripped, FCS)
      assert.equal(sample.headerLength, 128)
      assert.equal(sample.lostBefore, 0)
      const time = (BigInt(sample.timestampHigh) << 32n) | BigInt(sample.timestampLow)
      assert.ok(time >= before - 1_000_000n && time < before + 5_000_000_000n, `${time}`)
    }
    assert.ok(sent.every(sample => sample.header === hex(there, 128)))
    assert.ok(received.every(sample => sample.header === hex(back, 128)))
    assert.equal(packets.received, 5)
    assert.equal(packets.delivered, 5)
  })

  test('of one that forwards: the other interface is unknown', async t => {
    const [a, b] = makeCable(t)
    const { samples, add } = source(t, a)
    add({ forwards: true })
    frameSender(t, a)(frame(b, a, '88b5'))
    frameSender(t, b)(frame(a, b, '88b5'))
    await until('two samples', () => samples.length >= 2)
    assert.deepEqual(
      samples.map(sample => [sample.inputIfIndex, sample.outputIfIndex]),
      [
        [0, a.ifIndex],
        [a.ifIndex, 0],
      ],
    )
  })

  test('what is addressed to another station did not end here', async t => {
    const [a, b] = makeCable(t)
    const { samples, add } = source(t, a)
    add({ promiscuous: true })
    const details = ip('-n', a.namespace, '-details', 'link', 'show', a.device)
    assert.match(details, /promiscuity 1/)
    frameSender(t, b)(frame('02:00:00:00:00:77', b, '0800'))
    await until('sample', () => samples.length === 1)
    assert.deepEqual([samples[0]!.inputIfIndex, samples[0]!.outputIfIndex], [a.ifIndex, 0])
  })

  test('a short packet is given as it is', async t => {
    const [a, b] = makeCable(t)
    const { samples, add } = source(t, a)
    add()
    const short = frame(a, b, '88b5').slice(0, 60)
    frameSender(t, b)(short)
    await until('sample', () => samples.length === 1)
    assert.equal(samples[0]!.header, hex(short, 60))
    assert.equal(samples[0]!.frameLength, 60 + FCS)
  })
})

describe('VLAN tags', () => {
  const tags: [string, string][] = [
    ['802.1Q', '8100e064'],
    ['802.1Q with priority and id 0', '81000000'],
    ['802.1ad', '88a80fff'],
    ['802.1ad with 802.1Q inside', '88a8006481000065'],
  ]
  for (const [name, tag] of tags) {
    test(`${name}: both ends see the frame as it was on the cable`, async t => {
      const [a, b] = makeCable(t)
      const here = source(t, a)
      const there = source(t, b)
      here.add()
      there.add()
      const tagged = frame(b, a, `${tag}0800`)
      frameSender(t, a)(tagged)
      await until('samples', () => here.samples.length + there.samples.length === 2)
      for (const [sample] of [here.samples, there.samples]) {
        assert.equal(sample!.header.slice(0, 256), hex(tagged, 128))
        assert.equal(sample!.frameLength, 200 + FCS)
        assert.equal(sample!.stripped, FCS)
      }
      // The receiving kernel had taken the outer tag out: what it gave of the packet was without it.
      assert.equal(there.samples[0]!.headerLength, 132)
    })
  }
})

describe('packets without a link header', () => {
  /** A tun device with a program at its other end, which perl plays: every Debian has it. */
  async function makeTunnel(t: TestContext): Promise<End> {
    const namespace = makeNamespace(t)
    const attach =
      '$request = pack("a16s", "tun0", 0x1001); $| = 1;' +
      'open(TUN, "+<", "/dev/net/tun") && ioctl(TUN, 0x400454ca, $request) || die $!; print 1; sleep'
    const program = spawn('ip', ['netns', 'exec', namespace, 'perl', '-e', attach], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    t.after(() => program.kill())
    await new Promise((resolve, reject) => {
      program.stdout.once('data', resolve)
      program.once('exit', () => reject(new Error('no tun device')))
    })
    ipBatch(namespace, [
      'link set tun0 addrgenmode none',
      'link set tun0 up',
      'address add 192.0.2.1/24 dev tun0',
      'address add 2001:db8::1/64 dev tun0 nodad',
    ])
    const ifIndex = Number(/^(\d+):/.exec(ip('-n', namespace, '-o', 'link', 'show', 'tun0'))![1])
    return { namespace, device: 'tun0', ifIndex, mac: '', ipv4: '192.0.2.1' }
  }

  for (const [address, headerProtocol, headers] of [
    ['192.0.2.2', HEADER_PROTOCOL.ipv4, 28],
    ['2001:db8::2', HEADER_PROTOCOL.ipv6, 48],
  ] as const) {
    test(`${address}: bare IP`, async t => {
      const tunnel = await makeTunnel(t)
      const { samples, add } = source(t, tunnel)
      add()
      const sender = UdpSender.open({ address, port: 9, namespace: tunnel.namespace })
      t.after(() => sender.close())
      sender.send(new ArrayBuffer(300), Int32Array.of(0, 300), 1)
      const mine = () => samples.find(sample => sample.frameLength === headers + 300)
      await until('sample', () => mine() !== undefined)
      const { stripped, headerLength, header, ...sample } = mine()!
      assert.equal(sample.headerProtocol, headerProtocol)
      assert.deepEqual([stripped, headerLength], [0, 128])
      assert.equal(header[0], headers === 28 ? '4' : '6')
    })
  }
})

describe('rate', () => {
  test('1 in 10 is near a tenth', async t => {
    const [a, b] = makeCable(t)
    const { samples, packets, add } = source(t, b)
    add({ rate: 10 })
    const send = frameSender(t, a)
    for (let i = 0; i < 20; i++) {
      send(frame(b, a, '88b5'), 1000)
      await new Promise(setImmediate)
    }
    await until('samples', () => samples.length > 1500)
    packets.poll()
    assert.ok(samples.every(sample => sample.samplingRate === 10))
    // The standard deviation is 42.
    assert.ok(samples.length > 1700 && samples.length < 2300, `${samples.length}`)
  })

  test('changed: each sample carries the rate by which it was picked', async t => {
    const [a, b] = makeCable(t)
    const { samples, packets, add } = source(t, b)
    add({ rate: 1 })
    const sendFrames = frameSender(t, a)
    const send = (count: number) => sendFrames(frame(b, a, '88b5'), count)
    send(50)
    // The clock that tells old from new has steps of a millisecond.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    packets.setRate(b.ifIndex, 2)
    send(2000)
    await until('samples', () => samples.length > 50 + 800)
    packets.setRate(b.ifIndex, 1)
    send(50)
    const rates = () => samples.map(sample => sample.samplingRate)
    await until('samples', () => rates().filter(rate => rate === 1).length === 100)
    assert.equal(rates().lastIndexOf(1, 50), 49)
    const ofTwo = rates().filter(rate => rate === 2).length
    // The standard deviation is 22.
    assert.ok(ofTwo > 840 && ofTwo < 1160, `${ofTwo}`)
  })
})

describe('loss', () => {
  test('each packet is a sample or a counted drop, and the next sample tells of the drops', async t => {
    const [a, b] = makeCable(t)
    const { ledger, samples, packets, add } = source(t, b, 50_000)
    add()
    const send = frameSender(t, a)
    send(frame(b, a, '88b5'), 2000)
    packets.poll()
    const lost = ledger.total('packet-socket')
    assert.ok(lost > 0)
    await until('samples', () => samples.length + lost === 2000)
    send(frame(b, a, '88b5'))
    await until('one more', () => samples.length + lost === 2001)
    packets.poll()
    assert.equal(ledger.total('packet-socket'), lost)
    assert.equal(
      samples.reduce((sum, sample) => sum + sample.lostBefore, 0),
      lost,
    )
  })

  test('an interface that goes down and comes up is sampled on', async t => {
    const [a, b] = makeCable(t)
    const { samples, add } = source(t, b)
    add()
    ip('-n', b.namespace, 'link', 'set', b.device, 'down')
    await new Promise(resolve => setTimeout(resolve, 20))
    ip('-n', b.namespace, 'link', 'set', b.device, 'up')
    for (const end of [a, b]) waitForCarrier(end)
    frameSender(t, a)(frame(b, a, '88b5'))
    await until('sample', () => samples.length === 1)
  })

  test('a removed interface gives no samples, and may be removed again', async t => {
    const [a, b] = makeCable(t)
    const { samples, packets, add } = source(t, b)
    add()
    packets.remove(b.ifIndex)
    packets.remove(b.ifIndex)
    frameSender(t, a)(frame(b, a, '88b5'))
    await new Promise(resolve => setTimeout(resolve, 20))
    assert.equal(samples.length, 0)
  })

  test('an interface that does not exist is an error that says so', t => {
    const { add } = source(t, {
      namespace: makeNamespace(t),
      device: 'eth9',
      ifIndex: 999,
      mac: '',
      ipv4: '',
    })
    assert.throws(() => add(), { name: 'SystemError', message: /^listen on eth9: ENODEV/ })
  })
})

describe('time stamps', () => {
  for (const [seconds, nanoseconds] of [
    [0, 0],
    [1, 999_999_999],
    [1_795_262_400, 123_456_789],
    [4_294_967_295, 999_999_999],
  ] as const) {
    test(`${seconds}.${nanoseconds} s as two words`, () => {
      const target = { timestampHigh: 0, timestampLow: 0 }
      setTimestamp(target, seconds, nanoseconds)
      const total = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds)
      assert.deepEqual(target, {
        timestampHigh: Number(total >> 32n),
        timestampLow: Number(total & 0xffff_ffffn),
      })
    })
  }
})
