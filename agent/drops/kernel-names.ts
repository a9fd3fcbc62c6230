import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readBtfEnum } from '../wire/btf.ts'
import { isKnownReason } from './classifier.ts'

/** The drop reasons that the running kernel has, by name, from its type information. */

/** One enumeration of reasons: whose it is, where it is, and what its names begin with. */
interface Source {
  /** File below /sys/kernel/btf. */
  readonly file: string
  readonly enumeration: string
  /** Left out of the name as the kernel reports it. */
  readonly prefix: string
}

const SOURCES: readonly Source[] = [
  { file: 'vmlinux', enumeration: 'skb_drop_reason', prefix: 'SKB_DROP_REASON_' },
  { file: 'vmlinux', enumeration: 'qdisc_drop_reason', prefix: '' },
  { file: 'openvswitch', enumeration: 'ovs_drop_reason', prefix: '' },
  { file: 'mac80211', enumeration: '___mac80211_drop_reason', prefix: '___' },
]

/** Members that mark a place in an enumeration and are no reason. */
const NO_REASON = /^(MAX|SUBSYS_MASK|__.*|OVS_DROP_MAX|QDISC_DROP_MAX|RX_CONTINUE|RX_QUEUED)$/

export interface KernelReason {
  /** As the kernel reports it. */
  readonly name: string
  /** Its number in this kernel, with the number of the subsystem where the enumeration has it. */
  readonly value: number
  /** File below /sys/kernel/btf. */
  readonly from: string
  /** False: it is reported with the code `unknown`. */
  readonly isMapped: boolean
}

/**
 * Reasons of the running kernel and of the modules that are loaded; empty where the kernel has no type information or
 * has no reasons yet (before Linux 5.17). `directory`: where the type information is.
 */
export function kernelReasons(directory = '/sys/kernel/btf'): KernelReason[] {
  const kernel = readIfThere(join(directory, 'vmlinux'))
  if (kernel === undefined) return []
  const reasons: KernelReason[] = []
  try {
    collect(reasons, directory, kernel)
  } finally {
    giveBack(kernel)
  }
  return reasons
}

function collect(reasons: KernelReason[], directory: string, kernel: Uint8Array): void {
  for (const { file, enumeration, prefix } of SOURCES) {
    const isKernel = file === 'vmlinux'
    const bytes = isKernel ? kernel : readIfThere(join(directory, file))
    if (bytes === undefined) continue
    const members = readEnum(file, bytes, enumeration, isKernel ? undefined : kernel)
    for (const [member, value] of members ?? []) {
      const name = member.startsWith(prefix) ? member.slice(prefix.length) : member
      if (NO_REASON.test(name)) continue
      reasons.push({ name, value, from: file, isMapped: isKnownReason(name) })
    }
  }
}

/** Frees the memory of a file of some megabytes at once, which would else stay until much more has been allocated. */
export function giveBack({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer(0)
}

function readEnum(file: string, bytes: Uint8Array, enumeration: string, base: Uint8Array | undefined) {
  try {
    return readBtfEnum(bytes, enumeration, base)
  } catch (error) {
    throw new Error(`type information of ${file}: ${(error as Error).message}`, { cause: error })
  }
}

/** At once: the promised readFile() stops at the first short read, and sysfs gives the modules' page by page. */
function readIfThere(path: string): Uint8Array | undefined {
  try {
    return readFileSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
