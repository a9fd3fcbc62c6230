/** Counters: what polling thousands of interfaces costs, and how long the structures of the host take. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { Agent } from '../../agent/agent.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { hostReaders } from '../../agent/counters/host-readers.ts'
import { createLogger } from '../../agent/health/log.ts'
import { Interfaces } from '../../agent/interfaces.ts'
import { builtAgent, configuration } from './agent.ts'
import { report } from './measure.ts'

const INTERFACES = 4096
const INTERVAL_SECONDS = 20
const HOST_POLLS = 200
const COLLECTOR = '198.51.100.2'
const CONFIGURATION = `sFlow { polling = ${INTERVAL_SECONDS} agentIP = 192.0.2.1 collector { ip = ${COLLECTOR} } }\n`
/** Intervals of which the cost is told. */
const MEASURED = 3
/** As the launcher starts the daemon (packaging/weir). */
const LAUNCHED = ['--max-semi-space-size=1', '--max-old-space-size=48']

export async function countersBench(): Promise<void> {
  await hostBench()
  await interfacesBench()
}

/** All structures of the host, one poll after the other. */
async function hostBench(): Promise<void> {
  console.log(`\ncounters of the host: ${HOST_POLLS} polls of all structures`)
  const interfaces = new Interfaces({ log: createLogger('silent') })
  await interfaces.start()
  const readers = hostReaders({ uuid: undefined, interfaces: () => interfaces.byIndex.values() })
  const poll = () => Promise.all(readers.map(reader => reader.read()))
  for (let i = 0; i < 20; i++) await poll()
  const times: number[] = []
  const before = process.cpuUsage()
  for (let i = 0; i < HOST_POLLS; i++) {
    const startedMs = performance.now()
    await poll()
    times.push(performance.now() - startedMs)
  }
  const { user, system } = process.cpuUsage(before)
  interfaces.stop()
  times.sort((a, b) => a - b)
  report('from question to the last answer, median', times[HOST_POLLS >> 1]!, 'ms', 3)
  report('99 of 100', times[Math.floor(HOST_POLLS * 0.99)]!, 'ms')
  report('processor time of a poll, all threads', (user + system) / 1000 / HOST_POLLS, 'ms', 3)
}

/** The whole agent in a namespace with veths only, the pairs of which are both in it. */
async function interfacesBench(): Promise<void> {
  console.log(`\ncounters of interfaces: ${INTERFACES}, polled every ${INTERVAL_SECONDS} s`)
  const namespace = `weir-bench-c-${process.pid}`
  const ip = (input: string, ...args: string[]) =>
    execFileSync('ip', args, { input, stdio: ['pipe', 'ignore', 'inherit'] })
  try {
    ip('', 'netns', 'add', namespace)
    const sysctls = ['all', 'default'].map(name => `net.ipv6.conf.${name}.disable_ipv6=1`)
    execFileSync('ip', ['netns', 'exec', namespace, 'sysctl', '-qw', ...sysctls])
    const lines = Array.from({ length: INTERFACES / 2 }, (_, i) =>
      [`link add a${i} type veth peer name b${i}`, `link set a${i} up`, `link set b${i} up`].join('\n'),
    )
    ip(lines.join('\n'), '-n', namespace, '-batch', '-')
    // Behind the first cable a collector that takes what comes: the other end lets it fall.
    ip('', '-n', namespace, 'address', 'add', '198.51.100.1/24', 'dev', 'a0')
    const collector = ['neighbour', 'add', COLLECTOR, 'lladdr', '02:00:00:00:00:02', 'dev', 'a0']
    ip('', '-n', namespace, ...collector)
    await costBench(namespace)
    const self = [process.execPath, ...LAUNCHED, import.meta.filename, 'pauses']
    spawnSync('ip', ['netns', 'exec', namespace, ...self], { stdio: 'inherit' })
  } finally {
    ip('', 'netns', 'delete', namespace)
  }
}

