import {
  LIBVIRT_PROCEDURE,
  LIBVIRT_PROGRAM,
  LIBVIRT_STATUS,
  LIBVIRT_TYPE,
  libvirtArguments,
  libvirtMessageLength,
  libvirtText,
  readLibvirtError,
  readLibvirtMessage,
  writeLibvirtCall,
} from '../wire/libvirt.ts'
import type { Reader } from '../wire/xdr.ts'
import { FramedSocket } from './framed-socket.ts'
import { PendingCalls } from './pending-calls.ts'

/** A read-only client of a libvirt daemon: calls with their answers, each within a time limit. */

const MAX_BYTES = 32 << 20
const MAX_MESSAGE_BYTES = 16 << 20
/** VIR_CONNECT_RO */
const READ_ONLY = 1
const AUTH_NONE = 0

export class LibvirtConnection {
  readonly #socket: FramedSocket
  readonly #calls: PendingCalls<string, Reader>

  /** Connects and opens a driver, as `qemu:///system`. */
  static async open(
    path: string,
    timeoutMs: number,
    uri: string,
    flags = READ_ONLY,
  ): Promise<LibvirtConnection> {
    const connection = new LibvirtConnection(path, timeoutMs)
    try {
      const kinds = await connection.call(LIBVIRT_PROCEDURE.authList, 'authentication', new Uint8Array())
      if (kinds.u32('kinds') > 0 && kinds.u32('kind') !== AUTH_NONE) {
        throw new Error('it asks for a password, which weir has not; its read-only socket needs none')
      }
      const hasName = 1
      const args = libvirtArguments(hasName, libvirtText(uri), flags)
      await connection.call(LIBVIRT_PROCEDURE.connectOpen, `open ${uri}`, args)
      return connection
    } catch (error) {
      connection.close()
      throw error
    }
  }

  private constructor(path: string, timeoutMs: number) {
    this.#calls = new PendingCalls(timeoutMs)
    this.#socket = new FramedSocket({
      path,
      lengthOf: libvirtMessageLength,
      maxFrameBytes: MAX_MESSAGE_BYTES,
      maxBytes: MAX_BYTES,
      onFrame: frame => this.#receive(frame),
      onEnd: error => this.#calls.fail(error),
    })
  }

  /** True until the connection has ended. */
  get isOpen(): boolean {
    return this.#calls.error === undefined
  }

  /** The body of the answer. `name` is for errors. */
  call(procedure: number, name: string, args: Uint8Array): Promise<Reader> {
    return this.#calls.add(name, name, serial => this.#socket.send(writeLibvirtCall(procedure, serial, args)))
  }

  /** Calls that wait are rejected. May be called twice. */
  close(): void {
    this.#socket.close()
    this.#calls.fail(new Error('the connection was closed'))
  }

  #receive(frame: Uint8Array): void {
    const { program, type, serial, status, body } = readLibvirtMessage(frame)
    // Events, and signs of life.
    if (program !== LIBVIRT_PROGRAM || type !== LIBVIRT_TYPE.reply) return
    // Read before the call is taken: what cannot be read ends the connection, and with it all calls.
    const refusal = status === LIBVIRT_STATUS.ok ? undefined : readLibvirtError(body)
    const waiting = this.#calls.take(serial)
    if (waiting === undefined) return
    this.#socket.allowMore()
    if (refusal === undefined) waiting.resolve(body)
    else waiting.reject(new Error(`${waiting.call}: ${refusal}`))
  }
}
