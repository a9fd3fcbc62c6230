import { HEADER_PROTOCOL, type PacketSample } from '../samples/packet-sample.ts'
import { parseIp4, parseIp6, parseMac } from '../wire/addresses.ts'
import { PacketFields } from '../wire/packet.ts'

/**
 * Which container or pod a sampled packet comes from and goes to, for extended_entities: found by its addresses, those of
 * an inner header first.
 */

/** Someone who is known by addresses. */
export interface AddressedEntity {
  /** Data source index. */
  readonly index: number
  /** IPv4 and IPv6 addresses as text. */
  readonly addresses: readonly string[]
  readonly macs: readonly string[]
}

interface Known {
  readonly bytes: Uint8Array
  /** 0: several have this address, so it tells nothing. */
  index: number
}

/** By the last four bytes of the address. */
type Table = Map<number, Known[]>

const MAC_BYTES = 6

export class EntityAnnotator {
  #isEmpty = true
  #ips: Table = new Map()
  #macs: Table = new Map()
  readonly #fields = new PacketFields()
  #buffer: ArrayBufferLike | undefined
  #bytes: Uint8Array = new Uint8Array(0)

  /** Those who are there from now on, in groups: what one of an earlier group has, later groups do not get. */
  setEntities(groups: readonly (readonly AddressedEntity[])[]): void {
    const ips: Table = new Map()
    const macs: Table = new Map()
    for (const group of groups) {
      const [own, ownMacs]: [Table, Table] = [new Map(), new Map()]
      for (const { index, addresses, macs } of group) {
        for (const address of addresses) add(own, parseIp4(address) ?? parseIp6(address), index)
        for (const mac of macs) add(ownMacs, parseMac(mac), index)
      }
      merge(own, ips)
      merge(ownMacs, macs)
    }
    this.#ips = ips
    this.#macs = macs
    this.#isEmpty = ips.size === 0 && macs.size === 0
  }

  /** Sets `sourceEntity` and `destinationEntity`; allocates nothing but a view of memory that is new. */
  readonly annotate = (sample: PacketSample): void => {
    sample.sourceEntity = 0
    sample.destinationEntity = 0
    if (this.#isEmpty) return
    const { buffer } = sample.headerWords
    if (buffer !== this.#buffer) {
      this.#buffer = buffer
      this.#bytes = new Uint8Array(buffer)
    }
    const start = sample.headerWords.byteOffset + sample.headerOffset
    const end = start + sample.headerLength
    if (sample.innerOffset >= 0) {
      const at = start + sample.innerOffset
      this.#fields.read(innerProtocol(this.#bytes[at]!, sample.innerVni), this.#bytes, at, end)
      if (this.#find(sample)) return
    }
    this.#fields.read(sample.headerProtocol, this.#bytes, start, end)
    this.#find(sample)
  }

  #find(sample: PacketSample): boolean {
    const { ipVersion, srcAt, dstAt, macAt } = this.#fields
    if (ipVersion !== 0) {
      const length = ipVersion === 4 ? 4 : 16
      sample.sourceEntity = find(this.#ips, this.#bytes, srcAt, length)
      sample.destinationEntity = find(this.#ips, this.#bytes, dstAt, length)
    }
    if (macAt >= 0 && sample.sourceEntity === 0 && sample.destinationEntity === 0) {
      sample.destinationEntity = find(this.#macs, this.#bytes, macAt, MAC_BYTES)
      sample.sourceEntity = find(this.#macs, this.#bytes, macAt + MAC_BYTES, MAC_BYTES)
    }
    return sample.sourceEntity !== 0 || sample.destinationEntity !== 0
  }
}

/** What is in a virtual network is Ethernet; else the first byte tells. */
function innerProtocol(first: number, vni: number): number {
  if (vni >= 0) return HEADER_PROTOCOL.ethernet
  if (first >> 4 === 4) return HEADER_PROTOCOL.ipv4
  return first >> 4 === 6 ? HEADER_PROTOCOL.ipv6 : HEADER_PROTOCOL.ethernet
}

function add(table: Table, bytes: Uint8Array | undefined, index: number): void {
  if (bytes === undefined) return
  const key = keyAt(bytes, bytes.length)
  const alike = table.get(key)
  const same = alike?.find(known => Buffer.compare(known.bytes, bytes) === 0)
  if (same !== undefined) {
    if (same.index !== index) same.index = 0
  } else if (alike !== undefined) alike.push({ bytes, index })
  else table.set(key, [{ bytes, index }])
}

function merge(from: Table, to: Table): void {
  for (const [key, all] of from) {
    const before = to.get(key) ?? []
    const news = all.filter(({ bytes }) => before.every(known => Buffer.compare(known.bytes, bytes) !== 0))
    to.set(key, [...before, ...news])
  }
}

/** The four bytes before `end`. */
function keyAt(bytes: Uint8Array, end: number): number {
  return (bytes[end - 4]! << 24) | (bytes[end - 3]! << 16) | (bytes[end - 2]! << 8) | bytes[end - 1]!
}

/** Index of who has the address at `at`, 0 for nobody. */
function find(table: Table, bytes: Uint8Array, at: number, length: number): number {
  const alike = table.get(keyAt(bytes, at + length))
  if (alike === undefined) return 0
  for (let i = 0; i < alike.length; i++) {
    const known = alike[i]!
    if (known.bytes.length !== length) continue
    let k = 0
    while (k < length && known.bytes[k] === bytes[at + k]) k++
    if (k === length) return known.index
  }
  return 0
}
