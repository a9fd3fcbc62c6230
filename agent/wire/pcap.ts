/**
 * UDP datagrams from a packet capture: pcap in both byte orders with micro- or nanoseconds (the Internet-Draft
 * draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).
 */

import { formatIp4, formatIp6 } from './addresses.ts'
import { ETHERTYPE, endpoint, IP_PROTOCOL, PacketFields } from './packet.ts'
import { padded, WireError } from './xdr.ts'

/** A datagram to the wanted port. */
export interface CapturedDatagram {
  /** A view of the input. */
  readonly bytes: Uint8Array
  /** Nanoseconds since 1970; undefined where the capture has no time. */
  readonly time: bigint | undefined
  /** Sender, address and port. */
  readonly from: string
  /** Number of the packet in the capture, from 1. */
  readonly packet: number
}

/** A packet to the wanted port whose datagram is not in the capture as a whole. */
export interface IncompleteDatagram {
  readonly packet: number
  /** Where the packet begins in the capture, in bytes. */
  readonly offset: number
  readonly reason: string
}

export type Captured = CapturedDatagram | IncompleteDatagram

const PCAP_MAGIC: ReadonlyMap<number, { littleEndian: boolean; nanosecondsPerUnit: bigint }> = new Map([
  [0xa1b2c3d4, { littleEndian: false, nanosecondsPerUnit: 1000n }],
  [0xd4c3b2a1, { littleEndian: true, nanosecondsPerUnit: 1000n }],
  [0xa1b23c4d, { littleEndian: false, nanosecondsPerUnit: 1n }],
  [0x4d3cb2a1, { littleEndian: true, nanosecondsPerUnit: 1n }],
])
const SECTION_HEADER = 0x0a0d0d0a
const BYTE_ORDER = 0x1a2b3c4d
const INTERFACE_DESCRIPTION = 1
const SIMPLE_PACKET = 3
const ENHANCED_PACKET = 6
const OPTION_TIME_RESOLUTION = 9
const OPTION_TIME_OFFSET = 14
/** More than any capture has in one packet; a greater length is a broken file, not a reason to wait. */
const MOST_BLOCK_BYTES = 16 * 1024 * 1024

/** Bytes of a piece that are put behind what was left of the one before. */
const MOST_JOINED = 16 * 1024

const MOST_SENDERS = 4096

/** Whether the bytes begin as a capture does. At least 4 are needed. */
export function isPcap(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false
  const magic = viewOf(bytes).getUint32(0)
  return magic === SECTION_HEADER || PCAP_MAGIC.has(magic)
}

/** Everything in a capture that is sent to UDP port `port`. Fails with a WireError where the capture is broken. */
export function datagramsFromPcap(bytes: Uint8Array, port: number): Captured[] {
  const reader = new PcapReader(port)
  const captured = reader.push(bytes)
  reader.end()
  return captured
}

interface CaptureInterface {
  readonly linkType: number
  readonly nanosecondsPerUnit: bigint
  readonly offsetNanoseconds: bigint
}

/** Takes a capture piece by piece: push() each piece, then end(). */
export class PcapReader {
  readonly #port: number
  /** What was pushed and is not used up; it begins at #offset of the capture. */
  #bytes: Uint8Array = new Uint8Array(0)
  #view = viewOf(this.#bytes)
  #offset = 0
  #position = 0
  #format: 'unknown' | 'pcap' | 'pcapng' = 'unknown'
  #littleEndian = false
  #interfaces: CaptureInterface[] = []
  #packets = 0
  /** Of the last record, and as nanoseconds. */
  #second = 0
  #secondTime = 0n
  readonly #noted = new Set<number>()
  readonly #fields = new PacketFields()
  /** Names of senders, because most captures have few of them. */
  readonly #senders = new Map<number, string>()
  #captured: Captured[] = []
  #broken: unknown

  constructor(port: number) {
    this.#port = port
  }

