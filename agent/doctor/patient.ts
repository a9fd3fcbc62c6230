import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../config/config.ts'
import type { Place } from '../config/problem.ts'

/** Who is examined: a configuration, on a machine. */
export interface Patient {
  /** Undefined when there is none, or it has errors: then nothing is needed, and all is looked at. */
  readonly config: Config | undefined
  readonly places: ReadonlyMap<string, Place>
  /** Where /proc and /sys are; `/` but in tests. */
  readonly root: string
  /** Control socket of the running agent, if one runs. */
  readonly socket: string
}

/** A file below the root, without blanks around its text; undefined when it is not there or not to be read. */
export async function textOf({ root }: Patient, path: string): Promise<string | undefined> {
  try {
    return (await readFile(join(root, path), 'utf8')).trim()
  } catch {
    return undefined
  }
}
