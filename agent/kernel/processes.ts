import { readlinkSync } from 'node:fs'
import { readdir, readFile, readlink } from 'node:fs/promises'

/**
 * The process id of a running program by its name (at most 15 characters, proc(5)); undefined when there is none. One that
 * is known to be in another network namespace does not count; whose namespace may not be seen does.
 */
export async function processCalled(name: string, proc = '/proc'): Promise<number | undefined> {
  const namespaceOf = (process: string) => readlink(`${proc}/${process}/ns/net`).catch(() => undefined)
  const here = await namespaceOf('self')
  for (const entry of await readdir(proc)) {
    if (!/^\d+$/.test(entry)) continue
    const command = await readFile(`${proc}/${entry}/comm`, 'utf8').catch(() => '')
    if (command.trim() !== name) continue
    const there = await namespaceOf(entry)
    if (there === undefined || there === here) return Number(entry)
  }
  return undefined
}

/**
 * True for a process whose program has been replaced, as by an upgrade: it would load new parts, as BPF objects whose
 * records it does not know. False also where that may not be seen; a process always sees it of itself.
 */
export function isReplaced(pid: number | 'self'): boolean {
  try {
    return readlinkSync(`/proc/${pid}/exe`).endsWith(' (deleted)')
  } catch {
    return false
  }
}
