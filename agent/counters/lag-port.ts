/** lag_port_stats (0:7) of an interface that is a member of a bond or team. */

import type { Interface } from '../interfaces.ts'
import { low32 } from '../kernel/files.ts'
import { BOND_MODE_LACP, type Link } from '../wire/netlink/rt-link.ts'
import type { LacpStats } from '../wire/netlink/rt-stats.ts'
import { type LagPortStats, lagPortStats } from '../wire/sflow/counters/interface.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { InterfaceStatistics } from './interface-statistics.ts'
import type { Answer, CounterReader } from './reader.ts'

export class LagPortReader implements CounterReader<typeof lagPortStats> {
  readonly record = lagPortStats
  readonly #port: () => Interface | undefined
  readonly #statistics: InterfaceStatistics

  constructor(port: () => Interface | undefined, statistics: InterfaceStatistics) {
    this.#port = port
    this.#statistics = statistics
  }

  read(): Answer<LagPortStats | undefined> {
    const { ifIndex, masterIfIndex, masterKind } = this.#port() ?? {}
    if (ifIndex === undefined || masterIfIndex === undefined) return undefined
    if (masterKind === 'team') return lagPortOf(masterIfIndex, undefined, undefined, undefined)
    return masterKind === 'bond' ? readBondPort(ifIndex, masterIfIndex, this.#statistics) : undefined
  }
}

async function readBondPort(
  ifIndex: number,
  bondIndex: number,
  statistics: InterfaceStatistics,
): Promise<LagPortStats | undefined> {
  const [member, bond, stats] = await Promise.all([
    statistics.link(ifIndex),
    statistics.link(bondIndex),
    statistics.stats(ifIndex, ['linkXstatsSlave']),
  ])
  // Gone, or out of the bond, by now.
  if (member?.bondPort === undefined || bond === undefined) return undefined
  return lagPortOf(bondIndex, member, bond, stats?.bondPort)
}

const NO_ADDRESS = '00:00:00:00:00:00'

/**
 * The state bytes are in the order of the document, which is that of the wire: actor admin, actor oper, partner admin,
 * partner oper. The kernel tells the oper states; the admin states stay 0. A member that is in another aggregator than
 * the active one has another partner, whom the kernel does not name here. Members of a bond that does not speak LACP, and
 * of a team, which leaves LACP to a daemon, only have the aggregate.
 *
 * The LACP counters came with Linux 5.1.
 */
export function lagPortOf(
  aggregate: number,
  member: Link | undefined,
  bond: Link | undefined,
  lacp: LacpStats | undefined,
): LagPortStats {
  const known = (counter: bigint | undefined) => (counter === undefined ? UNKNOWN32 : low32(counter))
  const isLacp = bond?.bond?.mode === BOND_MODE_LACP
  const port = isLacp ? member?.bondPort : undefined
  const isActive = port !== undefined && port.aggregatorId === bond?.bond?.aggregatorId
  const counters = isLacp ? lacp : undefined
  const unknownPdus = counters?.lacpduUnknownRx
  return {
    dot3adAggPortActorSystemID: isLacp ? actorSystem(bond) : NO_ADDRESS,
    dot3adAggPortPartnerOperSystemID: (isActive && bond?.bond?.partnerMac) || NO_ADDRESS,
    dot3adAggPortAttachedAggID: aggregate,
    dot3adAggPortState: Uint8Array.of(0, port?.actorState ?? 0, 0, port?.partnerState ?? 0),
    dot3adAggPortStatsLACPDUsRx: known(counters?.lacpduRx),
    dot3adAggPortStatsMarkerPDUsRx: known(counters?.markerRx),
    dot3adAggPortStatsMarkerResponsePDUsRx: known(counters?.markerResponseRx),
    dot3adAggPortStatsUnknownRx: known(
      unknownPdus === undefined ? undefined : unknownPdus + (counters?.markerUnknownRx ?? 0n),
    ),
    dot3adAggPortStatsIllegalRx: known(counters?.lacpduIllegalRx),
    dot3adAggPortStatsLACPDUsTx: known(counters?.lacpduTx),
    dot3adAggPortStatsMarkerPDUsTx: known(counters?.markerTx),
    dot3adAggPortStatsMarkerResponsePDUsTx: known(counters?.markerResponseTx),
  }
}

/** The configured one, which the kernel tells to CAP_NET_ADMIN, or the address of the bond when there is none. */
function actorSystem(bond: Link): string {
  const configured = bond.bond?.actorSystem ?? NO_ADDRESS
  return configured === NO_ADDRESS ? (bond.address ?? NO_ADDRESS) : configured
}
