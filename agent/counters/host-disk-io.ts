/**
 * host_disk_io (0:2005): transfers of the disks from /proc/diskstats, space of the local file systems from
 * /proc/self/mountinfo and statfs(2). Everything is counted once, by the rules at countedDisks() and
 * localFileSystems().
 */

import { statfs } from 'node:fs/promises'
import { join } from 'node:path'
import {
  FileFormatError,
  low32,
  octalText,
  parseCounter,
  readTextFile,
  type TextFile,
} from '../kernel/files.ts'
import { type HostDiskIo, hostDiskIo } from '../wire/sflow/counters/host.ts'
import { UNKNOWN_PERCENT } from '../wire/struct.ts'
import type { CounterReader } from './reader.ts'

/** Sizes of a file system, in blocks of `frsize` bytes. */
export interface FileSystemSize {
  readonly frsize: bigint
  readonly blocks: bigint
  readonly bfree: bigint
  /** Free for users other than root. */
  readonly bavail: bigint
}

/** Asks for the size of the file system mounted at a path. */
export type AskSize = (path: string) => Promise<FileSystemSize>

const askKernel: AskSize = path => statfs(path, { bigint: true })

export function hostDiskIoReader(
  root: string,
  askSize: AskSize = askKernel,
): CounterReader<typeof hostDiskIo> {
  return {
    record: hostDiskIo,
    async read() {
      const [diskstats, mountinfo] = await Promise.all([
        readTextFile(root, 'proc/diskstats'),
        readTextFile(root, 'proc/self/mountinfo'),
      ])
      const sizes: FileSystemSize[] = []
      // One after the other: a file system that hangs shall keep one thread of the pool, not all.
      for (const path of localFileSystems(mountinfo)) {
        const size = await reachableSize(askSize, join(root, path))
        if (size !== undefined) sizes.push(size)
      }
      return { ...space(sizes), ...transfers(countedDisks(parseDiskstats(diskstats))) }
    },
  }
}

/** Undefined for a mount point that this process cannot reach: hidden under another mount, or not permitted. */
async function reachableSize(askSize: AskSize, path: string): Promise<FileSystemSize | undefined> {
  try {
    return await askSize(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'EACCES') return undefined
    throw error
  }
}

/** A line of /proc/diskstats (Documentation/admin-guide/iostats.rst). */
export interface DiskStats {
  readonly name: string
  readonly reads: bigint
  /** Sectors are of 512 bytes whatever the disk's own are. */
  readonly sectorsRead: bigint
  readonly readMs: bigint
  readonly writes: bigint
  readonly sectorsWritten: bigint
  readonly writeMs: bigint
}

function parseDiskstats(file: TextFile): DiskStats[] {
  const disks: DiskStats[] = []
  for (const [i, line] of file.text.split('\n').entries()) {
    if (line === '') continue
    const words = line.trim().split(/\s+/)
    const name = words[2]
    if (name === undefined) {
      throw new FileFormatError(file.path, i + 1, `expected major, minor and name, got "${line}"`)
    }
    const field = (column: number, what: string) =>
      parseCounter(file, i + 1, `${name}: ${what}`, words[column])
    disks.push({
      name,
      reads: field(3, 'reads'),
      sectorsRead: field(5, 'sectors read'),
      readMs: field(6, 'milliseconds reading'),
      writes: field(7, 'writes'),
      sectorsWritten: field(9, 'sectors written'),
      writeMs: field(10, 'milliseconds writing'),
    })
  }
  return disks
}

/** Backed by memory or by other disks that count themselves: loop, RAM, device mapper, RAID and their like. */
const STACKED_DISK = /^(loop|ram|zram|dm-|md|bcache|drbd)/

/**
 * The disks whose sum holds each transfer once: no partitions of a disk that is listed itself, nothing that is stacked
 * on disks or lives in memory, and of an NVMe namespace with several paths the paths, not the head above them.
 */
function countedDisks(all: readonly DiskStats[]): DiskStats[] {
  const names = new Set(all.map(disk => disk.name))
  const heads = new Set<string>()
  for (const name of names) {
    const path = /^(nvme\d+)c\d+(n\d+)$/.exec(name)
    if (path !== null) heads.add(`${path[1]}${path[2]}`)
  }
  return all.filter(({ name }) => {
    if (STACKED_DISK.test(name) || heads.has(name)) return false
    const disk = diskOfPartition(name)
    return disk === undefined || !names.has(disk)
  })
}

/** The kernel names a partition disk + number, with a `p` between where the disk ends in a digit (block/partitions/). */
function diskOfPartition(name: string): string | undefined {
  return /^(.*\d)p\d+$/.exec(name)?.[1] ?? /^(.*\D)\d+$/.exec(name)?.[1]
}

function transfers(disks: readonly DiskStats[]): Omit<HostDiskIo, keyof ReturnType<typeof space>> {
  const sum = (value: (disk: DiskStats) => bigint) => disks.reduce((total, disk) => total + value(disk), 0n)
  return {
    reads: low32(sum(disk => disk.reads)),
    bytes_read: sum(disk => disk.sectorsRead) * 512n,
    read_time: low32(sum(disk => disk.readMs)),
    writes: low32(sum(disk => disk.writes)),
    bytes_written: sum(disk => disk.sectorsWritten) * 512n,
    write_time: low32(sum(disk => disk.writeMs)),
  }
}

/**
 * Mount points of the file systems on local disks: the source is a device (or an UBI volume) but no loop or RAM
 * device, and it can be written. Each device counts once however often it is mounted: by its number, not its name.
 */
function localFileSystems(mountinfo: TextFile): string[] {
  const mountPoints = new Map<string, string>()
  for (const [i, line] of mountinfo.text.split('\n').entries()) {
    if (line === '') continue
    // id parent major:minor root mount-point options optional-fields… - type source super-options (proc(5))
    const words = line.split(' ')
    const dash = words.indexOf('-', 6)
    const [, , device, , mountPoint, options] = words
    const [, source, superOptions] = dash < 0 ? [] : words.slice(dash + 1)
    if (superOptions === undefined) {
      throw new FileFormatError(mountinfo.path, i + 1, `expected the fields of a mount, got "${line}"`)
    }
    if (!/^(\/dev\/|ubi)/.test(source!) || /^\/dev\/(loop|z?ram)\d/.test(source!)) continue
    if (isReadOnly(options!) || isReadOnly(superOptions)) continue
    if (!mountPoints.has(device!)) mountPoints.set(device!, octalText(mountPoint!))
  }
  return [...mountPoints.values()]
}

function isReadOnly(options: string): boolean {
  return options.split(',').includes('ro')
}

/** The fullest partition is measured as df(1) does: of what users can have, how much is taken. */
export function space(
  sizes: readonly FileSystemSize[],
): Pick<HostDiskIo, 'disk_total' | 'disk_free' | 'part_max_used'> {
  let total = 0n
  let free = 0n
  let fullest = UNKNOWN_PERCENT
  for (const { frsize, blocks, bfree, bavail } of sizes) {
    total += blocks * frsize
    free += bavail * frsize
    const used = blocks - bfree
    if (used + bavail > 0n) fullest = Math.max(fullest, Number((used * 10_000n) / (used + bavail)))
  }
  return { disk_total: total, disk_free: free, part_max_used: fullest }
}
