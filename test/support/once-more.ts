/**
 * A test file that fails is run once more, alone. Most tests here wait for a kernel, for processes and for other
 * programs on whatever machine there is: one that passes then was held up, which is said, and one that is wrong fails
 * again.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Results } from './results.ts'

/** Where more files have failed, it is not by chance. */
const MOST_AGAIN = 5

/** Arguments of `node --test`: the output as usual, and the results in a file. */
export function writingResults(file: string): string[] {
  return [
    ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
    `--test-reporter=${join(import.meta.dirname, 'results.ts')}`,
    `--test-reporter-destination=${file}`,
  ]
}

/** The results of a run; undefined when it did not come to its end. */
export async function readResults(file: string): Promise<Results | undefined> {
  const text = await readFile(file, 'utf8').catch(() => '')
  return text === '' ? undefined : (JSON.parse(text) as Results)
}

/** Has `run` run the files that failed once more, unless there are too many or none; true when they pass then. */
export async function onceMore(
  failed: readonly string[],
  say: (line: string) => void,
  run: (files: readonly string[]) => Promise<boolean>,
): Promise<boolean> {
  if (failed.length === 0 || failed.length > MOST_AGAIN) return false
  say(`failed: ${failed.join(', ')}; once more, alone`)
  const passed = await run(failed)
  if (passed) say(`UNSTEADY: failed at first and passed when run again: ${failed.join(', ')}`)
  return passed
}
