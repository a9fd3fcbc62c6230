/** The configurations that are given for network operating systems, and those of the labs. */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'

const root = join(import.meta.dirname, '../..')
const files = globSync('packaging/nos/*.conf', { cwd: root })

for (const file of files) {
  test(`${file}: nothing to say against it, and docs/nos.md tells of it`, () => {
    const { config, problems } = loadConfig(readFileSync(join(root, file), 'utf8'), file)
    assert.deepEqual(problems, [])
    assert.equal(config?.collectors.length, 1)
    assert.ok(readFileSync(join(root, 'docs/nos.md'), 'utf8').includes(`\`${basename(file)}\``))
  })
}

test('there is one for each system', () => {
  assert.deepEqual(files.map(file => basename(file)).sort(), [
    'cumulus.conf',
    'dent.conf',
    'sonic.conf',
    'vyos.conf',
  ])
})
