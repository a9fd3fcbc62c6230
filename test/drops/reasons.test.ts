import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { kernelReasons } from '../../agent/drops/kernel-names.ts'
import {
  FUNCTIONS,
  KERNEL_REASON_PREFIXES,
  KERNEL_REASONS,
  TRAP_GROUPS,
  TRAPS,
} from '../../agent/drops/reasons.ts'
import { DISCARD_REASONS } from '../../agent/wire/sflow/discard-reasons.ts'

const TABLES = { KERNEL_REASONS, KERNEL_REASON_PREFIXES, TRAPS, TRAP_GROUPS, FUNCTIONS }

describe('the tables of reasons', () => {
  for (const [name, table] of Object.entries(TABLES)) {
    test(`${name}: each name once, with a code that there is and a reason for it`, () => {
      const published = new Set(DISCARD_REASONS.map(([, code]) => code))
      const names = table.map(([row]) => row)
      assert.deepEqual(
        names.filter((row, i) => names.indexOf(row) !== i),
        [],
      )
      for (const [row, code, , why] of table) {
        assert.ok(published.has(code), `${row}: ${code}`)
        assert.ok(why.length > 3, row)
      }
    })
  }

  test('no function is hidden behind a shorter one', () => {
    FUNCTIONS.forEach(([name], i) => {
      const earlier = FUNCTIONS.slice(0, i).find(([prefix]) => name.startsWith(prefix))
      assert.equal(earlier, undefined, name)
    })
  })

  test('deprecated and mistyped codes are not used', () => {
    const used = new Set(Object.values(TABLES).flatMap(table => table.map(([, code]) => code)))
    assert.ok(!used.has('ip_noproto'))
  })
})

test('every drop reason of the kernel here is known', t => {
  const reasons = kernelReasons()
  if (reasons.length === 0) return t.skip('the kernel has no type information, or no reasons')
  assert.deepEqual(
    reasons.filter(({ isMapped }) => !isMapped).map(({ name }) => name),
    [],
  )
  assert.equal(reasons.find(({ name }) => name === 'NOT_SPECIFIED')?.from, 'vmlinux')
})
