/**
 * Finds the JSON objects in a stream of bytes that has nothing else to tell them apart: each ends with the brace that
 * closes it. Bytes between objects are white space, or are counted as garbage up to the next brace.
 */
export class Splitter {
  readonly #most: number
  readonly #onObject: (text: string) => void
  readonly #onWrong: (what: 'garbage' | 'too-long') => void
  #object: Buffer
  #length = 0
  #depth = 0
  #inText = false
  #escaped = false
  #inGarbage = false
  /** The object is too long: it is counted and left out. */
  #tooLong = false

  /** `most`: bytes of an object at most. */
  constructor(
    most: number,
    onObject: (text: string) => void,
    onWrong: (what: 'garbage' | 'too-long') => void,
  ) {
    this.#most = most
    this.#onObject = onObject
    this.#onWrong = onWrong
    this.#object = Buffer.alloc(most)
  }

  take(bytes: Uint8Array): void {
    for (const byte of bytes) this.#take(byte)
  }

  #take(byte: number): void {
    if (this.#depth === 0) {
      if (byte === OPEN) this.#begin()
      else if (!isSpace(byte)) {
        if (!this.#inGarbage) this.#onWrong('garbage')
        this.#inGarbage = true
        return
      } else return
    } else if (this.#inText) {
      if (this.#escaped) this.#escaped = false
      else if (byte === BACKSLASH) this.#escaped = true
      else if (byte === QUOTE) this.#inText = false
    } else if (byte === QUOTE) this.#inText = true
    else if (byte === OPEN) this.#depth++
    else if (byte === CLOSE) this.#depth--

    if (this.#length < this.#most) this.#object[this.#length++] = byte
    else if (!this.#tooLong) {
      this.#tooLong = true
      this.#onWrong('too-long')
    }
    // An object that never ends would swallow all that follow: a line's end is where writers begin anew.
    if (this.#tooLong && byte === NEWLINE) this.#depth = 0
    else if (this.#depth === 0 && !this.#tooLong)
      this.#onObject(this.#object.toString('utf8', 0, this.#length))
  }

  #begin(): void {
    this.#depth = 1
    this.#length = 0
    this.#inText = false
    this.#escaped = false
    this.#inGarbage = false
    this.#tooLong = false
  }
}

const OPEN = 0x7b
const CLOSE = 0x7d
const QUOTE = 0x22
const BACKSLASH = 0x5c
const NEWLINE = 0x0a

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d)
}
