/**
 * Structures of weir's own. There is no enterprise number of weir's own yet: that of examples (RFC 5612) stands in its
 * place, so they are only sent where the configuration asks for them.
 */

import { c32, c64, list, struct, text, u32, type ValueOf } from '../../struct.ts'
import { counterRecord } from '../record.ts'

const EXAMPLE_ENTERPRISE = 32473
const WEIR = 'weir'

export const queueDisciplines = counterRecord(EXAMPLE_ENTERPRISE, 1, 'weir_queue_disciplines', WEIR, {
  queues: list(
    struct({
      handle: u32('major and minor number, 16 bits each'),
      parent: u32('handle of what it is part of; all ones for the interface itself'),
      kind: text('fq_codel, mq, htb, …', 16),
      bytes: c64('octets that left it', 'bytes'),
      packets: c64('packets that left it', 'packets'),
      drops: c32('packets dropped', 'packets'),
      overlimits: c32('times it held a packet back'),
      requeues: c32('packets put back because the device was busy', 'packets'),
      queue_packets: u32('packets waiting', 'packets'),
      queue_bytes: u32('octets waiting', 'bytes'),
    }),
    'queueing disciplines of the interface, the root first',
    24,
  ),
})
export type QueueDisciplines = ValueOf<typeof queueDisciplines>
