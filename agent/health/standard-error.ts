import { writeSync } from 'node:fs'

/** Standard error, written at once. A full disk, or a reader that has gone, costs lines and not the agent. */

const STDERR = 2
/** A pipe whose reader is slow and that does not block is tried this often, with a millisecond between. */
const ATTEMPTS = 20

let lost = 0

/** Writes a text, or counts it as lost. */
export function writeStandardError(text: string): void {
  const bytes = Buffer.from(text)
  let written = 0
  for (let attempt = 0; written < bytes.length; ) {
    try {
      written += writeSync(STDERR, bytes, written)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || ++attempt === ATTEMPTS) {
        lost++
        return
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}

/** Texts that could not be written since this was last asked. */
export function takeLost(): number {
  const count = lost
  lost = 0
  return count
}
