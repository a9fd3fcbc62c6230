import assert from 'node:assert/strict'
import { describe, mock, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import type { CollectorConfig } from '../../agent/config/config.ts'
import {
  type CollectorStatus,
  Collectors,
  type DatagramSocket,
  type SocketTarget,
} from '../../agent/export/collectors.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'

const config = (host: string): CollectorConfig => ({
  host,
  port: 6343,
  name: host,
  device: undefined,
  namespace: undefined,
  source: undefined,
  send: ['flows', 'counters', 'drops'],
  separate: false,
  internalInterface: 0x3fffffff,
  dropCodes: 'registered',
})

/** Sockets that take all datagrams, none, or cannot be opened, and those whose datagrams nobody hears, by address. */
function network(refusing: string[] = [], missing: string[] = [], unheard: string[] = []) {
  const opened: string[] = []
  const closed: string[] = []
  const taken = new Map<string, number>()
  const open = ({ address }: SocketTarget): DatagramSocket => {
    if (missing.includes(address)) throw new Error(`socket to ${address}: ENODEV (no such device)`)
    opened.push(address)
    const reports = new Map<string, number>()
    return {
      bytes: 0,
      mostBytes: 1472,
      errors: new Map([['ENETUNREACH', 1]]),
      reports,
      send: (_memory, _spans, count) => {
        if (refusing.includes(address)) return 0
        if (unheard.includes(address)) reports.set('ECONNREFUSED', (reports.get('ECONNREFUSED') ?? 0) + 1)
        taken.set(address, (taken.get(address) ?? 0) + count)
        return count
      },
      close: () => closed.push(address),
    }
  }
  /** Told of changes of the network. */
  const followers = new Set<() => void>()
  return { open, opened, closed, taken, followers }
}

function collectors(
  hosts: string[],
  net: ReturnType<typeof network>,
  resolve?: (host: string) => Promise<string[]>,
) {
  const lines: { level: number; msg: string }[] = []
  const ledger = new Ledger()
  const log = createLogger('info', { stream: { write: line => lines.push(JSON.parse(line)) } })
  const under = new Collectors({
    collectors: hosts.map(config),
    ledger,
    log,
    open: net.open,
    follow: (_namespace, onChange) => {
      net.followers.add(onChange)
      return { close: () => void net.followers.delete(onChange) }
    },
    resolve: async host => ({ addresses: (await resolve?.(host)) ?? [], ttlSeconds: 300 }),
  })
  return { under, ledger, lines }
}

const memory = new ArrayBuffer(4000)
const spans = Int32Array.of(0, 1000, 2000, 500)

describe('collectors', () => {
  test('each gets every datagram; one that refuses affects no other and is counted', () => {
    const net = network(['192.0.2.2'])
    const { under, ledger, lines } = collectors(['192.0.2.1', '192.0.2.2', '192.0.2.3'], net)
    under.start()
    under.send(memory, spans, 2)
    under.send(memory, spans, 2)
    assert.deepEqual(
      [...net.taken],
      [
        ['192.0.2.1', 4],
        ['192.0.2.3', 4],
      ],
    )
    for (const status of under.status()) assert.equal(status.offered, status.sent + status.lost)
    assert.equal(ledger.total('collector 192.0.2.2'), 4)
    assert.equal(lines.length, 1, 'one line, not one for each refusal')
    assert.equal(lines[0]!.msg, 'datagrams to 192.0.2.2 port 6343 are not sent: ENETUNREACH')
    under.stop()
    assert.deepEqual(net.closed, ['192.0.2.1', '192.0.2.2', '192.0.2.3'])
  })

  test('a name that does not resolve is told and tried again; the others run meanwhile', async () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const net = network()
      let answers: string[] = []
      const { under, ledger, lines } = collectors(
        ['192.0.2.1', 'collector.example'],
        net,
        async () => answers,
      )
      under.start()
      await setImmediate()
      under.send(memory, spans, 2)
      assert.match(lines[0]!.msg, /cannot resolve 'collector\.example': the name has no address/)
      assert.equal(ledger.total('collector collector.example'), 2)
      assert.match(under.status()[1]!.problem!, /cannot resolve/)
      answers = ['192.0.2.9', '192.0.2.8']
      mock.timers.tick(2000)
      await setImmediate()
      under.send(memory, spans, 2)
      assert.deepEqual(net.opened, ['192.0.2.1', '192.0.2.9'])
      assert.equal(under.status()[1]!.sent, 2)
      assert.equal(under.status()[1]!.problem, undefined)
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('a name is looked up again; its socket is replaced only when the address is gone', async () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const net = network()
      let answers = ['192.0.2.9', '192.0.2.8']
      const { under } = collectors(['collector.example'], net, async () => answers)
      under.start()
      await setImmediate()
      answers = ['192.0.2.8', '192.0.2.9']
      mock.timers.tick(300_000)
      await setImmediate()
      assert.deepEqual(net.opened, ['192.0.2.9'])
      answers = ['192.0.2.8']
      mock.timers.tick(300_000)
      await setImmediate()
      assert.deepEqual(net.opened, ['192.0.2.9', '192.0.2.8'])
      assert.deepEqual(net.closed, ['192.0.2.9'])
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('a device that is missing is tried again', () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const missing = ['192.0.2.1']
      const net = network([], missing)
      const { under, ledger } = collectors(['192.0.2.1'], net)
      under.start()
      under.send(memory, spans, 2)
      assert.equal(ledger.total('collector 192.0.2.1'), 2)
      assert.match(under.status()[0]!.problem!, /ENODEV/)
      assert.equal(under.status()[0]!.address, '192.0.2.1')
      missing.length = 0
      mock.timers.tick(2000)
      under.send(memory, spans, 2)
      assert.equal(under.status()[0]!.sent, 2)
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('what waits is tried at once when the network has changed, and only then', async () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const missing = ['192.0.2.1', '192.0.2.9']
      const net = network([], missing)
      let answers: string[] = []
      const { under } = collectors(['192.0.2.1', '192.0.2.2', 'collector.example'], net, async () => answers)
      const change = async () => {
        for (const follower of [...net.followers]) follower()
        await setImmediate()
      }
      under.start()
      await setImmediate()
      // The waits are long by now.
      for (let second = 0; second < 200; second++) {
        mock.timers.tick(1000)
        await setImmediate()
      }
      assert.deepEqual([net.opened, net.followers.size], [['192.0.2.2'], 2])
      missing.shift()
      await change()
      assert.deepEqual([net.opened, net.followers.size], [['192.0.2.2', '192.0.2.1'], 1])
      // The name is known, and its address is not reached: it is tried with the next change.
      answers = ['192.0.2.9']
      await change()
      missing.shift()
      await change()
      assert.deepEqual([net.opened.at(-1), net.opened.length, net.followers.size], ['192.0.2.9', 3, 0])
      await change()
      under.stop()
      assert.equal(net.opened.length, 3)
    } finally {
      mock.timers.reset()
    }
  })

  test('changes of the network that help nothing leave the waits long', () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const net = network([], ['192.0.2.1'])
      const open = mock.fn(net.open)
      const { under } = collectors(['192.0.2.1'], { ...net, open })
      under.start()
      for (let second = 0; second < 200; second++) mock.timers.tick(1000)
      const before = open.mock.callCount()
      for (const follower of [...net.followers]) follower()
      for (let second = 0; second < 50; second++) mock.timers.tick(1000)
      assert.equal(open.mock.callCount(), before + 1)
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('a look-up that fails although the network has changed meanwhile is soon made again', async () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const net = network()
      let answer: (addresses: string[]) => void = () => {}
      const { under } = collectors(
        ['collector.example'],
        net,
        () => new Promise(resolve => (answer = resolve)),
      )
      under.start()
      const fail = async () => {
        await setImmediate()
        answer([])
        await setImmediate()
      }
      for (const waitMs of [2000, 4000, 8000]) {
        await fail()
        mock.timers.tick(waitMs)
      }
      for (const follower of net.followers) follower()
      await fail()
      mock.timers.tick(2000)
      await setImmediate()
      answer(['192.0.2.9'])
      await setImmediate()
      assert.deepEqual(net.opened, ['192.0.2.9'])
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('a socket that refuses now and then does not follow the network, one that cannot be replaced does', () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const refusing = ['192.0.2.1']
      const missing: string[] = []
      const net = network(refusing, missing)
      const follow = mock.method(net.followers, 'add')
      const { under } = collectors(['192.0.2.1'], net)
      under.start()
      for (let i = 0; i < 10; i++) {
        under.send(memory, spans, 1)
        if (refusing.pop() === undefined) refusing.push('192.0.2.1')
      }
      assert.deepEqual([under.status()[0]!.lost, under.status()[0]!.sent], [5, 5])
      assert.equal(follow.mock.callCount(), 0)
      refusing.push('192.0.2.1')
      missing.push('192.0.2.1')
      under.send(memory, spans, 1)
      mock.timers.tick(2000)
      assert.deepEqual([net.followers.size, follow.mock.callCount()], [1, 1])
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('what ends is not told of the network any more', () => {
    const net = network([], ['192.0.2.1'])
    const { under } = collectors(['192.0.2.1'], net)
    under.start()
    assert.equal(net.followers.size, 1)
    under.stop()
    assert.equal(net.followers.size, 0)
  })

  test('reports of the network are told and counted apart: the datagrams were sent', t => {
    const begun = performance.now()
    const now = t.mock.method(performance, 'now', () => begun)
    const unheard = ['192.0.2.1']
    const { under, ledger, lines } = collectors(['192.0.2.1'], network([], [], unheard))
    under.start()
    under.send(memory, spans, 2)
    under.send(memory, spans, 2)
    const message = 'datagrams to 192.0.2.1 port 6343 do not arrive: ECONNREFUSED'
    assert.deepEqual(
      lines.map(({ msg }) => msg),
      [message],
    )
    const [status] = under.status()
    assert.deepEqual([status!.sent, status!.reported, status!.problem], [4, 2, message])
    assert.equal(ledger.total('collector 192.0.2.1'), 0)
    assert.ok(status!.unreachableSeconds! >= 0)
    // Not every datagram that is lost is reported.
    unheard.length = 0
    under.send(memory, spans, 2)
    assert.equal(under.status()[0]!.problem, message)
    now.mock.mockImplementation(() => begun + 10_001)
    assert.ok(under.status()[0]!.unreachableSeconds! > 10)
    under.send(memory, spans, 2)
    assert.deepEqual(
      [under.status()[0]!.problem, under.status()[0]!.unreachableSeconds],
      [undefined, undefined],
    )
    assert.equal(lines.at(-1)!.msg, 'datagrams to 192.0.2.1 port 6343 are not reported lost any more')
    under.stop()
  })

  test('a socket that refuses is replaced, less and less often', () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const refusing = ['192.0.2.1']
      const net = network(refusing)
      const { under, ledger } = collectors(['192.0.2.1'], net)
      under.start()
      const opened: number[] = []
      for (let second = 1; second <= 31; second++) {
        under.send(memory, spans, 1)
        const before = net.opened.length
        mock.timers.tick(1000)
        if (net.opened.length > before) opened.push(second)
      }
      assert.deepEqual(opened, [2, 6, 14, 30])
      refusing.length = 0
      under.send(memory, spans, 1)
      assert.equal(under.status()[0]!.sent, 1)
      assert.equal(under.status()[0]!.problem, undefined)
      assert.equal(ledger.total('collector 192.0.2.1'), 31)
      // It worked: the next time it is tried soon again.
      refusing.push('192.0.2.1')
      mock.timers.tick(60_000)
      const before = net.opened.length
      under.send(memory, spans, 1)
      mock.timers.tick(2000)
      assert.equal(net.opened.length, before + 1)
      assert.equal(net.closed.length, net.opened.length - 1)
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('a socket that takes datagrams again is kept, and what waited to replace it is not told of', () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const refusing = ['192.0.2.1']
      const missing: string[] = []
      const net = network(refusing, missing)
      const { under } = collectors(['192.0.2.1'], net)
      under.start()
      under.send(memory, spans, 1)
      refusing.length = 0
      under.send(memory, spans, 1)
      missing.push('192.0.2.1')
      mock.timers.tick(60_000)
      const [{ problem, address }] = under.status() as [CollectorStatus]
      assert.deepEqual([problem, address], [undefined, '192.0.2.1'])
      assert.equal(net.opened.length, 1)
      // It could not be replaced, and works by itself again.
      refusing.push('192.0.2.1')
      under.send(memory, spans, 1)
      mock.timers.tick(2000)
      assert.match(under.status()[0]!.problem!, /ENODEV/)
      under.send(memory, spans, 1)
      missing.length = 0
      mock.timers.tick(4000)
      assert.equal(net.opened.length, 2)
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('while the name of a refusing socket is looked up, its address is told', async () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const net = network(['192.0.2.9'])
      let answer: (addresses: string[]) => void = () => {}
      const lookUp = () => new Promise<string[]>(resolve => (answer = resolve))
      const { under, lines } = collectors(['collector.example'], net, lookUp)
      under.start()
      await setImmediate()
      answer(['192.0.2.9'])
      await setImmediate()
      under.send(memory, spans, 1)
      mock.timers.tick(2000)
      await setImmediate()
      under.send(memory, spans, 1)
      assert.equal(under.status()[0]!.address, '192.0.2.9')
      assert.ok(
        lines.every(({ msg }) => !msg.includes('undefined')),
        JSON.stringify(lines),
      )
      // A look-up that fails does not end the wish for a new socket.
      answer([])
      await setImmediate()
      mock.timers.tick(60_000)
      await setImmediate()
      answer(['192.0.2.9'])
      await setImmediate()
      assert.deepEqual(net.opened, ['192.0.2.9', '192.0.2.9'])
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('a name is looked up again also when the first socket to it could not be opened', async () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const missing = ['192.0.2.9']
      const net = network([], missing)
      let answers = ['192.0.2.9']
      const { under } = collectors(['collector.example'], net, async () => answers)
      under.start()
      await setImmediate()
      missing.length = 0
      mock.timers.tick(2000)
      await setImmediate()
      assert.deepEqual(net.opened, ['192.0.2.9'])
      answers = ['192.0.2.8']
      mock.timers.tick(300_000)
      await setImmediate()
      assert.deepEqual(net.opened, ['192.0.2.9', '192.0.2.8'])
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })

  test('a socket that refuses while its name is looked up is opened again all the same', async () => {
    mock.timers.enable({ apis: ['setTimeout'] })
    try {
      const refusing: string[] = []
      const net = network(refusing)
      let answer: (addresses: string[]) => void = () => {}
      const lookUp = () => new Promise<string[]>(resolve => (answer = resolve))
      const { under } = collectors(['collector.example'], net, lookUp)
      under.start()
      await setImmediate()
      answer(['192.0.2.9'])
      await setImmediate()
      mock.timers.tick(300_000)
      await setImmediate()
      refusing.push('192.0.2.9')
      under.send(memory, spans, 1)
      answer(['192.0.2.9'])
      await setImmediate()
      refusing.length = 0
      mock.timers.tick(2000)
      await setImmediate()
      answer(['192.0.2.9'])
      await setImmediate()
      under.send(memory, spans, 1)
      assert.equal(net.opened.length, 2)
      assert.equal(under.status()[0]!.problem, undefined)
      under.stop()
    } finally {
      mock.timers.reset()
    }
  })
})
