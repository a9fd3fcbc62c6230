/**
 * Whatever is in a file, reading it ends, throws nothing, and every problem lies inside the file. The corpus of test/conf
 * is mutated byte by byte and piece by piece; WEIR_FUZZ=N makes N times as many mutants, FUZZ_SEED=N others.
 */

import assert from 'node:assert/strict'
import { globSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { differences, saysTheSame } from '../../agent/config/differences.ts'
import { ConfigFileError, loadConfig, loadConfigFile } from '../../agent/config/load.ts'
import { formatProblem, linesOf } from '../../agent/config/problem.ts'
import { type Entries, settings } from '../../agent/config/settings.ts'
import { MOST_ERRORS } from '../../agent/config/syntax.ts'
import { valuesByName } from '../support/config-values.ts'

const root = join(import.meta.dirname, '../..')
const corpus = globSync(['test/conf/*/in.conf', 'conf/*.conf'], { cwd: root })
  .sort()
  .map(file => readFileSync(join(root, file)))
const TIMES = Number(process.env.WEIR_FUZZ ?? 1)
const SEED = Number(process.env.FUZZ_SEED ?? 1)

function assertSound(text: string): void {
  const { config, problems } = loadConfig(text, 'fuzz')
  const lines = linesOf(text)
  let last = { line: 0, column: 0 }
  for (const problem of problems) {
    const { line, column, length } = problem
    const source = lines[line - 1]
    assert.ok(source !== undefined, `line ${line} of ${lines.length}`)
    assert.ok(column >= 1 && column - 1 + length <= source.length, `${line}:${column}+${length}`)
    assert.ok(line > last.line || (line === last.line && column >= last.column), 'in the order of the file')
    last = { line, column }
    assert.doesNotMatch(formatProblem(problem, 'fuzz', lines), /[^\P{Cc}\t\n]/u)
  }
  const errors = problems.filter(({ severity }) => severity === 'error').length
  assert.equal(config === undefined, errors > 0)
  assert.ok(errors <= MOST_ERRORS * 2 + 2)
  if (config === undefined) return
  assert.ok(saysTheSame(config, loadConfig(text, 'other').config!))
  assert.deepEqual(differences(config, config), [])
  const names = config.collectors.map(({ name }) => name)
  assert.equal(new Set(names).size, names.length, 'names of collectors')
  for (const value of valuesByName(config).values()) assert.equal(typeof value, 'string')
}

/** Deterministic numbers below `below` (xorshift32). */
function numbers(seed: number): (below: number) => number {
  let state = seed * 2654435761 + 1
  return below => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

/** Words of the language, to be put where they do not belong. */
function words(entries: Entries): string[] {
  return Object.entries(entries).flatMap(([name, entry]) =>
    entry.form === 'block' ? [name, ...words(entry.entries)] : [name, entry.initial ?? entry.example ?? ''],
  )
}
const dictionary = [
  ...words(settings),
  '{',
  '}',
  '"',
  '""',
  '#',
  '=',
  ';',
  '\r',
  '\r\n',
  '\t',
  '\0',
  '\xff',
  '﻿',
]

function mutant(next: (below: number) => number): Buffer {
  let bytes = Buffer.from(corpus[next(corpus.length)]!)
  for (let round = next(8); round >= 0; round--) {
    const at = next(bytes.length + 1)
    const end = Math.min(bytes.length, at + 1 + next(30))
    const other = corpus[next(corpus.length)]!
    const from = next(other.length + 1)
    const pieces: Uint8Array[] = [
      Buffer.of(next(256)),
      Buffer.from(` ${dictionary[next(dictionary.length)]} `),
      Buffer.from(dictionary[next(dictionary.length)]!),
      other.subarray(from, from + next(200)),
      bytes.subarray(at, end),
      Buffer.alloc(0),
    ]
    const piece = pieces[next(pieces.length)]!
    // In between, or in place of what is there.
    const rest = next(2) === 0 ? at : end
    bytes = Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(rest)])
    if (next(20) === 0) bytes = bytes.subarray(0, at)
  }
  return bytes
}

test('the corpus, mutated', () => {
  assert.ok(corpus.length >= 100)
  for (let i = 0; i < 6000 * TIMES; i++) {
    const bytes = mutant(numbers(SEED * 1_000_003 + i))
    try {
      assertSound(bytes.toString('utf8'))
    } catch (error) {
      console.error(`mutant ${i} of seed ${SEED}: ${JSON.stringify(bytes.toString('latin1'))}`)
      throw error
    }
  }
})

test('the corpus, cut after each byte', () => {
  for (const bytes of corpus.filter(({ length }) => length < 700)) {
    for (let end = 0; end < bytes.length; end += 3) assertSound(bytes.subarray(0, end).toString('utf8'))
  }
})

test('property: any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), bytes => assertSound(Buffer.from(bytes).toString('utf8'))),
    { seed: SEED, numRuns: 2000 * TIMES },
  )
})

test('property: any words in any order', () => {
  const word = fc.constantFrom(...dictionary)
  const glue = fc.constantFrom(' ', '\n', ' = ', '{', '}', ' { ', '')
  const text = fc.array(fc.tuple(word, glue), { maxLength: 80 }).map(parts => parts.flat().join(''))
  fc.assert(
    fc.property(text, text => {
      assertSound(text)
      assertSound(`sFlow { collector { ip = 192.0.2.1 } ${text} }`)
    }),
    { seed: SEED, numRuns: 1000 * TIMES },
  )
})

const MEGABYTE = 1 << 20
const endless: Record<string, string> = {
  'words that are no settings': `sFlow { ${'aaaapoll '.repeat(MEGABYTE / 9)}`,
  'quotes that are not closed': `sFlow { ${'"a\n'.repeat(MEGABYTE / 3)}`,
  'braces that open': '{'.repeat(MEGABYTE),
  'braces that close': `sFlow { }${'}'.repeat(MEGABYTE)}`,
  'blocks in blocks': 'sFlow { psample { '.repeat(MEGABYTE / 18),
  'one collector again and again': `sFlow { ${'collector { ip = 1.2.3.4 } '.repeat(MEGABYTE / 27)} }`,
  'one setting again and again': `sFlow { ${'polling = 5\n'.repeat(MEGABYTE / 12)} }`,
  'a rule that is never closed': `sFlow { collector { ip = 1.2.3.4 } dropmon { hide = ${'(a'.repeat(MEGABYTE / 2)} } }`,
  'one word': `sFlow { ${'a'.repeat(MEGABYTE)}`,
}
for (const [name, text] of Object.entries(endless)) {
  test(`a megabyte of ${name}`, () => {
    const { problems } = loadConfig(text, 'a')
    const lines = linesOf(text)
    for (const { line, column, length } of problems) assert.ok(column - 1 + length <= lines[line - 1]!.length)
    assert.ok(problems.length > 0)
  })
}

test('a file of 100 MB is refused before it is read', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-huge-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'huge.conf')
  writeFileSync(file, 'sFlow { }\n')
  truncateSync(file, 100 * MEGABYTE)
  const before = process.memoryUsage().rss
  await assert.rejects(loadConfigFile(file), ConfigFileError)
  assert.ok(process.memoryUsage().rss - before < 50 * MEGABYTE)
})
