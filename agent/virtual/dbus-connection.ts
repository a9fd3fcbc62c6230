import {
  DBUS_MESSAGE,
  type DbusValue,
  dbusMessageLength,
  readDbusMessage,
  writeDbusMessage,
} from '../wire/dbus.ts'
import { FramedSocket } from './framed-socket.ts'
import { PendingCalls } from './pending-calls.ts'

/** A client of a D-Bus message bus: calls with their answers. Every call has a time limit, and nothing else is taken. */

/** An answer that is an error of the peer's. */
export class DbusError extends Error {
  /** As `org.freedesktop.DBus.Error.UnknownMethod`. */
  readonly dbusName: string

  constructor(member: string, dbusName: string, text: string) {
    super(`${member}: ${text === '' ? dbusName : text}`)
    this.name = 'DbusError'
    this.dbusName = dbusName
  }
}

export interface DbusCall {
  readonly destination: string
  readonly path: string
  readonly interface: string
  readonly member: string
  /** Of `body`. */
  readonly signature?: string
  readonly body?: readonly DbusValue[]
  /** Signature that the answer has to have. */
  readonly returns: string
}

/** A list of ten thousand units is three megabytes. */
const MAX_MESSAGE_BYTES = 8 << 20
const MAX_BYTES = 32 << 20
const MAX_LINE_BYTES = 4096

const BUS = {
  destination: 'org.freedesktop.DBus',
  path: '/org/freedesktop/DBus',
  interface: 'org.freedesktop.DBus',
} as const

export class DbusConnection {
  readonly #timeoutMs: number
  readonly #socket: FramedSocket
  readonly #calls: PendingCalls<DbusCall, readonly DbusValue[]>
  /** Lines are exchanged until the bus knows who we are. */
  #authenticated: (() => void) | undefined
  #refused: ((error: Error) => void) | undefined
  #isOpen = false

  /** Connects, says who we are (AUTH EXTERNAL: the kernel tells the bus our user) and says hello. */
  static async open(path: string, timeoutMs: number): Promise<DbusConnection> {
    const connection = new DbusConnection(path, timeoutMs)
    try {
      await connection.#authenticate()
      await connection.call({ ...BUS, member: 'Hello', returns: 's' })
      return connection
    } catch (error) {
      connection.close()
      throw error
    }
  }

  private constructor(path: string, timeoutMs: number) {
    this.#timeoutMs = timeoutMs
    this.#calls = new PendingCalls(timeoutMs)
    this.#socket = new FramedSocket({
      path,
      lengthOf: bytes => (this.#isOpen ? dbusMessageLength(bytes) : lineLength(bytes)),
      maxFrameBytes: MAX_MESSAGE_BYTES,
      maxBytes: MAX_BYTES,
      onFrame: frame => (this.#isOpen ? this.#receive(frame) : this.#receiveLine(frame)),
      onEnd: error => this.#end(error),
    })
  }

  /** True until the connection has ended. */
  get isOpen(): boolean {
    return this.#isOpen && this.#calls.error === undefined
  }

  /** The values of the answer. Rejects with DbusError when the answer is an error. */
  call(call: DbusCall): Promise<readonly DbusValue[]> {
    const { destination, path, interface: name, member, signature = '', body = [] } = call
    const type = DBUS_MESSAGE.methodCall
    const message = { type, destination, path, interface: name, member, signature, body }
    return this.#calls.add(member, call, serial =>
      this.#socket.send(writeDbusMessage({ ...message, serial })),
    )
  }

  /** Calls that wait are rejected. May be called twice. */
  close(): void {
    this.#socket.close()
    this.#end(new Error('the connection was closed'))
  }

  #authenticate(): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`no answer within ${this.#timeoutMs} ms`))
      }, this.#timeoutMs)
      this.#authenticated = () => {
        clearTimeout(timer)
        resolve()
      }
      this.#refused = error => {
        clearTimeout(timer)
        reject(error)
      }
      const user = Buffer.from(String(process.getuid!())).toString('hex')
      this.#socket.send(Buffer.from(`\0AUTH EXTERNAL ${user}\r\n`))
    })
  }

  #receiveLine(frame: Uint8Array): void {
    const line = Buffer.from(frame).toString('latin1').trim()
    if (!line.startsWith('OK ')) {
      throw new Error(`it does not accept us: it answers ${JSON.stringify(line.slice(0, 80))}`)
    }
    this.#socket.send(Buffer.from('BEGIN\r\n'))
    this.#isOpen = true
    this.#authenticated?.()
  }

  #receive(frame: Uint8Array): void {
    const message = readDbusMessage(frame)
    const { type, replySerial } = message
    if (type !== DBUS_MESSAGE.methodReturn && type !== DBUS_MESSAGE.error) return
    const waiting = replySerial === undefined ? undefined : this.#calls.take(replySerial)
    if (waiting === undefined) return
    this.#socket.allowMore()
    const { member, returns } = waiting.call
    if (type === DBUS_MESSAGE.error) {
      const text = typeof message.body[0] === 'string' ? message.body[0] : ''
      waiting.reject(new DbusError(member, message.errorName ?? 'an error without a name', text))
    } else if (message.signature !== returns) {
      const got = message.signature.slice(0, 80)
      waiting.reject(
        new Error(`${member}: expected an answer of type ${returns}, got ${JSON.stringify(got)}`),
      )
    } else {
      waiting.resolve(message.body)
    }
  }

  #end(error: Error): void {
    this.#refused?.(error)
    this.#calls.fail(error)
  }
}

function lineLength(bytes: Uint8Array): number | undefined {
  const end = bytes.indexOf(0x0a)
  if (end < 0 && bytes.length > MAX_LINE_BYTES) throw new Error('it sends no line where D-Bus has lines')
  return end < 0 ? undefined : end + 1
}
