import { loadAddon } from './addon.ts'

/** The addon (native/memory/memory.c). */
interface MemoryAddon {
  releaseStart(): number
}

/**
 * Lets go of the program's code and constants that only the start needed; what is used again comes back from the page
 * cache by itself. To be called when the agent has settled, and now and then: a look at a web page or a changed file
 * brings in code that is not used again for hours. It takes a few milliseconds. Gives the bytes let go of.
 */
export function releaseStartMemory(): number {
  return (loadAddon('memory') as MemoryAddon).releaseStart()
}
