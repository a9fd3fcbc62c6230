/**
 * Structures declared once: from a list of fields come the TypeScript type, the size, the writer, the reader
 * and the page in docs/wire.md.
 */

import {
  formatIp4,
  formatIp6,
  formatMac,
  formatUuid,
  parseIp4,
  parseIp6,
  parseMac,
  parseUuid,
} from './addresses.ts'
import { padded, type Reader, type Writer } from './xdr.ts'

/** A counter (c32) that the platform does not have. */
export const UNKNOWN32 = 0xffffffff
/** A counter (c64) that the platform does not have. */
export const UNKNOWN64 = 0xffffffffffffffffn
/** A percentage (pct) that is not known. */
export const UNKNOWN_PERCENT = -1

/** Names of the known values of an open enumeration. */
export type Names = Readonly<Record<number, string>>

/** What a kind is made of, for the reference page and for generated test values. */
export type Shape =
  | { readonly type: 'u32' | 'i32' | 'u64' | 'c32' | 'c64' | 'f32' | 'f64' | 'pct' }
  | { readonly type: 'opaque' | 'mac' | 'ip4' | 'ip6' | 'addr' | 'uuid' }
  | { readonly type: 'text'; readonly max: number }
  | { readonly type: 'fixedOpaque'; readonly length: number }
  | { readonly type: 'oneOf'; readonly names: Names }
  | { readonly type: 'bits'; readonly parts: Readonly<Record<string, number>> }
  | { readonly type: 'list'; readonly element: Kind<unknown>; readonly max: number }
  | { readonly type: 'struct'; readonly fields: Fields }
  | { readonly type: 'union'; readonly cases: Readonly<Record<number, Kind<unknown>>> }

/** How one field is written and read. `name` is for messages. */
export interface Kind<T> {
  readonly shape: Shape
  readonly doc: string
  /** Unit of the value, empty where it has none. */
  readonly unit: string
  /** The least number of bytes a value takes; also the most, if `fixed`. */
  readonly minSize: number
  readonly fixed: boolean
  /** Bytes that write() will write. */
  size(value: T): number
  write(writer: Writer, value: T, name: string): void
  read(reader: Reader, name: string): T
}

/** A field that a later revision added at the end; it and all fields after it may be absent. */
export interface Added<T> extends Kind<T> {
  readonly added: true
}

export type Fields = Readonly<Record<string, Kind<unknown>>>

type KindValue<K> = K extends Kind<infer T> ? T : never
type Flat<T> = { [K in keyof T]: T[K] }

/** The object that a list of fields reads and writes. */
export type FieldsValue<F extends Fields> = Flat<
  { readonly [K in keyof F as F[K] extends Added<unknown> ? never : K]: KindValue<F[K]> } & {
    readonly [K in keyof F as F[K] extends Added<unknown> ? K : never]?: KindValue<F[K]>
  }
>

/** The value of a declaration: of a kind, or of anything that has `fields`. */
export type ValueOf<D> = D extends { readonly fields: infer F extends Fields } ? FieldsValue<F> : KindValue<D>

// Numbers ---------------------------------------------------------------------------------------------------

/** A whole number from 0 to 2^32-1: an identifier, a gauge or a set of bits. */
export function u32(doc: string, unit = ''): Kind<number> {
  return word('u32', doc, unit, 0, 0xffffffff, (reader, name) => reader.u32(name))
}

/** A whole number from -2^31 to 2^31-1. */
export function i32(doc: string, unit = ''): Kind<number> {
  return word('i32', doc, unit, -0x80000000, 0x7fffffff, (reader, name) => reader.i32(name))
}

/** A counter that wraps at 2^32; written modulo 2^32. UNKNOWN32 where the platform does not count. */
export function c32(doc: string, unit = ''): Kind<number> {
  return word('c32', doc, unit, 0, Number.MAX_SAFE_INTEGER, (reader, name) => reader.u32(name))
}

function word(
  type: 'u32' | 'i32' | 'c32',
  doc: string,
  unit: string,
  least: number,
  most: number,
  read: (reader: Reader, name: string) => number,
): Kind<number> {
  return {
    ...described({ type }, doc, unit, 4),
    write(writer, value, name) {
      if (!Number.isInteger(value) || value < least || value > most) {
        throw writer.fail(
          'value',
          `${name}: expected a whole number from ${least} to ${most}, got ${shown(value)}`,
        )
      }
      writer.u32(value, name)
    },
    read,
  }
}

/** A whole number from 0 to 2^64-1. */
export function u64(doc: string, unit = ''): Kind<bigint> {
  return doubleWord('u64', doc, unit)
}

