/** virt_memory (0:2102) of a container or a service, from the files of the memory controller. */

import { dirname, join } from 'node:path'
import type { GroupFolder } from '../kernel/cgroup.ts'
import { parseCounter, readTextFileIfAny, type TextFile } from '../kernel/files.ts'
import { virtMemory } from '../wire/sflow/counters/virtual.ts'
import type { GroupFiles } from './control-group.ts'
import type { CounterReader } from './reader.ts'

/** In use is what the controller charges, page cache included; without it what the processes have in memory. */
export function virtMemoryReader(files: GroupFiles): CounterReader<typeof virtMemory> {
  return {
    record: virtMemory,
    async read() {
      const sum = await files.sum('memory', async folder => {
        const name = folder.version === 2 ? 'memory.current' : 'memory.usage_in_bytes'
        const limitOf = folder.version === 2 ? limitOfTree : hierarchicalLimit
        const [used, limit] = await Promise.all([files.file(folder, name), limitOf(files, folder)])
        return used && { used: parseCounter(used, 1, name, used.text.trim()), limit }
      })
      const total = await files.memory()
      const memory = sum?.used ?? (await files.processUsage())?.residentBytes
      if (memory === undefined) return undefined
      // Without a limit there is still that of the machine.
      const limit = sum?.limit ?? total
      return { memory, maxMemory: total > 0n && limit > total ? total : limit }
    },
  }
}

const NO_LIMIT = 2n ** 63n

/** The least `memory.max` of the group and those it is in: each of them holds. */
async function limitOfTree(files: GroupFiles, folder: GroupFolder): Promise<bigint> {
  let least = NO_LIMIT
  for (let path = folder.path; path.startsWith(`${folder.mountPoint}/`); path = dirname(path)) {
    const max = await readTextFileIfAny(files.root, join(path, 'memory.max'))
    // The word `max` is no limit; the top group has no such file.
    if (max === undefined || max.text.trim() === 'max') continue
    const limit = parseCounter(max, 1, 'memory.max', max.text.trim())
    if (limit < least) least = limit
  }
  return least
}

async function hierarchicalLimit(files: GroupFiles, folder: GroupFolder): Promise<bigint> {
  const stat = await files.file(folder, 'memory.stat')
  return stat === undefined ? NO_LIMIT : parseHierarchicalLimit(stat)
}

/** The limit that holds for the group, from memory.stat of version 1; no limit is a number near 2^63. */
function parseHierarchicalLimit(stat: TextFile): bigint {
  for (const [i, line] of stat.text.split('\n').entries()) {
    const [name, value] = line.split(' ')
    if (name === 'hierarchical_memory_limit') return parseCounter(stat, i + 1, name, value)
  }
  return NO_LIMIT
}
