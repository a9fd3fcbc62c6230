import { lstatSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { printable } from '../health/printable.ts'
import { CONTROL_SOCKET, CONTROL_VERSION, type Question, type StreamCounts, type Wanted } from './protocol.ts'

/** The other end of the control socket, for the commands that look at a running agent. */

/** No agent answers: none runs, it is not reachable from here, or it does not let us. The message says what to do. */
export class NoAgentError extends Error {
  override readonly name = 'NoAgentError'
}

/** What a subscriber gets. Datagrams are whole, as a collector would get them. */
export interface Subscriber {
  onDatagram(datagram: Uint8Array): void
  /** What this reader did not get has grown. */
  onCounts?(counts: StreamCounts): void
}

const ANSWER_MS = 10_000

export class ControlClient {
  readonly #socket: Socket
  readonly #path: string
  /** Answers come in the order of the requests. */
  readonly #asked: { resolve: (answer: Record<string, unknown>) => void; reject: (error: Error) => void }[] =
    []
  #subscriber: Subscriber | undefined
  /** Pieces of a line that is not complete. */
  #pieces: string[] = []
  #failure: Error | undefined
  /** Resolves when the connection is closed, whoever did it. */
  readonly closed: Promise<void>

  /** Connects; fails with NoAgentError. */
  static async open(path: string = CONTROL_SOCKET): Promise<ControlClient> {
    const socket = connect(path)
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve)
        socket.once('error', reject)
      })
    } catch (error) {
      throw new NoAgentError(reasonOf(path, error as NodeJS.ErrnoException))
    }
    return new ControlClient(socket, path)
  }

  private constructor(socket: Socket, path: string) {
    this.#socket = socket
    this.#path = path
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#take(text))
    socket.on('error', error => this.#fail(error))
    this.closed = new Promise(resolve => {
      socket.on('close', () => {
        this.#fail(new NoAgentError(`${path}: the agent has ended or closed the connection`))
        resolve()
      })
    })
  }

  /** Asks for something once. `T` is the type in status.ts that belongs to the question. */
  async ask<T>(question: Question): Promise<T> {
    const answer = await this.#request({ request: question })
    if (!(question in answer)) throw new Error(`${this.#path}: the answer has no ${question}`)
    return answer[question] as T
  }

  /** Streams what the agent sends from now on; when called again, what is wanted changes. */
  async subscribe(wanted: Partial<Wanted>, subscriber: Subscriber): Promise<Wanted> {
    this.#subscriber = subscriber
    const { subscribed } = await this.#request({ request: 'subscribe', ...wanted })
    return subscribed as Wanted
  }

  async unsubscribe(): Promise<StreamCounts | null> {
    const { unsubscribed } = await this.#request({ request: 'unsubscribe' })
    return unsubscribed as StreamCounts | null
  }

  close(): void {
    this.#socket.destroy()
  }

  #request(members: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new NoAgentError(`${this.#path}: no answer within ${ANSWER_MS / 1000} s`)),
        ANSWER_MS,
      )
      this.#asked.push({
        resolve: answer => {
          clearTimeout(timer)
          resolve(answer)
        },
        reject: error => {
          clearTimeout(timer)
          reject(error)
        },
      })
      this.#socket.write(`${JSON.stringify({ weir: CONTROL_VERSION, ...members })}\n`)
    })
  }

  #take(text: string): void {
    let from = 0
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
      this.#pieces.push(text.slice(from, end))
      from = end + 1
      const line = this.#pieces.join('')
      this.#pieces = []
      this.#line(line)
    }
    if (from < text.length) this.#pieces.push(text.slice(from))
  }

  #line(text: string): void {
    let message: Record<string, unknown>
    try {
      message = JSON.parse(text) as Record<string, unknown>
    } catch {
      this.#fail(new Error(`${this.#path}: the answer is not JSON: is this an agent's socket?`))
      this.close()
      return
    }
    if (typeof message.datagram === 'string') {
      this.#subscriber?.onDatagram(Buffer.from(message.datagram, 'base64'))
    } else if (message.stream !== undefined) this.#subscriber?.onCounts?.(message.stream as StreamCounts)
    else if (message.error !== undefined) {
      const { message: reason } = message.error as { message?: unknown }
      this.#asked.shift()?.reject(new Error(`${this.#path}: ${printable(String(reason))}`))
    } else this.#asked.shift()?.resolve(message)
  }

  #fail(error: Error): void {
    this.#failure ??= error
    for (const { reject } of this.#asked.splice(0)) reject(this.#failure)
  }
}

function reasonOf(path: string, { code, message }: NodeJS.ErrnoException): string {
  switch (code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false) return `${path} is no socket`
      return (
        `no agent answers at ${path}: start it with \`weir run\`, or name its socket with --socket ` +
        '(one that was started with -f has none without --control)'
      )
    case 'EACCES':
    case 'EPERM':
      return `${path} does not let this user in: be root, or a member of the group that the socket belongs to`
    default:
      return `${path}: ${message}`
  }
}
