import { setImmediate as turn } from 'node:timers/promises'

/** Work on many things that can wait is done for this long, then others have their turn of the event loop. */
const TURN_MS = 1

/**
 * Calls `work` for each of `items`, in as many turns of the event loop as it takes: a host may have thousands of
 * interfaces, and a packet waits for none of them. Things that have come or gone between two turns are the caller's concern.
 */
export async function inTurns<T>(items: Iterable<T>, work: (item: T) => void): Promise<void> {
  let endMs = performance.now() + TURN_MS
  for (const item of items) {
    work(item)
    if (performance.now() < endMs) continue
    await turn()
    endMs = performance.now() + TURN_MS
  }
}
