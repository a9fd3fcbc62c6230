import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { describe, type TestContext, test } from 'node:test'
import { KernelSocket, META } from '../../agent/kernel/native.ts'
import { AF_INET, internetAddress } from '../../agent/kernel/sockaddr.ts'
import { UdpSender, type UdpTarget } from '../../agent/kernel/udp-sender.ts'
import { ip, makeCable, makeNamespace, until } from './namespaces.ts'

const SOCK_DGRAM = 2

function open(t: TestContext, target: UdpTarget): UdpSender {
  const sender = UdpSender.open(target)
  t.after(() => sender.close())
  return sender
}

/** `count` datagrams of `bytes` bytes; each begins with its number. */
function datagrams(count: number, bytes: number) {
  const memory = new ArrayBuffer(count * bytes)
  const spans = new Int32Array(count * 2)
  for (let i = 0; i < count; i++) {
    new DataView(memory).setUint32(i * bytes, i)
    spans[i * 2] = i * bytes
    spans[i * 2 + 1] = bytes
  }
  return { memory, spans }
}

const sum = (counts: ReadonlyMap<string, number>) => [...counts.values()].reduce((a, b) => a + b, 0)

describe('a batch', () => {
  for (const [family, address] of [
    ['udp4', '127.0.0.1'],
    ['udp6', '::1'],
  ] as const) {
    test(`of more datagrams than one call of the kernel takes arrives, ${family}`, async t => {
      const receiver = createSocket({ type: family, recvBufferSize: 1 << 20 })
      t.after(() => receiver.close())
      const seen: number[] = []
      receiver.on('message', data => seen.push(data.readUInt32BE(0)))
      receiver.bind(0, address)
      await once(receiver, 'listening')
      const sender = open(t, { address, port: receiver.address().port })
      const { memory, spans } = datagrams(150, 100)
      assert.equal(sender.send(memory, spans, 150), 150)
      await until('datagrams', () => seen.length === 150)
      assert.deepEqual(
        seen,
        Array.from({ length: 150 }, (_, i) => i),
      )
      assert.deepEqual([sender.datagrams, sender.bytes, sum(sender.errors)], [150, 15_000, 0])
    })
  }

  test('goes on behind a datagram that is too long', t => {
    const sender = open(t, { address: '127.0.0.1', port: 9 })
    const spans = Int32Array.of(0, 100, 0, 65_600, 0, 100)
    assert.equal(sender.send(new ArrayBuffer(70_000), spans, 3), 2)
    assert.deepEqual([...sender.errors], [['EMSGSIZE', 1]])
    assert.equal(sender.bytes, 200)
  })

  test('outside its memory is refused', t => {
    const sender = open(t, { address: '127.0.0.1', port: 9 })
    const memory = new ArrayBuffer(100)
    for (const spans of [
      Int32Array.of(0, 101),
      Int32Array.of(-1, 10),
      Int32Array.of(100, 1),
      Int32Array.of(0, -1),
    ]) {
      assert.equal(sender.send(memory, spans, 1), 0)
    }
    assert.equal(sender.send(memory, Int32Array.of(0, 10), 2), 0)
    assert.deepEqual(
      [...sender.errors],
      [
        ['EFAULT', 4],
        ['EINVAL', 2],
      ],
    )
  })
})

