/** The first installation where nothing is to be started: a broken configuration, or a machine whose owner forbids it. */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { makeLab } from '../support/lab.ts'
import { agentOf } from './installed.ts'
import { NEXT, packageFile, Root } from './root.ts'

const GOOD = 'sFlow { collector { ip = 127.0.0.1 } }\n'

/** A system that SysV init has started: its program is there, and it knows its runlevel. */
function sysvMachine(t: TestContext): { root: Root; at: (path: string) => string } {
  const root = Root.make(t, 'bookworm', makeLab(t).host.namespace)
  const at = (path: string) => join(root.path, path)
  writeFileSync(at('usr/sbin/init'), '#!/bin/sh\n', { mode: 0o755 })
  writeFileSync(at('usr/sbin/runlevel'), '#!/bin/sh\necho N 2\n', { mode: 0o755 })
  copyFileSync(packageFile('_amd64.deb'), at('tmp/weir.deb'))
  copyFileSync(packageFile('_amd64.deb', NEXT), at('tmp/next.deb'))
  return { root, at }
}

/** Whether the system starts it, by the links that SysV init follows. */
function isEnabled(at: (path: string) => string): boolean {
  return readdirSync(at('etc/rc2.d')).some(name => /^S\d\dweir$/.test(name))
}

test('a broken configuration: it is not started now, and with the system when it is right', t => {
  const { root, at } = sysvMachine(t)
  writeFileSync(at('etc/weir.conf'), 'sFlow { poling = 1 }\n')
  const said = root.must('dpkg -i /tmp/weir.deb 2>&1')
  assert.match(said, /did you mean polling\?/)
  assert.match(said, /edit it, run 'weir check', then '\/etc\/init\.d\/weir start'/)
  assert.equal(root.run('/etc/init.d/weir status').status, 3)
  assert.ok(isEnabled(at), 'it is not started with the system')
  writeFileSync(at('etc/weir.conf'), GOOD)
  root.must('/etc/init.d/weir start')

  // One that an earlier version has not enabled is enabled by an upgrade; one that somebody has disabled stays so.
  root.must('update-rc.d weir remove')
  root.must('dpkg -i /tmp/next.deb 2>&1')
  assert.ok(isEnabled(at))
  root.must('update-rc.d weir disable')
  root.must('dpkg -i /tmp/weir.deb 2>&1')
  assert.equal(isEnabled(at), false)
})

test('policy-rc.d: nothing is started, restarted or stopped that it forbids', t => {
  const { root, at } = sysvMachine(t)
  const policy = at('usr/sbin/policy-rc.d')
  const forbid = () => writeFileSync(policy, '#!/bin/sh\necho "$@" >>/tmp/asked\nexit 101\n', { mode: 0o755 })
  forbid()
  const forbidden = (action: string) =>
    new RegExp(`^weir: no ${action}: /usr/sbin/policy-rc\\.d forbids it with 101$`, 'm')
  assert.match(root.must('dpkg -i /tmp/weir.deb 2>&1'), forbidden('start'))
  assert.equal(root.run('/etc/init.d/weir status').status, 3)
  assert.ok(isEnabled(at))
  root.must('dpkg --purge weir')

  rmSync(policy)
  root.must('dpkg -i /tmp/weir.deb 2>&1')
  const pid = agentOf(root)
  forbid()
  assert.match(root.must('dpkg -i /tmp/next.deb 2>&1'), forbidden('restart'))
  assert.equal(agentOf(root), pid)
  assert.match(root.must('dpkg --remove weir 2>&1'), forbidden('stop'))
  assert.ok(existsSync(`/proc/${pid}`))
  // What it is asked is what invoke-rc.d asks: the service and the action.
  assert.equal(root.must('cat /tmp/asked'), 'weir start\nweir stop\nweir restart\nweir stop\n')
})

test('a system with systemd that is being made: it is started when that runs', t => {
  const root = Root.make(t, 'trixie-systemd', makeLab(t).host.namespace)
  copyFileSync(packageFile('_amd64.deb'), join(root.path, 'tmp/weir.deb'))
  root.must('dpkg -i /tmp/weir.deb 2>&1')
  assert.equal(root.must('systemctl is-enabled weir.service').trim(), 'enabled')
  root.must('dpkg --purge weir 2>&1')
  assert.deepEqual(
    root.files().filter(name => name.includes('weir')),
    [],
  )
})
