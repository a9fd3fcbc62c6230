/** The control socket: who may have it, what is answered to whom, and what slow and hostile ones cost. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { ControlClient, NoAgentError } from '../../agent/control/client.ts'
import { line, REQUEST_BYTES, readRequest } from '../../agent/control/protocol.ts'
import { ControlServer } from '../../agent/control/server.ts'
import type { TapSink } from '../../agent/control/stream.ts'
import { createLogger } from '../../agent/health/log.ts'
import { until } from '../support/lab.ts'

/** A server whose answers tell how often it was asked, and that gives its sinks away. */
async function serve(t: TestContext, group?: string, path?: string) {
  const folder = mkdtempSync(join(tmpdir(), `weir-control-${process.pid}-`))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const socket = path ?? join(folder, 'run/control.sock')
  const taps: { sink: TapSink; wanted: unknown; ended: boolean; copied: number }[] = []
  let asked = 0
  const server = new ControlServer({
    path: socket,
    group,
    log: createLogger('silent'),
    answer: async question => {
      if (question === 'drops') throw new Error('no \u001b[31mdrops')
      return { question, asked: ++asked }
    },
    openTap: (wanted, sink) => {
      const tap = { sink, wanted: wanted as unknown, ended: false, copied: 0 }
      taps.push(tap)
      return {
        get counts() {
          return { matched: tap.copied, copied: tap.copied, passedOver: 0, heldBack: 0 }
        },
        change: other => {
          tap.wanted = other
        },
        end: () => {
          tap.ended = true
        },
      }
    },
  })
  t.after(() => server.stop())
  await server.start()
  return { server, socket, taps, folder }
}

/** A connection that keeps the lines it gets. */
async function connection(t: TestContext, path: string) {
  const socket: Socket = connect({ path, allowHalfOpen: true })
  t.after(() => socket.destroy())
  let text = ''
  let isClosed = false
  socket.setEncoding('utf8').on('data', (piece: string) => {
    text += piece
  })
  socket.on('end', () => {
    isClosed = true
  })
  socket.on('error', () => {
    isClosed = true
  })
  await new Promise(resolve => socket.once('connect', resolve).once('error', resolve))
  const lines = () =>
    text
      .split('\n')
      .slice(0, -1)
      .map(line => JSON.parse(line) as Record<string, unknown>)
  return {
    socket,
    lines,
    isClosed: () => isClosed,
    got: (count: number) => until(`${count} lines`, () => lines().length >= count && lines()),
  }
}

const errorOf = (line: Record<string, unknown> | undefined) =>
  line?.error as { code: string; message: string }

test('each request has its answer, in order, with its id; a refused one disturbs no other', async t => {
  const { socket } = await serve(t)
  const { socket: wire, got } = await connection(t, socket)
  const requests = [
    '{"weir":1,"request":"status","id":"a"}',
    'what?',
    '[]',
    '{"request":"status"}',
    '{"weir":2,"request":"status","id":{"n":1}}',
    '{"weir":1,"request":"stat\\u001b[31mus"}',
    '{"weir":1,"request":"drops","id":7}',
    '{"weir":1,"request":"subscribe","send":["flows","all"]}',
    '{"weir":1,"request":"subscribe","send":[]}',
    '{"weir":1,"request":"subscribe","interfaces":[-1]}',
    '{"weir":1,"request":"subscribe","every":0}',
    '{"weir":1,"request":"subscribe","perSecond":1.5}',
    '{"weir":1,"request":"subscribe","rate":1}',
    '{"weir":1,"request":"unsubscribe","id":0}',
    '',
    '{"weir":1,"request":"ledger","id":null}',
  ]
  wire.write(`${requests.join('\r\n')}\n`)
  const lines = await got(15)
  assert.deepEqual(lines[0], { weir: 1, id: 'a', status: { question: 'status', asked: 1 } })
  assert.deepEqual(
    lines.map(line => errorOf(line)?.code),
    [
      undefined,
      'malformed',
      'malformed',
      'version',
      'version',
      'unknown',
      'failed',
      ...Array(6).fill('malformed'),
      undefined,
      undefined,
    ],
  )
  assert.deepEqual(lines[4], {
    weir: 1,
    id: { n: 1 },
    error: { code: 'version', message: 'version 2 is not spoken here: say "weir":1' },
  })
  assert.equal(
    errorOf(lines[5]).message,
    'no request "stat\\u001b[31mus"; there are status, ledger, interfaces, sources, collectors, drops, subscribe, unsubscribe',
  )
  assert.deepEqual(lines[6], { weir: 1, id: 7, error: { code: 'failed', message: 'no \\x1b[31mdrops' } })
  assert.equal(
    errorOf(lines[12]).message,
    'a subscription has no "rate"; it has send, interfaces, every, perSecond',
  )
  assert.deepEqual(lines[13], { weir: 1, id: 0, unsubscribed: null })
  assert.deepEqual(lines[14], { weir: 1, id: null, ledger: { question: 'ledger', asked: 2 } })
})

