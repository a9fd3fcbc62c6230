import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../config/config.ts'
import { builtFile } from '../kernel/addon.ts'
import { BpfError, BpfObject } from '../kernel/bpf-object.ts'
import { resolveFamily } from '../kernel/genl.ts'
import { NETLINK_GENERIC, NetlinkSocket } from '../kernel/netlink-socket.ts'
import {
  CAPABILITIES,
  type Capability,
  effectiveCapabilities,
  maskOf,
  namesOf,
  neededPrivileges,
} from '../kernel/privileges.ts'
import { sourceOf } from '../parts/drop-reports.ts'
import { isFirstNamespace } from '../sources/bpf-drops.ts'
import { kernelSamples } from '../sources/psample.ts'
import { NET_DM_FAMILY, NET_DM_GROUP_EVENTS } from '../wire/netlink/drop-monitor.ts'
import { PSAMPLE_FAMILY, PSAMPLE_GROUP_PACKETS } from '../wire/netlink/psample.ts'
import { type Finding, lacking, missing, ok, weak } from './finding.ts'
import { type Patient, textOf } from './patient.ts'

/** What the kernel has, and what it lets us do. */

const LEAST_KERNEL = [5, 4] as const
/** What the agent asks for its PSAMPLE and drop monitor sockets. */
const RECEIVE_BYTES = 8 << 20
const BTF = '/sys/kernel/btf/vmlinux'
const BPF_OBJECT = 'bpf/sample.bpf.o'
const NO_INTERFACE = 0x7fff_ffff

export async function kernelVersion(patient: Patient): Promise<Finding> {
  const release = (await textOf(patient, '/proc/sys/kernel/osrelease')) ?? ''
  const [major = 0, minor = 0] = release.split('.').map(part => Number.parseInt(part, 10))
  const isNew = major > LEAST_KERNEL[0] || (major === LEAST_KERNEL[0] && minor >= LEAST_KERNEL[1])
  if (isNew) return ok('kernel', `Linux ${release}`)
  return missing(
    'kernel',
    `Linux ${release || 'of unknown version'}; weir needs ${LEAST_KERNEL.join('.')}`,
    'install a newer kernel',
  )
}

/** What the user who asks may do; the agent may do what its unit gives it. */
export function capabilities({ config }: Patient): Finding[] {
  const held = effectiveCapabilities()
  if (config === undefined) {
    const all = Object.values(CAPABILITIES).reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n)
    const names = namesOf(held & all)
    return [ok('capabilities', names.length === 0 ? 'none' : names.join(', '))]
  }
  const needs = neededPrivileges(config)
  const lacks = maskOf(needs) & ~held
  if (lacks === 0n) {
    const names = namesOf(maskOf(needs))
    return [
      ok('capabilities', names.length === 0 ? 'none needed' : `${names.join(', ')}: all that is needed`),
    ]
  }
  return needs
    .filter(need => (maskOf([need]) & ~held) !== 0n)
    .map(need => {
      const names = namesOf(maskOf([need]) & ~held)
      const mend = `run it as root, or with AmbientCapabilities=${names.join(' ')} in the unit (systemctl edit weir)`
      return weak('capabilities', `${need.feature}: no ${names.join(', ')}, for ${need.why}`, mend)
    })
}

export async function namespace({ root }: Patient): Promise<Finding> {
  const map = await readFile(join(root, '/proc/self/uid_map'), 'utf8').catch(() => '')
  const isWholeUser = map.trim() === '' || /^\s*0\s+0\s+4294967295\s*$/.test(map)
  const network = (await isFirstNamespace())
    ? 'the first network namespace'
    : 'a network namespace of its own'
  if (isWholeUser) return ok('namespace', network)
  const mend =
    'start it outside of the user namespace (a container: privileged, or with the capabilities of the host)'
  return weak(
    'namespace',
    `${network}, in a user namespace: the kernel refuses BPF and forced buffers there`,
    mend,
  )
}

export async function psample({ config, root }: Patient): Promise<Finding> {
  const isNeeded = config?.psample !== undefined
  const socket = NetlinkSocket.open(NETLINK_GENERIC)
  try {
    if (isNeeded || config === undefined) await kernelSamples().catch(() => false)
    const family = await resolveFamily(socket, PSAMPLE_FAMILY)
    const group = family?.groups.get(PSAMPLE_GROUP_PACKETS)
    if (group === undefined) {
      return lacking('psample', isNeeded, 'the kernel has no PSAMPLE now', 'modprobe psample')
    }
    try {
      socket.join(group, 'psample packets')
    } catch (error) {
      return lacking(
        'psample',
        isNeeded,
        (error as Error).message,
        'run it with CAP_NET_ADMIN: as root, or in the unit',
      )
    }
    const also = await listeners(root, group)
    return ok('psample', `there, and its samples can be received${also}`)
  } finally {
    socket.close()
  }
}

