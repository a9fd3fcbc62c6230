import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { InterfaceStatus } from '../../agent/control/status.ts'
import { serveHttp } from '../../agent/health/http.ts'
import { LivePage } from '../../agent/web/live.ts'
import { pageSite } from '../../agent/web/site.ts'
import { freePort } from '../support/free-port.ts'
import { until } from '../support/lab.ts'
import { datagram, drop, flow } from '../view/datagrams.ts'

interface Served {
  readonly port: number
  readonly live: LivePage
  /** Tells the page of a datagram; false while it is not fed. */
  feed(bytes: Uint8Array): boolean
  taps: number
}

const INTERFACES: readonly InterfaceStatus[] = [
  {
    name: '<img src=x onerror=alert(1)>\u001b[2J',
    ifIndex: 2,
    alias: null,
    kind: null,
    speedBitsPerSecond: 1e9,
    adminUp: true,
    operUp: true,
    counters: null,
  },
]

async function serve(context: TestContext, token?: string): Promise<Served> {
  let sink: ((bytes: Uint8Array) => void) | undefined
  const served = { port: await freePort(), taps: 0 }
  const live = new LivePage({
    tap(onDatagram) {
      sink = onDatagram
      served.taps++
      return {
        counts: { matched: 0, copied: 0 },
        end() {
          sink = undefined
          served.taps--
        },
      }
    },
    interfaces: async () => INTERFACES,
    agent: () => '192.0.2.1',
    failed: error => assert.fail(error),
  })
  const site = pageSite({ live, token, isSocket: false })
  const server = await serveHttp({ host: '127.0.0.1', port: served.port }, site)
  context.after(() => {
    live.stop()
    server.close()
  })
  return Object.assign(served, {
    live,
    feed(bytes: Uint8Array) {
      sink?.(bytes)
      return sink !== undefined
    },
  })
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

function get(
  port: number,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, headers, method, agent: false }, response => {
      let body = ''
      response.setEncoding('utf8').on('data', piece => (body += piece))
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }))
    })
    asked.on('error', reject).end()
  })
}

/** Reads events until `enough` says so. */
async function events(port: number, path: string, enough: (told: Told[]) => boolean): Promise<Told[]> {
  const told: Told[] = []
  const asked = request({ host: '127.0.0.1', port, path, agent: false })
  asked.end()
  const [response] = await once(asked, 'response')
  let text = ''
  response.setEncoding('utf8').on('data', (piece: string) => {
    text += piece
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const event = text.slice(0, end)
      text = text.slice(end + 2)
      if (event.startsWith('data: ')) told.push(JSON.parse(event.slice(6)) as Told)
    }
  })
  await until('events', () => enough(told))
  asked.destroy()
  return told
}

interface Told {
  readonly agent: string
  readonly past: boolean
  readonly flows: { by: string; rows: { cells: string[]; bits: number; error: number }[] }
  readonly drops: { reason: string; packets: number }[]
  readonly ports: { name: string }[]
  readonly seconds: { bits: (number | null)[] }
}

test('the page: three files, a strict policy, nothing of others', async context => {
  const { port } = await serve(context)
  const pages = await Promise.all(['/', '/page.css', '/page.js'].map(path => get(port, path)))
  const types = pages.map(({ headers }) => headers['content-type'])
  assert.deepEqual(
    pages.map(({ status }) => status),
    [200, 200, 200],
  )
  assert.deepEqual(types, [
    'text/html; charset=utf-8',
    'text/css; charset=utf-8',
    'text/javascript; charset=utf-8',
  ])
  for (const { headers, body } of pages) {
    const policy = String(headers['content-security-policy'])
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; /)
    assert.doesNotMatch(policy, /unsafe|\*|https?:/)
    assert.equal(headers['x-content-type-options'], 'nosniff')
    assert.equal(headers['cache-control'], 'no-store')
    assert.equal(headers['access-control-allow-origin'], undefined)
    // The name of the SVG namespace is no address that is asked for.
    assert.doesNotMatch(body.replace('http://www.w3.org/2000/svg', ''), /https?:\/\//)
  }
  const [html, , script] = pages
  assert.doesNotMatch(html!.body, /<script(?! src="page\.js" defer>)|<style|style=|\son\w+=/)
  assert.doesNotMatch(script!.body, /innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function/)
})

