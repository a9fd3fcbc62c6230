import { existsSync, readdirSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { DEFAULT_FILES, loadConfigFile } from '../config/load.ts'
import { createLogger } from '../health/log.ts'
import { removeLeftovers } from '../leftovers.ts'
import { claimant, sweepClaims } from './claim.ts'
import { networkNamespace, PID_FILE, readPidFile, removeStalePidFile } from './pid-file.ts'

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
    .option('-q, --quiet', 'say nothing when there is nothing to remove')
    .action(cleanup)
}

async function cleanup(options: { file?: string; pidFile: string; quiet?: true }): Promise<void> {
  refuse(readPidFile(options.pidFile))
  const instance = await subAgentOf(options.file)
  // One that was started with -f has no pid file, and its samplers are not to be taken from under it.
  refuse(claimant(instance))
  const isFound = await removeLeftovers({ log: createLogger('info'), instance })
  const whose = `an agent with subAgentId ${instance}`
  if (isFound) process.stdout.write(`removed what ${whose} had left\n`)
  else if (!options.quiet) process.stdout.write(`nothing of ${whose} is left here\n`)
  sweepClaims()
  const killed = removeStalePidFile(options.pidFile)
  if (killed === undefined) return
  const { pid, file, namespace } = killed
  process.stdout.write(`removed ${options.pidFile} of process ${pid}, which has ended\n`)
  const way = namespace === networkNamespace() ? undefined : wayInto(namespace)
  if (way === undefined) return
  process.stdout.write(
    `it ran in another network namespace; what it left there is removed by \`${way} weir cleanup -f ${file}\`\n`,
  )
}

/** A command that runs others in this network namespace; undefined when it is gone, and all that was in it. */
function wayInto(namespace: string): string | undefined {
  const inode = Number(/\d+/.exec(namespace)?.[0])
  const name = list(NAMED).find(one => statSync(join(NAMED, one), { throwIfNoEntry: false })?.ino === inode)
  if (name !== undefined) return `ip netns exec ${name}`
  const pid = list('/proc').find(one => {
    try {
      return readlinkSync(`/proc/${one}/ns/net`) === namespace
    } catch {
      return false
    }
  })
  return pid === undefined ? undefined : `nsenter -t ${pid} -n`
}

/** Of the namespaces that ip-netns(8) has given names. */
const NAMED = '/run/netns'

function list(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : []
}

function refuse(running: { readonly pid: number } | undefined): void {
  if (running !== undefined)
    throw new Error(`the agent runs, process ${running.pid}: it cleans up when it ends`)
}

/** A usual file that is gone, or one that is broken, is no reason to leave anything behind. */
async function subAgentOf(file: string | undefined): Promise<number> {
  if (file === undefined && !DEFAULT_FILES.some(name => existsSync(name))) return USUAL_SUB_AGENT
  const { config, file: path } = await loadConfigFile(file)
  if (config === undefined) {
    process.stderr.write(
      `weir: ${path} has errors, so the agent is taken for ${USUAL_SUB_AGENT}: see weir check\n`,
    )
  }
  return config?.subAgentId ?? USUAL_SUB_AGENT
}
