import { weirProgram } from './program.ts'

/** Arguments → command → exit status. */

process.stdout.once('error', (error: NodeJS.ErrnoException) => {
  // Whoever read the output has seen enough.
  if (error.code === 'EPIPE') process.exit()
  process.stderr.write(`weir: standard output: ${error.message}\n`)
  process.exit(1)
})

const program = await weirProgram(process.argv[2])
try {
  await program.parseAsync()
} catch (error) {
  process.stderr.write(`weir: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
