/** The package under a real systemd, from installation to removal. Runs in a guest with a Debian of its own. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { SFLOW_PORT } from '../../../agent/wire/sflow/datagram.ts'
import { countersSamplesOf, flowSamplesOf, ip, ipBatch, listen, until } from '../../support/lab.ts'
import { packageFile } from '../root.ts'

const PEER = 'peer'
/** weir0 is sampled by BPF, weir1 by tc. */
const NET = ['192.0.2', '198.51.100'] as const
const PATIENCE_MS = 160_000
const MEMORY_MAX = 96 * 1024 * 1024

function shell(line: string): string {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', line], { encoding: 'utf8' })
  assert.equal(status, 0, `${line}:\n${stdout}${stderr}`)
  return stdout.trim()
}

function property(name: string): string {
  return execFileSync('systemctl', ['show', '--property', name, '--value', 'weir.service'], {
    encoding: 'utf8',
  }).trim()
}

/** Settings of the unit for this test. */
function dropIn(lines: string): void {
  const folder = '/run/systemd/system/weir.service.d'
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'test.conf'), `[Service]\n${lines}\n`)
  shell('systemctl daemon-reload')
}

/** What hangs on the interfaces in the kernel. */
function hooks(): string {
  return ['weir0', 'weir1'].map(name => shell(`tc qdisc show dev ${name} | grep clsact || true`)).join('')
}

