/**
 * What the container in which the agent runs may use of the host, from the files of its control group (either version).
 * /proc tells of the whole host in there.
 */

import { join } from 'node:path'
import { type ControlGroup, parseProcessGroups } from '../kernel/cgroup.ts'
import { FileFormatError, parseCounter, readTextFileIfAny } from '../kernel/files.ts'

/** What is undefined is not limited, or not known. Bytes. */
export interface ContainerLimits {
  readonly memory: bigint | undefined
  readonly memoryUsed: bigint
  /** Page cache, and of it tmpfs and shared memory. */
  readonly cached: bigint
  readonly shared: bigint
  readonly swap: bigint | undefined
  readonly swapUsed: bigint
  /** CPUs' worth of time; a fraction is possible. */
  readonly cpus: number | undefined
  /** What its processes have used, milliseconds. */
  readonly used: { readonly user: bigint; readonly system: bigint } | undefined
}

/** Files of one version, in its folders. */
interface Layout {
  readonly memory: string
  readonly cpu: string
  readonly limit: string
  readonly used: string
  readonly cached: string
  readonly shared: string
  readonly swapLimit: string
  readonly swapUsed: string
  /** True where swap figures contain memory. */
  readonly swapWithMemory: boolean
}

const VERSION_2: Layout = {
  memory: 'sys/fs/cgroup',
  cpu: 'sys/fs/cgroup',
  limit: 'memory.max',
  used: 'memory.current',
  cached: 'file',
  shared: 'shmem',
  swapLimit: 'memory.swap.max',
  swapUsed: 'memory.swap.current',
  swapWithMemory: false,
}

const VERSION_1: Layout = {
  memory: 'sys/fs/cgroup/memory',
  cpu: 'sys/fs/cgroup/cpu',
  limit: 'memory.limit_in_bytes',
  used: 'memory.usage_in_bytes',
  cached: 'total_cache',
  shared: 'total_shmem',
  swapLimit: 'memory.memsw.limit_in_bytes',
  swapUsed: 'memory.memsw.usage_in_bytes',
  swapWithMemory: true,
}

/**
 * Gives a function that reads the limits; they may change while the container runs. It gives undefined each time where
 * this is no container, or one that shares the processes of its host: that one watches the host.
 */
export function containerLimits(root: string): () => Promise<ContainerLimits | undefined> {
  let layout: Promise<Layout | undefined> | undefined
  return async () => {
    layout ??= layoutOf(root)
    const found = await layout
    return found && readLimits(root, found)
  }
}

/**
 * Version 2: only the root of a control group namespace that is not the host's has limits. Version 1: every root has, and
 * in a container it is mounted so that it is the container's own. The first process is the container's own when it is
 * not outside its namespace, and in version 1 when it is in the same group.
 */
async function layoutOf(root: string): Promise<Layout | undefined> {
  const [own, first] = await Promise.all([groupsOf(root, 'self'), groupsOf(root, '1')])
  const [here, init] = [own.get(''), first.get('')]
  if (here !== undefined && init !== undefined && !init.startsWith('/..')) {
    const file = await readTextFileIfAny(root, join(VERSION_2.memory, VERSION_2.limit))
    if (file !== undefined) return VERSION_2
  }
  const [memory, initMemory] = [own.get('memory'), first.get('memory')]
  return memory !== undefined && memory === initMemory ? VERSION_1 : undefined
}

/** Path of the group by controller; of version 2 the controller is empty. */
async function groupsOf(root: string, process: string): Promise<ControlGroup> {
  const file = await readTextFileIfAny(root, `proc/${process}/cgroup`)
  return file === undefined ? new Map() : parseProcessGroups(file)
}

async function readLimits(root: string, layout: Layout): Promise<ContainerLimits> {
  const { memory: folder } = layout
  const number = (name: string) => readNumber(root, join(folder, name))
  const [memory, used, swapLimit, swapUsed, stat, cpus, cpuUsed] = await Promise.all([
    number(layout.limit),
    number(layout.used),
    number(layout.swapLimit),
    number(layout.swapUsed),
    readTextFileIfAny(root, join(folder, 'memory.stat')),
    layout === VERSION_2 ? readCpuMax(root, layout.cpu) : readCpuQuota(root, layout.cpu),
    layout === VERSION_2 ? readCpuStat(root, layout.cpu) : readCpuAccount(root),
  ])
  const figure = (name: string) => {
    const match = new RegExp(`^${name} (\\d+)$`, 'm').exec(stat?.text ?? '')
    return match === null ? 0n : BigInt(match[1]!)
  }
  const swapOnly = (both: bigint | undefined, part: bigint | undefined) => {
    if (!layout.swapWithMemory || both === undefined) return both
    const swap = both - (part ?? 0n)
    return swap > 0n ? swap : 0n
  }
  return {
    memory,
    memoryUsed: used ?? 0n,
    cached: figure(layout.cached),
    shared: figure(layout.shared),
    swap: swapOnly(swapLimit, memory),
    swapUsed: swapOnly(swapUsed, used) ?? 0n,
    cpus,
    used: cpuUsed,
  }
}

/** `cpu.stat`: names and microseconds. */
async function readCpuStat(root: string, folder: string): Promise<ContainerLimits['used']> {
  const file = await readTextFileIfAny(root, join(folder, 'cpu.stat'))
  const figure = (name: string) => new RegExp(`^${name}_usec (\\d+)$`, 'm').exec(file?.text ?? '')?.[1]
  const [user, system] = [figure('user'), figure('system')]
  if (user === undefined || system === undefined) return undefined
  return { user: BigInt(user) / 1000n, system: BigInt(system) / 1000n }
}

/** Nanoseconds (Linux 4.6). */
async function readCpuAccount(root: string): Promise<ContainerLimits['used']> {
  const number = (name: string) => readNumber(root, join('sys/fs/cgroup/cpuacct', name))
  const [user, system] = await Promise.all([number('cpuacct.usage_user'), number('cpuacct.usage_sys')])
  if (user === undefined || system === undefined) return undefined
  return { user: user / 1_000_000n, system: system / 1_000_000n }
}

/** Undefined for a file that is not there and for `max`: no limit. */
async function readNumber(root: string, path: string): Promise<bigint | undefined> {
  const file = await readTextFileIfAny(root, path)
  const text = file?.text.trim()
  if (file === undefined || text === 'max') return undefined
  return parseCounter(file, 1, path.slice(path.lastIndexOf('/') + 1), text)
}

/** `cpu.max`: quota or `max`, and period. */
async function readCpuMax(root: string, folder: string): Promise<number | undefined> {
  const file = await readTextFileIfAny(root, join(folder, 'cpu.max'))
  if (file === undefined) return undefined
  const [, quota, period] = /^(max|\d+) (\d+)\s*$/.exec(file.text) ?? []
  if (period === undefined || Number(period) === 0) {
    throw new FileFormatError(file.path, 1, `expected a quota and a period, got "${file.text.trim()}"`)
  }
  return quota === 'max' ? undefined : Number(quota) / Number(period)
}

/** -1 is no quota. */
async function readCpuQuota(root: string, folder: string): Promise<number | undefined> {
  const quota = await readTextFileIfAny(root, join(folder, 'cpu.cfs_quota_us'))
  const period = await readNumber(root, join(folder, 'cpu.cfs_period_us'))
  if (quota === undefined || !period || quota.text.startsWith('-')) return undefined
  return Number(parseCounter(quota, 1, 'cpu.cfs_quota_us', quota.text.trim())) / Number(period)
}
