/** A host that passes packets on reports, on the wire, where they left, what waited there and how long it took. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import {
  extendedEgressQueue,
  extendedLinuxDropReason,
  extendedQueue,
  extendedTimestamp,
  extendedTransit,
} from '../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import type { FlowSample } from '../../agent/wire/sflow/samples.ts'
import {
  type ArrivedSample,
  type Collector,
  discardsOf,
  flowSamplesOf,
  ip,
  type Lab,
  listen,
  makeLab,
  runWeir,
  sendFrames,
  startAgent,
  until,
} from '../support/lab.ts'
import { ip4Header } from '../support/packets.ts'

const PACKETS = 20
const BYTES = 1000
/** IP protocol for experiments. */
const PROTOCOL = 253
const FAR_AWAY = '198.51.100.9'
const NOWHERE = '203.0.113.9'

function tc({ host }: Lab, line: string): string {
  return execFileSync('ip', ['netns', 'exec', host.namespace, 'tc', ...line.split(' ')], { encoding: 'utf8' })
}

/** Sends packets for the host to pass on. */
function send({ host, peer }: Lab, to = FAR_AWAY, count = PACKETS): void {
  const packet = Buffer.alloc(BYTES)
  packet.write(host.eth0.mac.replaceAll(':', ''), 0, 'hex')
  packet.write(peer.eth0.mac.replaceAll(':', ''), 6, 'hex')
  packet.writeUInt16BE(0x0800, 12)
  packet.set(ip4Header({ bytes: BYTES - 14, protocol: PROTOCOL, from: peer.eth0.ipv4, to }), 14)
  sendFrames(peer.namespace, peer.eth0.ifIndex, packet, count)
}

/** Samples of what send() sends. */
function received({ host }: Lab, collector: Collector): ArrivedSample<FlowSample>[] {
  return flowSamplesOf(collector).filter(
    sample => sample.value.input.value === host.eth0.ifIndex && isOurs(sample),
  )
}

function isOurs({ records }: Pick<ArrivedSample<unknown>, 'records'>): boolean {
  return findRecord(records, sampledHeader)!.header[23] === PROTOCOL
}

/** What the queue has no room for is reported as dropped, once, and so is the output of its flow sample. Gives the number. */
async function expectDrops(lab: Lab, collector: Collector): Promise<number> {
  const { eth0, mgmt0 } = lab.host
  const NO_BUFFER_SPACE = 259
  const DISCARDED = { format: 1, value: NO_BUFFER_SPACE }
  tc(lab, `qdisc replace dev mgmt0 root tbf rate 8mbit burst ${BYTES} limit ${2 * BYTES}`)
  const before = received(lab, collector).length
  send(lab)
  await until('all samples', () => received(lab, collector).length >= before + PACKETS)
  const flows = received(lab, collector).filter(({ value }) => value.output.format === DISCARDED.format)
  assert.ok(flows.length > PACKETS / 2, `${flows.length} dropped`)
  // The host may lose something of its own there.
  const discards = () => discardsOf(collector).filter(isOurs)
  await until('all drops', () => discards().length >= flows.length)
  const reported = discards()
  assert.equal(reported.length, flows.length)
  for (const [i, { value, records }] of reported.entries()) {
    const { inputifindex, outputifindex, reason } = value
    assert.deepEqual([inputifindex, outputifindex, reason], [eth0.ifIndex, mgmt0.ifIndex, NO_BUFFER_SPACE])
    assert.match(findRecord(records, extendedLinuxDropReason)!.reason, /QDISC/)
    const flow = flows[i]!
    assert.deepEqual(flow.value.output, DISCARDED)
    // Where it is dropped its link header is that of the way out, and before that of the way in.
    const packet = (all: typeof records) => findRecord(all, sampledHeader)!.header.subarray(14, 22)
    assert.deepEqual(packet(records), packet(flow.records))
  }
  return flows.length
}

