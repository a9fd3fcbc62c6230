/** A configuration that changes while the agent runs: what it does not change goes on, and nothing is lost uncounted. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  constants,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import {
  type Collector,
  countersSamplesOf,
  flowSamplesOf,
  ip,
  type Lab,
  listen,
  makeLab,
  RunningAgent,
  runWeir,
  sendFlow,
  sink,
  startAgent,
  udpPortOf,
  until,
} from '../support/lab.ts'

const HOST = { type: 2, index: 1 }
const TRAFFIC_PORT = 7000

/** Files of an agent in a lab, and the agent. */
function start(t: Parameters<typeof runWeir>[0], lab: Lab, settings: string, more: readonly string[] = []) {
  const file = join(lab.folder, 'weir.conf')
  const pidFile = join(lab.folder, 'weir.pid')
  const output = join(lab.folder, 'hsflowd.auto')
  const write = (text: string) => writeFileSync(file, `sFlow {\n${text}\n}\n`)
  write(settings)
  const prefix = ['ip', 'netns', 'exec', lab.host.namespace]
  const agent = runWeir(t, prefix, ['run', '-f', file, '--pid-file', pidFile, '-o', output, ...more])
  const reload = async () => {
    const command = runWeir(t, [], ['reload', '--pid-file', pidFile])
    return { exit: await command.ended, stderr: command.stderr }
  }
  return { agent, file, write, reload, pidFile, output }
}

function assertUnbroken(collector: Collector): void {
  const numbers = collector.arrivals.map(({ datagram }) => datagram.sequence_number)
  assert.deepEqual(
    numbers,
    numbers.map((_, i) => numbers[0]! + i),
  )
}

async function settled(agent: RunningAgent, from: number): Promise<void> {
  await agent.line(/^the configuration has changed$/, from)
}

