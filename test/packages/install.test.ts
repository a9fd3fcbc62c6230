/** Packages on clean systems: what an installation brings, what runs of it, and that nothing stays when it goes. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { version } from '../../agent/version.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { buildDeb } from '../../packaging/deb.ts'
import { TARGETS } from '../../packaging/targets.ts'
import {
  type Collector,
  countersSamplesOf,
  flowSamplesOf,
  type Lab,
  listen,
  makeLab,
  sendFlow,
  sink,
  until,
} from '../support/lab.ts'
import { PACKAGES, packageFile, Root } from './root.ts'

const AMD64 = TARGETS.find(({ name }) => name === 'amd64')!
const TRAFFIC_PORT = 7000
/** Started as root, the agent becomes this user. */
const USER = 'weir'

function collectorOf(t: TestContext, lab: Lab): Collector {
  sink(t, lab.peer.namespace, { address: lab.peer.eth0.ipv4, port: TRAFFIC_PORT })
  return listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
}

function configuration(lab: Lab): string {
  return `sFlow { polling = 1 collector { ip = ${lab.peer.mgmt0.ipv4} } pcap { dev = eth0 sampling = 1 } }\n`
}

/** Counters and flows come from the agent of this lab. */
async function expectSamples(lab: Lab, collector: Collector): Promise<void> {
  collector.arrivals.length = 0
  await until('counters samples', () => countersSamplesOf(collector, { type: 2, index: 1 })[0])
  const to = { address: lab.peer.eth0.ipv4, port: TRAFFIC_PORT }
  await until('flow samples', () => {
    sendFlow(lab.host.namespace, {
      from: { address: lab.host.eth0.ipv4, port: TRAFFIC_PORT },
      to,
      payloadBytes: 100,
      packets: 5,
    })
    return flowSamplesOf(collector)[0]
  })
}

/** The process id of the agent that runs in the root. */
function agentOf(root: Root): number {
  return Number(readFileSync(join(root.path, 'run/weir/weir.pid'), 'utf8').split('\n')[0])
}

function status(pid: number, field: string): string {
  return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!
}

describe('deb', () => {
  for (const suite of ['bullseye', 'bookworm', 'trixie']) {
    test(`on Debian ${suite} without Node.js: install, run, upgrade, reload, remove, purge`, async t => {
      const lab = makeLab(t)
      const collector = collectorOf(t, lab)
      const root = Root.make(t, suite, lab.host.namespace)
      assert.notEqual(root.run('command -v node').status, 0, 'the system has a Node.js')
      const before = root.files()

      copyFileSync(packageFile('_amd64.deb'), join(root.path, 'tmp/weir.deb'))
      const installed = root.must('dpkg -i /tmp/weir.deb 2>&1')
      assert.match(
        installed,
        /samples go to this machine, 127\.0\.0\.1, until \/etc\/weir\.conf names another/,
      )
      root.must('weir check')
      assert.equal(root.must('weir --version').trim(), version)
      assert.equal(root.must(`id -un ${USER}`).trim(), USER)
      assert.ok(existsSync(join(root.path, 'etc/weir.conf')))
      for (const page of ['man8/weir.8.gz', 'man5/weir.conf.5.gz', 'man8/weir-run.8.gz']) {
        // dpkg leaves manual pages out on minimal systems: what is in the package counts.
        assert.ok(packaged('_amd64.deb').includes(`./usr/share/man/${page}`), page)
      }
      assert.equal(root.must('readlink /etc/hsflowd.auto').trim(), '/var/lib/weir/hsflowd.auto')

      writeFileSync(join(root.path, 'etc/weir.conf'), configuration(lab))
      root.must('/etc/init.d/weir start')
      await expectSamples(lab, collector)
      const pid = agentOf(root)
      assert.equal(readlinkSync(`/proc/${pid}/exe`), join(root.path, 'usr/lib/weir/node'))
      const [, , user] = root.must(`grep ^${USER}: /etc/passwd`).split(':')
      assert.deepEqual(new Set(status(pid, 'Uid').split('\t')), new Set([user]))
      // NET_ADMIN, NET_RAW, SYSLOG, PERFMON, BPF: what pcap { } needs, and no SYS_ADMIN.
      for (const set of ['CapPrm', 'CapEff', 'CapBnd'])
        assert.equal(status(pid, set), '000000c400003000', set)
      assert.match(readFileSync(join(root.path, 'var/lib/weir/hsflowd.auto'), 'utf8'), /^collector=/m)
      assert.match(root.must('/etc/init.d/weir status'), new RegExp(`process ${pid}`))
      root.must('weir health')

      // An upgrade keeps the configuration, and the new agent takes the place of the one that ran.
      const next = buildDeb({
        target: AMD64,
        version: `${version}+next`,
        tree: join(PACKAGES, 'tree-amd64'),
        output: lab.folder,
        level: 0,
      })
      copyFileSync(next, join(root.path, 'tmp/next.deb'))
      root.must('dpkg -i /tmp/next.deb 2>&1')
      assert.equal(readFileSync(join(root.path, 'etc/weir.conf'), 'utf8'), configuration(lab))
      assert.notEqual(agentOf(root), pid)
      await expectSamples(lab, collector)
      writeFileSync(
        join(root.path, 'etc/weir.conf'),
        configuration(lab).replace('polling = 1', 'polling = 2'),
      )
      assert.match(root.must('/etc/init.d/weir reload'), /is right: the agent, process \d+, takes it/)

      const last = agentOf(root)
      root.must('dpkg --remove weir 2>&1')
      assert.equal(existsSync(`/proc/${last}`), false, 'the agent runs on')
      assert.equal(existsSync(join(root.path, 'usr/lib/weir')), false)
      assert.ok(existsSync(join(root.path, 'etc/weir.conf')), 'remove keeps the configuration')
      root.must('dpkg --purge weir 2>&1')
      assert.deepEqual(difference(root.files(), before), [])
      assert.deepEqual(difference(before, root.files()), [])
      assert.notEqual(root.run(`id ${USER}`).status, 0)
    })
  }

  test('beside hsflowd: its configuration is taken, it is told of, and nothing is started', async t => {
    const lab = makeLab(t)
    const root = Root.make(t, 'bookworm', lab.host.namespace)
    const conf = 'sFlow { collector { ip = 192.0.2.2 } }\n'
    writeFileSync(join(root.path, 'etc/hsflowd.conf'), conf)
    copyFileSync(join(root.path, 'usr/bin/sleep'), join(root.path, 'usr/sbin/hsflowd'))
    const hsflowd = root.start('hsflowd 1000')
    t.after(() => void hsflowd.kill('SIGKILL'))
    await until('hsflowd', () => root.run('grep -qx hsflowd /proc/[0-9]*/comm').status === 0)
    copyFileSync(packageFile('_amd64.deb'), join(root.path, 'tmp/weir.deb'))
    const said = root.must('dpkg -i /tmp/weir.deb 2>&1')
    assert.match(said, /hsflowd runs on this machine/)
    assert.match(said, /systemctl disable --now hsflowd && systemctl enable --now weir/)
    assert.equal(existsSync(join(root.path, 'etc/weir.conf')), false)
    assert.match(root.must('weir check 2>&1'), /hsflowd\.conf/)
    const agent = root.start('weir run')
    t.after(() => void agent.kill('SIGKILL'))
    let log = ''
    agent.stderr!.setEncoding('utf8').on('data', (text: string) => {
      log += text
    })
    await until('a warning', () => /hsflowd runs, too, as process \d+/.test(log))
    root.must('dpkg --purge weir 2>&1')
    assert.equal(readFileSync(join(root.path, 'etc/hsflowd.conf'), 'utf8'), conf)
  })
})

