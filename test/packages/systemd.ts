/** Runs the tests of test/packages/guest in a guest with a Debian of its own and systemd; options are those of test/vm/run.ts. */
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { join } from 'node:path'
import { systemFolder } from './root.ts'

const repository = join(import.meta.dirname, '../..')
const files = globSync('test/packages/guest/*.test.ts', { cwd: repository }).sort()
const guest = ['--kernel', '6.12', '--root', systemFolder('trixie-systemd'), '--init', 'init-systemd.sh']
const { status } = spawnSync(
  process.execPath,
  ['test/vm/run.ts', ...guest, ...process.argv.slice(2), ...files],
  {
    cwd: repository,
    stdio: 'inherit',
  },
)
process.exitCode = status ?? 1
