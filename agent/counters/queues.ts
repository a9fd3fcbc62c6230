/** weir_queue_disciplines: what the queueing disciplines of an interface have counted. */

import type { Interface } from '../interfaces.ts'
import { type QdiscStats, readQdiscStats } from '../wire/netlink/qdisc-stats.ts'
import { dumpQdiscs } from '../wire/netlink/tc.ts'
import { type QueueDisciplines, queueDisciplines } from '../wire/sflow/counters/weir.ts'
import type { Questions } from './questions.ts'
import { type CounterReader, shared } from './reader.ts'

/** The kernel gives those of all interfaces or none, so that those who ask together share one look. */
export function qdiscsOf(questions: Questions): () => Promise<ReadonlyMap<number, readonly QdiscStats[]>> {
  return shared(async () => {
    const all = new Map<number, QdiscStats[]>()
    for (const message of await questions.dump(dumpQdiscs())) {
      const stats = readQdiscStats(message)
      if (stats === undefined) continue
      const others = all.get(stats.ifIndex)
      if (others === undefined) all.set(stats.ifIndex, [stats])
      else others.push(stats)
    }
    return all
  })
}

export function queuesReader(
  port: () => Interface | undefined,
  all: () => Promise<ReadonlyMap<number, readonly QdiscStats[]>>,
): CounterReader<typeof queueDisciplines> {
  return {
    record: queueDisciplines,
    async read() {
      const now = port()
      if (now === undefined) return undefined
      return queuesOf((await all()).get(now.ifIndex) ?? [])
    },
  }
}

/** Where nothing queues: hooks for filters, and devices that hand packets on at once. */
const NO_QUEUE: ReadonlySet<string> = new Set(['noqueue', 'ingress', 'clsact'])
/** A device of hundreds of queues would fill datagrams; the sum of them is in the root. */
const MOST_QUEUES = 24

/** Undefined for an interface without a queue. */
export function queuesOf(stats: readonly QdiscStats[]): QueueDisciplines | undefined {
  const queues = stats.filter(({ kind }) => !NO_QUEUE.has(kind)).slice(0, MOST_QUEUES)
  if (queues.length === 0) return undefined
  return {
    queues: queues.map(queue => ({
      handle: queue.handle,
      parent: queue.parent,
      kind: queue.kind,
      bytes: queue.bytes,
      packets: queue.packets,
      drops: queue.drops,
      overlimits: queue.overlimits,
      requeues: queue.requeues,
      queue_packets: queue.queuedPackets,
      queue_bytes: queue.queuedBytes,
    })),
  }
}
