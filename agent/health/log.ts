import { type DestinationStream, destination, type Logger, pino } from 'pino'

export type { Logger }

/**
 * The agent's logger: one JSON object a line, written synchronously to standard error (no worker thread, so a
 * line written before a crash is never lost). Each part takes a child with `{ part: 'psample' }`.
 */
export function createLogger(
  level: string,
  stream: DestinationStream = destination({ fd: 2, sync: true }),
): Logger {
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream)
}

/**
 * Lets at most one line per `intervalMs` and key through, and tells with the next one how many were held back.
 * For what is expected to happen again and again: overruns, unreachable collectors, unknown interfaces.
 */
export class RateLimitedLog {
  readonly #last = new Map<string, { at: number; held: number }>()
  readonly #now: () => number
  readonly #intervalMs: number

  constructor(intervalMs = 60_000, now: () => number = () => performance.now()) {
    this.#intervalMs = intervalMs
    this.#now = now
  }

  /** Calls `write` with the number of lines held back since the last one, unless it is too soon for `key`. */
  line(key: string, write: (held: number) => void): void {
    const now = this.#now()
    const entry = this.#last.get(key)
    if (entry === undefined) {
      this.#last.set(key, { at: now, held: 0 })
      write(0)
    } else if (now - entry.at >= this.#intervalMs) {
      const held = entry.held
      entry.at = now
      entry.held = 0
      write(held)
    } else {
      entry.held++
    }
  }
}
