import { open } from 'node:fs/promises'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { inTurns } from '../turns.ts'

/**
 * The functions of the running kernel by their addresses, from /proc/kallsyms: for each line address, type and name, and
 * for those of modules the module in brackets. The file is made while it is read, a page at a time, which takes a tenth
 * of a second: it is read by the thread pool, and looked at page by page.
 */

/** Types of functions; the others are data. */
const FUNCTION_TYPES = new Set([...'tTwW'].map(type => type.charCodeAt(0)))
const ADDRESS_DIGITS = 16
const CHUNK_BYTES = 65_536
const NEWLINE = 10
const UNDERSCORE = 0x5f
/** Of an address, so many of the upper 32 bits are kept: in those above, all of the kernel's are alike. */
const HIGH_MASK = 0x1f_ffff
/**
 * Nothing this far behind the beginning of a function belongs to it: an address there is that of a module which has been
 * loaded since.
 */
const MOST_FUNCTION_BYTES = 1 << 15
/**
 * Begins the name of the padding before a function (CONFIG_PREFIX_SYMBOLS), which is half of all names. It ends the function
 * before, and nothing runs in it.
 */
const PADDING = '__pfx_'
/** Names are seldom asked for, and few of them: so many together are kept compressed, in a fifth of their room. */
const NAMES_IN_PIECE = 256

interface Functions {
  /** Ascending when they are sorted. */
  readonly addresses: Float64Array
  /** Where the line of each begins in `names`, and where the last one ends. */
  readonly starts: Uint32Array
  /** Name and module, a line each; an empty one for padding. */
  readonly names: Buffer
}

/** An address as one number: two words of 32 bits. */
export function addressOf(high: number, low: number): number {
  return (high & HIGH_MASK) * 2 ** 32 + (low >>> 0)
}

export class KernelSymbols {
  /** Ascending, and how far behind the first one. */
  readonly #addresses: Float64Array | Uint32Array
  readonly #first: number
  /** Compressed lines of NAMES_IN_PIECE functions each. */
  readonly #pieces: readonly Uint8Array[]

  /**
   * Reads the symbols. A process that may not see addresses (CAP_SYSLOG, kernel.kptr_restrict) gets a table of none.
   * Throws what the file system has against it.
   */
  static async read(path = '/proc/kallsyms'): Promise<KernelSymbols> {
    const collector = new Collector()
    const file = await open(path)
    try {
      const chunk = Buffer.alloc(CHUNK_BYTES)
      let kept = 0
      for (;;) {
        const { bytesRead } = await file.read(chunk, kept, CHUNK_BYTES - kept)
        if (bytesRead === 0) break
        const used = collector.take(chunk, kept + bytesRead)
        chunk.copyWithin(0, used, kept + bytesRead)
        kept += bytesRead - used
        // A line that is longer than all the room is none.
        if (kept === CHUNK_BYTES) kept = 0
      }
    } finally {
      await file.close()
    }
    const { addresses, starts, names } = collector.functions()
    const pieces: Uint8Array[] = []
    await inTurns(Array(Math.ceil(addresses.length / NAMES_IN_PIECE)).keys(), piece => {
      const first = piece * NAMES_IN_PIECE
      const end = Math.min(first + NAMES_IN_PIECE, addresses.length)
      // A copy: what it gives is the beginning of a larger buffer.
      pieces.push(new Uint8Array(deflateRawSync(names.subarray(starts[first], starts[end]))))
    })
    return new KernelSymbols(addresses, pieces)
  }

