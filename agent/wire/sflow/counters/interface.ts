/** Counters of interfaces and of the device they belong to. */

import {
  c32,
  c64,
  fixedOpaque,
  i32,
  list,
  mac,
  oneOf,
  pct,
  struct,
  text,
  u32,
  u64,
  type ValueOf,
} from '../../struct.ts'
import { ifDirection, ifStatus, ifType } from '../enumerations.ts'
import { counterRecord } from '../record.ts'

const SFLOW_V5 = 'sFlow v5 (2004) §5'
const REGISTRY = 'sFlow.org structure registry'

export const ifCounters = counterRecord(0, 1, 'if_counters', SFLOW_V5, {
  ifIndex: u32('interface number'),
  ifType: oneOf(ifType, 'IANA interface type'),
  ifSpeed: u64('speed, 0 if unknown', 'bit/s'),
  ifDirection: oneOf(ifDirection, 'duplex mode'),
  ifStatus: oneOf(ifStatus, 'bit 0: administratively up, bit 1: operationally up'),
  ifInOctets: c64('octets received', 'bytes'),
  ifInUcastPkts: c32('packets received, neither multicast nor broadcast', 'packets'),
  ifInMulticastPkts: c32('multicast packets received', 'packets'),
  ifInBroadcastPkts: c32('broadcast packets received', 'packets'),
  ifInDiscards: c32('received packets discarded without an error', 'packets'),
  ifInErrors: c32('received packets with errors', 'packets'),
  ifInUnknownProtos: c32('received packets of a protocol without a handler', 'packets'),
  ifOutOctets: c64('octets sent', 'bytes'),
  ifOutUcastPkts: c32('packets sent, neither multicast nor broadcast', 'packets'),
  ifOutMulticastPkts: c32('multicast packets sent', 'packets'),
  ifOutBroadcastPkts: c32('broadcast packets sent', 'packets'),
  ifOutDiscards: c32('packets to send discarded without an error', 'packets'),
  ifOutErrors: c32('packets not sent because of errors', 'packets'),
  ifPromiscuousMode: u32('1 in promiscuous mode, else 0 or 2'),
})
export type IfCounters = ValueOf<typeof ifCounters>

export const ethernetCounters = counterRecord(0, 2, 'ethernet_counters', SFLOW_V5, {
  dot3StatsAlignmentErrors: c32('frames of a broken octet count with a wrong FCS', 'frames'),
  dot3StatsFCSErrors: c32('frames with a wrong FCS', 'frames'),
  dot3StatsSingleCollisionFrames: c32('frames sent after one collision', 'frames'),
  dot3StatsMultipleCollisionFrames: c32('frames sent after several collisions', 'frames'),
  dot3StatsSQETestErrors: c32('signal quality errors'),
  dot3StatsDeferredTransmissions: c32('frames whose first attempt was delayed', 'frames'),
  dot3StatsLateCollisions: c32('collisions later than one slot time'),
  dot3StatsExcessiveCollisions: c32('frames given up after too many collisions', 'frames'),
  dot3StatsInternalMacTransmitErrors: c32('frames not sent because of a MAC error', 'frames'),
  dot3StatsCarrierSenseErrors: c32('carrier lost while sending'),
  dot3StatsFrameTooLongs: c32('frames received that were too long', 'frames'),
  dot3StatsInternalMacReceiveErrors: c32('frames not received because of a MAC error', 'frames'),
  dot3StatsSymbolErrors: c32('invalid data symbols'),
})
export type EthernetCounters = ValueOf<typeof ethernetCounters>

