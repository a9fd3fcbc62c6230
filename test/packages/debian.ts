/** The life of a Debian package on a clean system: what it brings, what runs of it, and that nothing stays when it goes. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, existsSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { version } from '../../agent/version.ts'
import { makeLab } from '../support/lab.ts'
import {
  agentOf,
  assertEnded,
  collectorOf,
  configuration,
  difference,
  expectSamples,
  status,
  USER,
} from './installed.ts'
import { NEXT, packageFile, Root, type SystemName } from './root.ts'

/** Declares the test for this release. */
export function testsOn(suite: SystemName): void {
  test(`on Debian ${suite} without Node.js: install, run, upgrade, reload, remove, purge`, async t => {
    const lab = makeLab(t)
    const collector = collectorOf(t, lab)
    const root = Root.make(t, suite, lab.host.namespace)
    assert.notEqual(root.run('command -v node').status, 0, 'the system has a Node.js')
    const before = root.files()

    copyFileSync(packageFile('_amd64.deb'), join(root.path, 'tmp/weir.deb'))
    const installed = root.must('dpkg -i /tmp/weir.deb 2>&1')
    assert.match(installed, /samples go to this machine, 127\.0\.0\.1, until \/etc\/weir\.conf names another/)
    root.must('weir check')
    assert.equal(root.must('weir --version').trim(), version)
    assert.equal(root.must(`id -un ${USER}`).trim(), USER)
    assert.ok(existsSync(join(root.path, 'etc/weir.conf')))
    // dpkg leaves manual pages out on minimal systems: what is in the package counts.
    const files = packaged('_amd64.deb')
    for (const page of ['man8/weir.8.gz', 'man5/weir.conf.5.gz', 'man8/weir-run.8.gz']) {
      assert.ok(files.includes(`./usr/share/man/${page}`), page)
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
    for (const set of ['CapPrm', 'CapEff', 'CapBnd']) assert.equal(status(pid, set), '000000c400003000', set)
    assert.match(readFileSync(join(root.path, 'var/lib/weir/hsflowd.auto'), 'utf8'), /^collector=/m)
    assert.match(root.must('/etc/init.d/weir status'), new RegExp(`process ${pid}`))
    root.must('weir health')

    // An upgrade keeps the configuration, and the new agent takes the place of the one that ran.
    const next = packageFile('_amd64.deb', NEXT)
    copyFileSync(next, join(root.path, 'tmp/next.deb'))
    root.must('dpkg -i /tmp/next.deb 2>&1')
    assert.equal(readFileSync(join(root.path, 'etc/weir.conf'), 'utf8'), configuration(lab))
    assert.notEqual(agentOf(root), pid)
    await expectSamples(lab, collector)
    writeFileSync(join(root.path, 'etc/weir.conf'), configuration(lab).replace('polling = 1', 'polling = 2'))
    assert.match(root.must('/etc/init.d/weir reload'), /is right: the agent, process \d+, takes it/)

    const last = agentOf(root)
    root.must('dpkg --remove weir 2>&1')
    assertEnded(last)
    assert.equal(existsSync(join(root.path, 'usr/lib/weir')), false)
    assert.ok(existsSync(join(root.path, 'etc/weir.conf')), 'remove keeps the configuration')
    root.must('dpkg --purge weir 2>&1')
    assert.deepEqual(difference(root.files(), before), [])
    assert.deepEqual(difference(before, root.files()), [])
    assert.notEqual(root.run(`id ${USER}`).status, 0)
  })
}

/** The names of the files in a package. */
function packaged(ending: string): string {
  return execFileSync('dpkg-deb', ['--contents', packageFile(ending)], { encoding: 'utf8' })
}
