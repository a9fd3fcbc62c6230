import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { linesOf } from '../../agent/config/problem.ts'
import { tokenize, writeWord } from '../../agent/config/syntax.ts'

/** The tokens as text: words in [ ], braces bare. */
function shape(text: string): string {
  return tokenize(text)
    .tokens.map(({ kind, text }) => (kind === 'word' ? `[${text}]` : kind))
    .join('')
}

const rows: [name: string, text: string, shape: string][] = [
  ['every separator is the same', 'a b\tc=d;e\rf\ng\r\nh', '[a][b][c][d][e][f][g][h]'],
  ['separators may be repeated', ';; a = = b ==', '[a][b]'],
  ['a comma is an ordinary character', 'a,b', '[a,b]'],
  ['braces need nothing around them', 'collector{ip=10.0.0.1}', '[collector]{[ip][10.0.0.1]}'],
  ['a comment ends with its line, however the line ends', 'a#b\rc #d\r\ne#\nf', '[a][c][e][f]'],
  ['a comment may start right after a word', 'a=b#c', '[a][b]'],
  ['a quoted word keeps separators, braces and #', '"a b={;}#\t"', '[a b={;}#\t]'],
  ['a doubled quote is a quote', '"a""b"', '[a"b]'],
  ['nothing but a quote', '""""', '["]'],
  ['an empty word', 'a = ""', '[a][]'],
  ['a quote inside a word is an ordinary character', 'a"b" c', '[a"b"][c]'],
  ['a quoted brace is a word', '"{" "}"', '[{][}]'],
  ['a byte order mark is a separator', '\ufeffa', '[a]'],
  ['no text', '', ''],
  ['comments only', '# a { b\n#', ''],
]
for (const [name, text, expected] of rows) {
  test(`tokens: ${name}`, () => {
    assert.equal(shape(text), expected)
    assert.deepEqual(tokenize(text).problems, [])
  })
}

test('tokens know their place', () => {
  const { tokens } = tokenize('a {\r\n\t"b c" = d}\r# e\r\nf')
  assert.deepEqual(
    tokens.map(({ text, line, column, length }) => [text, line, column, length]),
    [
      ['a', 1, 1, 1],
      ['{', 1, 3, 1],
      ['b c', 2, 2, 5],
      ['d', 2, 10, 1],
      ['}', 2, 11, 1],
      ['f', 4, 1, 1],
    ],
  )
})

test('a quote that is not closed ends with its line', () => {
  const { tokens, problems } = tokenize('a = "b c\nd')
  assert.deepEqual(
    tokens.map(({ text }) => text),
    ['a', 'b c', 'd'],
  )
  assert.deepEqual(problems, [
    {
      severity: 'error',
      line: 1,
      column: 5,
      length: 4,
      message: 'this quote is not closed before the end of the line',
      expected: '"',
    },
  ])
})

test('text after a closing quote is an error at that text', () => {
  const { problems } = tokenize('a = "b"c')
  assert.equal(problems.length, 1)
  assert.deepEqual([problems[0]!.line, problems[0]!.column, problems[0]!.length], [1, 8, 1])
})

test('long words are not cut', () => {
  const word = 'x'.repeat(100_000)
  assert.equal(shape(`${word} "${word}"`), `[${word}][${word}]`)
})

test('property: a written word is read back as it was', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      fc.pre(!/[\r\n]/.test(text))
      const { tokens, problems } = tokenize(`{ ${writeWord(text)} }`)
      assert.deepEqual(problems, [])
      assert.deepEqual(
        tokens.map(({ text }) => text),
        ['{', text, '}'],
      )
    }),
  )
})

test('property: a token stands where it says', () => {
  const piece = fc.constantFrom('{', '}', '"', '""', '#', ' ', '\t', '=', ';', '\r', '\n', '\r\n', 'ab', 'é')
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), pieces => {
      const text = pieces.join('')
      const lines = linesOf(text)
      for (const { text: word, line, column, length } of tokenize(text).tokens) {
        const source = lines[line - 1]!.slice(column - 1, column - 1 + length)
        const plain = source.replace(/^"|"$/g, '').replaceAll('""', '"')
        assert.ok(source === word || plain === word || source.startsWith('"'), `${source} is not ${word}`)
        assert.equal(source.length, length)
      }
    }),
  )
})
