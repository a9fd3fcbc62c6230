/** How `weir reload` finds the running agent: a file with its process id and what tells it from a later process. */

import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, resolve } from 'node:path'
import { fileErrorReason } from '../kernel/file-error.ts'

export const PID_FILE = '/run/weir/weir.pid'

/** The agent that a pid file names. */
export interface RunningAgent {
  readonly pid: number
  /** The configuration it reads. */
  readonly file: string
  /** Its network namespace, as `net:[4026531833]`. */
  readonly namespace: string
}

/** The file names another agent that runs. */
export class AnotherAgentError extends Error {
  override readonly name = 'AnotherAgentError'
  /** Both work in one network namespace. */
  readonly isHere: boolean
  readonly other: RunningAgent

  constructor(path: string, other: RunningAgent) {
    super(`${path} belongs to a running agent, process ${other.pid} with ${other.file}`)
    this.other = other
    this.isHere = other.namespace === networkNamespace()
  }
}

/** No agent runs that the file names. */
export class NoAgentHereError extends Error {
  override readonly name = 'NoAgentHereError'

  constructor(path: string) {
    super(
      `no agent runs that ${path} names: start it with \`weir run\`, or name its file with --pid-file ` +
        '(one that was started with -f writes none without --pid-file)',
    )
  }
}

/**
 * Writes process id, start time, configuration and network namespace of this process, a line each. Throws
 * AnotherAgentError when the file names another agent that runs, and an Error rather than take the place of what was
 * never a pid file, as /dev/null.
 */
export function writePidFile(path: string, configuration: string): void {
  const there = lstatSync(path, { throwIfNoEntry: false })
  if (there !== undefined && !(there.isFile() && /^(\d+\n|$)/.test(readFileSync(path, 'utf8')))) {
    throw new Error('something else than a pid file is there')
  }
  const other = readPidFile(path)
  if (other !== undefined && other.pid !== process.pid) throw new AnotherAgentError(path, other)
  mkdirSync(dirname(path), { recursive: true })
  // A stale one may belong to another user, who ran the agent before; the folder is this one's.
  rmSync(path, { force: true })
  const lines = [process.pid, startTime(process.pid), resolve(configuration), networkNamespace()]
  try {
    writeFileSync(path, `${lines.join('\n')}\n`)
  } catch (error) {
    // On a full disk there is a file already, an empty one.
    rmSync(path, { force: true })
    throw error
  }
}

/** Sets the time of the file to now: that of an agent whose event loop stands still grows old. */
export function touchPidFile(path: string): void {
  const now = new Date()
  utimesSync(path, now, now)
}

/** Milliseconds since the agent last touched its file. */
export function pidFileAge(path: string): number {
  return Date.now() - statSync(path).mtimeMs
}

/** The running agent that a pid file names; undefined when there is none, or it has ended. */
export function readPidFile(path: string): RunningAgent | undefined {
  const named = namedBy(path)
  return named?.isRunning ? named : undefined
}

/** Removes the file of an agent that has ended without doing it itself. Gives what it said; undefined if there is none. */
export function removeStalePidFile(path: string): RunningAgent | undefined {
  const named = namedBy(path)
  if (named === undefined || named.isRunning) return undefined
  rmSync(path, { force: true })
  return named
}

function namedBy(path: string): (RunningAgent & { readonly isRunning: boolean }) | undefined {
  const [pid = '', started, file, namespace = ''] = readIfAny(path)?.split('\n') ?? []
  if (file === undefined || !/^\d+$/.test(pid)) return undefined
  return { pid: Number(pid), file, namespace, isRunning: started === startTime(Number(pid)) }
}

/** Removes the file if it is that of this process. */
export function removePidFile(path: string): void {
  if (readPidFile(path)?.pid === process.pid) rmSync(path, { force: true })
}

/** As `net:[4026531833]`. */
export function networkNamespace(): string {
  return readlinkSync('/proc/self/ns/net')
}

/**
 * When a process was started, in clock ticks since the boot (field 22 of /proc/PID/stat, proc(5)): the same process id
 * with another time is another process. Undefined when it does not run, also when it has ended and its parent has not
 * taken notice yet (state Z, field 3).
 */
function startTime(pid: number): string | undefined {
  const stat = readIfAny(`/proc/${pid}/stat`)
  // The name, field 2, is in parentheses and may hold blanks and parentheses.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields?.[0] === 'Z' ? undefined : fields?.[19]
}

function readIfAny(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw new Error(`${path}: ${fileErrorReason(error as NodeJS.ErrnoException)}`)
  }
}