/** Processor time and memory of the agent as packages ship it. The first two intervals are its start and not counted. */
async function costBench(namespace: string): Promise<void> {
  const conf = configuration(CONFIGURATION)
  const run = [builtAgent(), 'run', '--log-level', 'warn', '-f', conf.path]
  const child = spawn('ip', ['netns', 'exec', namespace, ...run], { stdio: 'inherit' })
  try {
    const pid = child.pid!
    await setTimeout(INTERVAL_SECONDS * 2000)
    const before = spent(pid)
    await setTimeout(INTERVAL_SECONDS * MEASURED * 1000)
    const after = spent(pid)
    const percent = (of: (one: Spent) => number) =>
      ((of(after) - of(before)) / (INTERVAL_SECONDS * MEASURED)) * 100
    const all = percent(({ user, system }) => user + system)
    report('processor time, of one core', all, '%', 1)
    report(
      '  of that in the kernel',
      percent(({ system }) => system),
      '%',
    )
    report(
      '  threads that ask the kernel',
      percent(({ asking }) => asking),
      '%',
    )
    report(
      '  compiler and collector of garbage',
      percent(({ engine }) => engine),
      '%',
    )
    report('for one interface and poll', (all * INTERVAL_SECONDS * 1e4) / INTERFACES, 'µs')
    report('resident memory', memoryOf(pid, 'VmRSS'), 'MB', 96)
    report('  of its own', memoryOf(pid, 'RssAnon'), 'MB')
    report('  most, at the start', memoryOf(pid, 'VmHWM'), 'MB')
    console.log(`    load of the machine: ${readFileSync('/proc/loadavg', 'utf8').trim()}`)
  } finally {
    child.kill()
    conf.remove()
  }
}

/** Seconds of processor time that a process has used. */
interface Spent {
  readonly user: number
  readonly system: number
  /** Of that, the threads of libuv's pool, and those of V8. */
  readonly asking: number
  readonly engine: number
}

function spent(pid: number): Spent {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
    .slice(11, 13)
    .map(ticks => Number(ticks) / 100)
  const folder = `/proc/${pid}/task`
  const threads = readdirSync(folder).map(id => ({
    name: readFileSync(`${folder}/${id}/comm`, 'utf8').trim(),
    seconds: Number(readFileSync(`${folder}/${id}/schedstat`, 'utf8').split(' ')[0]) / 1e9,
  }))
  const sum = (pattern: RegExp) =>
    threads.filter(({ name }) => pattern.test(name)).reduce((total, { seconds }) => total + seconds, 0)
  return { user: user!, system: system!, asking: sum(/^libuv/), engine: sum(/^(V8|Delayed)/) }
}

function memoryOf(pid: number, field: string): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)![1]) * 1.024e-3
}

/**
 * Run in the namespace: how long the event loop stands still. What a timer of a millisecond finds between two of its calls
 * is a pause, by the clock, which on a busy machine also tells of others, and in processor time of the thread.
 */
async function pauses(): Promise<void> {
  const { config } = loadConfig(CONFIGURATION, 'counters.conf')
  let samples = 0
  const onLine = (line: string) => {
    const { countersSamples, level, msg } = JSON.parse(line)
    if (level > 30) console.log(`  ${msg}`)
    if (countersSamples !== undefined) samples = countersSamples
  }
  const agent = new Agent(config!, createLogger('info', { stream: { write: onLine }, format: 'json' }))
  const atStart = watch()
  await agent.start()
  await setTimeout(2000)
  const start = atStart()
  report('longest pause while 4,096 interfaces are learnt', start.clockMs, 'ms')
  report('  in processor time', start.processorMs, 'ms')
  const before = performance.now()
  globalThis.gc!()
  report('the one collection after the start', performance.now() - before, 'ms')
  await setTimeout((INTERVAL_SECONDS + 2) * 1000)
  agent.logStatus()
  const samplesBefore = samples
  const whilePolling = watch()
  await setTimeout(INTERVAL_SECONDS * 1000)
  const polling = whilePolling()
  agent.logStatus()
  const sent = samples - samplesBefore
  report('samples of each interface', sent / INTERFACES, 'per interval')
  report('longest pause of the event loop', polling.clockMs, 'ms', 5)
  report('  in processor time', polling.processorMs, 'ms', 5)
  console.log(`    load of the machine: ${readFileSync('/proc/loadavg', 'utf8').trim()}`)
  await agent.stop()
  if (sent < INTERFACES) throw new Error(`only ${sent} samples`)
}

const WATCH_MS = 1

/** Looks for pauses from now on, until the function that it gives is called. */
function watch(): () => { readonly clockMs: number; readonly processorMs: number } {
  const processor = () => {
    const { user, system } = process.threadCpuUsage()
    return (user + system) / 1000
  }
  let clockMs = 0
  let processorMs = 0
  let lastClock = performance.now()
  let lastProcessor = processor()
  const timer = setInterval(() => {
    clockMs = Math.max(clockMs, performance.now() - lastClock - WATCH_MS)
    processorMs = Math.max(processorMs, processor() - lastProcessor)
    lastProcessor = processor()
    lastClock = performance.now()
  }, WATCH_MS)
  return () => {
    clearInterval(timer)
    return { clockMs, processorMs }
  }
}

if (process.argv[1] === import.meta.filename && process.argv[2] === 'pauses') await pauses()