test('reload: only what differs is touched', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const main = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const second = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT + 1 })
  const to = { address: host.eth0.ipv4, port: TRAFFIC_PORT }
  sink(t, host.namespace, to)
  const traffic = (packets: number) =>
    sendFlow(peer.namespace, {
      from: { address: peer.eth0.ipv4, port: TRAFFIC_PORT },
      to,
      payloadBytes: 100,
      packets,
    })
  const sampled = (collector: Collector) =>
    flowSamplesOf(collector).filter(sample => udpPortOf(sample) === TRAFFIC_PORT)

  const first = `collector { name = main ip = ${peer.mgmt0.ipv4} }`
  const tap = 'pcap { dev = eth0 sampling = 1 }'
  const { agent, write, reload, pidFile, output } = start(t, lab, `polling = 1\n${first}\n${tap}`)
  await agent.line(/^running$/)
  traffic(10)
  await until('10 samples', () => sampled(main).length === 10)

  await t.test('a bad file is shown and refused by the command', async () => {
    const before = agent.log.length
    write(`poling = 1\n${first}\n${tap}`)
    const { exit, stderr } = await reload()
    assert.equal(exit, 1)
    assert.match(stderr, /weir\.conf:2:1: "poling" is not a setting/)
    assert.match(stderr, /\nweir: not reloaded: .*weir\.conf has errors\n$/)
    assert.equal(agent.log.length, before, 'the agent was not asked')
  })

  await t.test('a bad file is refused by the agent too', async () => {
    const before = agent.log.length
    agent.child.kill('SIGHUP')
    await agent.line(/weir\.conf:2:1: "poling" is not a setting/, before)
    await agent.line(/has errors and is refused; nothing changes$/, before)
    traffic(10)
    await until('20 samples', () => sampled(main).length === 20)
  })

  await t.test('a file that says the same', async () => {
    const before = agent.log.length
    write(`# a comment\npolling = 1\n${tap}\n${first}`)
    assert.deepEqual(await reload(), { exit: 0, stderr: '' })
    await agent.line(/was read again and says the same$/, before)
  })

  await t.test('a collector more, and other header bytes', async () => {
    const before = agent.log.length
    const more = `collector { name = second ip = ${peer.mgmt0.ipv4} udpport = ${SFLOW_PORT + 1} }`
    write(`polling = 1 headerBytes = 64\n${more}\n${first}\n${tap}`)
    assert.equal((await reload()).exit, 0)
    await settled(agent, before)
    const changes = agent.log.at(-1)!.changes ?? agent.log.slice(before).find(line => line.changes)!.changes
    assert.deepEqual(changes, [
      'headerBytes: 128 → 64',
      `collector second: none → { ip = ${peer.mgmt0.ipv4} udpport = ${SFLOW_PORT + 1} send = flows, counters, drops }`,
    ])
    await agent.line(/^eth0 is sampled 1 in 1 by BPF$/, before)
    const told = () => readFileSync(output, 'utf8')
    await until('other programs to be told', () => told().includes('rev_end=2'))
    assert.match(told(), /^header=64$/m)
    assert.match(told(), new RegExp(`^collector=${peer.mgmt0.ipv4} ${SFLOW_PORT + 1}$`, 'm'))
    traffic(10)
    await until('samples at both', () => sampled(main).length === 30 && sampled(second).length === 10)
    const { value, records } = sampled(main).at(-1)!
    const { header } = findRecord(records, sampledHeader)!
    assert.deepEqual([value.sequence_number, value.sample_pool, value.drops], [30, 30, 0])
    assert.equal(header.length, 64)
  })

  await t.test('traffic while the rate changes again and again: every sample has its true rate', async () => {
    for (const rate of [2, 5, 1, 3, 4]) {
      const before = agent.log.length
      write(`polling = 1\n${first}\npcap { dev = eth0 sampling = ${rate} }`)
      agent.child.kill('SIGHUP')
      traffic(200)
      await agent.line(new RegExp(`^eth0 is sampled 1 in ${rate} `), before)
      traffic(200)
    }
    await until('samples at the last rate', () => flowSamplesOf(main).at(-1)?.value.sampling_rate === 4)
    const { flowSamples } = await agent.status()
    await until('all samples', () => flowSamplesOf(main).length >= flowSamples)
    const samples = flowSamplesOf(main)
    assert.deepEqual(
      samples.map(({ value }) => value.sequence_number),
      samples.map((_, i) => i + 1),
    )
    for (const [i, { value }] of samples.entries()) {
      assert.ok([1, 2, 3, 4, 5].includes(value.sampling_rate), `rate ${value.sampling_rate}`)
      // Programs in the kernel count all packets; the pool never goes back.
      assert.ok(i === 0 || value.sample_pool >= samples[i - 1]!.value.sample_pool)
    }
    assertUnbroken(second)
    assert.equal(agent.log.filter(({ collector }) => collector === 'main').length, 0)
  })

  await t.test('polling stops, goes on, and its sequence goes on', async () => {
    const polls = () => countersSamplesOf(main, HOST)
    write(`polling = 0\n${first}\n${tap}`)
    let before = agent.log.length
    await reload()
    await settled(agent, before)
    const last = polls().at(-1)!.value.sequence_number
    write(`polling = 1\n${first}\n${tap}`)
    before = agent.log.length
    await reload()
    await settled(agent, before)
    const next = await until('poll', () => polls().find(({ value }) => value.sequence_number > last))
    assert.equal(next.value.sequence_number, last + 1)
  })

  await t.test('another sub-agent begins its datagrams anew', async () => {
    assertUnbroken(main)
    const before = agent.log.length
    const { sequence_number } = main.arrivals.at(-1)!.datagram
    write(`polling = 1 subAgentId = 7 datagramBytes = 600 flush = 10\n${first}\n${tap}`)
    await reload()
    await settled(agent, before)
    traffic(30)
    const own = () => main.arrivals.filter(({ datagram }) => datagram.sub_agent_id === 7)
    await until('samples', () => own().reduce((sum, { datagram }) => sum + datagram.samples.length, 0) >= 30)
    assert.deepEqual(
      own().map(({ datagram }) => datagram.sequence_number),
      own().map((_, i) => i + 1),
    )
    assert.ok(own().every(({ bytes }) => bytes <= 600))
    assert.ok(sequence_number > 1)
  })

  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  // A reader that is slow because the machine is busy is no loss of a change.
  const { 'packet-socket/sampling-ended': ended = 0, 'counters/timeout': _, ...lost } = status.lost
  assert.deepEqual(lost, {})
  assert.ok(ended < 10, `${ended} samples were not taken`)
  const gone = await reload()
  assert.equal(gone.exit, 1)
  assert.ok(gone.stderr.startsWith(`weir: no agent runs that ${pidFile} names: `), gone.stderr)
})

