/** What the forwarding plane knows of the packet: queues, delays, access lists, drop reasons. */

import { oneOf, text, u32, u64, type ValueOf } from '../../struct.ts'
import { aclDirection } from '../enumerations.ts'
import { flowRecord } from '../record.ts'

const DROPS = 'dropped packet structures (2020)'
const TRANSIT = 'transit delay structures (2021)'

export const extendedEgressQueue = flowRecord(0, 1036, 'extended_egress_queue', DROPS, {
  queue: u32('queue of the output interface'),
})
export type ExtendedEgressQueue = ValueOf<typeof extendedEgressQueue>

export const extendedAcl = flowRecord(0, 1037, 'extended_acl', DROPS, {
  number: u32('access list number'),
  name: text('access list name'),
  direction: oneOf(aclDirection, 'where the list applied'),
})
export type ExtendedAcl = ValueOf<typeof extendedAcl>

export const extendedFunction = flowRecord(0, 1038, 'extended_function', DROPS, {
  symbol: text('kernel function that dropped the packet'),
})
export type ExtendedFunction = ValueOf<typeof extendedFunction>

export const extendedTransit = flowRecord(0, 1039, 'extended_transit', TRANSIT, {
  delay: u32('time in the device; all ones for 2^32-1 or more', 'ns'),
})
export type ExtendedTransit = ValueOf<typeof extendedTransit>

/** Needs extended_egress_queue in the same sample. */
export const extendedQueue = flowRecord(0, 1040, 'extended_queue', TRANSIT, {
  depth: u32('bytes in the egress queue before the packet; all ones for 2^32-1 or more', 'bytes'),
})
export type ExtendedQueue = ValueOf<typeof extendedQueue>

export const extendedHwTrap = flowRecord(0, 1041, 'extended_hw_trap', 'as emitted by host-sflow', {
  group: text('devlink trap group'),
  trap: text('devlink trap'),
})
export type ExtendedHwTrap = ValueOf<typeof extendedHwTrap>

export const extendedLinuxDropReason = flowRecord(
  0,
  1042,
  'extended_linux_drop_reason',
  'as emitted by host-sflow',
  { reason: text('kernel drop reason without the prefix SKB_DROP_REASON_') },
)
export type ExtendedLinuxDropReason = ValueOf<typeof extendedLinuxDropReason>

export const extendedTimestamp = flowRecord(
  0,
  1043,
  'extended_timestamp',
  'as emitted by host-sflow (2025)',
  {
    nanoseconds: u64('when the packet was seen, since 1970 (UTC)', 'ns'),
  },
)
export type ExtendedTimestamp = ValueOf<typeof extendedTimestamp>

/** Forerunner of extended_egress_queue. */
export const extendedBstEgressQueue = flowRecord(
  4413,
  1,
  'extended_bst_egress_queue',
  'Broadcom structures, sFlow.org structure registry',
  { queue: u32('queue of the output interface') },
)
export type ExtendedBstEgressQueue = ValueOf<typeof extendedBstEgressQueue>
