/** What queueing disciplines have counted, by rtnetlink (include/uapi/linux/{rtnetlink,gen_stats}.h). */
import type { Attributes } from './attributes.ts'
import { MESSAGE_HEADER, type Message } from './message.ts'
import { attributesAfter } from './rt.ts'

/** struct tcmsg: family u8 · pad · ifindex i32 · handle u32 · parent u32 · info u32. */
const TC_HEADER = 20
const TCA = { kind: 1, stats: 7 } as const
/** Inside TCA_STATS2; the fourth is `qlen, backlog, drops, requeues, overlimits`, each u32. */
const STATS = { basic: 1, queue: 3, packets64: 8 } as const

export interface QdiscStats {
  readonly ifIndex: number
  /** `major:minor`, 16 bits each. */
  readonly handle: number
  /** Handle of what it is part of; ffff:ffff is the interface itself. */
  readonly parent: number
  readonly kind: string
  /** Octets and packets that left it. */
  readonly bytes: bigint
  readonly packets: bigint
  readonly drops: number
  readonly overlimits: number
  readonly requeues: number
  /** Waiting now. */
  readonly queuedPackets: number
  readonly queuedBytes: number
}

/** Reads an RTM_NEWQDISC; undefined when it has no figures. */
export function readQdiscStats(message: Message): QdiscStats | undefined {
  const attributes = attributesAfter(message, TC_HEADER)
  const stats = attributes.nest(TCA.stats)
  const basic = viewOf(stats, STATS.basic, 12)
  const queue = viewOf(stats, STATS.queue, 20)
  if (basic === undefined || queue === undefined) return undefined
  const { view } = message
  return {
    ifIndex: view.getInt32(MESSAGE_HEADER + 4, true),
    handle: view.getUint32(MESSAGE_HEADER + 8, true),
    parent: view.getUint32(MESSAGE_HEADER + 12, true),
    kind: attributes.text(TCA.kind) ?? '',
    bytes: basic.getBigUint64(0, true),
    packets: stats?.u64(STATS.packets64) ?? BigInt(basic.getUint32(8, true)),
    queuedPackets: queue.getUint32(0, true),
    queuedBytes: queue.getUint32(4, true),
    drops: queue.getUint32(8, true),
    requeues: queue.getUint32(12, true),
    overlimits: queue.getUint32(16, true),
  }
}

function viewOf(attributes: Attributes | undefined, type: number, least: number): DataView | undefined {
  const bytes = attributes?.bytes(type)
  if (bytes === undefined || bytes.length < least) return undefined
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}