export const tokenringCounters = counterRecord(0, 3, 'tokenring_counters', SFLOW_V5, {
  dot5StatsLineErrors: c32('line errors'),
  dot5StatsBurstErrors: c32('burst errors'),
  dot5StatsACErrors: c32('address recognised and frame copied errors'),
  dot5StatsAbortTransErrors: c32('aborted transmissions'),
  dot5StatsInternalErrors: c32('internal errors'),
  dot5StatsLostFrameErrors: c32('lost frames'),
  dot5StatsReceiveCongestions: c32('frames received without a buffer'),
  dot5StatsFrameCopiedErrors: c32('frames copied by another station'),
  dot5StatsTokenErrors: c32('token errors'),
  dot5StatsSoftErrors: c32('soft errors'),
  dot5StatsHardErrors: c32('hard errors'),
  dot5StatsSignalLoss: c32('losses of signal'),
  dot5StatsTransmitBeacons: c32('beacons sent'),
  dot5StatsRecoverys: c32('claim token frames'),
  dot5StatsLobeWires: c32('open or short circuits'),
  dot5StatsRemoves: c32('remove ring station frames received'),
  dot5StatsSingles: c32('times alone on the ring'),
  dot5StatsFreqErrors: c32('frequency errors'),
})
export type TokenringCounters = ValueOf<typeof tokenringCounters>

export const vgCounters = counterRecord(0, 4, 'vg_counters', SFLOW_V5, {
  dot12InHighPriorityFrames: c32('high priority frames received', 'frames'),
  dot12InHighPriorityOctets: c64('octets in them', 'bytes'),
  dot12InNormPriorityFrames: c32('normal priority frames received', 'frames'),
  dot12InNormPriorityOctets: c64('octets in them', 'bytes'),
  dot12InIPMErrors: c32('frames with an invalid packet marker', 'frames'),
  dot12InOversizeFrameErrors: c32('frames too long', 'frames'),
  dot12InDataErrors: c32('frames with data errors', 'frames'),
  dot12InNullAddressedFrames: c32('frames to the null address', 'frames'),
  dot12OutHighPriorityFrames: c32('high priority frames sent', 'frames'),
  dot12OutHighPriorityOctets: c64('octets in them', 'bytes'),
  dot12TransitionIntoTrainings: c32('times the port entered training'),
  dot12HCInHighPriorityOctets: c64('high priority octets received', 'bytes'),
  dot12HCInNormPriorityOctets: c64('normal priority octets received', 'bytes'),
  dot12HCOutHighPriorityOctets: c64('high priority octets sent', 'bytes'),
})
export type VgCounters = ValueOf<typeof vgCounters>

export const vlanCounters = counterRecord(0, 5, 'vlan_counters', SFLOW_V5, {
  vlan_id: u32('VLAN number'),
  octets: c64('octets', 'bytes'),
  ucastPkts: c32('unicast packets', 'packets'),
  multicastPkts: c32('multicast packets', 'packets'),
  broadcastPkts: c32('broadcast packets', 'packets'),
  discards: c32('packets discarded', 'packets'),
})
export type VlanCounters = ValueOf<typeof vlanCounters>

export const ieee80211Counters = counterRecord(0, 6, 'ieee80211_counters', '802.11 structures (2007)', {
  dot11TransmittedFragmentCount: c32('fragments acknowledged or sent to a group', 'fragments'),
  dot11MulticastTransmittedFrameCount: c32('group frames sent', 'frames'),
  dot11FailedCount: c32('frames given up after all retries', 'frames'),
  dot11RetryCount: c32('frames sent after retries', 'frames'),
  dot11MultipleRetryCount: c32('frames sent after more than one retry', 'frames'),
  dot11FrameDuplicateCount: c32('duplicate frames received', 'frames'),
  dot11RTSSuccessCount: c32('RTS answered by CTS', 'frames'),
  dot11RTSFailureCount: c32('RTS not answered by CTS', 'frames'),
  dot11ACKFailureCount: c32('expected ACKs that did not come', 'frames'),
  dot11ReceivedFragmentCount: c32('fragments received', 'fragments'),
  dot11MulticastReceivedFrameCount: c32('group frames received', 'frames'),
  dot11FCSErrorCount: c32('frames with a wrong FCS', 'frames'),
  dot11TransmittedFrameCount: c32('frames sent', 'frames'),
  dot11WEPUndecryptableCount: c32('frames that could not be decrypted', 'frames'),
  dot11QoSDiscardedFragmentCount: c32('QoS fragments discarded', 'fragments'),
  dot11AssociatedStationCount: u32('stations associated now', 'stations'),
  dot11QoSCFPollsReceivedCount: c32('QoS polls received', 'frames'),
  dot11QoSCFPollsUnusedCount: c32('QoS polls not used', 'frames'),
  dot11QoSCFPollsUnusableCount: c32('QoS polls that could not be used', 'frames'),
  dot11QoSCFPollsLostCount: c32('QoS polls lost', 'frames'),
})
export type Ieee80211Counters = ValueOf<typeof ieee80211Counters>

