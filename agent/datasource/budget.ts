/** Raised rates are lowered again after this long below the budget. */
const QUIET_MS = 10_000
/** Doubled, the samples have to stay this far below the budget before a rate is halved. */
const MARGIN = 0.8
const MOST_FACTOR = 2 ** 16

/**
 * Decides by how much all sampling rates are raised, in steps of two, so that the samples of the agent stay within a
 * number per second: at once when they exceed it, and down by one step after ten seconds with room for twice as many.
 */
export class Budget {
  /** What rates are multiplied with. */
  factor = 1
  readonly perSecond: number
  #quietMs = 0

  constructor(perSecond: number) {
    this.perSecond = perSecond
  }

  /** Takes the samples of the last `ms` milliseconds, at least one; true when the factor is another now. */
  update(samples: number, ms: number): boolean {
    const before = this.factor
    const excess = (samples * 1000) / ms / this.perSecond
    if (excess > 1) {
      this.factor = Math.min(before * 2 ** Math.ceil(Math.log2(excess)), MOST_FACTOR)
      this.#quietMs = 0
    } else if (before > 1 && excess * 2 <= MARGIN) {
      this.#quietMs += ms
      if (this.#quietMs >= QUIET_MS) {
        this.factor = before / 2
        this.#quietMs = 0
      }
    } else {
      this.#quietMs = 0
    }
    return this.factor !== before
  }
}
