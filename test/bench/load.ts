/** Packets at a pace, and the processor time that others take meanwhile. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { AF_PACKET, packetAddress } from '../../agent/kernel/sockaddr.ts'

const ETH_P_ALL = 3
const SOCK_RAW = 3
const TICK_MS = 5
const BATCH = 1000

export interface Pace {
  /** Infinity: without a pause. */
  readonly packetsPerSecond: number
  readonly seconds: number
}

/** Sends a frame over and over by an interface of a namespace; gives how often. */
export async function sendFor(
  namespace: string,
  ifIndex: number,
  frame: Uint8Array,
  { packetsPerSecond, seconds }: Pace,
): Promise<number> {
  const socket = KernelSocket.open('frames', AF_PACKET, SOCK_RAW, 0, namespace)
  try {
    socket.bind(packetAddress(ETH_P_ALL, ifIndex), 'bind')
    const memory = new Uint8Array(frame).buffer
    const spans = new Int32Array(BATCH * 2).map((_, i) => (i & 1) * frame.length)
    const started = performance.now()
    let sent = 0
    for (;;) {
      const elapsed = performance.now() - started
      if (elapsed > seconds * 1000) return sent
      const due = Math.min((elapsed * packetsPerSecond) / 1000, sent + BATCH * 20)
      while (sent < due) sent += Math.max(socket.sendBatch(memory, spans, 0, BATCH), 0)
      if (packetsPerSecond < Number.POSITIVE_INFINITY) await sleep(TICK_MS)
      else await new Promise(resolve => setImmediate(resolve))
    }
  } finally {
    socket.close()
  }
}

/** Time that the threads of a process have run so far: by the scheduler, as ticks would fall in with our timer. */
export function cpuSeconds(pid: number | string): number {
  let nanoseconds = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
  }
  return nanoseconds / 1e9
}
