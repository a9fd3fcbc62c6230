/** Interfaces that come, go and change while the agent runs: polling and sampling follow. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { ifCounters, portName } from '../../agent/wire/sflow/counters/interface.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import {
  countersSamplesOf,
  flowSamplesOf,
  ifIndexOf,
  ip,
  ipBatch,
  listen,
  makeLab,
  sendFrames,
  startAgent,
  until,
} from '../support/lab.ts'

const HOST = { type: 2, index: 1 }
const LOG_ERROR = 50
/** EtherType for experiments: no other frame has it. */
const EXPERIMENT = 0x88b5

test('interfaces that come, go and change', async t => {
  const lab = makeLab(t)
  const { namespace } = lab.host
  const there = lab.peer.namespace
  const collector = listen(t, there, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
  const agent = startAgent(
    t,
    lab,
    `polling = 1
    flush = 20
    collector { ip = ${lab.peer.mgmt0.ipv4} }
    pcap { dev = ge1 sampling = 1 }
    pcap { dev = eth0 sampling = 1 }`,
  )
  await agent.line(/^running$/)
  const frame = Buffer.alloc(60)
  frame.fill(0xff, 0, 6)
  frame.writeUInt16BE(EXPERIMENT, 12)

  let ge1 = 0
  let peerIndex = 0
  const polled = () => countersSamplesOf(collector, { type: 0, index: ge1 })
  const sampled = () =>
    flowSamplesOf(collector).filter(({ value, records }) => {
      const { header } = findRecord(records, sampledHeader)!
      const type = new DataView(header.buffer, header.byteOffset).getUint16(12)
      return value.source_id.index === ge1 && type === EXPERIMENT
    })
  /** Sends frames to ge1, and waits until all of them have come as samples, each once. */
  const expectSamples = async () => {
    const before = sampled().length
    sendFrames(there, peerIndex, frame, 10)
    await until('10 samples', () => sampled().length >= before + 10)
    assert.equal(sampled().length, before + 10)
  }
  /** What was under way has arrived after two more polls of the host. */
  const expectSilence = async (what: string, count: () => number) => {
    const hostPolls = () => countersSamplesOf(collector, HOST).length
    const quietFrom = hostPolls() + 1
    await until('poll', () => hostPolls() >= quietFrom)
    const before = count()
    await until('poll', () => hostPolls() >= quietFrom + 2)
    assert.equal(count(), before, what)
  }
  /** Logged since the last call, of ge1's sampling. */
  let seen = 0
  const next = async (message: RegExp) => {
    await agent.line(message, seen)
    seen = agent.log.length
  }

  await t.test('a new one is polled and sampled', async () => {
    ip(`-n ${namespace} link add ge1 index 40 type veth peer name ge1p netns ${there}`)
    ip(`-n ${namespace} link set ge1 addrgenmode none up`)
    ip(`-n ${there} link set ge1p addrgenmode none up`)
    ge1 = ifIndexOf(namespace, 'ge1')
    peerIndex = ifIndexOf(there, 'ge1p')
    await next(/^ge1 is sampled 1 in 1 by (BPF|a packet socket)$/)
    const { records } = await until('counters sample', () => polled()[0])
    assert.equal(findRecord(records, portName)?.name, 'ge1')
    await expectSamples()
  })

  await t.test('one that goes down and comes up again', async () => {
    ip(`-n ${namespace} link set ge1 down`)
    await next(/^ge1 is not sampled any more$/)
    // It is polled all the same, and says that it is down.
    const status = () => findRecord(polled().at(-1)!.records, ifCounters)!.ifStatus
    await until('status down', () => status() === 0)
    ip(`-n ${namespace} link set ge1 up`)
    await next(/^ge1 is sampled 1 in 1/)
    await until('status up', () => status() === 3)
    await expectSamples()
  })

  await t.test('one whose cable is unplugged and plugged in', async () => {
    ip(`-n ${there} link set ge1p down`)
    ip(`-n ${there} link set ge1p up`)
    await until('link', () => ip(`-n ${namespace} link show ge1`).includes('LOWER_UP'))
    await expectSamples()
  })

  await t.test('one that gets another name', async () => {
    ip(`-n ${namespace} link set ge1 down`)
    ip(`-n ${namespace} link set ge1 name other`)
    ip(`-n ${namespace} link set other up`)
    await next(/ is not sampled any more$/)
    const name = () => findRecord(polled().at(-1)!.records, portName)?.name
    await until('counters sample of the new name', () => name() === 'other')
    sendFrames(there, peerIndex, frame, 10)
    await expectSilence('no pcap block names it now', () => sampled().length)
    ip(`-n ${namespace} link set other down`)
    ip(`-n ${namespace} link set other name ge1`)
    ip(`-n ${namespace} link set ge1 up`)
    await next(/^ge1 is sampled 1 in 1/)
    await expectSamples()
  })

  await t.test('one that makes room for another of its name and number', async () => {
    // So fast that the agent looks at its samplers only when the new one is there.
    ipBatch(namespace, [
      'link del ge1',
      `link add ge1 index ${ge1} type veth peer name ge1p netns ${there}`,
      'link set ge1 addrgenmode none up',
    ])
    ip(`-n ${there} link set ge1p addrgenmode none up`)
    peerIndex = ifIndexOf(there, 'ge1p')
    await next(/^ge1 is sampled 1 in 1/)
    await expectSamples()
    assert.equal(sampled().at(-1)!.value.sequence_number, 10, 'the sequence begins anew')
  })

  await t.test('one that is removed', async () => {
    ip(`-n ${namespace} link del ge1`)
    await expectSilence('a removed interface is not polled', () => polled().length)
    const eth0 = () =>
      flowSamplesOf(collector).filter(({ value }) => value.source_id.index === lab.host.eth0.ifIndex)
    const before = eth0().length
    sendFrames(there, lab.peer.eth0.ifIndex, frame, 10)
    await until('samples of eth0', () => eth0().length === before + 10)
  })

  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  assert.deepEqual(
    agent.log.filter(({ level }) => level >= LOG_ERROR),
    [],
  )
  const numbers = collector.arrivals.map(({ datagram }) => datagram.sequence_number)
  assert.deepEqual(
    numbers,
    numbers.map((_, i) => i + 1),
  )
  assert.equal(status.lost['counters/failed'], undefined)
})
