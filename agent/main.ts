import { Command } from 'commander'
import { checkCommand } from './command/check.ts'
import { decodeCommand } from './command/decode.ts'
import { demoCommand, demoTrafficCommand } from './command/demo.ts'
import { explainCommand } from './command/explain.ts'
import { runCommand } from './command/run.ts'
import { version } from './version.ts'

/** Arguments → command → exit status. */
const program = new Command('weir')
  .description('sFlow v5 agent for Linux hosts and switches: packet samples, dropped packets and counters')
  .version(version, '-V, --version')
  .showHelpAfterError('(weir COMMAND --help tells more)')
  .addCommand(runCommand())
  .addCommand(checkCommand())
  .addCommand(explainCommand())
  .addCommand(decodeCommand())
  .addCommand(demoCommand())
  .addCommand(demoTrafficCommand(), { hidden: true })

try {
  await program.parseAsync()
} catch (error) {
  process.stderr.write(`weir: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
