import {
  FileFormatError,
  type KernelUnits,
  parseCounter,
  readTextFileIfAny,
  type TextFile,
} from '../kernel/files.ts'

/** CPU time and memory of some processes together. */
export interface ProcessUsage {
  /** CPU time, milliseconds. */
  readonly cpuMs: bigint
  readonly residentBytes: bigint
}

/** Bytes that storage was asked for by some processes together. */
export interface ProcessTransfers {
  readonly readBytes: bigint
  readonly writtenBytes: bigint
}

/** More processes than this are not added up: reading them would take too long. */
const MOST_PROCESSES = 256
/** Read at the same time, so that the thread pool has threads left for others. */
const AT_ONCE = 2

/**
 * Adds up the processes of an entity from /proc/PID. To a process the kernel adds what its ended children used when it
 * waits for them, so the sum over those that live is complete, except for what ends without its parent: then the sum
 * would go back, and is held where it was.
 */
export class ProcessSums {
  readonly #root: string
  readonly #units: () => Promise<KernelUnits>
  readonly #cpu = new NeverBack()
  readonly #read = new NeverBack()
  readonly #written = new NeverBack()

  constructor(root: string, units: () => Promise<KernelUnits>) {
    this.#root = root
    this.#units = units
  }

  /** Undefined when there is no such process, or too many. */
  async usage(pids: readonly number[]): Promise<ProcessUsage | undefined> {
    const { ticksPerSecond, pageBytes } = await this.#units()
    let ticks = 0n
    let pages = 0n
    const found = await this.#each(pids, 'stat', file => {
      // The name, in parentheses, may hold anything: fields are counted from its end on (proc(5)).
      const fields = file.text.slice(file.text.lastIndexOf(')') + 2).split(' ')
      const field = (number: number, name: string) => parseCounter(file, 1, name, fields[number - 3])
      ticks += field(14, 'utime') + field(15, 'stime') + signed(fields[13]) + signed(fields[14])
      pages += signed(fields[21])
    })
    if (found === 0) return undefined
    return { cpuMs: this.#cpu.next((ticks * 1000n) / ticksPerSecond), residentBytes: pages * pageBytes }
  }

  /** Undefined when there is no such process, too many, or none that may be asked. */
  async transfers(pids: readonly number[]): Promise<ProcessTransfers | undefined> {
    let readBytes = 0n
    let writtenBytes = 0n
    const found = await this.#each(pids, 'io', file => {
      const value = (name: string) => {
        const word = new RegExp(`^${name}: (\\d+)$`, 'm').exec(file.text)?.[1]
        if (word === undefined) throw new FileFormatError(file.path, 0, `${name}: missing`)
        return BigInt(word)
      }
      readBytes += value('read_bytes')
      writtenBytes += value('write_bytes')
    })
    if (found === 0) return undefined
    return { readBytes: this.#read.next(readBytes), writtenBytes: this.#written.next(writtenBytes) }
  }

  /** Reads a file of each process; gives how many there were. */
  async #each(pids: readonly number[], name: string, take: (file: TextFile) => void): Promise<number> {
    if (pids.length > MOST_PROCESSES) return 0
    const left = [...pids]
    let found = 0
    const worker = async () => {
      for (let pid = left.pop(); pid !== undefined; pid = left.pop()) {
        const file = await readTextFileIfAny(this.#root, `proc/${pid}/${name}`)
        if (file === undefined) continue
        found++
        take(file)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    return found
  }
}

/** A sum that lost some of its parts goes on from where it was. */
class NeverBack {
  #last = 0n
  #lost = 0n

  next(sum: bigint): bigint {
    if (sum < this.#last) this.#lost += this.#last - sum
    this.#last = sum
    return sum + this.#lost
  }
}

/** Times of children and pages are signed in the kernel's format. */
function signed(word: string | undefined): bigint {
  return /^\d+$/.test(word ?? '') ? BigInt(word!) : 0n
}
