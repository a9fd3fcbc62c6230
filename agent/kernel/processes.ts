import { readdir, readFile } from 'node:fs/promises'

/** The process id of a running program by its name (at most 15 characters, proc(5)); undefined when there is none. */
export async function processCalled(name: string, proc = '/proc'): Promise<number | undefined> {
  for (const entry of await readdir(proc)) {
    if (!/^\d+$/.test(entry)) continue
    const command = await readFile(`${proc}/${entry}/comm`, 'utf8').catch(() => '')
    if (command.trim() === name) return Number(entry)
  }
  return undefined
}
