import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Budget } from '../../agent/datasource/budget.ts'

test('within the budget nothing changes', () => {
  const budget = new Budget(1000)
  for (const samples of [0, 500, 1000]) assert.equal(budget.update(samples, 1000), false)
  assert.equal(budget.factor, 1)
})

const rises: [samples: number, ms: number, factor: number][] = [
  [1001, 1000, 2],
  [2000, 1000, 2],
  [2001, 1000, 4],
  [100_000, 1000, 128],
  [501, 500, 2],
]
for (const [samples, ms, factor] of rises) {
  test(`${samples} samples in ${ms} ms: rates are multiplied with ${factor} at once`, () => {
    const budget = new Budget(1000)
    assert.equal(budget.update(samples, ms), true)
    assert.equal(budget.factor, factor)
  })
}

test('rates go down step by step after ten quiet seconds, and a busy one starts them anew', () => {
  const budget = new Budget(1000)
  budget.update(4000, 1000)
  for (let second = 0; second < 9; second++) assert.equal(budget.update(300, 1000), false)
  assert.equal(budget.update(900, 1000), false)
  for (let second = 0; second < 9; second++) assert.equal(budget.update(300, 1000), false)
  assert.equal(budget.update(300, 1000), true)
  assert.equal(budget.factor, 2)
})

test('a steady load settles: it does not go up and down', () => {
  const budget = new Budget(1000)
  const changes = []
  for (let second = 0; second < 200; second++) {
    if (budget.update(7000 / budget.factor, 1000)) changes.push(budget.factor)
  }
  assert.deepEqual(changes, [8])
})
