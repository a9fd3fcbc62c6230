/**
 * UDP datagrams from a packet capture: pcap in both byte orders with micro- or nanoseconds (the Internet-Draft
 * draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).
 */

import { ETHERTYPE, endpoint, IP_PROTOCOL, type Packet, parseEthernet, parseNetwork } from './packet.ts'
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

/** Whether the bytes begin as a capture does. At least 4 are needed. */
export function isPcap(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false
  const magic = viewOf(bytes).getUint32(0)
  return magic === SECTION_HEADER || PCAP_MAGIC.has(magic)
}

/** Everything in a capture that is sent to UDP port `port`. Fails with a WireError where the capture is broken. */
export function* datagramsFromPcap(bytes: Uint8Array, port: number): Generator<Captured> {
  const reader = new PcapReader(port)
  yield* reader.push(bytes)
  reader.end()
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
  #noted = new Set<number>()

  constructor(port: number) {
    this.#port = port
  }

  /** The datagrams that are complete now. */
  *push(piece: Uint8Array): Generator<Captured> {
    const left = this.#bytes.subarray(this.#position)
    this.#offset += this.#position
    this.#position = 0
    this.#bytes = left.length === 0 ? piece : Buffer.concat([left, piece])
    this.#view = viewOf(this.#bytes)
    if (this.#format === 'unknown') this.#begin()
    if (this.#format === 'pcap') yield* this.#records()
    if (this.#format === 'pcapng') yield* this.#blocks()
  }

  /** Fails when the capture ends within a packet. */
  end(): void {
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

  *#records(): Generator<Captured> {
    const view = this.#view
    const little = this.#littleEndian
    const [link] = this.#interfaces
    while (this.#position + 16 <= this.#bytes.length) {
      const at = this.#position
      const captured = view.getUint32(at + 8, little)
      if (captured > MOST_BLOCK_BYTES) {
        throw this.#error('length', `packet ${this.#packets + 1} has ${captured} bytes`, at + 8)
      }
      if (at + 16 + captured > this.#bytes.length) return
      const seconds = BigInt(view.getUint32(at, little))
      const fraction = BigInt(view.getUint32(at + 4, little))
      const time = seconds * 1_000_000_000n + fraction * link!.nanosecondsPerUnit
      this.#position = at + 16 + captured
      yield* this.#packet(link!, at + 16, captured, time)
    }
  }

  *#blocks(): Generator<Captured> {
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
      yield* this.#block(type, at + 8, at + length - 4)
    }
  }

  /** The body of a block, from `at` to `end`. */
  *#block(type: number, at: number, end: number): Generator<Captured> {
    const view = this.#view
    const little = this.#littleEndian
    if (type === INTERFACE_DESCRIPTION) {
      this.#need(at, end, 8, type)
      this.#interfaces.push({ linkType: view.getUint16(at, little), ...this.#timeOptions(at + 8, end) })
    } else if (type === SIMPLE_PACKET) {
      this.#need(at, end, 4, type)
      const captured = Math.min(view.getUint32(at, little), end - at - 4)
      yield* this.#packet(this.#interface(0, at), at + 4, captured, undefined)
    } else if (type === ENHANCED_PACKET) {
      this.#need(at, end, 20, type)
      const link = this.#interface(view.getUint32(at, little), at)
      const captured = view.getUint32(at + 12, little)
      this.#need(at, end, 20 + captured, type)
      const units = (BigInt(view.getUint32(at + 4, little)) << 32n) | BigInt(view.getUint32(at + 8, little))
      yield* this.#packet(link, at + 20, captured, units * link.nanosecondsPerUnit + link.offsetNanoseconds)
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

  *#packet(
    link: CaptureInterface,
    at: number,
    captured: number,
    time: bigint | undefined,
  ): Generator<Captured> {
    const number = ++this.#packets
    const offset = this.#offset + at
    const frame = this.#bytes.subarray(at, at + captured)
    if (!isKnownLink(link.linkType)) {
      if (!this.#noted.has(link.linkType)) {
        this.#noted.add(link.linkType)
        yield { packet: number, offset, reason: `link type ${link.linkType} is not supported` }
      }
      return
    }
    const packet = parseLink(link.linkType, frame)
    if (packet.ip_protocol !== IP_PROTOCOL.udp || packet.dst_port !== this.#port) return
    const { payload_offset: start, payload_length: length, src_ip, src_port } = packet
    const from = endpoint(src_ip!, src_port)
    if (packet.fragment_offset !== undefined) {
      yield { packet: number, offset, reason: `first fragment of a datagram from ${from}` }
    } else if (start === undefined || length === undefined || start + length > frame.length) {
      yield { packet: number, offset, reason: `cut by the capture: a datagram from ${from}` }
    } else {
      yield { bytes: frame.subarray(start, start + length), time, from, packet: number }
    }
  }

  #error(code: 'truncated' | 'format' | 'length', text: string, at: number): WireError {
    return new WireError(code, text, this.#offset + at, ['capture'])
  }
}

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

function isKnownLink(linkType: number): boolean {
  return (Object.values(LINK) as number[]).includes(linkType)
}

function parseLink(linkType: number, frame: Uint8Array): Packet {
  switch (linkType) {
    case LINK.ethernet:
      return parseEthernet(frame)
    case LINK.null:
    case LINK.loop:
      return parseIp(frame, 4)
    case LINK.linuxCooked:
      return parseBehind(frame, 14, 16)
    case LINK.linuxCooked2:
      return parseBehind(frame, 0, 20)
    default:
      return parseIp(frame, 0)
  }
}

/** The EtherType is at `typeAt`, what it announces at `offset`. */
function parseBehind(frame: Uint8Array, typeAt: number, offset: number): Packet {
  return frame.length < offset ? {} : parseNetwork(viewOf(frame).getUint16(typeAt), frame, offset)
}

/** An IP packet, the version taken from itself: the address family before it differs from system to system. */
function parseIp(frame: Uint8Array, offset: number): Packet {
  if (frame.length <= offset) return {}
  return parseNetwork(frame[offset]! >> 4 === 6 ? ETHERTYPE.ipv6 : ETHERTYPE.ipv4, frame, offset)
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
