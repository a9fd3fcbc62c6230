import { chmodSync, readFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import type { Logger } from '../health/log.ts'
import { printable } from '../health/printable.ts'
import { listenAtPath, openToGroup } from '../kernel/unix-socket.ts'
import { type ControlError, line, type Question, REQUEST_BYTES, readRequest } from './protocol.ts'
import { SampleStream, type TapOpener } from './stream.ts'

/**
 * The control socket: answers questions about the running agent and streams what it sends to those who want to look.
 * It never makes the agent wait: one answer serves all who ask within ANSWER_MS, each connection has one request done
 * in a turn of the event loop, and one that does not read what it gets is not read from.
 */

export interface ControlServerOptions {
  readonly path: string
  /** Name or number of the group that may connect; undefined: `weir` if there is such a group and it may be given to it, else the owner alone. */
  readonly group: string | undefined
  readonly log: Logger
  /** What there is to say, perhaps after a while; what fails is told to the asker. */
  readonly answer: (question: Question) => unknown
  readonly openTap: TapOpener
}

/** What the server has done, for the metrics. */
export interface ControlCounts {
  connections: number
  subscribers: number
  requests: number
  refused: number
  /** Samples that subscribers did not get because they were slow. */
  lost: number
}

const DEFAULT_GROUP = 'weir'
const MOST_CONNECTIONS = 128
const MOST_SUBSCRIBERS = 16
/** Connections that ask nothing and subscribe to nothing are closed after this time. */
const IDLE_MS = 60_000
/** A surplus connection is open for so long that its other end can read why it is closed. */
const LEAVE_MS = 1000
/** An answer is given again to those who ask so soon after it was made. */
const ANSWER_MS = 200
/** Bytes that may wait in a connection before its next request is read. */
const WAITING_BYTES = 1 << 20

export class ControlServer {
  readonly counts: ControlCounts = { connections: 0, subscribers: 0, requests: 0, refused: 0, lost: 0 }
  readonly #options: ControlServerOptions
  readonly #log: Logger
  readonly #connections = new Set<Connection>()
  /** Surplus connections that have been told so. */
  readonly #leaving = new Set<Socket>()
  readonly #answers = new Map<Question, { readonly atMs: number; readonly value: unknown }>()
  #server: Server | undefined
  /** Removes the socket file. */
  #remove: (() => void) | undefined

  constructor(options: ControlServerOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'control' })
  }

  /**
   * Listens. A socket that nobody listens to any more is taken over; fails with a message that names the path when
   * another agent listens to it, when something else is there, or when it cannot be made.
   */
  async start(): Promise<void> {
    const { path, group } = this.#options
    const gid = groupId(group)
    const server = createServer({ allowHalfOpen: true }, socket => this.#accept(socket))
    this.#remove = await listenAtPath(server, path, making => share(making, gid, group === undefined))
    server.on('error', error => this.#log.warn(error.message))
    this.#server = server
    this.#log.debug({ socket: path }, `answers at ${path}`)
  }

  /** Lets another group connect; connections that are open stay. Fails with a message when that may not be. */
  changeGroup(group: string | undefined): void {
    if (this.#server === undefined) return
    const gid = groupId(group)
    try {
      // Nobody of the next group before nobody is of the last one.
      chmodSync(this.#options.path, 0o600)
      share(this.#options.path, gid, group === undefined)
    } catch (error) {
      throw new Error(`control.group is taken with the next start: ${(error as Error).message}`)
    }
  }

  /** Closes all connections and removes the socket. May be called twice. */
  stop(): void {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    this.#remove?.()
    server.close()
    for (const connection of this.#connections) connection.close()
    for (const socket of this.#leaving) socket.destroy()
  }

  #accept(socket: Socket): void {
    socket.on('error', () => socket.destroy())
    if (this.#connections.size >= MOST_CONNECTIONS) {
      this.counts.refused++
      this.#turnAway(socket)
      return
    }
    const connection = new Connection(socket, {
      counts: this.counts,
      openTap: this.#options.openTap,
      answer: question => this.#answer(question),
    })
    this.#connections.add(connection)
    this.counts.connections = this.#connections.size
    socket.on('close', () => {
      this.#connections.delete(connection)
      this.counts.connections = this.#connections.size
    })
  }

  /** Says why, and waits for a while that the other end has read it: closed at once, it would be reset. */
  #turnAway(socket: Socket): void {
    if (this.#leaving.size >= MOST_CONNECTIONS) {
      socket.destroy()
      return
    }
    this.#leaving.add(socket)
    socket.on('close', () => this.#leaving.delete(socket))
    socket.setTimeout(LEAVE_MS, () => socket.destroy())
    socket.on('end', () => socket.destroy())
    socket.resume()
    const message = `${MOST_CONNECTIONS} connections are open: no more are taken`
    socket.end(line(undefined, { error: { code: 'too-many', message } satisfies ControlError }))
  }

  #answer(question: Question): unknown {
    const now = performance.now()
    const known = this.#answers.get(question)
    if (known !== undefined && now - known.atMs < ANSWER_MS) return known.value
    const value = this.#options.answer(question)
    this.#answers.set(question, { atMs: now, value })
    return value
  }
}

interface Served {
  readonly counts: ControlCounts
  readonly openTap: TapOpener
  answer(question: Question): unknown
}

class Connection {
  readonly #socket: Socket
  readonly #served: Served
  /** What has come of requests and was not done yet. */
  #text = ''
  #isBusy = false
  #hasEnded = false
  #stream: SampleStream | undefined

  constructor(socket: Socket, served: Served) {
    this.#socket = socket
    this.#served = served
    socket.setEncoding('utf8')
    socket.setTimeout(IDLE_MS, () => {
      if (this.#stream === undefined) this.close()
    })
    socket.on('data', (text: string) => {
      this.#text += text
      this.#schedule()
    })
    socket.on('drain', () => this.#schedule())
    // `echo … | socat -` says all it has to say, and then reads its answers.
    socket.on('end', () => {
      this.#hasEnded = true
      this.#schedule()
    })
    socket.on('close', () => this.#unsubscribe())
  }

  close(): void {
    this.#unsubscribe()
    this.#socket.end()
    this.#socket.destroySoon()
  }

  /** The next request has its turn when those of others and the work of the agent have had theirs. */
  #schedule(): void {
    if (this.#isBusy) return
    this.#isBusy = true
    // What waits to be done is no more than what came at once.
    this.#socket.pause()
    setImmediate(async () => {
      const state = await this.#next()
      this.#isBusy = false
      if (state === 'done' || (state === 'hungry' && this.#hasEnded)) this.#schedule()
      // Not before isBusy is over: what has come meanwhile is told of at once.
      else if (state === 'hungry') this.#socket.resume()
    })
  }

  /** Does the next request; `hungry` when there is none, `waiting` when it cannot be answered now, or never. */
  async #next(): Promise<'done' | 'hungry' | 'waiting'> {
    const socket = this.#socket
    // Goes on with 'drain'.
    if (socket.destroyed || socket.writableLength > WAITING_BYTES) return 'waiting'
    const end = this.#text.indexOf('\n')
    if (Buffer.byteLength(end < 0 ? this.#text : this.#text.slice(0, end)) > REQUEST_BYTES) {
      const message = `a request has at most ${REQUEST_BYTES} bytes`
      this.#refuse(undefined, { code: 'too-long', message })
      this.close()
      return 'waiting'
    }
    if (end < 0) {
      if (!this.#hasEnded) return 'hungry'
      this.close()
      return 'waiting'
    }
    const request = this.#text.slice(0, end).trim()
    this.#text = this.#text.slice(end + 1)
    if (request !== '') await this.#do(request)
    return 'done'
  }

  async #do(text: string): Promise<void> {
    const { counts } = this.#served
    const request = readRequest(text)
    const { id } = request
    counts.requests++
    switch (request.kind) {
      case 'question':
        try {
          this.#send(id, { [request.question]: await this.#served.answer(request.question) })
        } catch (error) {
          this.#refuse(id, { code: 'failed', message: printable((error as Error).message) })
        }
        return
      case 'subscribe':
        if (this.#stream !== undefined) this.#stream.change(request.wanted)
        else if (counts.subscribers >= MOST_SUBSCRIBERS) {
          this.#refuse(id, { code: 'too-many', message: `${MOST_SUBSCRIBERS} subscribe already` })
          return
        } else {
          counts.subscribers++
          this.#stream = new SampleStream(this.#socket, request.wanted, this.#served.openTap, lost => {
            counts.lost += lost
          })
        }
        this.#send(id, { subscribed: request.wanted })
        return
      case 'unsubscribe':
        this.#send(id, { unsubscribed: this.#unsubscribe() })
        return
      case 'refused':
        this.#refuse(id, request.error)
    }
  }

  #refuse(id: unknown, error: ControlError): void {
    this.#served.counts.refused++
    this.#send(id, { error })
  }

  /** The sums of the stream, or null if there was none. */
  #unsubscribe(): unknown {
    const stream = this.#stream
    if (stream === undefined) return null
    this.#stream = undefined
    this.#served.counts.subscribers--
    return stream.end()
  }

  #send(id: unknown, members: Readonly<Record<string, unknown>>): void {
    if (this.#socket.writable) this.#socket.write(line(id, members))
  }
}

/** Node.js does not ask the system's database of groups; /etc/group is where those of services are. */
function groupId(group: string | undefined): number | undefined {
  if (group !== undefined && /^\d+$/.test(group)) return Number(group)
  const name = group ?? DEFAULT_GROUP
  const entry = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .map(text => text.split(':'))
    .find(fields => fields[0] === name)
  const gid = entry?.[2] === undefined ? undefined : Number(entry[2])
  if (gid === undefined && group !== undefined) throw new Error(`control.group: there is no group ${group}`)
  return gid
}

/** Lets the group have a socket that is its owner's. The usual one is a courtesy: whoever may not give it away keeps it. */
function share(path: string, gid: number | undefined, isUsual: boolean): void {
  if (gid === undefined) return
  try {
    openToGroup(path, gid)
  } catch (error) {
    // EINVAL: a user namespace that does not have it (user_namespaces(7)).
    const { code } = error as NodeJS.ErrnoException
    if (!isUsual || (code !== 'EPERM' && code !== 'EINVAL')) throw error
  }
}
