import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ListenAddress } from '../config/config.ts'
import type { HttpServer } from './http.ts'
import type { Logger } from './log.ts'

/** First and longest wait before an address that cannot be listened at is tried again. */
const RETRY_MS = 1000
const RETRY_MOST_MS = 60_000

/** A server that does not listen. */
export interface Unheard {
  /** Its block: `web`, `metrics`, `json`. */
  readonly name: string
  readonly problem: string
}

interface Wanted {
  readonly address: ListenAddress
  readonly answer: (request: IncomingMessage, response: ServerResponse) => void
  /** Said when it listens. */
  readonly told: string
}

/** A server for those who look, which listens as soon as it can: the address may be taken for now. */
export class Listener {
  readonly #name: string
  readonly #log: Logger
  #wanted: Wanted | undefined
  #server: HttpServer | undefined
  #timer: NodeJS.Timeout | undefined
  #retryMs = RETRY_MS
  #problem: string | undefined
  /** The end of all attempts so far: two at once would be in each other's way. */
  #tried: Promise<void> = Promise.resolve()

  /** `name` is the block of the configuration that asks for it. */
  constructor(name: string, log: Logger) {
    this.#name = name
    this.#log = log
  }

  /** Listens there, in place of where it did. Resolves when that has been tried; what fails is logged and tried again. */
  open(wanted: Wanted): Promise<void> {
    this.close()
    this.#wanted = wanted
    return this.retry()
  }

  /** Tries at once, unless it listens or has nowhere to. */
  retry(isAsked = true): Promise<void> {
    this.#tried = this.#tried.then(() => this.#try(isAsked))
    return this.#tried
  }

  /** Why it does not listen, if it should. */
  unheard(): Unheard[] {
    return this.#problem === undefined ? [] : [{ name: this.#name, problem: this.#problem }]
  }

  /** May be called twice. */
  close(): void {
    clearTimeout(this.#timer)
    this.#server?.close()
    this.#server = undefined
    this.#wanted = undefined
    this.#problem = undefined
    this.#retryMs = RETRY_MS
  }

  async #try(isAsked: boolean): Promise<void> {
    const wanted = this.#wanted
    if (wanted === undefined || this.#server !== undefined) return
    clearTimeout(this.#timer)
    if (isAsked) this.#retryMs = RETRY_MS
    try {
      // Only then: the daemon does not carry a web server otherwise.
      const { serveHttp } = await import('./http.ts')
      const server = await serveHttp(wanted.address, wanted.answer)
      if (wanted !== this.#wanted) return server.close()
      this.#server = server
      this.#problem = undefined
      this.#log.info(wanted.told)
    } catch (error) {
      if (wanted !== this.#wanted) return
      const { message } = error as Error
      if (isAsked || message !== this.#problem) this.#log.error(message)
      this.#problem = message
      this.#timer = setTimeout(() => void this.retry(false), this.#retryMs).unref()
      this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MOST_MS)
    }
  }
}
