/**
 * Text that is written into one buffer, several bytes at a time, and handed on in large pieces: a million lines make few
 * strings. A store may reach past the end of a word: what comes next is written over it.
 */

/** One word is never longer than this; it is looked for before each. */
const ROOM = 512
/** What a store may reach past the end of a word. */
const SLACK = 16

/** The four digits of each number below 10,000, the first one in the lowest byte. */
const QUADS = Uint32Array.from({ length: 10_000 }, (_, number) => packed(String(number).padStart(4, '0')))
/** Each byte in decimal with a dot behind it, and how long that is. */
const DOTTED = Uint32Array.from({ length: 256 }, (_, byte) => packed(`${byte}.`))
const DOTTED_LENGTH = Uint8Array.from({ length: 256 }, (_, byte) => `${byte}.`.length)
/** Two hexadecimal digits for each byte. */
const HEX = Uint16Array.from({ length: 256 }, (_, byte) => packed(byte.toString(16).padStart(2, '0')))
/** What stands in place of each byte of foreign text. */
const SHOWN = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte < 0x20 || byte > 0x7e || byte === 0x22 ? 0x3f : byte,
)

function packed(text: string): number {
  let word = 0
  for (let i = text.length - 1; i >= 0; i--) word = word * 256 + text.charCodeAt(i)
  return word
}

/** ASCII text that is written often, as words of 8 bytes: no ASCII text has the bits of a NaN, which might be changed. */
export interface Literal {
  readonly length: number
  readonly first: number
  readonly second: number
  readonly words: Float64Array
}

/** Of at most 480 ASCII characters. */
export function literal(text: string): Literal {
  const bytes = new Uint8Array(Math.ceil(text.length / 8) * 8)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  const view = new DataView(bytes.buffer)
  const words = Float64Array.from({ length: bytes.length / 8 }, (_, i) => view.getFloat64(8 * i, true))
  return { length: text.length, first: words[0] ?? 0, second: words[1] ?? 0, words }
}

/** Is given pieces that it may keep until it calls `done`, for ever if it does not. */
export type TextSink = (bytes: Uint8Array, done: () => void) => void

export class TextBuffer {
  readonly #sink: TextSink
  /** Before a word is written, what there is must not be longer. */
  readonly #full: number
  #bytes: Buffer<ArrayBuffer>
  #view: DataView
  #length = 0
  /** Those that were given back. */
  readonly #free: Buffer<ArrayBuffer>[] = []

  constructor(sink: TextSink, bytes = 1 << 17) {
    this.#sink = sink
    this.#full = bytes - ROOM - SLACK
    this.#bytes = Buffer.from(new ArrayBuffer(bytes))
    this.#view = new DataView(this.#bytes.buffer)
  }

  put(text: Literal): void {
    this.#need()
    this.#copy(text)
  }

  /** A literal, and a whole number from 0 to 2^32-1. */
  word(name: Literal, value: number): void {
    this.#need()
    this.#copy(name)
    this.#digits(value)
  }

  /** One ASCII character. */
  character(code: number): void {
    this.#need()
    this.#bytes[this.#length++] = code
  }

  /** ASCII text of at most 480 characters. */
  ascii(text: string): void {
    this.#need()
    const bytes = this.#bytes
    let at = this.#length
    for (let i = 0; i < text.length; i++) bytes[at++] = text.charCodeAt(i)
    this.#length = at
  }

