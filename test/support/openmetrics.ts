/**
 * Checks a text against the rules of OpenMetrics 1.0, by its specification alone: what may follow what, names, types,
 * units, labels, numbers, and the end.
 */
import assert from 'node:assert/strict'

export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/
const NUMBER = /^[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|Inf|NaN)$/i
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  counter: ['_total', '_created'],
  gauge: [''],
  info: ['_info'],
  summary: ['_count', '_sum', '_created', ''],
}

/** All samples; fails at the first line that breaks a rule. */
export function readOpenMetrics(text: string): Sample[] {
  assert.ok(text.isWellFormed(), 'not UTF-8')
  assert.ok(text.endsWith('\n# EOF\n'), 'the end is missing')
  const samples: Sample[] = []
  const families = new Set<string>()
  const names = new Set<string>()
  const seen = new Set<string>()
  let family = ''
  let type = ''
  let told = new Set<string>()
  let hasSamples = false
  for (const line of text.split('\n').slice(0, -2)) {
    const where = `in "${line}"`
    const meta = /^# (TYPE|UNIT|HELP) (\S+) (.+)$/.exec(line)
    if (line.startsWith('#')) {
      assert.ok(meta, `neither TYPE, UNIT nor HELP ${where}`)
      const [, word, name, value] = meta as unknown as [string, string, string, string]
      if (name !== family) {
        assert.match(name, NAME)
        assert.ok(!families.has(name), `a family goes on after another ${where}`)
        assert.equal(word, 'TYPE', `a family without its type ${where}`)
        families.add(name)
        family = name
        told = new Set()
        hasSamples = false
      }
      assert.ok(!hasSamples, `behind a sample of the family ${where}`)
      assert.ok(!told.has(word), `twice ${where}`)
      told.add(word)
      if (word === 'TYPE') {
        assert.ok(value in SUFFIXES, `unknown type ${where}`)
        type = value
        for (const suffix of SUFFIXES[type]!) {
          assert.ok(!names.has(name + suffix), `clashes with another family ${where}`)
          names.add(name + suffix)
        }
      }
      if (word === 'UNIT')
        assert.ok(name.endsWith(`_${value}`), `the name does not end with the unit ${where}`)
      if (word === 'HELP') assert.doesNotMatch(value, /(?<!\\)(?:\\\\)*\\[^\\n"]/, `bad escape ${where}`)
      continue
    }
    const match = /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(line)
    assert.ok(match, `no sample ${where}`)
    const [, name, labelText, number] = match as unknown as [string, string, string | undefined, string]
    assert.ok(
      family !== '' && SUFFIXES[type]!.includes(name.slice(family.length)),
      `not of the family ${where}`,
    )
    assert.ok(name.startsWith(family), `not of the family ${where}`)
    assert.match(number, NUMBER, where)
    const labels = readLabels(labelText ?? '', where)
    const identity = JSON.stringify([name, Object.entries(labels).sort()])
    assert.ok(!seen.has(identity), `twice ${where}`)
    seen.add(identity)
    const value = Number(number)
    if (type === 'counter' || type === 'summary') assert.ok(value >= 0, `a count below zero ${where}`)
    if (type === 'info') assert.equal(value, 1, where)
    hasSamples = true
    samples.push({ name, labels, value })
  }
  return samples
}

function readLabels(text: string, where: string): Record<string, string> {
  const labels: Record<string, string> = {}
  let rest = text
  while (rest !== '') {
    const match = /^([^=]+)="((?:[^"\\]|\\[\\"n])*)"(?:,|$)/.exec(rest)
    assert.ok(match, `bad label at "${rest}" ${where}`)
    const [all, name, value] = match as unknown as [string, string, string]
    assert.match(name, LABEL, where)
    assert.ok(!(name in labels), `label ${name} twice ${where}`)
    labels[name] = value.replace(/\\(.)/g, (_, one: string) => (one === 'n' ? '\n' : one))
    rest = rest.slice(all.length)
  }
  return labels
}
