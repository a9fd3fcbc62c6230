/** host_cpu (0:2003, all 80 bytes) from /proc/stat, /proc/loadavg, /proc/uptime and the clock of a CPU. */

import {
  FileFormatError,
  type KernelUnits,
  low32,
  parseCounter,
  readHeadIfAny,
  readTextFile,
  readTextFileIfAny,
  type TextFile,
} from '../kernel/files.ts'
import { type HostCpu, hostCpu } from '../wire/sflow/counters/host.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { ContainerLimits } from './container-limits.ts'
import type { CounterReader } from './reader.ts'

export function hostCpuReader(
  root: string,
  units: () => Promise<KernelUnits>,
  limits: () => Promise<ContainerLimits | undefined>,
): CounterReader<typeof hostCpu> {
  let lastIdleMs = 0n
  return {
    record: hostCpu,
    async read() {
      const [stat, loadavg, uptime, clock, { ticksPerSecond }, within] = await Promise.all([
        readTextFile(root, 'proc/stat'),
        readTextFile(root, 'proc/loadavg'),
        readTextFile(root, 'proc/uptime'),
        readCpuClock(root),
        units(),
        limits(),
      ])
      const host = parseStat(stat, ticksPerSecond)
      const times = withinLimits(host, within, uptimeMs(uptime), lastIdleMs)
      lastIdleMs = times.idleMs
      return {
        ...times.times,
        ...parseLoadavg(loadavg),
        cpu_speed: clock,
        uptime: parseUptime(uptime),
      }
    },
  }
}

/**
 * A container with less than all CPUs has as many as its share comes to, and the time that its processes have used. What
 * it could have used besides is idle; bursts beyond its share do not let that go back. The kernel tells no other times of a
 * group.
 */
export function withinLimits(
  host: Times,
  limits: ContainerLimits | undefined,
  upMs: number,
  lastIdleMs: bigint,
): { readonly times: Times; readonly idleMs: bigint } {
  const { cpus = host.cpu_num, used } = limits ?? {}
  if (cpus >= host.cpu_num) return { times: host, idleMs: 0n }
  const times = { ...host, cpu_num: Math.max(1, Math.ceil(cpus)) }
  if (used === undefined) return { times, idleMs: 0n }
  const { user, system } = used
  const left = BigInt(Math.round(cpus * upMs)) - user - system
  const idleMs = left > lastIdleMs ? left : lastIdleMs
  return {
    times: {
      ...times,
      cpu_user: low32(user),
      cpu_nice: UNKNOWN32,
      cpu_system: low32(system),
      cpu_idle: low32(idleMs),
      cpu_wio: UNKNOWN32,
      cpu_intr: UNKNOWN32,
      cpu_sintr: UNKNOWN32,
      cpu_steal: UNKNOWN32,
      cpu_guest: UNKNOWN32,
      cpu_guest_nice: UNKNOWN32,
    },
    idleMs,
  }
}

type Times = Omit<HostCpu, keyof ReturnType<typeof parseLoadavg> | 'cpu_speed' | 'uptime'>

/** The columns of the `cpu` line in their order (fs/proc/stat.c); a kernel may have fewer or more. */
const CPU_TIMES = [
  'cpu_user',
  'cpu_nice',
  'cpu_system',
  'cpu_idle',
  'cpu_wio',
  'cpu_intr',
  'cpu_sintr',
  'cpu_steal',
  'cpu_guest',
  'cpu_guest_nice',
] as const

/**
 * Times are summed over all CPUs, so that the milliseconds pass 2^32 soon (cpu_idle of 128 idle CPUs in nine hours):
 * they are computed in full and only then cut to 32 bits.
 */
