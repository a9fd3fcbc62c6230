import { Command } from 'commander'
import { NoAgentHereError, PID_FILE, pidFileAge, readPidFile } from './pid-file.ts'

/** The agent touches its file every five seconds. */
const MOST_AGE_MS = 30_000

/** `weir health`: for whoever watches the agent from outside, as a container's health check. */
export function healthCommand(): Command {
  return new Command('health')
    .summary('tell by the exit status whether the agent runs')
    .description(
      'Exit status 0 when the agent runs and its event loop turns, 1 when not. Meant for health checks.',
    )
    .option('--pid-file <file>', 'file that names the running agent', PID_FILE)
    .action(health)
}

function health({ pidFile }: { pidFile: string }): void {
  const agent = readPidFile(pidFile)
  if (agent === undefined) throw new NoAgentHereError(pidFile)
  const age = pidFileAge(pidFile)
  if (age > MOST_AGE_MS) {
    throw new Error(`the agent, process ${agent.pid}, has done nothing for ${Math.round(age / 1000)} s`)
  }
  process.stdout.write(`the agent runs, process ${agent.pid}, with ${agent.file}\n`)
}
