import { Command } from 'commander'
import { ConfigFileError, loadConfigFile } from '../config/load.ts'
import { formatProblem, linesOf, type Problem } from '../config/problem.ts'

/** `weir check`: prints every problem of a configuration; exit status 1 when one of them is an error. */
export function checkCommand(): Command {
  return new Command('check')
    .description('read a configuration file and show every problem in it')
    .option(
      '-f, --file <file>',
      'file to read, - for standard input (default: /etc/weir.conf, else /etc/hsflowd.conf)',
    )
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExit status: 0 when the agent would take the file (there may be warnings), else 1.',
    )
    .action(async (options: { file?: string; json?: true }) => {
      process.exitCode = await check(options.file, options.json === true)
    })
}

async function check(path: string | undefined, json: boolean): Promise<number> {
  let loaded: Awaited<ReturnType<typeof loadConfigFile>>
  try {
    loaded = await loadConfigFile(path)
  } catch (error) {
    if (!(error instanceof ConfigFileError)) throw error
    process.stderr.write(`weir check: ${error.message}\n`)
    return 1
  }
  const { file, text, problems } = loaded
  const errors = problems.filter(({ severity }) => severity === 'error').length
  const warnings = problems.length - errors
  if (json) {
    process.stdout.write(`${JSON.stringify({ file, ok: errors === 0, errors, warnings, problems })}\n`)
  } else {
    process.stdout.write(report(file, text, problems, errors, warnings))
  }
  return errors === 0 ? 0 : 1
}

function report(
  file: string,
  text: string,
  problems: readonly Problem[],
  errors: number,
  warnings: number,
): string {
  const lines = linesOf(text)
  const verdict = errors > 0 ? 'refused' : 'ok'
  const counts = [count(errors, 'error'), count(warnings, 'warning')].filter(text => text !== '')
  return [
    ...problems.map(problem => formatProblem(problem, file, lines)),
    `${file}: ${[verdict, ...counts].join(', ')}`,
    '',
  ].join('\n')
}

function count(number: number, noun: string): string {
  return number === 0 ? '' : `${number} ${noun}${number === 1 ? '' : 's'}`
}
