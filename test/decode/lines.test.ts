import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { LineTime, sampleLines } from '../../agent/decode/line.ts'
import { Scanner } from '../../agent/decode/scanner.ts'
import { sflowtoolLines } from '../../agent/decode/sflowtool.ts'
import { isoTime } from '../../agent/decode/text.ts'
import { TextBuffer } from '../../agent/decode/text-buffer.ts'
import { recordOf } from '../../agent/wire/sflow/block.ts'
import { encodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import { extendedFunction, extendedHwTrap } from '../../agent/wire/sflow/flow/forwarding.ts'
import { discardedPacket } from '../../agent/wire/sflow/samples.ts'
import { freePort } from '../support/free-port.ts'
import { until } from '../support/lab.ts'
import { besideVector, VECTORS } from './vectors.ts'

function linesOf(bytes: Uint8Array, how: 'line' | 'sflowtool'): string {
  const pieces: Uint8Array[] = []
  const out = new TextBuffer(piece => void pieces.push(piece))
  const isWhole = new Scanner().scan(bytes, 0, bytes.length, {
    sample: sample =>
      how === 'line' ? sampleLines(sample, new LineTime(), out) : sflowtoolLines(sample, out),
  })
  assert.ok(isWhole)
  out.flush()
  return Buffer.concat(pieces).toString()
}

for (const [name, bytes] of VECTORS) {
  test(`${name} as lines (UPDATE=1 rewrites)`, () => {
    const lines = linesOf(bytes, 'line') + linesOf(bytes, 'sflowtool')
    const golden = besideVector(name, 'lines')
    if (process.env.UPDATE === '1') writeFileSync(golden, lines)
    assert.equal(lines, readFileSync(golden, 'utf8'))
  })
}

test('FLOW lines are those that sfcapd prints, whose decoder comes from sflowtool', async context => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-sfcapd-'))
  const port = await freePort()
  const sfcapd = spawn('sfcapd', ['-b', '127.0.0.1', '-p', String(port), '-w', folder, '-I', 'any', '-E'])
  context.after(async () => {
    sfcapd.kill('SIGKILL')
    if (sfcapd.exitCode === null && sfcapd.signalCode === null) await once(sfcapd, 'close')
    rmSync(folder, { recursive: true })
  })
  // It buffers what it prints until it ends, and may not listen yet.
  let printed = ''
  sfcapd.stdout.on('data', piece => (printed += piece))
  const names = ['transit-delay-expanded', 'ipv6-agent', 'compact-interfaces', 'expanded-interfaces']
  const expected = names.flatMap(name => linesOf(VECTORS.get(name)!, 'sflowtool').split('\n')).filter(isFlow)
  assert.ok(expected.length >= 6)
  const socket = createSocket('udp4')
  context.after(() => void socket.close())
  await until('socket of sfcapd', () => readFileSync('/proc/net/udp', 'utf8').includes(udpEntry(port)))
  for (const name of names) socket.send(VECTORS.get(name)!, port, '127.0.0.1')
  await until(
    'datagrams taken',
    () => queueOf(port) === 0 && readFileSync(`/proc/${sfcapd.pid}/wchan`) !== undefined,
  )
  await new Promise(resolve => setTimeout(resolve, 300))
  const end = once(sfcapd, 'close')
  sfcapd.kill('SIGTERM')
  await end
  // Its own additions: the word before the addresses.
  const lines = printed
    .split('\n')
    .filter(isFlow)
    .map(line => line.replace(',IP: ', ','))
  assert.deepEqual(lines, expected)
})

const isFlow = (line: string) => line.startsWith('FLOW,')
const udpEntry = (port: number) => `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`

/** Bytes that wait in the receive queue of a UDP port on 127.0.0.1. */
function queueOf(port: number): number {
  const line = readFileSync('/proc/net/udp', 'utf8')
    .split('\n')
    .find(text => text.includes(udpEntry(port)))
  return Number.parseInt(line?.trim().split(/\s+/)[4]?.split(':')[1] ?? '1', 16)
}

