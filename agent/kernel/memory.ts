import { loadAddon } from './addon.ts'

/** The addon (native/memory/memory.c). */
interface MemoryAddon {
  releaseStart(): number
}

/**
 * Lets go of the program's code and constants that only the start needed; what is used again comes back from the page
 * cache by itself. To be called once, when the agent has settled. Gives the bytes let go of.
 */
export function releaseStartMemory(): number {
  return (loadAddon('memory') as MemoryAddon).releaseStart()
}
