/**
 * Netlink attributes (struct nlattr, include/uapi/linux/netlink.h): length u16 with the 4-byte header and
 * without padding, type u16, payload, zeros up to a multiple of 4. All numbers are in host order, which is
 * little endian on every machine weir runs on (agent/kernel/native.ts refuses others).
 *
 * Type 0 is an attribute like any other here: psample, drop_monitor and devlink use it.
 */

/** What is wrong with received bytes. */
export type NetlinkFormatCode =
  /** A length field is shorter than the header that it counts. */
  | 'short-length'
  /** A message or attribute reaches past the end of what holds it. */
  | 'past-end'
  /** The payload has not the size of the kind asked for. */
  | 'wrong-size'
  /** An attribute that may occur once occurs again. */
  | 'repeated'
  /** A number that cannot be. */
  | 'out-of-range'
  /** An attribute without which the message has no meaning is not there. */
  | 'missing'

/** Bytes that are not the netlink they should be. */
export class NetlinkFormatError extends Error {
  readonly code: NetlinkFormatCode
  /** Byte offset in the view of the header (of a message or attribute) that is wrong. */
  readonly offset: number

  constructor(code: NetlinkFormatCode, offset: number, text: string) {
    super(`${text} at byte offset ${offset}`)
    this.name = 'NetlinkFormatError'
    this.code = code
    this.offset = offset
  }
}

/** Bytes of the attribute header. */
export const ATTRIBUTE_HEADER = 4

/** The upper two bits of the type are marks (nested, network byte order); neither is set reliably. */
const TYPE_MASK = 0x3fff

/** Rounds a length up to the 4 bytes to which messages and attributes are aligned. */
export function align4(length: number): number {
  return (length + 3) & ~3
}

/**
 * Length of the attribute at byte `at`, header included, padding not; never past `end`. With attributeType() it
 * reads attributes where they are and allocates nothing:
 *
 *     for (let at = start; at < end; at += align4(length)) {
 *       length = attributeLength(view, at, end)
 *       switch (attributeType(view, at)) { … payload at + 4 up to at + length … }
 *     }
 */
export function attributeLength(view: DataView, at: number, end: number): number {
  if (end - at < ATTRIBUTE_HEADER) {
    throw new NetlinkFormatError('past-end', at, `attribute header needs 4 bytes, ${end - at} left`)
  }
  const length = view.getUint16(at, true)
  if (length < ATTRIBUTE_HEADER) {
    throw new NetlinkFormatError('short-length', at, `attribute of length ${length}, shorter than its header`)
  }
  if (length > end - at) {
    const type = attributeType(view, at)
    throw new NetlinkFormatError('past-end', at, `attribute ${type} needs ${length} bytes, ${end - at} left`)
  }
  return length
}

/** Type of the attribute at byte `at`, without its marks. */
export function attributeType(view: DataView, at: number): number {
  return view.getUint16(at + 2, true) & TYPE_MASK
}

/** Where one attribute is: payload from byte `start` up to `end` of the view. */
export interface Attribute {
  readonly type: number
  readonly start: number
  readonly end: number
}

/** All attributes from byte `start` up to `end`, in their order. */
export function listAttributes(view: DataView, start: number, end: number): Attribute[] {
  const list: Attribute[] = []
  for (let at = start; at < end; ) {
    const length = attributeLength(view, at, end)
    list.push({ type: attributeType(view, at), start: at + ATTRIBUTE_HEADER, end: at + length })
    at += align4(length)
  }
  return list
}

/** The attributes from byte `start` up to `end`, to be asked for by type. */
export function parseAttributes(view: DataView, start: number, end: number): Attributes {
  return new Attributes(view, listAttributes(view, start, end))
}

/**
 * A set of attributes, read by type. A reader gives undefined when the attribute is absent, and throws a
 * NetlinkFormatError when its payload has another size or when it is there more than once; all() is for those
 * that may repeat. Attributes nobody asks for are left alone.
 */
export class Attributes {
  readonly view: DataView
  readonly list: readonly Attribute[]

  constructor(view: DataView, list: readonly Attribute[]) {
    this.view = view
    this.list = list
  }

  has(type: number): boolean {
    return this.#find(type) !== undefined
  }

  u8(type: number): number | undefined {
    const at = this.#sized(type, 1)
    return at < 0 ? undefined : this.view.getUint8(at)
  }

  u16(type: number): number | undefined {
    const at = this.#sized(type, 2)
    return at < 0 ? undefined : this.view.getUint16(at, true)
  }

  u32(type: number): number | undefined {
    const at = this.#sized(type, 4)
    return at < 0 ? undefined : this.view.getUint32(at, true)
  }

  i32(type: number): number | undefined {
    const at = this.#sized(type, 4)
    return at < 0 ? undefined : this.view.getInt32(at, true)
  }

  u64(type: number): bigint | undefined {
    const at = this.#sized(type, 8)
    return at < 0 ? undefined : this.view.getBigUint64(at, true)
  }

  /** UTF-8 up to the first NUL, or all of the payload if it has none. */
  text(type: number): string | undefined {
    const attribute = this.#find(type)
    return attribute === undefined ? undefined : attributeText(this.view, attribute)
  }

  /** A window on the payload, not a copy. */
  bytes(type: number): Uint8Array | undefined {
    const attribute = this.#find(type)
    return attribute === undefined ? undefined : attributeBytes(this.view, attribute)
  }

  /** The attributes inside this one, whether or not it is marked as nested. */
  nest(type: number): Attributes | undefined {
    const attribute = this.#find(type)
    return attribute === undefined ? undefined : parseAttributes(this.view, attribute.start, attribute.end)
  }

  /** Every attribute of this type. */
  all(type: number): Attribute[] {
    return this.list.filter(attribute => attribute.type === type)
  }

  #find(type: number): Attribute | undefined {
    let found: Attribute | undefined
    for (const attribute of this.list) {
      if (attribute.type !== type) continue
      if (found !== undefined) {
        const at = attribute.start - ATTRIBUTE_HEADER
        throw new NetlinkFormatError('repeated', at, `attribute ${type} occurs again`)
      }
      found = attribute
    }
    return found
  }

  /** Offset of a payload of exactly `size` bytes, -1 if absent. */
  #sized(type: number, size: number): number {
    const attribute = this.#find(type)
    if (attribute === undefined) return -1
    const length = attribute.end - attribute.start
    if (length !== size) {
      const at = attribute.start - ATTRIBUTE_HEADER
      throw new NetlinkFormatError(
        'wrong-size',
        at,
        `attribute ${type} has ${length} bytes instead of ${size}`,
      )
    }
    return attribute.start
  }
}

const utf8 = new TextDecoder()

/** UTF-8 text of a payload up to its first NUL. Bytes that are not UTF-8 become U+FFFD. */
function attributeText(view: DataView, attribute: Attribute): string {
  const bytes = attributeBytes(view, attribute)
  const nul = bytes.indexOf(0)
  return utf8.decode(nul < 0 ? bytes : bytes.subarray(0, nul))
}

/** A window on a payload, not a copy. */
function attributeBytes(view: DataView, attribute: Attribute): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + attribute.start, attribute.end - attribute.start)
}
