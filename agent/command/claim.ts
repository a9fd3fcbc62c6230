import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Logger } from '../health/log.ts'
import {
  AnotherAgentError,
  networkNamespace,
  PID_FILE,
  type RunningAgent,
  readPidFile,
  removePidFile,
  writePidFile,
} from './pid-file.ts'

const FOLDER = dirname(PID_FILE)

/**
 * Two agents of one network namespace have different sub-agent ids: collectors tell them apart by it, and each takes the
 * samplers in the kernel that have its own for what it has left there itself. A file for each pair of the two, beside
 * the pid file, whatever pid file there is besides.
 */
export class Claim {
  readonly #folder: string
  /** What other agents are told: the configuration. */
  readonly #file: string
  readonly #log: Logger
  #path: string | undefined

  constructor(file: string, log: Logger, folder = FOLDER) {
    this.#file = file
    this.#log = log
    this.#folder = folder
  }

  /** Takes this id, and gives up the one before. Fails with a message that says who has it. */
  take(subAgentId: number): void {
    const path = claimFile(this.#folder, subAgentId)
    if (path === this.#path) return
    try {
      mkdirSync(this.#folder, { recursive: true })
      sweepClaims(this.#folder)
      writePidFile(path, this.#file)
    } catch (error) {
      if (error instanceof AnotherAgentError) {
        const { pid, file } = error.other
        throw new Error(
          `process ${pid} with ${file} runs in this network namespace and has subAgentId ${subAgentId}, too: ` +
            'end it, or give one of the two another one',
        )
      }
      // An agent without the folder runs all the same.
      this.#log.debug(`another agent would not be noticed: ${(error as Error).message}`)
      return
    }
    this.release()
    this.#path = path
  }

  /** May be called twice. */
  release(): void {
    if (this.#path !== undefined) removePidFile(this.#path)
    this.#path = undefined
  }
}

/** Removes files of agents that were killed, perhaps in namespaces that are gone. */
export function sweepClaims(folder = FOLDER): void {
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const path = join(folder, name)
    if (/^agent-\d+-\d+\.pid$/.test(name) && readPidFile(path) === undefined) rmSync(path, { force: true })
  }
}

/** The agent that runs in this network namespace with this id; undefined when none is known of. */
export function claimant(subAgentId: number, folder = FOLDER): RunningAgent | undefined {
  return readPidFile(claimFile(folder, subAgentId))
}

function claimFile(folder: string, subAgentId: number): string {
  const inode = /\d+/.exec(networkNamespace())![0]
  return join(folder, `agent-${inode}-${subAgentId}.pid`)
}
