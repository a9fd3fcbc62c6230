/** The agent while it runs: from the first line of its log to the last, and what the system says to it meanwhile. */

import { Agent } from '../agent.ts'
import { AUTO_FILE, AutoFile } from '../auto-file.ts'
import type { Config } from '../config/config.ts'
import { DEFAULT_FILES } from '../config/load.ts'
import { CONTROL_SOCKET } from '../control/protocol.ts'
import type { ControlServer } from '../control/server.ts'
import { createLogger, type LogFormat, type Logger } from '../health/log.ts'
import type { LogLevels } from '../health/log-levels.ts'
import { settleMemory } from '../kernel/memory.ts'
import { processCalled } from '../kernel/processes.ts'
import { ServiceManager } from '../kernel/service-manager.ts'
import { removePrograms } from '../leftovers.ts'
import { initialConfig, LiveConfig } from '../live-config.ts'
import { Claim } from './claim.ts'
import { AnotherAgentError, PID_FILE, removePidFile, touchPidFile, writePidFile } from './pid-file.ts'
import { warnOfMissing } from './privileges.ts'

const LINGER_MS = 200

/** How often the settings in force are compared with the file that tells them. */
const AUTO_FILE_MS = 1000
/** How often the pid file is touched; `weir health` looks at its age. */
const HEARTBEAT_MS = 5000

export interface DaemonOptions {
  readonly output?: string
  readonly pidFile?: string
  readonly control?: string
  readonly logLevel: LogLevels
  readonly logFormat?: LogFormat
  /** Why more privileges are kept than are needed. */
  readonly note: string | undefined
}

/** Runs the agent until SIGTERM or SIGINT. */
export async function runDaemon(
  { config, file, text }: { readonly config: Config; readonly file: string; readonly text: string },
  options: DaemonOptions,
): Promise<void> {
  const log = createLogger(options.logLevel, options.logFormat && { format: options.logFormat })
  const manager = new ServiceManager()
  if (options.note !== undefined) log.warn(options.note)
  const pidFile = openPidFile(options.pidFile, file, log)
  const claim = new Claim(file, log)
  takeFirst(claim, config.subAgentId, pidFile)
  const auto = openAutoFile(options.output, file, log)
  const agent = new Agent(initialConfig(config), log, auto?.previousAddress)
  let changed: Promise<void> = Promise.resolve()
  let running = config
  const onChange = (wanted: Config) => {
    const next = withFreeId(wanted, running, claim, log)
    warnOfMissing(next, log)
    if (next.controlGroup !== running.controlGroup) changeGroup(control, next.controlGroup, log)
    running = next
    changed = agent.change(next)
  }
  const live = new LiveConfig({ config, text, log, onChange })
  const ended = new Promise<string>(resolve => {
    process.once('SIGTERM', () => resolve('SIGTERM'))
    process.once('SIGINT', () => resolve('SIGINT'))
  })
  const socket = options.control ?? (isDefault(file) ? CONTROL_SOCKET : undefined)
  const control = socket === undefined ? undefined : agent.controlSocket(socket, config.controlGroup)
  const timers: NodeJS.Timeout[] = []
  process.on('SIGUSR1', () => agent.logStatus())
  process.on('SIGHUP', () => {
    manager.reloading()
    void live
      .reload()
      .then(() => changed)
      .finally(() => manager.ready(`running with ${file}`))
  })
  try {
    // Before anything is sampled or sent. One that was asked for has to be; the usual one may belong to the agent of
    // another namespace.
    if (options.control !== undefined) await control?.start()
    else await tryControl(control, log)
    await removePrograms({ log, instance: config.subAgentId }).catch((error: Error) =>
      log.warn(`what an earlier run may have left is still there: ${error.message}`),
    )
    await agent.start()
    live.start()
    manager.ready(`running with ${file}`)
    if (auto !== undefined) timers.push(every(AUTO_FILE_MS, () => updateAutoFile(auto, agent, log)))
    if (pidFile !== undefined) timers.push(every(HEARTBEAT_MS, () => touchPidFile(pidFile)))
    void warnOfHsflowd(log)
    settleMemory().catch((error: Error) => log.warn(error.message))
    const signal = await ended
    log.info(`ending on ${signal}`)
  } finally {
    manager.stopping()
    control?.stop()
    live.stop()
    for (const timer of timers) clearInterval(timer)
    await agent.stop()
    auto?.close()
    if (pidFile !== undefined) removePidFile(pidFile)
    claim.release()
    manager.close()
    // Nothing is left to do; a look-up that the system's resolver still waits for must not hold the process.
    setTimeout(() => process.exit(), LINGER_MS).unref()
  }
}

