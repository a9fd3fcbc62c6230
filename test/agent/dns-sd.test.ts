/** Collectors and settings out of DNS, from a real server (dnsmasq) in the agent's namespace. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import {
  type Collector,
  countersSamplesOf,
  flowSamplesOf,
  type Lab,
  listen,
  makeLab,
  type Scope,
  sendFlow,
  sink,
  startAgent,
  udpPortOf,
  until,
} from '../support/lab.ts'

const HOST = { type: 2, index: 1 }
const TRAFFIC_PORT = 7000
const [FIRST, SECOND, SPARE, FILE] = [6343, 6344, 6345, 6346] as const
/** The least time between questions is 10 s. */
const PATIENCE_MS = 30_000

/** A DNS server for the host of the lab, which finds it by its resolv.conf. */
class NameServer {
  readonly #lab: Lab
  #child: ChildProcess | undefined

  constructor(scope: Scope, lab: Lab) {
    this.#lab = lab
    // `ip netns exec` lays these files over those in /etc (ip-netns(8)).
    const folder = `/etc/netns/${lab.host.namespace}`
    mkdirSync(folder, { recursive: true })
    scope.after(() => rmSync(folder, { recursive: true }))
    scope.after(() => this.stop())
    writeFileSync(join(folder, 'resolv.conf'), 'nameserver 127.0.0.1\nsearch nowhere.test example.test\n')
  }

  /** Serves these records, in dnsmasq's words. */
  async serve(records: readonly string[]): Promise<void> {
    await this.stop()
    const { host, folder } = this.#lab
    const file = join(folder, 'dnsmasq.conf')
    writeFileSync(
      file,
      [
        'no-resolv',
        'no-hosts',
        'local=/test/',
        'listen-address=127.0.0.1',
        'bind-interfaces',
        'user=root',
        ...records,
        '',
      ].join('\n'),
    )
    const command = [
      'netns',
      'exec',
      host.namespace,
      'dnsmasq',
      '--keep-in-foreground',
      `--conf-file=${file}`,
    ]
    this.#child = spawn('ip', [...command, '--pid-file', '--log-facility=-'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    await once(this.#child.stderr!, 'data')
  }

  async stop(): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
}

for (const { name, block, isWhole } of [
  { name: 'a domain', block: 'dns-sd { domain = .example.test }', isWhole: true },
  { name: 'the search list', block: 'dns-sd { }', isWhole: false },
]) {
  test(`${name}: collectors and settings come from DNS`, async t => {
    const lab = makeLab(t)
    const { host, peer } = lab
    const server = new NameServer(t, lab)
    const [first, second, spare, file] = [FIRST, SECOND, SPARE, FILE].map(port =>
      listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port }),
    ) as [Collector, Collector, Collector, Collector]
    const to = { address: host.eth0.ipv4, port: TRAFFIC_PORT }
    sink(t, host.namespace, to)
    const srv = (port: number, priority: number) =>
      `srv-host=_sflow._udp.example.test,collector.example.test,${port},${priority},0`
    const address = `host-record=collector.example.test,${peer.mgmt0.ipv4}`
    const settings = [
      'txtvers=1',
      'sampling.10G=1',
      'polling=1',
      'headerBytes=64',
      'datagramBytes=300',
      'sampling=often',
    ]
    // Longer than an answer over UDP may be: the rest has to be asked for over TCP.
    const padding = ['a', 'b', 'c'].map(letter => `txtvers=${letter.repeat(200)}`)
    const txt = `txt-record=_sflow._udp.example.test,${[...settings, ...padding].map(text => `"${text}"`).join(',')}`
    await server.serve([
      srv(FIRST, 0),
      srv(SECOND, 0),
      srv(SPARE, 10),
      `srv-host=_sflow._udp.example.test,gone.example.test,6343,0,0`,
      address,
      txt,
    ])
    const agent = startAgent(
      t,
      lab,
      `${block} polling = 300 flush = 10
      collector { ip = ${peer.mgmt0.ipv4} udpport = ${FILE} }
      pcap { dev = eth0 }`,
    )
    await agent.line(/^eth0 is sampled 1 in 1 by BPF$/)
    const polls = (collector: Collector) => countersSamplesOf(collector, HOST).length
    await until('polls at both', () => polls(first) >= 2 && polls(second) >= 2)
    sendFlow(peer.namespace, {
      from: { address: peer.eth0.ipv4, port: TRAFFIC_PORT },
      to,
      payloadBytes: 200,
      packets: 10,
    })
    const samples = () => flowSamplesOf(first).filter(sample => udpPortOf(sample) === TRAFFIC_PORT)
    await until('samples', () => samples().length === 10)
    assert.equal(findRecord(samples()[0]!.records, sampledHeader)!.header.length, 64)
    const remarks = agent.log.filter(({ part, level }) => part === 'configuration' && level === 40)
    assert.deepEqual(
      remarks.map(({ msg }) => msg),
      [
        'TXT "datagramBytes=300": not a setting that DNS can give',
        'TXT "sampling=often": sampling: expected a whole number from 0 to 10000000, got "often"',
      ],
    )
    assert.equal(spare.arrivals.length + file.arrivals.length, 0)

    if (!isWhole) return

    // Nobody answers: what was last said holds.
    await server.stop()
    let seen = agent.log.length
    await until(
      'a failed question',
      () => agent.log.find(({ msg }) => /^cannot look up _sflow\._udp: /.test(msg)),
      PATIENCE_MS,
    )
    const before = polls(first)
    await until('polls', () => polls(first) > before + 1)

    // Other servers.
    await server.serve([srv(SPARE, 10), address, txt])
    await until('datagrams at the other one', () => spare.arrivals.length > 0, PATIENCE_MS)
    const { datagram } = spare.arrivals[0]!
    assert.equal(datagram.sequence_number, first.arrivals.at(-1)!.datagram.sequence_number + 1)

    // No server any more.
    seen = agent.log.length
    await server.serve([address])
    const withdrawn = () => agent.log.slice(seen).some(({ msg }) => /^DNS names no collector/.test(msg))
    await until('withdrawal', withdrawn, PATIENCE_MS)
    await agent.line(/^eth0 is not sampled any more$/, seen)
    // What was under way arrives, and then nothing more.
    await sleep(1000)
    const sent = spare.arrivals.length
    await sleep(2500)
    assert.equal(spare.arrivals.length, sent)
    assert.equal((await agent.stop()).exit, 0)
    assert.equal(file.arrivals.length, 0)
  })
}