/** Programs that are in a multicast group of generic netlink, as far as the kernel tells: the first 32 groups. */
async function listeners(root: string, group: number): Promise<string> {
  const text = await readFile(join(root, '/proc/self/net/netlink'), 'utf8').catch(() => '')
  const names: string[] = []
  for (const row of text.split('\n').slice(1)) {
    // sk, protocol, port id (which is the process id of the first socket), groups, …
    const [, protocol, pid = '', groups = ''] = row.trim().split(/\s+/)
    const isIn = group <= 32 && ((Number.parseInt(groups, 16) >>> (group - 1)) & 1) === 1
    if (protocol !== String(NETLINK_GENERIC) || !isIn || Number(pid) === process.pid) continue
    const name = await readFile(join(root, '/proc', pid, 'comm'), 'utf8').catch(() => '')
    names.push(name === '' ? 'another program' : `${name.trim()} (process ${pid})`)
  }
  return names.length === 0 ? '' : `; ${names.join(', ')} ${names.length === 1 ? 'listens' : 'listen'}, too`
}

export async function tcSampling({ config }: Patient): Promise<Finding[]> {
  // To ask makes the kernel load its modules.
  if (config !== undefined && config.tc === undefined) return []
  const isNeeded = config !== undefined
  const hasAction = await kernelSamples().catch(() => false)
  if (hasAction) return [ok('tc', 'the kernel can sample by tc')]
  const what = 'the kernel cannot sample by tc: no act_sample, or no permission to ask for it'
  return [lacking('tc', isNeeded, what, 'modprobe act_sample cls_matchall sch_ingress')]
}

export async function dropMonitor({ config, root }: Patient): Promise<Finding> {
  const isNeeded = config?.dropmon !== undefined && sourceOf(config.dropmon) === 'drop monitor'
  const socket = NetlinkSocket.open(NETLINK_GENERIC)
  try {
    const family = await resolveFamily(socket, NET_DM_FAMILY)
    const group = family?.groups.get(NET_DM_GROUP_EVENTS)
    if (group !== undefined) return ok('drop monitor', `there${await listeners(root, group)}`)
    const isFirst = await isFirstNamespace()
    const what = isFirst
      ? 'the kernel has no drop monitor now'
      : 'the drop monitor is in the first network namespace only'
    const mend = isFirst ? 'modprobe drop_monitor' : 'dropmon { source = ebpf }'
    return lacking('drop monitor', isNeeded, what, mend)
  } finally {
    socket.close()
  }
}

/** Type information, loading, tracing and attaching: each may be refused by itself. */
export async function bpf(patient: Patient): Promise<Finding[]> {
  const { config, root } = patient
  const isNeeded = (config?.pcap.length ?? 0) > 0 || config?.dropmon !== undefined
  const findings: Finding[] = []
  const without = 'packets are sampled by packet sockets instead, and drops need the drop monitor'
  const hasBtf = await readFile(join(root, BTF)).then(
    bytes => bytes.length > 0,
    () => false,
  )
  if (hasBtf) findings.push(ok('btf', 'the kernel tells its types'))
  else {
    const mend = 'install a kernel with CONFIG_DEBUG_INFO_BTF=y'
    const what = `no type information at ${BTF}: no transit delay, queue depth, or drops by eBPF`
    findings.push(isNeeded ? weak('btf', what, mend) : lacking('btf', false, what, mend))
  }
  const lockdown = await textOf(patient, '/sys/kernel/security/lockdown')
  if (lockdown?.includes('[confidentiality]')) {
    const what = `the kernel is locked down for confidentiality: it refuses BPF; ${without}`
    findings.push(weak('bpf', what, 'start the kernel with lockdown=integrity, or without'))
    return findings
  }
  let object: BpfObject | undefined
  try {
    const bytes = await readFile(builtFile(BPF_OBJECT))
    object = await BpfObject.load({ name: BPF_OBJECT, bytes })
    findings.push(ok('bpf', 'programs can be loaded'))
    findings.push(await tracing(object))
    findings.push(await attaching(object))
  } catch (error) {
    const what = `${(error as Error).message}; ${without}`
    const isRefused = error instanceof BpfError && error.code === 'EPERM'
    const mend = isRefused
      ? 'run it with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: as root, or in the unit'
      : 'install a kernel that has BPF, the ring buffer (5.8) and its type information'
    const nothing = config && nothingInstead(config)
    if (nothing !== undefined) findings.push(missing('bpf', `${(error as Error).message}; ${nothing}`, mend))
    else findings.push(isNeeded ? weak('bpf', what, mend) : lacking('bpf', false, what, mend))
  } finally {
    await object?.close()
  }
  return findings
}

