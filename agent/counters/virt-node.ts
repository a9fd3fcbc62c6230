/** virt_node (0:2100): the machine as the host of others. */

import { readTextFile } from '../kernel/files.ts'
import { virtNode } from '../wire/sflow/counters/virtual.ts'
import { readCpuClock } from './host-cpu.ts'
import { parseMeminfo } from './host-memory.ts'
import type { CounterReader } from './reader.ts'
import { countCpus } from './virt-cpu.ts'

/** `domains` counts those that run now; undefined while nothing that could host any is looked for. */
export function virtNodeReader(
  root: string,
  domains: () => number | undefined,
): CounterReader<typeof virtNode> {
  return {
    record: virtNode,
    async read() {
      const count = domains()
      if (count === undefined) return undefined
      const [mhz, meminfo, online] = await Promise.all([
        readCpuClock(root),
        readTextFile(root, 'proc/meminfo'),
        readTextFile(root, 'sys/devices/system/cpu/online'),
      ])
      const memory = parseMeminfo(meminfo)
      return {
        mhz,
        cpus: countCpus(online.text) ?? 0,
        memory: memory.get('MemTotal') ?? 0n,
        memory_free: memory.get('MemFree') ?? 0n,
        num_domains: count,
      }
    },
  }
}
