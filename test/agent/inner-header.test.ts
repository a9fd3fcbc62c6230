/** Packets of a real VXLAN: where the sample says that the inner header begins, it does. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import {
  extendedDecapsulateEgress,
  extendedDecapsulateIngress,
  extendedVniEgress,
  extendedVniIngress,
} from '../../agent/wire/sflow/flow/tunnel.ts'
import { flowSamplesOf, ip, listen, makeLab, startAgent, until } from '../support/lab.ts'

test('VXLAN', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  for (const [{ namespace, eth0 }, other, number] of [
    [host, peer, 1],
    [peer, host, 2],
  ] as const) {
    const ends = `local ${eth0.ipv4} remote ${other.eth0.ipv4}`
    ip(`-n ${namespace} link add vx0 type vxlan id 4242 ${ends} dstport 4789`)
    ip(`-n ${namespace} link set vx0 addrgenmode none address 02:00:00:00:0a:0${number} up`)
    ip(`-n ${namespace} address add 198.18.0.${number}/24 dev vx0`)
  }
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const agent = startAgent(
    t,
    lab,
    `polling = 0 innerHeader = on pcap { dev = eth0 sampling = 1 } collector { ip = ${peer.mgmt0.ipv4} }`,
  )
  await agent.line(/^eth0 is sampled/)
  execFileSync('ip', ['netns', 'exec', peer.namespace, 'ping', '-q', '-c', '2', '-i', '0.2', '198.18.0.1'])
  for (const [decapsulate, vni, isIngress] of [
    [extendedDecapsulateEgress, extendedVniEgress, true],
    [extendedDecapsulateIngress, extendedVniIngress, false],
  ] as const) {
    const samples = await until('both echoes', () => {
      const found = flowSamplesOf(collector).filter(({ records }) => findRecord(records, decapsulate))
      return found.length >= 2 && found
    })
    for (const { value, records } of samples) {
      assert.equal(value.input.value === host.eth0.ifIndex, isIngress)
      assert.equal(findRecord(records, vni)?.vni, 4242)
      const { inner_header_offset: at } = findRecord(records, decapsulate)!
      const macs = Buffer.from(findRecord(records, sampledHeader)!.header.subarray(at, at + 12)).toString(
        'hex',
      )
      // Source address of the inner frame: one of the two ends.
      assert.match(macs, /^.{12}020000000a0[12]$/)
    }
  }
  assert.equal((await agent.stop()).exit, 0)
})
