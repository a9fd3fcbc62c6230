/**
 * Libvirt's own protocol (src/remote/remote_protocol.x, src/rpc/virnetprotocol.x of libvirt), as much of it as tells of
 * running domains. Messages are XDR behind a header:
 *
 *     length u32, itself included · program u32 · version u32 · procedure i32 · type i32 · serial u32 · status i32
 */
import { formatUuid } from './addresses.ts'
import { Reader, Writer } from './xdr.ts'

export const LIBVIRT_PROGRAM = 0x2000_8086
const VERSION = 1
const HEADER_BYTES = 28

export const LIBVIRT_PROCEDURE = {
  connectOpen: 1,
  domainGetXmlDesc: 14,
  authList: 66,
  connectGetAllDomainStats: 344,
} as const

/** Types and statuses of a message. */
export const LIBVIRT_TYPE = { call: 0, reply: 1 } as const
export const LIBVIRT_STATUS = { ok: 0, error: 1 } as const

/** Longest message that libvirt sends (VIR_NET_MESSAGE_MAX). */
const LIBVIRT_MAX_BYTES = 33_554_432

export interface LibvirtMessage {
  readonly program: number
  readonly procedure: number
  readonly type: number
  readonly serial: number
  readonly status: number
  /** What follows the header. */
  readonly body: Reader
}

/** Length of the message that begins with `bytes`; undefined while they are too few to tell. */
export function libvirtMessageLength(bytes: Uint8Array): number | undefined {
  if (bytes.length < 4) return undefined
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0)
  if (length < HEADER_BYTES || length > LIBVIRT_MAX_BYTES) {
    throw new Error(`it sends no libvirt message: its length would be ${length}`)
  }
  return length
}

/** Reads the header of one whole message. */
export function readLibvirtMessage(bytes: Uint8Array): LibvirtMessage {
  const reader = new Reader(bytes)
  reader.u32('length')
  const program = reader.u32('program')
  reader.u32('version')
  const procedure = reader.i32('procedure')
  const type = reader.i32('type')
  const serial = reader.u32('serial')
  const status = reader.i32('status')
  return { program, procedure, type, serial, status, body: reader }
}

/** A call as bytes: the header, and the arguments. */
export function writeLibvirtCall(procedure: number, serial: number, args: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + args.length)
  const writer = new Writer(new DataView(bytes.buffer))
  const header = [
    bytes.length,
    LIBVIRT_PROGRAM,
    VERSION,
    procedure,
    LIBVIRT_TYPE.call,
    serial,
    LIBVIRT_STATUS.ok,
  ]
  for (const word of header) writer.u32(word, 'header')
  writer.bytes(args, 'arguments')
  return bytes
}

/** Arguments: numbers of 32 bits, and bytes that are copied with their padding as they are. */
export function libvirtArguments(...values: readonly (number | Uint8Array)[]): Uint8Array {
  const bytes = new Uint8Array(
    values.reduce<number>((sum, v) => sum + (typeof v === 'number' ? 4 : align(v.length)), 0),
  )
  const writer = new Writer(new DataView(bytes.buffer))
  for (const value of values) {
    if (typeof value === 'number') writer.u32(value >>> 0, 'number')
    else writer.bytes(value, 'bytes')
  }
  return bytes
}

function align(length: number): number {
  return (length + 3) & ~3
}

/** Text as an argument: its length, and its bytes. */
export function libvirtText(text: string): Uint8Array {
  const bytes = Buffer.from(text)
  return libvirtArguments(bytes.length, bytes)
}

/** Message of a remote_error: code, domain, and the text behind the mark that there is one. */
export function readLibvirtError(body: Reader): string {
  body.i32('code')
  body.i32('domain')
  return body.u32('message') === 0 ? 'an error without a message' : readText(body, 'message')
}

/** A domain, as remote_nonnull_domain. */
export interface LibvirtDomain {
  readonly name: string
  readonly uuid: string
  /** Bytes that stand for it in a call. */
  readonly handle: Uint8Array
}

/** A figure of a domain: `vcpu.current`, `net.0.rx.bytes`; text for names. */
export type LibvirtStats = ReadonlyMap<string, bigint | number | string | boolean>

export interface LibvirtRecord {
  readonly domain: LibvirtDomain
  readonly stats: LibvirtStats
}

/** Answer to connectGetAllDomainStats: domains with their figures. */
export function readDomainStats(body: Reader): LibvirtRecord[] {
  const records: LibvirtRecord[] = []
  const count = readCount(body, 'domains', 32)
  for (let i = 0; i < count; i++) {
    const domain = readDomain(body)
    const stats = new Map<string, bigint | number | string | boolean>()
    const params = readCount(body, 'parameters', 12)
    for (let k = 0; k < params; k++) {
      const name = readText(body, 'name of a parameter')
      stats.set(name, readParameter(body, name))
    }
    records.push({ domain, stats })
  }
  return records
}

function readDomain(body: Reader): LibvirtDomain {
  const name = readText(body, 'name of a domain')
  const uuid = body.bytes(16, 'uuid')
  const id = body.i32('id')
  return { name, uuid: formatUuid(uuid), handle: libvirtArguments(libvirtText(name), uuid, id) }
}

/** Types of virTypedParameter. */
const PARAMETER = { int: 1, uint: 2, llong: 3, ullong: 4, double: 5, boolean: 6, text: 7 } as const

function readParameter(body: Reader, name: string): bigint | number | string | boolean {
  const at = body.offset
  const type = body.u32('type of a parameter')
  switch (type) {
    case PARAMETER.int:
      return body.i32(name)
    case PARAMETER.uint:
      return body.u32(name)
    case PARAMETER.llong:
      return BigInt.asIntN(64, body.u64(name))
    case PARAMETER.ullong:
      return body.u64(name)
    case PARAMETER.double:
      return body.f64(name)
    case PARAMETER.boolean:
      return body.u32(name) !== 0
    case PARAMETER.text:
      return readText(body, name)
    default:
      throw body.fail('discriminant', `parameter ${name} has the unknown type ${type}`, at)
  }
}

/** Text with its length, as in every answer. */
export function readText(body: Reader, name: string): string {
  return utf8.decode(body.bytes(body.u32(name), name))
}

function readCount(body: Reader, name: string, leastBytes: number): number {
  const at = body.offset
  const count = body.u32(name)
  if (count * leastBytes > body.left) {
    throw body.fail('count', `${count} ${name}, ${body.left} bytes left`, at)
  }
  return count
}

const utf8 = new TextDecoder('utf-8')
