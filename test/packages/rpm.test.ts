/** The rpm on a clean system, put there by `rpm --root`: no system of rpm's own can be made from Debian's packages. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { version } from '../../agent/version.ts'
import { makeLab } from '../support/lab.ts'
import { agentOf, assertEnded, collectorOf, configuration, difference, expectSamples } from './installed.ts'
import { packageFile, Root } from './root.ts'

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
  assertEnded(pid)
  rpm('--erase', '--nodeps', 'weir')
  // Folders that other packages of an rpm system bring.
  const others = ['./usr/lib/sysusers.d', './usr/share/zsh', './usr/share/zsh/site-functions']
  const stayed = difference(root.files(), [...before, ...others])
  // A configuration that somebody wrote stays, by the name that rpm gives it.
  assert.deepEqual(stayed, ['./etc/weir.conf.rpmsave'])
})
