import type { Ledger, Loss } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import type { Registry } from './registry.ts'
import { countText, type Found, type Runtime } from './runtime.ts'

/** Asks a runtime again and again what it has, and tells the registry. */

export interface SearchOptions {
  readonly runtime: Runtime
  readonly registry: Registry
  readonly ledger: Ledger
  readonly log: Logger
  /** Time between searches. */
  readonly refreshMs: number
  /** What is not found for this long is forgotten. */
  readonly forgetMs: number
  /** Prepares what was found, before the registry has it. */
  readonly prepare: (found: readonly Found[]) => Promise<void>
  /** The registry has been told. */
  readonly onDone: () => void
}

/** A search takes this long at most, whatever the runtime promises. */
const SEARCH_TIMEOUT_MS = 30_000
/** After an event others may follow at once. */
const SETTLE_MS = 250
/** Events make no more searches than one in this time. */
const LEAST_BETWEEN_MS = 1000

/** A runtime that did not answer is asked again soon: it may just start. */
const RETRY_MS = 10_000

export interface SearchStatus {
  readonly runtime: string
  readonly things: string
  readonly present: number
  readonly searches: number
  /** Why the last search failed. */
  readonly problem: string | undefined
}

export class Search {
  readonly #options: SearchOptions
  readonly #failed: Loss
  #timer: NodeJS.Timeout | undefined
  #dueMs = Number.POSITIVE_INFINITY
  #startedMs = Number.NEGATIVE_INFINITY
  #isSearching = false
  #isAgain = false
  #isStopped = false
  #searches = 0
  #problem: string | undefined
  #told: string | undefined

  constructor(options: SearchOptions) {
    this.#options = options
    const { ledger, runtime } = options
    this.#failed = ledger.loss(
      'virtual',
      `${runtime.name}-not-found`,
      `searches for ${runtime.things} that failed; see the log`,
    )
  }

  /** The first search begins at once; nobody waits for it. */
  start(): void {
    this.#options.runtime.watch?.(() => this.#changed())
    void this.#search()
  }

  /** What was found stays known. May be called twice. */
  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
    this.#options.runtime.close()
  }

  status(): SearchStatus {
    const { runtime, registry } = this.#options
    return {
      runtime: runtime.name,
      things: runtime.things,
      present: registry.present(runtime.name).length,
      searches: this.#searches,
      problem: this.#problem,
    }
  }

  #changed(): void {
    if (this.#isSearching) this.#isAgain = true
    else this.#searchBy(Math.max(performance.now() + SETTLE_MS, this.#startedMs + LEAST_BETWEEN_MS))
  }

  #searchBy(dueMs: number): void {
    if (this.#isStopped || dueMs >= this.#dueMs) return
    this.#dueMs = dueMs
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#search(), dueMs - performance.now())
  }

  async #search(): Promise<void> {
    const { runtime, registry, refreshMs, forgetMs, prepare, onDone } = this.#options
    this.#dueMs = Number.POSITIVE_INFINITY
    this.#startedMs = performance.now()
    this.#isSearching = true
    this.#isAgain = false
    try {
      const found = await withinTime(runtime.list(), SEARCH_TIMEOUT_MS)
      if (this.#isStopped) return
      await prepare(found)
      if (this.#isStopped) return
      registry.update(runtime.name, found)
      this.#searches++
      this.#succeeded()
    } catch (error) {
      if (this.#isStopped) return
      this.#failed.count++
      this.#tell((error as Error).message)
    } finally {
      this.#isSearching = false
    }
    registry.forget(runtime.name, forgetMs)
    onDone()
    this.#searchBy(
      this.#startedMs + (this.#problem === undefined ? refreshMs : Math.min(refreshMs, RETRY_MS)),
    )
    if (this.#isAgain) this.#changed()
  }

  #succeeded(): void {
    const { log, runtime } = this.#options
    this.#problem = undefined
    const present = this.status().present
    if (this.#searches === 1 || this.#told !== undefined) {
      log.info({ part: runtime.name }, `${runtime.name}: ${countText(present, runtime.things)} found`)
    }
    this.#told = undefined
  }

  /** Each problem once, until there is none or another. */
  #tell(problem: string): void {
    const { log, runtime } = this.#options
    this.#problem = problem
    if (problem === this.#told) return
    this.#told = problem
    log.warn({ part: runtime.name }, `${runtime.name}: ${problem}`)
  }
}

function withinTime<T>(answer: Promise<T>, timeoutMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`no end of the search within ${timeoutMs} ms`)),
      timeoutMs,
    )
    answer.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
