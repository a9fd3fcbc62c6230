/**
 * D-Bus messages (D-Bus specification 0.42, "Message Protocol"). We write little endian and read both orders.
 *
 *     header  order u8 ('l' or 'B') · type u8 · flags u8 · version u8 = 1 · body bytes u32 · serial u32 ·
 *             fields a(yv) · zeros up to a multiple of 8
 *
 * Every value is aligned to its own size, counted from the first byte of the message; a signature of single letters
 * gives the types. Values here: numbers of up to 32 bits and doubles as number, 64 bits as bigint, the three kinds of
 * text as string, structures and arrays as arrays, dictionaries as arrays of pairs, bytes (ay) as Uint8Array, a variant
 * as its signature and its value.
 */

export type DbusValue = number | bigint | boolean | string | Uint8Array | readonly DbusValue[] | DbusVariant

export interface DbusVariant {
  readonly signature: string
  readonly value: DbusValue
}

/** Types of messages. */
export const DBUS_MESSAGE = { methodCall: 1, methodReturn: 2, error: 3, signal: 4 } as const

export interface DbusMessage {
  /** One of DBUS_MESSAGE. */
  readonly type: number
  readonly serial: number
  readonly path?: string
  readonly interface?: string
  readonly member?: string
  readonly errorName?: string
  readonly replySerial?: number
  readonly destination?: string
  readonly sender?: string
  readonly signature: string
  /** One value for each complete type of the signature. */
  readonly body: readonly DbusValue[]
}

/** Bytes that are not the D-Bus they should be. */
export class DbusFormatError extends Error {
  readonly code = 'dbus-format'
  readonly offset: number

  constructor(problem: string, offset: number) {
    super(`D-Bus message: ${problem} at byte offset ${offset}`)
    this.name = 'DbusFormatError'
    this.offset = offset
  }
}

const LITTLE = 0x6c
const BIG = 0x42
const FIXED_HEADER = 16
/** Containers in containers, as the specification allows: 32 arrays and 32 structures. */
const MOST_DEPTH = 64
/** Longest message that the specification allows. */
const MOST_BYTES = 2 ** 27

/** Header fields by their code, with the signature that each has. */
const FIELDS: readonly (readonly [number, keyof DbusMessage, string])[] = [
  [1, 'path', 'o'],
  [2, 'interface', 's'],
  [3, 'member', 's'],
  [4, 'errorName', 's'],
  [5, 'replySerial', 'u'],
  [6, 'destination', 's'],
  [7, 'sender', 's'],
  [8, 'signature', 'g'],
]

const ALIGNMENT: Readonly<Record<string, number>> = {
  y: 1,
  b: 4,
  n: 2,
  q: 2,
  i: 4,
  u: 4,
  h: 4,
  x: 8,
  t: 8,
  d: 8,
  s: 4,
  o: 4,
  g: 1,
  v: 1,
  a: 4,
  '(': 8,
  '{': 8,
}

/**
 * Length of the message that begins with `bytes`, header and body; undefined while there are too few bytes to tell.
 * Throws DbusFormatError when this is no D-Bus message.
 */
export function dbusMessageLength(bytes: Uint8Array): number | undefined {
  if (bytes.length === 0) return undefined
  if (bytes[0] !== LITTLE && bytes[0] !== BIG) {
    throw new DbusFormatError(`expected the byte order l or B, got byte ${bytes[0]}`, 0)
  }
  if (bytes.length < FIXED_HEADER) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, FIXED_HEADER)
  const little = bytes[0] === LITTLE
  if (bytes[3] !== 1) throw new DbusFormatError(`expected version 1, got ${bytes[3]}`, 3)
  const length = align(FIXED_HEADER + view.getUint32(12, little), 8) + view.getUint32(4, little)
  if (length > MOST_BYTES) throw new DbusFormatError(`its length of ${length} bytes is not allowed`, 4)
  return length
}

/** Reads one whole message. Throws DbusFormatError. */
export function readDbusMessage(bytes: Uint8Array): DbusMessage {
  const length = dbusMessageLength(bytes)
  if (length === undefined || bytes.length < length) {
    throw new DbusFormatError(`needs ${length ?? FIXED_HEADER} bytes, has ${bytes.length}`, 0)
  }
  const decoder = new Decoder(bytes.subarray(0, length))
  decoder.at = 4
  const bodyBytes = decoder.value('u', 0) as number
  const serial = decoder.value('u', 0) as number
  const fields = decoder.value('a(yv)', 0) as readonly (readonly [number, DbusVariant])[]
  const known: Record<string, DbusValue> = {}
  for (const [code, variant] of fields) {
    const field = FIELDS.find(([number]) => number === code)
    if (field === undefined) continue
    const [, name, signature] = field
    if (variant.signature !== signature) {
      throw new DbusFormatError(`${name} has the type ${variant.signature}, not ${signature}`, FIXED_HEADER)
    }
    known[name] = variant.value
  }
  decoder.at = length - bodyBytes
  const signature = (known.signature as string | undefined) ?? ''
  const body = splitSignature(signature, decoder.at).map(type => decoder.value(type, 0))
  if (decoder.at !== length) throw new DbusFormatError(`${length - decoder.at} bytes too many`, decoder.at)
  return { ...known, type: bytes[1]!, serial, signature, body }
}

