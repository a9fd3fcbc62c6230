/** The command line as a tree of commands: what main.ts parses, and what man pages and shell completion are made from. */

import { Command } from 'commander'
import { version } from './version.ts'

/** Each command by name. Only the one that is asked for is loaded: the daemon then carries no decoder in its memory. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  run: async () => (await import('./command/run.ts')).runCommand(),
  check: async () => (await import('./command/check.ts')).checkCommand(),
  doctor: async () => (await import('./command/doctor.ts')).doctorCommand(),
  status: async () => (await import('./command/status.ts')).statusCommand(),
  reload: async () => (await import('./command/reload.ts')).reloadCommand(),
  explain: async () => (await import('./command/explain.ts')).explainCommand(),
  top: async () => (await import('./command/top.ts')).topCommand(),
  decode: async () => (await import('./command/decode.ts')).decodeCommand(),
  cleanup: async () => (await import('./command/cleanup.ts')).cleanupCommand(),
  health: async () => (await import('./command/health.ts')).healthCommand(),
  container: async () => (await import('./command/container.ts')).containerCommand(),
  demo: async () => (await import('./command/demo.ts')).demoCommand(),
}
/** Run by the demo itself in its lab. */
const DEMO_TRAFFIC = 'demo-traffic'

/** The program, with the command called `asked` if there is one of that name, else with all of them. */
export async function weirProgram(asked?: string): Promise<Command> {
  const program = new Command('weir')
    .description('sFlow v5 agent for Linux hosts and switches: packet samples, dropped packets and counters')
    .version(version, '-V, --version')
    .showHelpAfterError('(weir COMMAND --help tells more)')
  if (asked === DEMO_TRAFFIC) program.addCommand((await import('./command/demo.ts')).demoTrafficCommand())
  const names = asked !== undefined && Object.hasOwn(COMMANDS, asked) ? [asked] : Object.keys(COMMANDS)
  for (const name of names) program.addCommand(await COMMANDS[name]!())
  return program
}