/** A counter that wraps at 2^64; written modulo 2^64. UNKNOWN64 where the platform does not count. */
export function c64(doc: string, unit = ''): Kind<bigint> {
  return doubleWord('c64', doc, unit)
}

function doubleWord(type: 'u64' | 'c64', doc: string, unit: string): Kind<bigint> {
  return {
    ...described({ type }, doc, unit, 8),
    write(writer, value, name) {
      if (typeof value !== 'bigint' || value < 0n || (type === 'u64' && value > UNKNOWN64)) {
        throw writer.fail('value', `${name}: expected a bigint from 0 to ${UNKNOWN64}, got ${shown(value)}`)
      }
      writer.u64(value, name)
    },
    read: (reader, name) => reader.u64(name),
  }
}

/** IEEE 754 single precision. */
export function f32(doc: string, unit = ''): Kind<number> {
  return {
    ...described({ type: 'f32' }, doc, unit, 4),
    write: (writer, value, name) => writer.f32(value, name),
    read: (reader, name) => reader.f32(name),
  }
}

/** IEEE 754 double precision. */
export function f64(doc: string, unit = ''): Kind<number> {
  return {
    ...described({ type: 'f64' }, doc, unit, 8),
    write: (writer, value, name) => writer.f64(value, name),
    read: (reader, name) => reader.f64(name),
  }
}

/** Hundredths of a percent from 0 to 10000, or UNKNOWN_PERCENT; more is written as 10000. */
export function pct(doc: string): Kind<number> {
  return {
    ...described({ type: 'pct' }, doc, '0.01 %', 4),
    write(writer, value, name) {
      writer.u32(value >= 0 ? Math.min(Math.round(value), 10_000) : UNKNOWN_PERCENT, name)
    },
    read: (reader, name) => reader.i32(name),
  }
}

/** An open enumeration: numbers without a name are values like any other. */
export function oneOf(names: Names, doc: string): Kind<number> {
  return { ...u32(doc), shape: { type: 'oneOf', names } }
}

/** One 32-bit word cut into unsigned numbers, the first in the highest bits. The widths add up to 32. */
export function bits<P extends Readonly<Record<string, number>>>(
  parts: P,
  doc: string,
): Kind<{ readonly [K in keyof P]: number }> {
  type Value = { readonly [K in keyof P]: number }
  return {
    ...described<Value>({ type: 'bits', parts }, doc, '', 4),
    write(writer, value, name) {
      let whole = 0
      for (const [part, width] of Object.entries(parts)) {
        const number = value[part]!
        if (!Number.isInteger(number) || number < 0 || number >= 2 ** width) {
          throw writer.fail(
            'value',
            `${name}.${part}: expected a whole number of ${width} bits, got ${shown(number)}`,
          )
        }
        whole = whole * 2 ** width + number
      }
      writer.u32(whole, name)
    },
    read(reader, name) {
      let whole = reader.u32(name)
      const value: Record<string, number> = {}
      let unread = 32
      for (const [part, width] of Object.entries(parts)) {
        unread -= width
        value[part] = Math.floor(whole / 2 ** unread)
        whole %= 2 ** unread
      }
      return value as Value
    },
  }
}

// Bytes and text --------------------------------------------------------------------------------------------

/**
 * UTF-8 text of at most `max` bytes. Longer text is cut between two characters, and text ends before a NUL,
 * because many receivers are written in C. Read without regard to `max`, with a warning.
 */
export function text(doc: string, max = Number.POSITIVE_INFINITY): Kind<string> {
  return {
    ...described({ type: 'text', max }, doc, '', 4, false),
    size: value => 4 + padded(textLength(value, max)),
    write(writer, value, name) {
      if (ASCII.test(value)) {
        const length = Math.min(value.length, max)
        writer.u32(length, name)
        writer.ascii(value, length, name)
        return
      }
      const bytes = encodeText(value, max)
      writer.u32(bytes.length, name)
      writer.bytes(bytes, name)
    },
    read(reader, name) {
      const at = reader.offset
      const bytes = reader.bytes(reader.u32(name), name)
      if (bytes.length > max) reader.warn('text-length', `${name} has ${bytes.length} bytes, not ${max}`, at)
      try {
        return strictUtf8.decode(bytes)
      } catch {
        reader.warn('text-encoding', `${name} is not UTF-8`, at)
        return lenientUtf8.decode(bytes)
      }
    },
  }
}

const utf8 = new TextEncoder()
const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const lenientUtf8 = new TextDecoder('utf-8', { ignoreBOM: true })

/** Bytes that encodeText() gives; most text is ASCII, and is not encoded to be measured. */
function textLength(value: string, max: number): number {
  return ASCII.test(value) ? Math.min(value.length, max) : encodeText(value, max).length
}

