/** What views tell of real traffic, beside what the kernel counted. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { AgentFeed } from '../../agent/top/feed.ts'
import { TrafficModel } from '../../agent/view/model.ts'
import { FLOW_KEYS, flowTable, portRows } from '../../agent/view/rows.ts'
import { linkCounts, makeLab, sendFlow, sink, startAgent, until } from '../support/lab.ts'

test('estimates of real traffic are within their error; counters are the kernel’s', async context => {
  const lab = makeLab(context)
  const socket = join(lab.folder, 'control.sock')
  const settings = `
    polling = 5
    sampling = 10
    sampling.10G = 10
    collector { ip = ${lab.peer.mgmt0.ipv4} }
    pcap { dev = eth0 }`
  const agent = startAgent(context, lab, settings, { args: ['--control', socket] })
  await agent.line(/^eth0 is sampled/)
  await until('the control socket', () => existsSync(socket))
  const to = (port: number) => ({ address: lab.host.eth0.ipv4, port })
  for (const port of [9001, 9002]) sink(context, lab.host.namespace, to(port))

  const stop = new AbortController()
  context.after(() => stop.abort())
  const model = new TrafficModel({ windowMs: Number.POSITIVE_INFINITY, flows: 100 })
  const feed = new AgentFeed(socket)
  const running = feed.run(model, stop.signal)
  await until('interfaces', () => portRows(model, 'name', '', 1).some(({ name }) => name === 'eth0'))
  const before = linkCounts(lab.host.namespace, 'eth0')
  const PACKETS = 20_000
  const flows = [
    { port: 9001, payloadBytes: 458, share: 0.8 },
    { port: 9002, payloadBytes: 1358, share: 0.2 },
  ]
  for (let part = 0; part < 20; part++) {
    for (const { port, payloadBytes, share } of flows) {
      const from = { address: lab.peer.eth0.ipv4, port: 40_001 }
      sendFlow(lab.peer.namespace, { from, to: to(port), payloadBytes, packets: (PACKETS * share) / 20 })
    }
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  const sent = linkCounts(lab.host.namespace, 'eth0').rxPackets - before.rxPackets
  assert.equal(sent, PACKETS)
  await until('most samples', () => model.total().samples > (PACKETS / 10) * 0.8)
  // What is on its way comes within the flush interval.
  await new Promise(resolve => setTimeout(resolve, 1500))

  const key = FLOW_KEYS.find(({ name }) => name === 'service')!
  const { rows } = flowTable(model, { key, sort: 'packets', filter: 'udp', limit: 10 })
  const { seconds } = model.clock
  for (const { port, payloadBytes, share } of flows) {
    const row = rows.find(({ cells }) => cells[1] === String(port))
    assert.ok(row, `no flow to ${port}`)
    const packets = row.packetsPerSecond * seconds
    // Twice the error that is told: beyond it is one in 10,000.
    const margin = PACKETS * share * row.error * 2
    assert.ok(Math.abs(packets - PACKETS * share) < margin, `${packets} packets to ${port}, ±${margin}`)
    const bytes = (row.bitsPerSecond * seconds) / 8 / packets
    // UDP, IPv4, Ethernet and its check sequence.
    assert.ok(Math.abs(bytes - (payloadBytes + 8 + 20 + 14 + 4)) < 1e-6, `${bytes} bytes a packet`)
  }
  // The kernel's own counters: exact, whenever they were read.
  const port = await until('counters', () => {
    const [eth0] = [...model.ports.values()].filter(({ name }) => name === 'eth0')
    return eth0!.grown[1]! >= PACKETS ? eth0 : undefined
  })
  const most = linkCounts(lab.host.namespace, 'eth0').rxPackets - before.rxPackets
  assert.ok(port.grown[1]! <= most + before.rxPackets, `${port.grown[1]} packets in`)
  stop.abort()
  await running
})
