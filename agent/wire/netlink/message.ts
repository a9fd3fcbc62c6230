/**
 * Netlink messages: building requests, stepping through received ones, and the kernel's acknowledgements.
 *
 *     nlmsghdr   length u32 (this header included) · type u16 · flags u16 · sequence u32 · port u32
 *     genlmsghdr command u8 · version u8 · reserved u16           (follows it in generic netlink)
 *
 * Messages are aligned to 4 bytes; numbers are in host order (little endian, see attributes.ts).
 */
import { ATTRIBUTE_HEADER, align4, NetlinkFormatError, parseAttributes } from './attributes.ts'

/** Bytes of nlmsghdr and of genlmsghdr. */
export const MESSAGE_HEADER = 16
export const GENL_HEADER = 4

/** Message types that mean the same in every protocol; families begin at 16. */
export const MESSAGE_TYPE = { noop: 1, error: 2, done: 3, overrun: 4 } as const

/** Message flags. The values of get, new, delete requests and acks overlap. */
export const FLAG = {
  request: 0x1,
  multi: 0x2,
  ack: 0x4,
  echo: 0x8,
  /** The table changed during the dump: its parts do not belong together. */
  dumpInterrupted: 0x10,
  /** Requests that get: all entries. */
  dump: 0x300,
  /** Requests that make something new. */
  replace: 0x100,
  exclusive: 0x200,
  create: 0x400,
  append: 0x800,
  /** Acks: the request is not repeated in full; attributes of the extended acknowledgement follow. */
  capped: 0x100,
  ackAttributes: 0x200,
} as const

const NESTED = 0x8000
/** An attribute's length is 16 bits and counts its header. */
const MOST_PAYLOAD = 0xffff - ATTRIBUTE_HEADER

/**
 * Length of the message at byte `at`, header included; never past `end`. The next message is at
 * `at + align4(length)`.
 */
export function messageLength(view: DataView, at: number, end: number): number {
  if (end - at < MESSAGE_HEADER) {
    throw new NetlinkFormatError('past-end', at, `message header needs 16 bytes, ${end - at} left`)
  }
  const length = view.getUint32(at, true)
  if (length < MESSAGE_HEADER) {
    throw new NetlinkFormatError('short-length', at, `message of length ${length}, shorter than its header`)
  }
  if (length > end - at) {
    throw new NetlinkFormatError('past-end', at, `message needs ${length} bytes, ${end - at} left`)
  }
  return length
}

/** Type of the message at byte `at`: one of MESSAGE_TYPE, a family id, or an RTM_ number. */
export function messageType(view: DataView, at: number): number {
  return view.getUint16(at + 4, true)
}

export function messageFlags(view: DataView, at: number): number {
  return view.getUint16(at + 6, true)
}

/** Sequence number of the request that the message answers; 0 in a notification. */
export function messageSequence(view: DataView, at: number): number {
  return view.getUint32(at + 8, true)
}

/** Command of the generic netlink message at byte `at`, whose length has been checked. */
export function genlCommand(view: DataView, at: number): number {
  return view.getUint8(at + MESSAGE_HEADER)
}

/** One received message with its own bytes, for everything that is not on the path of samples. */
export interface Message {
  readonly type: number
  readonly flags: number
  /** The whole message, header included. */
  readonly view: DataView
}

/** The end of a request: an ack, a refusal, or the end of a dump. */
export interface Ack {
  /** Positive errno; 0 for success. */
  readonly errno: number
  /** The kernel's own words, if it sent some. They can accompany success as a warning. */
  readonly text: string | undefined
  /** Byte offset in the request, header included, of what the kernel refuses. */
  readonly offset: number | undefined
}

const EXTACK = { text: 1, offset: 2 } as const

/**
 * Reads a message of type error or done from byte `at`; `length` is its checked length. The attributes of an
 * extended acknowledgement (struct nlmsgerr, NETLINK_EXT_ACK, Linux 4.12) follow the request's header, or the
 * whole request unless the `capped` flag is set; in the done message they follow the status.
 */
export function readAck(view: DataView, at: number, length: number): Ack {
  const end = at + length
  const body = at + MESSAGE_HEADER
  const isError = messageType(view, at) === MESSAGE_TYPE.error
  const least = isError ? 4 + MESSAGE_HEADER : 4
  if (length < MESSAGE_HEADER + least) {
    const left = length - MESSAGE_HEADER
    throw new NetlinkFormatError('wrong-size', at, `acknowledgement needs ${least} bytes, has ${left}`)
  }
  // Some dumps end with a positive number of no meaning (as the length of the last part): only negative is an error.
  const errno = Math.max(0, -view.getInt32(body, true))
  const flags = messageFlags(view, at)
  if ((flags & FLAG.ackAttributes) === 0) return { errno, text: undefined, offset: undefined }
  let start = body + 4
  if (isError) {
    const capped = (flags & FLAG.capped) !== 0
    start += capped ? MESSAGE_HEADER : align4(messageLength(view, start, end))
  }
  const attributes = parseAttributes(view, start, end)
  return { errno, text: attributes.text(EXTACK.text), offset: attributes.u32(EXTACK.offset) }
}