test('what a datagram carries is never obeyed by a terminal, and a line stays a line', () => {
  const value = {
    sequence_number: 1,
    source_id: { type: 0, index: 2 },
    drops: 0,
    inputifindex: 2,
    outputifindex: 0,
    reason: 258,
  }
  const evil = 'a\u001b[2J\n\u009b31m" reason=acl'
  const bytes = encodeDatagram({
    agent_address: '192.0.2.1',
    sub_agent_id: 0,
    sequence_number: 1,
    uptime: 1,
    samples: [
      {
        sample: discardedPacket,
        value,
        records: [
          recordOf(extendedFunction, { symbol: evil }),
          recordOf(extendedHwTrap, { group: evil, trap: evil }),
        ],
      },
    ],
  })
  const text = 'a?[2J???31m? reason=acl'
  assert.equal(
    linesOf(bytes, 'line'),
    'drop agent=192.0.2.1 seq=1 source=interface:2 drops=0 reason=acl in=2 out=0 ' +
      `function="${text}" trap_group="${text}" trap="${text}"\n`,
  )
})

suite('numbers in a text buffer', () => {
  const rows: number[] = [0, 7, 10, 99, 100, 101, 1000, 9999, 10_000, 65_535, 123_456, 1_000_000, 99_999_999]
  for (const value of [...rows, 100_000_000, 999_999_999, 1_000_000_000, 0xffffffff]) {
    test(String(value), () => {
      let text = ''
      const out = new TextBuffer(piece => (text += Buffer.from(piece)))
      out.number(value)
      out.ascii(' ')
      out.hex(value, 2)
      out.flush()
      assert.equal(text, `${value} ${value.toString(16).padStart(2, '0')}`)
    })
  }

  test('addresses and 64-bit numbers', () => {
    let text = ''
    const out = new TextBuffer(piece => (text += Buffer.from(piece)))
    out.ip4(Uint8Array.of(192, 0, 20, 255), 0)
    out.ascii(' ')
    out.ip4(Uint8Array.of(1, 99, 100, 200), 0)
    out.ascii(' ')
    out.number64(Buffer.from('ffffffffffffffff', 'hex'), 0)
    out.ascii(' ')
    out.number64(Buffer.from('0000000000000005', 'hex'), 0)
    out.flush()
    assert.equal(text, '192.0.20.255 1.99.100.200 18446744073709551615 5')
  })

  test('times are those of RFC 3339, also at the ends of what there can be', () => {
    const seconds = 1_000_000_000n
    const times = [
      ...[0n, 1n, 999_999n, 1_000_000n, seconds - 1n, seconds, 1_700_000_000_123_456_789n, -1n, -seconds],
      ...[-1500n * 1_000_000n, 253_402_300_800n * seconds, 2n ** 64n, -(2n ** 63n)],
    ]
    let text = ''
    const out = new TextBuffer(piece => (text += Buffer.from(piece)))
    const time = new LineTime()
    // Backwards, so that each second is another.
    for (const at of times.toReversed()) {
      time.set(at)
      time.write(out)
    }
    time.set(undefined)
    time.write(out)
    out.flush()
    assert.equal(
      text,
      times
        .toReversed()
        .map(at => `${isoTime(at)} `)
        .join(''),
    )
    assert.match(text, / 2023-11-14T22:13:20\.123Z /)
  })

  test('a piece that is given back is written again, one that is kept is not', () => {
    const pieces: Uint8Array[] = []
    const kept: Uint8Array[] = []
    const out = new TextBuffer((piece, done) => {
      pieces.push(piece)
      if (pieces.length === 1) kept.push(piece)
      else done()
    }, 1024)
    for (let i = 0; i < 400; i++) out.number(1_000_000 + i)
    assert.ok(pieces.length > 3)
    assert.equal(new Set(pieces.map(({ buffer }) => buffer)).size, 2)
    assert.ok(Buffer.from(kept[0]!).toString().startsWith('100000010000011000002'))
  })

  test('a text longer than the buffer', () => {
    let text = ''
    const out = new TextBuffer(piece => (text += Buffer.from(piece)), 1024)
    const long = 'x'.repeat(5000)
    out.ascii('begin ')
    out.text(long)
    out.bytesInHex(new Uint8Array(2000), 0, 2000)
    out.flush()
    assert.equal(text, `begin ${long}${'00'.repeat(2000)}`)
  })
})
