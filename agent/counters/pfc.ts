/** pfc (0:11): pause frames of priority flow control, the sum of all priorities. */

import type { Interface } from '../interfaces.ts'
import { low32 } from '../kernel/files.ts'
import type { PfcState } from '../wire/netlink/dcb.ts'
import { type Pfc, pfc } from '../wire/sflow/counters/interface.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { CounterReader } from './reader.ts'

/** `ask` gives undefined when the driver has no priority flow control. */
export function pfcReader(
  port: () => Interface | undefined,
  ask: (name: string) => Promise<PfcState | undefined>,
): CounterReader<typeof pfc> {
  let isAbsent = false
  const look = async (name: string) => {
    const state = await ask(name)
    if (state === undefined) isAbsent = true
    return state && pfcOf(state)
  }
  return {
    record: pfc,
    read() {
      const now = port()
      // Only devices of a driver have it; those whose driver does not are found out once.
      if (now === undefined || now.kind !== undefined || now.loopback || isAbsent) return undefined
      return look(now.name)
    },
  }
}

/**
 * Undefined while no priority may pause and none ever has: what is not in use is not told. The kernel has no figures of
 * the time paused and of storms.
 */
export function pfcOf({ enabled, requests, indications }: PfcState): Pfc | undefined {
  const sum = (counters: readonly bigint[]) => counters.reduce((total, counter) => total + counter, 0n)
  const sent = sum(requests)
  const received = sum(indications)
  if (enabled === 0 && sent === 0n && received === 0n) return undefined
  return {
    requests: low32(sent),
    indications: low32(received),
    pause_duration: UNKNOWN32,
    storm_detected: UNKNOWN32,
    storm_restored: UNKNOWN32,
  }
}