  private constructor(addresses: Float64Array, pieces: readonly Uint8Array[]) {
    this.#first = addresses[0] ?? 0
    const distances = addresses.map(address => address - this.#first)
    this.#addresses = (distances.at(-1) ?? 0) < 2 ** 32 ? Uint32Array.from(distances) : distances
    this.#pieces = pieces
  }

  /** Functions known. */
  get size(): number {
    return this.#addresses.length
  }

  /** What is at this address, as the kernel writes it: `name+0xoffset/0xsize`; undefined when there is no function. */
  at(address: number): string | undefined {
    const addresses = this.#addresses
    const distance = address - this.#first
    let low = 0
    let high = addresses.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (addresses[middle]! <= distance) low = middle + 1
      else high = middle
    }
    const next = addresses[low]
    // Of several names for one function the first is the kernel's choice, too.
    let at = low - 1
    if (at < 0) return undefined
    while (at > 0 && addresses[at - 1] === addresses[at]) at--
    const start = addresses[at]!
    const size = (next ?? start + MOST_FUNCTION_BYTES) - start
    if (distance - start >= Math.min(size, MOST_FUNCTION_BYTES)) return undefined
    const lines = inflateRawSync(this.#pieces[Math.floor(at / NAMES_IN_PIECE)]!)
      .toString('latin1')
      .split('\n')
    const [name, module] = lines[at % NAMES_IN_PIECE]!.split('\t')
    if (name === '') return undefined
    const place = `${name}+0x${(distance - start).toString(16)}/0x${size.toString(16)}`
    return module === undefined ? place : `${place} ${module}`
  }
}

/** Gathers the functions of the lines that it is given. */
class Collector {
  #count = 0
  // Enough for any kernel seen so far: memory that is not written costs nothing, that of a copy stays with the process.
  #addresses = new Float64Array(1 << 18)
  #starts = new Uint32Array(1 << 18)
  #names = Buffer.alloc(1 << 23)
  #nameBytes = 0
  #isSorted = true

  /** Takes the whole lines among the first `length` bytes; gives the number of bytes that they have. */
  take(bytes: Buffer, length: number): number {
    let line = 0
    for (;;) {
      const end = bytes.indexOf(NEWLINE, line)
      if (end < 0 || end >= length) return line
      if (FUNCTION_TYPES.has(bytes[line + ADDRESS_DIGITS + 1]!)) this.#add(bytes, line, end)
      line = end + 1
    }
  }

  /** All of them, sorted. */
  functions(): Functions {
    const count = this.#count
    const starts = this.#starts.subarray(0, count + 1)
    starts[count] = this.#nameBytes
    const addresses = this.#addresses.subarray(0, count)
    const names = this.#names.subarray(0, this.#nameBytes)
    return this.#isSorted ? { addresses, starts, names } : sorted({ addresses, starts, names })
  }

  #add(bytes: Buffer, line: number, end: number): void {
    const high = hex(bytes, line)
    const low = hex(bytes, line + 8)
    const address = addressOf(high, low)
    if (Number.isNaN(high + low) || address === 0) return
    const name = line + ADDRESS_DIGITS + 3
    const isPadding =
      bytes[name] === UNDERSCORE && bytes.toString('latin1', name, name + PADDING.length) === PADDING
    const start = isPadding ? end : name
    const length = end + 1 - start
    const count = this.#count
    if (count + 1 >= this.#addresses.length) {
      this.#addresses = grown(this.#addresses, new Float64Array(2 * this.#addresses.length))
      this.#starts = grown(this.#starts, new Uint32Array(2 * this.#starts.length))
    }
    if (this.#nameBytes + length > this.#names.length)
      this.#names = grown(this.#names, Buffer.alloc(2 * this.#names.length + length))
    if (count > 0 && address < this.#addresses[count - 1]!) this.#isSorted = false
    this.#addresses[count] = address
    this.#starts[count] = this.#nameBytes
    this.#nameBytes += bytes.copy(this.#names, this.#nameBytes, start, end + 1)
    this.#count++
  }
}

/** Those of the kernel come in their order, those of modules in any. */
function sorted({ addresses, starts, names }: Functions): Functions {
  const order = new Uint32Array(addresses.keys())
  order.sort((a, b) => addresses[a]! - addresses[b]! || a - b)
  const result = {
    addresses: new Float64Array(order.length),
    starts: new Uint32Array(order.length + 1),
    names: Buffer.alloc(names.length),
  }
  let at = 0
  for (const [i, from] of order.entries()) {
    result.addresses[i] = addresses[from]!
    result.starts[i] = at
    at += names.copy(result.names, at, starts[from]!, starts[from + 1]!)
  }
  result.starts[order.length] = at
  return result
}

function grown<Memory extends { set(from: Memory): void }>(from: Memory, to: Memory): Memory {
  to.set(from)
  return to
}

/** Eight hexadecimal digits; NaN when they are none. */
function hex(bytes: Buffer, at: number): number {
  let value = 0
  for (let i = at; i < at + 8; i++) {
    const digit = bytes[i]!
    const isNumber = digit >= 0x30 && digit <= 0x39
    const isLetter = digit >= 0x61 && digit <= 0x66
    if (!isNumber && !isLetter) return Number.NaN
    value = value * 16 + digit - (isNumber ? 0x30 : 0x57)
  }
  return value
}
