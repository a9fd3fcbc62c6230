import type { CounterReader } from '../counters/reader.ts'
import { type ControlGroup, parseProcessGroups } from '../kernel/cgroup.ts'
import { readTextFileIfAny } from '../kernel/files.ts'

/** What is found by a service manager, a container runtime or a hypervisor, and how they are asked. */

/** Numbers of the domain state (host structures, 2010). */
export const STATE = {
  none: 0,
  running: 1,
  blocked: 2,
  paused: 3,
  shuttingDown: 4,
  shutOff: 5,
  crashed: 6,
} as const

/** A service, a container, a pod or a virtual machine that is there now. */
export interface Found {
  /** 32 lower-case hex digits with dashes: the same for as long as it is the same thing, and after a restart. */
  readonly uuid: string
  /** What collectors call it; any characters. */
  readonly name: string
  readonly state: number
  /** Where what it uses is accounted for; none for a virtual machine. */
  readonly groups: readonly ControlGroup[]
  /** A process in its network namespace, if it may have one of its own. */
  readonly pid: number | undefined
  /** File with its processes, where not those of its groups count. */
  readonly processes?: string
  /** Readers that take the place of those that read control groups and namespaces. */
  readonly readers?: readonly CounterReader[]
}

export interface Runtime {
  /** As in the configuration: `docker`. */
  readonly name: string
  /** What messages call what it finds: `containers`. */
  readonly things: string
  /**
   * All that runs now. Rejects when it cannot be told, with a message that says what to do; never takes longer than its
   * time limit.
   */
  list(): Promise<readonly Found[]>
  /** Calls `changed` whenever something came or went, as far as the runtime tells. */
  watch?(changed: () => void): void
  /** Ends connections. May be called twice. */
  close(): void
}

/** What every request to a runtime has to end within. */
export const REQUEST_TIMEOUT_MS = 5000

/** `2 containers`, `1 container` */
export function countText(count: number, things: string): string {
  return `${count} ${count === 1 ? things.replace(/s$/, '') : things}`
}

/** Says of a socket that cannot be used what to do; other errors are told as they are. */
export function connectionError(error: unknown, what: string, path: string, advice: string): Error {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return new Error(`nothing answers at ${path}: ${advice}`, { cause: error })
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new Error(`${path} may not be used by this user: run weir as root, or as a member of its group`, {
      cause: error,
    })
  }
  return new Error(`${what} at ${path}: ${message}`, { cause: error })
}

/** Runs `work` for all, at most `atOnce` at a time; results in the order of `all`. */
export async function mapSome<T, R>(
  all: readonly T[],
  atOnce: number,
  work: (one: T) => Promise<R>,
): Promise<R[]> {
  const results = new Array<R>(all.length)
  let next = 0
  const worker = async () => {
    for (let i = next++; i < all.length; i = next++) results[i] = await work(all[i]!)
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, all.length) }, worker))
  return results
}

/**
 * What `search` finds; it gives undefined when containers run and none of their processes is seen here. One that just
 * ended is asked for once more.
 */
export async function seenHere(search: () => Promise<Found[] | undefined>): Promise<Found[]> {
  const found = (await search()) ?? (await search())
  if (found !== undefined) return found
  const advice = 'run weir in the process namespace of the host (hostPID)'
  throw new Error(`the processes of its containers are not those seen here: ${advice}`)
}

/**
 * The groups of a container's process; undefined when it has ended, or is another one: in a process namespace of our own
 * the runtime's numbers stand for other processes, or for none. Every runtime makes groups that have the id in their path.
 */
export async function groupsOf(root: string, pid: number, id: string): Promise<ControlGroup[] | undefined> {
  const cgroup = await readTextFileIfAny(root, `proc/${pid}/cgroup`)
  return cgroup?.text.includes(id) ? [parseProcessGroups(cgroup)] : undefined
}

/** When a process began, in clock ticks since boot: with it a pid stands for one process only. Undefined: it ended. */
export async function processStart(root: string, pid: number): Promise<string | undefined> {
  const stat = await readTextFileIfAny(root, `proc/${pid}/stat`)
  return stat?.text.slice(stat.text.lastIndexOf(')') + 2).split(' ')[19]
}
