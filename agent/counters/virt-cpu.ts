/** virt_cpu (0:2101) of a container or a service: cpu.stat (version 2), cpuacct.usage (version 1), or its processes. */

import type { GroupFolder } from '../kernel/cgroup.ts'
import { FileFormatError, low32, parseCounter, readTextFileIfAny, type TextFile } from '../kernel/files.ts'
import { virtCpu } from '../wire/sflow/counters/virtual.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { GroupFiles } from './control-group.ts'
import type { CounterReader } from './reader.ts'

export function virtCpuReader(files: GroupFiles): CounterReader<typeof virtCpu> {
  return {
    record: virtCpu,
    async read() {
      const [ms, cpus] = await Promise.all([cpuTimeMs(files), usableCpus(files)])
      return {
        state: files.state,
        cpuTime: ms === undefined ? UNKNOWN32 : low32(ms),
        nrVirtCpu: cpus ?? 0,
      }
    },
  }
}

async function cpuTimeMs(files: GroupFiles): Promise<bigint | undefined> {
  const sum = await files.sum('cpuacct', async folder => {
    if (folder.version === 2) {
      const stat = await files.file(folder, 'cpu.stat')
      return stat && { us: parseUsage(stat) }
    }
    const usage = await files.file(folder, 'cpuacct.usage')
    return usage && { us: parseCounter(usage, 1, 'cpuacct.usage', usage.text.trim()) / 1000n }
  })
  return sum === undefined ? (await files.processUsage())?.cpuMs : sum.us / 1000n
}

/** CPU time in microseconds from cpu.stat, lines of `name number`. */
function parseUsage(stat: TextFile): bigint {
  for (const [i, line] of stat.text.split('\n').entries()) {
    const [name, value] = line.split(' ')
    if (name === 'usage_usec') return parseCounter(stat, i + 1, name, value)
  }
  throw new FileFormatError(stat.path, 0, 'usage_usec: missing')
}

/**
 * CPUs that the entity can use at the same time: those that its set has, or fewer where its time is limited (a limit of
 * one and a half makes two). Several groups may all use the same ones.
 */
async function usableCpus(files: GroupFiles): Promise<number | undefined> {
  const [sets, limits] = await Promise.all([files.folders('cpuset'), files.folders('cpu')])
  const counts = await Promise.all(sets.map(folder => cpusOfSet(files, folder)))
  const inSets = counts.filter(count => count !== undefined)
  const inSet =
    inSets.length > 0
      ? Math.max(...inSets)
      : countCpus((await readTextFileIfAny(files.root, 'sys/devices/system/cpu/online'))?.text)
  const shares = await Promise.all(limits.map(folder => limitOf(files, folder)))
  if (shares.length === 0 || shares.some(share => share === undefined)) return inSet
  const limit = Math.ceil(shares.reduce<number>((sum, share) => sum + share!, 0))
  return Math.max(1, Math.min(limit, inSet ?? limit))
}

async function cpusOfSet(files: GroupFiles, folder: GroupFolder): Promise<number | undefined> {
  const name = folder.version === 2 ? 'cpuset.cpus.effective' : 'cpuset.effective_cpus'
  return countCpus((await files.file(folder, name))?.text)
}

/** CPUs in a list such as `0-3,8`; undefined for an empty one, or none. */
export function countCpus(list: string | undefined): number | undefined {
  let count = 0
  for (const [, first, last] of (list ?? '').matchAll(/(\d+)(?:-(\d+))?/g)) {
    count += Number(last ?? first) - Number(first) + 1
  }
  return count > 0 ? count : undefined
}

/** How many CPUs' time the group may take; undefined when that is not limited. */
async function limitOf(files: GroupFiles, folder: GroupFolder): Promise<number | undefined> {
  let quota: string | undefined
  let period: string | undefined
  if (folder.version === 2) {
    // `max 100000` or `150000 100000`
    ;[quota, period] = ((await files.file(folder, 'cpu.max'))?.text ?? '').trim().split(' ')
  } else {
    ;[quota, period] = await Promise.all(
      ['cpu.cfs_quota_us', 'cpu.cfs_period_us'].map(async name =>
        (await files.file(folder, name))?.text.trim(),
      ),
    )
  }
  // Without a limit: `max` or -1.
  if (!/^\d+$/.test(quota ?? '') || !/^[1-9]\d*$/.test(period ?? '')) return undefined
  return Number(quota) / Number(period)
}
