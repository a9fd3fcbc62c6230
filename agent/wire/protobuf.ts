/**
 * Protocol buffers as they are on the wire (protobuf.dev, "Encoding"): as much as the interfaces of container runtimes
 * need. A message is a row of fields, each a number and a type of
 *
 *     0 varint · 1 eight bytes · 2 length and bytes (text, messages, packed numbers) · 5 four bytes
 */

/** Bytes that are not the message they should be. */
export class ProtobufError extends Error {
  readonly code = 'protobuf'
  readonly offset: number

  constructor(problem: string, offset: number) {
    super(`protobuf: ${problem} at byte offset ${offset}`)
    this.name = 'ProtobufError'
    this.offset = offset
  }
}

/** The fields of a message. Those that are not there read as zero, empty or none, as the format has it. */
export class ProtobufMessage {
  /** By field number, in the order in which they came. */
  readonly #fields = new Map<number, (bigint | Uint8Array)[]>()

  /** Reads all fields; nested messages are read when they are asked for. Throws ProtobufError. */
  constructor(bytes: Uint8Array) {
    let at = 0
    const varint = (): bigint => {
      const start = at
      let value = 0n
      for (let shift = 0n; shift < 70n; shift += 7n) {
        const byte = bytes[at++]
        if (byte === undefined) throw new ProtobufError('a number without its end', start)
        value |= BigInt(byte & 0x7f) << shift
        if (byte < 0x80) return BigInt.asUintN(64, value)
      }
      throw new ProtobufError('a number of more than ten bytes', start)
    }
    const take = (count: number): Uint8Array => {
      if (count > bytes.length - at) {
        throw new ProtobufError(`a field of ${count} bytes, ${bytes.length - at} left`, at)
      }
      at += count
      return bytes.subarray(at - count, at)
    }
    while (at < bytes.length) {
      const start = at
      const tag = varint()
      const number = Number(tag >> 3n)
      const type = Number(tag & 7n)
      let value: bigint | Uint8Array
      if (type === 0) value = varint()
      else if (type === 1) value = take(8)
      else if (type === 2) value = take(Number(varint()))
      else if (type === 5) value = take(4)
      else throw new ProtobufError(`field ${number} has the unknown type ${type}`, start)
      const values = this.#fields.get(number)
      if (values === undefined) this.#fields.set(number, [value])
      else values.push(value)
    }
  }

  /** A number; 0 when it is not there. */
  number(field: number): number {
    const value = this.#fields.get(field)?.at(-1)
    return typeof value === 'bigint' ? Number(value) : 0
  }

  /** Text; empty when it is not there. */
  text(field: number): string {
    const value = this.#fields.get(field)?.at(-1)
    return value instanceof Uint8Array ? utf8.decode(value) : ''
  }

  texts(field: number): string[] {
    return this.#all(field).map(bytes => utf8.decode(bytes))
  }

  message(field: number): ProtobufMessage | undefined {
    const value = this.#fields.get(field)?.at(-1)
    return value instanceof Uint8Array ? new ProtobufMessage(value) : undefined
  }

  messages(field: number): ProtobufMessage[] {
    return this.#all(field).map(bytes => new ProtobufMessage(bytes))
  }

  /** A map of texts: a message of key (1) and value (2) for each entry. */
  map(field: number): Map<string, string> {
    return new Map(this.messages(field).map(entry => [entry.text(1), entry.text(2)]))
  }

  #all(field: number): Uint8Array[] {
    return (this.#fields.get(field) ?? []).filter(value => value instanceof Uint8Array)
  }
}

/** A field to write: text, a number (a varint), a truth, or a message in bytes; several of a number repeat it. */
export type ProtobufField = readonly [number: number, value: string | number | boolean | Uint8Array]

export function writeProtobuf(fields: readonly ProtobufField[]): Uint8Array {
  const parts: Uint8Array[] = []
  for (const [number, value] of fields) {
    if (typeof value === 'number' || typeof value === 'boolean') {
      parts.push(varintBytes(number * 8), varintBytes(Number(value)))
    } else {
      const bytes = typeof value === 'string' ? Buffer.from(value) : value
      parts.push(varintBytes(number * 8 + 2), varintBytes(bytes.length), bytes)
    }
  }
  return Buffer.concat(parts)
}

function varintBytes(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80)
  bytes.push(rest)
  return Uint8Array.from(bytes)
}

const utf8 = new TextDecoder('utf-8')
