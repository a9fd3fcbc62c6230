import { close, constants, fstat, open } from 'node:fs'
import { Socket } from 'node:net'
import type { Ledger, Loss } from '../health/ledger.ts'
import type { Unheard } from '../health/listener.ts'
import { type Logger, RateLimitedLog } from '../health/log.ts'
import { KernelSocket, META, MSG_TRUNC, type ReceiveMemory, SystemError } from '../kernel/native.ts'
import { addressFamily, internetAddress } from '../kernel/sockaddr.ts'
import { type Message, readMessage } from './message.ts'
import { Splitter } from './splitter.ts'

/** Where applications of this host leave their messages: a UDP port of the loopback addresses, and a named pipe. */

export interface FeedOptions {
  /** UDP port on 127.0.0.1 and ::1; undefined or 0 opens none. */
  readonly port: number | undefined
  /** A named pipe that exists; undefined reads none. */
  readonly fifo: string | undefined
  readonly onMessage: (message: Message) => void
  readonly ledger: Ledger
  readonly log: Logger
}

/** Bytes of a message at most, as hsflowd takes them. */
const MESSAGE_BYTES = 10_000
const LOOPBACK = ['127.0.0.1', '::1'] as const
const SLOTS = 32
const SLOT_BYTES = 10_008
const RECEIVE_BYTES = 4 << 20
const SOCK_DGRAM = 2
const SOL_SOCKET = 1
const SO_MEMINFO = 55
const SK_MEMINFO_DROPS = 8
/** Time until a pipe is tried again, and the shortest and longest until a port is. */
const RETRY_MS = 10_000
const PORT_RETRY_MS = 1000
const PORT_RETRY_MOST_MS = 60_000

export class Feed {
  /** Messages read, right or wrong. */
  messages = 0
  readonly #options: FeedOptions
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  readonly #malformed: Loss
  readonly #tooLong: Loss
  readonly #overrun: Loss
  #sockets: { readonly socket: KernelSocket; readonly address: string; drops: number }[] = []
  /** Why nobody is heard at an address. */
  #problems = new Map<string, string>()
  #portRetry: NodeJS.Timeout | undefined
  #portRetryMs = PORT_RETRY_MS
  #pipe: Socket | undefined
  #retry: NodeJS.Timeout | undefined
  #isRunning = false

