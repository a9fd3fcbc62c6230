import { Command, InvalidArgumentError, Option } from 'commander'
import { AUTO_FILE } from '../auto-file.ts'
import { loadConfigFile } from '../config/load.ts'
import { formatProblem, linesOf } from '../config/problem.ts'
import { CONTROL_SOCKET } from '../control/protocol.ts'
import type { LogFormat } from '../health/log.ts'
import { LOG_LEVELS, type LogLevels, readLogLevels } from '../health/log-levels.ts'
import { PID_FILE } from './pid-file.ts'
import { AGENT_USER, dropPrivileges } from './privileges.ts'

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
    .option('--user <name>', 'user to become when started as root, if there is one of that name', AGENT_USER)
    .option('--no-drop', 'keep every privilege, also those that the configuration does not need')
    .addOption(
      new Option(
        '--log-level <level>',
        'least important messages to log; for single parts as in info,psample=debug',
      )
        .choices(LOG_LEVELS)
        .argParser(parseLogLevels)
        .default(readLogLevels('info'), 'info'),
    )
    .addOption(
      new Option(
        '--log-format <format>',
        'how log lines are written (default: text on a terminal, else json)',
      ).choices(['text', 'json']),
    )
    .action(run)
}

export interface RunOptions {
  readonly file?: string
  readonly output?: string
  readonly pidFile?: string
  readonly control?: string
  readonly user: string
  /** False when the user asked for --no-drop. */
  readonly drop: boolean
  readonly logLevel: LogLevels
  readonly logFormat?: LogFormat
}

function parseLogLevels(text: string): LogLevels {
  try {
    return readLogLevels(text)
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
}

/** Runs the agent until a signal ends it. */
export async function run(options: RunOptions): Promise<void> {
  // From the first moment: without a handler SIGUSR1 opens Node.js's debugger, and SIGHUP ends the process.
  process.on('SIGUSR1', () => {})
  process.on('SIGHUP', () => {})
  const loaded = await loadConfigFile(options.file)
  const { config, problems, file, text } = loaded
  // Before anything is said or opened, and before most of the program is loaded: it may run the program anew.
  const note = config === undefined ? undefined : dropPrivileges(config, options)
  const lines = linesOf(text)
  for (const problem of problems) process.stderr.write(`${formatProblem(problem, file, lines)}\n`)
  if (config === undefined) throw new Error(`not started: ${file} has errors`)
  const { runDaemon } = await import('./daemon.ts')
  await runDaemon({ ...loaded, config }, { ...options, note })
}
