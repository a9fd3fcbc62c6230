/** Counters: what polling thousands of interfaces costs, and how long the structures of the host take. */
import { execFileSync, spawnSync } from 'node:child_process'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { Agent } from '../../agent/agent.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { hostReaders } from '../../agent/counters/host-readers.ts'
import { createLogger } from '../../agent/health/log.ts'
import { Interfaces } from '../../agent/interfaces.ts'
import { report } from './measure.ts'

const INTERFACES = 4096
const INTERVAL_SECONDS = 20
const HOST_POLLS = 200
const COLLECTOR = '198.51.100.2'

export async function countersBench(): Promise<void> {
  await hostBench()
  interfacesBench()
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
function interfacesBench(): void {
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
    const self = [process.execPath, import.meta.filename, 'poll']
    spawnSync('ip', ['netns', 'exec', namespace, ...self], { stdio: 'inherit' })
  } finally {
    ip('', 'netns', 'delete', namespace)
  }
}

/** Run in the namespace: the first round is the start and is not counted. */
async function poll(): Promise<void> {
  const file = 'counters.conf'
  const text = `sFlow { polling = ${INTERVAL_SECONDS} agentIP = 192.0.2.1 collector { ip = ${COLLECTOR} } }\n`
  const { config } = loadConfig(text, file)
  let samples = 0
  const onLine = (line: string) => {
    const { countersSamples, level, msg } = JSON.parse(line)
    if (level > 30) console.log(`  ${msg}`)
    if (countersSamples !== undefined) samples = countersSamples
  }
  const agent = new Agent(config!, createLogger('info', { stream: { write: onLine }, format: 'json' }))
  await agent.start()
  await setTimeout((INTERVAL_SECONDS + 2) * 1000)
  agent.logStatus()
  const samplesBefore = samples
  const before = process.cpuUsage()
  await setTimeout(INTERVAL_SECONDS * 1000)
  const { user, system } = process.cpuUsage(before)
  agent.logStatus()
  const sent = samples - samplesBefore
  report('samples of each interface', sent / INTERFACES, 'per interval')
  report('processor time, of one core', (user + system) / 1e4 / INTERVAL_SECONDS, '%', 1)
  report('for one sample', (user + system) / sent, 'µs')
  // In an interval of its own: looking every millisecond costs more than the polling.
  const pauses = monitorEventLoopDelay({ resolution: 1 })
  pauses.enable()
  await setTimeout(INTERVAL_SECONDS * 1000)
  pauses.disable()
  report('longest pause of the event loop', pauses.max / 1e6, 'ms', 5)
  report('99.9 of 100', pauses.percentile(99.9) / 1e6, 'ms')
  await agent.stop()
  if (sent < INTERFACES) throw new Error(`only ${sent} samples`)
}

if (process.argv[1] === import.meta.filename && process.argv[2] === 'poll') await poll()
