/**
 * A reporter of Node.js' test runner: how a run went, as one JSON object at its end. It is named on the command line,
 * which is why it is a default export.
 */
import { relative } from 'node:path'
import type { TestEvent } from 'node:test/reporters'

export interface Results {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  /** Files that had a failure, from the folder of the run. */
  readonly failedFiles: readonly string[]
  /** Tests outside of others that passed. The runner counts a file without a test as one, by the file's name. */
  readonly passedNames: readonly string[]
}

// biome-ignore lint/style/noDefaultExport: the test runner wants it
export default async function* results(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const failedFiles = new Set<string>()
  const passedNames = new Set<string>()
  let counts = { passed: 0, failed: 0, skipped: 0 }
  for await (const { type, data } of events) {
    if (type === 'test:fail' && data.file !== undefined) failedFiles.add(relative('.', data.file))
    else if (type === 'test:pass' && data.nesting === 0) passedNames.add(data.name)
    else if (type === 'test:summary' && data.file === undefined) {
      const { passed, failed, cancelled, skipped } = data.counts as typeof data.counts & { failed?: number }
      counts = { passed, failed: (failed ?? 0) + cancelled, skipped }
    }
  }
  yield JSON.stringify({ ...counts, failedFiles: [...failedFiles], passedNames: [...passedNames] })
}
