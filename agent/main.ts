import { weirProgram } from './program.ts'

/** Arguments → command → exit status. */

const program = await weirProgram(process.argv[2])
try {
  await program.parseAsync()
} catch (error) {
  process.stderr.write(`weir: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
