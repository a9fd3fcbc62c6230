/** What comes from outside reaches no terminal as it is. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { printable } from '../../agent/health/printable.ts'

const cases = [
  { name: 'an ordinary name', text: 'eth0', shown: 'eth0' },
  { name: 'letters of other scripts', text: 'größe 速度 ⛰', shown: 'größe 速度 ⛰' },
  { name: 'a colour', text: '\u001b[31mred', shown: '\\x1b[31mred' },
  { name: 'a title of the window', text: '\u001b]0;x\u0007', shown: '\\x1b]0;x\\x07' },
  { name: 'a control sequence in one byte', text: '\u009b2J', shown: '\\x9b2J' },
  { name: 'another line', text: 'a\r\nb\tc', shown: 'a\\r\\nb\\tc' },
  { name: 'a separator of lines', text: 'a\u2028b', shown: 'a\\u2028b' },
  { name: 'writing from right to left', text: 'a\u202eb', shown: 'a\\u202eb' },
  { name: 'nothing to see', text: 'a\u200bb\u{e0041}', shown: 'a\\u200bb\\u{e0041}' },
  { name: 'half a pair', text: 'a\ud800b', shown: 'a\\ud800b' },
  { name: 'a zero byte', text: 'a\u0000', shown: 'a\\x00' },
]
for (const { name, text, shown } of cases)
  test(`printable: ${name}`, () => assert.equal(printable(text), shown))

test('printable: text that is too long is cut, and not within a character', () => {
  assert.equal(printable('abcdef', 4), 'abc…')
  assert.equal(printable('ab\u{1f3d4}d', 4), 'ab…')
  assert.equal(printable('abcd', 4), 'abcd')
})

test('printable: whatever goes in, nothing that a terminal obeys comes out', () => {
  const hostile = fc.string({
    unit: fc.integer({ min: 0, max: 0xffff }).map(code => String.fromCharCode(code)),
  })
  fc.assert(
    fc.property(hostile, text => {
      const shown = printable(text)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
      assert.doesNotMatch(shown, /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ufeff]/)
      assert.equal(shown.isWellFormed(), true)
      assert.ok(shown.length <= 256)
      assert.equal(printable(shown), shown)
    }),
  )
})
