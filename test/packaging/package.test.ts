/** The programs that build packages, where something is wrong: their command line, and that they are interrupted. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { until } from '../support/lab.ts'

const PACKAGING = join(import.meta.dirname, '../../packaging')

for (const [words, error] of [
  ['--only dbe', '--only dbe: expected deb, rpm, image'],
  ['--target amd46', '--target amd46: expected amd64, arm64'],
  ['--level 10', '--level 10: expected 0, 1, 2, 3, 4, 5, 6, 7, 8, 9'],
  ['--foo', "Unknown option '--foo'"],
] as const) {
  test(`package.ts ${words}`, () => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(PACKAGING, 'package.ts'), ...words.split(' ')],
      { encoding: 'utf8' },
    )
    assert.equal(status, 2, stdout)
    const [first, second] = stderr.split('\n')
    assert.ok(first!.startsWith(`package: ${error}`), stderr)
    assert.match(second!, /^usage: /)
  })
}

for (const [script, ...args] of [['libbpf.sh'], ['debian-files.sh', 'some', 'trixie', 'amd64', 'libc6']]) {
  test(`${script}: interrupted, and killed and run again, it leaves nothing in the cache but its lock`, async t => {
    const cache = mkdtempSync(join(tmpdir(), 'weir-cache-'))
    t.after(() => rmSync(cache, { recursive: true, force: true }))
    const folder = join(cache, 'weir', script === 'libbpf.sh' ? 'libbpf' : 'debian')
    const work = () => (existsSync(folder) ? readdirSync(folder) : []).filter(name => !name.endsWith('.lock'))
    const stale = () => work().some(name => existsSync(join(folder, name, 'stale')))
    for (const signal of ['SIGKILL', 'SIGINT'] as const) {
      const child = spawn('sh', [join(PACKAGING, script!), ...args], {
        env: { ...process.env, XDG_CACHE_HOME: cache },
        stdio: 'ignore',
        detached: true,
      })
      await until('its work', () => !stale() && work().some(name => existsSync(join(folder, name, 'apt'))))
      process.kill(-child.pid!, signal)
      await once(child, 'exit')
      for (const name of work()) writeFileSync(join(folder, name, 'stale'), '')
    }
    assert.deepEqual(work(), [])
  })
}
