/** Connections that are slow and lossy, and that belong to a VRF: their samples say so. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { test } from 'node:test'
import { findRecord } from '../../../agent/wire/sflow/block.ts'
import { extendedTcpInfo } from '../../../agent/wire/sflow/flow/application.ts'
import { modprobe } from '../../support/guest.ts'
import { flowSamplesOf, ip, listen, makeLab, type Scope, startAgent, until } from '../../support/lab.ts'

modprobe('veth', 'vrf', 'sch_netem', 'sch_ingress', 'cls_bpf')

const UDP_PORT = 6343
const TCP_PORT = 7001
const DELAY_MS = 40
const BYTES = 500_000
/** Values of `direction` (0:2209). */
const RECEIVED = 1
const SENT = 2

function script(t: Scope, namespace: string, text: string): Promise<void> {
  const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => void child.kill('SIGKILL'))
  return new Promise((resolve, reject) => {
    child.stdout.once('data', () => resolve())
    child.once('error', reject)
  })
}

test('round-trip time and retransmissions of connections in a VRF', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const inHost = (...words: string[]) => execFileSync('ip', ['netns', 'exec', host.namespace, ...words])
  ip(`-n ${host.namespace} link add red type vrf table 10`)
  ip(`-n ${host.namespace} link set red up`)
  ip(`-n ${host.namespace} link set eth0 master red`)
  // Sockets that are accepted belong to the VRF that the connection came by.
  inHost('sysctl', '-qw', 'net.ipv4.tcp_l3mdev_accept=1')
  // What leaves here is late, and some of it is lost.
  inHost('tc', 'qdisc', 'add', 'dev', 'eth0', 'root', 'netem', 'delay', `${DELAY_MS}ms`, 'loss', '10%')

  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: UDP_PORT })
  const agent = startAgent(
    t,
    lab,
    `polling = 0 flush = 20 pcap { dev = eth0 sampling = 1 } tcp { }
    collector { ip = ${peer.mgmt0.ipv4} udpport = ${UDP_PORT} }`,
  )
  await agent.line(/^eth0 is sampled/)
  // Half a megabyte from here, again and again: what is lost must be sent once more before long.
  const server = `require('net').createServer(s => { s.on('error', () => {}); s.write(Buffer.alloc(${BYTES})) })
    .listen(${TCP_PORT}, '0.0.0.0', () => console.log('ready'))`
  const client = `const again = () => {
    let got = 0
    const s = require('net').connect(${TCP_PORT}, '${host.eth0.ipv4}')
    s.on('data', d => { console.log('data'); got += d.length; if (got === ${BYTES}) s.destroy() })
    s.on('error', () => {}).on('close', again)
  }
  again()`
  await script(t, host.namespace, server)
  await script(t, peer.namespace, client)

  const infos = () =>
    flowSamplesOf(collector).flatMap(({ records }) => findRecord(records, extendedTcpInfo) ?? [])
  const sent = () => infos().filter(({ direction }) => direction === SENT)
  // The sockets belong to the VRF: they are found under its number or not at all.
  await until('samples of a connection that waits and sends again', () => {
    const all = sent()
    return all.some(({ retrans }) => retrans > 0) && all.some(({ unacked }) => unacked > 0) && all.length > 20
  })
  await until('samples of what is received', () => infos().some(({ direction }) => direction === RECEIVED))
  // The handshake has measured it once by the time that the first data are sent.
  for (const { rtt, min_rtt } of sent().filter(({ unacked }) => unacked > 0)) {
    assert.ok(rtt >= DELAY_MS * 1000 && min_rtt >= DELAY_MS * 1000, `${rtt} µs, least ${min_rtt} µs`)
  }
  await agent.stop()
})
