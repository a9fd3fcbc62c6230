import { connect, type Socket } from 'node:net'

/**
 * A Unix stream socket whose peer sends frames: whatever a first part of tells how long it is. Waits for nothing; a peer
 * that sends too much or what is no frame is left.
 */

export interface FramedSocketOptions {
  readonly path: string
  /** Length of the frame that begins with these bytes; undefined while they are too few to tell. May throw. */
  readonly lengthOf: (bytes: Uint8Array) => number | undefined
  /** Bytes of a frame at most. */
  readonly maxFrameBytes: number
  /** Bytes that may come until `allowMore()` is called. */
  readonly maxBytes: number
  /** Takes each frame; its bytes are its own. What it throws ends the connection. */
  readonly onFrame: (frame: Uint8Array) => void
  /** The connection is over, by whatever cause. Called once, and not after close(). */
  readonly onEnd: (error: Error) => void
}

export class FramedSocket {
  readonly #options: FramedSocketOptions
  readonly #socket: Socket
  #chunks: Uint8Array[] = []
  #bytes = 0
  /** Bytes that the next frame needs; 0: not known yet. */
  #needed = 0
  #allowance: number
  #isOver = false

  /** Connects; what is sent before that waits. */
  constructor(options: FramedSocketOptions) {
    this.#options = options
    this.#allowance = options.maxBytes
    this.#socket = connect(options.path)
    this.#socket.on('data', chunk => this.#receive(chunk))
    this.#socket.on('error', error => this.#end(error))
    this.#socket.on('close', () => this.#end(new Error('the connection was closed')))
    // It is for those that wait for an answer to keep the process.
    this.#socket.unref()
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes)
  }

  /** What was asked for has come: as many bytes may come again. */
  allowMore(): void {
    this.#allowance = this.#options.maxBytes
  }

  /** May be called twice. */
  close(): void {
    this.#isOver = true
    this.#chunks = []
    this.#socket.destroy()
  }

  #end(error: Error): void {
    if (this.#isOver) return
    this.close()
    this.#options.onEnd(error)
  }

  #receive(chunk: Uint8Array): void {
    if (this.#isOver) return
    this.#allowance -= chunk.length
    if (this.#allowance < 0) {
      this.#end(new Error(`it sends more than ${this.#options.maxBytes} bytes without being asked`))
      return
    }
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    try {
      this.#deliver()
    } catch (error) {
      this.#end(error as Error)
    }
  }

  #deliver(): void {
    const { lengthOf, maxFrameBytes, onFrame } = this.#options
    while (!this.#isOver && this.#bytes > 0 && this.#bytes >= this.#needed) {
      const bytes = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
      const length = lengthOf(bytes)
      if ((length ?? bytes.length) > maxFrameBytes) {
        throw new Error(`it sends a message of more than ${maxFrameBytes} bytes`)
      }
      if (length === undefined || length > bytes.length) {
        this.#chunks = [bytes]
        this.#needed = length ?? 0
        return
      }
      this.#needed = 0
      this.#chunks = [bytes.subarray(length)]
      this.#bytes = bytes.length - length
      onFrame(bytes.subarray(0, length))
    }
  }
}
