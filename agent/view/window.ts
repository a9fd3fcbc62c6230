/** Sums of the last seconds for many entries, in a few arrays: the window moves on by a part of its length at a time. */

/** Parts of a window. */
const PARTS = 5

/** What moves a window: its length and where it stands. */
export class Clock {
  /** Milliseconds; Infinity for everything there ever was. */
  readonly windowMs: number
  /** Counts the parts that were begun. */
  part = 0
  #startMs = Number.NaN
  #partMs = 0
  #nowMs = 0

  constructor(windowMs: number) {
    this.windowMs = windowMs
  }

  /** Moves on to `nowMs`, which never goes back. True when a part was begun. */
  advance(nowMs: number): boolean {
    if (Number.isNaN(this.#startMs)) {
      this.#startMs = nowMs
      this.#partMs = nowMs
      this.#nowMs = nowMs
      return false
    }
    if (nowMs > this.#nowMs) this.#nowMs = nowMs
    if (this.windowMs === Number.POSITIVE_INFINITY) return false
    const partMs = this.windowMs / PARTS
    const steps = Math.floor((this.#nowMs - this.#partMs) / partMs)
    if (steps <= 0) return false
    this.part += steps
    this.#partMs += steps * partMs
    return true
  }

  get nowMs(): number {
    return this.#nowMs
  }

  /** What the sums are of: the whole parts and the one that is not over, and never more than there was. */
  get seconds(): number {
    const sinceStart = this.#nowMs - this.#startMs
    if (this.windowMs === Number.POSITIVE_INFINITY) return Math.max(sinceStart / 1000, 0.001)
    const covered = (this.windowMs / PARTS) * (PARTS - 1) + (this.#nowMs - this.#partMs)
    return Math.max(Math.min(covered, sinceStart), 200) / 1000
  }
}

/** For each entry: samples, packets and bytes of the window. Entries are numbers below `capacity`. */
export class WindowSums {
  readonly #samples: Float64Array
  readonly #packets: Float64Array
  readonly #bytes: Float64Array
  /** The part up to which an entry is cleared. */
  readonly #part: Float64Array
  readonly #clock: Clock

  constructor(clock: Clock, capacity: number) {
    this.#clock = clock
    this.#samples = new Float64Array(capacity * PARTS)
    this.#packets = new Float64Array(capacity * PARTS)
    this.#bytes = new Float64Array(capacity * PARTS)
    this.#part = new Float64Array(capacity)
  }

  add(entry: number, samples: number, packets: number, bytes: number): void {
    this.#settle(entry)
    const at = entry * PARTS + (this.#clock.part % PARTS)
    this.#samples[at] = this.#samples[at]! + samples
    this.#packets[at] = this.#packets[at]! + packets
    this.#bytes[at] = this.#bytes[at]! + bytes
  }

  samples(entry: number): number {
    return this.#sum(this.#samples, entry)
  }

  packets(entry: number): number {
    return this.#sum(this.#packets, entry)
  }

  bytes(entry: number): number {
    return this.#sum(this.#bytes, entry)
  }

  /** Adds what `entry` has in each part to `other`. */
  moveTo(other: number, entry: number): void {
    this.#settle(entry)
    this.#settle(other)
    for (let i = 0; i < PARTS; i++) {
      for (const values of [this.#samples, this.#packets, this.#bytes]) {
        values[other * PARTS + i] = values[other * PARTS + i]! + values[entry * PARTS + i]!
        values[entry * PARTS + i] = 0
      }
    }
  }

  #sum(values: Float64Array, entry: number): number {
    this.#settle(entry)
    let sum = 0
    for (let i = entry * PARTS; i < (entry + 1) * PARTS; i++) sum += values[i]!
    return sum
  }

  /** Clears the parts that have gone by since the entry was last touched. */
  #settle(entry: number): void {
    const { part } = this.#clock
    const behind = Math.min(part - this.#part[entry]!, PARTS)
    if (behind === 0) return
    for (let i = 0; i < behind; i++) {
      const at = entry * PARTS + ((part - i) % PARTS)
      this.#samples[at] = 0
      this.#packets[at] = 0
      this.#bytes[at] = 0
    }
    this.#part[entry] = part
  }
}
