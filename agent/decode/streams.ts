/** Gaps and restarts in the datagrams of each sub-agent: events, not errors. */

import type { DecodedDatagram } from '../wire/sflow/datagram.ts'

/** A step back by more than this many datagrams is a restart, not late delivery. */
const MOST_LATE = 16

export class StreamWatch {
  readonly #last = new Map<string, { sequence: number; uptime: number }>()

  /** What happened between this datagram and the one before it of the same sub-agent; undefined if nothing did. */
  next(datagram: DecodedDatagram): string | undefined {
    const { agent_address, sub_agent_id, sequence_number: sequence, uptime } = datagram
    const stream = `agent ${agent_address} sub-agent ${sub_agent_id}`
    const last = this.#last.get(stream)
    if (last === undefined) {
      this.#last.set(stream, { sequence, uptime })
      return undefined
    }
    // Both wrap at 2^32; a difference as a signed number does not mind.
    const step = (sequence - last.sequence) | 0
    const isEarlier = ((uptime - last.uptime) | 0) < 0
    const restarted = isEarlier && (step > 0 || step < -MOST_LATE || sequence === 1)
    if (step > 0 || restarted) this.#last.set(stream, { sequence, uptime })
    if (restarted) return `${stream}: restarted`
    if (step > 1) return `${stream}: ${step - 1} lost before datagram ${sequence}`
    if (step === 0) return `${stream}: datagram ${sequence} came twice`
    return step < 0 ? `${stream}: datagram ${sequence} came late` : undefined
  }
}
