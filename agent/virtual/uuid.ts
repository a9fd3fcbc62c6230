import { formatUuid, parseIp4, parseIp6, parseUuid } from '../wire/addresses.ts'

/** UUIDs and data source indexes, derived as hsflowd derives them, so that collectors go on with what they have. */

/**
 * UUID of what has only a name: version 5 (RFC 9562 §5.5), the host's UUID being the namespace, over the name and the
 * bytes of the agent address (four zeros without one).
 */
export function uuidOfName(hostUuid: string, name: string, agentAddress: string | undefined): string {
  // Loaded here because OpenSSL costs four megabytes of memory, and most agents do without.
  const { createHash } = process.getBuiltinModule('node:crypto')
  const address = agentAddress ?? '0.0.0.0'
  const bytes = createHash('sha1')
    .update(parseUuid(hostUuid)!)
    .update(name)
    .update(parseIp4(address) ?? parseIp6(address)!)
    .digest()
    .subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x50
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return formatUuid(bytes)
}

/** UUID of a container: the first 16 bytes of its id, which is 64 hex digits; undefined for another form of id. */
export function uuidOfContainer(id: string): string | undefined {
  return /^[0-9a-f]{32}/i.test(id) ? formatUuid(Buffer.from(id.slice(0, 32), 'hex')) : undefined
}

/** Indexes of data sources for what has a UUID: from here, so many. */
export const FIRST_INDEX = 100_000
export const INDEXES = 50_000

/** Chooses indexes by a hash (FNV-1a, 32 bits) of the UUID, and the next free one where that is taken. */
export class DataSourceIndexes {
  readonly #used = new Set<number>()

  /** Undefined when all are taken. */
  take(uuid: string): number | undefined {
    if (this.#used.size >= INDEXES) return undefined
    let offset = fnv1a(parseUuid(uuid)!) % INDEXES
    while (this.#used.has(FIRST_INDEX + offset)) offset = (offset + 1) % INDEXES
    this.#used.add(FIRST_INDEX + offset)
    return FIRST_INDEX + offset
  }

  free(index: number): void {
    this.#used.delete(index)
  }
}

function fnv1a(bytes: Uint8Array): number {
  let hash = 0x811c_9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x0100_0193) >>> 0
  return hash
}
