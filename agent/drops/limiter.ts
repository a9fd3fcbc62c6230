/**
 * Shares the notifications of each second among the (reason, interface) pairs that drop packets, so that a flood of
 * one never hides another. Counts are exact: offered = passed + suppressed, for each pair.
 */

/** What was seen of one reason on one interface. */
export interface Pair {
  /** Id of the reason, as the caller numbers them. */
  readonly reason: number
  readonly ifIndex: number
  /** Notifications since the start, and those of them that the limit held back. */
  offered: number
  suppressed: number
  /** Offered and passed in the second that is running, and offered in the one before. */
  offeredNow: number
  passedNow: number
  offeredBefore: number
}

const WINDOW_MS = 1000
/** Pairs beyond these are counted together as the reason and interface 0. */
const PAIRS_MOST = 8192

export class Limiter {
  readonly #limit: number
  /** Kept for pairs that were not there in the second before. */
  readonly #reserve: number
  readonly #now: () => number
  /** All pairs in the order in which they came, and by reason and ifIndex. */
  readonly #pairs: Pair[] = []
  readonly #byReason = new Map<number, Map<number, Pair>>()
  /** Pairs offered something in this second. */
  #active: Pair[] = []
  #windowStart: number
  #clockRead = false
  #passed = 0
  /** Pairs of the second before of which nothing has come yet: each will want one at least. */
  #awaited = 0
  /** What one pair may pass in this second. */
  #share: number

  /** `limit`: notifications per second, at least 1; `now`: milliseconds on a monotonic clock. */
  constructor(limit: number, now: () => number) {
    this.#limit = limit
    this.#reserve = Math.ceil(limit / 10)
    this.#now = now
    this.#windowStart = now()
    this.#share = limit - this.#reserve
  }

  /**
   * True when a notification of `reason` (an id) on `ifIndex` may be sent. In each second at most `limit`
   * are; the first of a pair always, as long as fewer than `limit` were; the others while the pair has had less than
   * its share and enough is left for the first ones of pairs that are awaited or new.
   */
  take(reason: number, ifIndex: number): boolean {
    if (!this.#clockRead) this.#readClock()
    const pair = this.#pairOf(reason, ifIndex)
    const isFirst = this.#begin(pair)
    pair.offered++
    pair.offeredNow++
    if (isFirst) {
      if (this.#passed < this.#limit) return this.#pass(pair)
    } else if (pair.passedNow < this.#share && this.#passed + this.#reserve + this.#awaited < this.#limit) {
      return this.#pass(pair)
    }
    pair.suppressed++
    return false
  }

  /** Counts notifications that were held back before they came here. */
  holdBack(reason: number, ifIndex: number, count: number): void {
    if (!this.#clockRead) this.#readClock()
    const pair = this.#pairOf(reason, ifIndex)
    this.#begin(pair)
    pair.offered += count
    pair.offeredNow += count
    pair.suppressed += count
  }

  /** What one pair may pass in the second that is running. */
  get share(): number {
    return this.#share
  }

  /** A batch of drops has been taken: the clock is read again for the next one, and not for each drop. */
  endBatch(): void {
    this.#clockRead = false
  }

  /** All pairs, in the order in which they were first seen. */
  pairs(): readonly Readonly<Pair>[] {
    return this.#pairs
  }

  /** True when nothing of this pair has come yet in this second. */
  #begin(pair: Pair): boolean {
    if (pair.offeredNow > 0) return false
    this.#active.push(pair)
    if (pair.offeredBefore > 0) this.#awaited--
    return true
  }

  #pass(pair: Pair): true {
    pair.passedNow++
    this.#passed++
    return true
  }

  #pairOf(reason: number, ifIndex: number): Pair {
    let byInterface = this.#byReason.get(reason)
    const known = byInterface?.get(ifIndex)
    if (known !== undefined) return known
    if (this.#pairs.length >= PAIRS_MOST && ifIndex !== 0) return this.#pairOf(reason, 0)
    const pair = { reason, ifIndex, offered: 0, suppressed: 0, offeredNow: 0, passedNow: 0, offeredBefore: 0 }
    if (byInterface === undefined) {
      byInterface = new Map()
      this.#byReason.set(reason, byInterface)
    }
    byInterface.set(ifIndex, pair)
    this.#pairs.push(pair)
    return pair
  }

  #readClock(): void {
    this.#clockRead = true
    const now = this.#now()
    if (now - this.#windowStart >= WINDOW_MS) this.#nextWindow(now)
  }

  #nextWindow(now: number): void {
    const recent = now - this.#windowStart < 2 * WINDOW_MS
    this.#windowStart += Math.floor((now - this.#windowStart) / WINDOW_MS) * WINDOW_MS
    for (const pair of this.#pairs) pair.offeredBefore = recent ? pair.offeredNow : 0
    const before = recent ? this.#active : []
    for (const pair of this.#active) {
      pair.offeredNow = 0
      pair.passedNow = 0
    }
    this.#active = []
    this.#passed = 0
    this.#awaited = before.length
    this.#share = fairShare(
      before.map(({ offeredBefore }) => offeredBefore),
      this.#limit - this.#reserve,
    )
  }
}

/**
 * The largest whole number to which each demand may be cut so that all together stay within `limit` (max-min
 * fairness); `limit` itself when they do without being cut.
 */
export function fairShare(demands: readonly number[], limit: number): number {
  let left = limit
  const ascending = demands.toSorted((a, b) => a - b)
  for (const [i, demand] of ascending.entries()) {
    const share = Math.floor(left / (ascending.length - i))
    if (demand > share) return share
    left -= demand
  }
  return limit
}
