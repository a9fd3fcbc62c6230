import type { ClientHttp2Session } from 'node:http2'
import { connect } from 'node:net'
import { ProtobufMessage } from '../wire/protobuf.ts'

/** Calls of gRPC services with one request and one answer, over a Unix socket (gRPC over HTTP/2). */

/** Flag and length before each message. */
const PREFIX_BYTES = 5
const UNIMPLEMENTED = 12
const NOT_FOUND = 5
/** Error code of HTTP/2: the stream is not needed any more. */
const CANCEL = 8

/** An answer that is a status other than 0. */
export class GrpcError extends Error {
  readonly status: number

  constructor(method: string, status: number, text: string) {
    super(`${method}: ${text === '' ? `status ${status}` : text}`)
    this.name = 'GrpcError'
    this.status = status
  }

  /** The server does not have this service. */
  get isUnimplemented(): boolean {
    return this.status === UNIMPLEMENTED
  }

  /** What was asked for is gone. */
  get isNotFound(): boolean {
    return this.status === NOT_FOUND
  }
}

export class GrpcClient {
  readonly #path: string
  readonly #timeoutMs: number
  readonly #maxBytes: number
  #session: ClientHttp2Session | undefined

  constructor(path: string, timeoutMs: number, maxBytes: number) {
    this.#path = path
    this.#timeoutMs = timeoutMs
    this.#maxBytes = maxBytes
  }

  /**
   * Calls a method, as `/runtime.v1.RuntimeService/ListContainers`; connects when there is no connection. `metadata`
   * are headers of the call. Rejects with GrpcError when the answer is a status other than 0.
   */
  call(
    method: string,
    message: Uint8Array,
    metadata: Readonly<Record<string, string>> = {},
  ): Promise<ProtobufMessage> {
    return new Promise((resolve, reject) => {
      const session = this.#connected()
      // The session does not hear of it when a connection fails before the first exchange.
      session.once('error', reject)
      const name = method.slice(method.lastIndexOf('/') + 1)
      const stream = session.request({
        ...metadata,
        ':method': 'POST',
        ':path': method,
        'content-type': 'application/grpc',
        te: 'trailers',
      })
      const timer = setTimeout(
        () => fail(new Error(`${name}: no answer within ${this.#timeoutMs} ms`)),
        this.#timeoutMs,
      )
      const settle = () => {
        clearTimeout(timer)
        session.off('error', reject)
      }
      const fail = (error: Error) => {
        settle()
        stream.close(CANCEL)
        reject(error)
      }
      let status: number | undefined
      let text = ''
      const readStatus = (headers: Record<string, unknown>) => {
        const given = headers['grpc-status']
        if (given === undefined) return
        status = Number(given)
        text = decodeText(String(headers['grpc-message'] ?? ''))
      }
      stream.on('response', headers => {
        const http = headers[':status']
        if (http !== 200) fail(new Error(`${name}: HTTP status ${http}`))
        readStatus(headers)
      })
      stream.on('trailers', readStatus)
      const chunks: Buffer[] = []
      let bytes = 0
      stream.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > this.#maxBytes) fail(new Error(`${name}: an answer of more than ${this.#maxBytes} bytes`))
        else chunks.push(chunk)
      })
      // A stream that is cancelled with its connection tells why that ended.
      stream.on('error', error => fail(error.cause instanceof Error ? error.cause : error))
      stream.on('close', () => {
        settle()
        if (status === undefined) reject(new Error(`${name}: the answer was cut off`))
        else if (status !== 0) reject(new GrpcError(name, status, text))
        else {
          try {
            resolve(readAnswer(Buffer.concat(chunks)))
          } catch (error) {
            reject(new Error(`${name}: ${(error as Error).message}`))
          }
        }
      })
      stream.end(withPrefix(message))
    })
  }

  /** May be called twice; a call afterwards connects anew. */
  close(): void {
    this.#session?.destroy()
    this.#session = undefined
  }

  #connected(): ClientHttp2Session {
    const before = this.#session
    if (before !== undefined && !before.closed && !before.destroyed) return before
    // Loaded here because it costs ten megabytes of memory, and most agents do without.
    const { connect: connectHttp2 } = process.getBuiltinModule('node:http2')
    const session = connectHttp2('http://localhost', { createConnection: () => connect(this.#path) })
    // Calls under way tell of it.
    session.on('error', () => {})
    session.on('close', () => {
      if (this.#session === session) this.#session = undefined
    })
    session.unref()
    this.#session = session
    return session
  }
}

function withPrefix(message: Uint8Array): Buffer {
  const bytes = Buffer.alloc(PREFIX_BYTES + message.length)
  bytes.writeUInt32BE(message.length, 1)
  bytes.set(message, PREFIX_BYTES)
  return bytes
}

function readAnswer(bytes: Buffer): ProtobufMessage {
  if (bytes.length < PREFIX_BYTES || bytes.length < PREFIX_BYTES + bytes.readUInt32BE(1)) {
    throw new Error('the answer is not complete')
  }
  if (bytes[0] !== 0) throw new Error('the answer is compressed, and was not asked to be')
  return new ProtobufMessage(bytes.subarray(PREFIX_BYTES, PREFIX_BYTES + bytes.readUInt32BE(1)))
}

/** Messages of a status are written with percent signs; a terminal should get no control characters of them. */
function decodeText(text: string): string {
  try {
    return decodeURIComponent(text).slice(0, 500)
  } catch {
    return text.slice(0, 500)
  }
}