suite('what is refused', () => {
  const rows: [
    name: string,
    path: string,
    headers: Record<string, string>,
    method: string,
    status: number,
  ][] = [
    ['another path', '/etc/passwd', {}, 'GET', 404],
    ['a path that leaves the folder', '/../site.ts', {}, 'GET', 404],
    ['the same in disguise', '/%2e%2e/site.ts', {}, 'GET', 404],
    ['writing', '/', {}, 'POST', 405],
    ['a name of somebody else (DNS rebinding)', '/', { Host: 'evil.example:8008' }, 'GET', 421],
    ['a name that begins like ours', '/events', { Host: '127.0.0.1.evil.example' }, 'GET', 421],
  ]
  for (const [name, path, headers, method, status] of rows) {
    test(name, async context => {
      const { port } = await serve(context)
      assert.equal((await get(port, path, headers, method)).status, status)
    })
  }

  test('ours are localhost and numeric addresses', async context => {
    const { port } = await serve(context)
    for (const host of ['localhost', 'localhost:8008', '127.0.0.1:1', '[::1]:8008']) {
      assert.equal((await get(port, '/', { Host: host })).status, 200, host)
    }
  })
})

test('a token: in the address once, then in a cookie, or as a bearer', async context => {
  const token = 'a b/ö%'
  const { port } = await serve(context, token)
  assert.equal((await get(port, '/')).status, 401)
  assert.equal((await get(port, '/events')).status, 401)
  assert.equal((await get(port, '/?token=wrong')).status, 401)
  const first = await get(port, `/?token=${encodeURIComponent(token)}`, { Host: 'router.example' })
  assert.deepEqual([first.status, first.headers.location], [303, './'])
  const [cookie] = first.headers['set-cookie'] as string[]
  assert.match(cookie!, /; HttpOnly; SameSite=Strict; Path=\/$/)
  const pair = cookie!.split(';')[0]!
  assert.equal((await get(port, '/', { Cookie: `other=1; ${pair}`, Host: 'router.example' })).status, 200)
  assert.equal((await get(port, '/page.js', { Cookie: 'weir-token=%' })).status, 401)
  const bearer = await serve(context, 'plain')
  assert.equal((await get(bearer.port, '/page.js', { Authorization: 'Bearer plain' })).status, 200)
  assert.equal((await get(bearer.port, '/page.js', { Authorization: 'Bearer plai' })).status, 401)
})

test('events: the past first, then a second at a time; a query chooses; names stay text', async context => {
  const served = await serve(context)
  const { port, live } = served
  assert.equal(served.feed(datagram([])), false)
  const timer = setInterval(() => {
    served.feed(datagram([flow({ bytes: 1000 }), flow({ src: '10.7.7.7' }), drop({})]))
  }, 50)
  context.after(() => clearInterval(timer))
  const path = '/events?by=source&sort=packets&filter=10.7'
  const told = await events(port, path, list => (list.at(-1)?.flows.rows.length ?? 0) > 0 && list.length > 2)
  assert.deepEqual(
    told.map(({ past }) => past),
    told.map((_, i) => i === 0),
  )
  assert.equal(told[0]!.seconds.bits.length, 120)
  assert.equal(told[1]!.seconds.bits.length, 1)
  const last = told.at(-1)!
  assert.deepEqual([last.agent, last.flows.by], ['192.0.2.1', 'source'])
  assert.deepEqual(
    last.flows.rows.map(({ cells }) => cells),
    [['10.7.7.7']],
  )
  assert.ok(last.flows.rows[0]!.bits > 0 && last.flows.rows[0]!.error < 1)
  assert.equal(last.drops[0]!.reason, 'acl')
  assert.equal(last.ports[0]!.name, '<img src=x onerror=alert(1)>\\x1b'.slice(0, 31).concat('…'))
  // A query of nonsense is one without.
  const [other] = await events(
    port,
    '/events?by=__proto__&sort=constructor&filter=%ff',
    list => list.length > 0,
  )
  assert.equal(other!.flows.by, 'flow')
  await until('nobody looks', () => live.viewers === 0)
  await until('rest', () => !live.isRunning && served.taps === 0)
})