const ASCII = /^[ -~]*$/

function encodeText(value: string, max: number): Uint8Array {
  const bytes = utf8.encode(value)
  const nul = bytes.indexOf(0)
  let length = nul < 0 ? bytes.length : nul
  if (length > max) {
    length = max
    while (length > 0 && (bytes[length]! & 0xc0) === 0x80) length--
  }
  return bytes.subarray(0, length)
}

/** Bytes after their count. What is read is a view of the datagram. */
export function opaque(doc: string): Kind<Uint8Array> {
  return {
    ...described({ type: 'opaque' }, doc, '', 4, false),
    size: value => 4 + padded(value.length),
    write(writer, value, name) {
      writer.u32(value.length, name)
      writer.bytes(value, name)
    },
    read: (reader, name) => reader.bytes(reader.u32(name), name),
  }
}

/** Exactly `length` bytes without a count. What is read is a view of the datagram. */
export function fixedOpaque(length: number, doc: string): Kind<Uint8Array> {
  return {
    ...described({ type: 'fixedOpaque', length }, doc, '', padded(length)),
    write(writer, value, name) {
      if (value.length !== length) {
        throw writer.fail('value', `${name}: expected ${length} bytes, got ${value.length}`)
      }
      writer.bytes(value, name)
    },
    read: (reader, name) => reader.bytes(length, name),
  }
}

// Addresses -------------------------------------------------------------------------------------------------

/** `02:00:00:00:00:01`; on the wire 6 bytes and 2 of padding. */
export function mac(doc: string): Kind<string> {
  return asText('mac', doc, 6, parseMac, formatMac, 'a MAC address')
}

/** `192.0.2.1` */
export function ip4(doc: string): Kind<string> {
  return asText('ip4', doc, 4, parseIp4, formatIp4, 'an IPv4 address')
}

/** `2001:db8::1`, in the form of RFC 5952. */
export function ip6(doc: string): Kind<string> {
  return asText('ip6', doc, 16, parseIp6, formatIp6, 'an IPv6 address')
}

/** `00112233-4455-6677-8899-aabbccddeeff`; all zero when unknown. */
export function uuid(doc: string): Kind<string> {
  return asText('uuid', doc, 16, parseUuid, formatUuid, 'a UUID')
}

function asText(
  type: 'mac' | 'ip4' | 'ip6' | 'uuid',
  doc: string,
  length: number,
  parse: (text: string) => Uint8Array | undefined,
  format: (bytes: Uint8Array) => string,
  expected: string,
): Kind<string> {
  return {
    ...described({ type }, doc, '', padded(length)),
    write(writer, value, name) {
      const bytes = parse(value)
      if (bytes === undefined) {
        throw writer.fail('value', `${name}: expected ${expected}, got ${shown(value)}`)
      }
      writer.bytes(bytes, name)
    },
    read: (reader, name) => format(reader.bytes(length, name)),
  }
}

const UNKNOWN_ADDRESS = Uint8Array.of(0, 0, 0, 0)

/**
 * An IPv4 or IPv6 address after its type. Empty text is the unknown address: it is written as 0.0.0.0, because
 * a widely used decoder gives up the datagram at address type 0.
 */
export function addr(doc: string): Kind<string> {
  const ADDRESS_IP4 = 1
  const ADDRESS_IP6 = 2
  return {
    ...described({ type: 'addr' }, doc, '', 4, false),
    size: value => (value.includes(':') ? 20 : 8),
    write(writer, value, name) {
      const bytes = value === '' ? UNKNOWN_ADDRESS : (parseIp4(value) ?? parseIp6(value))
      if (bytes === undefined) {
        throw writer.fail('value', `${name}: expected an IP address, got ${shown(value)}`)
      }
      writer.u32(bytes.length === 4 ? ADDRESS_IP4 : ADDRESS_IP6, name)
      writer.bytes(bytes, name)
    },
    read(reader, name) {
      const at = reader.offset
      const type = reader.u32(name)
      if (type === ADDRESS_IP4) return formatIp4(reader.bytes(4, name))
      if (type === ADDRESS_IP6) return formatIp6(reader.bytes(16, name))
      if (type === 0) return ''
      throw reader.fail('address-type', `${name} has address type ${type}, not 0, 1 or 2`, at)
    },
  }
}

// Combinations ----------------------------------------------------------------------------------------------

