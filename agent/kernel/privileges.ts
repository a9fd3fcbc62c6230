import { readFileSync } from 'node:fs'
import type { Config } from '../config/config.ts'
import { loadAddon } from './addon.ts'
import { SystemError } from './native.ts'

/**
 * The capabilities of the agent: which of them a configuration needs, and how the others are given up. docs/installing.md
 * tells the same in a table.
 */

/** Those that weir can use, by their bit (include/uapi/linux/capability.h). */
export const CAPABILITIES = {
  CAP_DAC_OVERRIDE: 1,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
  CAP_SYSLOG: 34,
  CAP_PERFMON: 38,
  CAP_BPF: 39,
} as const
export type Capability = keyof typeof CAPABILITIES

/** One reason to keep capabilities. */
export interface Need {
  /** What is configured. */
  readonly feature: string
  readonly capabilities: readonly Capability[]
  /** What they are for. */
  readonly why: string
}

/** Everything that the configuration asks for and that a user without privileges may not do. */
export function neededPrivileges(config: Config): Need[] {
  const needs: Need[] = []
  const need = (feature: string, why: string, ...capabilities: Capability[]) =>
    needs.push({ feature, capabilities, why })
  if (config.psample !== undefined)
    need('psample', 'joining the PSAMPLE group, a large receive buffer', 'CAP_NET_ADMIN')
  if (config.tc !== undefined) need('tc', 'placing tc filters', 'CAP_NET_ADMIN')
  if (config.nflog !== undefined)
    need('nflog', 'binding the NFLOG group, a large receive buffer', 'CAP_NET_ADMIN')
  if (config.pcap.length > 0) {
    need('pcap', 'loading BPF programs and attaching them', 'CAP_BPF', 'CAP_PERFMON', 'CAP_NET_ADMIN')
    need('pcap', 'packet sockets, where BPF is not allowed, and promiscuous interfaces', 'CAP_NET_RAW')
  }
  if (config.pcap.length > 0 && config.transit) {
    need('pcap', 'reasons of drops by function, from /proc/kallsyms', 'CAP_SYSLOG')
  }
  if (config.dropmon !== undefined) {
    need('dropmon', 'starting the drop monitor and joining its group', 'CAP_NET_ADMIN', 'CAP_SYS_ADMIN')
    need('dropmon', 'drops by BPF', 'CAP_BPF', 'CAP_PERFMON')
    need('dropmon', 'names of the functions that drop packets, from /proc/kallsyms', 'CAP_SYSLOG')
  }
  const { systemd, docker, containerd, k8s } = config.virtual
  if (systemd !== undefined)
    need('systemd', 'what services without IO accounting read and wrote, from /proc/PID/io', 'CAP_SYS_PTRACE')
  for (const [feature, block] of Object.entries({ docker, containerd, k8s })) {
    if (block === undefined) continue
    need(feature, 'the socket of the runtime, which is for root only', 'CAP_DAC_OVERRIDE')
    need(feature, 'looking into the network namespaces of containers', 'CAP_SYS_ADMIN', 'CAP_SYS_PTRACE')
  }
  // Without being asked for, modules are read where the capability is there for another reason.
  if (config.counters.moduleSeconds > 0 && config.lines.has('counters.modules'))
    need('counters', 'reading pluggable modules', 'CAP_NET_ADMIN')
  for (const { name, namespace, device } of config.collectors) {
    if (namespace !== undefined)
      need(`collector ${name}`, `a socket in namespace ${namespace}`, 'CAP_SYS_ADMIN')
    if (device !== undefined) need(`collector ${name}`, `a socket bound to ${device}`, 'CAP_NET_RAW')
  }
  return needs
}

/** The bits of all capabilities that are needed, as the kernel counts them. */
export function maskOf(needs: readonly Need[]): bigint {
  let mask = 0n
  for (const { capabilities } of needs)
    for (const name of capabilities) mask |= 1n << BigInt(CAPABILITIES[name])
  return mask
}

/** Names of the capabilities in a mask, those that weir has no use for by their number. */
export function namesOf(mask: bigint): string[] {
  const names = new Map<number, string>(Object.entries(CAPABILITIES).map(([name, bit]) => [bit, name]))
  const found: string[] = []
  for (let bit = 0; mask >> BigInt(bit) !== 0n; bit++) {
    if ((mask >> BigInt(bit)) & 1n) found.push(names.get(bit) ?? `capability ${bit}`)
  }
  return found
}

/** What this process may do, from /proc/self/status. */
export function effectiveCapabilities(): bigint {
  const [, hex] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))!
  return BigInt(`0x${hex}`)
}

/** User and group by the name of the user, from /etc/passwd: a system's own users are not in directories. */
export function systemUser(name: string): { readonly user: number; readonly group: number } | undefined {
  let text: string
  try {
    text = readFileSync('/etc/passwd', 'utf8')
  } catch {
    return undefined
  }
  const line = text.split('\n').find(one => one.startsWith(`${name}:`))
  const [, , user, group] = line?.split(':') ?? []
  return user === undefined || group === undefined ? undefined : { user: Number(user), group: Number(group) }
}

interface ProcessAddon {
  /** Contract: native/process/process.c. */
  runAnew(
    user: number,
    group: number,
    low: number,
    high: number,
    args: readonly string[],
    environment: readonly string[],
  ): number
}

/** Says that the program has been run anew, so that it is not done again and again. */
const DONE = 'WEIR_PRIVILEGES_REDUCED'

const RUN_ANEW_STEPS = [
  'start anew',
  'change the user',
  'take the power of user 0',
  'keep capabilities',
  'start anew',
]

export interface ReduceOptions {
  /** Capabilities that are kept, as far as they are there. */
  readonly keep: bigint
  /** The user to become when this one is root; undefined stays root, without its powers. */
  readonly user: { readonly user: number; readonly group: number } | undefined
}

/**
 * Gives up every privilege but those named, for good, by running the program anew with the same arguments: the process
 * stays the same one to whoever started it. Does nothing where there is nothing to give up, or it has been done. Throws
 * SystemError when the kernel refuses.
 */
export function reducePrivileges({ keep, user }: ReduceOptions): void {
  if (process.env[DONE] !== undefined) {
    delete process.env[DONE]
    return
  }
  const held = effectiveCapabilities()
  const kept = held & keep
  const isRoot = process.geteuid?.() === 0
  if (held === kept && !isRoot) return
  const args = readFileSync('/proc/self/cmdline', 'utf8').split('\0').slice(0, -1)
  const environment = Object.entries({ ...process.env, [DONE]: '1' }).map(
    ([name, value]) => `${name}=${value}`,
  )
  const become = isRoot ? user : undefined
  const result = (loadAddon('process') as ProcessAddon).runAnew(
    become?.user ?? -1,
    become?.group ?? -1,
    Number(kept & 0xffff_ffffn),
    Number(kept >> 32n),
    args,
    environment,
  )
  const step = Math.floor(-result / 4096)
  throw new SystemError(-result % 4096, RUN_ANEW_STEPS[step] ?? 'give up privileges')
}
