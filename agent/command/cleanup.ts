import { Command } from 'commander'
import { loadConfigFile } from '../config/load.ts'
import { createLogger } from '../health/log.ts'
import { removeLeftovers } from '../leftovers.ts'
import { PID_FILE, readPidFile } from './pid-file.ts'

/** Of an agent whose configuration does not say another one. */
const USUAL_SUB_AGENT = 100_000

/** `weir cleanup`: nothing of an agent that was killed stays in the kernel. */
export function cleanupCommand(): Command {
  return new Command('cleanup')
    .summary('remove what a killed agent left in the kernel')
    .description(
      'An agent that ends takes its tc samplers and BPF programs away; one that is killed cannot. The next start does ' +
        'it, or this command, where there is no next start. Does nothing while the agent runs. It needs CAP_NET_ADMIN ' +
        'if there is something to remove.',
    )
    .option(
      '-f, --file <file>',
      'configuration of that agent (default: /etc/weir.conf, else /etc/hsflowd.conf)',
    )
    .option('--pid-file <file>', 'file that names the running agent', PID_FILE)
    .action(cleanup)
}

async function cleanup(options: { file?: string; pidFile: string }): Promise<void> {
  const agent = readPidFile(options.pidFile)
  if (agent !== undefined) throw new Error(`the agent runs, process ${agent.pid}: it cleans up when it ends`)
  // A file that is gone or broken is no reason to leave anything behind.
  const loaded = await loadConfigFile(options.file).catch(() => undefined)
  const instance = loaded?.config?.subAgentId ?? USUAL_SUB_AGENT
  const isFound = await removeLeftovers({ log: createLogger('info'), instance })
  const whose = `an agent with subAgentId ${instance}`
  process.stdout.write(isFound ? `removed what ${whose} had left\n` : `nothing of ${whose} is left here\n`)
}
