import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { describe, test } from 'node:test'
import { OwnDatagrams } from '../../agent/drops/own-datagrams.ts'
import { UdpSender } from '../../agent/kernel/udp-sender.ts'
import { type Drop, emptyDrop } from '../../agent/samples/drop.ts'
import { HEADER_PROTOCOL } from '../../agent/samples/packet-sample.ts'
import { parseIp4, parseIp6 } from '../../agent/wire/addresses.ts'

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

describe('datagrams of a socket are known by their ends', () => {
  for (const { type, here, other } of [IP4, IP6]) {
    test(type, async t => {
      const receiver = createSocket(type)
      t.after(() => receiver.close())
      receiver.bind(0, here)
      await once(receiver, 'listening')
      const { port } = receiver.address()
      const own = new OwnDatagrams()
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

      sender.close()
      assert.equal(has({}), false, 'the socket is closed')
    })
  }
})
