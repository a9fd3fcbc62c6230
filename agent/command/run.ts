import { Command, Option } from 'commander'
import { Agent } from '../agent.ts'
import { loadConfigFile } from '../config/load.ts'
import { formatProblem, linesOf } from '../config/problem.ts'
import { createLogger, LOG_LEVELS } from '../health/log.ts'
import { releaseStartMemory } from '../kernel/memory.ts'

/** By then every part has run once, and the code that is hot has been compiled. */
const SETTLED_MS = 10_000

/** `weir run`: the daemon, in the foreground. */
export function runCommand(): Command {
  return new Command('run')
    .summary('run the agent in the foreground')
    .description(
      'Reads the configuration and runs until SIGTERM or SIGINT. The configuration is checked first: an error ' +
        'refuses the start, as `weir check` would tell. SIGUSR1 writes what was sent and lost to the log.',
    )
    .option('-f, --file <file>', 'configuration (default: /etc/weir.conf, else /etc/hsflowd.conf)')
    .addOption(
      new Option('--log-level <level>', 'least important messages to log')
        .choices(LOG_LEVELS)
        .default('info'),
    )
    .action(run)
}

async function run(options: { file?: string; logLevel: string }): Promise<void> {
  const { config, problems, file, text } = await loadConfigFile(options.file)
  const lines = linesOf(text)
  for (const problem of problems) process.stderr.write(`${formatProblem(problem, file, lines)}\n`)
  if (config === undefined) throw new Error(`not started: ${file} has errors`)

  const log = createLogger(options.logLevel)
  const agent = new Agent(config, log)
  const ended = new Promise<string>(resolve => {
    process.once('SIGTERM', () => resolve('SIGTERM'))
    process.once('SIGINT', () => resolve('SIGINT'))
  })
  process.on('SIGUSR1', () => agent.logStatus())
  try {
    await agent.start()
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
    await agent.stop()
  }
}
