import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Splitter } from '../../agent/applications/splitter.ts'

function split(most: number, ...pieces: readonly (string | Uint8Array)[]) {
  const objects: string[] = []
  const wrong: string[] = []
  const splitter = new Splitter(
    most,
    text => objects.push(text),
    what => wrong.push(what),
  )
  for (const piece of pieces) splitter.take(Buffer.from(piece))
  return { objects, wrong }
}

const cases: readonly [
  name: string,
  pieces: readonly string[],
  objects: readonly string[],
  wrong: readonly string[],
][] = [
  ['one after another', ['{"a":1}{"b":{"c":2}}\n {}'], ['{"a":1}', '{"b":{"c":2}}', '{}'], []],
  ['in pieces', ['{"a', '":"}', '{"}', '{}'], ['{"a":"}{"}', '{}'], []],
  ['quotes in texts', ['{"a":"\\"}"}{"b":"\\\\"}'], ['{"a":"\\"}"}', '{"b":"\\\\"}'], []],
  ['text between', ['what? {"a":1} and {"b":2}'], ['{"a":1}', '{"b":2}'], ['garbage', 'garbage']],
  ['too long, then a line', [`{"a":"${'x'.repeat(40)}`, '\n{"b":2}'], ['{"b":2}'], ['too-long']],
  ['too long, but it ends', [`{"a":"${'x'.repeat(40)}"}{"b":2}`], ['{"b":2}'], ['too-long']],
  ['not at an end', ['{"a":1'], [], []],
]
for (const [name, pieces, objects, wrong] of cases) {
  test(name, () => assert.deepEqual(split(20, ...pieces), { objects, wrong }))
}

test('objects come whole however they are cut', () => {
  const objects = fc.array(fc.dictionary(fc.string(), fc.jsonValue()), { maxLength: 5 })
  fc.assert(
    fc.property(objects, fc.array(fc.nat(200)), (values, cuts) => {
      const texts = values.map(value => JSON.stringify(value))
      const bytes = Buffer.from(texts.join(' '))
      const places = [...new Set([0, ...cuts.map(cut => cut % (bytes.length + 1)), bytes.length])].sort(
        (a, b) => a - b,
      )
      const pieces = places.slice(1).map((end, i) => bytes.subarray(places[i]!, end))
      assert.deepEqual(split(100_000, ...pieces), { objects: texts, wrong: [] })
    }),
  )
})

test('nothing makes it throw or keep more than it may', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), bytes => void split(50, bytes)))
})