test('watch = on: a changed file is taken, also one that is moved into its place', async t => {
  const lab = makeLab(t)
  const settings = `watch = on\ncollector { ip = ${lab.peer.mgmt0.ipv4} }`
  const { agent, file, write } = start(t, lab, settings)
  await agent.line(/^running$/)
  write(`polling = 5\n${settings}`)
  const line = await agent.line(/^the configuration has changed$/)
  assert.deepEqual(line.changes, ['polling: 30 → 5'])
  let before = agent.log.length
  writeFileSync(`${file}.new`, `sFlow { polling = 7\n${settings}\n}`)
  renameSync(`${file}.new`, file)
  await agent.line(/^the configuration has changed$/, before)
  // Without watch nothing is looked at any more: the next change needs to be asked for.
  before = agent.log.length
  write(`collector { ip = ${lab.peer.mgmt0.ipv4} }`)
  await agent.line(/^the configuration has changed$/, before)
  before = agent.log.length
  write(settings)
  await new Promise(resolve => setTimeout(resolve, 4000))
  assert.equal(agent.log.length, before)
  assert.equal((await agent.stop()).exit, 0)
})

test('an agent whose program was replaced takes nothing, however it is told', async t => {
  const lab = makeLab(t)
  const collector = `collector { ip = ${lab.peer.mgmt0.ipv4} }`
  const file = join(lab.folder, 'weir.conf')
  const control = join(lab.folder, 'control.sock')
  const write = (text: string) => writeFileSync(file, `sFlow { watch = on ${text} ${collector} }`)
  write('polling = 30')
  const node = join(lab.folder, 'node')
  copyFileSync(process.execPath, node, constants.COPYFILE_FICLONE)
  const inside = ['netns', 'exec', lab.host.namespace]
  const run = [node, 'agent/main.ts', 'run', '-f', file, '--control', control]
  const agent = new RunningAgent(t, ['ip', ...inside, ...run])
  await agent.line(/^running$/)
  rmSync(node)
  const refusals = () =>
    agent.log.filter(({ msg }) => /^the files of the agent .* nothing changes$/.test(msg))
  agent.child.kill('SIGHUP')
  await until('that SIGHUP is refused', () => refusals().length > 0)
  // The first look at a watched file is one that may be refused, too.
  for (const polling of [5, 7]) {
    const before = refusals().length
    write(`polling = ${polling}`)
    await until('that the changed file is refused', () => refusals().length > before)
  }
  assert.ok(refusals().length >= 3)
  const status = runWeir(t, [], ['status', '--socket', control])
  assert.equal(await status.ended, 1, status.stdout)
  assert.match(status.stdout, /the files of the agent have been replaced: it takes no other configuration/)
  assert.equal((await agent.stop()).exit, 0)
  assert.ok(!agent.log.some(({ msg }) => msg === 'the configuration has changed'))
})

