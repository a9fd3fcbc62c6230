/** The package under a real systemd, from installation to removal. Runs in a guest with a Debian of its own. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { PID_FILE } from '../../../agent/command/pid-file.ts'
import { SFLOW_PORT } from '../../../agent/wire/sflow/datagram.ts'
import { countersSamplesOf, flowSamplesOf, ip, ipBatch, listen, until } from '../../support/lab.ts'
import { NEXT, NEXT_VERSION, packageFile } from '../root.ts'

const PEER = 'peer'
/** weir0 is sampled by BPF, weir1 by tc. */
const NET = ['192.0.2', '198.51.100'] as const
const PATIENCE_MS = 160_000
const MEMORY_MAX = 96 * 1024 * 1024

function shell(line: string): string {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', line], { encoding: 'utf8' })
  assert.equal(status, 0, `${line}:\n${stdout}${stderr}\n${journal()}`)
  return stdout.trim()
}

/** Files are safe here, in memory, without dpkg's waiting for them. */
function dpkg(words: string): string {
  return shell(`dpkg --force-unsafe-io ${words} 2>&1`)
}

function journal(): string {
  return spawnSync('journalctl', ['--no-pager', '--unit', 'weir', '--output', 'cat'], { encoding: 'utf8' })
    .stdout
}

function property(name: string): string {
  return shell(`systemctl show --property ${name} --value weir.service`)
}

/** What hangs on the interfaces in the kernel; all of BPF's on weir0 goes with the process. */
function hooks(): string {
  return shell('tc qdisc show | grep clsact || true')
}

/** Of tc on weir1, in one direction. */
function samplers(): number {
  return shell('tc filter show dev weir1 ingress').match(/action order \d+: sample/g)?.length ?? 0
}

function configuration(settings: string): string {
  return `sFlow {
    sampling.10G = 1
    collector { ip = ${NET[0]}.2 }
    pcap { dev = weir0 }
    psample { group = 9 }
    tc { switchport = ^weir1$ sw = on }
    ${settings}
  }\n`
}

const FIRST = configuration('polling = 1 dropmon { }')
/** Without the names of all functions, which an emulated processor reads for ten seconds at each start. */
const CHANGED = configuration('polling = 2')