test('whatever is said, there is an answer to it', () => {
  const shape = fc.record(
    {
      weir: fc.oneof(fc.constant(1), fc.jsonValue()),
      id: fc.jsonValue(),
      request: fc.oneof(fc.constantFrom('status', 'subscribe', 'unsubscribe', '__proto__'), fc.jsonValue()),
      send: fc.jsonValue(),
      interfaces: fc.jsonValue(),
      every: fc.jsonValue(),
      perSecond: fc.jsonValue(),
    },
    { requiredKeys: [] },
  )
  const texts = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.json(),
    shape.map(value => JSON.stringify(value)),
  )
  fc.assert(
    fc.property(texts, text => {
      const request = readRequest(text)
      const said = line(request.id, { error: request.kind === 'refused' ? request.error : undefined })
      assert.equal(said.split('\n').length, 2)
      assert.equal((JSON.parse(said) as { weir: unknown }).weir, 1)
      if (request.kind === 'subscribe') {
        const { every, perSecond, send } = request.wanted
        assert.ok(every >= 1 && perSecond >= 0 && send.length > 0)
      }
    }),
    { numRuns: 2000 },
  )
})

test('who says all at once and hangs up its half is answered', async t => {
  const { socket } = await serve(t)
  const { socket: wire, lines, isClosed } = await connection(t, socket)
  wire.end('{"weir":1,"request":"status"}\n{"weir":1,"request":"ledger"}\n{"weir":1,"requ')
  await until('the end', isClosed)
  assert.deepEqual(
    lines().map(line => Object.keys(line)[1]),
    ['status', 'ledger'],
  )
})

test('requests that come while another is being answered are not forgotten', async t => {
  const { socket } = await serve(t)
  const client = await ControlClient.open(socket)
  t.after(() => client.close())
  const { socket: wire, lines, got } = await connection(t, socket)
  // In pieces of all sizes, so that some come at each moment of another's answer.
  const text = '{"weir":1,"request":"ledger"}\n'.repeat(300)
  for (let at = 0, size = 1; at < text.length; at += size, size = (size * 7 + 3) % 97) {
    wire.write(text.slice(at, at + size))
    if (size % 3 === 0) await new Promise(resolve => setImmediate(resolve))
  }
  await got(300)
  assert.equal(lines().length, 300)
})

test('an answer serves all who ask at about the same time', async t => {
  const { socket } = await serve(t)
  const clients = await Promise.all(Array.from({ length: 20 }, () => ControlClient.open(socket)))
  t.after(() => {
    for (const client of clients) client.close()
  })
  const answers = await Promise.all(clients.flatMap(client => [client.ask('status'), client.ask('status')]))
  const asked = answers.map(answer => (answer as { asked: number }).asked)
  assert.ok(Math.max(...asked) < 20, `${Math.max(...asked)} answers were made for 40 questions`)
})

test('a request is limited in bytes, not characters', async t => {
  const { socket } = await serve(t)
  const { socket: wire, got } = await connection(t, socket)
  wire.write(`{"ask":"${'€'.repeat(REQUEST_BYTES / 2)}"}\n`)
  const [line] = await got(1)
  assert.equal(errorOf(line).code, 'too-long')
})

test('a request without an end is refused', async t => {
  const { socket, server } = await serve(t)
  const { socket: wire, got, isClosed } = await connection(t, socket)
  wire.write('x'.repeat(1 << 20))
  const [line] = await got(1)
  assert.equal(errorOf(line).code, 'too-long')
  await until('the end', isClosed)
  await until('no connection', () => server.counts.connections === 0)
})

