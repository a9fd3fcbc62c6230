/**
 * From text to values, by the table of settings. It goes on after each mistake, so that one reading shows them
 * all; what it takes and refuses is what hsflowd takes and refuses.
 */

import { byPlace, linesOf, nearest, type Place, type Problem } from './problem.ts'
import {
  type Block,
  type Entries,
  findEntry,
  type Given,
  namesIn,
  settings,
  type Values,
} from './settings.ts'
import { MOST_ERRORS, type Token, tokenize } from './syntax.ts'

export interface Parsed {
  readonly values: Values
  /** In the order of the file. */
  readonly problems: Problem[]
  /**
   * Where each thing that is set was set last, rightly or not: `sFlow`, `sampling.10G`, `psample`, `psample.group`,
   * `collector[0]`, `collector[0].ip`. The place is that of the name.
   */
  readonly places: ReadonlyMap<string, Place>
}

/** A block that is being read, or has been. */
interface Scope {
  readonly entries: Entries
  /** What messages call it: `sFlow`, `psample`. */
  readonly name: string
  /** In front of the names of its settings in `places`. */
  readonly path: string
  readonly parent: Scope | undefined
  /** The place of its name. */
  readonly start: Place | undefined
  /** By name in the table. A block's value is its Scope. */
  readonly given: Map<string, Given[]>
  /** True when the whole block has no effect: what is in it needs no word of its own. */
  readonly inactive: boolean
}

/** What decoding puts in the place of bytes that are not UTF-8. */
const REPLACEMENT = '\ufffd'

