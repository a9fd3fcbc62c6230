import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** Messages that one thing made on one kernel. */
export interface Recording {
  readonly name: string
  readonly messages: readonly Uint8Array[]
}

/** The PSAMPLE messages in test/vectors/psample, by kernel and by what made them. */
export function recordedPsample(): Recording[] {
  const recordings: Recording[] = []
  for (const kernel of ['6.1', '6.12']) {
    const path = join(import.meta.dirname, `../vectors/psample/linux-${kernel}.hex`)
    for (const part of readFileSync(path, 'utf8').split(/^# /m).slice(1)) {
      const [heading, ...lines] = part.trim().split('\n')
      const messages = lines.map(line => Uint8Array.from(Buffer.from(line, 'hex')))
      recordings.push({ name: `Linux ${kernel}, ${heading}`, messages })
    }
  }
  return recordings
}
