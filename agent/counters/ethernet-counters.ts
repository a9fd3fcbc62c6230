/** ethernet_counters (0:2): what a driver counts by the names of IEEE 802.3. */

import { low32 } from '../kernel/files.ts'
import type { EthernetStats } from '../wire/netlink/ethtool.ts'
import { type EthernetCounters, ethernetCounters } from '../wire/sflow/counters/interface.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { EthernetQuestion } from './interface-readers.ts'
import type { CounterReader } from './reader.ts'

export class EthernetCountersReader implements CounterReader<typeof ethernetCounters> {
  readonly record = ethernetCounters
  readonly #ethernet: EthernetQuestion

  constructor(ethernet: EthernetQuestion) {
    this.#ethernet = ethernet
  }

  read(): Promise<EthernetCounters | undefined> | undefined {
    if (!this.#ethernet.mayCount) return undefined
    return this.#ethernet.ask().then(stats => stats && ethernetCountersOf(stats))
  }
}

/** Linux knows no SQE test errors: they belong to transceivers on a cable of their own. */
export function ethernetCountersOf({ mac, phy }: EthernetStats): EthernetCounters {
  const known = (counter: bigint | undefined) => (counter === undefined ? UNKNOWN32 : low32(counter))
  return {
    dot3StatsAlignmentErrors: known(mac.alignmentErrors),
    dot3StatsFCSErrors: known(mac.frameCheckSequenceErrors),
    dot3StatsSingleCollisionFrames: known(mac.singleCollisionFrames),
    dot3StatsMultipleCollisionFrames: known(mac.multipleCollisionFrames),
    dot3StatsSQETestErrors: UNKNOWN32,
    dot3StatsDeferredTransmissions: known(mac.framesWithDeferredTransmissions),
    dot3StatsLateCollisions: known(mac.lateCollisions),
    dot3StatsExcessiveCollisions: known(mac.framesAbortedDueToExcessiveCollisions),
    dot3StatsInternalMacTransmitErrors: known(mac.framesLostDueToInternalTransmitError),
    dot3StatsCarrierSenseErrors: known(mac.carrierSenseErrors),
    dot3StatsFrameTooLongs: known(mac.frameTooLongErrors),
    dot3StatsInternalMacReceiveErrors: known(mac.framesLostDueToInternalReceiveError),
    dot3StatsSymbolErrors: known(phy.symbolErrorsDuringCarrier),
  }
}
