/** host_memory (0:2004) from /proc/meminfo and /proc/vmstat, within the limits of a container. */

import {
  FileFormatError,
  type KernelUnits,
  low32,
  parseCounter,
  readTextFile,
  type TextFile,
} from '../kernel/files.ts'
import { type HostMemory, hostMemory } from '../wire/sflow/counters/host.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { ContainerLimits } from './container-limits.ts'
import type { CounterReader } from './reader.ts'

export function hostMemoryReader(
  root: string,
  units: () => Promise<KernelUnits>,
  limits: () => Promise<ContainerLimits | undefined>,
): CounterReader<typeof hostMemory> {
  return {
    record: hostMemory,
    async read() {
      const [meminfo, vmstat, { pageBytes }, within] = await Promise.all([
        readTextFile(root, 'proc/meminfo'),
        readTextFile(root, 'proc/vmstat'),
        units(),
        limits(),
      ])
      return withinLimits(parseHostMemory(meminfo, vmstat, pageBytes), within)
    },
  }
}

/**
 * `mem_cached` is the page cache alone (`Cached`), `mem_shared` is tmpfs and shared memory (`Shmem`), which the
 * page cache includes. `page_in` and `page_out` count pages, whereas pgpgin and pgpgout count KiB (mm/vmstat.c).
 */
function parseHostMemory(meminfo: TextFile, vmstat: TextFile, pageBytes: bigint): HostMemory {
  const memory = parseMeminfo(meminfo)
  const total = memory.get('MemTotal')
  if (total === undefined) throw new FileFormatError(meminfo.path, 0, 'MemTotal: missing')
  const events = parseVmstat(vmstat)
  const counter = (value: bigint | undefined) => (value === undefined ? UNKNOWN32 : low32(value))
  const pages = (kibibytes: bigint | undefined) =>
    counter(kibibytes === undefined ? undefined : (kibibytes * 1024n) / pageBytes)
  return {
    mem_total: total,
    mem_free: memory.get('MemFree') ?? 0n,
    mem_shared: memory.get('Shmem') ?? 0n,
    mem_buffers: memory.get('Buffers') ?? 0n,
    mem_cached: memory.get('Cached') ?? 0n,
    swap_total: memory.get('SwapTotal') ?? 0n,
    swap_free: memory.get('SwapFree') ?? 0n,
    page_in: pages(events.get('pgpgin')),
    page_out: pages(events.get('pgpgout')),
    swap_in: counter(events.get('pswpin')),
    swap_out: counter(events.get('pswpout')),
  }
}

/**
 * What a container may use in place of what its host has. What it has of huge pages is apart, there as here: of the host
 * `mem_total` contains their pool, and `mem_free` does not. Events (`page_in`, …) are the host's in any case.
 */
export function withinLimits(host: HostMemory, limits: ContainerLimits | undefined): HostMemory {
  if (limits?.memory === undefined || limits.memory >= host.mem_total) return host
  const { memory, memoryUsed, cached, shared, swap = host.swap_total, swapUsed } = limits
  const swapTotal = smaller(swap, host.swap_total)
  return {
    ...host,
    mem_total: memory,
    mem_free: memory > memoryUsed ? memory - memoryUsed : 0n,
    mem_shared: shared,
    // Of a group they are counted with the page cache.
    mem_buffers: 0n,
    mem_cached: cached,
    swap_total: swapTotal,
    swap_free: swapTotal > swapUsed ? swapTotal - swapUsed : 0n,
  }
}

function smaller(a: bigint, b: bigint): bigint {
  if (a < b) return a
  return b
}

const MEMINFO = new Set(['MemTotal', 'MemFree', 'Shmem', 'Buffers', 'Cached', 'SwapTotal', 'SwapFree'])
const VMSTAT = new Set(['pgpgin', 'pgpgout', 'pswpin', 'pswpout'])

/** `Name:  number kB`, in bytes. */
export function parseMeminfo(file: TextFile): Map<string, bigint> {
  const values = new Map<string, bigint>()
  for (const [i, line] of file.text.split('\n').entries()) {
    const name = line.slice(0, Math.max(line.indexOf(':'), 0))
    if (!MEMINFO.has(name)) continue
    const [value, unit] = line
      .slice(name.length + 1)
      .trim()
      .split(/\s+/)
    if (unit !== 'kB') {
      throw new FileFormatError(file.path, i + 1, `${name}: expected a number of kB, got "${line}"`)
    }
    values.set(name, parseCounter(file, i + 1, name, value) * 1024n)
  }
  return values
}

/** `name number` */
function parseVmstat(file: TextFile): Map<string, bigint> {
  const values = new Map<string, bigint>()
  for (const [i, line] of file.text.split('\n').entries()) {
    const [name = '', value] = line.split(' ')
    if (VMSTAT.has(name)) values.set(name, parseCounter(file, i + 1, name, value))
  }
  return values
}
