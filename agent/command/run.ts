import { Command, Option } from 'commander'
import { Agent } from '../agent.ts'
import { AUTO_FILE, AutoFile } from '../auto-file.ts'
import { DEFAULT_FILES, loadConfigFile } from '../config/load.ts'
import { formatProblem, linesOf } from '../config/problem.ts'
import { CONTROL_SOCKET } from '../control/protocol.ts'
import type { ControlServer } from '../control/server.ts'
import { createLogger, LOG_LEVELS, type Logger } from '../health/log.ts'
import { releaseStartMemory } from '../kernel/memory.ts'
import { initialConfig, LiveConfig } from '../live-config.ts'
import { PID_FILE, removePidFile, writePidFile } from './pid-file.ts'

/** By then every part has run once, and the code that is hot has been compiled. */
const SETTLED_MS = 10_000
const LINGER_MS = 200

/** How often the settings in force are compared with the file that tells them. */
const AUTO_FILE_MS = 1000

/** `weir run`: the daemon, in the foreground. */
export function runCommand(): Command {
  return new Command('run')
    .summary('run the agent in the foreground')
    .description(
      'Reads the configuration and runs until SIGTERM or SIGINT. The configuration is checked first: an error ' +
        'refuses the start, as `weir check` would tell. SIGHUP has the file read again (`weir reload`). SIGUSR1 writes ' +
        'what was sent and lost to the log.',
    )
    .option('-f, --file <file>', 'configuration (default: /etc/weir.conf, else /etc/hsflowd.conf)')
    .option(
      '-o, --output <file>',
      `settings in force, for other programs (default: ${AUTO_FILE} for a default configuration, else none)`,
    )
    .option(
      '--pid-file <file>',
      `file that tells \`weir reload\` of this agent (default: ${PID_FILE} for a default configuration, else none)`,
    )
    .option(
      '--control <socket>',
      `socket that answers \`weir status\` and others (default: ${CONTROL_SOCKET} for a default configuration, else none)`,
    )
    .addOption(
      new Option('--log-level <level>', 'least important messages to log')
        .choices(LOG_LEVELS)
        .default('info'),
    )
    .action(run)
}

interface RunOptions {
  readonly file?: string
  readonly output?: string
  readonly pidFile?: string
  readonly control?: string
  readonly logLevel: string
}

async function run(options: RunOptions): Promise<void> {
  // From the first moment: without a handler SIGUSR1 opens Node.js's debugger, and SIGHUP ends the process.
  let onStatus = () => {}
  let onReload = () => {}
  process.on('SIGUSR1', () => onStatus())
  process.on('SIGHUP', () => onReload())
  const { config, problems, file, text } = await loadConfigFile(options.file)
  const lines = linesOf(text)
  for (const problem of problems) process.stderr.write(`${formatProblem(problem, file, lines)}\n`)
  if (config === undefined) throw new Error(`not started: ${file} has errors`)

  const log = createLogger(options.logLevel)
  const pidFile = options.pidFile ?? (isDefault(file) ? PID_FILE : undefined)
  // One that was asked for has to be; the usual one may belong to the agent of another namespace.
  if (options.pidFile !== undefined) writePidFile(options.pidFile, file)
  else if (pidFile !== undefined) tryPidFile(pidFile, file, log)
  const auto = openAutoFile(options.output, file, log)
  const agent = new Agent(initialConfig(config), log, auto?.previousAddress)
  const live = new LiveConfig({ config, text, log, onChange: changed => void agent.change(changed) })
  const ended = new Promise<string>(resolve => {
    process.once('SIGTERM', () => resolve('SIGTERM'))
    process.once('SIGINT', () => resolve('SIGINT'))
  })
  const socket = options.control ?? (isDefault(file) ? CONTROL_SOCKET : undefined)
  const control = socket === undefined ? undefined : agent.controlSocket(socket, undefined)
  let updating: NodeJS.Timeout | undefined
  onStatus = () => agent.logStatus()
  onReload = () => void live.reload()
  try {
    await agent.start()
    live.start()
    // One that was asked for has to be; the usual one may belong to the agent of another namespace.
    if (options.control !== undefined) await control?.start()
    else await tryControl(control, log)
    if (auto !== undefined) {
      auto.update(agent.settings())
      updating = setInterval(() => auto.update(agent.settings()), AUTO_FILE_MS)
    }
    setTimeout(() => {
      try {
        releaseStartMemory()
      } catch (error) {
        log.warn((error as Error).message)
      }
    }, SETTLED_MS).unref()
    const signal = await ended
    log.info(`ending on ${signal}`)
  } finally {
    control?.stop()
    live.stop()
    clearInterval(updating)
    await agent.stop()
    auto?.close()
    if (pidFile !== undefined) removePidFile(pidFile)
    // Nothing is left to do; a look-up that the system's resolver still waits for must not hold the process.
    setTimeout(() => process.exit(), LINGER_MS).unref()
  }
}

function isDefault(file: string): boolean {
  return DEFAULT_FILES.some(name => name === file)
}

/** A file that was asked for has to be; the usual one is a service to others, and the agent runs without it. */
function openAutoFile(asked: string | undefined, file: string, log: Logger): AutoFile | undefined {
  if (asked !== undefined) return new AutoFile(asked)
  if (!isDefault(file)) return undefined
  try {
    return new AutoFile(AUTO_FILE)
  } catch (error) {
    log.info(`other programs are not told the settings: ${(error as Error).message}`)
    return undefined
  }
}

async function tryControl(control: ControlServer | undefined, log: Logger): Promise<void> {
  try {
    await control?.start()
  } catch (error) {
    log.info(`\`weir status\` does not find this agent: ${(error as Error).message}`)
  }
}

function tryPidFile(path: string, file: string, log: Logger): void {
  try {
    writePidFile(path, file)
  } catch (error) {
    log.info(`\`weir reload\` does not find this agent: ${(error as Error).message}`)
  }
}