test('a thousand connections: those that are too many are told so, the others go on', async t => {
  const { socket, server } = await serve(t)
  const first = await ControlClient.open(socket)
  t.after(() => first.close())
  const all: Awaited<ReturnType<typeof connection>>[] = []
  // No more than the kernel queues for a listener.
  while (all.length < 1000) {
    all.push(...(await Promise.all(Array.from({ length: 100 }, () => connection(t, socket)))))
    const { counts } = server
    await until('all taken or refused', () => counts.connections + counts.refused === all.length + 1)
  }
  for (const one of all) one.socket.write('{"weir":1,"request":"st')
  assert.equal(server.counts.refused, 1000 - 127)
  await until('their end', () => all.filter(({ isClosed }) => isClosed()).length === 1000 - 127)
  assert.equal(server.counts.connections, 128)
  const told = all.filter(({ lines }) => errorOf(lines()[0])?.code === 'too-many')
  assert.ok(told.length >= 128, `${told.length} were told why`)
  assert.deepEqual(Object.keys(await first.ask<object>('status')), ['question', 'asked'])
  for (const one of all) one.socket.destroy()
  await until('room', () => server.counts.connections === 1)
  const late = await ControlClient.open(socket)
  t.after(() => late.close())
  await late.ask('status')
})

test('a connection that goes away in the middle of anything leaves nothing', async t => {
  const { socket, server, taps } = await serve(t)
  for (const text of [
    '',
    '{"weir":1',
    '{"weir":1,"request":"status"}\n',
    '{"weir":1,"request":"subscribe"}\n',
  ]) {
    const { socket: wire } = await connection(t, socket)
    wire.write(text)
    wire.destroy()
  }
  const subscriber = await connection(t, socket)
  subscriber.socket.write('{"weir":1,"request":"subscribe"}\n')
  await subscriber.got(1)
  subscriber.socket.destroy()
  await until('no connection', () => server.counts.connections === 0)
  assert.equal(server.counts.subscribers, 0)
  assert.ok(taps.length > 0 && taps.every(({ ended }) => ended))
})

/** A datagram of an IPv4 agent with so many samples, which are not looked at. */
function datagram(samples: number, bytes = 1400): { memory: ArrayBuffer; spans: Int32Array } {
  const memory = new ArrayBuffer(bytes)
  const view = new DataView(memory)
  for (const [i, word] of [5, 1, 0xc0000201, 0, 1, 0, samples].entries()) view.setUint32(i * 4, word)
  return { memory, spans: Int32Array.of(0, bytes) }
}

test('a stream gives datagrams as they are; what is wanted may change', async t => {
  const { socket, server, taps } = await serve(t)
  const client = await ControlClient.open(socket)
  t.after(() => client.close())
  const got: Uint8Array[] = []
  const wanted = await client.subscribe({ send: ['drops'], every: 5 }, { onDatagram: one => got.push(one) })
  assert.deepEqual(wanted, { send: ['drops'], every: 5, perSecond: 10_000 })
  assert.equal(server.counts.subscribers, 1)
  const { memory, spans } = datagram(3, 100)
  taps[0]!.copied = 3
  taps[0]!.sink(memory, spans, 1)
  await until('datagram', () => got.length === 1)
  assert.deepEqual(new Uint8Array(got[0]!), new Uint8Array(memory))
  await client.subscribe({ interfaces: ['eth0', 7] }, { onDatagram: one => got.push(one) })
  assert.equal(taps.length, 1)
  assert.deepEqual(taps[0]!.wanted, {
    send: ['flows', 'counters', 'drops'],
    interfaces: ['eth0', 7],
    every: 1,
    perSecond: 10_000,
  })
  const counts = { matched: 3, sent: 3, passedOver: 0, heldBack: 0, lost: 0, lostDatagrams: 0 }
  assert.deepEqual(await client.unsubscribe(), counts)
  assert.equal(taps[0]!.ended, true)
  await client.ask('status')
})