  /** The datagrams that are complete now. What is captured stays a view of `piece`, which must not change any more. */
  push(piece: Uint8Array): Captured[] {
    if (this.#broken !== undefined) throw this.#broken
    const left = this.#bytes.subarray(this.#position)
    this.#captured = []
    // A packet that lies across the border is put together, and no more than that is copied.
    const most = left.length === 0 ? 0 : MOST_JOINED
    if (most > 0) this.#read(Buffer.concat([left, piece.subarray(0, most)]))
    if (piece.length > most && this.#broken === undefined) {
      const rest = this.#bytes.length - this.#position
      if (most === 0) this.#read(piece)
      else if (rest <= most) this.#read(piece.subarray(most - rest))
      else this.#read(Buffer.concat([this.#bytes.subarray(this.#position), piece.subarray(most)]))
    }
    // What was read before the break is delivered first.
    if (this.#broken !== undefined && this.#captured.length === 0) throw this.#broken
    return this.#captured
  }

  /** Goes on with bytes that begin where the last packet ended. */
  #read(bytes: Uint8Array): void {
    this.#offset += this.#position
    this.#position = 0
    this.#bytes = bytes
    this.#view = viewOf(bytes)
    try {
      if (this.#format === 'unknown') this.#begin()
      if (this.#format === 'pcap') this.#records()
      if (this.#format === 'pcapng') this.#blocks()
    } catch (error) {
      this.#broken = error
    }
  }

  /** Fails when the capture ends within a packet. */
  end(): void {
    if (this.#broken !== undefined) throw this.#broken
    const left = this.#bytes.length - this.#position
    if (this.#format === 'unknown') {
      throw this.#error('truncated', `the header needs 24 bytes, ${left} left`, this.#position)
    }
    if (left > 0) {
      throw this.#error('truncated', `packet ${this.#packets + 1} is cut, ${left} bytes left`, this.#position)
    }
  }

  #begin(): void {
    if (this.#bytes.length < 4) return
    const magic = this.#view.getUint32(0)
    if (magic === SECTION_HEADER) {
      this.#format = 'pcapng'
      return
    }
    const kind = PCAP_MAGIC.get(magic)
    if (kind === undefined) {
      throw this.#error('format', `0x${magic.toString(16).padStart(8, '0')} does not begin a capture`, 0)
    }
    if (this.#bytes.length < 24) return
    this.#format = 'pcap'
    this.#littleEndian = kind.littleEndian
    // The upper bits of the word hold the length of the frame check sequence.
    const linkType = this.#view.getUint32(20, kind.littleEndian) & 0xffff
    if (!isKnownLink(linkType)) throw this.#error('format', `link type ${linkType} is not supported`, 20)
    this.#interfaces.push({ linkType, nanosecondsPerUnit: kind.nanosecondsPerUnit, offsetNanoseconds: 0n })
    this.#position = 24
  }

  #records(): void {
    const view = this.#view
    const little = this.#littleEndian
    const [link] = this.#interfaces
    const unit = Number(link!.nanosecondsPerUnit)
    while (this.#position + 16 <= this.#bytes.length) {
      const at = this.#position
      const captured = view.getUint32(at + 8, little)
      if (captured > MOST_BLOCK_BYTES) {
        throw this.#error('length', `packet ${this.#packets + 1} has ${captured} bytes`, at + 8)
      }
      if (at + 16 + captured > this.#bytes.length) return
      const seconds = view.getUint32(at, little)
      if (seconds !== this.#second) {
        this.#second = seconds
        this.#secondTime = BigInt(seconds) * 1_000_000_000n
      }
      const time = this.#secondTime + BigInt(view.getUint32(at + 4, little) * unit)
      this.#position = at + 16 + captured
      this.#packet(link!, at + 16, captured, time)
    }
  }

  #blocks(): void {
    while (this.#position + 12 <= this.#bytes.length) {
      const at = this.#position
      const view = this.#view
      if (view.getUint32(at) === SECTION_HEADER) {
        this.#littleEndian = view.getUint32(at + 8, true) === BYTE_ORDER
        if (!this.#littleEndian && view.getUint32(at + 8) !== BYTE_ORDER) {
          throw this.#error('format', 'section header without a byte order', at + 8)
        }
        this.#interfaces = []
      }
      const type = view.getUint32(at, this.#littleEndian)
      const length = view.getUint32(at + 4, this.#littleEndian)
      if (length < 12 || length % 4 !== 0 || length > MOST_BLOCK_BYTES) {
        throw this.#error('length', `block of type ${type} has ${length} bytes`, at + 4)
      }
      if (at + length > this.#bytes.length) return
      if (view.getUint32(at + length - 4, this.#littleEndian) !== length) {
        throw this.#error('length', `block of type ${type} ends with another length`, at + length - 4)
      }
      this.#position = at + length
      this.#block(type, at + 8, at + length - 4)
    }
  }

  /** The body of a block, from `at` to `end`. */
  #block(type: number, at: number, end: number): void {
    const view = this.#view
    const little = this.#littleEndian
    if (type === INTERFACE_DESCRIPTION) {
      this.#need(at, end, 8, type)
      this.#interfaces.push({ linkType: view.getUint16(at, little), ...this.#timeOptions(at + 8, end) })
    } else if (type === SIMPLE_PACKET) {
      this.#need(at, end, 4, type)
      const captured = Math.min(view.getUint32(at, little), end - at - 4)
      this.#packet(this.#interface(0, at), at + 4, captured, undefined)
    } else if (type === ENHANCED_PACKET) {
      this.#need(at, end, 20, type)
      const link = this.#interface(view.getUint32(at, little), at)
      const captured = view.getUint32(at + 12, little)
      this.#need(at, end, 20 + captured, type)
      const units = (BigInt(view.getUint32(at + 4, little)) << 32n) | BigInt(view.getUint32(at + 8, little))
      this.#packet(link, at + 20, captured, units * link.nanosecondsPerUnit + link.offsetNanoseconds)
    }
  }

  #need(at: number, end: number, count: number, type: number): void {
    if (at + count > end) {
      throw this.#error('truncated', `block of type ${type} needs ${count} bytes, has ${end - at}`, at)
    }
  }

  #interface(number: number, at: number): CaptureInterface {
    const found = this.#interfaces[number]
    if (found === undefined) throw this.#error('format', `interface ${number} is not described`, at)
    return found
  }

  #timeOptions(start: number, end: number): { nanosecondsPerUnit: bigint; offsetNanoseconds: bigint } {
    const view = this.#view
    const little = this.#littleEndian
    let nanosecondsPerUnit = 1000n
    let offsetNanoseconds = 0n
    for (let at = start; at + 4 <= end; at += 4 + padded(view.getUint16(at + 2, little))) {
      const option = view.getUint16(at, little)
      const length = view.getUint16(at + 2, little)
      if (at + 4 + length > end)
        throw this.#error('truncated', `option ${option} has ${length} bytes`, at + 2)
      if (option === OPTION_TIME_RESOLUTION && length === 1) {
        const resolution = view.getUint8(at + 4)
        // Finer than a nanosecond, and powers of two, do not occur in practice.
        if (resolution > 9)
          throw this.#error('format', `time resolution ${resolution} is not supported`, at + 4)
        nanosecondsPerUnit = 10n ** BigInt(9 - resolution)
      }
      if (option === OPTION_TIME_OFFSET && length === 8) {
        offsetNanoseconds = view.getBigInt64(at + 4, little) * 1_000_000_000n
      }
    }
    return { nanosecondsPerUnit, offsetNanoseconds }
  }

  #packet(link: CaptureInterface, at: number, captured: number, time: bigint | undefined): void {
    const number = ++this.#packets
    const offset = this.#offset + at
    const end = at + captured
    if (!isKnownLink(link.linkType)) {
      if (!this.#noted.has(link.linkType)) {
        this.#noted.add(link.linkType)
        const reason = `link type ${link.linkType} is not supported`
        this.#captured.push({ packet: number, offset, reason })
      }
      return
    }
    const fields = this.#fields
    readLink(fields, link.linkType, this.#bytes, at, end)
    if (fields.ipProtocol !== IP_PROTOCOL.udp || fields.dstPort !== this.#port) return
    const { payloadAt: start, payloadLength: length } = fields
    const from = this.#sender()
    if (fields.fragmentOffset >= 0) {
      this.#captured.push({ packet: number, offset, reason: `first fragment of a datagram from ${from}` })
    } else if (start < 0 || start + length > end) {
      this.#captured.push({ packet: number, offset, reason: `cut by the capture: a datagram from ${from}` })
    } else {
      const bytes = this.#bytes.subarray(start, start + length)
      this.#captured.push({ bytes, time, from, packet: number })
    }
  }

  /** Address and port that the packet came from. */
  #sender(): string {
    const { srcAt, srcPort } = this.#fields
    if (this.#fields.ipVersion === 6) return endpoint(formatIp6(this.#bytes, srcAt), srcPort)
    const key = this.#view.getUint32(srcAt) * 0x10000 + srcPort
    const known = this.#senders.get(key)
    if (known !== undefined) return known
    if (this.#senders.size >= MOST_SENDERS) this.#senders.clear()
    const name = endpoint(formatIp4(this.#bytes, srcAt), srcPort)
    this.#senders.set(key, name)
    return name
  }

  #error(code: 'truncated' | 'format' | 'length', text: string, at: number): WireError {
    return new WireError(code, text, this.#offset + at, ['capture'])
  }
}

/** What is written of a capture, in memory that is used again and again: bytes 0 to `length`. */
export class CaptureMemory {
  bytes: Uint8Array = new Uint8Array(1 << 16)
  view = viewOf(this.bytes)
  length = 0

  /** Makes room for so many bytes behind the rest, all 0; gives where they begin. */
  reserve(count: number): number {
    const at = this.length
    this.length += count
    if (this.length > this.bytes.length) {
      const longer = new Uint8Array(2 * this.length)
      longer.set(this.bytes.subarray(0, at))
      this.bytes = longer
      this.view = viewOf(longer)
    }
    this.bytes.fill(0, at, this.length)
    return at
  }

  /** Copies bytes `start` to `end` of a packet to `at`: these are few, so that a view of them would cost more. */
  put(at: number, { bytes, start, end }: CapturedBytes): void {
    const to = this.bytes
    for (let i = start; i < end; i++) to[at + i - start] = bytes[i]!
  }
}

/** What is there of a packet. */
export interface CapturedBytes {
  readonly bytes: Uint8Array
  readonly start: number
  readonly end: number
}

/** Writes pcap with nanoseconds, big-endian: header(), then packets as they come. */
export class PcapWriter {
  readonly linkType: number
  readonly #memory: CaptureMemory

  constructor(linkType: number, memory: CaptureMemory) {
    this.linkType = linkType
    this.#memory = memory
  }

  /** What the file begins with. */
  header(): void {
    const at = this.#memory.reserve(24)
    const { view } = this.#memory
    view.setUint32(at, 0xa1b23c4d)
    view.setUint16(at + 4, 2)
    view.setUint16(at + 6, 4)
    view.setUint32(at + 16, SNAP_BYTES)
    view.setUint32(at + 20, this.linkType)
  }

  /** A packet of `length` bytes of which `captured` are there. `time`: nanoseconds since 1970. */
  packet(captured: CapturedBytes, length: number, time: bigint): void {
    const count = captured.end - captured.start
    const at = this.#memory.reserve(16 + count)
    const { view } = this.#memory
    view.setUint32(at, Number((time / 1_000_000_000n) & 0xffffffffn))
    view.setUint32(at + 4, Number(time % 1_000_000_000n))
    view.setUint32(at + 8, count)
    view.setUint32(at + 12, length)
    this.#memory.put(at + 16, captured)
  }
}

/** Writes pcapng with nanoseconds, big-endian: header(), then interfaces and packets as they come. */
export class PcapngWriter {
  readonly #memory: CaptureMemory

  constructor(memory: CaptureMemory) {
    this.#memory = memory
  }

  header(): void {
    const at = this.#begin(SECTION_HEADER, 16)
    const { view } = this.#memory
    view.setUint32(at, BYTE_ORDER)
    view.setUint16(at + 4, 1)
    // The length of the section is not known.
    view.setBigUint64(at + 8, 0xffffffffffffffffn)
    this.#end(at)
  }

  /** Interfaces are numbered from 0 in the order in which they are described. */
  interface(linkType: number, name: string): void {
    const at = this.#begin(INTERFACE_DESCRIPTION, 8)
    this.#memory.view.setUint16(at, linkType)
    this.#memory.view.setUint32(at + 4, SNAP_BYTES)
    this.#option(OPTION_NAME, utf8.encode(name))
    this.#option(OPTION_TIME_RESOLUTION, Uint8Array.of(9))
    this.#memory.reserve(END_OF_OPTIONS_BYTES)
    this.#end(at)
  }

  /** A packet of `length` bytes of which `captured` are there. `time`: nanoseconds since 1970. */
  packet(
    number: number,
    captured: CapturedBytes,
    length: number,
    time: bigint,
    comment: Uint8Array | undefined,
  ): void {
    const count = captured.end - captured.start
    const at = this.#begin(ENHANCED_PACKET, 20 + padded(count))
    const { view } = this.#memory
    view.setUint32(at, number)
    view.setBigUint64(at + 4, time)
    view.setUint32(at + 12, count)
    view.setUint32(at + 16, length)
    this.#memory.put(at + 20, captured)
    if (comment !== undefined) {
      this.#option(OPTION_COMMENT, comment)
      this.#memory.reserve(END_OF_OPTIONS_BYTES)
    }
    this.#end(at)
  }

  /** Begins a block; gives where its body of so many bytes is. */
  #begin(type: number, bodyBytes: number): number {
    const at = this.#memory.reserve(8 + bodyBytes)
    this.#memory.view.setUint32(at, type)
    return at + 8
  }

  #end(body: number): void {
    const at = this.#memory.reserve(4)
    const length = at + 4 - (body - 8)
    this.#memory.view.setUint32(body - 4, length)
    this.#memory.view.setUint32(at, length)
  }

  #option(code: number, value: Uint8Array): void {
    const at = this.#memory.reserve(4 + padded(value.length))
    this.#memory.view.setUint16(at, code)
    this.#memory.view.setUint16(at + 2, value.length)
    this.#memory.bytes.set(value, at + 4)
  }
}

const SNAP_BYTES = 262_144
const OPTION_COMMENT = 1
const OPTION_NAME = 2
const END_OF_OPTIONS_BYTES = 4
const utf8 = new TextEncoder()

/** Link types (tcpdump.org/linktypes.html). */
const LINK = {
  null: 0,
  ethernet: 1,
  rawBsd: 12,
  rawOpenBsd: 14,
  raw: 101,
  loop: 108,
  linuxCooked: 113,
  ipv4: 228,
  ipv6: 229,
  linuxCooked2: 276,
} as const

const KNOWN_LINKS: ReadonlySet<number> = new Set(Object.values(LINK))

function isKnownLink(linkType: number): boolean {
  return KNOWN_LINKS.has(linkType)
}

function readLink(fields: PacketFields, linkType: number, bytes: Uint8Array, at: number, end: number): void {
  switch (linkType) {
    case LINK.ethernet:
      fields.readEthernet(bytes, at, end)
      break
    case LINK.null:
    case LINK.loop:
      readIp(fields, bytes, at + 4, end)
      break
    case LINK.linuxCooked:
      readBehind(fields, bytes, at + 14, at + 16, end)
      break
    case LINK.linuxCooked2:
      readBehind(fields, bytes, at, at + 20, end)
      break
    default:
      readIp(fields, bytes, at, end)
  }
}

/** The EtherType is at `typeAt`, what it announces at `at`. */
function readBehind(fields: PacketFields, bytes: Uint8Array, typeAt: number, at: number, end: number): void {
  const type = end < at ? 0 : (bytes[typeAt]! << 8) | bytes[typeAt + 1]!
  fields.readNetwork(type, bytes, at, end)
}

/** An IP packet, the version taken from itself: the address family before it differs from system to system. */
function readIp(fields: PacketFields, bytes: Uint8Array, at: number, end: number): void {
  const isIp6 = at < end && bytes[at]! >> 4 === 6
  fields.readNetwork(isIp6 ? ETHERTYPE.ipv6 : ETHERTYPE.ipv4, bytes, at, end)
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
