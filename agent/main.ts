import { weirProgram } from './program.ts'

/** Arguments → command → exit status. */

process.stdout.once('error', (error: NodeJS.ErrnoException) => {
  // Whoever read the output has seen enough.
  if (error.code === 'EPIPE') process.exit()
  process.stderr.write(`weir: standard output: ${error.message}\n`)
  process.exit(1)
})

const [, , asked] = process.argv
const program = await weirProgram(asked)
// Nobody is helped with what is no command.
const isCommand =
  asked === undefined || /^(-|help$)/.test(asked) || program.commands.some(one => one.name() === asked)
try {
  await program.parseAsync(isCommand ? process.argv : process.argv.slice(0, 3))
} catch (error) {
  process.stderr.write(`weir: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
