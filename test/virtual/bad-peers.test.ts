/** Runtimes that never answer, answer nonsense, stop in the middle, or send without end; and names that are attacks. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { ContainerdRuntime } from '../../agent/virtual/containerd.ts'
import { DockerRuntime } from '../../agent/virtual/docker.ts'
import { KubernetesRuntime } from '../../agent/virtual/kubernetes.ts'
import { LibvirtRuntime } from '../../agent/virtual/libvirt.ts'
import type { Runtime } from '../../agent/virtual/runtime.ts'
import { SystemdRuntime } from '../../agent/virtual/systemd.ts'
import { DBUS_MESSAGE, writeDbusMessage } from '../../agent/wire/dbus.ts'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { hostDescr } from '../../agent/wire/sflow/counters/host.ts'
import { inNamespace, reversed } from '../support/containers.ts'
import { countersSamplesOf, listen, makeLab, runWeir, until } from '../support/lab.ts'
import { startUnitProcess } from '../support/systemd.ts'

const HOST = { type: 2, index: 1 }
const MEBIBYTE = 1 << 20
const root = '/'
const uuidOf = (name: string) => name

/** Each runtime at a socket. */
const RUNTIMES: Readonly<Record<string, (path: string) => Runtime>> = {
  systemd: path => new SystemdRuntime({ path, processes: undefined, uuidOf }),
  docker: path => new DockerRuntime({ root, path, hostname: false }),
  containerd: path => new ContainerdRuntime({ root, path, hostname: false, uuidOf }),
  k8s: path => new KubernetesRuntime({ root, path, uuidOf }),
  kvm: path => new LibvirtRuntime({ paths: [path], uri: 'test:///default', ifIndexOf: () => 0 }),
}

let sockets = 0

/** Path of a socket that `onConnection` answers at. */
async function serve(t: TestContext, onConnection: (socket: Socket) => void): Promise<string> {
  const open = new Set<Socket>()
  const server = createServer(socket => {
    open.add(socket)
    socket.on('error', () => {})
    onConnection(socket)
  })
  t.after(() => {
    for (const socket of open) socket.destroy()
  })
  return listenAt(t, server)
}

function listenAt(t: TestContext, server: Server): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), `weir-bad-${process.pid}-`))
  t.after(() => {
    server.close()
    rmSync(folder, { recursive: true })
  })
  const path = join(folder, `${++sockets}.sock`)
  return new Promise(resolve => server.listen(path, () => resolve(path)))
}

/** Sends `piece` again and again, as fast as it is taken, up to 100 MB; gives how much was taken. */
function flood(socket: NodeJS.WritableStream, piece: Uint8Array): { readonly bytes: number } {
  const count = { bytes: 0 }
  const more = () => {
    while (count.bytes < 100e6) {
      count.bytes += piece.length
      if (!socket.write(piece)) break
    }
  }
  socket.on('drain', more).on('error', () => {})
  more()
  return count
}

async function refusal(runtime: Runtime): Promise<string> {
  try {
    await runtime.list()
  } catch (error) {
    return (error as Error).message
  } finally {
    runtime.close()
  }
  return assert.fail('something was found')
}

