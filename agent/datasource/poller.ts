import type { Answer, BulkQuestion, CounterReader } from '../counters/reader.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import { inTurns } from '../turns.ts'
import type { CountersSampleInput } from '../wire/sflow/samples.ts'

/**
 * Asks the readers of each data source for their counters once in its interval and numbers the samples (sFlow v5
 * §5). The times of the sources are spread over the interval; a reader that fails or hangs costs its own structure
 * and nothing else. The poller does not know what a reader reads or where samples go.
 *
 * Losses are counted in structures, stage `counters`.
 */

/** A data source and what there is to tell of it. */
export interface PolledSource {
  /** 0 interface, 2 physical entity, 3 logical entity. */
  readonly type: number
  readonly index: number
  /** 0 polls it not at all. */
  readonly intervalMs: number
  /** In the order in which their records are sent. */
  readonly readers: readonly CounterReader[]
}

/**
 * Gives how many samples were made of it, from 0: one that does not fit into a datagram is sent as several, which
 * take as many sequence numbers from `sample.sequence` on.
 */
export type CounterSink = (sample: CountersSampleInput) => number

/** A reader that did not answer as it should. */
export interface PollFailure {
  readonly sourceType: number
  readonly sourceIndex: number
  /** Name of the structure. */
  readonly reader: string
  readonly error: Error
}

export interface PollerOptions {
  readonly ledger: Ledger
  /** Takes each sample when all readers of the source have answered or run out of time. */
  readonly sink: CounterSink
  /** Told of each failure that is counted. */
  readonly onFailure?: (failure: PollFailure) => void
  /** Monotonic clock, in milliseconds. */
  readonly now?: () => number
  /** How long a sample waits for a reader; at most half the interval. Default 2000. */
  readonly timeoutMs?: number
}

/** What the readers of one structure did, those of all sources together. */
export interface ReaderStatus {
  readonly name: string
  /** Answers, and the time from question to answer. */
  readonly count: number
  readonly lastUs: number
  readonly maxUs: number
  readonly errors: number
  readonly timeouts: number
  /** Readers that have been asked and have not answered yet. */
  readonly pending: number
  readonly lastError: string | undefined
}

/** A structure, of whatever kind; undefined when there is none. */
type Value = Readonly<Record<string, unknown>> | undefined

type ReaderTotals = { -readonly [K in keyof ReaderStatus]: ReaderStatus[K] }

/** What all readers of one structure have in common. */
interface Structure {
  readonly totals: ReaderTotals
  /** The names of its 64-bit counters. */
  readonly counters64: readonly string[]
}

/** A reader of one source. */
interface Asked {
  readonly reader: CounterReader
  readonly structure: Structure
  isPending: boolean
  /** Its 64-bit counters when they were last sent; undefined where it has none. */
  readonly last: bigint[] | undefined
}

/** A source that is due, with the first of its readers that asks together with others. */
interface DueTogether {
  readonly source: Source
  readonly asked: Asked
}

interface Source {
  readonly type: number
  readonly index: number
  readonly readers: readonly Asked[]
  /** Decides the phase. */
  readonly slot: number
  intervalMs: number
  dueMs: number
  isPolling: boolean
  /** Of the last sample sent. */
  sequence: number
}

/**
 * Phases there are: sources beyond share them, and are asked together. Few, because what a wake-up costs is for the most part
 * the same for one source as for a hundred: that of the thread that asks, and of code that has left the processor's caches.
 * Of 4,096 sources 128 are asked at a time; what there is to do for them is done in turns.
 */
const PHASES = 32
/** Sources due within this time of each other are polled together too. */
const LEAST_SLEEP_MS = 20
/**
 * A new source is polled at once, and from then on at its phase. Many new ones take turns this far apart, so that a
 * start with thousands of interfaces is no burst; if its phase comes before its turn, a source is first polled then.
 */
