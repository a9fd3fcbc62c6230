import assert from 'node:assert/strict'
import { release } from 'node:os'
import { test } from 'node:test'

test('the kernel is the one asked for', () => {
  assert.match(release(), new RegExp(`^${process.env.WEIR_VM}\\.`))
})
