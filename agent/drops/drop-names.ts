import type { Name, Names } from '../samples/drop.ts'
import { type KernelReason, kernelReasons } from './kernel-names.ts'
import { addressOf, KernelSymbols } from './kernel-symbols.ts'

/**
 * Words of the running kernel for the numbers that a program inside it tells of a drop. Modules bring reasons and
 * functions of their own: after something unknown the tables are read again, in a while.
 */

export interface DropNamesOptions {
  /** Where type information and symbols are read; those of the running kernel by default. */
  readonly reasons?: () => readonly KernelReason[]
  readonly symbols?: () => Promise<KernelSymbols>
  /** Least time between two readings, milliseconds. */
  readonly againMs?: number
}

const AGAIN_MS = 10_000

export class DropNames {
  /** Changes when a word may be another one than before, or known now. */
  generation = 0
  readonly #names: Names
  readonly #readReasons: () => readonly KernelReason[]
  readonly #readSymbols: () => Promise<KernelSymbols>
  readonly #againMs: number
  readonly #reasons = new Map<number, Name | undefined>()
  readonly #symbols = new Map<number, Name | undefined>()
  #table: KernelSymbols | undefined
  #again: NodeJS.Timeout | undefined
  #loaded: Promise<boolean> | undefined

  /** Reads the reasons. Functions are without name before load() has ended. */
  constructor(names: Names, { reasons, symbols, againMs = AGAIN_MS }: DropNamesOptions = {}) {
    this.#names = names
    this.#readReasons = reasons ?? kernelReasons
    this.#readSymbols = symbols ?? KernelSymbols.read
    this.#againMs = againMs
    this.#takeReasons()
  }

  /** Reads the kernel's functions, if that has not been done. True when it tells their addresses. */
  load(): Promise<boolean> {
    this.#loaded ??= this.#load().catch(() => {
      this.#loaded = undefined
      return false
    })
    return this.#loaded
  }

  async #load(): Promise<boolean> {
    const table = await this.#readSymbols()
    this.#table = table
    // What is no function now either is not a reason to read once more.
    const unresolved = [...this.#symbols].filter(([, name]) => name === undefined)
    this.#symbols.clear()
    for (const [address] of unresolved) this.#symbols.set(address, this.#at(address))
    this.generation++
    return table.size > 0
  }

  /** The reasons that this kernel names, by number. */
  reasons(): Iterable<readonly [number: number, name: Name | undefined]> {
    return this.#reasons
  }

  /** The name of a reason; a number that this kernel does not name is `UNKNOWN_` and the number. */
  reason(value: number): Name | undefined {
    if (!this.#reasons.has(value)) {
      this.#reasons.set(value, this.#names.of(`UNKNOWN_0x${value.toString(16)}`))
      this.#lookAgain()
    }
    return this.#reasons.get(value)
  }

  /** The function at an address (two words of 32 bits), with offset and size; undefined when there is none. */
  symbol(high: number, low: number): Name | undefined {
    const address = addressOf(high, low)
    if (!this.#symbols.has(address)) {
      const name = this.#at(address)
      this.#symbols.set(address, name)
      if (name === undefined) this.#lookAgain()
    }
    return this.#symbols.get(address)
  }

  /** No more reading. */
  close(): void {
    clearTimeout(this.#again)
  }

  #at(address: number): Name | undefined {
    const text = this.#table?.at(address)
    return text === undefined ? undefined : this.#names.of(text)
  }

  #takeReasons(): void {
    for (const { value, name } of this.#readReasons()) this.#reasons.set(value, this.#names.of(name))
  }

  #lookAgain(): void {
    if (this.#table === undefined) return
    this.#again ??= setTimeout(async () => {
      this.#takeReasons()
      // Symbols that cannot be read now stay as they are.
      await this.#load().catch(() => {})
      this.#again = undefined
    }, this.#againMs).unref()
  }
}
