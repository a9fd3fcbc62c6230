/**
 * test/conf/<case>/in.conf and what comes of it, in `expected`: the problems as `weir check` prints them, then the
 * configuration if there is one, that is every value that the case `defaults` has not. UPDATE=1 rewrites them. The files
 * in conf/ are cases too.
 */

import assert from 'node:assert/strict'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { test } from 'node:test'
import type { Config } from '../../agent/config/config.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { formatProblem, linesOf } from '../../agent/config/problem.ts'
import { valuesByName } from '../support/config-values.ts'

const root = join(import.meta.dirname, '../..')

function outcome(text: string, file: string, isWhole: boolean): string {
  const { config, problems } = loadConfig(text, file)
  const lines = linesOf(text)
  return [
    ...problems.map(problem => formatProblem(problem, file, lines)),
    config === undefined ? 'refused' : describe(config, isWhole),
    '',
  ].join('\n')
}

const DEFAULTS = 'test/conf/defaults/in.conf'
/** What is there whatever the file says. */
const bare = loadConfig('sFlow { collector { ip = 192.0.2.1 } }', '').config!
const defaults = valuesByName(loadConfig(readFileSync(join(root, DEFAULTS), 'utf8'), '').config!)

/** The values of a configuration that are no defaults, one a line: `sampling.bySpeed.10G = 1000`. */
function describe(config: Config, isWhole: boolean): string {
  const values = [...valuesByName(config)].filter(([name]) => name !== 'file')
  const shown = values.filter(([name, value]) => isWhole || defaults.get(firstOfItsKind(name)) !== value)
  // A block that says nothing itself is there all the same.
  const blocks = Object.entries(config).flatMap(([name, value]) => {
    if (Array.isArray(value)) return value.map((_, i) => `${name}[${i}]`)
    return typeof value === 'object' && value !== null && !(value instanceof Map) ? [name] : []
  })
  const silent = blocks.filter(block => !shown.some(([name]) => name.startsWith(block)))
  const optional = silent.filter(name => bare[name as keyof Config] === undefined)
  return [
    ...shown.map(([name, value]) => `${name} = ${value}`),
    ...optional.map(name => `${name}: defaults`),
  ].join('\n')
}

function firstOfItsKind(name: string): string {
  return name.replace(/\[\d+\]/, '[0]')
}

const cases = globSync('test/conf/*/in.conf', { cwd: root })
test('there are cases', () => assert.ok(cases.length > 0))
for (const file of cases.sort()) {
  test(`conf: ${basename(dirname(file))}`, () => {
    const expectedFile = join(root, dirname(file), 'expected')
    const actual = outcome(readFileSync(join(root, file), 'utf8'), 'in.conf', file === DEFAULTS)
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
