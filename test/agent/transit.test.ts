/** A host that passes packets on reports, on the wire, where they left, what waited there and how long it took. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
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
import {
  type Collector,
  discardsOf,
  flowSamplesOf,
  ip,
  type Lab,
  listen,
  makeLab,
  sendFrames,
  startAgent,
  until,
} from '../support/lab.ts'
import { ip4Header } from '../support/packets.ts'

const PACKETS = 20
const BYTES = 1000
const FAR_AWAY = '198.51.100.9'

function tc({ host }: Lab, line: string): string {
  return execFileSync('ip', ['netns', 'exec', host.namespace, 'tc', ...line.split(' ')], { encoding: 'utf8' })
}

/** Sends packets for the host to pass on. */
function send({ host, peer }: Lab): void {
  const packet = Buffer.alloc(BYTES)
  packet.write(host.eth0.mac.replaceAll(':', ''), 0, 'hex')
  packet.write(peer.eth0.mac.replaceAll(':', ''), 6, 'hex')
  packet.writeUInt16BE(0x0800, 12)
  packet.set(ip4Header({ bytes: BYTES - 14, protocol: 253, from: peer.eth0.ipv4, to: FAR_AWAY }), 14)
  sendFrames(peer.namespace, peer.eth0.ifIndex, packet, PACKETS)
}

/** What the queue has no room for is reported as dropped, and so is the output of its flow sample. */
async function expectDrops(lab: Lab, collector: Collector): Promise<void> {
  const { eth0, mgmt0 } = lab.host
  tc(lab, `qdisc replace dev mgmt0 root tbf rate 8mbit burst ${BYTES} limit ${2 * BYTES}`)
  send(lab)
  const [{ drops }] = JSON.parse(tc(lab, '-s -j qdisc show dev mgmt0')) as [{ drops: number }]
  assert.ok(drops > PACKETS / 2, `${drops} dropped`)
  const NO_BUFFER_SPACE = 259
  const DISCARDED = { format: 1, value: NO_BUFFER_SPACE }
  const flows = () => flowSamplesOf(collector).filter(({ value }) => value.output.format === DISCARDED.format)
  await until('all drops', () => discardsOf(collector).length >= drops && flows().length >= drops)
  const reported = discardsOf(collector)
  assert.deepEqual([reported.length, flows().length], [drops, drops])
  for (const [i, { value, records }] of reported.entries()) {
    const { inputifindex, outputifindex, reason } = value
    assert.deepEqual([inputifindex, outputifindex, reason], [eth0.ifIndex, mgmt0.ifIndex, NO_BUFFER_SPACE])
    assert.match(findRecord(records, extendedLinuxDropReason)!.reason, /QDISC/)
    assert.equal(findRecord(records, extendedEgressQueue)!.queue, 0)
    const flow = flows()[i]!
    assert.deepEqual(flow.value.output, DISCARDED)
    assert.deepEqual(findRecord(records, sampledHeader), findRecord(flow.records, sampledHeader))
  }
}

for (const transit of ['on', 'off']) {
  test(`a router with transit = ${transit}`, async t => {
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
      collector { ip = ${peer.eth0.ipv4} }`,
    )
    await agent.line(/^running$/)
    tc(lab, `qdisc replace dev mgmt0 root tbf rate 8mbit burst ${BYTES} limit 200000`)
    send(lab)

    const received = () =>
      flowSamplesOf(collector).filter(({ value }) => value.input.value === host.eth0.ifIndex)
    const samples = await until('all samples', () => received().length >= PACKETS && received())
    assert.equal(samples.length, PACKETS)
    for (const { value, records } of samples) {
      assert.ok(findRecord(records, extendedTimestamp))
      const queue = findRecord(records, extendedEgressQueue)?.queue
      const depth = findRecord(records, extendedQueue)?.depth
      const delay = findRecord(records, extendedTransit)?.delay
      if (transit === 'off') {
        assert.deepEqual([value.output.value, queue, depth, delay], [0, undefined, undefined, undefined])
      } else {
        assert.deepEqual([value.output.value, queue, depth! % BYTES], [host.mgmt0.ifIndex, 0, 0])
        // One octet takes a microsecond.
        assert.ok(delay! > (depth! - 2 * BYTES) * 1000, `${depth} bytes, ${delay} ns`)
      }
    }
    if (transit === 'on') await expectDrops(lab, collector)
    assert.equal((await agent.stop()).exit, 0)
  })
}
