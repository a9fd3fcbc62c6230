/** host_descr (0:2000): who this host is. */

import { machine } from 'node:os'
import { readTextFile, readTextFileIfAny } from '../kernel/files.ts'
import { hostDescr } from '../wire/sflow/counters/host.ts'
import type { CounterReader } from './reader.ts'

export interface HostDescrOptions {
  /** UUID from the configuration, with dashes; undefined takes the machine's. */
  readonly uuid: string | undefined
  /** As `uname -m` says. */
  readonly machine?: string | undefined
}

/**
 * All of it is in files, so no program is started for it. The name and the release are read anew each time (a host
 * can be renamed), the UUID once.
 */
export function hostDescrReader(root: string, options: HostDescrOptions): CounterReader<typeof hostDescr> {
  const LINUX = 2
  let uuid = options.uuid
  return {
    record: hostDescr,
    async read() {
      const [hostname, release] = await Promise.all([
        readTextFile(root, 'proc/sys/kernel/hostname'),
        readTextFile(root, 'proc/sys/kernel/osrelease'),
      ])
      uuid ??= await readHostUuid(root)
      return {
        hostname: hostname.text.trim(),
        uuid,
        machine_type: machineType(options.machine ?? machine()),
        os_name: LINUX,
        os_release: release.text.trim(),
      }
    },
  }
}

export const UNKNOWN_UUID = '00000000-0000-0000-0000-000000000000'

/**
 * The UUID of this machine, the same after each start: the one in its firmware (which only root may read), else one
 * made of the machine id, else UNKNOWN_UUID. A container sees the firmware of its host; give it a `uuid` of its own.
 */
export async function readHostUuid(root: string): Promise<string> {
  const firmware = await readTextFileIfAny(root, 'sys/class/dmi/id/product_uuid')
  const uuid = firmware?.text.trim().toLowerCase() ?? ''
  if (UUID.test(uuid) && !PLACEHOLDER.test(uuid)) return uuid
  const machineId = await readTextFileIfAny(root, 'etc/machine-id')
  const id = machineId?.text.trim() ?? ''
  return /^[0-9a-f]{32}$/.test(id) ? uuidOfMachineId(id) : UNKNOWN_UUID
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** What boards carry whose maker set no UUID: all zeros, all ones, or the example of a firmware kit. */
const PLACEHOLDER = /^([0-]+|[f-]+|03000200-0400-0500-0006-000700080009)$/

/**
 * A UUID of version 8 (RFC 9562 §5.8): the first 16 bytes of HMAC-SHA256 over "weir host" with the 16 bytes of the
 * machine id as the key. The id itself is not to leave the machine (machine-id(5)).
 */
function uuidOfMachineId(machineId: string): string {
  // Loaded here because most hosts have a UUID of their own, and OpenSSL costs four megabytes of memory.
  const { createHmac } = process.getBuiltinModule('node:crypto')
  const bytes = createHmac('sha256', Buffer.from(machineId, 'hex'))
    .update('weir host')
    .digest()
    .subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x80
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** Number of the processor family (host structures, 2010) for a name as `uname -m` has it; 1 for others. */
export function machineType(name: string): number {
  const OTHER = 1
  return MACHINE_TYPES.find(([pattern]) => pattern.test(name))?.[1] ?? OTHER
}

const MACHINE_TYPES: readonly (readonly [RegExp, number])[] = [
  [/^i[3-6]86$/, 2],
  [/^x86_64$/, 3],
  [/^ia64$/, 4],
  [/^sparc/, 5],
  [/^alpha$/, 6],
  [/^ppc/, 7],
  [/^m68k$/, 8],
  [/^mips/, 9],
  [/^(arm|aarch64)/, 10],
  [/^parisc/, 11],
  [/^s390/, 12],
]