describe('a receiver out of reach', () => {
  test('nobody listens: every datagram is sent, and the reports are counted', async t => {
    const sender = open(t, { address: '127.0.0.1', port: 9 })
    const { memory, spans } = datagrams(10, 100)
    for (let i = 0; i < 5; i++) assert.equal(sender.send(memory, spans, 10), 10)
    assert.equal(sender.datagrams, 50)
    assert.equal(sum(sender.errors), 0)
    assert.ok((sender.reports.get('ECONNREFUSED') ?? 0) >= 4)
  })

  for (const [family, own, address] of [
    ['IPv4', '198.51.100.1/24', '198.51.100.77'],
    ['IPv6', 'fd00:77::1/64', 'fd00:77::77'],
  ] as const) {
    test(`no neighbour has the address: it is reported, and the datagrams count as sent, ${family}`, async t => {
      const [a] = makeCable(t)
      ip('-n', a.namespace, 'address', 'add', own, 'dev', a.device, ...(family === 'IPv6' ? ['nodad'] : []))
      const sender = open(t, { address, port: 6343, namespace: a.namespace })
      const { memory, spans } = datagrams(3, 100)
      let sent = 0
      await until('report', () => {
        sent += sender.send(memory, spans, 3)
        return sender.reports.has('EHOSTUNREACH')
      })
      assert.deepEqual([sender.datagrams, sum(sender.errors)], [sent, 0])
    })
  }

  test('no route any more: each datagram is counted, nothing throws', t => {
    const [a, b] = makeCable(t)
    const sender = open(t, { address: b.ipv4, port: 6343, namespace: a.namespace })
    const { memory, spans } = datagrams(10, 100)
    assert.equal(sender.send(memory, spans, 10), 10)
    ip('-n', a.namespace, 'link', 'set', a.device, 'down')
    assert.equal(sender.send(memory, spans, 10), 0)
    assert.equal(sum(sender.errors), 10)
    ip('-n', a.namespace, 'link', 'set', a.device, 'up')
    assert.equal(sender.send(memory, spans, 10), 10)
    assert.equal(sender.datagrams, 20)
  })

  test('the buffer is full: what does not fit is counted, and not waited for', async t => {
    const [a, b] = makeCable(t)
    // A queue that lets through a packet every few seconds holds the datagrams in the socket's buffer.
    ip(
      'netns',
      'exec',
      a.namespace,
      'tc',
      'qdisc',
      'add',
      'dev',
      a.device,
      'root',
      'tbf',
      'rate',
      '8kbit',
      'burst',
      '2000',
      'limit',
      '10000000',
    )
    const sender = open(t, { address: b.ipv4, port: 6343, namespace: a.namespace, sendBytes: 20_000 })
    const { memory, spans } = datagrams(64, 1000)
    const sent = sender.send(memory, spans, 64)
    assert.ok(sent > 0 && sent < 64, `${sent} of 64 sent`)
    assert.deepEqual([...sender.errors], [['EAGAIN', 64 - sent]])
  })

  test('closed: counted, and closing again does nothing', () => {
    const sender = UdpSender.open({ address: '127.0.0.1', port: 9 })
    sender.onClose = () => {
      throw new Error('told of it')
    }
    assert.throws(() => sender.close(), /told of it/)
    const { memory, spans } = datagrams(3, 100)
    assert.equal(sender.send(memory, spans, 3), 0)
    assert.deepEqual([...sender.errors], [['EBADF', 3]])
    sender.onClose = undefined
    sender.close()
  })
})

