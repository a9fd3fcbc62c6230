import { PerformanceObserver } from 'node:perf_hooks'

/** How the process does, as long as somebody wants to know: how late its timers are, and its collections of garbage. */
export class ProcessFigures {
  delays = 0
  delaySeconds = 0
  longestDelaySeconds = 0
  collections = 0
  collectionSeconds = 0
  readonly #timer: NodeJS.Timeout
  readonly #observer: PerformanceObserver
  #dueMs: number

  constructor() {
    this.#dueMs = performance.now() + INTERVAL_MS
    this.#timer = setInterval(() => this.#tick(), INTERVAL_MS).unref()
    this.#observer = new PerformanceObserver(list => {
      for (const { duration } of list.getEntries()) {
        this.collections++
        this.collectionSeconds += duration / 1000
      }
    })
    this.#observer.observe({ entryTypes: ['gc'] })
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#observer.disconnect()
  }

  #tick(): void {
    const now = performance.now()
    const delay = Math.max(now - this.#dueMs, 0) / 1000
    this.delays++
    this.delaySeconds += delay
    this.longestDelaySeconds = Math.max(this.longestDelaySeconds, delay)
    // Node.js counts the interval from the end of the call.
    this.#dueMs = now + INTERVAL_MS
  }
}

const INTERVAL_MS = 1000
