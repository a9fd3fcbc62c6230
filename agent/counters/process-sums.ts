import { FileFormatError, type KernelUnits, parseCounter, readTextFileIfAny } from '../kernel/files.ts'

/** What some processes come to together. */
export interface ProcessTotals {
  /** CPU time, milliseconds. */
  readonly cpuMs: bigint
  readonly residentBytes: bigint
  /** Bytes that storage was asked for; undefined where that may not be read. */
  readonly disk: { readonly readBytes: bigint; readonly writtenBytes: bigint } | undefined
}

/** More processes than this are not added up: reading them would take too long. */
const MOST_PROCESSES = 1000
/** Read at the same time, so that the thread pool has a thread left for others. */
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
  async read(pids: readonly number[]): Promise<ProcessTotals | undefined> {
    if (pids.length === 0 || pids.length > MOST_PROCESSES) return undefined
    const { ticksPerSecond, pageBytes } = await this.#units()
    let ticks = 0n
    let pages = 0n
    let readBytes = 0n
    let writtenBytes = 0n
    let hasDisk = false
    const left = [...pids]
    const worker = async () => {
      for (let pid = left.pop(); pid !== undefined; pid = left.pop()) {
        const [stat, io] = await Promise.all([
          readTextFileIfAny(this.#root, `proc/${pid}/stat`),
          readTextFileIfAny(this.#root, `proc/${pid}/io`),
        ])
        if (stat !== undefined) {
          // The name, in parentheses, may hold anything: fields are counted from its end on (proc(5)).
          const fields = stat.text.slice(stat.text.lastIndexOf(')') + 2).split(' ')
          const field = (number: number, name: string) => parseCounter(stat, 1, name, fields[number - 3])
          ticks += field(14, 'utime') + field(15, 'stime') + signed(fields[13]) + signed(fields[14])
          pages += signed(fields[21])
        }
        if (io === undefined) continue
        hasDisk = true
        const value = (name: string) => {
          const word = new RegExp(`^${name}: (\\d+)$`, 'm').exec(io.text)?.[1]
          if (word === undefined) throw new FileFormatError(io.path, 0, `${name}: missing`)
          return BigInt(word)
        }
        readBytes += value('read_bytes')
        writtenBytes += value('write_bytes')
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    return {
      cpuMs: this.#cpu.next((ticks * 1000n) / ticksPerSecond),
      residentBytes: pages * pageBytes,
      disk: hasDisk
        ? { readBytes: this.#read.next(readBytes), writtenBytes: this.#written.next(writtenBytes) }
        : undefined,
    }
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
