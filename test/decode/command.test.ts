import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { freePort } from '../support/free-port.ts'
import { pcap } from './capture.ts'

const ROOT = join(import.meta.dirname, '../..')
const VECTORS = join(ROOT, 'test/vectors/sflow')
/** A name too long for any server to be asked for it. */
const NO_HOST = 'x'.repeat(64)
const directory = mkdtempSync(join(tmpdir(), 'weir-decode-'))
after(() => rmSync(directory, { recursive: true }))

function start(...args: string[]): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, [join(ROOT, 'agent/main.ts'), 'decode', ...args], { timeout: 30_000 })
}

interface Ended {
  status: number | null
  out: string
  errors: string
}

async function ended(child: ChildProcessWithoutNullStreams): Promise<Ended> {
  let out = ''
  let errors = ''
  child.stdout.on('data', piece => (out += piece))
  child.stderr.on('data', piece => (errors += piece))
  const [status] = await once(child, 'close')
  return { status, out, errors }
}

/** Runs `weir decode` to its end with `input` on standard input. */
async function decode(args: readonly string[], input: Uint8Array = new Uint8Array(0)): Promise<Ended> {
  const child = start(...args)
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  return await ended(child)
}

function file(name: string, bytes: Uint8Array | string): string {
  const path = join(directory, name)
  writeFileSync(path, bytes)
  return path
}