test('a reader that does not read loses its copies, which are counted and told to it', async t => {
  const { socket, server, taps } = await serve(t)
  const slow = await connection(t, socket)
  slow.socket.write('{"weir":1,"request":"subscribe","perSecond":0}\n')
  await slow.got(1)
  slow.socket.pause()
  const SENT = 20_000
  const { memory, spans } = datagram(7)
  taps[0]!.copied = 7 * SENT
  const before = process.memoryUsage().rss
  for (let i = 0; i < SENT; i++) taps[0]!.sink(memory, spans, 1)
  assert.ok(server.counts.lost > 0)
  // 28 MB were offered; a fraction of that is kept.
  assert.ok(process.memoryUsage().rss - before < 20 << 20)
  const quick = await ControlClient.open(socket)
  t.after(() => quick.close())
  await quick.ask('status')

  slow.socket.resume()
  const told = await until('counts', () => slow.lines().find(line => 'stream' in line))
  const { lost, lostDatagrams, sent, matched } = told.stream as Record<string, number>
  assert.equal(lost, server.counts.lost)
  assert.equal(lost, 7 * lostDatagrams!)
  assert.equal(sent! + lost!, matched)
  assert.equal(slow.lines().filter(line => 'datagram' in line).length, SENT - lostDatagrams!)
})

test('the seventeenth subscriber is refused', async t => {
  const { socket } = await serve(t)
  const clients = await Promise.all(Array.from({ length: 17 }, () => ControlClient.open(socket)))
  t.after(() => {
    for (const client of clients) client.close()
  })
  for (const client of clients.slice(1)) await client.subscribe({}, { onDatagram: () => {} })
  await assert.rejects(clients[0]!.subscribe({}, { onDatagram: () => {} }), /16 subscribe already/)
})

test('a socket that its agent left behind is taken over; one in use, or another file, is left alone', async t => {
  const { socket, server, folder } = await serve(t)
  await assert.rejects(serve(t, undefined, socket), new RegExp(`${socket}: another agent listens there`))
  const client = await ControlClient.open(socket)
  client.close()

  // What a killed process leaves: a name that nobody listens to.
  const left = join(folder, 'left.sock')
  const script = `require('node:net').createServer().listen('${left}', () => process.kill(process.pid, 'SIGKILL'))`
  assert.throws(() => execFileSync(process.execPath, ['-e', script], { stdio: 'ignore' }))
  assert.ok(statSync(left).isSocket())
  await assert.rejects(ControlClient.open(left), NoAgentError)
  const second = await serve(t, undefined, left)
  const other = await ControlClient.open(left)
  await other.ask('status')
  other.close()

  const file = join(folder, 'file')
  writeFileSync(file, 'mine')
  await assert.rejects(serve(t, undefined, file), /file: something else than a socket is there/)
  assert.equal(readFileSync(file, 'utf8'), 'mine')

  // The socket of a later agent is not removed by an earlier one.
  rmSync(left)
  const foreign = createServer()
  t.after(() => foreign.close())
  await new Promise<void>(resolve => foreign.listen(left, resolve))
  second.server.stop()
  assert.ok(existsSync(left))
  server.stop()
  server.stop()
  assert.equal(existsSync(socket), false)
  await assert.rejects(ControlClient.open(socket), /no agent answers at .*: start it with `weir run`/)
})

test('the folder of the socket is made, for others to look into', async t => {
  const { folder } = await serve(t)
  assert.equal(statSync(join(folder, 'run')).mode & 0o777, 0o755)
})

test('the group decides who may connect', async t => {
  const alone = await serve(t, '12345')
  assert.equal(statSync(alone.socket).mode & 0o777, 0o660)
  assert.equal(statSync(alone.socket).gid, 12345)
  const owner = await serve(t)
  const hasGroup = /^weir:/m.test(readFileSync('/etc/group', 'utf8'))
  assert.equal(statSync(owner.socket).mode & 0o777, hasGroup ? 0o660 : 0o600)
  owner.server.changeGroup('23456')
  assert.deepEqual([statSync(owner.socket).mode & 0o777, statSync(owner.socket).gid], [0o660, 23456])
  assert.throws(() => owner.server.changeGroup('nobody-has-this-group'), /there is no group/)
  assert.equal(statSync(owner.socket).gid, 23456)
  owner.server.changeGroup(undefined)
  assert.equal(statSync(owner.socket).mode & 0o777, hasGroup ? 0o660 : 0o600)
  await assert.rejects(
    serve(t, 'nobody-has-this-group'),
    /control.group: there is no group nobody-has-this-group/,
  )
  await assert.rejects(serve(t, undefined, `/tmp/${'x'.repeat(108)}`), /longer than the \d+ bytes/)
})