describe('a runtime', { concurrency: true }, () => {
  for (const [name, open] of Object.entries(RUNTIMES)) {
    test(`${name} that is not there: what to do is told`, async () => {
      assert.match(await refusal(open('/nonexistent/weir.sock')), /^nothing answers at .*: is .* running\?/)
    })

    test(`${name} that never answers`, async t => {
      const path = await serve(t, () => {})
      assert.match(await refusal(open(path)), /no answer within 5000 ms$/)
    })

    test(`${name} that answers nonsense`, async t => {
      const path = await serve(t, socket => void socket.write(Buffer.alloc(5000, 0xa5)))
      assert.match(await refusal(open(path)), new RegExp(`at ${path}: .+`))
    })

    test(`${name} that closes at once`, async t => {
      const path = await serve(t, socket => void socket.end())
      assert.match(await refusal(open(path)), new RegExp(`at ${path}: .+`))
    })

    test(`${name} that is asked again after a failure`, async t => {
      let connections = 0
      const path = await serve(t, socket => {
        connections++
        socket.destroy()
      })
      const runtime = open(path)
      for (let i = 0; i < 3; i++) await assert.rejects(runtime.list())
      runtime.close()
      assert.ok(connections >= 3)
    })
  }

  test('docker that stops in the middle of its answer', async t => {
    const path = await serve(t, socket =>
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n[{"Id":"a')),
    )
    assert.match(await refusal(RUNTIMES.docker!(path)), /\/containers\/json: the answer was cut off|aborted/)
  })

  test('docker whose answer has no end', async t => {
    let sent = { bytes: 0 }
    const server = createHttpServer((_, response) => {
      response.writeHead(200)
      sent = flood(response, Buffer.alloc(64 << 10, 0x20))
    })
    const path = await listenAt(t, server)
    assert.match(await refusal(RUNTIMES.docker!(path)), /an answer of more than 16777216 bytes/)
    assert.ok(sent.bytes < 60 * MEBIBYTE)
  })

  test('docker whose answer is JSON, and something else', async t => {
    for (const [answer, expected] of [
      ['{"message":"no"}', /not a list/],
      ['[1, null, {"Id": 7}, {"Id": "zz"}]', undefined],
      ['<html>', /not JSON/],
    ] as const) {
      const server = createHttpServer((_, response) => void response.end(answer))
      const runtime = RUNTIMES.docker!(await listenAt(t, server))
      if (expected === undefined) assert.deepEqual(await runtime.list(), [])
      else await assert.rejects(runtime.list(), expected)
      runtime.close()
    }
  })

  test('docker whose processes are not those seen here', async t => {
    const server = createHttpServer(({ url = '' }, response) => {
      const answer = url.startsWith('/containers/json')
        ? [{ Id: 'a'.repeat(64), Names: ['/a'], State: 'running' }]
        : { State: { Pid: process.pid }, Config: { Hostname: 'a' } }
      response.end(JSON.stringify(answer))
    })
    assert.match(
      await refusal(RUNTIMES.docker!(await listenAt(t, server))),
      /in the process namespace of the host/,
    )
  })

  for (const name of ['containerd', 'k8s']) {
    test(`${name} whose answer has no end`, async t => {
      let sent = { bytes: 0 }
      const server = createHttp2Server()
      server.on('stream', stream => {
        stream.on('error', () => {})
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' })
        sent = flood(stream, Buffer.alloc(64 << 10))
      })
      server.on('sessionError', () => {})
      const path = await listenAt(t, server)
      assert.match(await refusal(RUNTIMES[name]!(path)), /an answer of more than 16777216 bytes/)
      assert.ok(sent.bytes < 60 * MEBIBYTE)
    })

    test(`${name} whose answer is no protobuf, or a refusal`, async t => {
      for (const [body, status, expected] of [
        [Buffer.from([0, 0, 0, 0, 2, 0x0a, 0xff]), '0', /protobuf: a number without its end/],
        [Buffer.from([0, 0, 0, 9, 9]), '0', /not complete/],
        [Buffer.from([1, 0, 0, 0, 0]), '0', /compressed/],
        [Buffer.alloc(0), '7', /you may not/],
        [Buffer.alloc(0), undefined, /cut off/],
      ] as const) {
        const server = createHttp2Server()
        server.on('stream', stream => {
          stream.respond({ ':status': 200 }, { waitForTrailers: true })
          stream.on('wantTrailers', () =>
            stream.sendTrailers(
              status === undefined ? {} : { 'grpc-status': status, 'grpc-message': 'you may%20not' },
            ),
          )
          stream.end(body)
        })
        assert.match(await refusal(RUNTIMES[name]!(await listenAt(t, server))), expected)
      }
    })
  }

  /** A bus that accepts whoever comes, and then sends. */
  const bus = (t: TestContext, then: (socket: Socket) => void) =>
    serve(t, socket =>
      socket.once('data', () => {
        socket.write('OK 0123456789abcdef0123456789abcdef\r\n')
        socket.once('data', () => then(socket))
      }),
    )

  test('D-Bus with a message of 100 MB', async t => {
    const head = Buffer.alloc(16)
    head.set([0x6c, 2, 0, 1])
    head.writeUInt32LE(100e6, 4)
    const path = await bus(t, socket => void socket.write(head))
    assert.match(await refusal(RUNTIMES.systemd!(path)), /a message of more than 8388608 bytes/)
  })

  test('D-Bus with signals that nobody asked for, without end', async t => {
    const signal = writeDbusMessage({
      type: DBUS_MESSAGE.signal,
      serial: 1,
      path: '/',
      interface: 'a.b',
      member: 'C',
      signature: 's',
      body: ['x'.repeat(60_000)],
    })
    let sent = { bytes: 0 }
    const path = await bus(t, socket => {
      sent = flood(socket, signal)
    })
    assert.match(await refusal(RUNTIMES.systemd!(path)), /more than 33554432 bytes without being asked/)
    assert.ok(sent.bytes < 60 * MEBIBYTE)
  })

  test('D-Bus that lets us in and then talks nonsense', async t => {
    const path = await bus(t, socket => void socket.write(Buffer.alloc(100, 0x6c)))
    assert.match(await refusal(RUNTIMES.systemd!(path)), /expected version 1/)
  })

  test('D-Bus that does not let us in', async t => {
    const path = await serve(t, socket => void socket.write('REJECTED EXTERNAL\r\n'))
    assert.match(await refusal(RUNTIMES.systemd!(path)), /does not accept us/)
  })

  test('libvirt with messages of no possible length, and with events without end', async t => {
    const long = Buffer.alloc(28)
    long.writeUInt32BE(100e6, 0)
    const path = await serve(t, socket => void socket.write(long))
    assert.match(await refusal(RUNTIMES.kvm!(path)), /its length would be 100000000/)
    const event = Buffer.alloc(1024)
    event.writeUInt32BE(event.length, 0)
    event.writeUInt32BE(0x20008086, 4)
    event.writeUInt32BE(2, 16)
    let sent = { bytes: 0 }
    const endless = await serve(t, socket => {
      sent = flood(socket, Buffer.concat(Array.from({ length: 64 }, () => event)))
    })
    assert.match(await refusal(RUNTIMES.kvm!(endless)), /more than 33554432 bytes without being asked/)
    assert.ok(sent.bytes < 60 * MEBIBYTE)
  })
})

test('bad runtimes cost the host nothing, each is told of once, and hostile names are cut and cleaned', async t => {
  const scope = reversed(t)
  const lab = makeLab(scope)
  const { host, peer, folder } = lab
  const silent = await serve(t, () => {})
  const name = '/\u001b[2J\u001b]0;evil\u0007\u202e\nname'
  const id = 'f'.repeat(63)
  const containers = [name, `/${'long€'.repeat(2000)}`].map((text, i) => ({
    Id: `${i}${id}`,
    Names: [text],
    State: 'running',
  }))
  // Processes in control groups as Docker makes them; they have the network namespace of the machine.
  const processes = containers.map(
    ({ Id }) => startUnitProcess(scope, `/docker-${Id}.scope`, ['sleep', '1000']).child.pid,
  )
  const server = createHttpServer(({ url = '' }, response) => {
    if (url.startsWith('/events')) return
    const answer = url.startsWith('/containers/json')
      ? containers
      : { State: { Pid: processes[Number(url.split('/')[2]![0])] }, Config: { Hostname: name } }
    response.end(JSON.stringify(answer))
  })
  const docker = await listenAt(t, server)
  t.after(() => server.closeAllConnections())
  const collector = listen(scope, peer.namespace, { address: peer.mgmt0.ipv4, port: 6343 })
  const file = join(folder, 'weir.conf')
  writeFileSync(
    file,
    `sFlow {
  polling = 1
  collector { ip = ${peer.mgmt0.ipv4} }
  systemd { socket = ${silent} refreshVMs = 10 }
  docker { socket = ${docker} }
  containerd { socket = ${silent} }
  k8s { unixsock = ${silent} }
  kvm { socket = ${silent} }
}
`,
  )
  const agent = runWeir(scope, inNamespace(host.namespace), ['run', '-f', file])
  await agent.line(/^running$/)
  const asleep = ['systemd', 'containerd', 'k8s', 'kvm']
  await until('second tries', async () => {
    const { lost } = await agent.status()
    return asleep.every(runtime => (lost[`virtual/${runtime}-not-found`] ?? 0) >= 2)
  })
  // The first searches waited five seconds for their answers; the host was polled meanwhile, and not only at the start.
  const failed = agent.log.find(({ msg }) => /^(systemd|kvm): /.test(msg))!
  const before = countersSamplesOf(collector, HOST).filter(
    ({ arrival }) => arrival.time < Date.parse(failed.time as string),
  )
  assert.ok(before.length >= 2, `${before.length} samples of the host`)
  for (const runtime of asleep) {
    const told = agent.log.filter(({ msg }) => msg.startsWith(`${runtime}: `))
    assert.equal(told.length, 1, runtime)
    assert.match(told[0]!.msg, /no answer within 5000 ms$/)
  }
  const names = new Set(
    countersSamplesOf(collector)
      .filter(({ value }) => value.source_id.type === 3)
      .map(({ records }) => findRecord(records, hostDescr)!.hostname),
  )
  // 64 bytes hold seven of the characters with three bytes and all before them, and no half of the next.
  assert.deepEqual([...names].sort(), ['?[2J?]0;evil???name', `${'long€'.repeat(9)}l`].sort())
  const { status } = await agent.stop()
  // Readers that are slow because the machine is busy are no fault of theirs.
  const slow = ['counters/timeout', 'counters/hanging', 'counters/missed']
  assert.deepEqual(
    Object.keys(status.lost).filter(key => key.startsWith('counters/') && !slow.includes(key)),
    [],
  )
})