  /** Text of any length and kind, without what a terminal would obey being taken out. */
  text(text: string): void {
    // Of UTF-16 to UTF-8.
    const most = text.length * 3
    if (this.#length + most > this.#full) this.flush()
    if (most > this.#full) this.#sink(Buffer.from(text), () => {})
    else this.#length += this.#bytes.write(text, this.#length)
  }

  /** A whole number from 0 to 2^32-1. */
  number(value: number): void {
    this.#need()
    this.#digits(value)
  }

  /** A whole number from 0 to 999 in three digits. */
  three(value: number): void {
    this.#need()
    this.#view.setUint32(this.#length, QUADS[value]! >>> 8, true)
    this.#length += 3
  }

  /** A big-endian number of 8 bytes. */
  number64(source: Uint8Array, at: number): void {
    const high =
      ((source[at]! << 24) | (source[at + 1]! << 16) | (source[at + 2]! << 8) | source[at + 3]!) >>> 0
    const low =
      ((source[at + 4]! << 24) | (source[at + 5]! << 16) | (source[at + 6]! << 8) | source[at + 7]!) >>> 0
    if (high === 0) this.number(low)
    else this.ascii(((BigInt(high) << 32n) | BigInt(low)).toString())
  }

  /** Hexadecimal digits, `least` of them or more; `least` is even. */
  hex(value: number, least: number): void {
    this.#need()
    let digits = least
    while (digits < 8 && value >>> (4 * digits) !== 0) digits++
    let shift = 4 * digits
    if (digits % 2 === 1) {
      shift -= 4
      // The second digit of what is below 16.
      this.#bytes[this.#length++] = HEX[(value >>> shift) & 15]! >> 8
    }
    while (shift > 0) {
      shift -= 8
      this.#view.setUint16(this.#length, HEX[(value >>> shift) & 255]!, true)
      this.#length += 2
    }
  }

  /** Two digits for each byte; `separator` between them unless it is 0. */
  bytesInHex(source: Uint8Array, from: number, to: number, separator = 0): void {
    const step = separator === 0 ? 2 : 3
    for (let start = from; start < to; start += 64) {
      this.#need()
      const view = this.#view
      let at = this.#length
      for (let i = start; i < Math.min(start + 64, to); i++) {
        view.setUint32(at, HEX[source[i]!]! | (separator << 16), true)
        at += step
      }
      this.#length = at
    }
    if (separator !== 0 && to > from) this.#length--
  }

  /** Dotted decimal for 4 bytes. */
  ip4(source: Uint8Array, at: number): void {
    this.#need()
    let to = this.#length
    for (let i = at; i < at + 4; i++) {
      const byte = source[i]!
      this.#view.setUint32(to, DOTTED[byte]!, true)
      to += DOTTED_LENGTH[byte]!
    }
    this.#length = to - 1
  }

  /**
   * Text from a datagram: printable ASCII as it is, anything else and the quotation mark as one `?` for each byte, so that a
   * terminal has nothing to obey and a line stays a line.
   */
  foreign(source: Uint8Array, from: number, to: number): void {
    for (let start = from; start < to; start += ROOM) {
      this.#need()
      const bytes = this.#bytes
      let at = this.#length
      for (let i = start; i < Math.min(start + ROOM, to); i++) bytes[at++] = SHOWN[source[i]!]!
      this.#length = at
    }
  }

  /** Hands on what there is. */
  flush(): void {
    if (this.#length === 0) return
    const bytes = this.#bytes
    this.#sink(bytes.subarray(0, this.#length), () => void this.#free.push(bytes))
    this.#bytes = this.#free.pop() ?? Buffer.from(new ArrayBuffer(bytes.length))
    this.#view = new DataView(this.#bytes.buffer)
    this.#length = 0
  }

  #copy(text: Literal): void {
    const at = this.#length
    const view = this.#view
    // Most are no longer.
    view.setFloat64(at, text.first, true)
    view.setFloat64(at + 8, text.second, true)
    for (let i = 2; i < text.words.length; i++) view.setFloat64(at + 8 * i, text.words[i]!, true)
    this.#length = at + text.length
  }

  #digits(value: number): void {
    if (value < 10_000) {
      this.#leading(value)
      return
    }
    const high = (value / 10_000) >>> 0
    if (high < 10_000) {
      this.#leading(high)
    } else {
      const top = (high / 10_000) >>> 0
      this.#leading(top)
      this.#four(high - top * 10_000)
    }
    this.#four(value - high * 10_000)
  }

  /** A number below 10,000 without zeros before it. */
  #leading(value: number): void {
    const digits = value < 100 ? (value < 10 ? 1 : 2) : value < 1000 ? 3 : 4
    this.#view.setUint32(this.#length, QUADS[value]! >>> (32 - 8 * digits), true)
    this.#length += digits
  }

  #four(value: number): void {
    this.#view.setUint32(this.#length, QUADS[value]!, true)
    this.#length += 4
  }

  #need(): void {
    if (this.#length > this.#full) this.flush()
  }
}