  constructor(options: FeedOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'json' })
    const loss = (cause: string, text: string) => options.ledger.loss('applications', cause, text)
    this.#malformed = loss(
      'malformed',
      'messages, or parts of them, that are not as they should be; see the log',
    )
    this.#tooLong = loss('message-too-long', `messages of more than ${MESSAGE_BYTES} bytes`)
    this.#overrun = loss('socket-overrun', 'messages that came faster than they were read')
  }

  /** Opens what is configured; what cannot be opened is told of and tried again, and the rest runs. */
  start(): void {
    this.#isRunning = true
    this.#listenAll(true)
    if (this.#options.fifo !== undefined) this.#openPipe(this.#options.fifo)
  }

  /** Tries at once what waits to be tried again. */
  retry(): void {
    this.#listenAll(true)
    const { fifo } = this.#options
    if (fifo === undefined || this.#retry === undefined) return
    clearTimeout(this.#retry)
    this.#openPipe(fifo)
  }

  /** Addresses at which nobody is heard, and why. */
  unheard(): Unheard[] {
    return [...this.#problems.values()].map(problem => ({ name: 'json', problem }))
  }

  /** Listens at the addresses where it does not; `isAsked`: not by itself. */
  #listenAll(isAsked: boolean): void {
    const { port } = this.#options
    if (port === undefined || port === 0) return
    clearTimeout(this.#portRetry)
    if (isAsked) this.#portRetryMs = PORT_RETRY_MS
    for (const address of LOOPBACK) {
      if (this.#sockets.some(one => one.address === address)) continue
      const before = this.#problems.get(address)
      this.#problems.delete(address)
      try {
        this.#listen(address, port)
        if (before !== undefined) this.#log.info(`applications are heard at ${address} port ${port}`)
      } catch (error) {
        if (!(error instanceof SystemError)) throw error
        const { code, message } = error
        // A host without IPv6 lacks nothing that its applications could use.
        const isNoFamily = code === 'EAFNOSUPPORT' || code === 'EADDRNOTAVAIL'
        if (!isNoFamily) this.#problems.set(address, message)
        if (isAsked || message !== before) this.#log[isNoFamily ? 'info' : 'error'](message)
      }
    }
    if (this.#problems.size === 0) return
    this.#portRetry = setTimeout(() => this.#listenAll(false), this.#portRetryMs).unref()
    this.#portRetryMs = Math.min(this.#portRetryMs * 2, PORT_RETRY_MOST_MS)
  }

  /** To be called every second or so: what the sockets lost is counted. */
  poll(): void {
    for (const one of this.#sockets) {
      const info = one.socket.getOption(SOL_SOCKET, SO_MEMINFO, 36, 'read socket statistics')
      const drops = info.getUint32(SK_MEMINFO_DROPS * 4, true)
      this.#overrun.count += (drops - one.drops) >>> 0
      one.drops = drops
    }
  }

  /** May be called twice. */
  stop(): void {
    if (this.#isRunning) this.poll()
    this.#isRunning = false
    clearTimeout(this.#retry)
    clearTimeout(this.#portRetry)
    for (const { socket } of this.#sockets) socket.close()
    this.#sockets = []
    this.#pipe?.destroy()
    this.#pipe = undefined
  }

  #listen(address: string, port: number): void {
    const name = internetAddress(address, port)!
    const socket = KernelSocket.open(`the JSON port on ${address}`, addressFamily(name), SOCK_DGRAM, 0)
    try {
      socket.forceReceiveBuffer(RECEIVE_BYTES)
      socket.bind(name, `listen on ${address} port ${port}`)
      let memory: ReceiveMemory
      memory = socket.receive({ slots: SLOTS, slotBytes: SLOT_BYTES }, count => this.#received(memory, count))
    } catch (error) {
      socket.close()
      throw error
    }
    this.#sockets.push({ socket, address, drops: 0 })
  }

  #received({ memory, meta, dataOffset, dataStride }: ReceiveMemory, count: number): void {
    for (let slot = 0; slot < count; slot++) {
      const at = slot * META.words
      const bytes = meta[at + META.length]!
      if ((meta[at + META.flags]! & MSG_TRUNC) !== 0 || bytes > MESSAGE_BYTES) {
        this.messages++
        this.#tooLong.count++
        continue
      }
      this.#take(Buffer.from(memory, dataOffset + slot * dataStride, bytes).toString('utf8'))
    }
  }

  #take(text: string): void {
    this.messages++
    const { messages, problems } = readMessage(text)
    for (const problem of problems) this.#wrong(problem)
    for (const message of messages) this.#options.onMessage(message)
  }

  #wrong(problem: string): void {
    this.#malformed.count++
    // One line for all: what is wrong can be different in every message.
    this.#limited.line('malformed', held => this.#log.warn({ held }, `message left out: ${problem}`))
  }

  /** Opened for writing too, so that it does not end with each writer; without waiting for one. */
  #openPipe(path: string): void {
    this.#retry = undefined
    open(path, constants.O_RDWR | constants.O_NONBLOCK, (error, descriptor) => {
      if (error !== null) {
        const help = error.code === 'ENOENT' ? `: make it with mkfifo ${path}` : ''
        this.#pipeFailed(path, `${error.message}${help}`)
        return
      }
      fstat(descriptor, (_, stats) => {
        if (stats?.isFIFO() && this.#isRunning) this.#readPipe(path, descriptor)
        else {
          close(descriptor)
          this.#pipeFailed(path, `${path} is not a named pipe`)
        }
      })
    })
  }

  #readPipe(path: string, descriptor: number): void {
    const splitter = new Splitter(
      MESSAGE_BYTES,
      text => this.#take(text),
      what => {
        if (what === 'garbage') this.#wrong('text between messages')
        else this.#tooLong.count++
      },
    )
    const pipe = new Socket({ fd: descriptor, readable: true, writable: false })
    this.#pipe = pipe
    pipe.on('data', bytes => splitter.take(bytes))
    pipe.on('error', error => this.#pipeFailed(path, error.message))
    this.#log.info(`applications are heard through ${path}`)
  }

  #pipeFailed(path: string, text: string): void {
    this.#pipe?.destroy()
    this.#pipe = undefined
    if (!this.#isRunning) return
    this.#limited.line(`pipe ${text}`, held => this.#log.warn({ held }, text))
    this.#retry = setTimeout(() => this.#openPipe(path), RETRY_MS)
  }
}
