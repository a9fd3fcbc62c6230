/** What `weir run` keeps of the privileges that it was started with. */

import { chownSync, mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Config } from '../config/config.ts'
import type { Logger } from '../health/log.ts'
import {
  effectiveCapabilities,
  maskOf,
  namesOf,
  neededPrivileges,
  reducePrivileges,
  systemUser,
} from '../kernel/privileges.ts'
import { PID_FILE } from './pid-file.ts'

/** Whom packages make for the agent. */
export const AGENT_USER = 'weir'

export interface DropOptions {
  readonly file?: string
  readonly user: string
  /** False keeps everything. */
  readonly drop: boolean
}

/**
 * Gives up what the configuration does not need. That runs the program anew, so that this returns in the second run, or
 * when there is nothing to give up; a text is why more than that is kept.
 */
export function dropPrivileges(config: Config, { file, user: name, drop }: DropOptions): string | undefined {
  if (!drop) return undefined
  if (file === '-') return 'every privilege is kept, because standard input cannot be read a second time'
  const user = systemUser(name)
  try {
    if (user !== undefined && process.geteuid?.() === 0) giveFolder(dirname(PID_FILE), user)
    reducePrivileges({ keep: maskOf(neededPrivileges(config)), user })
    return undefined
  } catch (error) {
    return `more privileges are kept than the configuration needs: ${(error as Error).message}`
  }
}

/** Where the agent's user writes while it runs. */
function giveFolder(path: string, { user, group }: { user: number; group: number }): void {
  try {
    mkdirSync(path, { recursive: true })
    chownSync(path, user, group)
  } catch {
    // A read-only system, or a container's: the pid file is reported missing by its own.
  }
}

/** A changed configuration may need what was given up at the start. */
export function warnOfMissing(config: Config, log: Logger): void {
  const held = effectiveCapabilities()
  for (const { feature, capabilities, why } of neededPrivileges(config)) {
    const missing = maskOf([{ feature, capabilities, why }]) & ~held
    if (missing === 0n) continue
    log.warn(
      `${feature} may need ${namesOf(missing).join(' and ')} (${why}), which this agent has not: restart it`,
    )
  }
}
