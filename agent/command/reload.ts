import { Command } from 'commander'
import { loadConfigFile } from '../config/load.ts'
import { formatProblem, linesOf } from '../config/problem.ts'
import { isReplaced } from '../kernel/processes.ts'
import { NoAgentHereError, PID_FILE, readPidFile } from './pid-file.ts'

/** `weir reload`: checks the file of the running agent and has it taken; exit status 1 when it was not. */
export function reloadCommand(): Command {
  return new Command('reload')
    .summary('have the running agent take its changed configuration')
    .description(
      'Checks the configuration that the running agent reads. If it is right, the agent takes it (SIGHUP) and its log ' +
        'tells what changed; if not, every problem is shown and the agent goes on as it is.',
    )
    .option('--pid-file <file>', 'file that names the running agent', PID_FILE)
    .action(reload)
}

async function reload(options: { pidFile: string }): Promise<void> {
  const agent = readPidFile(options.pidFile)
  if (agent === undefined) throw new NoAgentHereError(options.pidFile)
  // The agent refuses, too; here it is told at once to those who may see it.
  if (isReplaced(agent.pid)) {
    throw new Error(
      `not reloaded: the files of the agent, process ${agent.pid}, have been replaced: restart it`,
    )
  }
  const { config, problems, file, text } = await loadConfigFile(agent.file)
  const lines = linesOf(text)
  for (const problem of problems) process.stderr.write(`${formatProblem(problem, file, lines)}\n`)
  if (config === undefined) throw new Error(`not reloaded: ${file} has errors`)
  try {
    process.kill(agent.pid, 'SIGHUP')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error
    throw new Error(`not permitted to signal the agent, process ${agent.pid}`)
  }
  process.stdout.write(`${file} is right: the agent, process ${agent.pid}, takes it\n`)
}
