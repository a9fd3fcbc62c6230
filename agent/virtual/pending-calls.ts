/** Calls that wait for their answers, each by its serial number and for a limited time. */

/** A call that was taken because its answer is there. */
export interface PendingCall<Call, Answer> {
  readonly call: Call
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: Error) => void
}

interface Waiting<Call, Answer> extends PendingCall<Call, Answer> {
  readonly timer: NodeJS.Timeout
}

export class PendingCalls<Call, Answer> {
  readonly #timeoutMs: number
  readonly #waiting = new Map<number, Waiting<Call, Answer>>()
  #serial = 0
  #error: Error | undefined

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs
  }

  /** Why no answer will come any more; undefined while answers may. */
  get error(): Error | undefined {
    return this.#error
  }

  /** Has `send` send the call under a new serial number. Rejects after the time limit; `name` is for that error. */
  add(name: string, call: Call, send: (serial: number) => void): Promise<Answer> {
    if (this.#error !== undefined) return Promise.reject(this.#error)
    const serial = ++this.#serial
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(serial)
        reject(new Error(`${name}: no answer within ${this.#timeoutMs} ms`))
      }, this.#timeoutMs)
      this.#waiting.set(serial, { call, resolve, reject, timer })
      send(serial)
    })
  }

  /** The call with this serial, which waits no longer; undefined for one that nobody waits for. */
  take(serial: number): PendingCall<Call, Answer> | undefined {
    const waiting = this.#waiting.get(serial)
    if (waiting === undefined) return undefined
    this.#waiting.delete(serial)
    clearTimeout(waiting.timer)
    return waiting
  }

  /** Rejects all that wait, and all that come. The first error stays. */
  fail(error: Error): void {
    this.#error ??= error
    for (const serial of [...this.#waiting.keys()]) this.take(serial)?.reject(error)
  }
}
