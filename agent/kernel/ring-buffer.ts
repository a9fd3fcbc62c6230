import { type BpfObject, pageSize } from './bpf-object.ts'

/**
 * A BPF ring buffer (kernel/bpf/ringbuf.c), read where the kernel wrote it:
 *
 *     page 0     consumer position u64: ours
 *     page 1     producer position u64: the kernel's
 *     page 2 …   the data, and behind them again, so that a record at the end goes on behind it; of that no more is
 *                mapped than its first page, for each page counts as resident: a record is no longer than that
 *
 * Positions only grow. A record is a header of 8 bytes (length u32, of which bit 31 says that it is being written and
 * bit 30 that it was discarded; offset u32) and its bytes, rounded up to 8.
 */

const HEADER_BYTES = 8
const BUSY = 1 << 31
const DISCARDED = 1 << 30
/** After this many records their room is given back to the kernel and the receiver told. */
const BATCH_RECORDS = 512
/** After this many batches the event loop gets its turn. */
const BATCHES = 8
/**
 * While records come, they are taken at an interval: a wake-up for each would cost many times more. A look costs as much as
 * hundreds of records, so the interval is as long as the receiver allows, and halved as often as more than this part of
 * the ring would fill meanwhile; but no shorter than this.
 */
const MOST_PART = 1 / 8
const LEAST_TICK_MS = 5
/** After this many intervals without a record the kernel is asked to wake us. */
const IDLE_TICKS = 5
const MOST_MS = 40

export interface RingBufferOptions {
  readonly object: BpfObject
  readonly map: string
  /** Gets each record: `length` bytes at `offset` of `words.buffer`, its to read until it returns. */
  readonly onRecord: (offset: number, length: number) => void
  /** Called when some records have been given and their room has not been given back yet. */
  readonly onBatchEnd: () => void
  /** Tells the programs whether the next record has to wake us. */
  readonly setAsleep: (asleep: boolean) => void
  /** How long a record may wait, milliseconds; it may change. Default 40. */
  readonly mostMs?: (() => number) | undefined
}

export class RingBuffer {
  /** Producer position and data, to be read only. A record's bytes start at a multiple of 8. */
  readonly words: Int32Array
  readonly view: DataView
  readonly #options: RingBufferOptions
  readonly #consumer: BigUint64Array
  readonly #producer: BigUint64Array
  readonly #dataOffset: number
  readonly #mask: number
  /** Where the next record begins. Below 2^53 for some years at the speed of memory. */
  #position: number
  #timer: NodeJS.Timeout | undefined
  #tickMs = LEAST_TICK_MS
  /** Position at the look before. */
  #lookedAt = 0
  #immediate: NodeJS.Immediate | undefined
  #idleTicks = IDLE_TICKS
  #closed = false

  /** Begins to read at once. */
  constructor(options: RingBufferOptions) {
    const { object, map } = options
    const page = pageSize()
    const bytes = object.entries(map)
    this.#options = options
    this.#consumer = new BigUint64Array(object.memory(map, 0, page, 'writable'), 0, 1)
    const memory = object.memory(map, page, page + bytes + page, 'readable')
    this.#producer = new BigUint64Array(memory, 0, 1)
    this.words = new Int32Array(memory)
    this.view = new DataView(memory)
    this.#dataOffset = page
    this.#mask = bytes - 1
    this.#position = Number(Atomics.load(this.#consumer, 0))
    object.watch(map, () => this.#wake())
    this.#wake()
  }

  /** Takes what is there now; gives the number of records. */
  drain(): number {
    let all = 0
    for (;;) {
      const taken = this.#takeBatch()
      all += taken
      if (taken < BATCH_RECORDS) return all
    }
  }

  /** Takes what is there, and no more after that. May be called twice. */
  close(): void {
    if (this.#closed) return
    this.drain()
    this.#closed = true
    clearTimeout(this.#timer)
    clearImmediate(this.#immediate)
  }

  #wake(): void {
    if (this.#closed) return
    this.#stayAwake()
    // It may be the first of very many.
    this.#tickMs = LEAST_TICK_MS
    this.#look()
  }

  /** Takes what is there and comes back later, unless it falls asleep. */
  readonly #look = (): void => {
    if (!this.#tick()) return
    const bytesPerMs = (this.#position - this.#lookedAt) / this.#tickMs
    this.#lookedAt = this.#position
    const mostMs = Math.max(this.#options.mostMs?.() ?? MOST_MS, LEAST_TICK_MS)
    let tickMs = Math.min(2 * this.#tickMs, mostMs)
    while (tickMs >= 2 * LEAST_TICK_MS && bytesPerMs * tickMs > (this.#mask + 1) * MOST_PART) tickMs /= 2
    if (this.#timer !== undefined && this.#tickMs === tickMs) {
      this.#timer.refresh()
      return
    }
    clearTimeout(this.#timer)
    this.#tickMs = tickMs
    this.#timer = setTimeout(this.#look, tickMs)
  }

  /** False: there was nothing for so long that the kernel is to wake us. */
  #tick(): boolean {
    for (let batch = 0; batch < BATCHES; batch++) {
      const taken = this.#takeBatch()
      if (taken > 0) this.#stayAwake()
      if (taken === BATCH_RECORDS) continue
      return taken > 0 || ++this.#idleTicks < IDLE_TICKS || !this.#fallsAsleep()
    }
    this.#immediate ??= setImmediate(() => {
      this.#immediate = undefined
      this.#tick()
    })
    return true
  }

  #stayAwake(): void {
    if (this.#idleTicks >= IDLE_TICKS) this.#options.setAsleep(false)
    this.#idleTicks = 0
  }

  /**
   * A program may have looked at the word just before it was changed, and then makes its record without waking us.
   * So one interval more passes between the change and the sleep: by then that record is to be seen.
   */
  #fallsAsleep(): boolean {
    if (this.#idleTicks === IDLE_TICKS) {
      this.#options.setAsleep(true)
      return false
    }
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#options.object.arm()
    return true
  }

  /**
   * Gives at most BATCH_RECORDS records. The loads of a position or a header acquire what the kernel has released with
   * it, and the store of our position releases the room: Atomics order what is read before and after them.
   */
  #takeBatch(): number {
    const { words } = this
    const { onRecord, onBatchEnd } = this.#options
    const dataOffset = this.#dataOffset
    const mask = this.#mask
    const end = Number(Atomics.load(this.#producer, 0))
    let position = this.#position
    let records = 0
    while (position < end && records < BATCH_RECORDS) {
      const at = dataOffset + (position & mask)
      const header = Atomics.load(words, at >> 2)
      if ((header & BUSY) !== 0) break
      const length = header & ~DISCARDED
      if ((header & DISCARDED) === 0) onRecord(at + HEADER_BYTES, length)
      position += (HEADER_BYTES + length + 7) & ~7
      records++
    }
    if (records > 0) {
      onBatchEnd()
      this.#position = position
      Atomics.store(this.#consumer, 0, BigInt(position))
    }
    return records
  }
}
