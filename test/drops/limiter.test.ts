import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { fairShare, Limiter } from '../../agent/drops/limiter.ts'

/** A limiter on a clock that the test moves. */
function limiter(limit: number) {
  let nowMs = 1000
  const under = new Limiter(limit, () => nowMs)
  const passed: { atMs: number; reason: number }[] = []
  const take = (reason: number, times = 1, ifIndex = 1) => {
    let count = 0
    for (let i = 0; i < times; i++) {
      if (!under.take(reason, ifIndex)) continue
      passed.push({ atMs: nowMs, reason })
      count++
    }
    return count
  }
  const wait = (ms: number) => {
    nowMs += ms
    under.endBatch()
  }
  return { under, passed, take, wait }
}

describe('the limiter', () => {
  test('passes everything below the limit', () => {
    const { take, wait } = limiter(100)
    assert.equal(take(1, 40), 40)
    assert.equal(take(2, 40), 40)
    wait(1000)
    assert.equal(take(1, 80), 80)
  })

  test('a flood takes all but a tenth', () => {
    const { take, wait } = limiter(100)
    assert.equal(take(1, 10_000), 90)
    wait(1000)
    assert.equal(take(1, 10_000), 90)
  })

  test('what comes while another floods is seen at once', () => {
    const { take } = limiter(100)
    take(1, 10_000)
    assert.equal(take(2), 1)
    assert.equal(take(1), 0)
    assert.equal(take(3), 1)
    assert.equal(take(2), 0)
  })

  test('what was held back before counts like what is held back here', () => {
    const { under, take, wait } = limiter(100)
    take(2, 90)
    under.holdBack(1, 1, 10_000)
    assert.equal(take(1, 1), 0)
    assert.deepEqual(
      under.pairs().map(({ reason, offered, suppressed }) => [reason, offered, suppressed]),
      [
        [2, 90, 0],
        [1, 10_001, 10_001],
      ],
    )
    wait(1000)
    // Both want more than half of what is shared: each gets that.
    assert.equal(under.share, 90)
    assert.equal(take(1, 100), 45)
    assert.equal(under.share, 45)
    assert.equal(take(2, 100), 45)
  })

  test('a limit of 1 passes the first of each second', () => {
    const { take, wait } = limiter(1)
    assert.equal(take(1, 5), 1)
    assert.equal(take(2, 5), 0)
    wait(1000)
    assert.equal(take(2, 5), 1)
  })

  test('two floods and a trickle: the trickle is whole, the floods share the rest', () => {
    const { take, wait } = limiter(100)
    const round = () => {
      let [a, b, c] = [0, 0, 0]
      for (let i = 0; i < 100; i++) {
        a += take(1, 100)
        b += take(2, 10)
        if (i % 20 === 0) c += take(3)
      }
      return [a, b, c]
    }
    round()
    wait(1000)
    assert.deepEqual(round(), [42, 42, 5])
  })

  test('the same reason on another interface is another pair', () => {
    const { under, take } = limiter(10)
    take(1, 100, 1)
    assert.equal(take(1, 1, 2), 1)
    assert.deepEqual(
      under.pairs().map(({ ifIndex, offered, suppressed }) => ({ ifIndex, offered, suppressed })),
      [
        { ifIndex: 1, offered: 100, suppressed: 91 },
        { ifIndex: 2, offered: 1, suppressed: 0 },
      ],
    )
  })

  test('more pairs than are kept are counted together, none is lost', () => {
    const { under } = limiter(10)
    for (let ifIndex = 1; ifIndex <= 10_000; ifIndex++) under.take(1, ifIndex)
    const pairs = under.pairs()
    assert.ok(pairs.length < 10_000)
    assert.equal(
      pairs.reduce((sum, { offered }) => sum + offered, 0),
      10_000,
    )
  })

  const events = fc.array(
    fc.record({
      waitMs: fc.oneof({ weight: 5, arbitrary: fc.nat(5) }, fc.nat(3000)),
      reason: fc.nat(12),
      ifIndex: fc.nat(2),
      times: fc.oneof({ weight: 3, arbitrary: fc.nat(4) }, fc.nat(300)),
    }),
    { maxLength: 200 },
  )

  test('whatever comes: the limit holds in each second, the counts are exact, no pair is hidden', () => {
    fc.assert(
      fc.property(events, fc.integer({ min: 1, max: 200 }), (steps, limit) => {
        let nowMs = 0
        const under = new Limiter(limit, () => nowMs)
        const offered = new Map<string, number>()
        const passed = new Map<string, number>()
        let perSecond = new Map<string, { offered: number; passed: number }>()
        let second = 0
        const check = () => {
          const rows = [...perSecond.values()]
          const total = rows.reduce((sum, row) => sum + row.passed, 0)
          assert.ok(total <= limit, `${total} in a second, the limit is ${limit}`)
          // New pairs have a tenth of the limit; those of the second before have their place.
          const room = Math.ceil(limit / 10)
          if (rows.length <= room) for (const row of rows) assert.ok(row.passed >= 1, 'a pair is hidden')
          perSecond = new Map()
        }
        for (const { waitMs, reason, ifIndex, times } of steps) {
          nowMs += waitMs
          under.endBatch()
          if (Math.floor(nowMs / 1000) !== second) {
            check()
            second = Math.floor(nowMs / 1000)
          }
          const key = `${reason} ${ifIndex}`
          for (let i = 0; i < times; i++) {
            const row = perSecond.get(key) ?? { offered: 0, passed: 0 }
            perSecond.set(key, row)
            row.offered++
            offered.set(key, (offered.get(key) ?? 0) + 1)
            if (!under.take(reason, ifIndex)) continue
            row.passed++
            passed.set(key, (passed.get(key) ?? 0) + 1)
          }
        }
        check()
        for (const pair of under.pairs()) {
          const key = `${pair.reason} ${pair.ifIndex}`
          assert.equal(pair.offered, offered.get(key))
          assert.equal(pair.offered - pair.suppressed, passed.get(key) ?? 0)
        }
      }),
      { numRuns: 300 },
    )
  })

  test('pairs that go on are seen in each second, however many flood', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 2000 }), (pairs, times) => {
        const { take, wait } = limiter(40)
        for (let second = 0; second < 4; second++) {
          const seen = Array.from({ length: pairs }, () => 0)
          for (let round = 0; round < 3; round++) {
            for (let pair = 0; pair < pairs; pair++) seen[pair]! += take(pair + 1, times)
          }
          if (second > 0) for (const count of seen) assert.ok(count >= 1)
          wait(1000)
        }
      }),
      { numRuns: 100 },
    )
  })
})

test('fair shares', () => {
  assert.equal(fairShare([], 90), 90)
  assert.equal(fairShare([10, 20], 90), 90)
  assert.equal(fairShare([10_000], 90), 90)
  assert.equal(fairShare([10_000, 1000, 5], 90), 42)
  assert.equal(fairShare([50, 50, 50], 90), 30)
  assert.equal(fairShare([1, 1, 1], 2), 0)
})