/**
 * Builds one request. Sequence and port stay 0: the socket that sends it fills them in. A value out of its range
 * throws a RangeError, so that nothing is ever sent cut to size.
 *
 *     new MessageBuilder(RTM_NEWQDISC, FLAG.create | FLAG.exclusive, header)
 *       .text(TCA_KIND, 'clsact')
 *       .nest(TCA_OPTIONS, options => options.u32(1, 7))
 *       .build()
 */
export class MessageBuilder {
  #bytes = new Uint8Array(256)
  #view = new DataView(this.#bytes.buffer)
  #length = MESSAGE_HEADER

  /** `fixedHeader`: the bytes between nlmsghdr and the first attribute (struct ifinfomsg, tcmsg, …), if any. */
  constructor(type: number, flags: number, fixedHeader?: Uint8Array) {
    this.#view.setUint16(4, inRange(type, 0xffff), true)
    this.#view.setUint16(6, inRange(flags | FLAG.request, 0xffff), true)
    if (fixedHeader !== undefined) {
      const at = this.#extend(align4(fixedHeader.length))
      this.#bytes.set(fixedHeader, at)
    }
  }

  /** An attribute without payload: its presence says it all. */
  flag(type: number): this {
    this.#attribute(type, 0)
    return this
  }

  u8(type: number, value: number): this {
    const at = this.#attribute(type, 1)
    this.#view.setUint8(at, inRange(value, 0xff))
    return this
  }

  u16(type: number, value: number): this {
    const at = this.#attribute(type, 2)
    this.#view.setUint16(at, inRange(value, 0xffff), true)
    return this
  }

  u32(type: number, value: number): this {
    const at = this.#attribute(type, 4)
    this.#view.setUint32(at, inRange(value, 0xffff_ffff), true)
    return this
  }

  u64(type: number, value: bigint): this {
    if (BigInt.asUintN(64, value) !== value) throw new RangeError(`${value} is not a 64-bit number`)
    const at = this.#attribute(type, 8)
    this.#view.setBigUint64(at, value, true)
    return this
  }

  /** UTF-8 with a NUL at the end, as the kernel wants names. */
  text(type: number, value: string): this {
    if (value.includes('\0')) throw new RangeError('text with a NUL inside')
    const bytes = new TextEncoder().encode(value)
    const at = this.#attribute(type, bytes.length + 1)
    this.#bytes.set(bytes, at)
    return this
  }

  bytes(type: number, value: Uint8Array): this {
    const at = this.#attribute(type, value.length)
    this.#bytes.set(value, at)
    return this
  }

  /** An attribute made of those that `build` adds. */
  nest(type: number, build: (inside: this) => void): this {
    const payload = this.#attribute(type | NESTED, 0)
    build(this)
    const length = inRange(this.#length - payload, MOST_PAYLOAD)
    this.#view.setUint16(payload - ATTRIBUTE_HEADER, ATTRIBUTE_HEADER + length, true)
    return this
  }

  /** The message: a copy, so that the builder can go on. */
  build(): Uint8Array<ArrayBuffer> {
    this.#view.setUint32(0, this.#length, true)
    return this.#bytes.slice(0, this.#length)
  }

  /** Adds the header of an attribute and room for its payload; gives the payload's offset. */
  #attribute(type: number, length: number): number {
    const at = this.#extend(align4(ATTRIBUTE_HEADER + inRange(length, MOST_PAYLOAD)))
    this.#view.setUint16(at, ATTRIBUTE_HEADER + length, true)
    this.#view.setUint16(at + 2, inRange(type, 0xffff), true)
    return at + ATTRIBUTE_HEADER
  }

  /** Room for `bytes` zero bytes at the end; gives their offset. */
  #extend(bytes: number): number {
    const at = this.#length
    this.#length = at + bytes
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length))
      larger.set(this.#bytes)
      this.#bytes = larger
      this.#view = new DataView(larger.buffer)
    }
    return at
  }
}

/** Begins a generic netlink request: family id, command and version of the family. */
export function genlRequest(family: number, command: number, version: number, flags = 0): MessageBuilder {
  return new MessageBuilder(
    family,
    flags,
    Uint8Array.of(inRange(command, 0xff), inRange(version, 0xff), 0, 0),
  )
}

function inRange(value: number, most: number): number {
  if (!Number.isInteger(value) || value < 0 || value > most) {
    throw new RangeError(`${value} is not a whole number from 0 to ${most}`)
  }
  return value
}