test('rpm: installed, run and removed', async t => {
  const lab = makeLab(t)
  const collector = collectorOf(t, lab)
  const root = Root.make(t, 'bookworm', lab.host.namespace)
  const before = root.files()
  const rpm = (...args: string[]) =>
    execFileSync('rpm', ['--root', root.path, '--dbpath', '/var/lib/rpm', ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      // Nothing of the test runner's own reaches the scripts of the package.
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' },
    })
  mkdirSync(join(root.path, 'var/lib/rpm'), { recursive: true })
  rpm('--initdb')
  // Its requirements are names of files and packages that Debian's database does not know to rpm.
  rpm('--install', '--nodeps', packageFile('.x86_64.rpm'))
  assert.equal(rpm('--query', '--queryformat', '%{VERSION}', 'weir'), version)
  assert.equal(rpm('--verify', '--nodeps', 'weir').trim(), '')
  assert.ok(existsSync(join(root.path, 'etc/weir.conf')))
  writeFileSync(join(root.path, 'etc/weir.conf'), configuration(lab))
  root.must('/etc/init.d/weir start')
  await expectSamples(lab, collector)
  const pid = agentOf(root)
  root.must('/etc/init.d/weir stop')
  assert.equal(existsSync(`/proc/${pid}`), false)
  rpm('--erase', '--nodeps', 'weir')
  // Folders that other packages of an rpm system bring.
  const others = ['./usr/lib/sysusers.d', './usr/share/zsh', './usr/share/zsh/site-functions']
  const stayed = difference(root.files(), [...before, ...others])
  // A configuration that somebody wrote stays, by the name that rpm gives it.
  assert.deepEqual(stayed, ['./etc/weir.conf.rpmsave'])
})

function difference(files: readonly string[], others: readonly string[]): string[] {
  const known = new Set(others)
  return files.filter(file => !known.has(file))
}

const lists = new Map<string, string>()

/** The names of the files in a package. */
function packaged(ending: string): string {
  let list = lists.get(ending)
  if (list === undefined) {
    list = execFileSync('dpkg-deb', ['--contents', packageFile(ending)], { encoding: 'utf8' })
    lists.set(ending, list)
  }
  return list
}