describe('under systemd', { concurrency: false }, () => {
  const scope = { after }
  ip(`netns add ${PEER}`)
  NET.forEach((net, i) => {
    ip(`link add weir${i} type veth peer name weir${i} netns ${PEER}`)
    ip(`address add ${net}.1/24 dev weir${i}`)
    ip(`link set weir${i} up`)
    ipBatch(PEER, [`address add ${net}.2/24 dev weir${i}`, `link set weir${i} up`, 'link set lo up'])
  })
  const collector = listen(scope, PEER, { address: `${NET[0]}.2`, port: SFLOW_PORT })
  const ifIndexes = NET.map((_, i) => Number(readFileSync(`/sys/class/net/weir${i}/ifindex`, 'utf8')))

  /** Counters samples come, and flow samples of both interfaces, from one sampler each. */
  async function expectSamples(): Promise<void> {
    collector.arrivals.length = 0
    const counters = () => countersSamplesOf(collector, { type: 2, index: 1 })[0]
    const flows = () => {
      for (const net of NET) spawnSync('ping', ['-q', '-c', '3', '-i', '0.01', `${net}.2`])
      const seen = new Set(flowSamplesOf(collector).map(({ value }) => value.source_id.index))
      return ifIndexes.every(index => seen.has(index))
    }
    try {
      await until('flow samples of both interfaces', flows, PATIENCE_MS)
      await until('counters samples', counters, PATIENCE_MS)
      await until('one tc sampler', () => samplers() === 1, PATIENCE_MS)
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${journal()}`)
    }
  }

  test('installing starts it, by its own user', () => {
    // An emulated processor beside busy others takes a minute for what takes a tenth of a second.
    mkdirSync('/run/systemd/system/weir.service.d', { recursive: true })
    const patience = 'TimeoutStartSec=600\nTimeoutStopSec=600\nWatchdogSec=600'
    writeFileSync('/run/systemd/system/weir.service.d/test.conf', `[Service]\n${patience}\n`)
    writeFileSync('/etc/weir.conf', FIRST)
    dpkg(`--install ${packageFile('_amd64.deb')}`)
    assert.equal(property('ActiveState'), 'active')
    assert.equal(property('UnitFileState'), 'enabled')
    const status = readFileSync(`/proc/${property('MainPID')}/status`, 'utf8')
    const user = shell('id -u weir')
    assert.match(status, new RegExp(`^Uid:\\t${user}\\t${user}\\t`, 'm'))
    assert.match(status, /^Seccomp:\t2$/m)
    assert.match(status, /^NoNewPrivs:\t1$/m)
  })

  test('samples arrive; drops, tc samplers and BPF work in the sandbox, below the memory limit', async () => {
    await expectSamples()
    const problems = journal()
      .split('\n')
      .filter(line => /EPERM|EACCES|not permitted/.test(line))
    assert.deepEqual(problems, [])
    assert.equal(property('MemoryMax'), String(MEMORY_MAX))
    const used = Number(property('MemoryPeak'))
    const rss = /^VmRSS:\s*(\d+) kB/m.exec(readFileSync(`/proc/${property('MainPID')}/status`, 'utf8'))![1]
    console.log(`# the control group had at most ${Math.round(used / 1e6)} MB, resident are ${rss} kB`)
    assert.ok(used > 0 && used <= MEMORY_MAX, String(used))
  })

  test('reload takes a changed file, and goes on with the same process', async () => {
    const pid = property('MainPID')
    writeFileSync('/etc/weir.conf', CHANGED)
    shell('systemctl reload weir')
    // Looking costs an emulated processor more than the agent's own work does.
    const isTold = async () => {
      await sleep(500)
      return journal().includes('polling: 1 → 2')
    }
    await until('the change', isTold, PATIENCE_MS)
    assert.equal(property('MainPID'), pid)
  })

  test('killed, it is started again and repairs what it left', async () => {
    const pid = property('MainPID')
    process.kill(Number(pid), 'SIGKILL')
    // The agent writes its pid file before it starts, and systemd has its say when it has.
    const another = () => (existsSync(PID_FILE) ? readFileSync(PID_FILE, 'utf8') : '').split('\n')[0]
    await until('another process', () => ![pid, ''].includes(another()!), PATIENCE_MS)
    await expectSamples()
  })

  test('an upgrade with a broken configuration leaves the old one running, and says so', async () => {
    const pid = property('MainPID')
    writeFileSync('/etc/weir.conf', CHANGED.replace('polling', 'poling'))
    const said = dpkg(`--install ${packageFile('_amd64.deb', NEXT)}`)
    assert.match(
      said,
      new RegExp(`did you mean polling\\?.*THE NEW VERSION IS NOT STARTED.*weir: ${pid}, with`, 's'),
    )
    assert.match(said, /edit \/etc\/weir\.conf, run 'weir check', then 'systemctl restart weir'/)
    assert.equal(property('ActiveState'), 'active')
    assert.equal(property('MainPID'), pid)
    writeFileSync('/etc/weir.conf', CHANGED)
    assert.notEqual(spawnSync('systemctl', ['reload', 'weir']).status, 0)
    assert.match(
      journal(),
      new RegExp(`not reloaded: the files of the agent, process ${pid}, have been replaced`),
    )
    assert.equal(property('MainPID'), pid)
  })

  test('an upgrade keeps the configuration and whether it is enabled, and starts the new one', async () => {
    const pid = property('MainPID')
    dpkg(`--install ${packageFile('_amd64.deb', NEXT)}`)
    assert.equal(shell('dpkg --status weir | grep ^Version:'), `Version: ${NEXT_VERSION}`)
    assert.equal(property('ActiveState'), 'active')
    assert.equal(property('UnitFileState'), 'enabled')
    assert.notEqual(property('MainPID'), pid)
    assert.equal(readFileSync('/etc/weir.conf', 'utf8'), CHANGED)
    await expectSamples()
  })

  test('removing leaves nothing in the kernel, purging nothing on the disk', () => {
    assert.notEqual(hooks(), '')
    dpkg('--remove weir')
    assert.equal(hooks(), '')
    assert.equal(existsSync('/usr/lib/weir'), false)
    assert.equal(existsSync('/etc/systemd/system/multi-user.target.wants/weir.service'), false)
    assert.ok(existsSync('/etc/weir.conf'))
    dpkg('--purge weir')
    for (const path of [
      '/etc/weir.conf',
      '/etc/hsflowd.auto',
      '/etc/init.d/weir',
      '/var/lib/weir',
      '/run/weir',
    ])
      assert.equal(existsSync(path), false, path)
    assert.notEqual(spawnSync('id', ['weir']).status, 0)
  })
})
