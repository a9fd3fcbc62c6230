/** A bridge that filters VLANs: the VLANs of its packets are told on the wire (Debian's kernels can; others need not). */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { findRecord } from '../../../agent/wire/sflow/block.ts'
import { SFLOW_PORT } from '../../../agent/wire/sflow/datagram.ts'
import { extendedSwitch } from '../../../agent/wire/sflow/flow/extended.ts'
import { sampledHeader } from '../../../agent/wire/sflow/flow/header.ts'
import { modprobe } from '../../support/guest.ts'
import {
  flowSamplesOf,
  ifIndexOf,
  ip,
  listen,
  makeLab,
  sendFrames,
  startAgent,
  until,
} from '../../support/lab.ts'

const UNKNOWN = 0xffffffff
/** Behind the access port. */
const STATION = '02:00:00:00:09:01'

modprobe('veth', 'bridge', 'sch_ingress', 'cls_bpf')

test('VLANs of a bridge', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const bridge = (line: string) => execFileSync('bridge', ['-n', host.namespace, ...line.split(' ')])
  ip(`-n ${host.namespace} link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0`)
  ip(`-n ${host.namespace} link add access0 type veth peer name station0 netns ${peer.namespace}`)
  ip(`-n ${peer.namespace} link set station0 addrgenmode none address ${STATION} up`)
  for (const name of ['eth0', 'access0'])
    ip(`-n ${host.namespace} link set ${name} addrgenmode none master br0 up`)
  ip(`-n ${host.namespace} link set br0 addrgenmode none up`)
  bridge('vlan add dev eth0 vid 10-20')
  bridge('vlan add dev eth0 vid 30 pvid untagged')
  bridge('vlan add dev access0 vid 20 pvid untagged')
  bridge(`fdb add ${STATION} dev access0 master static vlan 20`)
  const access = ifIndexOf(host.namespace, 'access0')
  const station = ifIndexOf(peer.namespace, 'station0')

  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const agent = startAgent(
    t,
    lab,
    `polling = 0 pcap { dev = eth0 sampling = 1 } collector { ip = ${peer.mgmt0.ipv4} }`,
  )
  await agent.line(/^eth0 is sampled/)

  /** What is told of one frame, which is known by its length. */
  const told = async (length: number, input: number, ways: readonly [number, Uint8Array]) => {
    sendFrames(peer.namespace, ...ways, 1)
    const samples = () =>
      flowSamplesOf(collector).filter(({ records }) => frameLength(records) === length + 4)
    const sample = await until(`a sample of ${length} octets`, () => samples()[0])
    const record = findRecord(sample.records, extendedSwitch)
    return { input: sample.value.input.value === input, output: sample.value.output.value, record }
  }

  const fromTrunk = (length: number, tci?: number) =>
    told(length, host.eth0.ifIndex, [peer.eth0.ifIndex, frame(length, STATION, tci)])
  // A packet that passes the kernel's trace points unseen has no output: another one has.
  let number = 301
  const seen: unknown[] = []
  const untold = () => `packet that is followed to ${access}, but ${JSON.stringify(seen)}`
  const passed = await until(untold, async () => {
    const one = await fromTrunk(number++, 0xa014)
    seen.push(one)
    return one.output === access && one
  })
  assert.deepEqual(passed, {
    input: true,
    output: access,
    record: { src_vlan: 20, src_priority: 5, dst_vlan: 20, dst_priority: 5 },
  })
  const untagged = (vlan: number) => ({
    src_vlan: vlan,
    src_priority: 0,
    dst_vlan: UNKNOWN,
    dst_priority: UNKNOWN,
  })
  assert.deepEqual((await fromTrunk(402)).record, untagged(30))
  // The agent is told of the change by the kernel.
  bridge('vlan add dev eth0 vid 10 pvid')
  let length = 410
  await until('the VLAN for frames without a tag to change', async () => {
    const { record } = await fromTrunk(length++)
    return record?.src_vlan === 10
  })
  // Made behind the access port: it gets its tag as it leaves by the trunk.
  const back = frame(600, peer.eth0.mac)
  assert.deepEqual(await told(604, access, [station, back]), {
    input: true,
    output: host.eth0.ifIndex,
    record: { src_vlan: 20, src_priority: UNKNOWN, dst_vlan: 20, dst_priority: 0 },
  })
  ip(`-n ${host.namespace} link set br0 type bridge vlan_filtering 0`)
  await until('the bridge not to mind VLANs', async () => (await fromTrunk(length++)).record === undefined)

  assert.equal((await agent.stop()).exit, 0)
})

function frameLength(records: Parameters<typeof findRecord>[0]): number | undefined {
  return findRecord(records, sampledHeader)?.frame_length
}

/** A frame of `length` octets, without FCS, from a station that nobody knows. */
function frame(length: number, to: string, tci?: number): Uint8Array {
  const bytes = Buffer.alloc(length)
  bytes.write(to.replaceAll(':', ''), 0, 'hex')
  bytes.write('0200000000ff', 6, 'hex')
  if (tci === undefined) bytes.writeUInt16BE(0x88b5, 12)
  else {
    bytes.writeUInt16BE(0x8100, 12)
    bytes.writeUInt16BE(tci, 14)
    bytes.writeUInt16BE(0x88b5, 16)
  }
  return bytes
}
