/**
 * test/conf/<case>/in.conf and what comes of it, in `expected`: the problems as `weir check` prints them, then the
 * configuration if there is one. UPDATE=1 rewrites them. The files in conf/ are cases too.
 */

import assert from 'node:assert/strict'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { test } from 'node:test'
import type { Config } from '../../agent/config/config.ts'
import { valuesByName } from '../../agent/config/differences.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { formatProblem, linesOf } from '../../agent/config/problem.ts'

const root = join(import.meta.dirname, '../..')

function outcome(text: string, file: string): string {
  const { config, problems } = loadConfig(text, file)
  const lines = linesOf(text)
  return [
    ...problems.map(problem => formatProblem(problem, file, lines)),
    config === undefined ? 'refused' : describe(config),
    '',
  ].join('\n')
}

/** Every value of a configuration, one a line: `sampling.bySpeed.10G = 1000`. */
function describe(config: Config): string {
  return [...valuesByName(config)].map(([name, value]) => `${name} = ${value}`).join('\n')
}

const cases = globSync('test/conf/*/in.conf', { cwd: root })
test('there are cases', () => assert.ok(cases.length > 0))
for (const file of cases.sort()) {
  test(`conf: ${basename(dirname(file))}`, () => {
    const expectedFile = join(root, dirname(file), 'expected')
    const actual = outcome(readFileSync(join(root, file), 'utf8'), 'in.conf')
    if (process.env.UPDATE === '1') writeFileSync(expectedFile, actual)
    assert.equal(actual, readFileSync(expectedFile, 'utf8'))
  })
}

for (const file of globSync(['conf/*.conf', 'conf/examples/*.conf'], { cwd: root }).sort()) {
  test(`conf: the shipped ${file} has no problem`, () => {
    const { config, problems } = loadConfig(readFileSync(join(root, file), 'utf8'), file)
    assert.deepEqual(problems, [])
    assert.ok(config)
  })
}
