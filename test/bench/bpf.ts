/**
 * Host sampling: the agent at one end of a veth, packets from the other. Processor time is that of the whole agent,
 * user and system, with what it sends; by BPF and by packet sockets in the same run.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Lab, makeLab, RunningAgent, type Scope, sink } from '../support/lab.ts'
import { builtAgent, configuration } from './agent.ts'
import { cpuSeconds, sendFor } from './load.ts'
import { report } from './measure.ts'

const SECONDS = 5
/** Long enough for the code that is hot to be compiled, on a busy machine too. */
export const WARM_UP_SECONDS = 6
const PACKETS_PER_SECOND = 200_000
/** Up to here nothing is to be lost. */
const MOST_SAMPLES_PER_SECOND = 300_000
const FRAME_BYTES = 100
const COLLECTOR_PORT = 6343
export const STATISTICS = '/proc/sys/kernel/bpf_stats_enabled'
/** enum bpf_prog_type. */
export const PROGRAM_TYPE = { classifier: 3, tracing: 26 } as const
const WITHOUT_BPF = ['setpriv', '--bounding-set=-sys_admin,-bpf', '--inh-caps=-sys_admin,-bpf']

export async function bpfBench(): Promise<void> {
  console.log(
    `\nhost sampling: a veth with ${PACKETS_PER_SECOND.toLocaleString('en')} packets/s for ${SECONDS} s`,
  )
  const cleanups: (() => void | Promise<void>)[] = []
  const scope: Scope = { after: cleanup => cleanups.push(cleanup) }
  try {
    const lab = makeLab(scope)
    sink(scope, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: COLLECTOR_PORT })
    const bundle = [builtAgent()]

    const bpf = await run(scope, lab, bundle, { rate: 10, packetsPerSecond: PACKETS_PER_SECOND })
    report('1 in 10, BPF: processor time per exported sample', bpf.microseconds, 'µs', 1.5)
    report('samples lost', bpf.lost, '', 0)
    const socket = await run(scope, lab, bundle, {
      rate: 10,
      packetsPerSecond: PACKETS_PER_SECOND,
      under: WITHOUT_BPF,
    })
    report('1 in 10, packet socket: processor time per exported sample', socket.microseconds, 'µs')
    report('samples lost', socket.lost, '')

    const rare = await run(scope, lab, bundle, {
      rate: 10_000_000,
      packetsPerSecond: PACKETS_PER_SECOND,
      statistics: true,
    })
    report('an empty program, as the kernel measures it', rare.emptyNanoseconds, 'ns')
    const following = rare.followNanoseconds - rare.emptyNanoseconds
    report('a trace point of transit following beyond that, per packet', following, 'ns', 25)
    report(
      '1 in 10,000,000: the program beyond that, per packet',
      rare.programNanoseconds - rare.emptyNanoseconds,
      'ns',
      25,
    )

    const many = await run(scope, lab, bundle, { rate: 1, packetsPerSecond: MOST_SAMPLES_PER_SECOND })
    report('1 in 1, 300,000 packets/s offered: packets', many.packets / many.seconds, '/s')
    report('samples lost', many.lost, '', 0)
    report('processor time per exported sample', many.microseconds, 'µs')

    const all = await run(scope, lab, bundle, { rate: 1, packetsPerSecond: Number.POSITIVE_INFINITY })
    report('1 in 1, as fast as they come: packets', all.packets / all.seconds, '/s')
    report('samples exported', all.exported / all.seconds, '/s')
    report('samples lost and counted', all.lost / all.seconds, '/s')
    report('processor time per exported sample', all.microseconds, 'µs')
    if (all.exported + all.lost < all.packets) throw new Error('samples are missing and not counted')
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup()
  }
}

interface Run {
  readonly rate: number
  readonly packetsPerSecond: number
  /** A command that runs the agent. */
  readonly under?: readonly string[]
  /** Have the kernel measure the programs, which costs time itself. */
  readonly statistics?: boolean
}

interface Outcome {
  readonly packets: number
  readonly seconds: number
  readonly exported: number
  readonly lost: number
  /** Per exported sample. */
  readonly microseconds: number
  /** Per packet, with what measuring costs. */
  readonly programNanoseconds: number
  readonly emptyNanoseconds: number
  readonly followNanoseconds: number
}