export const lagPortStats = counterRecord(0, 7, 'lag_port_stats', 'LAG counters (2012)', {
  dot3adAggPortActorSystemID: mac('system of this side'),
  dot3adAggPortPartnerOperSystemID: mac('system of the other side'),
  dot3adAggPortAttachedAggID: u32('ifIndex of the aggregate'),
  dot3adAggPortState: fixedOpaque(
    4,
    'state bytes: actor admin, actor oper, partner admin, partner oper; in each, from the lowest bit: ' +
      'activity, timeout, aggregation, synchronisation, collecting, distributing, defaulted, expired',
  ),
  dot3adAggPortStatsLACPDUsRx: c32('LACPDUs received', 'frames'),
  dot3adAggPortStatsMarkerPDUsRx: c32('marker PDUs received', 'frames'),
  dot3adAggPortStatsMarkerResponsePDUsRx: c32('marker response PDUs received', 'frames'),
  dot3adAggPortStatsUnknownRx: c32('frames of an unknown slow protocol', 'frames'),
  dot3adAggPortStatsIllegalRx: c32('malformed frames', 'frames'),
  dot3adAggPortStatsLACPDUsTx: c32('LACPDUs sent', 'frames'),
  dot3adAggPortStatsMarkerPDUsTx: c32('marker PDUs sent', 'frames'),
  dot3adAggPortStatsMarkerResponsePDUsTx: c32('marker response PDUs sent', 'frames'),
})
export type LagPortStats = ValueOf<typeof lagPortStats>

export const slowPathCounts = counterRecord(0, 8, 'slow_path_counts', REGISTRY, {
  unknown: c32('packets that took the slow path, reason unknown', 'packets'),
  other: c32('… for another reason', 'packets'),
  cam_miss: c32('… because a table had no entry', 'packets'),
  cam_full: c32('… because a table was full', 'packets'),
  no_hw_support: c32('… because hardware cannot forward them', 'packets'),
  cntrl: c32('… because they are control packets', 'packets'),
})
export type SlowPathCounts = ValueOf<typeof slowPathCounts>

export const ibCounters = counterRecord(0, 9, 'ib_counters', 'InfiniBand structures', {
  portXmitPkts: c64('packets sent', 'packets'),
  portRcvPkts: c64('packets received', 'packets'),
  symbolErrorCounter: c32('symbol errors'),
  linkErrorRecoveryCounter: c32('link error recoveries'),
  linkDownedCounter: c32('failed link recoveries'),
  portRcvErrors: c32('packets received with errors', 'packets'),
  portRcvRemotePhysicalErrors: c32('packets received marked bad', 'packets'),
  portRcvSwitchRelayErrors: c32('packets the switch could not forward', 'packets'),
  portXmitDiscards: c32('packets not sent', 'packets'),
  portXmitConstraintErrors: c32('packets not sent because of a constraint', 'packets'),
  portRcvConstraintErrors: c32('packets refused because of a constraint', 'packets'),
  localLinkIntegrityErrors: c32('local link integrity errors'),
  excessiveBufferOverrunErrors: c32('buffer overruns'),
  VL15Dropped: c32('management packets dropped', 'packets'),
})
export type IbCounters = ValueOf<typeof ibCounters>