const FIRST_POLLS_APART_MS = 5
/** Longest time a timer can run. */
const LONGEST_SLEEP_MS = 2 ** 31 - 1

export class Poller {
  readonly #sink: CounterSink
  readonly #onFailure: ((failure: PollFailure) => void) | undefined
  readonly #now: () => number
  readonly #timeoutMs: number
  readonly #originMs: number
  readonly #sources = new Map<number, Source>()
  /** Sources by the time when they are due: those of a phase together. Some may be gone, or due at another time by now. */
  readonly #due = new Map<number, Source[]>()
  readonly #structures = new Map<string, Structure>()
  readonly #failed: Loss
  readonly #timedOut: Loss
  readonly #hanging: Loss
  readonly #missed: Loss
  /** When the next new source has its turn. */
  #nextTurnMs = 0
  #usedSlots = 0
  #freeSlots: number[] = []
  #timer: NodeJS.Timeout | undefined
  /** When the timer runs out; Infinity when it does not run. */
  #wakeMs = Number.POSITIVE_INFINITY
  #isRunning = false

  constructor(options: PollerOptions) {
    const { ledger, sink, onFailure, now = () => performance.now(), timeoutMs = 2000 } = options
    this.#sink = sink
    this.#onFailure = onFailure
    this.#now = now
    this.#timeoutMs = timeoutMs
    this.#originMs = now()
    this.#failed = ledger.loss('counters', 'failed', 'structures that could not be read; see the log')
    this.#timedOut = ledger.loss('counters', 'timeout', 'structures whose reader did not answer in time')
    this.#hanging = ledger.loss(
      'counters',
      'hanging',
      'structures not asked for because their reader has not answered the previous time',
    )
    this.#missed = ledger.loss(
      'counters',
      'missed',
      'structures not asked for because the agent was too busy',
    )
  }

  get sources(): number {
    return this.#sources.size
  }

  start(): void {
    this.#isRunning = true
    this.#sleep()
  }

  /**
   * Nothing is sent or counted any more; readers under way are left to end, and do not keep the process. May be called
   * twice.
   */
  stop(): void {
    this.#isRunning = false
    this.#wakeMs = Number.POSITIVE_INFINITY
    clearTimeout(this.#timer)
  }

  /** Adds a data source; one with the same type and index is replaced, and the sequence begins anew. */
  add(source: PolledSource): void {
    const { type, index, intervalMs } = source
    this.remove(type, index)
    const slot = this.#freeSlots.pop() ?? this.#usedSlots++
    const added: Source = {
      type,
      index,
      readers: source.readers.map(reader => this.#asked(reader)),
      slot,
      intervalMs,
      dueMs: Number.POSITIVE_INFINITY,
      isPolling: false,
      sequence: 0,
    }
    this.#sources.set(key(type, index), added)
    if (intervalMs > 0) this.#schedule(added, this.#firstDue(added))
    this.#wakeBy(added.dueMs)
  }

  /** The data source is gone; what its readers still answer is not sent. */
  remove(type: number, index: number): void {
    const source = this.#sources.get(key(type, index))
    if (source === undefined) return
    this.#sources.delete(key(type, index))
    // The last one is taken first: kept in falling order, so that the phases that are given first stay in use.
    this.#freeSlots.push(source.slot)
    this.#freeSlots.sort((a, b) => b - a)
  }

  /** Changes the interval of a source, if there is such a one; 0 stops polling it. */
  changeInterval(type: number, index: number, intervalMs: number): void {
    const source = this.#sources.get(key(type, index))
    if (source === undefined || source.intervalMs === intervalMs) return
    source.intervalMs = intervalMs
    this.#schedule(source, this.#dueAfter(source, this.#now()))
    this.#wakeBy(source.dueMs)
  }

  status(): readonly ReaderStatus[] {
    return [...this.#structures.values()].map(({ totals }) => ({ ...totals }))
  }

  #asked(reader: CounterReader): Asked {
    const structure = this.#structure(reader.record)
    const last = structure.counters64.length === 0 ? undefined : []
    return { reader, structure, isPending: false, last }
  }

  #structure({ name, fields }: CounterReader['record']): Structure {
    const known = this.#structures.get(name)
    if (known !== undefined) return known
    const totals = {
      name,
      count: 0,
      lastUs: 0,
      maxUs: 0,
      errors: 0,
      timeouts: 0,
      pending: 0,
      lastError: undefined,
    }
    const counters64 = Object.keys(fields).filter(field => fields[field]!.shape.type === 'c64')
    const structure = { totals, counters64 }
    this.#structures.set(name, structure)
    return structure
  }

  #firstDue(source: Source): number {
    const now = this.#now()
    const turnMs = Math.max(now, this.#nextTurnMs)
    const phaseMs = this.#dueAfter(source, now)
    if (phaseMs < turnMs) return phaseMs
    this.#nextTurnMs = turnMs + FIRST_POLLS_APART_MS
    return turnMs
  }

  /** Time of the source's phase next after `ms`. */
  #dueAfter({ slot, intervalMs }: Source, ms: number): number {
    if (intervalMs <= 0) return Number.POSITIVE_INFINITY
    const first = this.#originMs + phase(slot) * intervalMs
    return first + (Math.floor((ms - first) / intervalMs) + 1) * intervalMs
  }

  /** Sleeps until the first source is due. */
  #sleep(): void {
    let first = Number.POSITIVE_INFINITY
    for (const dueMs of this.#due.keys()) if (dueMs < first) first = dueMs
    this.#wakeMs = Number.POSITIVE_INFINITY
    this.#wakeBy(first)
  }

  /** One timer serves all sources: sets it to `ms` unless it runs out earlier. */
  #wakeBy(ms: number): void {
    if (!this.#isRunning || ms >= this.#wakeMs) return
    this.#wakeMs = ms
    clearTimeout(this.#timer)
    const sleepMs = Math.max(ms - this.#now(), LEAST_SLEEP_MS)
    this.#timer = setTimeout(this.#wake, Math.min(sleepMs, LONGEST_SLEEP_MS))
  }

  readonly #wake = (): void => {
    const now = this.#now()
    const together = new Map<BulkQuestion, DueTogether[]>()
    let first = Number.POSITIVE_INFINITY
    for (const [ms, sources] of this.#due) {
      if (ms > now) {
        if (ms < first) first = ms
        continue
      }
      this.#due.delete(ms)
      for (const source of sources) {
        // Gone meanwhile, or due at another time.
        if (source.dueMs !== ms || !this.#isThere(source)) continue
        this.#pollDue(source, now, together)
        if (source.dueMs < first) first = source.dueMs
      }
    }
    for (const [question, due] of together) void this.#pollTogether(question, due)
    this.#wakeMs = Number.POSITIVE_INFINITY
    this.#wakeBy(first)
  }

  #isThere(source: Source): boolean {
    return this.#sources.get(key(source.type, source.index)) === source
  }

  #pollDue(source: Source, now: number, together: Map<BulkQuestion, DueTogether[]>): void {
    const { dueMs, intervalMs } = source
    // The first poll is off the phase: half an interval lies between it and the second at least.
    this.#schedule(source, this.#dueAfter(source, source.sequence === 0 ? now + intervalMs / 2 : now))
    const skipped = Math.floor((now - dueMs) / intervalMs)
    this.#missed.count += skipped * source.readers.length
    if (source.isPolling) {
      this.#missed.count += source.readers.length
      return
    }
    const { readers } = source
    // By number here and below: for the most part this runs too seldom to be compiled well, and iterators make garbage.
    for (let i = 0; i < readers.length; i++) {
      const asked = readers[i]!
      const question = asked.isPending ? undefined : asked.reader.bulk
      if (question === undefined) continue
      const others = together.get(question)
      if (others === undefined) together.set(question, [{ source, asked }])
      else others.push({ source, asked })
      return
    }
    this.#poll(source)
  }

  /** Asks for all of them at once. Each is polled when the answer is there, or without it. Does not reject. */
  async #pollTogether(question: BulkQuestion, due: readonly DueTogether[]): Promise<void> {
    const startMs = this.#now()
    let timeoutMs = this.#timeoutMs
    for (let i = 0; i < due.length; i++) {
      const { source, asked } = due[i]!
      timeoutMs = Math.min(timeoutMs, source.intervalMs / 2)
      source.isPolling = true
      asked.isPending = true
      asked.structure.totals.pending++
    }
    const pollAll = (read: (one: DueTogether) => Answer<Value>) =>
      inTurns(due, one => {
        one.source.isPolling = false
        if (this.#isRunning && this.#isThere(one.source)) this.#poll(one.source, one.asked, () => read(one))
      })
    let isLate = false
    const stop = this.#limit(timeoutMs, () => {
      isLate = true
      void pollAll(({ source, asked }) => this.#tooLate(source, asked, timeoutMs))
    })
    const ended = ({ asked }: DueTogether) => {
      asked.isPending = false
      asked.structure.totals.pending--
    }
    try {
      const answer = await question.ask(due.map(({ source }) => source.index))
      stop()
      due.forEach(ended)
      if (!isLate) await pollAll(({ source, asked }) => this.#read(source, asked, timeoutMs, startMs, answer))
    } catch (error) {
      stop()
      for (const one of due) {
        ended(one)
        this.#answered(one.asked, startMs)
        if (this.#isRunning) one.asked.structure.totals.errors++
      }
      if (!isLate)
        await pollAll(({ source, asked }) => this.#fail(source, asked, this.#failed, error as Error))
    }
  }

  #schedule(source: Source, dueMs: number): void {
    source.dueMs = dueMs
    if (dueMs === Number.POSITIVE_INFINITY) return
    const others = this.#due.get(dueMs)
    if (others === undefined) this.#due.set(dueMs, [source])
    else others.push(source)
  }

  /** Asks all readers, but for `known`, whose value is that of `value()`. */
  #poll(source: Source, known?: Asked, value?: () => Answer<Value>): void {
    const timeoutMs = Math.min(this.#timeoutMs, source.intervalMs / 2)
    let isWaiting = false
    const answers: Answer<Value>[] = []
    const { readers } = source
    for (let i = 0; i < readers.length; i++) {
      const asked = readers[i]!
      const answer = asked === known ? value!() : this.#ask(source, asked, timeoutMs)
      if (answer instanceof Promise) isWaiting = true
      answers.push(answer)
    }
    if (!isWaiting) {
      this.#send(source, answers as readonly Value[])
      return
    }
    source.isPolling = true
    // None of them rejects.
    void Promise.all(answers).then(values => {
      source.isPolling = false
      this.#send(source, values)
    })
  }

  #send(source: Source, values: readonly Value[]): void {
    if (!this.#isRunning || !this.#isThere(source)) return
    const records: { record: CounterReader['record']; value: unknown }[] = []
    let isContinuous = true
    for (let i = 0; i < values.length; i++) {
      const value = values[i]
      if (value === undefined) continue
      const asked = source.readers[i]!
      // A counter that went back was reset: a new sequence tells the collector not to take the difference.
      if (!hasGrown(asked, value)) isContinuous = false
      records.push({ record: asked.reader.record, value })
    }
    if (records.length === 0) return
    const sequence = isContinuous ? (source.sequence + 1) >>> 0 : 1
    const samples = this.#sink({
      sequence,
      sourceType: source.type,
      sourceIndex: source.index,
      records,
    })
    source.sequence = (sequence + samples - 1) >>> 0
  }

  /** The reader's answer; undefined when there is none, or not in time. Neither throws nor rejects. */
  #ask(source: Source, asked: Asked, timeoutMs: number): Answer<Value> {
    if (asked.isPending) {
      this.#hanging.count++
      return undefined
    }
    return this.#read(source, asked, timeoutMs, this.#now())
  }

  #read(source: Source, asked: Asked, timeoutMs: number, startMs: number, given?: unknown): Answer<Value> {
    let answer: Answer<Value>
    try {
      answer = asked.reader.read(given)
    } catch (error) {
      this.#answered(asked, startMs)
      asked.structure.totals.errors++
      return this.#fail(source, asked, this.#failed, error as Error)
    }
    if (answer instanceof Promise) return this.#await(answer, source, asked, startMs, timeoutMs)
    this.#answered(asked, startMs)
    return answer
  }

  #await(
    answer: Promise<Value>,
    source: Source,
    asked: Asked,
    startMs: number,
    timeoutMs: number,
  ): Promise<Value> {
    const { totals } = asked.structure
    asked.isPending = true
    totals.pending++
    return new Promise(resolve => {
      let isLate = false
      const stop = this.#limit(timeoutMs, () => {
        isLate = true
        resolve(this.#tooLate(source, asked, timeoutMs))
      })
      const end = (value: Value) => {
        stop()
        asked.isPending = false
        totals.pending--
        this.#answered(asked, startMs)
        resolve(value)
      }
      answer.then(end, (error: Error) => {
        end(undefined)
        if (this.#isRunning) totals.errors++
        if (!isLate) this.#fail(source, asked, this.#failed, error)
      })
    })
  }

  /** Calls `giveUp` after that time, unless the function that it gives is called before. */
  #limit(timeoutMs: number, giveUp: () => void): () => void {
    let isOver = false
    const end = () => {
      if (!isOver) giveUp()
    }
    // When the process stood still, the answer may be there and the timer comes first: it lets others go before.
    const timer = setTimeout(() => setImmediate(end).unref(), timeoutMs).unref()
    return () => {
      isOver = true
      clearTimeout(timer)
    }
  }

  #answered({ structure: { totals } }: Asked, startMs: number): void {
    totals.count++
    totals.lastUs = Math.round((this.#now() - startMs) * 1000)
    totals.maxUs = Math.max(totals.maxUs, totals.lastUs)
  }

  #tooLate(source: Source, asked: Asked, timeoutMs: number): undefined {
    if (this.#isRunning) asked.structure.totals.timeouts++
    return this.#fail(source, asked, this.#timedOut, new Error(`no answer within ${timeoutMs} ms`))
  }

  #fail(source: Source, { structure: { totals } }: Asked, loss: Loss, error: Error): undefined {
    if (!this.#isRunning) return
    loss.count++
    totals.lastError = error.message
    this.#onFailure?.({ sourceType: source.type, sourceIndex: source.index, reader: totals.name, error })
  }
}

/** False when one of the 64-bit counters is less than it was when it was last sent. */
function hasGrown({ structure: { counters64 }, last }: Asked, value: NonNullable<Value>): boolean {
  if (last === undefined) return true
  let hasGrown = true
  for (let i = 0; i < counters64.length; i++) {
    const now = value[counters64[i]!] as bigint
    if (last[i]! > now) hasGrown = false
    last[i] = now
  }
  return hasGrown
}

/** The index is a 32-bit number. */
function key(type: number, index: number): number {
  return type * 2 ** 32 + index
}

/**
 * Slots 0, 1, 2, … as fractions of the interval: 0, 1/2, 1/4, 3/4, 1/8, … (van der Corput), from PHASES on the same
 * again. Any number of slots from the first is spread evenly, and none moves when others come and go.
 */
function phase(slot: number): number {
  let fraction = 0
  let weight = 0.5
  for (let rest = slot % PHASES; rest > 0; rest >>>= 1) {
    if (rest & 1) fraction += weight
    weight /= 2
  }
  return fraction
}
