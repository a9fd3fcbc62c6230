/**
 * Dropped packets among flow samples, as other programs take them: most do not know the sample (0:5), and none may lose
 * what is around it.
 */
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Notifier } from '../../agent/datasource/notifier.ts'
import { Sampler } from '../../agent/datasource/sampler.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { addressFamily, internetAddress } from '../../agent/kernel/sockaddr.ts'
import { emptyDrop, Names } from '../../agent/samples/drop.ts'
import { emptyPacketSample } from '../../agent/samples/packet-sample.ts'
import { startSfacctd, startSfcapd, startTshark, type Tree } from '../support/collectors.ts'
import { udpFrame } from '../support/frames.ts'
import { makeLab } from '../support/lab.ts'

const SFACCTD_PORT = 6343
const SFCAPD_PORT = 6344
const SOCK_DGRAM = 2
const ROUNDS = 5

/** What the agent sends of one packet sampled and dropped again and again. */
function datagramsOf(rounds: number): Uint8Array[] {
  const sent: Uint8Array[] = []
  const datagrams = new Datagrams(
    { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes: 1400, flushMs: 1000 },
    (memory, spans, count) => {
      for (let i = 0; i < count; i++) {
        sent.push(new Uint8Array(memory.slice(spans[i * 2]!, spans[i * 2]! + spans[i * 2 + 1]!)))
      }
    },
    () => 0,
  )
  const ledger = new Ledger()
  const sampler = new Sampler(datagrams, ledger, 128)
  const notifier = new Notifier({ datagrams, ledger, now: () => 0 })
  notifier.change({
    reasonNames: true,
    unknownTraps: false,
    host: true,
    hide: undefined,
    headerBytes: 128,
    limit: 1000,
  })
  const names = new Names()
  const packet = udpFrame({
    to: '02:00:00:00:00:01',
    from: '02:00:00:00:00:02',
    source: '198.18.0.2',
    destination: '198.18.0.1',
    port: 7001,
    payloadBytes: 86,
  })
  const header = {
    frameLength: packet.length + 4,
    stripped: 4,
    headerWords: new Int32Array(packet.buffer),
    headerLength: packet.length,
    timestampHigh: 1,
  }
  for (let round = 0; round < rounds; round++) {
    sampler.accept({
      ...emptyPacketSample(),
      ...header,
      dataSource: 2,
      samplingRate: 10,
      inputIfIndex: 2,
      inputVlan: 20,
      inputPriority: 5,
    })
    notifier.accept({
      ...emptyDrop(),
      ...header,
      inputIfIndex: 2,
      etherType: 0x0800,
      reason: names.of('NO_SOCKET'),
      symbol: names.of('__udp4_lib_rcv+0x1a5/0x550'),
    })
    notifier.accept({
      ...emptyDrop(),
      ...header,
      hardware: true,
      inputIfIndex: 2,
      trap: names.of('tail_drop'),
      trapGroup: names.of('buffer_drops'),
    })
  }
  datagrams.stop()
  return sent
}

test('dropped packets harm no collector', {
  skip: process.getuid!() === 0 ? false : 'needs root',
}, async t => {
  const { host, peer, folder } = makeLab(t)
  const address = peer.mgmt0.ipv4
  const place = { namespace: peer.namespace, folder: join(folder, 'collectors') }
  mkdirSync(place.folder)
  const [sfacctd, sfcapd, tshark] = await Promise.all([
    startSfacctd(t, place, { address, port: SFACCTD_PORT }),
    startSfcapd(t, place, { address, port: SFCAPD_PORT }),
    startTshark(t, place, 'mgmt0', [SFACCTD_PORT, SFCAPD_PORT]),
  ])
  // A flow sample and the two drops behind it: the next flow sample begins another datagram.
  const datagrams = datagramsOf(ROUNDS)
  assert.equal(datagrams.length, ROUNDS)
  for (const port of [SFACCTD_PORT, SFCAPD_PORT]) {
    const target = internetAddress(address, port)!
    const socket = KernelSocket.open('datagrams', addressFamily(target), SOCK_DGRAM, 0, host.namespace)
    t.after(() => socket.close())
    socket.connect(target, 'connect')
    for (const datagram of datagrams) await socket.sendAsync(datagram, 'send')
  }

  const wire = await tshark.end(2 * ROUNDS)
  wire.forEach(({ malformed, sequence, sampleCount, samples }, i) => {
    assert.equal(malformed, false, `datagram ${i}`)
    assert.equal(sequence, (i % ROUNDS) + 1)
    assert.equal(sampleCount, 3)
    const vlans = samples[0]!.tree['Extended switch data'] as Tree
    assert.deepEqual(
      ['vlan.in', 'pri.in', 'vlan.out', 'pri.out'].map(field => vlans[`sflow_245.${field}`]),
      ['20', '5', '4294967295', '4294967295'],
    )
    // It knows nothing of drops but their length, and steps over them.
    assert.deepEqual(
      samples.map(({ format }) => format),
      [3],
    )
  })
  const { flows } = await sfacctd.end()
  assert.deepEqual(
    flows.map(({ samples }) => samples),
    [ROUNDS],
  )
  const nfdump = await sfcapd.end()
  assert.equal(nfdump.sequenceErrors, 0)
  assert.equal(nfdump.packets, ROUNDS * 10)
})