describe('through a device', () => {
  test('and in a namespace', async t => {
    const [a, b] = makeCable(t)
    const sender = open(t, { address: b.ipv4, port: 6343, namespace: a.namespace, device: a.device })
    const { memory, spans } = datagrams(7, 100)
    assert.equal(sender.send(memory, spans, 7), 7)
    const received = () =>
      Number(ip('netns', 'exec', b.namespace, 'cat', `/sys/class/net/${b.device}/statistics/rx_packets`))
    await until('packets at the other end', () => received() === 7)
  })

  test('the zone of a link-local address names it', t => {
    const namespace = makeNamespace(t)
    ip('-n', namespace, 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1')
    for (const device of ['v0', 'v1']) ip('-n', namespace, 'link', 'set', device, 'up')
    ip('-n', namespace, 'address', 'add', 'fe80::1/64', 'dev', 'v0', 'nodad')
    const sender = open(t, { address: 'fe80::2%v0', port: 6343, namespace })
    const { memory, spans } = datagrams(1, 100)
    assert.equal(sender.send(memory, spans, 1), 1)
  })

  const wrong: [string, UdpTarget, RegExp][] = [
    ['no such device', { address: '127.0.0.1', port: 9, device: 'nothing' }, /^send through nothing: ENODEV/],
    [
      'not an address',
      { address: 'localhost', port: 9 },
      /^send to localhost port 9: EINVAL .*: not a numeric address/,
    ],
    [
      'no such namespace',
      { address: '127.0.0.1', port: 9, namespace: 'weir-n-nothing' },
      /^open network namespace .*weir-n-nothing: ENOENT/,
    ],
    ['no route', { address: 'fe80::2', port: 9 }, /^connect to fe80::2 port 9: (EINVAL|ENETUNREACH)/],
  ]
  for (const [name, target, message] of wrong) {
    test(`${name} is an error that says so`, () => {
      assert.throws(() => UdpSender.open(target), { name: 'SystemError', message })
    })
  }
})

describe('the path', () => {
  /** A cable whose sender has the route to its other end narrowed, and a collector there. */
  async function narrow(t: TestContext, mtu: number) {
    const [a, b] = makeCable(t)
    const route = (bytes: number) =>
      ip('-n', a.namespace, 'route', 'replace', `${b.ipv4}/32`, 'dev', a.device, 'mtu', `${bytes}`)
    route(mtu)
    const sizes: number[] = []
    const receiver = KernelSocket.open('receiver', AF_INET, SOCK_DGRAM, 0, b.namespace)
    t.after(() => receiver.close())
    const memory = receiver.receive({ slots: 8, slotBytes: 2048 }, count => {
      for (let slot = 0; slot < count; slot++) sizes.push(memory.meta[slot * META.words + META.length]!)
    })
    receiver.bind(internetAddress(b.ipv4, 6343)!, 'bind')
    return { a, b, route, sizes }
  }

  test('is known from the start, and when it becomes narrower; what is too long for it leaves in fragments', async t => {
    const { a, b, route, sizes } = await narrow(t, 1000)
    const sender = open(t, { address: b.ipv4, port: 6343, namespace: a.namespace })
    assert.equal(sender.mostBytes, 1000 - 28)
    const { memory, spans } = datagrams(2, 972)
    assert.equal(sender.send(memory, spans, 2), 2)
    route(800)
    assert.equal(sender.send(memory, spans, 2), 2)
    assert.equal(sender.mostBytes, 800 - 28)
    await until('datagrams', () => sizes.length === 4)
    assert.deepEqual(sizes, [972, 972, 972, 972])
    assert.deepEqual([sender.datagrams, sender.bytes, sum(sender.errors)], [4, 4 * 972, 0])
  })

  test('begins at the source address, if one is given', async t => {
    const [a, b] = makeCable(t)
    ip('-n', a.namespace, 'address', 'add', '192.0.2.77/24', 'dev', a.device)
    const receiver = KernelSocket.open('receiver', AF_INET, SOCK_DGRAM, 0, b.namespace)
    t.after(() => receiver.close())
    const senders: string[] = []
    const memory = receiver.receive({ slots: 8, slotBytes: 2048 }, () => {
      // struct sockaddr_in: the address is at byte 4.
      const at = memory.addressOffset + 4
      senders.push([0, 1, 2, 3].map(i => memory.view.getUint8(at + i)).join('.'))
    })
    receiver.bind(internetAddress(b.ipv4, 6343)!, 'bind')
    for (const source of [undefined, '192.0.2.77']) {
      const sender = open(t, { address: b.ipv4, port: 6343, namespace: a.namespace, source })
      const { memory, spans } = datagrams(1, 100)
      assert.equal(sender.send(memory, spans, 1), 1)
      await until('datagram', () => senders.at(-1) === (source ?? a.ipv4))
    }
    assert.throws(
      () => UdpSender.open({ address: b.ipv4, port: 6343, namespace: a.namespace, source: '2001:db8::1' }),
      { message: /^send from 2001:db8::1 to .*: not of one address family$/ },
    )
    assert.throws(
      () => UdpSender.open({ address: b.ipv4, port: 6343, namespace: a.namespace, source: '192.0.2.99' }),
      { message: /^send from 192.0.2.99: EADDRNOTAVAIL/ },
    )
  })
})
