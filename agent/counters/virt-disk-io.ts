/**
 * virt_disk_io (0:2103) of a container or a service: io.stat (version 2), blkio.throttle.* (version 1), or what its
 * processes read and wrote.
 */

import type { GroupFolder } from '../kernel/cgroup.ts'
import { low32, parseCounter, type TextFile } from '../kernel/files.ts'
import { virtDiskIo } from '../wire/sflow/counters/virtual.ts'
import { UNKNOWN32, UNKNOWN64 } from '../wire/struct.ts'
import type { GroupFiles } from './control-group.ts'
import type { CounterReader } from './reader.ts'

/** Transfers by device: `major:minor`. */
export type Transfers = ReadonlyMap<string, Transfer>

export interface Transfer {
  readonly readBytes: bigint
  readonly writtenBytes: bigint
  readonly reads: bigint
  readonly writes: bigint
}

/** What is not known of a group's disks: their size, and errors. */
const NOT_COUNTED = { capacity: 0n, allocation: 0n, available: 0n, errs: UNKNOWN32 } as const

export function virtDiskIoReader(files: GroupFiles): CounterReader<typeof virtDiskIo> {
  return {
    record: virtDiskIo,
    async read() {
      const majors = await files.majors()
      const sum = await files.sum('blkio', async folder => {
        const transfers = await transfersOf(files, folder)
        return transfers && sumOfLayers(transfers, majors)
      })
      if (sum !== undefined) {
        return {
          ...NOT_COUNTED,
          rd_req: low32(sum.reads),
          rd_bytes: sum.readBytes,
          wr_req: low32(sum.writes),
          wr_bytes: sum.writtenBytes,
        }
      }
      const disk = await files.processTransfers()
      return {
        ...NOT_COUNTED,
        rd_req: UNKNOWN32,
        rd_bytes: disk?.readBytes ?? UNKNOWN64,
        wr_req: UNKNOWN32,
        wr_bytes: disk?.writtenBytes ?? UNKNOWN64,
      }
    },
  }
}

async function transfersOf(files: GroupFiles, folder: GroupFolder): Promise<Transfers | undefined> {
  if (folder.version === 2) {
    const stat = await files.file(folder, 'io.stat')
    return stat && parseIoStat(stat)
  }
  const own = await blkioOf(files, folder)
  if (own === undefined || own.size > 0) return own
  // Linux 6.10 and later count for a device only once it has a limit: then nothing is known of any group.
  const all = await blkioOf(files, { ...folder, path: folder.mountPoint })
  return all === undefined || all.size > 0 ? own : undefined
}

/** Of version 1. The files with what the groups inside do are not there before Linux 4.2. */
async function blkioOf(files: GroupFiles, folder: GroupFolder): Promise<Transfers | undefined> {
  for (const suffix of ['_recursive', '']) {
    const [bytes, operations] = await Promise.all([
      files.file(folder, `blkio.throttle.io_service_bytes${suffix}`),
      files.file(folder, `blkio.throttle.io_serviced${suffix}`),
    ])
    if (bytes !== undefined && operations !== undefined) return parseBlkio(bytes, operations)
  }
  return undefined
}

/** `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`; a device may have none of these, or more. */
export function parseIoStat(stat: TextFile): Transfers {
  const transfers = new Map<string, Transfer>()
  for (const [i, line] of stat.text.split('\n').entries()) {
    const [device, ...pairs] = line.trim().split(' ')
    if (device === undefined || device === '' || pairs.length === 0) continue
    const values = new Map(pairs.map(pair => pair.split('=') as [string, string | undefined]))
    const value = (name: string) =>
      values.has(name) ? parseCounter(stat, i + 1, `${device} ${name}`, values.get(name)) : 0n
    transfers.set(device, {
      readBytes: value('rbytes'),
      writtenBytes: value('wbytes'),
      reads: value('rios'),
      writes: value('wios'),
    })
  }
  return transfers
}

/** `8:0 Read 4096` for each device and operation; the last line is the total of all. */
function parseBlkio(bytes: TextFile, operations: TextFile): Transfers {
  const transfers = new Map<string, { -readonly [K in keyof Transfer]: Transfer[K] }>()
  const read = (file: TextFile, reads: keyof Transfer, writes: keyof Transfer) => {
    for (const [i, line] of file.text.split('\n').entries()) {
      const [device, operation, value] = line.split(' ')
      const field = operation === 'Read' ? reads : operation === 'Write' ? writes : undefined
      if (field === undefined || device === undefined) continue
      let transfer = transfers.get(device)
      if (transfer === undefined) {
        transfer = { readBytes: 0n, writtenBytes: 0n, reads: 0n, writes: 0n }
        transfers.set(device, transfer)
      }
      transfer[field] = parseCounter(file, i + 1, `${device} ${operation}`, value)
    }
  }
  read(bytes, 'readBytes', 'writtenBytes')
  read(operations, 'reads', 'writes')
  return transfers
}

/** Drivers whose devices stand on others, which count the same transfer again; and those that are memory. */
const STACKED = new Set(['device-mapper', 'md', 'mdp', 'loop', 'nbd', 'drbd', 'bcache'])
const MEMORY = new Set(['ramdisk', 'zram'])

/** Majors of block devices that stand on others, and those of memory, from /proc/devices. */
export interface DeviceMajors {
  readonly stacked: ReadonlySet<string>
  readonly memory: ReadonlySet<string>
}

export function parseDeviceMajors(devices: TextFile | undefined): DeviceMajors {
  const stacked = new Set<string>()
  const memory = new Set<string>()
  const blocks = devices?.text.split('Block devices:')[1] ?? ''
  for (const [, major, name] of blocks.matchAll(/^\s*(\d+) (\S+)$/gm)) {
    if (STACKED.has(name!)) stacked.add(major!)
    if (MEMORY.has(name!)) memory.add(major!)
  }
  return { stacked, memory }
}

/**
 * A transfer by a device that stands on others is counted once more below it, unless the driver below does that in a
 * group of its own. So what counts is the layer that has the most: the plain devices together, or the devices of one
 * stacking driver. Each of them only grows, and so does the greatest.
 */
export function sumOfLayers(transfers: Transfers, { stacked, memory }: DeviceMajors): Transfer {
  const layers = new Map<string, { -readonly [K in keyof Transfer]: Transfer[K] }>()
  for (const [device, transfer] of transfers) {
    const major = device.split(':')[0]!
    if (memory.has(major)) continue
    const layer = stacked.has(major) ? major : 'plain'
    const sum = layers.get(layer) ?? { readBytes: 0n, writtenBytes: 0n, reads: 0n, writes: 0n }
    for (const key of KEYS) sum[key] += transfer[key]
    layers.set(layer, sum)
  }
  const most = { readBytes: 0n, writtenBytes: 0n, reads: 0n, writes: 0n }
  for (const layer of layers.values()) {
    for (const key of KEYS) if (layer[key] > most[key]) most[key] = layer[key]
  }
  return most
}

const KEYS = ['readBytes', 'writtenBytes', 'reads', 'writes'] as const
