import { Command } from 'commander'
import type { Config } from '../config/config.ts'
import { ConfigFileError, loadConfigFile } from '../config/load.ts'
import { byPlace, formatProblem, linesOf, type Place, type Problem } from '../config/problem.ts'
import { describeNetwork, doubtsOf } from './doubts.ts'

interface Options {
  readonly file?: string
  readonly fileOnly?: true
  readonly json?: true
  readonly strict?: true
}

/** `weir check`: prints every problem of a configuration; exit status 1 when one of them is an error. */
export function checkCommand(): Command {
  return new Command('check')
    .summary('show every problem in a configuration file')
    .description(
      'Reads a configuration file and shows every problem in it with its place. An error refuses the file; a warning ' +
        'is for what is taken and may not do what one expects, by itself or on this machine: an interface, address ' +
        'or namespace that is not there, packets that are sampled twice.',
    )
    .option(
      '-f, --file <file>',
      'file to read, - for standard input (default: /etc/weir.conf, else /etc/hsflowd.conf)',
    )
    .option('--file-only', 'leave aside the machine: the file is for another one')
    .option('--strict', 'exit with 1 when there are warnings, too')
    .option('--json', 'print one JSON object: file, ok, errors, warnings, problems')
    .addHelpText(
      'after',
      '\nExit status: 0 when the agent would take the file, 1 when it has an error (with --strict: or a warning) or ' +
        'cannot be read.',
    )
    .action(check)
}

async function check(options: Options): Promise<void> {
  let loaded: Awaited<ReturnType<typeof loadConfigFile>>
  try {
    loaded = await loadConfigFile(options.file)
  } catch (error) {
    if (!(error instanceof ConfigFileError)) throw error
    process.stderr.write(`weir check: ${error.message}\n`)
    process.exitCode = 1
    return
  }
  const { file, text, config, places } = loaded
  const doubts = config === undefined || options.fileOnly ? [] : await doubtsHere(config, places)
  const problems = [...loaded.problems, ...doubts].sort(byPlace)
  const errors = problems.filter(({ severity }) => severity === 'error').length
  const warnings = problems.length - errors
  // Before it writes: the status is right for those, too, who do not read it all.
  process.exitCode = errors === 0 && (warnings === 0 || !options.strict) ? 0 : 1
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ file, ok: errors === 0, errors, warnings, problems })}\n`)
  } else {
    process.stdout.write(report(file, text, problems, errors, warnings))
  }
}

async function doubtsHere(config: Config, places: ReadonlyMap<string, Place>): Promise<readonly Problem[]> {
  try {
    return doubtsOf(config, places, await describeNetwork())
  } catch (error) {
    process.stderr.write(`weir check: this machine is not looked at: ${(error as Error).message}\n`)
    return []
  }
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
