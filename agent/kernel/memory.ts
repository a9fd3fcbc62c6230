import { loadAddon } from './addon.ts'

/** The addon (native/memory/memory.c). */
interface MemoryAddon {
  releaseCode(): number
}

/**
 * Lets go of the machine code that only the start needed: about 15 MB of resident memory, of which what runs again comes
 * back from the page cache by itself. To be called once, when the agent has settled. Gives the bytes of code looked at.
 */
export function releaseStartCode(): number {
  return (loadAddon('memory') as MemoryAddon).releaseCode()
}
