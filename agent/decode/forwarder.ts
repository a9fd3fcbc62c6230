import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'

/** Where datagrams are passed on to. */
export interface Target {
  readonly host: string
  readonly port: number
}

/** Datagrams that may wait in the system for one target before the input has to wait. */
const MOST_PENDING = 256

/** Passes datagrams on, byte for byte, to other collectors; they come from this machine, the agent is named inside. */
export class Forwarder {
  readonly target: Target
  sent = 0
  failed = 0
  /** The last error, if there was one. */
  problem: string | undefined
  readonly #socket: Socket
  #pending = 0
  #wake: (() => void) | undefined

  private constructor(target: Target, socket: Socket) {
    this.target = target
    this.#socket = socket
    // An ICMP error of an earlier datagram; the collector may be back for the next one.
    socket.on('error', error => this.#failed(error))
  }

  /** Opens a socket to the target; a name is looked up once. Fails with an error of the system. */
  static async open(target: Target): Promise<Forwarder> {
    const { lookup } = await import('node:dns/promises')
    const { address, family } = await lookup(target.host)
    const socket = createSocket(family === 6 ? 'udp6' : 'udp4')
    socket.connect(target.port, address)
    await once(socket, 'connect')
    return new Forwarder(target, socket)
  }

  /** Sends the bytes, which must not change until the next ready(). */
  send(bytes: Uint8Array): void {
    this.#pending++
    this.#socket.send(bytes, error => {
      this.#pending--
      if (error === null) this.sent++
      else this.#failed(error)
      if (this.#pending === 0) this.#wake?.()
    })
  }

  /** Resolves when more may be sent. */
  async ready(): Promise<void> {
    if (this.#pending >= MOST_PENDING) await this.#drained()
  }

  /** Waits for what is on its way. */
  async close(): Promise<void> {
    if (this.#pending > 0) await this.#drained()
    this.#socket.close()
  }

  #drained(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = () => {
        this.#wake = undefined
        resolve()
      }
    })
  }

  #failed(error: Error): void {
    this.failed++
    this.problem = error.message
  }
}
