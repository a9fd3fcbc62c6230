import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import { DropNames } from '../../agent/drops/drop-names.ts'
import { OwnDatagrams } from '../../agent/drops/own-datagrams.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'
import { Interfaces } from '../../agent/interfaces.ts'
import { UdpSender } from '../../agent/kernel/udp-sender.ts'
import { DropReports } from '../../agent/parts/drop-reports.ts'
import { type Drop, emptyDrop, Names } from '../../agent/samples/drop.ts'
import { HEADER_PROTOCOL } from '../../agent/samples/packet-sample.ts'
import { BpfDrops, type DropReceiver } from '../../agent/sources/bpf-drops.ts'
import { parseIp4, parseIp6 } from '../../agent/wire/addresses.ts'
import { until } from '../support/lab.ts'

/** What nobody calls before the programs begin. */
const UNUSED = {} as DropReceiver
const IP4 = { type: 'udp4', here: '127.0.0.1', other: '127.0.0.2' } as const
const IP6 = { type: 'udp6', here: '::1', other: '::2' } as const

interface Ends {
  readonly source: string
  readonly destination: string
  readonly sourcePort: number
  readonly port: number
  readonly protocol?: number
}

/** A packet from its IP header to its ports. */
function packet({ source, destination, sourcePort, port, protocol = 17 }: Ends): Uint8Array {
  const ports = [sourcePort >> 8, sourcePort & 255, port >> 8, port & 255]
  const ip4 = parseIp4(source)
  if (ip4 !== undefined) {
    return Uint8Array.from([
      0x45,
      ...Array(8).fill(0),
      protocol,
      0,
      0,
      ...ip4,
      ...parseIp4(destination)!,
      ...ports,
    ])
  }
  const addresses = [...parseIp6(source)!, ...parseIp6(destination)!]
  return Uint8Array.from([0x60, 0, 0, 0, 0, 0, protocol, 64, ...addresses, ...ports])
}

function drop(bytes: Uint8Array, headerProtocol: number): Drop {
  const memory = new Uint8Array(8 + bytes.length + (-bytes.length & 3))
  memory.set(bytes, 8)
  const headerWords = new Int32Array(memory.buffer)
  return { ...emptyDrop(), headerProtocol, headerWords, headerOffset: 8, headerLength: bytes.length }
}

test('a filter that refuses does no harm: the kernel has room for so many sockets', {
  skip: process.getuid!() === 0 ? false : 'needs root',
}, async t => {
  const lines: { msg: string }[] = []
  const names = new Names()
  const filter = await BpfDrops.open({
    receiver: { ...UNUSED, leftOutByReason: () => undefined, share: 1 },
    names,
    words: new DropNames(names),
    interfaces: new Set<number>(),
    ledger: new Ledger(),
    software: true,
    hardware: false,
    headerBytes: 128,
    limit: 100,
  })
  t.after(() => filter.stop())
  for (let i = 1; i <= 2048; i++) {
    const number = Uint8Array.of(i >> 8, i & 255, 0, 0)
    filter.addOwn({ cookie: Uint8Array.of(...number, 0, 0, 0, 1), ends: number, onClose: undefined })
  }
  const own = new OwnDatagrams(
    createLogger('info', { stream: { write: line => lines.push(JSON.parse(line)) } }),
  )
  own.tell(filter)
  const sockets = () => readdirSync('/proc/self/fd').length
  const before = sockets()
  const sender = own.watch(UdpSender.open({ address: '127.0.0.1', port: 9 }))
  own.tell(filter)
  assert.equal(sockets(), before + 1)
  assert.deepEqual(
    lines.map(({ msg }) => msg),
    [
      'own datagrams are left out behind the kernel, not in it: update own_sockets: E2BIG (argument list too long)',
    ],
  )
  const [source, destination] = [sender.ends.subarray(0, 4).join('.'), '127.0.0.1']
  const [sourcePort, port] = [new DataView(sender.ends.buffer).getUint16(8), 9]
  const bytes = packet({ source, destination, sourcePort, port })
  assert.equal(own.has(drop(bytes, HEADER_PROTOCOL.ipv4)), true)
  sender.close()
  assert.equal(sockets(), before)
})

