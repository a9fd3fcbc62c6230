/** Text that is written byte by byte into one buffer and handed on in large pieces: a million lines make few strings. */

const DIGITS = Uint8Array.from('0123456789abcdef', digit => digit.charCodeAt(0))
/** Two decimal digits for each number below 100. */
const PAIRS = Uint8Array.from({ length: 200 }, (_, i) => {
  const number = i >> 1
  return 48 + (i % 2 === 0 ? Math.floor(number / 10) : number % 10)
})
/** One word is never longer than this; it is looked for before each. */
const ROOM = 512

/** ASCII text that is written often, as bytes: they are copied faster than characters. */
export function literal(text: string): Uint8Array {
  return Uint8Array.from(text, character => character.charCodeAt(0))
}

export class TextBuffer {
  readonly #sink: (bytes: Uint8Array) => void
  readonly #bytes: Uint8Array
  #length = 0

  /** `sink` is given pieces that it may keep. */
  constructor(sink: (bytes: Uint8Array) => void, bytes = 1 << 18) {
    this.#sink = sink
    this.#bytes = new Uint8Array(bytes)
  }

  /** A literal of at most 480 characters. */
  put(text: Uint8Array): void {
    this.#need()
    this.#copy(text)
  }

  /** A literal, and a whole number from 0 to 2^32-1. */
  word(name: Uint8Array, value: number): void {
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
    const encoded = Buffer.from(text)
    if (encoded.length > ROOM) {
      this.flush()
      this.#sink(encoded)
      return
    }
    this.#need()
    this.#bytes.set(encoded, this.#length)
    this.#length += encoded.length
  }

  /** A whole number from 0 to 2^32-1. */
  number(value: number): void {
    this.#need()
    this.#digits(value)
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

  /** Hexadecimal digits, `least` of them or more. */
  hex(value: number, least: number): void {
    this.#need()
    let digits = least
    while (digits < 8 && value >>> (4 * digits) !== 0) digits++
    for (let shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
      this.#bytes[this.#length++] = DIGITS[(value >>> shift) & 15]!
    }
  }

  /** Two digits for each byte; `separator` between them unless it is 0. */
  bytesInHex(source: Uint8Array, from: number, to: number, separator = 0): void {
    const bytes = this.#bytes
    for (let i = from; i < to; i++) {
      if ((i & 63) === 0 || i === from) this.#need()
      if (separator !== 0 && i > from) bytes[this.#length++] = separator
      bytes[this.#length++] = DIGITS[source[i]! >> 4]!
      bytes[this.#length++] = DIGITS[source[i]! & 15]!
    }
  }

  /** Dotted decimal for 4 bytes. */
  ip4(source: Uint8Array, at: number): void {
    this.#need()
    const bytes = this.#bytes
    let to = this.#length
    for (let i = 0; i < 4; i++) {
      const value = source[at + i]!
      if (value >= 100) {
        const hundreds = value >= 200 ? 2 : 1
        const pair = (value - hundreds * 100) * 2
        bytes[to++] = 48 + hundreds
        bytes[to++] = PAIRS[pair]!
        bytes[to++] = PAIRS[pair + 1]!
      } else if (value >= 10) {
        bytes[to++] = PAIRS[value * 2]!
        bytes[to++] = PAIRS[value * 2 + 1]!
      } else {
        bytes[to++] = 48 + value
      }
      if (i < 3) bytes[to++] = 46
    }
    this.#length = to
  }

  /**
   * Text from a datagram: printable ASCII as it is, anything else and the quotation mark as one `?` for each byte, so that a
   * terminal has nothing to obey and a line stays a line.
   */
  foreign(source: Uint8Array, from: number, to: number): void {
    for (let i = from; i < to; i++) {
      if ((i & 63) === 0 || i === from) this.#need()
      const byte = source[i]!
      this.#bytes[this.#length++] = byte < 0x20 || byte > 0x7e || byte === 0x22 ? 0x3f : byte
    }
  }

  /** Hands on what there is. */
  flush(): void {
    if (this.#length === 0) return
    this.#sink(this.#bytes.slice(0, this.#length))
    this.#length = 0
  }

  #copy(text: Uint8Array): void {
    const bytes = this.#bytes
    let at = this.#length
    for (let i = 0; i < text.length; i++) bytes[at++] = text[i]!
    this.#length = at
  }

  #digits(value: number): void {
    const bytes = this.#bytes
    if (value < 10) {
      bytes[this.#length++] = 48 + value
      return
    }
    const count = decimals(value)
    let at = this.#length + count
    this.#length = at
    let left = value
    while (left >= 100) {
      const quotient = Math.floor(left / 100)
      const pair = (left - quotient * 100) * 2
      bytes[--at] = PAIRS[pair + 1]!
      bytes[--at] = PAIRS[pair]!
      left = quotient
    }
    if (left >= 10) {
      bytes[--at] = PAIRS[left * 2 + 1]!
      bytes[--at] = PAIRS[left * 2]!
    } else {
      bytes[--at] = 48 + left
    }
  }

  #need(): void {
    if (this.#length + ROOM > this.#bytes.length) this.flush()
  }
}

function decimals(value: number): number {
  if (value < 100) return value < 10 ? 1 : 2
  if (value < 10_000) return value < 1000 ? 3 : 4
  if (value < 1_000_000) return value < 100_000 ? 5 : 6
  if (value < 100_000_000) return value < 10_000_000 ? 7 : 8
  return value < 1_000_000_000 ? 9 : 10
}