/** Reads a whole file. Never throws; what cannot be taken is in `problems`, up to MOST_ERRORS errors. */
export function parse(text: string): Parsed {
  const { tokens, problems } = tokenize(text)
  const places = new Map<string, Place>()
  let at = 0
  let errors = problems.length
  // How many braces are still to be found missing, if blocks end where the names in them say.
  let unclosed = 0
  for (const { kind } of tokens) unclosed += kind === '{' ? 1 : kind === '}' ? -1 : 0

  const root: Scope = {
    entries: settings,
    name: 'sFlow',
    path: '',
    parent: undefined,
    start: undefined,
    given: new Map(),
    inactive: false,
  }
  const nul = text.indexOf('\0')
  if (nul >= 0) {
    const before = linesOf(text.slice(0, nul))
    problems.length = 0
    problem(
      'error',
      { line: before.length, column: before.at(-1)!.length + 1, length: 1 },
      'this is not a text file',
    )
  } else {
    const stray = tokens.find(token => token.text.includes(REPLACEMENT))
    if (stray !== undefined) {
      problem('warning', stray, 'this is not UTF-8: what does not belong there has been replaced')
    }
    readFile()
  }
  return { values: valuesOf(root) as Values, problems: firstOfEachPlace(problems.sort(byPlace)), places }

  function problem(
    severity: 'error' | 'warning',
    place: Place,
    message: string,
    more: Partial<Problem> = {},
  ): void {
    if (errors > MOST_ERRORS) return
    const { line, column, length } = place
    problems.push({ severity, line, column, length, message, ...more })
    if (severity === 'warning' || ++errors < MOST_ERRORS) return
    const next = tokens[at] ?? place
    errors++
    problems.push({
      severity,
      line: next.line,
      column: next.column,
      length: next.length,
      message: `the ${MOST_ERRORS}th error: what follows is not read`,
    })
    // Whoever reads finds the end.
    tokens.length = Math.min(tokens.length, at)
  }

  function readFile(): void {
    const first = tokens[0]
    if (first === undefined) {
      problem('error', { line: 1, column: 1, length: 0 }, 'expected "sFlow {", got an empty file', {
        expected: 'sFlow {',
      })
      return
    }
    const start = tokens.findIndex((token, i) => isTop(token) && tokens[i + 1]?.kind === '{')
    if (start !== 0 && isTop(first)) {
      problem('error', first, `expected "{" after sFlow, got ${shown(tokens[1])}`, { expected: '{' })
      at = 1
    } else if (start !== 0) {
      problem('error', first, `expected "sFlow {", got ${shown(first)}`, { expected: 'sFlow {' })
      if (start > 0) at = start
    }
    let end: Token | undefined
    for (let complained = false; at < tokens.length; ) {
      const token = tokens[at]!
      if (isTop(token) && tokens[at + 1]?.kind === '{') {
        if (end !== undefined && !complained) {
          problem('error', token, `a second sFlow block; the first one ends in line ${end.line}`)
          complained = true
        }
        at++
        places.set('sFlow', token)
        readBlock(root)
        end ??= tokens[at - 1]
        continue
      }
      if (end !== undefined && !complained) {
        const what =
          token.kind === '}' ? 'this "}" closes nothing' : `expected the end of the file, got ${shown(token)}`
        problem('error', token, `${what}; sFlow { } ends in line ${end.line}`)
        complained = true
      }
      // What stands outside may be meant for inside: read on, for the problems in it.
      if (token.kind === '}') at++
      else readEntries(root)
    }
  }

  /** Reads from `{` to its `}`. */
  function readBlock(scope: Scope): void {
    const open = tokens[at++]!
    const left = readEntries(scope)
    if (left === 'end of file') {
      problem('warning', open, `${scope.name} { is not closed`, { expected: '}' })
    }
  }

  /** Reads settings up to and with a `}`, to the end of the file, or to where a `}` is missing. */
  function readEntries(scope: Scope): 'closed' | 'end of file' | 'missing brace' {
    for (;;) {
      const token = tokens[at]
      if (token === undefined) return 'end of file'
      if (token.kind === '}') {
        at++
        return 'closed'
      }
      if (token.kind === '{') {
        const glued = adjacent(tokens[at - 1], token)
        const hint = glued ? '; a value with braces in it has to be quoted' : ''
        problem('error', token, `expected a name before "{"${hint}`)
        skipBlock()
        if (glued && tokens[at]?.kind === 'word' && adjacent(tokens[at - 1], tokens[at]!)) at++
      } else if (!readEntry(scope, token)) {
        return 'missing brace'
      }
    }
  }

  /** Reads one setting or block; false when the name shows that the scope has ended without a `}`. */
  function readEntry(scope: Scope, name: Token): boolean {
    const found = findEntry(scope.entries, name.text)
    if (found === undefined) return readUnknown(scope, name)
    at++
    const { entry, suffix } = found
    const path = scope.path + found.name + suffix
    if (!scope.inactive) {
      const { deprecated, inactive } = entry
      const form = entry.form === 'block' ? `${name.text} { }` : name.text
      const again = entry.form === 'block' && scope.given.has(found.name)
      if (deprecated !== undefined) problem('warning', name, `${form} is an old form: ${deprecated}`)
      else if (inactive !== undefined && !again)
        problem('warning', name, `${form} has no effect: ${inactive}`)
    }
    const given = scope.given.get(found.name) ?? []
    scope.given.set(found.name, given)

    if (entry.form === 'block') {
      if (tokens[at]?.kind !== '{') {
        problem('error', name, `${name.text}: expected "{", got ${shown(tokens[at])}`, { expected: '{' })
        skipStray(scope, name)
        return true
      }
      const index = given.length
      if (!entry.many && index > 0) {
        const what = entry.again === 'restart' ? 'starts again from the defaults' : 'adds to the first one'
        problem('warning', name, `a second ${name.text} { }: it ${what} (line ${places.get(path)?.line})`)
      }
      const place = entry.many ? `${path}[${index}]` : path
      const last = given.at(-1)?.value as Scope | undefined
      const inner: Scope = {
        entries: entry.entries,
        name: name.text,
        path: `${place}.`,
        parent: scope,
        start: name,
        given: entry.many || entry.again === 'restart' || last === undefined ? new Map() : last.given,
        inactive: scope.inactive || entry.inactive !== undefined,
      }
      given.push({ suffix: '', value: inner })
      places.set(place, name)
      readBlock(inner)
      return true
    }

    const earlier = places.get(path)
    places.set(path, name)
    const value = tokens[at]
    if (value === undefined || value.kind !== 'word' || isNextSetting(scope, name, value)) {
      const got = value?.kind === 'word' ? 'the next setting' : shown(value)
      problem('error', name, `${name.text}: expected ${entry.kind.expected}, got ${got}`, {
        expected: entry.kind.expected,
      })
      if (value?.kind === '{') skipBlock()
      return true
    }
    at++
    const reading = entry.kind.read(value.text)
    const more = reading.suggestion === undefined ? {} : { suggestion: reading.suggestion }
    if (!('value' in reading)) {
      const why = reading.error === undefined ? '' : `: ${reading.error}`
      problem('error', value, `${name.text}: expected ${entry.kind.expected}, got ${shown(value)}${why}`, {
        expected: entry.kind.expected,
        ...more,
      })
      return true
    }
    if (reading.remark !== undefined) {
      problem('warning', value, `${name.text}: ${shown(value)}: ${reading.remark}`, more)
    }
    if (!entry.many && earlier !== undefined && given.some(one => one.suffix === suffix)) {
      problem('warning', name, `${name.text} is set again: line ${earlier.line} has no effect`)
    }
    given.push({ suffix, value: reading.value })
    return true
  }

  /** The value is missing when the next word is on a later line, is a name that may stand here, and has a value. */
  function isNextSetting(scope: Scope, name: Token, value: Token): boolean {
    if (value.line === name.line || findEntry(scope.entries, value.text) === undefined) return false
    const next = tokens[at + 1]
    return (
      next?.kind === '{' || (next?.line === value.line && findEntry(scope.entries, next.text) === undefined)
    )
  }

  function readUnknown(scope: Scope, name: Token): boolean {
    if (scope.parent && findEntry(scope.parent.entries, name.text) && seemsAfter(scope, name)) {
      unclosed--
      problem(
        'error',
        name,
        `${shown(name)} is not a setting of ${scope.name} { }: is a "}" missing before it?`,
        {
          expected: '}',
        },
      )
      return false
    }
    const before = tokens[at - 1]
    const next = tokens[at + 1]
    at++
    if (before?.kind === 'word' && before.line === name.line && next?.line !== name.line) {
      problem(
        'error',
        name,
        `${shown(name)} follows a value that is complete; a value with spaces has to be quoted`,
      )
      return true
    }
    const near = nearest(name.text, namesIn(scope.entries))
    const home = near === undefined ? homeOf(name.text) : undefined
    const hint = home === undefined ? '' : `; it belongs in ${home} { }`
    problem('error', name, `${shown(name)} is not a setting of ${scope.name} { }${hint}`, {
      ...(near === undefined ? {} : { suggestion: near }),
    })
    skipStray(scope, name)
    return true
  }

  /** Whether a name stands after a block whose `}` is missing: by the count of braces, or by its indentation. */
  function seemsAfter({ start }: Scope, name: Token): boolean {
    if (unclosed > 0 || start === undefined) return unclosed > 0
    return name.line > start.line && start.column > 1 && name.column <= start.column
  }

  /** Skips what seems to belong to a name that was not understood: a block, or a word on its line. */
  function skipStray(scope: Scope, name: Token): void {
    const next = tokens[at]
    if (next?.kind === 'word' && next.line === name.line && findEntry(scope.entries, next.text) === undefined)
      at++
    if (tokens[at]?.kind === '{') skipBlock()
  }

  /** Skips from `{` to its `}`, or to the end. */
  function skipBlock(): void {
    let depth = 0
    do {
      const { kind } = tokens[at++]!
      if (kind === '{') depth++
      if (kind === '}') depth--
    } while (depth > 0 && at < tokens.length)
  }
}