test('a start that fails behind the loading leaves no program in the kernel', {
  skip: process.getuid!() === 0 ? false : 'needs root',
}, async t => {
  const log = createLogger('fatal')
  const ledger = new Ledger()
  const own = new OwnDatagrams(log)
  const programs = () =>
    readdirSync('/proc/self/fdinfo').filter(fd => {
      try {
        return readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').includes('prog_tag:')
      } catch {
        return false
      }
    }).length
  const before = programs()
  let seen = before
  const drops = new DropReports({
    datagrams: new Datagrams(
      { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes: 1400, flushMs: 1000 },
      () => {},
      () => 0,
    ),
    interfaces: new Interfaces({ log }),
    ledger,
    log,
    own,
    takeFollowed: () => {
      seen = programs()
      if (seen > before) throw new Error('a sampler that is gone')
    },
  })
  t.after(() => drops.stop())
  const { config } = loadConfig(
    'sFlow { collector { ip = 192.0.2.1 } dropmon { source = ebpf hw = off } }',
    'weir.conf',
  )
  await drops.change(config!.dropmon, 128)
  await until('the refusal', () => drops.sources().some(({ state }) => state === 'refused'))
  assert.ok(seen > before)
  assert.equal(programs(), before)
})

describe('datagrams of a socket are known by their ends', () => {
  for (const { type, here, other } of [IP4, IP6]) {
    test(type, async t => {
      const receiver = createSocket(type)
      t.after(() => receiver.close())
      receiver.bind(0, here)
      await once(receiver, 'listening')
      const { port } = receiver.address()
      const own = new OwnDatagrams(createLogger('error'))
      const sender = own.watch(UdpSender.open({ address: here, port }))
      t.after(() => sender.close())
      sender.send(new ArrayBuffer(8), Int32Array.of(0, 8), 1)
      const [, { port: sourcePort }] = (await once(receiver, 'message')) as [Buffer, { port: number }]

      const ends = { source: here, destination: here, sourcePort, port }
      const plain = type === 'udp4' ? HEADER_PROTOCOL.ipv4 : HEADER_PROTOCOL.ipv6
      const has = (changed: Partial<Ends>) => own.has(drop(packet({ ...ends, ...changed }), plain))
      assert.equal(has({}), true)
      for (const changed of [
        { source: other },
        { destination: other },
        { sourcePort: sourcePort ^ 1 },
        { port: port ^ 1 },
        { protocol: 6 },
        { source: here === '::1' ? '127.0.0.1' : '::1', destination: here === '::1' ? '127.0.0.1' : '::1' },
      ]) {
        assert.equal(own.has(drop(packet({ ...ends, ...changed }), plain)), false, JSON.stringify(changed))
      }

      const bytes = packet(ends)
      const etherType = type === 'udp4' ? [0x08, 0x00] : [0x86, 0xdd]
      const framed = (tag: number[]) =>
        Uint8Array.from([...Array(12).fill(2), ...tag, ...etherType, ...bytes])
      assert.equal(own.has(drop(framed([]), HEADER_PROTOCOL.ethernet)), true)
      assert.equal(own.has(drop(framed([0x81, 0, 0, 7]), HEADER_PROTOCOL.ethernet)), true)
      assert.equal(own.has(drop(framed([0x08, 0x06]), HEADER_PROTOCOL.ethernet)), false)
      for (let length = 0; length < bytes.length; length++)
        assert.equal(own.has(drop(bytes.subarray(0, length), plain)), false, `${length} bytes`)

      t.mock.timers.enable({ apis: ['setTimeout'] })
      sender.close()
      t.mock.timers.tick(4999)
      assert.equal(has({}), true, 'one may wait for a neighbour')
      t.mock.timers.tick(1)
      assert.equal(has({}), false, 'the socket is closed')
    })
  }
})
