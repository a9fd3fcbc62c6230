/** Packets that nftables rules log, in every place of a packet's path, from the kernel of this machine. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { type TestContext, test } from 'node:test'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'
import { INTERNAL_INTERFACE, type PacketSample } from '../../agent/samples/packet-sample.ts'
import { NflogSource } from '../../agent/sources/nflog.ts'
import { NflogSamples } from '../../agent/sources/nflog-samples.ts'
import {
  ifIndexOf,
  ip,
  type Lab,
  linkCounts,
  makeLab,
  sendFlow,
  sendFrames,
  sink,
  until,
} from '../support/lab.ts'

const GROUP = 7
const PAYLOAD = 100
/** Octets of the packets sent: IPv4, UDP and payload. */
const BYTES = 20 + 8 + PAYLOAD

type Seen = Omit<PacketSample, 'headerWords' | 'headerOffset'> & { readonly header: Buffer }

interface Options {
  readonly group?: number
  readonly rate?: number
  readonly ruleRate?: number
  readonly receiveBytes?: number
}

async function listen(t: TestContext, lab: Lab, options: Options = {}) {
  const seen: Seen[] = []
  const ledger = new Ledger()
  const samples = new NflogSamples({
    ruleRate: options.ruleRate ?? 1,
    rate: options.rate ?? 1,
    ledger,
    random: Math.random,
    sink: ({ headerWords, headerOffset, ...sample }) => {
      const header = Buffer.from(headerWords.buffer as ArrayBuffer, headerOffset, sample.headerLength)
      seen.push({ ...sample, header: Buffer.from(header) })
    },
  })
  const lines: string[] = []
  const log = createLogger('silent')
  log.error = (text: string) => void lines.push(text)
  log.child = (() => log) as unknown as typeof log.child
  const source = new NflogSource({
    group: options.group ?? GROUP,
    headerBytes: 128,
    samples,
    ledger,
    log,
    onBatchEnd: () => {},
    namespace: lab.host.namespace,
    retryMs: 1,
    ...(options.receiveBytes === undefined ? {} : { receiveBytes: options.receiveBytes }),
  })
  await source.start()
  t.after(() => source.stop())
  const lost = (cause: string) => ledger.entries().find(loss => loss.cause === cause)!.count
  return { seen, samples, source, lines, lost }
}

/** Loads rules into the host's namespace. */
function nft(lab: Lab, rules: string): void {
  execFileSync('ip', ['netns', 'exec', lab.host.namespace, 'nft', '-f', '-'], {
    input: `flush ruleset\n${rules}`,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
}

const chain = (family: string, hook: string, rule: string, device = '') =>
  `table ${family} weir { chain logged { type filter hook ${hook} ${device} priority 0; ${rule}\n }\n }\n`
const LOG = `udp dport 7001 log group ${GROUP}`

function toHost({ host, peer }: Lab, packets: number, address = host.eth0.ipv4): void {
  const from = { address: peer.eth0.ipv4, port: 7000 }
  sendFlow(peer.namespace, { from, to: { address, port: 7001 }, payloadBytes: PAYLOAD, packets })
}

function fromHost({ host, peer }: Lab, packets: number): void {
  const from = { address: host.eth0.ipv4, port: 7000 }
  const to = { address: peer.eth0.ipv4, port: 7001 }
  sendFlow(host.namespace, { from, to, payloadBytes: PAYLOAD, packets })
}

/** What each place of the path tells: input, output, data source, and whether there is a link header. */
test('direction and encapsulation in every hook', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const { seen, samples, lost } = await listen(t, lab)
  sink(t, host.namespace, { address: host.eth0.ipv4, port: 7001 })
  const far = '198.51.100.77'
  ip(`netns exec ${host.namespace} sysctl -qw net.ipv4.ip_forward=1`)
  ip(`-n ${host.namespace} neighbour replace ${far} lladdr ${peer.mgmt0.mac} dev mgmt0 nud permanent`)
  ip(`-n ${peer.namespace} route add ${far} via ${host.eth0.ipv4} dev eth0 src ${peer.eth0.ipv4}`)
  const [eth0, mgmt0] = [host.eth0.ifIndex, host.mgmt0.ifIndex]
  const passing = () => toHost(lab, 1, far)
  const places: readonly [
    name: string,
    rules: string,
    send: () => void,
    expected: readonly [input: number, output: number, source: number, ethernet: boolean],
  ][] = [
    ['input', chain('ip', 'input', LOG), () => toHost(lab, 1), [eth0, INTERNAL_INTERFACE, eth0, true]],
    ['prerouting', chain('inet', 'prerouting', LOG), () => toHost(lab, 1), [eth0, 0, eth0, true]],
    ['forward', chain('ip', 'forward', LOG), passing, [eth0, mgmt0, eth0, true]],
    ['output', chain('ip', 'output', LOG), () => fromHost(lab, 1), [INTERNAL_INTERFACE, eth0, eth0, false]],
    [
      'postrouting',
      chain('ip', 'postrouting', LOG),
      () => fromHost(lab, 1),
      [INTERNAL_INTERFACE, eth0, eth0, false],
    ],
    ['postrouting, passing', chain('ip', 'postrouting', LOG), passing, [eth0, mgmt0, mgmt0, true]],
    [
      'netdev ingress',
      chain('netdev', 'ingress', LOG, 'device eth0'),
      () => toHost(lab, 1),
      [eth0, 0, eth0, true],
    ],
  ]
  for (const [name, rules, send, [input, output, dataSource, isEthernet]] of places) {
    nft(lab, rules)
    const before = seen.length
    send()
    const sample = await until(`a sample of ${name}`, () => seen[before])
    const { header, ...values } = sample
    assert.deepEqual(
      [values.inputIfIndex, values.outputIfIndex, values.dataSource, values.headerProtocol],
      [input, output, dataSource, isEthernet ? 1 : 11],
      name,
    )
    assert.deepEqual(
      [values.frameLength, values.stripped, values.samplingRate],
      isEthernet ? [14 + BYTES + 4, 4, 1] : [BYTES, 0, 1],
      name,
    )
    const at = isEthernet ? 14 : 0
    assert.equal(header.readUInt16BE(at + 2), BYTES, `${name}: length in the IP header`)
    assert.equal(header.readUInt16BE(at + 22), 7001, `${name}: UDP port`)
    if (isEthernet) assert.equal(header.readUInt16BE(12), 0x0800, name)
    assert.equal(seen.length, before + 1, name)
  }
  assert.equal(samples.packets, places.length)
  assert.equal(lost('malformed') + lost('sequence-gap'), 0)
})

test('a bridge: its ports, and the VLAN tag back in its place', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const there = `-n ${host.namespace}`
  ip(`${there} link add br0 type bridge mcast_snooping 0`)
  ip(`${there} link add v0 type veth peer name v1`)
  for (const name of ['eth0', 'v0']) ip(`${there} link set ${name} addrgenmode none master br0 up`)
  for (const name of ['br0', 'v1']) ip(`${there} link set ${name} addrgenmode none up`)
  const probe = spawnSync('ip', [
    'netns',
    'exec',
    host.namespace,
    'nft',
    '-c',
    chain('bridge', 'forward', `log group ${GROUP}`),
  ])
  if (probe.status !== 0) {
    t.skip('this kernel filters no bridges (CONFIG_NF_TABLES_BRIDGE)')
    return
  }
  const { seen } = await listen(t, lab)
  nft(lab, chain('bridge', 'forward', `ether type 8021q log group ${GROUP}`))
  // Shorter than what is copied: the length of what is not IP is not known otherwise.
  const frame = Buffer.alloc(100)
  frame.write('ffffffffffff0200000000ee8100a01488b5', 0, 'hex')
  sendFrames(peer.namespace, peer.eth0.ifIndex, frame, 1)
  const sample = await until('a sample', () => seen[0])
  assert.deepEqual(
    [sample.inputIfIndex, sample.outputIfIndex, sample.frameLength],
    [host.eth0.ifIndex, ifIndexOf(host.namespace, 'v0'), 104],
  )
  assert.equal(sample.header.subarray(0, 18).toString('hex'), 'ffffffffffff0200000000ee8100a01488b5')
})