export const sfp = counterRecord(0, 10, 'sfp', 'optical interface structures', {
  module_id: u32('number of the module'),
  module_num_lanes: u32('physical lanes of the module'),
  module_supply_voltage: u32('supply voltage', 'mV'),
  module_temperature: i32('temperature', '0.001 °C'),
  lanes: list(
    struct({
      lane_index: u32('number of the lane from 1, 0 if unknown'),
      tx_bias_current: u32('laser bias current', 'µA'),
      tx_power: u32('power sent', 'µW'),
      tx_power_min: u32('lower limit', 'µW'),
      tx_power_max: u32('upper limit', 'µW'),
      tx_wavelength: u32('wavelength sent', 'nm'),
      rx_power: u32('power received', 'µW'),
      rx_power_min: u32('lower limit', 'µW'),
      rx_power_max: u32('upper limit', 'µW'),
      rx_wavelength: u32('wavelength received', 'nm'),
    }),
    'the lanes of this interface; fewer than the module has on a break-out port',
  ),
})
export type Sfp = ValueOf<typeof sfp>

export const pfc = counterRecord(0, 11, 'pfc', 'priority flow control draft 0.3 (March 2026)', {
  requests: c32('pause frames sent', 'frames'),
  indications: c32('pause frames received', 'frames'),
  pause_duration: c32('time paused', 'µs'),
  storm_detected: c32('pause storms that began'),
  storm_restored: c32('pause storms that ended'),
})
export type Pfc = ValueOf<typeof pfc>

export const processor = counterRecord(0, 1001, 'processor', SFLOW_V5, {
  cpu_5s: pct('CPU use over 5 seconds'),
  cpu_1m: pct('CPU use over 1 minute'),
  cpu_5m: pct('CPU use over 5 minutes'),
  total_memory: u64('memory', 'bytes'),
  free_memory: u64('free memory', 'bytes'),
})
export type Processor = ValueOf<typeof processor>

export const radioUtilization = counterRecord(0, 1002, 'radio_utilization', '802.11 structures (2007)', {
  elapsed_time: u32('time observed', 'ms'),
  on_channel_time: u32('time on the assigned channel', 'ms'),
  on_channel_busy_time: u32('time busy on that channel', 'ms'),
})
export type RadioUtilization = ValueOf<typeof radioUtilization>

export const queueLength = counterRecord(0, 1003, 'queue_length', 'queue length structures', {
  queueIndex: u32('queue; one record for each'),
  segmentSize: u32('size of a segment', 'bytes'),
  queueSegments: u32('segments the queue can hold', 'segments'),
  queueLength0: c32('packets that found the queue empty', 'packets'),
  queueLength1: c32('packets that found 1 segment', 'packets'),
  queueLength2: c32('packets that found 2 segments', 'packets'),
  queueLength4: c32('packets that found 3 to 4 segments', 'packets'),
  queueLength8: c32('packets that found 5 to 8 segments', 'packets'),
  queueLength32: c32('packets that found 9 to 32 segments', 'packets'),
  queueLength128: c32('packets that found 33 to 128 segments', 'packets'),
  queueLength1024: c32('packets that found 129 to 1024 segments', 'packets'),
  queueLengthMore: c32('packets that found more', 'packets'),
  dropped: c32('packets dropped', 'packets'),
})
export type QueueLength = ValueOf<typeof queueLength>

export const ofPort = counterRecord(0, 1004, 'of_port', 'OpenFlow structures (2014)', {
  datapath_id: u64('OpenFlow datapath'),
  port_no: u32('OpenFlow port; reserved ports numbered as in OpenFlow 1.1'),
})
export type OfPort = ValueOf<typeof ofPort>

export const portName = counterRecord(0, 1005, 'port_name', 'OpenFlow structures (2014)', {
  name: text('ifName of the interface', 255),
})
export type PortName = ValueOf<typeof portName>