/** Does it now and then again and again; what fails once may work the next time, and is no reason to end. */
function every(ms: number, action: () => void): NodeJS.Timeout {
  const attempt = () => {
    try {
      action()
    } catch {}
  }
  attempt()
  return setInterval(attempt, ms)
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

/** Two agents with one id in one network namespace would be one to collectors. */
function takeFirst(claim: Claim, subAgentId: number, pidFile: string | undefined): void {
  try {
    claim.take(subAgentId)
  } catch (error) {
    if (pidFile !== undefined) removePidFile(pidFile)
    throw new Error(`not started: ${(error as Error).message}`)
  }
}

/** The changed configuration, with the id from before if another agent has the new one. */
function withFreeId(wanted: Config, before: Config, claim: Claim, log: Logger): Config {
  try {
    claim.take(wanted.subAgentId)
    return wanted
  } catch (error) {
    log.error(`subAgentId stays ${before.subAgentId}: ${(error as Error).message}`)
    return { ...wanted, subAgentId: before.subAgentId }
  }
}

function changeGroup(control: ControlServer | undefined, group: string | undefined, log: Logger): void {
  try {
    control?.changeGroup(group)
  } catch (error) {
    log.warn((error as Error).message)
  }
}

async function tryControl(control: ControlServer | undefined, log: Logger): Promise<void> {
  try {
    await control?.start()
  } catch (error) {
    log.info(`\`weir status\` does not find this agent: ${(error as Error).message}`)
  }
}

/** One that was asked for has to be; the usual one may belong to the agent of another namespace. */
function openPidFile(asked: string | undefined, file: string, log: Logger): string | undefined {
  const path = asked ?? (isDefault(file) ? PID_FILE : undefined)
  if (path === undefined) return undefined
  try {
    writePidFile(path, file)
    return path
  } catch (error) {
    const { message } = error as Error
    if (error instanceof AnotherAgentError && error.isHere) {
      throw new Error(
        `not started: ${message}, in this network namespace. \`weir reload\` has it take a changed file; to run two of ` +
          'them here, give this one a --pid-file and a configuration with another subAgentId',
      )
    }
    if (asked !== undefined && error instanceof AnotherAgentError) throw error
    if (asked !== undefined)
      throw new Error(`not started: the pid file ${path} cannot be written: ${message}`)
    log.info(`\`weir reload\` does not find this agent: ${message}`)
    return undefined
  }
}

/** The disk may be full: the programs that read the file are told when there is room again. */
function updateAutoFile(auto: AutoFile, agent: Agent, log: Logger): void {
  try {
    auto.update(agent.settings())
    autoFileProblem = undefined
  } catch (error) {
    const { message } = error as Error
    if (message !== autoFileProblem) log.warn(`other programs are not told the settings: ${message}`)
    autoFileProblem = message
  }
}

let autoFileProblem: string | undefined

/** Both would send everything twice, and hsflowd would number the same PSAMPLE samples again. */
async function warnOfHsflowd(log: Logger): Promise<void> {
  const pid = await processCalled('hsflowd')
  if (pid === undefined) return
  log.warn(
    `hsflowd runs, too, as process ${pid}: collectors get what both send; stop one of them, as with ` +
      '`systemctl disable --now hsflowd`',
  )
}
