import { accessSync, constants, existsSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { dirname, join } from 'node:path'
import { Command } from 'commander'
import { DEFAULT_FILES, loadConfig } from '../config/load.ts'
import { CONTROL_SOCKET } from '../control/protocol.ts'
import { type LogLevels, readLogLevels } from '../health/log-levels.ts'
import { PID_FILE } from './pid-file.ts'
import { AGENT_USER } from './privileges.ts'
import { run } from './run.ts'

/** Where the configuration that is made can be written: the first of these that takes it. */
const FOLDERS = ['/run/weir', '/run', '/dev/shm', '/tmp'] as const

/** Interfaces that are named one by one: a node of a lab has that many at most. */
const USUAL_INTERFACES = 'eth1-32'
const MOST_INTERFACES = 512

/** The variables, for the help. */
const VARIABLES = `
Variables of the environment:
  COLLECTOR    where to send, ADDRESS or ADDRESS:PORT, [ADDRESS]:PORT for IPv6; several with blanks or commas between
  SAMPLING     1 in N packets on every interface; 0 takes none (default: 1 in speed / 1,000,000)
  POLLING      seconds between counters samples (default: 30)
  AGENT        agent address, or the interface to take it from
  INTERFACES   what to sample beside hardware, as "eth1 eth3", "eth1-eth9" or "eth1-32" (default: ${USUAL_INTERFACES})
  DROPS        on: report dropped packets
  SUBAGENT     sub-agent id, for several agents with one address
  LOG_LEVEL    least important messages to log (default: info)
  WEIR_HEAP_MB megabytes that the heap may have (default, in the image: 48)
`

/** `weir container`: the entry point of the container image. */
export function containerCommand(): Command {
  return new Command('container')
    .summary('run the agent as the environment says, in a container')
    .description(
      `Runs the agent with ${DEFAULT_FILES.join(' or ')} if one is mounted there, else with a configuration made from ` +
        'variables of the environment.',
    )
    .addHelpText('after', VARIABLES)
    .action(container)
}

async function container(): Promise<void> {
  takeHeap(process.env.WEIR_HEAP_MB)
  const common = {
    user: AGENT_USER,
    drop: true,
    logLevel: logLevels(process.env.LOG_LEVEL ?? 'info'),
    ...files(),
  }
  const mounted = DEFAULT_FILES.find(file => existsSync(file))
  await run({ ...common, file: mounted ?? writeConfiguration(containerConfiguration(process.env)) })
}

/** A heap that has begun keeps its limit: for another one the program is run anew, by the same process. */
function takeHeap(megabytes: string | undefined): void {
  if (megabytes === undefined || megabytes === '') return
  if (!/^[1-9]\d*$/.test(megabytes)) throw new Error(`WEIR_HEAP_MB=${megabytes}: expected a whole number`)
  const flag = `--max-old-space-size=${megabytes}`
  const { argv, env, execArgv, execPath } = process
  // The last one holds.
  if (execArgv.at(-1) === flag) return
  process.execve!(execPath, [execPath, ...execArgv, flag, ...argv.slice(1)], env)
}

function logLevels(text: string): LogLevels {
  try {
    return readLogLevels(text)
  } catch (error) {
    throw new Error(`LOG_LEVEL=${text}: ${(error as Error).message}`)
  }
}

/** The configuration that the variables ask for. Throws where one of them makes no sense, with its name. */
export function containerConfiguration(environment: NodeJS.ProcessEnv): string {
  const words = (name: string) => (environment[name] ?? '').split(/[\s,]+/).filter(word => word !== '')
  const number = (name: string, setting: string) => {
    const value = environment[name]
    if (value === undefined || value === '') return []
    if (!/^\d+$/.test(value)) throw new Error(`${name}=${value}: expected a whole number`)
    return [`${setting} = ${value}`]
  }
  const collectors = words('COLLECTOR').map(collectorBlock)
  if (collectors.length === 0) {
    throw new Error(`COLLECTOR names nobody to send to, and no ${DEFAULT_FILES.join(' or ')} is mounted`)
  }
  const { AGENT: agent, DROPS: drops, SAMPLING: sampling } = environment
  const rate = number('SAMPLING', 'sampling')
  const tapRate = rate.length === 0 ? '' : ` sampling = ${sampling}`
  const interfaces = (
    environment.INTERFACES === undefined ? [USUAL_INTERFACES] : words('INTERFACES')
  ).flatMap(expand)
  const taps = sampling === '0' ? [] : ['', ...interfaces.map(name => ` dev = ${name}`)]
  if (drops !== undefined && drops !== 'on' && drops !== 'off')
    throw new Error(`DROPS=${drops}: expected on or off`)
  /** Lines, and the variable that they come from. */
  const made: Readonly<Record<string, readonly string[]>> = {
    SAMPLING: rate,
    POLLING: number('POLLING', 'polling'),
    SUBAGENT: number('SUBAGENT', 'subAgentId'),
    AGENT: agent ? [isIP(agent) > 0 ? `agentIP = ${agent}` : `agent = ${agent}`] : [],
    COLLECTOR: collectors,
    INTERFACES: taps.map(tap => `pcap {${tap}${tapRate} }`),
    DROPS: drops === 'on' ? ['dropmon { }'] : [],
  }
  const lines = Object.entries(made).flatMap(([name, texts]) => texts.map(text => ({ name, text })))
  const configuration = ['sFlow {', ...lines.map(({ text }) => `  ${text}`), '}', ''].join('\n')
  // Whoever wrote the variables has never seen the file.
  const wrong = loadConfig(configuration, '').problems.find(({ severity }) => severity === 'error')
  if (wrong !== undefined) {
    const name = lines[wrong.line - 2]?.name ?? 'COLLECTOR'
    throw new Error(`${name}=${environment[name] ?? ''}: ${wrong.message}`)
  }
  return configuration
}

function collectorBlock(word: string): string {
  const [, six, four, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(word) ?? []
  const host = six ?? four ?? (isIP(word) === 6 ? word : undefined)
  if (host === undefined || /[{}"#=;]/.test(host))
    throw new Error(`COLLECTOR: "${word}" is no ADDRESS or ADDRESS:PORT`)
  return `collector { ip = ${host}${port === undefined ? '' : ` udpport = ${port}`} }`
}

/** eth1-3 and eth1-eth3 are eth1, eth2 and eth3. */
function expand(word: string): string[] {
  if (/[{}"#=;]/.test(word)) throw new Error(`INTERFACES: "${word}" is no name of an interface`)
  const [, stem, first, last] = /^(.*?)(\d+)-(?:\1)?(\d+)$/.exec(word) ?? []
  if (stem === undefined) return [word]
  const count = Number(last) - Number(first) + 1
  if (count < 1 || count > MOST_INTERFACES)
    throw new Error(`INTERFACES: "${word}" is no range of up to ${MOST_INTERFACES}`)
  return Array.from({ length: count }, (_, i) => `${stem}${Number(first) + i}`)
}

function writeConfiguration(text: string): string {
  const failures: string[] = []
  for (const folder of FOLDERS) {
    const file = join(folder, 'weir-container.conf')
    try {
      // The first run, as root, has written it; this one may be that of another user.
      rmSync(file, { force: true })
      writeFileSync(file, text)
      return file
    } catch (error) {
      failures.push((error as Error).message)
    }
  }
  throw new Error(`the configuration can be written nowhere: ${failures.join('; ')}`)
}

/** None in a container whose file system is read-only: then nobody but the container's manager knows the agent. */
function files(): { pidFile?: string; control?: string } {
  try {
    accessSync(dirname(PID_FILE), constants.W_OK)
    return { pidFile: PID_FILE, control: CONTROL_SOCKET }
  } catch {
    return {}
  }
}
