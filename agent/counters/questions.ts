import { NetlinkError, type NetlinkSocket, type ReadInPlace } from '../kernel/netlink-socket.ts'
import type { Message } from '../wire/netlink/message.ts'

/** The usual receive buffer has room for about a hundred answers of statistics. */
const MOST_AT_ONCE = 64
/** And one of BULK_RECEIVE_BYTES for these, also where the system grants no more than usually. */
const MOST_IN_BULK = 128
const LEAST_IN_BULK = 8
/** For a socket that is asked askAll(). */
export const BULK_RECEIVE_BYTES = 1 << 20

/** What is needed of a socket. */
export type AskedSocket = Pick<NetlinkSocket, 'requestEach' | 'requestEachInPlace' | 'dump' | 'close'>

interface Question {
  readonly message: Uint8Array
  readonly resolve: (answer: Message | undefined) => void
  readonly reject: (error: Error) => void
}

/**
 * Questions about single interfaces, each answered by one message. Those that are asked in the same turn of the event
 * loop go to the kernel in one system call and are answered in one instant.
 */
export class Questions {
  readonly #socket: AskedSocket
  /** What the questions are about, for errors: `read the statistics of interfaces`. */
  readonly #operation: string
  #waiting: Question[] = []
  #mostInBulk = MOST_IN_BULK

  /** `socket` is this object's own from now on. */
  constructor(socket: AskedSocket, operation: string) {
    this.#socket = socket
    this.#operation = operation
  }

  /**
   * The answer; undefined when there is none: the interface is gone, or neither its driver nor the kernel has such
   * figures (EOPNOTSUPP). Other refusals reject.
   */
  ask(message: Uint8Array): Promise<Message | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length === 0) setImmediate(this.#send)
      this.#waiting.push({ message, resolve, reject })
    })
  }

  /**
   * Asks about all of `subjects`: `ask` makes the questions about some of them, one behind the other, and `read` takes each
   * answer where it was received. Those that there is no answer to are left out, as ask() would; what is refused for
   * another reason, or cannot be read, is told to `failed` and costs no other. Rejects when nobody answers.
   */
  async askAll<T>(
    subjects: readonly T[],
    ask: (some: readonly T[]) => Uint8Array<ArrayBuffer>,
    read: ReadInPlace,
    failed: (subject: T, error: Error) => void,
  ): Promise<void> {
    for (let first = 0; first < subjects.length; ) {
      const some = subjects.slice(first, first + this.#mostInBulk)
      const answers = await this.#askSome(ask(some), some.length, read)
      if (answers === undefined) continue
      for (let i = 0; i < answers.length; i++) {
        const answer = answers[i]
        if (answer instanceof NetlinkError && !ABSENT.has(answer.code)) failed(some[i]!, answer)
      }
      first += some.length
    }
  }

  /** Undefined: the receive buffer was too small for so many answers, and fewer are to be asked for. */
  async #askSome(
    messages: Uint8Array<ArrayBuffer>,
    count: number,
    read: ReadInPlace,
  ): Promise<readonly unknown[] | undefined> {
    try {
      return await this.#socket.requestEachInPlace(messages, count, read, this.#operation)
    } catch (error) {
      const isTooMuch = error instanceof NetlinkError && error.code === 'ENOBUFS' && count > LEAST_IN_BULK
      if (!isTooMuch) throw error
      this.#mostInBulk = Math.max(count >> 1, LEAST_IN_BULK)
      return undefined
    }
  }

  /** One question about all of them. */
  dump(message: Uint8Array): Promise<Message[]> {
    return this.#socket.dump(message, this.#operation)
  }

  /** Questions under way fail. May be called twice. */
  close(): void {
    this.#socket.close()
  }

  readonly #send = (): void => {
    const questions = this.#waiting
    this.#waiting = []
    for (let first = 0; first < questions.length; first += MOST_AT_ONCE) {
      void this.#sendSome(questions.slice(first, first + MOST_AT_ONCE))
    }
  }

  async #sendSome(questions: readonly Question[]): Promise<void> {
    const messages = questions.map(({ message }) => message)
    try {
      const answers = await this.#socket.requestEach(messages, this.#operation)
      for (const [i, { resolve, reject }] of questions.entries()) {
        const answer = answers[i]!
        if (!(answer instanceof NetlinkError)) resolve(answer)
        else if (ABSENT.has(answer.code)) resolve(undefined)
        else reject(answer)
      }
    } catch (error) {
      for (const { reject } of questions) reject(error as Error)
    }
  }
}

/** EOPNOTSUPP: the driver has no ethtool operations, or the kernel's ethtool no statistics (before 5.13). */
const ABSENT: ReadonlySet<string> = new Set(['ENODEV', 'EOPNOTSUPP'])
