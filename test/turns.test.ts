import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inTurns } from '../agent/turns.ts'

/** Keeps the thread busy for longer than a turn lasts. */
function work(): void {
  const end = performance.now() + 3
  while (performance.now() < end);
}

test('all in their order, and others have their turn between', async () => {
  const order: (number | string)[] = []
  const other = () => {
    order.push('other')
    if (order.length < 100) setImmediate(other)
  }
  setImmediate(other)
  await inTurns([1, 2, 3], item => {
    work()
    order.push(item)
  })
  assert.deepEqual(
    order.filter(one => one !== 'other'),
    [1, 2, 3],
  )
  for (const item of [1, 2]) assert.equal(order[order.indexOf(item) + 1], 'other', `after ${item}: ${order}`)
  order.length = 100
})

test('what comes while the rest waits is done too, and what throws ends it', async () => {
  const items = new Set([1, 2])
  const done: number[] = []
  await inTurns(items, item => {
    work()
    if (item === 2) items.add(3)
    done.push(item)
  })
  assert.deepEqual(done, [1, 2, 3])
  await assert.rejects(
    inTurns([1], () => {
      throw new Error('no')
    }),
    { message: 'no' },
  )
})
