import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import fc from 'fast-check'
import { posixRegex } from '../../agent/config/posix-regex.ts'

/**
 * What regcomp(3) and regexec(3) say, by bash, whose =~ is these two calls: for each [pattern, text], whether it
 * matches, or undefined when the pattern is not valid.
 */
function byRegcomp(rows: readonly (readonly [string, string])[]): (boolean | undefined)[] {
  const script =
    'while IFS= read -r -d "" p && IFS= read -r -d "" t; do [[ $t =~ $p ]]; echo $?; done 2>/dev/null'
  const input = rows.map(([pattern, text]) => `${pattern}\0${text}\0`).join('')
  const out = execFileSync('bash', ['-c', script], { input, env: { PATH: process.env.PATH, LC_ALL: 'C' } })
  return out
    .toString()
    .trim()
    .split('\n')
    .map(status => ({ 0: true, 1: false })[status])
}

function byOurs([pattern, text]: readonly [string, string]): boolean | undefined {
  try {
    return posixRegex(pattern).test(text)
  } catch {
    return undefined
  }
}

const rows: [pattern: string, text: string, matches: boolean | undefined][] = [
  ['^swp[0-9s]+$', 'swp1s2', true],
  ['^swp[0-9s]+$', 'swp1.100', false],
  ['eth', 'veth0', true],
  ['^(eth|ens)[[:digit:]]{1,2}$', 'ens12', true],
  ['^(eth|ens)[[:digit:]]{1,2}$', 'ens123', false],
  ['[[:alpha:]_]+[[:space:]]', 'ab_ ', true],
  ['[^[:digit:]]', '123', false],
  ['[]a]', ']', true],
  ['[^]a]', ']', false],
  ['[a\\]', '\\', true],
  ['[a-]', '-', true],
  ['[[.-.]a]', '-', true],
  ['[[=a=]]', 'a', true],
  ['a{,2}b', 'aab', true],
  ['^a+?$', '', true],
  ['^(ab)+*$', '', true],
  ['a.c', 'a\nc', true],
  ['\\.', 'a', false],
  ['\\<eth', 'my eth', true],
  ['eth\\>', 'eth0', false],
  ['(a)\\1', 'aa', true],
  ['a)', 'a)', true],
  ['a|', 'x', true],
  ['(', '(', undefined],
  ['[a', 'a', undefined],
  ['[z-a]', 'a', undefined],
  ['[[:digits:]]', '1', undefined],
  ['*a', 'a', undefined],
  ['a{2,1}', 'aa', undefined],
  ['a\\', 'a', undefined],
  ['(a)\\2', 'aa', undefined],
]
const truth = byRegcomp(rows.map(([pattern, text]) => [pattern, text]))
for (const [i, [pattern, text, matches]] of rows.entries()) {
  test(`regex: ${pattern} on ${JSON.stringify(text)}`, () => {
    assert.equal(truth[i], matches, 'the C library')
    assert.equal(byOurs([pattern, text]), matches, 'ours')
  })
}

test('regex: an error says where', () => {
  assert.throws(() => posixRegex('ab*c[d'), { message: /not closed or not valid at character 5$/ })
})

test('property: a pattern matches what it matches for the C library', () => {
  const atom = fc.constantFrom(
    'a',
    'b',
    '.',
    '[ab]',
    '[^a]',
    '[[:digit:]b]',
    '(a|b)',
    '(ab)',
    '\\.',
    '7',
    '-',
    '(a*b)',
  )
  const quantifier = fc.constantFrom('', '', '*', '+', '?', '{2}', '{1,2}', '{,1}', '{1,}')
  const pattern = fc
    .tuple(fc.boolean(), fc.array(fc.tuple(atom, quantifier), { minLength: 1, maxLength: 5 }), fc.boolean())
    .map(
      ([start, parts, end]) =>
        `${start ? '^' : ''}${parts.map(part => part.join('')).join('')}${end ? '$' : ''}`,
    )
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '.', '7', '-'), maxLength: 8 })
  const samples = fc.sample(fc.tuple(pattern, text), 2000)
  const expected = byRegcomp(samples)
  for (const [i, sample] of samples.entries()) {
    assert.equal(byOurs(sample), expected[i], `${sample[0]} on "${sample[1]}"`)
  }
})
