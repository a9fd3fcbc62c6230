/**
 * The loss ledger. Every place where a sample, a counter value or a datagram can be lost has an entry here; the
 * `drops` fields on the wire, the status and the metrics all read it. For each stage the identity holds:
 * offered = passed on + the sum of its losses.
 */

/** One counted cause of loss. `count` only grows; counts stay below 2^53. */
export interface Loss {
  /** Where it is lost, for example `psample` or `collector`. */
  readonly stage: string
  /** Why, in the words an operator would use, for example `socket-overrun`. */
  readonly cause: string
  /** What the loss means and what to do about it, one line. */
  readonly help: string
  count: number
}

/** What came to a stage and what became of it, all at one moment: offered = delivered + lost + what is under way. */
export interface Balance {
  readonly offered: number
  readonly delivered: number
  readonly lost: number
}

export class Ledger {
  readonly #losses = new Map<string, Loss>()

  /** The entry for this stage and cause, made on first use. Ask once, keep the object, add to `count`. */
  loss(stage: string, cause: string, help: string): Loss {
    const key = `${stage}/${cause}`
    let loss = this.#losses.get(key)
    if (loss === undefined) {
      loss = { stage, cause, help, count: 0 }
      this.#losses.set(key, loss)
    }
    return loss
  }

  /** All entries, in the order in which they were made. */
  entries(): readonly Loss[] {
    return [...this.#losses.values()]
  }

  /** Sum of all losses of one stage. */
  total(stage: string): number {
    let sum = 0
    for (const loss of this.#losses.values()) if (loss.stage === stage) sum += loss.count
    return sum
  }
}