function parseStat(file: TextFile, ticksPerSecond: bigint): Times {
  const times: Partial<Record<(typeof CPU_TIMES)[number], number>> = {}
  let cpus = 0
  let interrupts: number | undefined
  let contexts: number | undefined
  for (const [i, line] of file.text.split('\n').entries()) {
    const lineNumber = i + 1
    if (line.startsWith('cpu ')) {
      const words = line.trim().split(/\s+/)
      for (const [column, name] of CPU_TIMES.entries()) {
        const word = words[column + 1]
        if (word === undefined) continue
        times[name] = low32((parseCounter(file, lineNumber, name, word) * 1000n) / ticksPerSecond)
      }
    } else if (line.startsWith('cpu')) {
      cpus++
    } else if (line.startsWith('intr ')) {
      // The total, then thousands of single interrupts on a large machine.
      interrupts = low32(parseCounter(file, lineNumber, 'intr', line.split(' ', 2)[1]))
    } else if (line.startsWith('ctxt ')) {
      contexts = low32(parseCounter(file, lineNumber, 'ctxt', line.split(' ', 2)[1]))
    }
  }
  if (times.cpu_user === undefined)
    throw new FileFormatError(file.path, 0, 'expected a line "cpu", found none')
  const time = (name: (typeof CPU_TIMES)[number]) => times[name] ?? UNKNOWN32
  return {
    cpu_num: cpus,
    cpu_user: time('cpu_user'),
    cpu_nice: time('cpu_nice'),
    cpu_system: time('cpu_system'),
    cpu_idle: time('cpu_idle'),
    cpu_wio: time('cpu_wio'),
    cpu_intr: time('cpu_intr'),
    cpu_sintr: time('cpu_sintr'),
    interrupts: interrupts ?? UNKNOWN32,
    contexts: contexts ?? UNKNOWN32,
    cpu_steal: time('cpu_steal'),
    cpu_guest: time('cpu_guest'),
    cpu_guest_nice: time('cpu_guest_nice'),
  }
}

/** `0.44 0.31 0.16 3/121 12772`: loads, runnable and all tasks, last pid. The task that reads is not counted. */
function parseLoadavg(file: TextFile) {
  const match = /^(\d+\.\d+) (\d+\.\d+) (\d+\.\d+) (\d+)\/(\d+) /.exec(file.text)
  if (match === null) {
    const line = file.text.split('\n', 1)[0]
    throw new FileFormatError(file.path, 1, `expected three loads and running/all tasks, got "${line}"`)
  }
  const [one, five, fifteen, running, total] = match.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ]
  return {
    load_one: one,
    load_five: five,
    load_fifteen: fifteen,
    proc_run: Math.max(running - 1, 0),
    proc_total: total,
  }
}

/** Milliseconds since boot. */
function uptimeMs(file: TextFile): number {
  parseUptime(file)
  return Math.round(Number.parseFloat(file.text) * 1000)
}

/** `1981.83 3701.28`: seconds since boot, idle seconds of all CPUs. */
function parseUptime(file: TextFile): number {
  const match = /^(\d+)\.\d+ /.exec(file.text)
  if (match === null) {
    const line = file.text.split('\n', 1)[0]
    throw new FileFormatError(file.path, 1, `expected seconds since boot, got "${line}"`)
  }
  return Number(match[1])
}

/**
 * MHz of the first CPU, 0 if unknown: the `cpu MHz` of /proc/cpuinfo where the architecture has it (x86), else from
 * cpufreq, the present clock before the highest one (ARM).
 */
export async function readCpuClock(root: string): Promise<number> {
  // The first CPU is in the first page; on large machines the whole file costs milliseconds.
  const cpuinfo = await readHeadIfAny(root, 'proc/cpuinfo', 4096)
  const match = /^cpu MHz\s*:\s*(\d+)/m.exec(cpuinfo?.text ?? '')
  if (match !== null) return Number(match[1])
  for (const name of ['scaling_cur_freq', 'cpuinfo_max_freq']) {
    const file = await readTextFileIfAny(root, `sys/devices/system/cpu/cpu0/cpufreq/${name}`)
    if (file === undefined) continue
    return Number(parseCounter(file, 1, name, file.text.trim()) / 1000n)
  }
  return 0
}