async function run(scope: Scope, lab: Lab, bundle: readonly string[], options: Run): Promise<Outcome> {
  const { host, peer } = lab
  const conf = configuration(
    `sFlow {\n polling = 0\n collector { ip = ${peer.mgmt0.ipv4} udpport = ${COLLECTOR_PORT} }\n` +
      ` pcap { dev = eth0 sampling = ${options.rate} }\n}\n`,
  )
  const { under = [] } = options
  const start = ['netns', 'exec', host.namespace, ...under, ...bundle, 'run', '-f', conf.path]
  const agent = new RunningAgent(scope, ['ip', ...start])
  const empty = [
    process.execPath,
    join(import.meta.dirname, '../support/tc-program.ts'),
    `${host.eth0.ifIndex}`,
    '-1',
  ]
  const measured = options.statistics
    ? new RunningAgent(scope, ['ip', 'netns', 'exec', host.namespace, ...empty])
    : undefined
  if (options.statistics) writeFileSync(STATISTICS, '1')
  try {
    await agent.line(/^running$/)
    await send(lab, options.packetsPerSecond, WARM_UP_SECONDS)
    await sleep(300)
    const pid = agent.child.pid!
    const before = await agent.status()
    const cpuBefore = cpuSeconds(pid)
    const times = () => ({
      sampling: programTime(pid, PROGRAM_TYPE.classifier),
      following: programTime(pid, PROGRAM_TYPE.tracing),
      empty: programTime(measured?.child.pid, PROGRAM_TYPE.classifier),
    })
    const timesBefore = times()
    const started = performance.now()
    const packets = await send(lab, options.packetsPerSecond, SECONDS)
    const seconds = (performance.now() - started) / 1000
    await sleep(1200)
    const cpu = cpuSeconds(pid) - cpuBefore
    const timesAfter = times()
    const after = await agent.status()
    await agent.stop()
    const lostIn = (status: typeof before) =>
      Object.values(status.lost).reduce((sum, count) => sum + count, 0)
    const exported = after.flowSamples - before.flowSamples
    return {
      packets,
      seconds,
      exported,
      lost: lostIn(after) - lostIn(before),
      microseconds: (cpu * 1e6) / exported,
      programNanoseconds: perRun(timesBefore.sampling, timesAfter.sampling),
      emptyNanoseconds: perRun(timesBefore.empty, timesAfter.empty),
      followNanoseconds: perRun(timesBefore.following, timesAfter.following),
    }
  } finally {
    if (options.statistics) writeFileSync(STATISTICS, '0')
    measured?.child.kill()
    conf.remove()
  }
}

/** Sends frames from the peer; gives their number. An EtherType for experiments: the stack does nothing with them. */
function send({ peer }: Lab, packetsPerSecond: number, seconds: number): Promise<number> {
  const frame = Buffer.alloc(FRAME_BYTES)
  frame.writeUInt16BE(0x88b5, 12)
  return sendFor(peer.namespace, peer.eth0.ifIndex, frame, { packetsPerSecond, seconds })
}

interface ProgramTime {
  readonly nanoseconds: number
  readonly runs: number
}

/** What the kernel has measured of the programs of a process, which it shows with their descriptors. */
export function programTime(pid: number | undefined, type: number): ProgramTime {
  let nanoseconds = 0
  let runs = 0
  for (const descriptor of pid === undefined ? [] : readdirSync(`/proc/${pid}/fdinfo`)) {
    const text = readFileSync(`/proc/${pid}/fdinfo/${descriptor}`, 'utf8')
    if (Number(/^prog_type:\s+(\d+)$/m.exec(text)?.[1]) !== type) continue
    nanoseconds += Number(/^run_time_ns:\s+(\d+)$/m.exec(text)?.[1] ?? 0)
    runs += Number(/^run_cnt:\s+(\d+)$/m.exec(text)?.[1] ?? 0)
  }
  return { nanoseconds, runs }
}

export function perRun(before: ProgramTime, after: ProgramTime): number {
  return (after.nanoseconds - before.nanoseconds) / (after.runs - before.runs)
}