/** A message as bytes; `signature` is that of the body. Throws when a value does not fit its type. */
export function writeDbusMessage(message: DbusMessage): Uint8Array {
  const body = new Encoder()
  for (const [i, type] of splitSignature(message.signature, 0).entries()) body.value(type, message.body[i]!)
  const header = new Encoder()
  for (const byte of [LITTLE, message.type, 0, 1]) header.value('y', byte)
  header.value('u', body.length)
  header.value('u', message.serial)
  const fields: DbusValue[] = []
  for (const [code, name, signature] of FIELDS) {
    const value = message[name] as DbusValue | undefined
    if (value !== undefined && value !== '') fields.push([code, { signature, value }])
  }
  header.value('a(yv)', fields)
  header.align(8)
  return Buffer.concat([header.bytes, body.bytes])
}

/** The complete types of a signature one by one: `sa{sv}u` is `s`, `a{sv}`, `u`. */
export function splitSignature(signature: string, offset = 0): string[] {
  const types: string[] = []
  for (let at = 0; at < signature.length; ) {
    const end = typeEnd(signature, at, 0, offset)
    types.push(signature.slice(at, end))
    at = end
  }
  return types
}

/** Where the complete type that begins at `at` ends. */
function typeEnd(signature: string, at: number, depth: number, offset: number): number {
  if (depth > MOST_DEPTH) throw new DbusFormatError('types are nested too deep', offset)
  const letter = signature[at]
  if (letter === 'a') return typeEnd(signature, at + 1, depth + 1, offset)
  if (letter === '(' || letter === '{') {
    const close = letter === '(' ? ')' : '}'
    let end = at + 1
    while (end < signature.length && signature[end] !== close) {
      end = typeEnd(signature, end, depth + 1, offset)
    }
    if (end >= signature.length || end === at + 1) {
      throw new DbusFormatError(`signature ${JSON.stringify(signature)} is not complete`, offset)
    }
    return end + 1
  }
  if (letter === undefined || ALIGNMENT[letter] === undefined) {
    throw new DbusFormatError(`signature ${JSON.stringify(signature)} has no type at ${at}`, offset)
  }
  return at + 1
}

function align(at: number, to: number): number {
  return Math.ceil(at / to) * to
}

const utf8 = new TextDecoder('utf-8')

class Decoder {
  at = 0
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #little: boolean

  constructor(bytes: Uint8Array) {
    const { buffer, byteOffset, byteLength } = bytes
    this.#bytes = new Uint8Array(buffer, byteOffset, byteLength)
    this.#view = new DataView(buffer, byteOffset, byteLength)
    this.#little = bytes[0] === LITTLE
  }