/** Leaves out an error where another one has been found before: it follows from that. */
function firstOfEachPlace(problems: Problem[]): Problem[] {
  return problems.filter((problem, i) => {
    const before = problems[i - 1]
    return problem.severity !== 'error' || before?.severity !== 'error' || byPlace(problem, before) !== 0
  })
}

function isTop(token: Token): boolean {
  return token.kind === 'word' && token.text.toLowerCase() === 'sflow'
}

/** Whether `after` follows a word or brace with nothing between them. */
function adjacent(before: Token | undefined, after: Token): boolean {
  return before?.line === after.line && before.column + before.length === after.column
}

/** A token as messages show it, cut when long. */
function shown(token: Token | undefined): string {
  if (token === undefined) return 'the end of the file'
  return `"${token.text.length > 60 ? `${token.text.slice(0, 60)}…` : token.text}"`
}

/** The block that a name belongs to, if exactly one has it. */
function homeOf(name: string): string | undefined {
  if (findEntry(settings, name) !== undefined) return 'sFlow'
  const homes = Object.entries<Entries[string]>(settings).filter(
    ([, entry]) => entry.form === 'block' && findEntry(entry.entries, name) !== undefined,
  )
  return homes.length === 1 ? homes[0]![0] : undefined
}

/** The values of a scope by its table: with defaults, and blocks as objects or lists of them. */
function valuesOf(scope: Scope): Record<string, unknown> {
  const values: Record<string, unknown> = {}
  for (const [name, entry] of Object.entries(scope.entries)) {
    const given = scope.given.get(name) ?? []
    if (entry.form === 'setting') {
      values[name] = entry.collect(given)
    } else {
      const inner = given.map(({ value }) => valuesOf(value as Scope))
      values[name] = (entry as Block<Entries, boolean>).many ? inner : inner.at(-1)
    }
  }
  return values
}
