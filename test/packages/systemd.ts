/** Runs the tests of test/packages/guest in a guest with a Debian of its own and systemd. */
import { execFileSync, spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { join } from 'node:path'

const repository = join(import.meta.dirname, '../..')
const KERNEL = '6.12'
// What test/packages/prepare.ts has made.
const words = ['trixie-systemd', 'trixie', 'systemd', 'systemd-sysv', 'dbus', 'iproute2', 'udev', 'kmod']
const root = execFileSync('sh', [join(import.meta.dirname, 'root.sh'), ...words, 'iputils-ping', 'procps'], {
  encoding: 'utf8',
  stdio: ['ignore', 'pipe', 'inherit'],
}).trim()
const files = globSync('test/packages/guest/*.test.ts', { cwd: repository }).sort()
const options = ['--kernel', KERNEL, '--root', root, '--init', 'init-systemd.sh']
const { status } = spawnSync(process.execPath, ['test/vm/run.ts', ...options, ...files], {
  cwd: repository,
  stdio: 'inherit',
})
process.exitCode = status ?? 1