test('what fails costs the page, and never the agent', async context => {
  const port = await freePort()
  const failures: string[] = []
  let tapped: ((bytes: Uint8Array) => void) | undefined
  const live = new LivePage({
    tap(onDatagram) {
      tapped = onDatagram
      return { counts: { matched: 0, copied: 0 }, end() {} }
    },
    interfaces: () => Promise.reject(new Error('the kernel does not answer')),
    agent: () => '192.0.2.1',
    failed: error => failures.push(error.message),
  })
  const server = await serveHttp(
    { host: '127.0.0.1', port },
    pageSite({ live, token: undefined, isSocket: false }),
  )
  context.after(() => {
    live.stop()
    server.close()
  })
  const told = await events(port, '/events', list => list.length > 1)
  assert.deepEqual(told.at(-1)!.ports, [])
  assert.deepEqual(failures, [])
  // Something that no datagram can be: it has no length.
  const seen = events(port, '/events', list => list.length > 0)
  await until('viewer', () => live.viewers > 0)
  await seen
  tapped!(undefined as unknown as Uint8Array)
  assert.equal(failures.length, 1)
  assert.equal(live.isRunning, false)
  // The next one begins anew.
  assert.ok((await events(port, '/events', list => list.length > 0)).length > 0)
})

test('viewers who do not read, and too many of them, cost little', async context => {
  const served = await serve(context)
  const sockets: Socket[] = []
  context.after(() => {
    for (const socket of sockets) socket.destroy()
  })
  for (let i = 0; i < 40; i++) {
    const socket = connect(served.port, '127.0.0.1').on('error', () => {})
    sockets.push(socket)
    socket.write('GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n')
    socket.pause()
  }
  await until('viewers', () => served.live.viewers === 32)
  await sleep(100)
  assert.equal(served.live.viewers, 32)
  assert.equal(served.taps, 1)
  // The page itself is still there for others.
  for (const socket of sockets) socket.destroy()
  await until('nobody looks', () => served.live.viewers === 0)
  assert.equal((await get(served.port, '/')).status, 200)
})

test('1,000 connections and bytes that are no request: still there afterwards', async context => {
  const { port } = await serve(context)
  const garbage = [
    '',
    'G',
    'GET / HTTP/1.1\r\n',
    'GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
    `GET /${'x'.repeat(20_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
    `GET / HTTP/1.1\r\n${'a: b\r\n'.repeat(3000)}\r\n`,
    'GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'GET \\x00 HTTP/1.1\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
  ]
  const sockets: Socket[] = []
  context.after(() => {
    for (const socket of sockets) socket.destroy()
  })
  for (let i = 0; i < 1000; i++) {
    const socket = connect(port, '127.0.0.1')
      .on('error', () => {})
      .on('data', () => {})
    sockets.push(socket)
    socket.write(garbage[i % garbage.length]!, 'latin1')
    if (i % 100 === 99) await sleep(1)
  }
  await sleep(200)
  for (const socket of sockets) socket.destroy()
  const { status } = await until('answer', () => get(port, '/').catch(() => undefined))
  assert.equal(status, 200)
})

test('a Unix socket is open to whatever name it is called by', async context => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-web-'))
  context.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'web.sock')
  const live = new LivePage({
    tap: () => ({ counts: { matched: 0, copied: 0 }, end() {} }),
    interfaces: async () => [],
    agent: () => '192.0.2.1',
    failed: error => assert.fail(error),
  })
  const server = await serveHttp({ path }, pageSite({ live, token: undefined, isSocket: true }))
  context.after(() => server.close())
  const asked = request({ socketPath: path, path: '/', headers: { Host: 'weir.example' } })
  asked.end()
  const [response] = await once(asked, 'response')
  response.resume()
  assert.equal(response.statusCode, 200)
})