/** What cannot be done at all without BPF, as nothing can take its place. */
function nothingInstead({ pcap, dropmon }: Config): string | undefined {
  const has = (name: Capability) => ((effectiveCapabilities() >> BigInt(CAPABILITIES[name])) & 1n) === 1n
  if (pcap.length > 0 && !has('CAP_NET_RAW')) {
    return 'nor are packet sockets allowed, without CAP_NET_RAW: no packets are sampled'
  }
  if (dropmon !== undefined && sourceOf(dropmon) === 'eBPF' && !has('CAP_SYS_ADMIN')) {
    return 'nor is the drop monitor, without CAP_SYS_ADMIN: no dropped packets are reported'
  }
  return undefined
}

async function tracing(object: BpfObject): Promise<Finding> {
  try {
    await object.detach(await object.attachTracing('weir_transmit'))
    return ok('bpf tracing', 'packets can be followed')
  } catch (error) {
    return weak(
      'bpf tracing',
      `${(error as Error).message}: samples have no queue depth and no transit delay`,
      'run it with CAP_PERFMON, on a kernel with CONFIG_BPF_EVENTS=y and type information',
    )
  }
}

/** The kernel looks for the interface last: that there is none is the best answer. */
async function attaching(object: BpfObject): Promise<Finding> {
  try {
    await object.attachTcx('weir_ingress', NO_INTERFACE)
  } catch (error) {
    const { code } = error as BpfError
    if (code === 'ENODEV') return ok('tcx', 'programs can be attached to interfaces by TCX')
    if (code !== 'EINVAL') return weak('tcx', (error as Error).message, 'run it with CAP_NET_ADMIN')
  }
  return ok('tcx', 'the kernel has no TCX (Linux 6.6): programs are attached by clsact, as well')
}

export async function buffers(patient: Patient): Promise<Finding> {
  const { config } = patient
  const most = Number((await textOf(patient, '/proc/sys/net/core/rmem_max')) ?? 0)
  const socket = NetlinkSocket.open(NETLINK_GENERIC, { receiveBytes: RECEIVE_BYTES })
  const granted = socket.receiveBuffer?.granted ?? 0
  const asked = socket.receiveBuffer?.asked ?? RECEIVE_BYTES
  socket.close()
  const megabytes = (bytes: number) => `${(bytes / (1 << 20)).toFixed(1)} MiB`
  const isUsed = config?.psample !== undefined || config?.dropmon !== undefined
  const found = `a receive buffer of ${megabytes(granted)} is granted of ${megabytes(asked)}; net.core.rmem_max is ${megabytes(most)}`
  if (granted >= asked) {
    if (
      most >= RECEIVE_BYTES ||
      (effectiveCapabilities() & (1n << BigInt(CAPABILITIES.CAP_NET_ADMIN))) !== 0n
    )
      return ok('buffers', found)
  }
  const mend = `sysctl -w net.core.rmem_max=${RECEIVE_BYTES}`
  return isUsed
    ? weak('buffers', `${found}: bursts of samples are lost sooner`, mend)
    : lacking('buffers', false, found, mend)
}

const SLOW_CLOCKS = ['hpet', 'acpi_pm', 'jiffies', 'refined-jiffies', 'pit']
const CLOCK = '/sys/devices/system/clocksource/clocksource0'
/** No machine that runs this kernel was built before. */
const LEAST_YEAR = 2024

export async function clocks(patient: Patient): Promise<Finding[]> {
  const findings: Finding[] = []
  const current = await textOf(patient, `${CLOCK}/current_clocksource`)
  const available = (await textOf(patient, `${CLOCK}/available_clocksource`))?.split(/\s+/) ?? []
  if (current !== undefined && SLOW_CLOCKS.includes(current)) {
    const better = available.find(name => !SLOW_CLOCKS.includes(name))
    const mend =
      better === undefined
        ? 'look in dmesg for why the kernel does not trust the TSC'
        : `echo ${better} > ${CLOCK}/current_clocksource`
    findings.push(weak('clock source', `${current} takes microseconds for each time stamp`, mend))
  } else findings.push(ok('clock source', current ?? 'the kernel does not tell'))
  const year = new Date().getUTCFullYear()
  if (year >= LEAST_YEAR) findings.push(ok('time of day', new Date().toISOString()))
  else
    findings.push(
      weak('time of day', `the clock stands in ${year}: time stamps are wrong`, 'timedatectl set-ntp true'),
    )
  return findings
}