test('a file that says the same: what was refused is tried again', async t => {
  const lab = makeLab(t)
  const collector = `collector { ip = ${lab.peer.mgmt0.ipv4} }`
  const { agent, write, reload } = start(t, lab, collector, ['--no-drop'])
  await agent.line(/^running$/)
  // Enough to read a file, and too little for BPF.
  const { pid } = agent.child
  // Those that it keeps: files that it polls come and go.
  const descriptors = () => readdirSync(`/proc/${pid}/fd`).map(Number)
  const open = new Set(descriptors())
  for (let look = 0; look < 20; look++) {
    await sleep(25)
    const now = descriptors()
    for (const descriptor of open) if (!now.includes(descriptor)) open.delete(descriptor)
  }
  const free = Array.from({ length: open.size + 4 }, (_, i) => i).filter(descriptor => !open.has(descriptor))
  const limit = (descriptors: string) =>
    execFileSync('prlimit', ['--pid', `${pid}`, `--nofile=${descriptors}:`])
  const hard = /^Max open files +\d+ +(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))![1]!
  limit(`${free[3]}`)
  write(`dropmon { source = ebpf } ${collector}`)
  assert.equal((await reload()).exit, 0)
  await agent.line(/^dropped packets are not reported: .*EMFILE/)
  limit(hard)
  assert.equal((await reload()).exit, 0)
  await agent.line(/^listening for dropped packets .* by BPF/)
  assert.equal((await agent.stop()).exit, 0)
})

test('two agents do not share a pid file', async t => {
  const lab = makeLab(t)
  const { agent, file, pidFile } = start(t, lab, `collector { ip = ${lab.peer.mgmt0.ipv4} }`)
  await agent.line(/^running$/)
  const other = runWeir(t, [], ['run', '-f', file, '--pid-file', pidFile])
  assert.equal(await other.ended, 1)
  assert.match(other.stderr, /^weir: .*weir\.pid belongs to a running agent, process \d+ with .*$/m)
  assert.equal((await agent.stop()).exit, 0)
})

test('two agents of one network namespace have different sub-agent ids, whatever pid files they have', async t => {
  const lab = makeLab(t)
  const collector = `collector { ip = ${lab.peer.mgmt0.ipv4} }`
  const first = startAgent(t, lab, `subAgentId = 7 ${collector}`)
  await first.line(/^running$/)
  const same = startAgent(t, lab, `subAgentId = 7 ${collector}`, {
    args: ['--pid-file', join(lab.folder, 'other.pid')],
  })
  assert.equal(await same.ended, 1)
  assert.match(
    same.stderr,
    /^weir: not started: process \d+ with .*\.conf runs in this network namespace and has subAgentId 7, too: end it/m,
  )
  // One that has another id does not take that of the first when its file says so.
  const { agent, file, write } = start(t, lab, `subAgentId = 8 ${collector}`)
  await agent.line(/^running$/)
  // Its samplers are not leftovers, whatever pid file the command looks at.
  const inside = ['ip', 'netns', 'exec', lab.host.namespace]
  const cleanup = async (path: string) => {
    const command = runWeir(t, inside, ['cleanup', '-f', path, '--pid-file', join(lab.folder, 'none.pid')])
    return { exit: await command.ended, ...command }
  }
  const early = await cleanup(file)
  assert.equal(early.exit, 1)
  assert.equal(early.stderr, `weir: the agent runs, process ${agent.child.pid}: it cleans up when it ends\n`)
  const mistyped = await cleanup(`${file}x`)
  assert.equal(mistyped.exit, 1)
  assert.match(mistyped.stderr, /cannot read .*weir\.confx: it does not exist/)
  write(`subAgentId = 7 headerBytes = 64 ${collector}`)
  agent.child.kill('SIGHUP')
  await agent.line(/^subAgentId stays 8: process \d+ .* has subAgentId 7/)
  assert.equal((await first.stop()).exit, 0)
  const next = startAgent(t, lab, `subAgentId = 7 ${collector}`)
  await next.line(/^running$/)
  assert.equal((await next.stop()).exit, 0)
  assert.equal((await agent.stop()).exit, 0)
  write(`subAgentId = 8 ${collector}`)
  const late = await cleanup(file)
  assert.equal(late.stdout, 'nothing of an agent with subAgentId 8 is left here\n', late.stderr)
})

