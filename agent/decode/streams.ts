/** Gaps and restarts in the datagrams of each sub-agent: events, not errors. */

import type { DecodedDatagram } from '../wire/sflow/datagram.ts'

/** A step back by more than this many datagrams is a restart, not late delivery. */
export const MOST_LATE = 16
/** Sub-agents that are remembered; the one that was first seen the longest ago is forgotten for another. */
const MOST_STREAMS = 10_000

/** What is known of the newest datagram of a sub-agent. */
export interface Newest {
  readonly sequence: number
  readonly uptime: number
}

/** Whether the sub-agent began again between the two: its uptime went back, and not because of a late datagram. */
export function isRestart(last: Newest, sequence: number, uptime: number): boolean {
  // Both wrap at 2^32; a difference as a signed number does not mind.
  const step = (sequence - last.sequence) | 0
  const isEarlier = ((uptime - last.uptime) | 0) < 0
  return isEarlier && (step > 0 || step < -MOST_LATE || sequence === 1)
}

export class StreamWatch {
  readonly #last = new Map<string, Newest>()

  /** What happened between this datagram and the one before it of the same sub-agent; undefined if nothing did. */
  next(datagram: DecodedDatagram): string | undefined {
    const { agent_address, sub_agent_id, sequence_number: sequence, uptime } = datagram
    const stream = `agent ${agent_address} sub-agent ${sub_agent_id}`
    const last = this.#last.get(stream)
    if (last === undefined) {
      if (this.#last.size >= MOST_STREAMS) this.#last.delete(this.#last.keys().next().value!)
      this.#last.set(stream, { sequence, uptime })
      return undefined
    }
    const step = (sequence - last.sequence) | 0
    const restarted = isRestart(last, sequence, uptime)
    if (step > 0 || restarted) this.#last.set(stream, { sequence, uptime })
    if (restarted) return `${stream}: restarted`
    if (step > 1) return `${stream}: ${step - 1} lost before datagram ${sequence}`
    if (step === 0) return `${stream}: datagram ${sequence} came twice`
    return step < 0 ? `${stream}: datagram ${sequence} came late` : undefined
  }
}
