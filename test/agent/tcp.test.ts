/** The state of TCP connections on samples, compared with what ss(8) says of the same sockets. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { extendedTcpInfo } from '../../agent/wire/sflow/flow/application.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import {
  type ArrivedSample,
  flowSamplesOf,
  ip,
  listen,
  makeLab,
  type Scope,
  type Station,
  sendFlow,
  sink,
  startAgent,
  until,
} from '../support/lab.ts'

const UDP_PORT = 6343
const TCP_PORT = 7001
const OTHER_PORT = 7000

/** Runs a program of JavaScript in a namespace; ready when it has written a line. */
async function script(t: Scope, { namespace }: Station, text: string): Promise<void> {
  const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => void child.kill('SIGKILL'))
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve)
    child.once('error', reject)
  })
}

/** Echoes. */
const server = (address: string) => `
  require('net').createServer(s => s.on('data', d => s.write(d)).on('error', () => {}))
    .listen(${TCP_PORT}, '${address}', () => console.log('ready'))`
/** A few kilobytes there and back, some times; then the connection stays. */
const client = (address: string) => `
  const s = require('net').connect(${TCP_PORT}, '${address}')
  let left = 20, got = 0
  s.on('connect', () => s.write(Buffer.alloc(8000)))
  s.on('data', d => {
    got += d.length
    if (got < 8000) return
    got = 0
    if (--left > 0) s.write(Buffer.alloc(8000)); else console.log('done')
  })`

/** Source and destination port of a sampled TCP packet. */
function portsOf({ records }: ArrivedSample<unknown>): [number, number] {
  const { header } = findRecord(records, sampledHeader)!
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength)
  const at = view.getUint16(12) === 0x0800 ? 34 : 54
  return [view.getUint16(at), view.getUint16(at + 2)]
}

test('tcp { }: samples of local connections tell how they fare; others are not held back', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: UDP_PORT })
  const to = { address: host.eth0.ipv4, port: OTHER_PORT }
  sink(t, host.namespace, to)
  const agent = startAgent(
    t,
    lab,
    `polling = 0 flush = 20 pcap { dev = eth0 sampling = 1 } tcp { }
    collector { ip = ${peer.mgmt0.ipv4} udpport = ${UDP_PORT} }`,
  )
  await agent.line(/^eth0 is sampled/)

  for (const address of [peer.eth0.ipv4, peer.eth0.ipv6]) {
    const before = flowSamplesOf(collector).length
    await script(t, peer, server(address))
    await script(t, host, client(address))
    const samples = () =>
      flowSamplesOf(collector)
        .slice(before)
        .filter(sample => portsOf(sample).includes(TCP_PORT))
    // Both directions of twenty rounds; the last one may be on its way still.
    await until('samples of the connection', () => samples().length >= 100)
    let count = 0
    await until('the last of them', async () => {
      const isLast = count === samples().length
      count = samples().length
      await new Promise(resolve => setTimeout(resolve, 300))
      return isLast
    })
    const annotated = samples().filter(({ records }) => findRecord(records, extendedTcpInfo) !== undefined)
    // The first packets belong to no connection yet, or to one that is not complete.
    assert.ok(annotated.length >= samples().length - 5, `${annotated.length} of ${samples().length}`)
    for (const sample of annotated) {
      const info = findRecord(sample.records, extendedTcpInfo)!
      const [source] = portsOf(sample)
      assert.equal(info.direction, source === TCP_PORT ? 1 : 2)
    }

    const [line] = ip(
      `netns exec ${host.namespace} ss -tinHO dport = :${TCP_PORT} and dst ${address.includes(':') ? `[${address}]` : address}`,
    ).split('\n')
    const number = (pattern: RegExp) =>
      Number(pattern.exec(line!)?.[1] ?? assert.fail(`${pattern} in ${line}`))
    const last = findRecord(annotated.at(-1)!.records, extendedTcpInfo)!
    assert.equal(last.snd_mss, number(/ mss:(\d+)/))
    assert.equal(last.rcv_mss, number(/ rcvmss:(\d+)/))
    assert.equal(last.pmtu, number(/ pmtu:(\d+)/))
    assert.equal(last.snd_cwnd, number(/ cwnd:(\d+)/))
    assert.equal(last.unacked, 0)
    assert.equal(last.lost, 0)
    // ss writes milliseconds; the socket's last word may be one packet newer than the sample's.
    const rtts = annotated.slice(-4).map(({ records }) => findRecord(records, extendedTcpInfo)!.rtt)
    const rtt = number(/ rtt:([\d.]+)/) * 1000
    assert.ok(
      rtts.some(one => Math.abs(one - rtt) < 2),
      `${rtts} of samples, ${rtt} of the socket`,
    )
    assert.equal(last.min_rtt, Math.round(number(/ minrtt:([\d.]+)/) * 1000))
    assert.equal(last.reordering, 3)
  }

  // UDP has no connection, and nothing waits for one.
  const before = flowSamplesOf(collector).length
  const from = { address: peer.eth0.ipv4, port: OTHER_PORT }
  sendFlow(peer.namespace, { from, to, payloadBytes: 100, packets: 50 })
  await until('samples of UDP', () => flowSamplesOf(collector).length >= before + 50)
  for (const { records } of flowSamplesOf(collector).slice(before)) {
    assert.equal(findRecord(records, extendedTcpInfo), undefined)
  }
  const { status } = await agent.stop()
  const total = flowSamplesOf(collector).length
  await until('everything that was sent', () => flowSamplesOf(collector).length >= total)
  assert.equal(flowSamplesOf(collector).length, status.flowSamples)
  assert.equal(status.lost['tcp/unanswered'] ?? 0, 0)
  const annotated = flowSamplesOf(collector).filter(
    one => findRecord(one.records, extendedTcpInfo) !== undefined,
  )
  assert.deepEqual((status as { tcp?: unknown }).tcp, { annotated: annotated.length })
})