function configuration(polling: number): string {
  return `sFlow {
    polling = ${polling}
    collector { ip = ${NET[0]}.2 }
    pcap { dev = weir0 sampling = 1 }
    psample { group = 9 }
    tc { switchport = "^weir1$" }
    sampling = 10
    dropmon { }
  }\n`
}

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
  const ping = () => void spawnSync('ping', ['-q', '-c', '20', '-i', '0.01', `${NET[0]}.2`])
  const expectSamples = async () => {
    collector.arrivals.length = 0
    const host = { type: 2, index: 1 }
    await until('counters samples', () => countersSamplesOf(collector, host)[0], PATIENCE_MS)
    const look = () => {
      ping()
      return flowSamplesOf(collector)[0]
    }
    await until('flow samples', look, PATIENCE_MS)
  }
  /** Waits for another main process than this one. */
  const another = (pid: string) =>
    until(
      'another process',
      () => {
        const now = property('MainPID')
        return property('ActiveState') === 'active' && now !== pid && now !== '0' ? now : undefined
      },
      PATIENCE_MS,
    )

  test('installing starts it, by its own user', () => {
    // An emulated processor beside busy others takes a minute for what takes a tenth of a second.
    dropIn('TimeoutStartSec=600\nTimeoutStopSec=600\nWatchdogSec=600')
    shell(`dpkg -i ${packageFile('_amd64.deb')}`)
    assert.equal(property('ActiveState'), 'active')
    assert.equal(property('UnitFileState'), 'enabled')
    const status = readFileSync(`/proc/${property('MainPID')}/status`, 'utf8')
    const user = shell('id -u weir')
    assert.match(status, new RegExp(`^Uid:\\t${user}\\t${user}\\t`, 'm'))
    // It only counts so far: nothing else is kept.
    assert.match(status, /^CapPrm:\t0000000000000000$/m)
    assert.match(status, /^Seccomp:\t2$/m)
  })

  test('samples arrive; drops, tc samplers and BPF work in the sandbox', async () => {
    writeFileSync('/etc/weir.conf', configuration(1))
    shell('systemctl restart weir')
    await expectSamples()
    await until('a tc sampler', () => shell('tc filter show dev weir1 ingress').includes('sample'))
    const problems = shell('journalctl --no-pager --unit weir --output cat')
      .split('\n')
      .filter(line => /EPERM|EACCES|not permitted/.test(line))
    assert.deepEqual(problems, [])
    assert.match(shell('weir status'), /weir0|samples/i)
    assert.match(shell('weir health'), /the agent runs/)
  })

  test('reload takes a changed file, and goes on with the same process', async () => {
    const pid = property('MainPID')
    writeFileSync('/etc/weir.conf', configuration(2))
    shell('systemctl reload weir')
    await until('the change', () =>
      shell('journalctl --no-pager --unit weir --output cat').includes('polling.seconds: 1 → 2'),
    )
    assert.equal(property('MainPID'), pid)
    shell('systemctl daemon-reload')
    assert.equal(property('MainPID'), pid)
    await expectSamples()
  })

  test('memory stays below its limit', async () => {
    for (let i = 0; i < 5; i++) ping()
    const used = Number(
      property('MemoryPeak') === '[not set]' ? property('MemoryCurrent') : property('MemoryPeak'),
    )
    const rss = /^VmRSS:\s*(\d+) kB/m.exec(readFileSync(`/proc/${property('MainPID')}/status`, 'utf8'))![1]
    console.log(
      `# memory counted by the control group at most ${Math.round(used / 1e6)} MB, resident ${rss} kB`,
    )
    assert.ok(used > 0 && used < MEMORY_MAX, String(used))
    assert.equal(property('MemoryMax'), String(MEMORY_MAX))
  })

  test('killed: started again, and what it left is gone', async () => {
    const pid = property('MainPID')
    shell('systemctl kill --signal KILL --kill-whom main weir')
    await another(pid)
    await expectSamples()
    const filters = shell('tc filter show dev weir1 ingress').match(/filter .* matchall .*handle/g) ?? []
    assert.equal(filters.length, 1)
  })

  test('hung: the watchdog ends it, and it is started again', async () => {
    dropIn('TimeoutStartSec=600\nTimeoutStopSec=600\nWatchdogSec=30')
    shell('systemctl daemon-reload && systemctl restart weir')
    await expectSamples()
    const pid = property('MainPID')
    process.kill(Number(pid), 'SIGSTOP')
    await another(pid)
    assert.match(shell('journalctl --no-pager --unit weir --output cat'), /[Ww]atchdog timeout/)
    await expectSamples()
  })

  test('the clock is set forward and back: samples go on, and uptime does not jump', async () => {
    await expectSamples()
    const before = collector.arrivals.at(-1)!.datagram.uptime
    for (const step of ['+1 hour', '-2 hours']) {
      shell(`date --set '${step}'`)
      await expectSamples()
      const { uptime } = collector.arrivals.at(-1)!.datagram
      assert.ok(uptime > before && uptime - before < 600_000, `${before} → ${uptime}`)
    }
    assert.match(shell('weir health'), /the agent runs/)
  })

  test('suspended and resumed: samples go on', async t => {
    if (!existsSync('/sys/power/pm_test')) return t.skip('this kernel cannot test suspension')
    const pid = property('MainPID')
    // Suspends for five seconds all but the processors, and resumes.
    writeFileSync('/sys/power/pm_test', 'devices')
    writeFileSync('/sys/power/state', 'freeze')
    writeFileSync('/sys/power/pm_test', 'none')
    await expectSamples()
    assert.equal(property('MainPID'), pid)
  })

  test('all interfaces gone and back: it goes on by itself', async () => {
    const pid = property('MainPID')
    for (const name of ['weir0', 'weir1']) ip(`link set ${name} down`)
    await until('no datagrams', () => property('ActiveState') === 'active')
    for (const name of ['weir0', 'weir1']) ip(`link set ${name} up`)
    await expectSamples()
    assert.equal(property('MainPID'), pid)
  })

  test('stopping leaves nothing in the kernel; removing and purging leave nothing on the disk', () => {
    shell('systemctl stop weir')
    assert.equal(property('Result'), 'success')
    assert.equal(hooks(), '')
    shell('systemctl start weir')
    assert.notEqual(hooks(), '')
    shell('dpkg --remove weir')
    assert.equal(hooks(), '')
    assert.equal(existsSync('/usr/lib/weir'), false)
    shell('dpkg --purge weir')
    for (const path of ['/etc/weir.conf', '/etc/hsflowd.auto', '/var/lib/weir', '/run/weir']) {
      assert.equal(existsSync(path), false, path)
    }
    const wants = '/etc/systemd/system/multi-user.target.wants'
    assert.deepEqual(
      readdirSync(wants).filter(name => name.startsWith('weir.')),
      [],
    )
    assert.notEqual(spawnSync('id', ['weir']).status, 0)
    assert.ok(existsSync(join(wants, 'weir-vm.service')))
  })
})