  /** Reads one value of a complete type. */
  value(type: string, depth: number): DbusValue {
    if (depth > MOST_DEPTH) throw new DbusFormatError('values are nested too deep', this.at)
    const letter = type[0]!
    this.#skipTo(align(this.at, ALIGNMENT[letter]!))
    const view = this.#view
    const little = this.#little
    switch (letter) {
      case 'y':
        return view.getUint8(this.#take(1))
      case 'n':
        return view.getInt16(this.#take(2), little)
      case 'q':
        return view.getUint16(this.#take(2), little)
      case 'i':
        return view.getInt32(this.#take(4), little)
      case 'u':
      case 'h':
        return view.getUint32(this.#take(4), little)
      case 'x':
        return view.getBigInt64(this.#take(8), little)
      case 't':
        return view.getBigUint64(this.#take(8), little)
      case 'd':
        return view.getFloat64(this.#take(8), little)
      case 'b':
        return this.#boolean()
      case 's':
      case 'o':
        return this.#text(this.value('u', depth) as number)
      case 'g':
        return this.#text(this.value('y', depth) as number)
      case 'v': {
        const at = this.at
        const signature = this.value('g', depth) as string
        const types = splitSignature(signature, at)
        if (types.length !== 1) throw new DbusFormatError(`a variant of ${types.length} types`, at)
        return { signature, value: this.value(signature, depth + 1) }
      }
      case 'a':
        return this.#array(type.slice(1), depth)
      default:
        return splitSignature(type.slice(1, -1), this.at).map(inner => this.value(inner, depth + 1))
    }
  }

  #array(element: string, depth: number): DbusValue {
    const at = this.at
    const length = this.value('u', depth) as number
    this.#skipTo(align(this.at, ALIGNMENT[element[0]!]!))
    if (length > this.#bytes.length - this.at) {
      throw new DbusFormatError(`an array of ${length} bytes, ${this.#bytes.length - this.at} bytes left`, at)
    }
    if (element === 'y') {
      const start = this.#take(length)
      return this.#bytes.subarray(start, start + length)
    }
    const end = this.at + length
    const values: DbusValue[] = []
    while (this.at < end) values.push(this.value(element, depth + 1))
    if (this.at !== end) throw new DbusFormatError('an array ends within its last value', end)
    return values
  }

  #boolean(): boolean {
    const at = this.#take(4)
    const value = this.#view.getUint32(at, this.#little)
    if (value > 1) throw new DbusFormatError(`expected a boolean, got ${value}`, at)
    return value === 1
  }

  #text(length: number): string {
    const start = this.#take(length + 1)
    if (this.#bytes[start + length] !== 0) throw new DbusFormatError('text without its end', start)
    return utf8.decode(this.#bytes.subarray(start, start + length))
  }

  #skipTo(at: number): void {
    if (at > this.#bytes.length) throw new DbusFormatError('it ends within a value', this.at)
    this.at = at
  }

  #take(count: number): number {
    const at = this.at
    if (count > this.#bytes.length - at) {
      throw new DbusFormatError(`${count} bytes needed, ${this.#bytes.length - at} left`, at)
    }
    this.at += count
    return at
  }
}

/** How values of fixed size are written; each takes as many bytes as it is aligned to. */
const NUMBERS: Readonly<Record<string, (view: DataView, at: number, value: DbusValue) => void>> = {
  y: (view, at, value) => view.setUint8(at, value as number),
  n: (view, at, value) => view.setUint16(at, value as number, true),
  q: (view, at, value) => view.setUint16(at, value as number, true),
  b: (view, at, value) => view.setUint32(at, value === true ? 1 : 0, true),
  i: (view, at, value) => view.setUint32(at, value as number, true),
  u: (view, at, value) => view.setUint32(at, value as number, true),
  h: (view, at, value) => view.setUint32(at, value as number, true),
  x: (view, at, value) => view.setBigUint64(at, BigInt.asUintN(64, value as bigint), true),
  t: (view, at, value) => view.setBigUint64(at, value as bigint, true),
  d: (view, at, value) => view.setFloat64(at, value as number, true),
}

class Encoder {
  length = 0
  #bytes = new Uint8Array(256)
  #view = new DataView(this.#bytes.buffer)

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length)
  }

  /** Zeros up to a multiple of `to`. */
  align(to: number): void {
    this.#room(align(this.length, to) - this.length)
  }

  value(type: string, value: DbusValue): void {
    const letter = type[0]!
    this.align(ALIGNMENT[letter]!)
    const number = NUMBERS[letter]
    if (number !== undefined) {
      const at = this.#room(ALIGNMENT[letter]!)
      number(this.#view, at, value)
      return
    }
    switch (letter) {
      case 's':
      case 'o':
      case 'g': {
        const text = Buffer.from(value as string)
        this.value(letter === 'g' ? 'y' : 'u', text.length)
        const at = this.#room(text.length + 1)
        this.#bytes.set(text, at)
        return
      }
      case 'v': {
        const variant = value as DbusVariant
        this.value('g', variant.signature)
        this.value(variant.signature, variant.value)
        return
      }
      case 'a':
        this.#array(type.slice(1), value)
        return
      default:
        for (const [i, inner] of splitSignature(type.slice(1, -1)).entries()) {
          this.value(inner, (value as readonly DbusValue[])[i]!)
        }
    }
  }

  #array(element: string, value: DbusValue): void {
    const at = this.#room(4)
    this.align(ALIGNMENT[element[0]!]!)
    const start = this.length
    for (const one of value as Iterable<DbusValue>) this.value(element, one)
    this.#view.setUint32(at, this.length - start, true)
  }

  /** Makes room for `count` bytes, zeros until they are written; gives where. */
  #room(count: number): number {
    const at = this.length
    this.length += count
    if (this.length > this.#bytes.length) {
      const larger = new Uint8Array(this.length * 2)
      larger.set(this.#bytes)
      this.#bytes = larger
      this.#view = new DataView(larger.buffer)
    }
    return at
  }
}