const ROUTERS = [
  { name: 'transit = on', transit: 'on', others: '' },
  { name: 'transit = on, and dropmon', transit: 'on', others: 'dropmon { }' },
  { name: 'transit = off', transit: 'off', others: '' },
]
for (const { name, transit, others } of ROUTERS) {
  test(`a router with ${name}`, async t => {
    const lab = makeLab(t)
    const { host, peer } = lab
    ip(`netns exec ${host.namespace} sysctl -qw net.ipv4.ip_forward=1`)
    ip(`-n ${host.namespace} neighbour replace ${FAR_AWAY} lladdr ${peer.mgmt0.mac} dev mgmt0 nud permanent`)
    // Datagrams take the way that the packets came by: the other one has a queue that fills.
    const collector = listen(t, peer.namespace, { address: peer.eth0.ipv4, port: SFLOW_PORT })
    const agent = startAgent(
      t,
      lab,
      `polling = 0
      ebpf { transit = ${transit} }
      pcap { dev = eth0 sampling = 1 }
      ${others}
      collector { ip = ${peer.eth0.ipv4} }`,
    )
    await agent.line(/^running$/)
    tc(lab, `qdisc replace dev mgmt0 root tbf rate 8mbit burst ${BYTES} limit 200000`)
    send(lab)

    const samples = await until(
      'all samples',
      () => received(lab, collector).length >= PACKETS && received(lab, collector),
    )
    assert.equal(samples.length, PACKETS)
    // There are kernels that do not run our programs on top of some tasks (bpf/README.md).
    let unseen = 0
    for (const { value, records } of samples) {
      assert.ok(findRecord(records, extendedTimestamp))
      const queue = findRecord(records, extendedEgressQueue)?.queue
      const depth = findRecord(records, extendedQueue)?.depth
      const delay = findRecord(records, extendedTransit)?.delay
      if (transit === 'off') {
        assert.deepEqual([value.output.value, queue, depth, delay], [0, undefined, undefined, undefined])
      } else {
        if (queue === undefined || depth === undefined || delay === undefined) {
          unseen++
          continue
        }
        assert.deepEqual([value.output.value, queue], [host.mgmt0.ifIndex, 0])
        assert.equal(depth % BYTES, 0)
        // One octet takes a microsecond.
        assert.ok(delay > (depth - 2 * BYTES) * 1000, `${depth} bytes, ${delay} ns`)
      }
    }
    assert.ok(unseen < PACKETS / 2, `${unseen} without depth or delay`)
    const drops = transit === 'on' ? await expectDrops(lab, collector) : 0
    const { exit, status } = await agent.stop()
    assert.equal(exit, 0)
    assert.equal(status.lost['transit/dropped'] ?? 0, drops)
    // Nothing is reported by both.
    assert.equal(discardsOf(collector).filter(isOurs).length, drops)
  })
}

test('each drop of a followed packet is reported once while dropmon comes and goes', async t => {
  const [TURNS, EACH, PAUSE_MS] = [6, 15, 20]
  const lab = makeLab(t)
  const { host, peer } = lab
  ip(`netns exec ${host.namespace} sysctl -qw net.ipv4.ip_forward=1`)
  ip(`-n ${host.namespace} route add blackhole ${NOWHERE}`)
  const collector = listen(t, peer.namespace, { address: peer.eth0.ipv4, port: SFLOW_PORT })
  const conf = join(lab.folder, 'turns.conf')
  const write = (others: string) =>
    writeFileSync(
      conf,
      `sFlow { polling = 0 pcap { dev = eth0 sampling = 1 } ${others} collector { ip = ${peer.eth0.ipv4} } }\n`,
    )
  write('')
  const agent = runWeir(t, ['ip', 'netns', 'exec', host.namespace], ['run', '-f', conf])
  await agent.line(/^running$/)
  const discards = () => discardsOf(collector).filter(isOurs)
  for (let turn = 0; turn < TURNS; turn++) {
    const before = agent.log.length
    write(turn % 2 === 0 ? 'dropmon { source = ebpf limit = 1000 }' : '')
    agent.child.kill('SIGHUP')
    for (let i = 0; i < EACH; i++) {
      send(lab, NOWHERE, 1)
      await sleep(PAUSE_MS)
    }
    await agent.line(turn % 2 === 0 ? /^listening for dropped packets/ : /configuration has changed/, before)
  }
  await until('all samples', () => received(lab, collector).length >= TURNS * EACH)
  const { exit } = await agent.stop()
  assert.equal(exit, 0)
  const flows = received(lab, collector).filter(({ value }) => value.output.format === 1)
  await until('all drops', () => discards().length >= flows.length)
  assert.equal(received(lab, collector).length, TURNS * EACH)
  assert.ok(flows.length > (TURNS * EACH) / 2, `${flows.length} dropped`)
  assert.equal(discards().length, flows.length)
})