test('rates: the rule thins, we thin the rest, and each sample has the true rate', async t => {
  const lab = makeLab(t)
  // A tenth by the rule, a tenth of those by us.
  const { seen, samples } = await listen(t, lab, { ruleRate: 10, rate: 100 })
  nft(lab, chain('ip', 'input', `udp dport 7001 numgen random mod 10 == 0 log group ${GROUP}`))
  const packets = 30_000
  const before = linkCounts(lab.host.namespace, 'eth0').rxPackets
  for (let i = 0; i < packets; i += 1000) toHost(lab, 1000)
  await until('all packets', () => linkCounts(lab.host.namespace, 'eth0').rxPackets - before >= packets)
  const deviation = (n: number, p: number) => Math.sqrt(n * p * (1 - p))
  await until(
    'the logged packets',
    () => Math.abs(samples.packets - packets / 10) < 6 * deviation(packets, 0.1),
  )
  assert.ok(seen.every(({ samplingRate }) => samplingRate === 100))
  assert.equal(samples.packets, samples.thinned + samples.delivered)
  // Skips are uniform up to twice their mean: their sum varies less than a binomial one.
  assert.ok(
    Math.abs(seen.length - samples.packets / 10) < 6 * deviation(samples.packets, 0.1),
    `${seen.length}`,
  )
  samples.changeRate(10)
  assert.equal(samples.rate, 10)
})

test('what the socket had no room for is counted, packet by packet', async t => {
  const lab = makeLab(t)
  const { samples, lost } = await listen(t, lab, { receiveBytes: 4096 })
  nft(lab, chain('ip', 'input', `udp dport 7001 counter log group ${GROUP}`))
  const packets = 5000
  // Sent while the event loop stands still: nothing is read meanwhile.
  toHost(lab, packets)
  await until('a loss', () => {
    // Another packet shows the gap before it.
    toHost(lab, 1)
    return lost('sequence-gap') > 0
  })
  const logged = () => {
    const rules = ['netns', 'exec', lab.host.namespace, 'nft', 'list', 'ruleset']
    return Number(/counter packets (\d+)/.exec(execFileSync('ip', rules, { encoding: 'utf8' }))![1])
  }
  await until('offered = delivered + lost', () => {
    return samples.packets + lost('sequence-gap') === logged()
  })
  assert.ok(lost('sequence-gap') > packets / 2)
})

test('a group that somebody else has is tried again', async t => {
  const lab = makeLab(t)
  const first = await listen(t, lab)
  const second = await listen(t, lab)
  assert.equal(first.source.state, 'listening')
  assert.equal(second.source.state, 'refused')
  assert.match(
    second.lines[0]!,
    /^bind NFLOG group 7: EPERM .*: needs CAP_NET_ADMIN; if the agent has it, another program listens/,
  )
  // Told once, however often it is tried.
  const lines = second.lines.length
  for (let i = 0; i < 5; i++) {
    second.source.poll()
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  first.source.stop()
  await until('the group', () => {
    second.source.poll()
    return second.source.state === 'listening'
  })
  assert.equal(second.lines.length, lines)
  second.source.stop()
  const third = await listen(t, lab)
  assert.equal(third.source.state, 'listening')
})
