/**
 * Statistics of a driver by names of its own (include/uapi/linux/ethtool.h): requests of the ioctl SIOCETHTOOL, and what
 * the names stand for. This is all that drivers without the standard statistics of netlink have.
 *
 *     ethtool_drvinfo   cmd u32 · driver 32 · version 32 · firmware 32 · bus 32 · erom 32 · reserved 12 ·
 *                       n_priv_flags u32 · n_stats u32 · testinfo_len u32 · eedump_len u32 · regdump_len u32
 *     ethtool_gstrings  cmd u32 · string_set u32 · len u32 · len names of 32 bytes
 *     ethtool_stats     cmd u32 · n_stats u32 · n_stats counters u64
 */
import type { EthernetMacStats, EthernetPhyStats } from './netlink/ethtool.ts'

/** The ioctl request that carries them all. */
export const SIOCETHTOOL = 0x8946

const COMMAND = { driverInfo: 3, strings: 0x1b, statistics: 0x1d } as const
const ETH_SS_STATS = 1
const DRIVER_INFO_BYTES = 196
const DRIVER_INFO_STATISTICS = 180
const STRINGS_HEADER = 12
const STRING_BYTES = 32
const STATISTICS_HEADER = 8
/** More would be nonsense: large devices have some thousands, a few for each queue. */
const MOST_STATISTICS = 65_536

export function driverInfoRequest(): Uint8Array<ArrayBuffer> {
  return request(COMMAND.driverInfo, DRIVER_INFO_BYTES)
}

/** How many statistics there are; 0 when the driver has none, or answers nonsense. */
export function readStatisticsCount(bytes: Uint8Array): number {
  const count = viewOf(bytes).getUint32(DRIVER_INFO_STATISTICS, true)
  return count <= MOST_STATISTICS ? count : 0
}

export function namesRequest(count: number): Uint8Array<ArrayBuffer> {
  const bytes = request(COMMAND.strings, STRINGS_HEADER + count * STRING_BYTES)
  viewOf(bytes).setUint32(4, ETH_SS_STATS, true)
  viewOf(bytes).setUint32(8, count, true)
  return bytes
}

/** The names in their order, without blanks around them. */
export function readNames(bytes: Uint8Array): string[] {
  const room = Math.floor((bytes.length - STRINGS_HEADER) / STRING_BYTES)
  const count = Math.min(viewOf(bytes).getUint32(8, true), room)
  const names: string[] = []
  for (let i = 0; i < count; i++) {
    const name = bytes.subarray(STRINGS_HEADER + i * STRING_BYTES, STRINGS_HEADER + (i + 1) * STRING_BYTES)
    const nul = name.indexOf(0)
    names.push(latin1.decode(nul < 0 ? name : name.subarray(0, nul)).trim())
  }
  return names
}

const latin1 = new TextDecoder('latin1')

export function countersRequest(count: number): Uint8Array<ArrayBuffer> {
  const bytes = request(COMMAND.statistics, STATISTICS_HEADER + count * 8)
  viewOf(bytes).setUint32(4, count, true)
  return bytes
}

/** Undefined when the driver has another number of statistics by now, so that the names are no longer right. */
export function readCounters(bytes: Uint8Array, count: number): DataView | undefined {
  const view = viewOf(bytes)
  if (view.getUint32(4, true) !== count) return undefined
  return new DataView(bytes.buffer, bytes.byteOffset + STATISTICS_HEADER, count * 8)
}