test('cleanup in another network namespace: the pid file goes, and the way to the rest is told', async t => {
  const lab = makeLab(t)
  const { agent, file, pidFile } = start(t, lab, `collector { ip = ${lab.peer.mgmt0.ipv4} }`)
  await agent.line(/^running$/)
  agent.child.kill('SIGKILL')
  await agent.ended
  const { host, peer } = lab
  const cleanup = async () => {
    const inside = ['ip', 'netns', 'exec', peer.namespace]
    const command = runWeir(t, inside, ['cleanup', '-f', file, '--pid-file', pidFile])
    assert.equal(await command.ended, 0, command.stderr)
    return command.stdout.split('\n')
  }
  const said = await cleanup()
  assert.deepEqual(said, [
    'nothing of an agent with subAgentId 100000 is left here',
    `removed ${pidFile} of process ${agent.child.pid}, which has ended`,
    `it ran in another network namespace; what it left there is removed by \`ip netns exec ${host.namespace} weir cleanup -f ${file}\``,
    '',
  ])
  assert.equal(existsSync(pidFile), false)
  assert.deepEqual(await cleanup(), [said[0], ''])
})

test('the agent address is that of the run before, and a change of it is told', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const collector = listen(t, peer.namespace, { address: peer.eth0.ipv4, port: SFLOW_PORT })
  writeFileSync(join(lab.folder, 'hsflowd.auto'), `rev_start=3\nagentIP=${host.mgmt0.ipv4}\nrev_end=3\n`)
  const { agent, output } = start(t, lab, `polling = 1\ncollector { ip = ${peer.eth0.ipv4} }`)
  await agent.line(new RegExp(`^agent address ${host.mgmt0.ipv4}$`))
  const from = (address: string) =>
    collector.arrivals.filter(({ datagram }) => datagram.agent_address === address)
  await until('datagrams', () => from(host.mgmt0.ipv4).length > 0)
  ip(`-n ${host.namespace} address del ${host.mgmt0.ipv4}/24 dev mgmt0`)
  await agent.line(new RegExp(`^agent address ${host.eth0.ipv4}, no longer ${host.mgmt0.ipv4}$`))
  await until('datagrams', () => from(host.eth0.ipv4).length > 1)
  assert.equal(from(host.eth0.ipv4)[0]!.datagram.sequence_number, 1, 'to collectors it is another agent')
  await until('other programs to be told', () =>
    readFileSync(output, 'utf8').includes(`agentIP=${host.eth0.ipv4}\n`),
  )
  assert.equal((await agent.stop()).exit, 0)
})

test('budget: rates are raised under load, and each sample tells its own', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const to = { address: host.eth0.ipv4, port: TRAFFIC_PORT }
  sink(t, host.namespace, to)
  const packets = 2000
  const traffic = () =>
    sendFlow(peer.namespace, {
      from: { address: peer.eth0.ipv4, port: TRAFFIC_PORT },
      to,
      payloadBytes: 100,
      packets,
    })
  const { agent } = start(
    t,
    lab,
    `polling = 0 budget = 100\ncollector { ip = ${peer.mgmt0.ipv4} }\npcap { dev = eth0 sampling = 1 }`,
  )
  await agent.line(/^eth0 is sampled 1 in 1 by /)
  traffic()
  const raised = await agent.line(/^sampling rates are multiplied with \d+ to stay within the budget$/)
  const factor = Number(/\d+/.exec(raised.msg)![0])
  assert.ok(factor >= 8 && factor <= 32, `${factor}`)
  await agent.line(new RegExp(`^eth0 is sampled 1 in ${factor} by `))
  traffic()
  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  await until('all samples', () => flowSamplesOf(collector).length === status.flowSamples)
  const rates = flowSamplesOf(collector).map(({ value }) => value.sampling_rate)
  assert.deepEqual([...new Set(rates)], [1, factor])
  const estimate = rates.reduce((sum, rate) => sum + rate, 0)
  // The second half is an estimate: its standard deviation is below 8 % of it.
  assert.ok(Math.abs(estimate - 2 * packets) < packets / 2, `${estimate} instead of ${2 * packets}`)
})
