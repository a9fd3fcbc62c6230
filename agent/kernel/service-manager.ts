import { KernelSocket } from './native.ts'

/**
 * Talks to the service manager that started the agent, by the protocol of sd_notify(3): one datagram of lines
 * NAME=VALUE each to the socket that $NOTIFY_SOCKET names. Without one nothing is said.
 */

const AF_UNIX = 1
const SOCK_DGRAM = 2
/** Bytes of sun_path (unix(7)). */
const MOST_PATH_BYTES = 108

export class ServiceManager {
  readonly #socket: KernelSocket | undefined
  #watchdog: NodeJS.Timeout | undefined

  /** Takes what it needs out of the environment, so that no other process speaks for this one. */
  constructor(environment: NodeJS.ProcessEnv = process.env) {
    const { NOTIFY_SOCKET: path, WATCHDOG_USEC: interval, WATCHDOG_PID: pid } = environment
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete environment[name]
    if (path === undefined || path === '') return
    this.#socket = KernelSocket.open('socket to the service manager', AF_UNIX, SOCK_DGRAM, 0)
    this.#socket.connect(unixAddress(path), `connect to ${path}`)
    if (interval !== undefined && (pid === undefined || Number(pid) === process.pid)) {
      // Twice as often as is asked for, as sd_watchdog_enabled(3) recommends. That the timer runs shows that the event
      // loop does, on which everything else depends.
      this.#watchdog = setInterval(() => this.#say('WATCHDOG=1'), Number(interval) / 2000).unref()
    }
  }

  /** The agent runs; `status` is a line for people. */
  ready(status: string): void {
    this.#say(`READY=1\nSTATUS=${status}`)
  }

  /** The configuration is being taken again; ready() says that it has been. */
  reloading(): void {
    this.#say(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`)
  }

  stopping(): void {
    clearInterval(this.#watchdog)
    this.#say('STOPPING=1')
  }

  close(): void {
    clearInterval(this.#watchdog)
    this.#socket?.close()
  }

  /** A manager that does not listen is no reason to end. */
  #say(text: string): void {
    if (this.#socket === undefined) return
    const bytes = new TextEncoder().encode(text)
    this.#socket.sendBatch(bytes.buffer, Int32Array.of(0, bytes.length), 0, 1)
  }
}

/** struct sockaddr_un: family in host order, path. A name that begins with @ is one without a file: a zero byte for it. */
export function unixAddress(path: string): Uint8Array {
  const name = new TextEncoder().encode(path)
  if (name.length >= MOST_PATH_BYTES) throw new Error(`${path} is too long for the path of a socket`)
  const isAbstract = path.startsWith('@')
  const bytes = new Uint8Array(2 + name.length + (isAbstract ? 0 : 1))
  bytes[0] = AF_UNIX
  bytes.set(name, 2)
  if (isAbstract) bytes[2] = 0
  return bytes
}