/** Elements after their count. Read without regard to `max`, with a warning. */
export function list<T>(element: Kind<T>, doc: string, max = Number.POSITIVE_INFINITY): Kind<readonly T[]> {
  return {
    ...described({ type: 'list', element, max }, doc, '', 4, false),
    size(values) {
      if (element.fixed) return 4 + values.length * element.minSize
      let bytes = 4
      for (const value of values) bytes += element.size(value)
      return bytes
    },
    write(writer, values, name) {
      if (values.length > max) {
        throw writer.fail('value', `${name}: expected at most ${max} elements, got ${values.length}`)
      }
      writer.u32(values.length, name)
      for (const [i, value] of values.entries()) element.write(writer, value, `${name}[${i}]`)
    },
    read(reader, name) {
      const at = reader.offset
      const count = readCount(reader, name, element.minSize)
      if (count > max) reader.warn('list-length', `${name} has ${count} elements, not ${max}`, at)
      const values: T[] = []
      for (let i = 0; i < count; i++) values.push(element.read(reader, `${name}[${i}]`))
      return values
    },
  }
}

/** Reads an element count, refusing one that cannot be true before anything is allocated for it. */
export function readCount(reader: Reader, name: string, elementSize: number): number {
  const at = reader.offset
  const count = reader.u32(name)
  if (count * elementSize > reader.left) {
    throw reader.fail(
      'count',
      `${name} has ${count} elements of at least ${elementSize} bytes, ${reader.left} bytes left`,
      at,
    )
  }
  return count
}

/** A value after the number of its type. */
export function union<C extends Readonly<Record<number, Kind<unknown>>>>(
  cases: C,
  doc: string,
): Kind<UnionValue<C>> {
  return {
    ...described<UnionValue<C>>({ type: 'union', cases }, doc, '', 4, false),
    size: value => 4 + (cases[value.type]?.size(value.value) ?? 0),
    write(writer, value, name) {
      const kind = cases[value.type]
      if (kind === undefined) {
        throw writer.fail('value', `${name}: expected a known type, got ${shown(value.type)}`)
      }
      writer.u32(value.type, name)
      kind.write(writer, value.value, name)
    },
    read(reader, name) {
      const at = reader.offset
      const type = reader.u32(name)
      const kind = cases[type]
      if (kind === undefined) throw reader.fail('discriminant', `${name} has the unknown type ${type}`, at)
      return { type, value: kind.read(reader, name) } as UnionValue<C>
    },
  }
}

type UnionValue<C> = {
  readonly [K in keyof C & number]: { readonly type: K; readonly value: KindValue<C[K]> }
}[keyof C & number]

/** Fields one after another. */
export function struct<F extends Fields>(fields: F, doc = ''): Kind<FieldsValue<F>> {
  const entries = Object.entries(fields)
  const names = Object.keys(fields)
  const kinds = Object.values(fields)
  const required = entries.filter(([, kind]) => !isAdded(kind))
  const minSize = required.reduce((sum, [, kind]) => sum + kind.minSize, 0)
  const fixed = entries.every(([, kind]) => kind.fixed && !isAdded(kind))
  type Values = Record<string, unknown>
  return {
    ...described<FieldsValue<F>>({ type: 'struct', fields }, doc, '', minSize, fixed),
    size(value) {
      if (fixed) return minSize
      let bytes = 0
      for (let i = 0; i < names.length; i++) {
        const kind = kinds[i]!
        const field = (value as Values)[names[i]!]
        if (field === undefined && isAdded(kind)) break
        bytes += kind.size(field)
      }
      return bytes
    },
    write(writer, value, name) {
      for (let i = 0; i < names.length; i++) {
        const field = names[i]!
        const kind = kinds[i]!
        const fieldValue = (value as Values)[field]
        if (fieldValue === undefined && isAdded(kind)) break
        kind.write(writer, fieldValue, name === '' ? field : `${name}.${field}`)
      }
    },
    read(reader, name) {
      const value: Values = {}
      for (const [field, kind] of entries) {
        if (reader.left === 0 && isAdded(kind)) break
        value[field] = kind.read(reader, name === '' ? field : `${name}.${field}`)
      }
      return value as FieldsValue<F>
    },
  }
}

/** Marks fields that a later revision of a structure added at its end. Only for fields of a whole record. */
export function added<T>(kind: Kind<T>): Added<T> {
  return { ...kind, added: true }
}

export function isAdded(kind: Kind<unknown>): boolean {
  return 'added' in kind
}

/** What all kinds have in common. Without a size() of their own they are of fixed size. */
function described<T>(
  shape: Shape,
  doc: string,
  unit: string,
  minSize: number,
  fixed = true,
): Pick<Kind<T>, 'shape' | 'doc' | 'unit' | 'minSize' | 'fixed' | 'size'> {
  return { shape, doc, unit, minSize, fixed, size: () => minSize }
}

function shown(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}
