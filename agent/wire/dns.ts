/** DNS messages (RFC 1035): a question for SRV or TXT records, and the records of the answer. Pure. */

export const DNS_TYPE = { CNAME: 5, TXT: 16, SRV: 33 } as const
const CLASS_IN = 1
const HEADER_BYTES = 12
const RESPONSE = 0x8000
const TRUNCATED = 0x0200
const RECURSION_DESIRED = 0x0100

/** RFC 2782. */
export interface SrvRecord {
  readonly type: 'SRV'
  readonly ttlSeconds: number
  readonly priority: number
  readonly weight: number
  readonly port: number
  /** Without the dot at its end; empty: there is no such service. */
  readonly target: string
}

export interface TxtRecord {
  readonly type: 'TXT'
  readonly ttlSeconds: number
  readonly strings: readonly string[]
}

export interface DnsAnswer {
  readonly id: number
  readonly truncated: boolean
  /** 0 no error, 2 server failure, 3 no such name (RFC 1035 §4.1.1). */
  readonly responseCode: number
  /** The SRV and TXT records of the answer section; others are left out. */
  readonly records: readonly (SrvRecord | TxtRecord)[]
  /** The least TTL of the answer section, other types included; undefined when it is empty. */
  readonly leastTtlSeconds: number | undefined
}

/** What is not a DNS answer, with the byte offset at which that shows. */
export class DnsFormatError extends Error {
  override readonly name = 'DnsFormatError'
  readonly offset: number

  constructor(text: string, offset: number) {
    super(`DNS answer: ${text} at byte offset ${offset}`)
    this.offset = offset
  }
}

/** A question, recursion desired. Undefined when the name is none: labels have 1 to 63 bytes, all 255 at most. */
export function dnsQuestion(id: number, name: string, type: number): Uint8Array | undefined {
  const labels = name.replace(/\.$/, '').split('.')
  const encoded = labels.map(label => new TextEncoder().encode(label))
  const nameBytes = encoded.reduce((sum, label) => sum + 1 + label.length, 1)
  if (nameBytes > 255 || encoded.some(({ length }) => length === 0 || length > 63)) return undefined
  const bytes = new Uint8Array(HEADER_BYTES + nameBytes + 4)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, id)
  view.setUint16(2, RECURSION_DESIRED)
  view.setUint16(4, 1)
  let at = HEADER_BYTES
  for (const label of encoded) {
    bytes[at] = label.length
    bytes.set(label, at + 1)
    at += 1 + label.length
  }
  view.setUint16(at + 1, type)
  view.setUint16(at + 3, CLASS_IN)
  return bytes
}

/** Reads an answer; what cannot be one is a DnsFormatError. */
export function readDnsAnswer(bytes: Uint8Array): DnsAnswer {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const need = (at: number, count: number, what: string) => {
    if (at + count > bytes.length) throw new DnsFormatError(`${what} is cut off`, at)
  }
  need(0, HEADER_BYTES, 'the header')
  const flags = view.getUint16(2)
  if ((flags & RESPONSE) === 0) throw new DnsFormatError('not a response', 2)
  let at = HEADER_BYTES
  for (let left = view.getUint16(4); left > 0; left--) {
    at = readName(bytes, at).end
    need(at, 4, 'a question')
    at += 4
  }
  const records: (SrvRecord | TxtRecord)[] = []
  let leastTtlSeconds: number | undefined
  for (let left = view.getUint16(6); left > 0; left--) {
    at = readName(bytes, at).end
    need(at, 10, 'a record')
    const type = view.getUint16(at)
    // The highest bit is no part of it (RFC 2181 §8): such a TTL counts as 0.
    const ttl = view.getInt32(at + 4)
    const ttlSeconds = Math.max(ttl, 0)
    const start = at + 10
    const end = start + view.getUint16(at + 8)
    need(start, end - start, 'the data of a record')
    leastTtlSeconds = Math.min(leastTtlSeconds ?? ttlSeconds, ttlSeconds)
    if (type === DNS_TYPE.SRV) {
      need(start, 7, 'an SRV record')
      const target = readName(bytes, start + 6)
      if (target.end !== end)
        throw new DnsFormatError('an SRV record does not end with its target', target.end)
      records.push({
        type: 'SRV',
        ttlSeconds,
        priority: view.getUint16(start),
        weight: view.getUint16(start + 2),
        port: view.getUint16(start + 4),
        target: target.name,
      })
    } else if (type === DNS_TYPE.TXT) {
      records.push({ type: 'TXT', ttlSeconds, strings: readStrings(bytes, start, end) })
    }
    at = end
  }
  const truncated = (flags & TRUNCATED) !== 0
  return { id: view.getUint16(0), truncated, responseCode: flags & 0xf, records, leastTtlSeconds }
}

/** A name, with the offset behind it; the end of a name may be a pointer back to an earlier one (RFC 1035 §4.1.4). */
function readName(bytes: Uint8Array, start: number): { name: string; end: number } {
  const labels: string[] = []
  let end = -1
  let at = start
  for (;;) {
    const length = bytes[at]
    if (length === undefined) throw new DnsFormatError('a name is cut off', at)
    if (length === 0) return { name: labels.join('.'), end: end < 0 ? at + 1 : end }
    if (length >= 0xc0) {
      const low = bytes[at + 1]
      if (low === undefined) throw new DnsFormatError('a name is cut off', at)
      if (end < 0) end = at + 2
      const target = ((length & 0x3f) << 8) | low
      // Only ever backwards, so that no two pointers go round in a circle.
      if (target >= at || target < HEADER_BYTES) throw new DnsFormatError('a name points forwards', at)
      at = target
      if (labels.length > 127) throw new DnsFormatError('a name is too long', start)
      continue
    }
    if (length > 63) throw new DnsFormatError('a label of unknown kind', at)
    if (at + 1 + length > bytes.length) throw new DnsFormatError('a name is cut off', at)
    if (labels.length > 127) throw new DnsFormatError('a name is too long', start)
    labels.push(new TextDecoder().decode(bytes.subarray(at + 1, at + 1 + length)))
    at += 1 + length
  }
}

function readStrings(bytes: Uint8Array, start: number, end: number): string[] {
  const strings: string[] = []
  for (let at = start; at < end; ) {
    const next = at + 1 + bytes[at]!
    if (next > end) throw new DnsFormatError('a string is longer than its record', at)
    strings.push(new TextDecoder().decode(bytes.subarray(at + 1, next)))
    at = next
  }
  return strings
}
