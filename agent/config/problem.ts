/** A located problem of a configuration, and its text for people. */

export interface Place {
  /** From 1. */
  readonly line: number
  /** From 1, in UTF-16 code units. */
  readonly column: number
  /** Code units; 0 where something is missing. */
  readonly length: number
}

/** `error`: the file is refused. `warning`: it is taken, but not all of it does what one may expect. */
export type Severity = 'error' | 'warning'

export interface Problem extends Place {
  readonly severity: Severity
  /** What is wrong, one line without the place. */
  readonly message: string
  /** What would have been right, for example `on or off`. */
  readonly expected?: string
  /** What may have been meant, ready to be put in its place. */
  readonly suggestion?: string
}

/** The lines of a text: LF, CR and CRLF each end one. */
export function linesOf(text: string): string[] {
  return text.split(/\r\n|\r|\n/)
}

/** Text for a terminal: control characters, tabs excepted, become the replacement character. */
function printable(text: string): string {
  return text.replace(/[^\P{Cc}\t]/gu, '\ufffd')
}

/** How much of a long line is shown, and where in it the problem then stands. */
const SHOWN = 160
const BEFORE = 60

/**
 * The problem as a compiler would print it, without a final newline:
 *
 *     weir.conf:12:13: polling: expected a whole number from 0 to 300, got "often"
 *       12 |   polling = often
 *          |             ^^^^^
 *
 * `lines` is the text the problem was found in.
 */
export function formatProblem(problem: Problem, file: string, lines: readonly string[]): string {
  const { line, column, length, severity, message, suggestion } = problem
  const whole = lines[line - 1] ?? ''
  const from = whole.length > SHOWN ? Math.max(0, column - 1 - BEFORE) : 0
  const source = printable(whole.slice(from, from + SHOWN))
  const offset = column - 1 - from
  // Tabs are kept, so that the caret stands below its text at any tab width.
  const indent = source.slice(0, offset).replace(/[^\t]/g, ' ')
  const caret = '^'.repeat(Math.max(1, Math.min(length, source.length - offset)))
  const hint = suggestion === undefined ? '' : `  did you mean ${suggestion}?`
  const number = String(line)
  return [
    printable(`${file}:${line}:${column}: ${severity === 'warning' ? 'warning: ' : ''}${message}`),
    `  ${number} | ${source}`,
    `  ${' '.repeat(number.length)} | ${indent}${caret}${hint}`,
  ].join('\n')
}

/** Orders problems as the file runs. */
export function byPlace(a: Place, b: Place): number {
  return a.line - b.line || a.column - b.column
}

/**
 * The known name that is nearest to what was written, letter case aside: at most one edit in three letters away,
 * else the only one that contains it. Undefined when there is none.
 */
export function nearest(written: string, known: readonly string[]): string | undefined {
  const text = written.toLowerCase()
  let best: string | undefined
  let least = Math.max(1, Math.floor(text.length / 3)) + 1
  for (const name of known) {
    if (Math.abs(name.length - text.length) >= least) continue
    const distance = editDistance(text, name.toLowerCase())
    if (distance < least) {
      best = name
      least = distance
    }
  }
  if (best !== undefined || text.length < 3) return best
  const holders = known.filter(name => name.toLowerCase().includes(text))
  return holders.length === 1 ? holders[0] : undefined
}

/** Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + same)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, beforeLast[j - 2]! + 1)
      }
      row.push(cost)
    }
    beforeLast = last
    last = row
  }
  return last[b.length]!
}
