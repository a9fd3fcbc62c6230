/** How `weir reload` finds the running agent: a file with its process id and what tells it from a later process. */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

export const PID_FILE = '/run/weir/weir.pid'

/** The agent that a pid file names. */
export interface RunningAgent {
  readonly pid: number
  /** The configuration it reads. */
  readonly file: string
}

/**
 * Writes process id, start time and configuration of this process, a line each. Fails when the file names another
 * agent that runs.
 */
export function writePidFile(path: string, configuration: string): void {
  const other = readPidFile(path)
  if (other !== undefined) throw new Error(`${path} belongs to a running agent, process ${other.pid}`)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, `${process.pid}\n${startTime(process.pid)}\n${resolve(configuration)}\n`)
}

/** The running agent that a pid file names; undefined when there is none, or it has ended. */
export function readPidFile(path: string): RunningAgent | undefined {
  const [pid = '', started, file] = readIfAny(path)?.split('\n') ?? []
  if (file === undefined || !/^\d+$/.test(pid) || started !== startTime(Number(pid))) return undefined
  return { pid: Number(pid), file }
}

/** Removes the file if it is that of this process. */
export function removePidFile(path: string): void {
  if (readPidFile(path)?.pid === process.pid) rmSync(path, { force: true })
}

/**
 * When a process was started, in clock ticks since the boot (field 22 of /proc/PID/stat, proc(5)): the same process id
 * with another time is another process. Undefined when it does not run.
 */
function startTime(pid: number): string | undefined {
  const stat = readIfAny(`/proc/${pid}/stat`)
  // The name, field 2, is in parentheses and may hold blanks and parentheses.
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
}

function readIfAny(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw error
  }
}
