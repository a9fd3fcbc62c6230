import { type Clock, WindowSums } from './window.ts'

/**
 * Entries by key, never more than `capacity`: when it is full, those that have been silent for a window go first, then the
 * smallest quarter. What an entry that goes still has in its window is added up under `others`.
 */
export class Table<Value> {
  /** Entries that had to go although their window was not empty. */
  evicted = 0
  readonly #clock: Clock
  readonly #capacity: number
  readonly #sums: WindowSums
  readonly #entries = new Map<string, number>()
  readonly #values: (Value | undefined)[] = []
  readonly #free: number[] = []
  /** The entry where what has gone is added up. */
  readonly #others: number

  constructor(clock: Clock, capacity: number) {
    this.#clock = clock
    this.#capacity = capacity
    this.#sums = new WindowSums(clock, capacity + 1)
    this.#others = capacity
  }

  get size(): number {
    return this.#entries.size
  }

  /** The entry of a key; `make` makes its value when it is new. */
  entry(key: string, make: () => Value): number {
    const known = this.#entries.get(key)
    if (known !== undefined) return known
    if (this.#entries.size >= this.#capacity) this.#makeRoom()
    const entry = this.#free.pop() ?? this.#values.length
    this.#entries.set(key, entry)
    this.#values[entry] = make()
    return entry
  }

  add(entry: number, samples: number, packets: number, bytes: number): void {
    this.#sums.add(entry, samples, packets, bytes)
  }

  value(entry: number): Value {
    return this.#values[entry]!
  }

  /** Calls `look` with every entry and the sums of its window. */
  each(look: (value: Value, sums: Sums) => void): void {
    for (const entry of this.#entries.values()) look(this.#values[entry]!, this.#sumsOf(entry))
  }

  /** What was evicted, as far as it is in the window. */
  others(): Sums {
    return this.#sumsOf(this.#others)
  }

  #sumsOf(entry: number): Sums {
    const sums = this.#sums
    return { samples: sums.samples(entry), packets: sums.packets(entry), bytes: sums.bytes(entry) }
  }

  #makeRoom(): void {
    const sizes: { key: string; entry: number; bytes: number }[] = []
    for (const [key, entry] of this.#entries) {
      if (this.#clock.windowMs !== Number.POSITIVE_INFINITY && this.#sums.samples(entry) === 0) {
        this.#remove(key, entry)
      } else {
        sizes.push({ key, entry, bytes: this.#sums.bytes(entry) })
      }
    }
    if (this.#free.length >= this.#capacity / 8) return
    sizes.sort((a, b) => a.bytes - b.bytes)
    for (const { key, entry } of sizes.slice(0, Math.ceil(this.#capacity / 4))) {
      this.evicted++
      this.#sums.moveTo(this.#others, entry)
      this.#remove(key, entry)
    }
  }

  #remove(key: string, entry: number): void {
    this.#entries.delete(key)
    this.#values[entry] = undefined
    this.#free.push(entry)
  }
}

/** What an entry has in the window. Packets and bytes are estimates where they come from samples. */
export interface Sums {
  readonly samples: number
  readonly packets: number
  readonly bytes: number
}

/** What has been silent for so long goes when there is no room. */
const SILENT_MS = 120_000
/** To look for what is silent costs something: not for every newcomer. */
const LOOK_MS = 1000

/** At most `capacity` values by key. When it is full, what has been silent for two minutes gives its place to newcomers. */
export class Kept<Key, Value extends { readonly lastMs: number }> extends Map<Key, Value> {
  /** Newcomers that found no room. */
  refused = 0
  readonly #capacity: number
  readonly #forget: ((key: Key) => void) | undefined
  #lookedMs = Number.NEGATIVE_INFINITY

  /** `forget` is told who has gone. */
  constructor(capacity: number, forget?: (key: Key) => void) {
    super()
    this.#capacity = capacity
    this.#forget = forget
  }

  /** Whether one more can be set; if not, it counts as refused. */
  hasRoom(nowMs: number): boolean {
    this.makeRoom(nowMs)
    if (this.size < this.#capacity) return true
    this.refused++
    return false
  }

  /** Lets go what is silent, if there is no room. */
  makeRoom(nowMs: number): void {
    if (this.size < this.#capacity || nowMs - this.#lookedMs < LOOK_MS) return
    this.#lookedMs = nowMs
    for (const [key, { lastMs }] of this) {
      if (nowMs - lastMs < SILENT_MS) continue
      this.delete(key)
      this.#forget?.(key)
    }
  }
}