function bytesOf(vector: string): Buffer {
  const text = readFileSync(join(VECTORS, vector, 'bytes.hex'), 'utf8')
  return Buffer.from(text.replace(/^#.*$/gm, '').replace(/\s/g, ''), 'hex')
}

function textOf(vector: string): string {
  return readFileSync(join(VECTORS, vector, 'text'), 'utf8')
}

suite('input', { concurrency: false }, () => {
  const name = 'transit-delay'
  const rows: [name: string, args: () => string[], input: Uint8Array | undefined, from: string][] = [
    [
      'file of hexadecimal digits',
      () => [join(VECTORS, name, 'bytes.hex')],
      undefined,
      join(VECTORS, name, 'bytes.hex'),
    ],
    ['file of one datagram', () => [file('raw', bytesOf(name))], undefined, join(directory, 'raw')],
    [
      'hexadecimal digits from standard input',
      () => ['-'],
      readFileSync(join(VECTORS, name, 'bytes.hex')),
      'standard input',
    ],
    ['one datagram from standard input', () => ['-'], bytesOf(name), 'standard input'],
    [
      'capture in a file',
      () => [file('one.pcap', pcap(bytesOf(name)))],
      undefined,
      '2023-11-14T22:13:20.000Z 192.0.2.1:1',
    ],
    ['capture from standard input', () => ['-'], pcap(bytesOf(name)), '2023-11-14T22:13:20.000Z 192.0.2.1:1'],
  ]
  for (const [title, args, input, from] of rows) {
    test(title, async () => {
      assert.deepEqual(await decode(args(), input), { status: 0, out: `${from} ${textOf(name)}`, errors: '' })
    })
  }
})

test('JSON has every value, and what sampled headers say', async () => {
  const { status, out } = await decode(['--json', '-'], pcap(bytesOf('host-counters'), bytesOf('ipv6-agent')))
  assert.equal(status, 0)
  const [host, flows, end] = out.split('\n')
  assert.equal(end, '')
  const expected = JSON.parse(readFileSync(join(VECTORS, 'host-counters/value.json'), 'utf8'))
  const first = JSON.parse(host!)
  assert.deepEqual(
    [first.from, first.time, first.agent_address],
    ['192.0.2.1:1', '2023-11-14T22:13:20.000Z', '192.0.2.1'],
  )
  assert.deepEqual(
    first.samples[0].records.map((record: { value: unknown }) => record.value),
    expected.samples[0].records.map((record: { value: unknown }) => record.value),
  )
  const [header] = JSON.parse(flows!).samples[1].records
  assert.deepEqual([header.record, header.format, header.offset], ['sampled_header', '0:1', 208])
  assert.deepEqual(header.packet, {
    dst_mac: '02:00:00:00:00:02',
    src_mac: '02:00:00:00:00:01',
    ether_type: 0x0800,
    tos: 0,
    ttl: 64,
    ip_protocol: 6,
    src_ip: '198.51.100.7',
    dst_ip: '192.0.2.10',
    src_port: 40_000,
    dst_port: 23,
    tcp_flags: 2,
  })
})

test('what is broken is told with its place, and the rest is shown', async () => {
  const broken = bytesOf('transit-delay')
  broken.writeUInt32BE(129, 124)
  const short = bytesOf('transit-delay').subarray(0, 100)
  const { status, out, errors } = await decode(['-'], pcap(broken, short, bytesOf('ipv6-agent')))
  assert.equal(status, 1)
  assert.deepEqual(errors.split('\n'), [
    'weir decode: 192.0.2.1:1: error: in datagram: in flow_sample 1: in sampled_header: ' +
      'header needs 129 bytes, 128 left at byte offset 128',
    'weir decode: 192.0.2.1:1: error: in datagram: in flow_sample 1: length is 220, 64 bytes left at byte offset 32',
    '',
  ])
  assert.match(out, /^ {4}record 0:1 at 104, 144 bytes\n {8}112 {2}00000001000005a60000000400000081/m)
  assert.ok(out.endsWith(textOf('ipv6-agent')))
})

suite('told on standard error', { concurrency: false }, () => {
  const good = bytesOf('transit-delay')
  const rows: [name: string, args: string[], input: Uint8Array, status: number, errors: string][] = [
    ['no file', ['/no/such/file'], good, 1, '/no/such/file: it does not exist'],
    ['a directory', [directory], good, 1, `${directory}: it is a directory`],
    [
      'a capture that is cut',
      ['-'],
      pcap(good).subarray(0, 100),
      1,
      'standard input: in capture: packet 1 is cut, 76 bytes left at byte offset 24',
    ],
    [
      'not a datagram',
      ['-'],
      Buffer.from('this is no datagram'),
      1,
      'standard input: error: in datagram: version is 1952999795, not 5 at byte offset 0',
    ],
    ['another port', ['-p', '6344', '-'], pcap(good), 1, 'standard input: no datagram to UDP port 6344'],
    ['nothing', ['-'], new Uint8Array(0), 1, 'standard input: no datagram to UDP port 6343'],
    ['a capture without packets', ['-'], pcap(), 1, 'standard input: no datagram to UDP port 6343'],
    [
      'a capture that is compressed',
      ['-'],
      gzipSync(pcap(good)),
      1,
      'standard input: compressed by gzip: zcat FILE | weir decode -',
    ],
    [
      'half a byte',
      ['-'],
      Buffer.from('00 00 00 05 0 # and no more'),
      1,
      'standard input: an odd number of hexadecimal digits: 9',
    ],
    [
      'a target without an address',
      ['--forward', NO_HOST, '-'],
      good,
      1,
      `--forward ${NO_HOST}: getaddrinfo ENOTFOUND ${NO_HOST}`,
    ],
    ['an address that is not here', ['-l', '192.0.2.77:6343'], good, 1, 'bind EADDRNOTAVAIL 192.0.2.77:6343'],
  ]
  for (const [name, args, input, status, errors] of rows) {
    test(name, async () => {
      assert.deepEqual(await decode(args, input), { status, out: '', errors: `weir decode: ${errors}\n` })
    })
  }

  test('a datagram that is missing', async () => {
    const { status, errors } = await decode(
      ['-'],
      pcap(bytesOf('host-counters'), bytesOf('interface-and-vendor-counters')),
    )
    assert.deepEqual(
      [status, errors],
      [0, 'weir decode: agent 192.0.2.1 sub-agent 100000: 2 lost before datagram 7\n'],
    )
  })
})

suite('arguments', { concurrency: false }, () => {
  const rows: [args: string[], error: RegExp][] = [
    [['--listen', '70000'], /'70000' is invalid\. Expected a port, 1 to 65535\./],
    [['--listen', '22x'], /'22x' is invalid\. Expected a port, 1 to 65535\./],
    [['--port', '0', '-'], /'0' is invalid\. Expected a port, 1 to 65535\./],
    [
      ['--forward', '192.0.2.1:99999', '-'],
      /'192\.0\.2\.1:99999' is invalid\. Expected a port, 1 to 65535\./,
    ],
    [['--listen', '::1:6343'], /Expected PORT, ADDRESS:PORT or \[IPV6\]:PORT/],
    [['--count', '0', '-'], /Expected a whole number from 1 on/],
    [['--listen', '6343', '-'], /a file and --listen exclude each other/],
    [['a', 'b'], /too many arguments/],
  ]
  for (const [args, error] of rows) {
    test(args.join(' '), async () => {
      const { status, out, errors } = await decode(args)
      assert.deepEqual([status, out], [1, ''])
      assert.match(errors, error)
    })
  }
})

suite('UDP', { concurrency: false }, () => {
  for (const [listen, address] of [
    ['127.0.0.1', '127.0.0.1'],
    ['[::1]', '::1'],
    ['', '127.0.0.1'],
  ] as const) {
    test(`--count ends it, on ${listen || 'all addresses'}`, async () => {
      const port = await freePort(address)
      const child = start(
        '--json',
        '--count',
        '2',
        '--listen',
        listen === '' ? `${port}` : `${listen}:${port}`,
      )
      const result = ended(child)
      await told(child, /listening on UDP/)
      const socket = createSocket(address === '::1' ? 'udp6' : 'udp4')
      for (const name of ['transit-delay', 'host-counters', 'ipv6-agent'])
        socket.send(bytesOf(name), port, address)
      const { status, out } = await result
      socket.close()
      const lines = out
        .trimEnd()
        .split('\n')
        .map(line => JSON.parse(line))
      assert.equal(status, 0)
      assert.deepEqual(
        lines.map(line => line.sequence_number),
        [1, 4],
      )
      assert.ok(lines[0].from.startsWith(address === '::1' ? '[::1]:' : '127.0.0.1:'))
      assert.ok(Math.abs(Date.parse(lines[0].time) - Date.now()) < 60_000)
    })
  }

  test('--seconds ends it', async () => {
    const { status, out } = await decode([
      '--seconds',
      '1',
      '--listen',
      `127.0.0.1:${await freePort('127.0.0.1')}`,
    ])
    assert.deepEqual([status, out], [0, ''])
  })

  test('a signal ends it', async () => {
    const child = start('--listen', `127.0.0.1:${await freePort('127.0.0.1')}`)
    const result = ended(child)
    await told(child, /listening on UDP/)
    child.kill('SIGTERM')
    assert.equal((await result).status, 0)
  })
})

test('it ends without a word when nobody reads its output', async () => {
  const port = await freePort('127.0.0.1')
  const child = start('--listen', `127.0.0.1:${port}`)
  let errors = ''
  child.stderr.on('data', piece => (errors += piece))
  const end = once(child, 'close')
  await told(child, /listening on UDP/)
  child.stdout.destroy()
  const socket = createSocket('udp4')
  const timer = setInterval(() => socket.send(bytesOf('transit-delay'), port, '127.0.0.1'), 20)
  const [status] = await end
  clearInterval(timer)
  socket.close()
  assert.equal(status, 0)
  assert.equal(errors, `weir decode: listening on UDP 127.0.0.1:${port}\n`)
})

test('a capture that tcpdump is still writing', async () => {
  const namespace = `weir-w-${process.pid}`
  const inside = (...args: string[]) => ['netns', 'exec', namespace, ...args]
  execFileSync('ip', ['netns', 'add', namespace])
  try {
    execFileSync('ip', ['-n', namespace, 'link', 'set', 'lo', 'up'])
    const tcpdump = spawn('ip', inside('tcpdump', '-i', 'lo', '-U', '-w', '-', 'udp', 'port', '6343'))
    const child = start('--json', '--count', '2', '-')
    const result = ended(child)
    tcpdump.stdout.pipe(child.stdin)
    child.stdin.on('error', () => {})
    await told(tcpdump, /listening on lo/)
    for (const [name, address] of [
      ['transit-delay', '127.0.0.1'],
      ['ipv6-agent', '::1'],
    ] as const) {
      const code = `const socket = require('node:dgram').createSocket('${address === '::1' ? 'udp6' : 'udp4'}')
        socket.send(Buffer.from('${bytesOf(name).toString('hex')}', 'hex'), 6343, '${address}', () => socket.close())`
      execFileSync('ip', inside(process.execPath, '-e', code))
    }
    const { status, out } = await result
    tcpdump.kill()
    await once(tcpdump, 'close')
    const agents = out
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line).agent_address)
    assert.deepEqual([status, agents], [0, ['192.0.2.1', '2001:db8::1']])
  } finally {
    execFileSync('ip', ['netns', 'del', namespace])
  }
})

test('captures in the forms that editcap writes', async () => {
  const original = file('forms.pcap', pcap(bytesOf('transit-delay'), bytesOf('ipv6-agent')))
  const expected = await decode([original])
  assert.equal(expected.status, 0)
  for (const form of ['nsecpcap', 'pcapng']) {
    const converted = join(directory, `forms.${form}`)
    execFileSync('editcap', ['-F', form, original, converted])
    assert.deepEqual(await decode([converted]), expected, form)
  }
})

/** Waits until the child says something on standard error that matches. */
async function told(child: ChildProcessWithoutNullStreams, pattern: RegExp): Promise<void> {
  let text = ''
  while (!pattern.test(text)) {
    const [piece] = await once(child.stderr, 'data')
    text += piece
  }
}
