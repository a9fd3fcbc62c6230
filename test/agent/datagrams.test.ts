/** The datagrams of a running agent: what they hold, how long they are, how old they get, how they are numbered. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { ifCounters, portName } from '../../agent/wire/sflow/counters/interface.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { extendedTimestamp } from '../../agent/wire/sflow/flow/forwarding.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import {
  type ArrivedSample,
  type Collector,
  countersSamplesOf,
  flowSamplesOf,
  listen,
  makeLab,
  sendFlow,
  sink,
  startAgent,
  udpPortOf,
  until,
} from '../support/lab.ts'

const HOST = { type: 2, index: 1 }
const HOST_STRUCTURES = [2000, 2001, 2003, 2004, 2005, 2006, 2007, 2008, 2009, 2010]
const SUB_AGENT = 7
const FLUSH_MS = 100
const TRAFFIC_PORT = 7000
const PROBES = 8

function formatsOf(samples: readonly ArrivedSample<unknown>[]): number[] {
  const formats = samples.flatMap(({ records }) =>
    records.map(block => ('record' in block ? block.record.format : block.format)),
  )
  return [...new Set(formats)].sort((a, b) => a - b)
}

/** Numbers count up from 1 without a gap. */
function assertCounted(numbers: readonly number[], what: string): void {
  assert.deepEqual(
    numbers,
    numbers.map((_, i) => i + 1),
    what,
  )
}

function checkNumbers(collector: Collector): void {
  const headers = collector.arrivals.map(({ datagram }) => datagram)
  assertCounted(
    headers.map(header => header.sequence_number),
    'datagrams',
  )
  const sources = new Map<string, number[]>()
  for (const [kind, samples] of [
    ['flow', flowSamplesOf(collector)],
    ['counters', countersSamplesOf(collector)],
  ] as const) {
    for (const { value } of samples) {
      const { type, index } = value.source_id
      const source = `${kind} samples of ${type}:${index}`
      sources.set(source, [...(sources.get(source) ?? []), value.sequence_number])
    }
  }
  for (const [source, numbers] of sources) assertCounted(numbers, source)
}

describe('datagrams of a running agent', () => {
  // The first is the least there can be: structures of the host then take several samples, and headers are cut.
  for (const { datagramBytes, longestHeader } of [
    { datagramBytes: 200, longestHeader: 80 },
    { datagramBytes: 1400, longestHeader: 128 },
  ]) {
    test(`of at most ${datagramBytes} bytes`, async t => {
      const lab = makeLab(t)
      const { host, peer } = lab
      const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
      const to = { address: host.eth0.ipv4, port: TRAFFIC_PORT }
      sink(t, host.namespace, to)
      const send = (payloadBytes: number, packets: number) =>
        sendFlow(peer.namespace, {
          from: { address: peer.eth0.ipv4, port: TRAFFIC_PORT },
          to,
          payloadBytes,
          packets,
        })
      const agent = startAgent(
        t,
        lab,
        `polling = 1
        subAgentId = ${SUB_AGENT}
        datagramBytes = ${datagramBytes}
        flush = ${FLUSH_MS}
        collector { ip = ${peer.mgmt0.ipv4} }
        pcap { dev = eth0 sampling = 1 }`,
      )
      await until('counters sample', () => countersSamplesOf(collector)[0])

      await agent.line(/^eth0 is sampled/)
      send(1000, 50)
      const sampled = () => flowSamplesOf(collector).filter(sample => udpPortOf(sample) === TRAFFIC_PORT)
      await until('50 samples', () => sampled().length === 50)
      const headers = sampled().map(({ records }) => findRecord(records, sampledHeader)!)
      assert.deepEqual(new Set(headers.map(({ header }) => header.length)), new Set([longestHeader]))
      assert.deepEqual(new Set(headers.map(({ frame_length }) => frame_length)), new Set([1046]))

      // Single packets leave by age alone.
      const agesMs: number[] = []
      for (let probe = 1; probe <= PROBES; probe++) {
        send(10, 1)
        const { arrival, records } = await until('probe', () => sampled()[49 + probe])
        const { nanoseconds } = findRecord(records, extendedTimestamp)!
        agesMs.push(arrival.time - Number(nanoseconds / 1_000_000n))
      }
      // A busy machine holds some of them up, not all.
      assert.ok(Math.min(...agesMs) <= 3 * FLUSH_MS, `samples arrive after ${agesMs} ms`)

      const { ifIndex } = host.eth0
      await until('third sample of eth0', () => countersSamplesOf(collector, { type: 0, index: ifIndex })[2])
      const { status } = await agent.stop()
      await until('last datagram', () => collector.arrivals.length === status.datagrams)

      checkNumbers(collector)
      const longest = Math.max(...collector.arrivals.map(({ bytes }) => bytes))
      assert.ok(longest <= datagramBytes, `${longest} bytes`)
      assert.deepEqual(formatsOf(countersSamplesOf(collector, HOST)), HOST_STRUCTURES)
      for (const { records } of countersSamplesOf(collector, { type: 0, index: ifIndex })) {
        assert.equal(findRecord(records, portName)?.name, 'eth0')
        assert.equal(findRecord(records, ifCounters)?.ifIndex, ifIndex)
      }
      let uptime = 0
      for (const { atMs, datagram } of collector.arrivals) {
        assert.equal(datagram.agent_address, host.eth0.ipv4)
        assert.equal(datagram.sub_agent_id, SUB_AGENT)
        assert.deepEqual(datagram.problems, [])
        assert.ok(datagram.uptime >= uptime && datagram.uptime <= atMs - agent.startedMs)
        uptime = datagram.uptime
      }
      for (const { value } of flowSamplesOf(collector)) {
        assert.deepEqual([value.sampling_rate, value.sample_pool], [1, value.sequence_number])
      }
      const cut = datagramBytes === 200 ? { 'sampled-header/shortened': 50 } : {}
      const lost = Object.entries(status.lost).filter(([cause]) => !cause.startsWith('counters/'))
      assert.deepEqual(Object.fromEntries(lost), cut)
    })
  }
})
