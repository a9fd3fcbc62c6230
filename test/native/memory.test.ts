import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { collectGarbage, releaseStartMemory } from '../../agent/kernel/memory.ts'

const residentFileKb = () => Number(/RssFile:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1])

test('the memory that only the start needed is let go of, and the program runs on', async () => {
  const before = residentFileKb()
  const released = await releaseStartMemory()
  const after = residentFileKb()
  assert.ok(released > 50e6, `${released} bytes of the program and its libraries`)
  assert.ok(after < before * 0.75, `${before} kB of files resident before, ${after} after`)
  // Code and constants come back as they are needed.
  assert.equal(JSON.stringify(JSON.parse('{"a":[1,2.5,"x"]}')), '{"a":[1,2.5,"x"]}')
  assert.equal('straße'.toLocaleUpperCase('de'), 'STRASSE')
  assert.ok((await releaseStartMemory()) > 0, 'may be called again')
})

test('garbage is collected without a flag of the runtime', async () => {
  assert.equal(globalThis.gc, undefined)
  const garbage = (() => new WeakRef({}))()
  await turn()
  collectGarbage()
  assert.equal(garbage.deref(), undefined)
})

test('code that is not the file any more is left alone', () => {
  // On large pages the code is a copy in anonymous memory: without it nothing runs.
  const module = join(import.meta.dirname, '../../agent/kernel/memory.ts')
  const source = `import { releaseStartMemory } from '${module}'; await releaseStartMemory(); console.log([1, 2].map(String))`
  const options = ['--use-largepages=on', '--input-type=module-typescript', '-e', source]
  const { status, stdout } = spawnSync(process.execPath, options, { encoding: 'utf8' })
  assert.equal(status, 0)
  assert.match(stdout, /'1', '2'/)
})
