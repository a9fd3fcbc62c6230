/** `weir run` as a program: what it says and how it ends. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { lstatSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import {
  countersSamplesOf,
  flowSamplesOf,
  listen,
  makeLab,
  runWeir,
  sendFlow,
  sink,
  startAgent,
  udpPortOf,
  until,
} from '../support/lab.ts'

const HOST = { type: 2, index: 1 }
const TRAFFIC_PORT = 7000

describe('weir run', () => {
  test('a configuration with five mistakes is refused, and each is shown with its place', async t => {
    const lab = makeLab(t)
    const agent = startAgent(
      t,
      lab,
      `  polling = often
  sampling.10G = -5
  colector { ip = 192.0.2.1 }
  collector { ip = 192.0.2.300 }
  collector { ip = 192.0.2.1 udpport = 70000 }`,
    )
    assert.equal(await agent.ended, 1)
    const [file] = /^.*?(?=:\d)/.exec(agent.stderr)!
    const places = agent.stderr.split('\n').filter(line => line.startsWith(`${file}:`))
    assert.deepEqual(
      places.map(line => line.slice(file.length + 1)),
      [
        '2:13: polling: expected a whole number from 0 to 300, got "often"',
        '3:18: sampling.10G: expected a whole number from 0 to 10000000, got "-5"',
        '4:3: "colector" is not a setting of sFlow { }',
        '5:20: ip: expected an IP address or a host name, got "192.0.2.300"',
        '6:40: udpport: expected a whole number from 1 to 65535, got "70000"',
      ],
    )
    assert.equal(agent.stderr.split('\n').at(-2), `weir: not started: ${file} has errors`)
  })

  const refused = [
    {
      name: 'a file that does not exist',
      args: ['-f', '/nowhere/weir.conf'],
      message: 'weir: cannot read /nowhere/weir.conf: it does not exist',
    },
    {
      name: 'a folder',
      args: ['-f', '/etc'],
      message: 'weir: /etc is a directory',
    },
    {
      name: 'a level that there is not',
      args: ['-f', '/nowhere/weir.conf', '--log-level', 'loud'],
      message: /^error: option '--log-level <level>' argument 'loud' is invalid. Allowed choices are trace, /,
    },
    {
      name: 'an option that there is not',
      args: ['--fast'],
      message: /^error: unknown option '--fast'/,
    },
  ]
  for (const { name, args, message } of refused) {
    test(`${name}: status 1 and the reason`, async t => {
      const agent = runWeir(t, [], ['run', ...args])
      assert.equal(await agent.ended, 1)
      const [first] = agent.stderr.split('\n')
      if (typeof message === 'string') assert.equal(first, message)
      else assert.match(first!, message)
    })
  }

  const others = [
    { args: ['fetch', '--help'], message: "error: unknown command 'fetch'" },
    { args: ['health', '--pid-file', '/etc'], message: 'weir: /etc: it is a directory' },
    { args: ['status', '--socket', '/etc'], message: 'weir status: /etc is no socket' },
  ]
  for (const { args, message } of others) {
    test(`weir ${args.join(' ')}: refused`, async t => {
      const agent = runWeir(t, [], args)
      assert.notEqual(await agent.ended, 0)
      assert.equal(agent.stderr.split('\n')[0], message)
    })
  }

  test('a pid file takes the place of nothing else', async t => {
    const folder = mkdtempSync(join(tmpdir(), `weir-pid-${process.pid}-`))
    t.after(() => rmSync(folder, { recursive: true }))
    const file = join(folder, 'weir.conf')
    writeFileSync(file, 'sFlow { collector { ip = 127.0.0.1 } }\n')
    const link = join(folder, 'null')
    symlinkSync('/dev/null', link)
    for (const path of [link, file, folder]) {
      const agent = runWeir(t, [], ['run', '-f', file, '--pid-file', path])
      assert.equal(await agent.ended, 1)
      assert.equal(
        agent.stderr,
        `weir: not started: the pid file ${path} cannot be written: something else than a pid file is there\n`,
      )
    }
    assert.ok(lstatSync(link).isSymbolicLink())
    assert.match(readFileSync(file, 'utf8'), /^sFlow/)
  })

  test('with a control socket that cannot be, nothing is sampled or sent', async t => {
    const lab = makeLab(t)
    const { peer, folder } = lab
    const taken = join(folder, 'taken')
    writeFileSync(taken, '')
    const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
    for (const socket of [taken, join(taken, 'below')]) {
      const agent = startAgent(
        t,
        lab,
        `polling = 1 pcap { dev = eth0 sampling = 1 } collector { ip = ${peer.mgmt0.ipv4} }`,
        { args: ['--control', socket] },
      )
      assert.equal(await agent.ended, 1)
      assert.ok(agent.stderr.startsWith('weir: ') && agent.stderr.includes(socket), agent.stderr)
      assert.doesNotMatch(agent.stdout + agent.stderr, /is sampled|"running"/)
    }
    assert.equal(collector.arrivals.length, 0)
  })

  test('an agent that was killed and not yet waited for does not run', async t => {
    const folder = mkdtempSync(join(tmpdir(), `weir-zombie-${process.pid}-`))
    t.after(() => rmSync(folder, { recursive: true }))
    const pidFile = join(folder, 'weir.pid')
    // The shell becomes a program that never waits for its child.
    const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'])
    t.after(() => parent.kill())
    const [line] = (await once(parent.stdout, 'data')) as [Buffer]
    const pid = Number(line)
    const stat = () => readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')
    await until('the child to end', () => stat()[2] === 'Z')
    writeFileSync(pidFile, `${pid}\n${stat()[21]}\n/etc/weir.conf\n\n`)
    const health = runWeir(t, [], ['health', '--pid-file', pidFile])
    assert.equal(await health.ended, 1)
    assert.ok(health.stderr.startsWith(`weir: no agent runs that ${pidFile} names: `), health.stderr)
  })

  test('standard output that takes nothing: no stack trace', async t => {
    const folder = mkdtempSync(join(tmpdir(), `weir-output-${process.pid}-`))
    t.after(() => rmSync(folder, { recursive: true }))
    const file = join(folder, 'weir.conf')
    writeFileSync(file, 'sFlow { colector { } }\n')
    const check = ['check', '--file-only', '-f', file]
    const full = runWeir(t, ['sh', '-c', '"$@" >/dev/full', 'sh'], check)
    assert.equal(await full.ended, 1)
    assert.equal(full.stderr, 'weir: standard output: ENOSPC: no space left on device, write\n')
    // The reader has gone before anything is written; the status is what it would have been.
    const gone = runWeir(t, ['bash', '-o', 'pipefail', '-c', '"$@" | true', 'bash'], check)
    assert.equal(await gone.ended, 1)
    assert.equal(gone.stderr, '')
  })

  test('--log-level warn leaves out what is well', async t => {
    const lab = makeLab(t)
    const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
    const agent = startAgent(
      t,
      lab,
      `collector { ip = ${lab.peer.mgmt0.ipv4} }
      collector { ip = ${lab.peer.mgmt0.ipv4} dev = missing0 }`,
      { args: ['--log-level', 'warn'] },
    )
    await until('counters sample', () => countersSamplesOf(collector).length > 0)
    agent.child.kill('SIGTERM')
    assert.equal(await agent.ended, 0)
    assert.deepEqual(
      agent.log.map(({ level, msg }) => ({ level, msg })),
      [{ level: 40, msg: 'send through missing0: ENODEV (no such device)' }],
    )
  })

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    test(`${signal}: sends what is open and ends well`, async t => {
      const lab = makeLab(t)
      const { host, peer } = lab
      const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
      // No datagram would leave by its age before the signal.
      const agent = startAgent(
        t,
        lab,
        `polling = 0 flush = 1000
        collector { ip = ${peer.mgmt0.ipv4} }
        pcap { dev = eth0 sampling = 1 }`,
      )
      await agent.line(/^running$/)
      const to = { address: host.eth0.ipv4, port: TRAFFIC_PORT }
      sink(t, host.namespace, to)
      sendFlow(peer.namespace, {
        from: { address: peer.eth0.ipv4, port: TRAFFIC_PORT },
        to,
        payloadBytes: 10,
        packets: 3,
      })
      // SIGUSR1 writes the status, and the agent goes on.
      await until('samples', async () => (await agent.status()).flowSamples >= 3)
      const asked = performance.now()
      const { exit, status } = await agent.stop(signal)
      assert.equal(exit, 0)
      // It takes some milliseconds; on a busy machine its turn comes later.
      assert.ok(performance.now() - asked < 3000, `ended after ${performance.now() - asked} ms`)
      assert.ok(agent.log.some(({ msg }) => msg === `ending on ${signal}`))
      assert.deepEqual(status.lost, {})
      await until('last datagram', () => collector.arrivals.length === status.datagrams)
      const samples = flowSamplesOf(collector)
      assert.equal(samples.length, status.flowSamples)
      assert.equal(samples.filter(sample => udpPortOf(sample) === TRAFFIC_PORT).length, 3)
    })
  }

  test('two in one namespace do not disturb each other', async t => {
    const lab = makeLab(t)
    const { host, peer } = lab
    const collectors = [1, 2].map(number =>
      listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT + number }),
    )
    const to = { address: host.eth0.ipv4, port: TRAFFIC_PORT }
    sink(t, host.namespace, to)
    const traffic = (packets: number) =>
      sendFlow(peer.namespace, {
        from: { address: peer.eth0.ipv4, port: TRAFFIC_PORT },
        to,
        payloadBytes: 10,
        packets,
      })
    const agents = [1, 2].map(number =>
      startAgent(
        t,
        lab,
        `polling = 1 subAgentId = ${number}
        collector { ip = ${peer.mgmt0.ipv4} udpport = ${SFLOW_PORT + number} }
        pcap { dev = eth0 sampling = 1 }`,
      ),
    )
    for (const agent of agents) await agent.line(/^running$/)
    const sampled = (collector: (typeof collectors)[number]) =>
      flowSamplesOf(collector).filter(sample => udpPortOf(sample) === TRAFFIC_PORT).length
    traffic(20)
    for (const collector of collectors) await until('20 samples', () => sampled(collector) === 20)
    const { exit } = await agents[0]!.stop()
    assert.equal(exit, 0)
    traffic(30)
    await until('50 samples', () => sampled(collectors[1]!) === 50)
    const before = countersSamplesOf(collectors[1]!, HOST).length
    await until('counters samples', () => countersSamplesOf(collectors[1]!, HOST).length > before)
    assert.equal(sampled(collectors[0]!), 20)
    for (const [i, { arrivals }] of collectors.entries()) {
      assert.deepEqual(new Set(arrivals.map(({ datagram }) => datagram.sub_agent_id)), new Set([i + 1]))
    }
    assert.equal((await agents[1]!.stop()).exit, 0)
  })
})
