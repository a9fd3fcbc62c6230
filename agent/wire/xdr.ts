/**
 * XDR (RFC 4506) in bounds: a writer that fills a part of a buffer, a reader that knows where it is. Everything
 * is big-endian and a multiple of 4 bytes.
 */

/** What went wrong. The first group is found while reading, the second while writing. */
export type WireErrorCode =
  | 'truncated' // a field reaches past the end of its container
  | 'version' // not sFlow version 5
  | 'length' // a sample or record is longer than what contains it
  | 'count' // an array cannot have that many elements in the bytes that are left
  | 'address-type' // neither unknown, IPv4 nor IPv6
  | 'discriminant' // a union of unknown type
  | 'format' // a capture of unknown form
  | 'space' // the buffer is full
  | 'value' // the value cannot be written as this field

/** A failure at a byte offset. `path` leads from the datagram to the structure; the message contains both. */
export class WireError extends Error {
  override readonly name = 'WireError'
  readonly code: WireErrorCode
  /** Bytes from the start of the datagram, taken before the field was read or written. */
  readonly offset: number
  readonly path: readonly string[]

  constructor(code: WireErrorCode, text: string, offset: number, path: readonly string[] = []) {
    super(located(text, offset, path))
    this.code = code
    this.offset = offset
    this.path = path
  }
}

/** `in datagram: in flow_sample 3: header needs 128 bytes, 96 left at byte offset 212` */
export function located(text: string, offset: number, path: readonly string[]): string {
  return `${path.map(step => `in ${step}: `).join('')}${text} at byte offset ${offset}`
}

/** Bytes that `length` bytes take with their padding. */
export function padded(length: number): number {
  return (length + 3) & ~3
}

/** Writes at `offset` and never at or past `end`; the rest of the buffer is left alone. */
export class Writer {
  readonly view: DataView
  readonly end: number
  /** Where the next field goes, in bytes from the start of the view. */
  offset: number

  constructor(view: DataView, offset = 0, end = view.byteLength) {
    this.view = view
    this.offset = offset
    this.end = end
  }

  u32(value: number, name: string): void {
    this.view.setUint32(this.#advance(4, name), value)
  }

  u64(value: bigint, name: string): void {
    this.view.setBigUint64(this.#advance(8, name), value)
  }

  f32(value: number, name: string): void {
    this.view.setFloat32(this.#advance(4, name), value)
  }

  f64(value: number, name: string): void {
    this.view.setFloat64(this.#advance(8, name), value)
  }

  /** The bytes, then zero bytes up to the next multiple of 4. */
  bytes(value: Uint8Array, name: string): void {
    const at = this.#advance(padded(value.length), name)
    const target = new Uint8Array(this.view.buffer, this.view.byteOffset + at, padded(value.length))
    target.set(value)
    target.fill(0, value.length)
  }

  /** The first `length` characters, which are ASCII, then zero bytes up to the next multiple of 4. */
  ascii(value: string, length: number, name: string): void {
    const at = this.#advance(padded(length), name)
    for (let i = 0; i < length; i++) this.view.setUint8(at + i, value.charCodeAt(i))
    for (let i = at + length; i < this.offset; i++) this.view.setUint8(i, 0)
  }

  fail(code: WireErrorCode, text: string): WireError {
    return new WireError(code, text, this.offset)
  }

  #advance(count: number, name: string): number {
    const at = this.offset
    if (count > this.end - at) throw this.fail('space', `${name} needs ${count} bytes, ${this.end - at} left`)
    this.offset = at + count
    return at
  }
}

/** What a decoder has to say about a datagram that it could read nevertheless. */
export interface Problem {
  /** `error`: the structure at this place could not be read. `warning`: it could, but is not as it should be. */
  readonly severity: 'error' | 'warning'
  readonly code: string
  /** Bytes from the start of the datagram. */
  readonly offset: number
  readonly path: readonly string[]
  readonly message: string
}

const NO_PATH: readonly string[] = []

/**
 * Reads fields one after another. Offsets are those of the whole datagram also in a part of it, because a part
 * is a window on the same bytes. Byte fields are views of the input, not copies.
 */
export class Reader {
  /** Collected by this reader and all its parts. */
  readonly problems: Problem[]
  readonly end: number
  offset: number
  readonly #bytes: Uint8Array
  readonly #view: DataView
  /** Of a part put together only when it is asked for: hardly any datagram is wrong. */
  #path: readonly string[] | undefined
  #whole: Reader | undefined
  #step = ''

  constructor(
    bytes: Uint8Array,
    path: readonly string[] = NO_PATH,
    offset = 0,
    end = bytes.length,
    problems: Problem[] = [],
    view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  ) {
    this.#bytes = bytes
    this.#view = view
    this.#path = path
    this.offset = offset
    this.end = end
    this.problems = problems
  }

  get path(): readonly string[] {
    this.#path ??= [...this.#whole!.path, this.#step]
    return this.#path
  }

  get left(): number {
    return this.end - this.offset
  }

  /** A reader for the bytes from here to `end`, one step deeper in the path. This reader stays where it is. */
  part(step: string, end: number): Reader {
    const part = new Reader(this.#bytes, undefined, this.offset, end, this.problems, this.#view)
    part.#path = undefined
    part.#whole = this
    part.#step = step
    return part
  }

  u32(name: string): number {
    return this.#view.getUint32(this.#advance(4, name))
  }

  i32(name: string): number {
    return this.#view.getInt32(this.#advance(4, name))
  }

  u64(name: string): bigint {
    return this.#view.getBigUint64(this.#advance(8, name))
  }

  f32(name: string): number {
    return this.#view.getFloat32(this.#advance(4, name))
  }

  f64(name: string): number {
    return this.#view.getFloat64(this.#advance(8, name))
  }

  /** `count` bytes, then their padding. At the end of a structure of unaligned length the padding may lack. */
  bytes(count: number, name: string): Uint8Array {
    const at = this.#advance(count, name)
    const end = this.offset
    this.offset = Math.min(at + padded(count), this.end)
    for (let pad = end; pad < this.offset; pad++) {
      if (this.#bytes[pad] !== 0) {
        this.warn('padding', `${name} has padding other than zero`, pad)
        break
      }
    }
    return this.#bytes.subarray(at, end)
  }

  /** Everything that is left, without any interpretation. */
  rest(): Uint8Array {
    const at = this.offset
    this.offset = this.end
    return this.#bytes.subarray(at, this.end)
  }

  fail(code: WireErrorCode, text: string, offset: number): WireError {
    return new WireError(code, text, offset, this.path)
  }

  warn(code: string, text: string, offset: number): void {
    const { path } = this
    this.problems.push({ severity: 'warning', code, offset, path, message: located(text, offset, path) })
  }

  #advance(count: number, name: string): number {
    const at = this.offset
    if (count > this.end - at) {
      throw this.fail('truncated', `${name} needs ${count} bytes, ${this.end - at} left`, at)
    }
    this.offset = at + count
    return at
  }
}
