/** Installed where hsflowd runs. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeLab, until } from '../support/lab.ts'
import { packageFile, Root } from './root.ts'

test('beside hsflowd its configuration is taken, it is told of, and nothing is started', async t => {
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
  const [advice] = said.match(/(?<=^weir: {5})\/etc\/init\.d\/hsflowd stop .*$/m) ?? []
  assert.ok(advice, said)
  assert.equal(existsSync(join(root.path, 'etc/weir.conf')), false)
  assert.match(root.must('weir check 2>&1'), /hsflowd\.conf/)
  const agent = root.start('weir run')
  t.after(() => void agent.kill('SIGKILL'))
  let log = ''
  agent.stderr!.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
  await until('a warning', () => /hsflowd runs, too, as process \d+/.test(log))
  agent.kill('SIGTERM')
  await once(agent, 'exit')

  // What was advised does it, now and at each start of the machine.
  const script = join(root.path, 'etc/init.d/hsflowd')
  writeFileSync(
    script,
    `#!/bin/sh
### BEGIN INIT INFO
# Provides: hsflowd
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
[ "$1" != stop ] || kill ${hsflowd.pid}
`,
    { mode: 0o755 },
  )
  root.must('update-rc.d hsflowd defaults')
  assert.deepEqual(started(root), ['hsflowd'])
  root.must(advice)
  await until('the end of hsflowd', () => hsflowd.signalCode === 'SIGTERM')
  assert.deepEqual(started(root), ['weir'])
  root.must('/etc/init.d/weir status')
  root.must('dpkg --purge weir 2>&1')
  assert.equal(readFileSync(join(root.path, 'etc/hsflowd.conf'), 'utf8'), conf)
})

/** What is started with the system. */
function started(root: Root): string[] {
  return readdirSync(join(root.path, 'etc/rc2.d')).flatMap(
    link => /^S\d\d(weir|hsflowd)$/.exec(link)?.[1] ?? [],
  )
}
