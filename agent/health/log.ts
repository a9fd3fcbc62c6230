import { fstatSync } from 'node:fs'
import { styleText } from 'node:util'
import { type DestinationStream, type Logger, pino } from 'pino'
import { LOG_LEVELS, type LogLevels, readLogLevels } from './log-levels.ts'
import { escapeJson, printable } from './printable.ts'
import { takeLost, writeStandardError } from './standard-error.ts'

export type { Logger }

/** How lines are written: for people, or for programs. */
export type LogFormat = 'text' | 'json'

/** A line of some importance, kept for those who look at the running agent. */
export interface LogEntry {
  readonly time: string
  readonly level: string
  readonly part: string | undefined
  readonly message: string
}

export interface LoggerOptions {
  /** Where each line goes, its end included; default: standard error. */
  readonly stream?: DestinationStream
  /** Default: text on a terminal, else JSON. */
  readonly format?: LogFormat
}

/** Lines that are kept. */
const KEPT = 20
const WARN = pino.levels.values.warn!
const recent: LogEntry[] = []

/** The last warnings and errors of this process, oldest first. */
export function recentProblems(): readonly LogEntry[] {
  return recent
}

/**
 * The agent's logger: a line for each message, written synchronously to standard error (no worker thread, so a line
 * written before a crash is never lost). Each part takes a child with `{ part: 'psample' }`, or names itself in a
 * message, and may have a level of its own. Nothing that a terminal obeys is in a line.
 */
export function createLogger(
  given: string | LogLevels,
  { stream, format = defaultFormat() }: LoggerOptions = {},
): Logger {
  const levels = typeof given === 'string' ? readLogLevels(given) : given
  const out = stream ?? { write: writeStandardError }
  const isColoured = stream === undefined && process.stderr.isTTY
  let unwritten = 0
  const write = (line: string) => {
    const entry = isImportant(line) || format === 'text' ? (JSON.parse(line) as Line) : undefined
    if (entry !== undefined && entry.level >= WARN) keep(entry)
    out.write(format === 'text' ? textLine(entry!, isColoured) : escapeJson(line))
    const lost = stream === undefined ? takeLost() : 0
    if (lost > 0) unwritten += lost
    else if (unwritten > 0) {
      const count = unwritten
      unwritten = 0
      log.warn(`${count} lines of the log could not be written`)
    }
  }
  const numberOf = (name: string) => pino.levels.values[name] ?? Number.POSITIVE_INFINITY
  const least = [levels.most, ...levels.byPart.values()].sort(
    (a, b) => LOG_LEVELS.indexOf(a) - LOG_LEVELS.indexOf(b),
  )
  const log = pino(
    {
      level: least[0]!,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      hooks: {
        logMethod(args, method, level) {
          if (levels.byPart.size > 0) {
            const named = typeof args[0] === 'object' ? (args[0] as { part?: string }).part : undefined
            const part = named ?? (this.bindings().part as string | undefined)
            if (level < numberOf(levels.byPart.get(part ?? '') ?? levels.most)) return
          }
          method.apply(this, args)
        },
      },
    },
    { write },
  )
  return log
}

/** A terminal is read by people. systemd's journal, a file and a pipe are read by programs. */
function defaultFormat(): LogFormat {
  return process.stderr.isTTY && !isJournal() ? 'text' : 'json'
}

/** systemd tells device and inode of the stream that it made; one that was redirected since is another (systemd.exec(5)). */
function isJournal(): boolean {
  const named = process.env.JOURNAL_STREAM
  if (named === undefined) return false
  const { dev, ino } = fstatSync(2)
  return named === `${dev}:${ino}`
}

interface Line {
  readonly level: number
  readonly time: string
  readonly part?: string
  readonly msg?: string
  readonly [field: string]: unknown
}

/** pino begins each line with its level, two digits. */
function isImportant(line: string): boolean {
  return Number(line.slice('{"level":'.length, '{"level":'.length + 2)) >= WARN
}

function keep({ level, time, part, msg }: Line): void {
  if (recent.length === KEPT) recent.shift()
  recent.push({
    time,
    level: pino.levels.labels[level] ?? `${level}`,
    part,
    message: printable(msg ?? '', 1000),
  })
}

const COLOURS = { warn: 'yellow', error: 'red', fatal: 'red' } as const

/** `12:03:04.123 warn  collector: datagrams … do not arrive (counts={"ECONNREFUSED":1})` */
function textLine({ level, time, part, msg = '', ...fields }: Line, isColoured: boolean): string {
  const name = pino.levels.labels[level] ?? `${level}`
  const colour = COLOURS[name as keyof typeof COLOURS]
  const shown = isColoured && colour !== undefined ? styleText(colour, name.padEnd(5)) : name.padEnd(5)
  const about = Object.entries(fields).map(([key, value]) => {
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    return `${key}=${printable(text, 1000)}`
  })
  const start = `${time.slice(11, 23)} ${shown} ${printable(inPart(part, msg), 4000)}`
  return about.length === 0 ? `${start}\n` : `${start} (${about.join(', ')})\n`
}

/** The message behind the name of its part, unless it begins with that itself, as errors of sockets do. */
export function inPart(part: string | undefined, message: string): string {
  return part === undefined || message.startsWith(`${part}: `) ? message : `${part}: ${message}`
}

/** Keys that are remembered; of more, the one that was new longest ago is forgotten. */
const KEYS = 1000

/**
 * Lets at most one line per `intervalMs` and key through, and tells with the next one how many were held back.
 * For what is expected to happen again and again: overruns, unreachable collectors, unknown interfaces.
 */
export class RateLimitedLog {
  readonly #last = new Map<string, { at: number; held: number }>()
  readonly #now: () => number
  readonly #intervalMs: number

  constructor(intervalMs = 60_000, now: () => number = () => performance.now()) {
    this.#intervalMs = intervalMs
    this.#now = now
  }

  /** Calls `write` with the number of lines held back since the last one, unless it is too soon for `key`. */
  line(key: string, write: (held: number) => void): void {
    const now = this.#now()
    const entry = this.#last.get(key)
    if (entry === undefined) {
      if (this.#last.size >= KEYS) this.#last.delete(this.#last.keys().next().value!)
      this.#last.set(key, { at: now, held: 0 })
      write(0)
    } else if (now - entry.at >= this.#intervalMs) {
      const held = entry.held
      entry.at = now
      entry.held = 0
      write(held)
    } else {
      entry.held++
    }
  }
}