function request(command: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  viewOf(bytes).setUint32(0, command, true)
  return bytes
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

type Names<Stats> = { readonly [K in keyof Stats]?: readonly string[] }

/**
 * What drivers call the statistics of IEEE 802.3: each by the names it has in one driver or another, the better one first
 * where a driver has several. A name that means different things in different drivers is not here.
 */
const MAC_NAMES: Names<EthernetMacStats> = {
  singleCollisionFrames: [
    'tx_single_coll_ok', // e1000, e1000e, igb, igc
    'tx_single_collisions', // tg3, bnx2x, r8169
    'tx_single_coll_frames', // bnxt
  ],
  multipleCollisionFrames: [
    'tx_multi_coll_ok',
    'tx_mult_collisions', // tg3
    'tx_multi_collisions', // bnx2x, r8169
    'tx_multi_coll_frames',
  ],
  frameCheckSequenceErrors: [
    'a_frame_check_sequence_errors', // mlxsw
    'rx_crc_errors_phy', // mlx5
    'rx_crc_errors', // ixgbe, e1000e, igb, bnx2x, mlx4, qede
    'rx_crc_errors.nic', // ice
    'port.rx_crc_errors', // i40e
    'rx_fcs_err_frames', // bnxt
    'rx_fcs_errors', // tg3, cxgb4
    'bad_crc', // prestera
  ],
  alignmentErrors: [
    'a_alignment_errors',
    'rx_align_errors', // e1000e, igb, tg3, bnx2x, qede
    'rx_align_err_frames', // bnxt
    'align_errors', // r8169
  ],
  framesWithDeferredTransmissions: [
    'tx_deferred_ok', // e1000e, igb
    'tx_deferred', // tg3, bnx2x
    'tx_single_dfrl_frames', // bnxt
  ],
  lateCollisions: [
    'tx_abort_late_coll', // e1000e, igb
    'tx_late_collisions', // tg3, bnx2x
    'tx_late_coll_frames', // bnxt
    'late_collision', // prestera
  ],
  framesAbortedDueToExcessiveCollisions: [
    'tx_excessive_collisions', // tg3
    'tx_excess_collisions', // bnx2x
    'tx_excessive_coll_frames', // bnxt
    'excessive_collision', // prestera
  ],
  framesLostDueToInternalTransmitError: [
    'tx_mac_errors', // bnx2x
    'tx_internal_mac_errors',
  ],
  carrierSenseErrors: [
    'tx_carrier_sense_errors', // tg3
    'tx_carrier_errors', // e1000e, igb, bnx2x
  ],
  frameTooLongErrors: [
    'a_frame_too_long_errors', // mlxsw
    'rx_oversize_pkts_phy', // mlx5
    'rx_frame_too_long_errors', // tg3
    'rx_long_length_errors', // ixgbe, e1000e, igb
    'rx_oversize.nic', // ice
    'port.rx_oversize', // i40e
    'rx_ovrsz_frames', // bnxt
    'rx_oversize_packets', // bnx2x, qede
    'oversize_pkts_received', // prestera
  ],
  framesLostDueToInternalReceiveError: ['rx_internal_mac_errors'],
  multicastFramesReceivedOk: [
    'a_multicast_frames_received_ok', // mlxsw
    'rx_vport_multicast_packets', // mlx5: of this interface, not of the virtual functions beside it
    'rx_multicast', // e1000e, igb, iavf
    'rx_multicast.nic', // ice
    'port.rx_multicast', // i40e
    'rx_mcast_frames', // bnxt
    'rx_mcast_packets', // tg3, bnx2x
    'rx_mcast_pkts', // qede
    'rx_multicast_frames', // cxgb4
    'multicast_frames_received', // prestera
    'InMCast', // atlantic
    'HwIfInMcastPkts', // Cumulus Linux
  ],
  broadcastFramesReceivedOk: [
    'a_broadcast_frames_received_ok',
    'rx_vport_broadcast_packets',
    'rx_broadcast',
    'rx_broadcast.nic',
    'port.rx_broadcast',
    'rx_bcast_frames',
    'rx_bcast_packets',
    'rx_bcast_pkts',
    'rx_broadcast_frames',
    'broadcast_frames_received',
    'InBCast',
    'HwIfInBcastPkts',
    'broadcast', // ixgbe, r8169
  ],
  multicastFramesTransmittedOk: [
    'a_multicast_frames_xmitted_ok',
    'tx_vport_multicast_packets',
    'tx_multicast',
    'tx_multicast.nic',
    'port.tx_multicast',
    'tx_mcast_frames',
    'tx_mcast_packets',
    'tx_mcast_pkts',
    'tx_multicast_frames',
    'multicast_frames_sent',
    'OutMCast',
    'HwIfOutMcastPkts',
  ],
  broadcastFramesTransmittedOk: [
    'a_broadcast_frames_xmitted_ok',
    'tx_vport_broadcast_packets',
    'tx_broadcast',
    'tx_broadcast.nic',
    'port.tx_broadcast',
    'tx_bcast_frames',
    'tx_bcast_packets',
    'tx_bcast_pkts',
    'tx_broadcast_frames',
    'broadcast_frames_sent',
    'OutBCast',
    'HwIfOutBcastPkts',
  ],
}

const PHY_NAMES: Names<EthernetPhyStats> = {
  symbolErrorsDuringCarrier: [
    'a_symbol_error_during_carrier', // mlxsw
    'rx_symbol_err_phy', // mlx5
    'rx_symbol_errors',
  ],
}

/** Where in a driver's list each statistic is. */
export interface StatisticsPlaces {
  /** Of all statistics, those not known included. */
  readonly count: number
  readonly mac: ReadonlyMap<keyof EthernetMacStats, number>
  readonly phy: ReadonlyMap<keyof EthernetPhyStats, number>
}

export function placesOf(names: readonly string[]): StatisticsPlaces {
  const indexes = new Map(names.map((name, index) => [name, index]))
  return {
    count: names.length,
    mac: placesIn(indexes, MAC_NAMES),
    phy: placesIn(indexes, PHY_NAMES),
  }
}

function placesIn<Stats>(
  indexes: ReadonlyMap<string, number>,
  names: Names<Stats>,
): Map<keyof Stats, number> {
  const places = new Map<keyof Stats, number>()
  for (const [statistic, candidates] of Object.entries(names) as [keyof Stats, readonly string[]][]) {
    const name = candidates.find(candidate => indexes.has(candidate))
    if (name !== undefined) places.set(statistic, indexes.get(name)!)
  }
  return places
}

/** The statistics at these places among a driver's counters. */
export function statisticsAt<Stats>(
  places: ReadonlyMap<keyof Stats, number>,
  counters: DataView,
): { readonly [K in keyof Stats]?: bigint } {
  const stats: { [K in keyof Stats]?: bigint } = {}
  for (const [name, index] of places) stats[name] = counters.getBigUint64(8 * index, true)
  return stats
}
