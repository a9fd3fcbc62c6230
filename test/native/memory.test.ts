import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { releaseStartMemory } from '../../agent/kernel/memory.ts'

const residentFileKb = () => Number(/RssFile:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1])

test('the memory that only the start needed is let go of, and the program runs on', () => {
  const before = residentFileKb()
  const released = releaseStartMemory()
  const after = residentFileKb()
  assert.ok(released > 50e6, `${released} bytes of the program and its libraries`)
  assert.ok(after < before * 0.75, `${before} kB of files resident before, ${after} after`)
  // Code and constants come back as they are needed.
  assert.equal(JSON.stringify(JSON.parse('{"a":[1,2.5,"x"]}')), '{"a":[1,2.5,"x"]}')
  assert.equal('straße'.toLocaleUpperCase('de'), 'STRASSE')
  assert.ok(releaseStartMemory() > 0, 'may be called again')
})
