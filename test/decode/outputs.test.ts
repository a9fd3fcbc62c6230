import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { existsSync, linkSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { Scanner } from '../../agent/decode/scanner.ts'
import { Statistics } from '../../agent/decode/statistics.ts'
import { recordOf, type SampleBlock } from '../../agent/wire/sflow/block.ts'
import { portName } from '../../agent/wire/sflow/counters/interface.ts'
import { encodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import { countersSampleExpanded, flowSampleExpanded } from '../../agent/wire/sflow/samples.ts'
import { until } from '../support/lab.ts'
import { pcap } from './capture.ts'
import { VECTORS } from './vectors.ts'

const MAIN = join(import.meta.dirname, '../../agent/main.ts')
const directory = mkdtempSync(join(tmpdir(), 'weir-outputs-'))
after(() => rmSync(directory, { recursive: true }))

/** Runs `weir decode`; what is wrong and the exit status are part of the result. */
function decode(
  args: readonly string[],
  input: Uint8Array,
): { status: number | null; out: string; errors: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, 'decode', ...args], {
    input,
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { status, out: stdout, errors: stderr }
}

const vector = (name: string) => VECTORS.get(name)!
const tshark = (file: string, ...fields: string[]) =>
  execFileSync('tshark', ['-n', '-r', file, '-T', 'fields', ...fields.flatMap(field => ['-e', field])], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
    .trimEnd()
    .split('\n')
    .map(line => line.split('\t'))

suite('sampled headers as a capture that tshark reads', { concurrency: false }, () => {
  const input = pcap(vector('transit-delay'), vector('discarded-packet'), vector('host-counters'))
  // The second packet has a time stamp of its own; the others are as old as their datagram.
  const expected = [
    ['1700000000.000000000', '1442', '128', '98:03:9b:94:c7:d5', '192.0.2.2', '17', '1'],
    ['1700000000.123456789', '60', '54', '02:00:00:00:00:01', '198.51.100.7', '6', '1'],
  ]
  const FIELDS = ['frame.time_epoch', 'frame.len', 'frame.cap_len', 'eth.src', 'ip.src', 'ip.proto']

  for (const form of ['pcap', 'pcapng']) {
    test(form, () => {
      const file = join(directory, `out.${form}`)
      assert.deepEqual(decode(['--pcap', file, '-'], input), {
        status: 0,
        out: '',
        errors: `weir decode: ${file}: 2 packets\n`,
      })
      assert.deepEqual(tshark(file, ...FIELDS, 'frame.encap_type'), expected)
    })
  }

  test('pcapng tells interface and drop reason', () => {
    const file = join(directory, 'out.pcapng')
    assert.deepEqual(tshark(file, 'frame.interface_name', 'frame.comment'), [
      ['192.0.2.1 interface 2216', ''],
      ['192.0.2.1 interface 0', 'discarded: port_unreachable'],
    ])
  })

  test('headers of several link types: pcap holds the first, pcapng all', () => {
    const ip = Buffer.from(
      '450000280001000040060000c6336407c000020a9c4000170000000000000000501200000000',
      'hex',
    )
    const sample = (protocol: number): SampleBlock => ({
      sample: flowSampleExpanded,
      value: {
        sequence_number: 1,
        source_id: { type: 0, index: 2 },
        sampling_rate: 1,
        sample_pool: 1,
        drops: 0,
        input: { format: 0, value: 2 },
        output: { format: 0, value: 0 },
      },
      records: [recordOf(sampledHeader, { protocol, frame_length: 100, stripped: 0, header: ip })],
    })
    const agent = { agent_address: '192.0.2.1', sub_agent_id: 0, sequence_number: 1, uptime: 1 }
    const mixed = pcap(encodeDatagram({ ...agent, samples: [sample(11), sample(1), sample(99)] }))
    const one = join(directory, 'mixed.pcap')
    assert.match(
      decode(['-w', one, '-'], mixed).errors,
      /1 packet\n.*2 headers of another link type left out/,
    )
    assert.deepEqual(tshark(one, 'frame.encap_type', 'frame.len', 'ip.src'), [['129', '100', '198.51.100.7']])
    const all = join(directory, 'mixed.pcapng')
    assert.match(decode(['-w', all, '-'], mixed).errors, /2 packets\n.*1 header of another/)
    assert.equal(tshark(all, 'frame.encap_type').length, 2)
  })

  test('a file that cannot be written', () => {
    const { status, errors } = decode(['-w', join(directory, 'no/such/file'), '-'], input)
    assert.equal(status, 1)
    assert.match(errors, /no\/such\/file: it does not exist/)
  })

  test('a file that is there is not written over, unless that is asked for', () => {
    const file = join(directory, 'precious.pcap')
    writeFileSync(file, 'precious')
    const refused = decode(['-w', file, '-'], input)
    assert.equal(refused.status, 1)
    assert.equal(refused.errors, `weir decode: ${file} is there already; --force writes over it\n`)
    assert.equal(readFileSync(file, 'utf8'), 'precious')
    assert.equal(decode(['-w', file, '--force', '-'], input).status, 0)
    assert.deepEqual(tshark(file, ...FIELDS, 'frame.encap_type'), expected)
    assert.equal(decode(['-w', '/dev/null', '-'], input).status, 0)
  })

  test('what is read is not written over', () => {
    const file = join(directory, 'read.pcap')
    writeFileSync(file, input)
    symlinkSync(file, join(directory, 'read-symbolic.pcapng'))
    linkSync(file, join(directory, 'read-hard.pcap'))
    for (const name of ['read.pcap', 'read-symbolic.pcapng', 'read-hard.pcap']) {
      const output = join(directory, name)
      assert.deepEqual(decode(['--force', '-w', output, file], input), {
        status: 1,
        out: '',
        errors: `weir decode: ${output} is the file that is read: write to another one\n`,
      })
      assert.deepEqual(readFileSync(file), Buffer.from(input))
    }
    for (const words of [`--force -w "$0" - < "$0"`, `-w - "$0" >> "$0"`]) {
      const line = `"$1" "$2" decode ${words}`
      const { status, stderr } = spawnSync('sh', ['-c', line, file, process.execPath, MAIN], {
        encoding: 'utf8',
        timeout: 60_000,
      })
      assert.equal(status, 1, words)
      assert.match(stderr, /is the file that is read: write to another one\n$/)
      assert.deepEqual(readFileSync(file), Buffer.from(input))
    }
  })

  test('without input, a file that is there stays and none is made', () => {
    const there = join(directory, 'there.pcap')
    writeFileSync(there, 'precious')
    const none = join(directory, 'none.pcap')
    for (const from of [
      ['/no/such/file'],
      [directory],
      ['-l', '192.0.2.77:6343'],
      ['-f', 'x'.repeat(64), '-'],
    ]) {
      assert.equal(decode(['--force', '-w', there, ...from], input).status, 1)
      assert.equal(readFileSync(there, 'utf8'), 'precious', from.join(' '))
      assert.equal(decode(['-w', none, ...from], input).status, 1)
      assert.equal(existsSync(none), false, from.join(' '))
    }
  })

  test('a shorter capture is written over a longer one', () => {
    const file = join(directory, 'longer.pcap')
    writeFileSync(file, Buffer.alloc(100_000, 1))
    assert.equal(decode(['-w', file, '--force', '-'], input).status, 0)
    assert.deepEqual(tshark(file, ...FIELDS, 'frame.encap_type'), expected)
  })

  test('to standard output, and not together with text', () => {
    const piped = join(directory, 'piped.pcap')
    const { stdout } = spawnSync(process.execPath, [MAIN, 'decode', '-w', '-', '-'], { input })
    writeFileSync(piped, stdout)
    assert.deepEqual(tshark(piped, ...FIELDS, 'frame.encap_type'), expected)
    assert.match(decode(['-w', '-', '--line', '-'], input).errors, /cannot both go to standard output/)
  })
})

test('datagrams are forwarded byte for byte to every target', async () => {
  const sockets = [createSocket('udp4'), createSocket('udp6')]
  const got: Buffer[][] = [[], []]
  try {
    const addresses = ['127.0.0.1', '::1']
    for (const [i, socket] of sockets.entries()) {
      socket.on('message', bytes => got[i]!.push(bytes))
      socket.bind(0, addresses[i])
      await once(socket, 'listening')
    }
    const [four, six] = sockets.map(socket => socket.address().port)
    const file = join(directory, 'forward.pcap')
    const payloads = [...VECTORS.values(), Buffer.from('this is no datagram')]
    writeFileSync(file, pcap(...payloads))
    const { spawn } = await import('node:child_process')
    const child = spawn(process.execPath, [
      MAIN,
      'decode',
      '-f',
      `127.0.0.1:${four}`,
      '--forward',
      `[::1]:${six}`,
      file,
    ])
    let errors = ''
    child.stderr.on('data', piece => (errors += piece))
    const [status] = await once(child, 'close')
    await until('all datagrams', () => got.every(list => list.length >= payloads.length))
    // What cannot be decoded is forwarded too, and told.
    assert.equal(status, 1)
    for (const list of got) assert.deepEqual(list, payloads)
    assert.ok(errors.includes(`forwarded ${payloads.length} datagrams to 127.0.0.1:${four}\n`), errors)
    assert.ok(errors.includes('version is 1952999795, not 5'), errors)
  } finally {
    for (const socket of sockets) socket.close()
  }
})

test('what could not be forwarded, or written, is told of its target and makes the exit status', async t => {
  const file = join(directory, 'many.pcap')
  writeFileSync(file, pcap(...new Array<Uint8Array>(20).fill(vector('transit-delay'))))
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.after(() => socket[Symbol.asyncDispose]())
  const target = `127.0.0.1:${socket.address().port}`
  const forward = (...more: string[]) => decode(['-f', target, ...more, file], new Uint8Array())
  const one = forward('--count', '1')
  assert.deepEqual([one.errors, one.status], [`weir decode: forwarded 1 datagram to ${target}\n`, 0])
  await socket[Symbol.asyncDispose]()
  const none = forward()
  assert.match(
    none.errors,
    /^weir decode: forwarded \d+ datagrams? to \S+, \d+ errors?, the last: .*ECONNREFUSED.*\n$/,
  )
  assert.equal(none.status, 1)

  const full = decode(['-w', '/dev/full', file], new Uint8Array())
  const problem = 'weir decode: /dev/full: ENOSPC: no space left on device, write\n'
  assert.deepEqual([full.errors, full.status], [problem, 1])
})

test('JSON, text and lines: nothing in a datagram reaches the terminal raw', () => {
  const evil = 'eth\u001b]0;owned\u0007\u009b2J\u202e\u2066<b>\r\n\u007f'
  const bytes = encodeDatagram({
    agent_address: '192.0.2.1',
    sub_agent_id: 0,
    sequence_number: 1,
    uptime: 1,
    samples: [
      {
        sample: countersSampleExpanded,
        value: { sequence_number: 1, source_id: { type: 0, index: 1 } },
        records: [recordOf(portName, { name: evil })],
      },
    ],
  })
  for (const args of [[], ['--json'], ['--line'], ['--sflowtool'], ['--statistics']]) {
    const { out, errors } = decode([...args, '-'], pcap(bytes))
    for (const line of (out + errors).split('\n')) assert.doesNotMatch(line, /[\p{Cc}\p{Cf}]/u, args.join())
    if (args[0] === '--json') assert.equal(JSON.parse(out).samples[0].records[0].value.name, evil)
  }
})

suite('statistics', () => {
  /** Datagrams with one flow sample each. */
  function statistics(
    rows: readonly { datagram: number; sample: number; pool?: number; drops?: number; up?: number }[],
  ) {
    const statistics = new Statistics()
    const scanner = new Scanner()
    for (const { datagram, sample, pool = sample * 100, drops = 0, up = datagram * 10 } of rows) {
      const bytes = encodeDatagram({
        agent_address: '192.0.2.1',
        sub_agent_id: 5,
        sequence_number: datagram >>> 0,
        uptime: up >>> 0,
        samples: [
          {
            sample: flowSampleExpanded,
            value: {
              sequence_number: sample >>> 0,
              source_id: { type: 0, index: 3 },
              sampling_rate: 100,
              sample_pool: pool,
              drops,
              input: { format: 0, value: 3 },
              output: { format: 0, value: 0 },
            },
            records: [],
          },
        ],
      })
      assert.ok(scanner.scan(bytes, 0, bytes.length, statistics))
    }
    const stream = statistics.streams.get('192.0.2.1 5')!
    const [source] = stream.sources.values()
    const { received, lost, late, duplicates, restarts } = stream.datagrams
    return {
      datagrams: [received, lost, late, duplicates, restarts],
      samples: [source!.sequence.received, source!.sequence.lost],
      packets: source!.packets,
      rate: source!.effectiveRate,
      drops: source!.drops,
    }
  }

  const one = (datagram: number, sample: number, more: object = {}) => ({ datagram, sample, ...more })
  const rows: [name: string, datagrams: Parameters<typeof statistics>[0], expected: object][] = [
    [
      'in order',
      [one(1, 1), one(2, 2), one(3, 3)],
      { datagrams: [3, 0, 0, 0, 0], samples: [3, 0], packets: 200, rate: 100 },
    ],
    [
      'two missing',
      [one(1, 1), one(4, 4)],
      { datagrams: [2, 2, 0, 0, 0], samples: [2, 2], packets: 300, rate: 100 },
    ],
    [
      'one late: not missing any more',
      [one(1, 1), one(3, 3), one(2, 2)],
      { datagrams: [3, 0, 1, 0, 0], samples: [3, 0] },
    ],
    ['one twice', [one(1, 1), one(1, 1)], { datagrams: [2, 0, 0, 1, 0] }],
    [
      'numbers wrap',
      [one(-1, -1, { pool: 0xffffffff }), one(0, 0, { pool: 99 })],
      { datagrams: [2, 0, 0, 0, 0], samples: [2, 0], packets: 100 },
    ],
    [
      'a restart is no loss',
      [one(900, 900), one(1, 1, { up: 3 }), one(2, 2, { up: 4 })],
      { datagrams: [3, 0, 0, 0, 1], samples: [3, 0], packets: 100 },
    ],
    ['the agent itself lost some', [one(1, 1, { drops: 5 }), one(2, 2, { drops: 12 })], { drops: 7 }],
    [
      'the pool tells another rate',
      [one(1, 1, { pool: 1 }), one(2, 2, { pool: 251 }), one(3, 3, { pool: 401 })],
      { rate: 200 },
    ],
  ]
  for (const [name, datagrams, expected] of rows) {
    test(name, () => {
      const got: Record<string, unknown> = statistics(datagrams)
      assert.deepEqual(Object.fromEntries(Object.keys(expected).map(key => [key, got[key]])), expected)
    })
  }

  test('printed, as text and as JSON', () => {
    const input = pcap(
      vector('host-counters'),
      vector('interface-and-vendor-counters'),
      vector('transit-delay'),
    )
    const { out, errors, status } = decode(['--statistics', '-'], Buffer.concat([input]))
    assert.deepEqual([status, errors], [0, ''])
    assert.deepEqual(out.split('\n').slice(0, 3), [
      'agent 192.0.2.1 sub-agent 100000: 2 datagrams, 1,376 bytes, 0 flow samples, 2 counters samples, 0 discarded packets, 0 others',
      '  datagrams: 2 missing',
      '  counters samples of interface 3: 1, 0 missing',
    ])
    const json = JSON.parse(decode(['--statistics', '--json', '-'], input).out)
    assert.deepEqual(
      json.streams.map((stream: { sub_agent_id: number; datagrams: { lost: number } }) => [
        stream.sub_agent_id,
        stream.datagrams.lost,
      ]),
      [
        [100_000, 2],
        [0, 0],
      ],
    )
    assert.deepEqual(json.streams[1].sources[0], {
      kind: 'flow',
      source_id: { type: 0, index: 2216 },
      received: 1,
      lost: 0,
      late: 0,
      duplicates: 0,
      restarts: 0,
      drops: 0,
      sampling_rate: 400,
      packets: 0,
      effective_rate: null,
    })
  })

  test('sources of agents that nobody has are not kept without end', () => {
    const statistics = new Statistics()
    const scanner = new Scanner()
    const bytes = Buffer.from(vector('transit-delay'))
    for (let i = 0; i < 30_000; i++) {
      bytes.writeUInt32BE(i, 8)
      scanner.scan(bytes, 0, bytes.length, statistics)
    }
    assert.equal(statistics.streams.size, 10_000)
    assert.equal(statistics.notKept, 20_000)
  })
})

test('what is wrong is told in every form, and the rest is shown', () => {
  const broken = Buffer.from(vector('transit-delay'))
  broken.writeUInt32BE(129, 124)
  const short = vector('transit-delay').subarray(0, 100)
  const input = pcap(broken, short, vector('ipv6-agent'))
  for (const form of ['--line', '--sflowtool', '--statistics']) {
    const { status, out, errors } = decode([form, '-'], input)
    assert.equal(status, 1, form)
    assert.match(errors, /in sampled_header: header needs 129 bytes, 128 left at byte offset 128\n/, form)
    assert.match(errors, /in flow_sample 1: length is 220, 64 bytes left at byte offset 32\n/, form)
    assert.match(out, /2001:0?db8/, form)
  }
  assert.equal(readFileSync(join(directory, 'out.pcap')).readUInt32BE(0), 0xa1b23c4d)
})
