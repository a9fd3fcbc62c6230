import { setTimeout as wait } from 'node:timers/promises'
import { loadAddon } from './addon.ts'

/** The addon (native/memory/memory.c). */
interface MemoryAddon {
  releaseStart(): Promise<number>
}

/** By then every part has run once, and most of the code that is hot has been compiled. */
const SETTLED_MS = 10_000
/** What the collector frees is given back by threads of its own. */
const FREED_MS = 1000
const RELEASE_MS = 60_000

/**
 * Lets go of the program's code and constants that only the start needed, and of memory that malloc keeps for later; what
 * is used again comes back from the page cache by itself. To be called when the agent has settled, and now and then: a
 * look at a web page or a changed file brings in code that is not used again for hours. It takes some hundredths of a
 * second, of another thread. Gives the bytes of the mappings let go of.
 */
export function releaseStartMemory(): Promise<number> {
  return (loadAddon('memory') as MemoryAddon).releaseStart()
}

/**
 * To be called at the start. When the agent has settled, the garbage of the start is collected (the kernel's type
 * information, the text of /proc/kallsyms: some megabytes, which nothing else would soon have collected); that stops the
 * event loop once, for some hundredths of a second. It needs --expose-gc, which the launcher gives. From then on memory is
 * released each minute. Holds no process; ends only by failing.
 */
export async function settleMemory(): Promise<never> {
  await wait(SETTLED_MS, undefined, { ref: false })
  globalThis.gc?.()
  await wait(FREED_MS, undefined, { ref: false })
  for (;;) {
    await releaseStartMemory()
    await wait(RELEASE_MS, undefined, { ref: false })
  }
}
