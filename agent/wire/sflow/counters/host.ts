/** Counters of a host as a whole. */

import {
  added,
  c32,
  c64,
  f32,
  list,
  mac,
  oneOf,
  pct,
  struct,
  text,
  u32,
  u64,
  uuid,
  type ValueOf,
} from '../../struct.ts'
import { dataSourceType, ipForwarding, machineType, osName, tcpRtoAlgorithm } from '../enumerations.ts'
import { counterRecord } from '../record.ts'

const HOST = 'host structures (2010)'
const MIB2 = 'sFlow.org structure registry: MIB-II groups'

export const hostDescr = counterRecord(0, 2000, 'host_descr', `${HOST}; uuid without a count (erratum)`, {
  hostname: text('host name, unqualified or fully qualified', 64),
  uuid: uuid('universally unique identifier, zeros if unknown'),
  machine_type: oneOf(machineType, 'processor family'),
  os_name: oneOf(osName, 'operating system'),
  os_release: text('release of the operating system', 32),
})
export type HostDescr = ValueOf<typeof hostDescr>

export const hostAdapters = counterRecord(0, 2001, 'host_adapters', HOST, {
  adapters: list(
    struct({
      ifIndex: u32('interface number, 0 if unknown'),
      mac_address: list(mac('MAC address'), 'addresses of the adapter'),
    }),
    'network adapters',
  ),
})
export type HostAdapters = ValueOf<typeof hostAdapters>

export const hostParent = counterRecord(0, 2002, 'host_parent', HOST, {
  container_type: oneOf(dataSourceType, 'data source type of the container'),
  container_index: u32('data source index of the container'),
})
export type HostParent = ValueOf<typeof hostParent>

export const hostCpu = counterRecord(0, 2003, 'host_cpu', `${HOST}, extended December 2014`, {
  load_one: f32('load average over 1 minute, -1 if unknown'),
  load_five: f32('load average over 5 minutes, -1 if unknown'),
  load_fifteen: f32('load average over 15 minutes, -1 if unknown'),
  proc_run: u32('running processes'),
  proc_total: u32('processes'),
  cpu_num: u32('CPUs'),
  cpu_speed: u32('clock of a CPU', 'MHz'),
  uptime: u32('time since boot', 's'),
  cpu_user: c32('user time of all CPUs', 'ms'),
  cpu_nice: c32('user time at low priority', 'ms'),
  cpu_system: c32('system time', 'ms'),
  cpu_idle: c32('idle time', 'ms'),
  cpu_wio: c32('time waiting for I/O', 'ms'),
  cpu_intr: c32('time in interrupts', 'ms'),
  cpu_sintr: c32('time in soft interrupts', 'ms'),
  interrupts: c32('interrupts'),
  contexts: c32('context switches'),
  cpu_steal: added(c32('time taken by other guests', 'ms')),
  cpu_guest: added(c32('time running guests', 'ms')),
  cpu_guest_nice: added(c32('time running guests at low priority', 'ms')),
})
export type HostCpu = ValueOf<typeof hostCpu>

export const hostMemory = counterRecord(0, 2004, 'host_memory', HOST, {
  mem_total: u64('memory', 'bytes'),
  mem_free: u64('free memory', 'bytes'),
  mem_shared: u64('shared memory', 'bytes'),
  mem_buffers: u64('memory for buffers', 'bytes'),
  mem_cached: u64('memory for the page cache', 'bytes'),
  swap_total: u64('swap space', 'bytes'),
  swap_free: u64('free swap space', 'bytes'),
  page_in: c32('pages read from disk', 'pages'),
  page_out: c32('pages written to disk', 'pages'),
  swap_in: c32('pages swapped in', 'pages'),
  swap_out: c32('pages swapped out', 'pages'),
})
export type HostMemory = ValueOf<typeof hostMemory>

export const hostDiskIo = counterRecord(0, 2005, 'host_disk_io', HOST, {
  disk_total: u64('size of all disks', 'bytes'),
  disk_free: u64('free space', 'bytes'),
  part_max_used: pct('use of the fullest partition'),
  reads: c32('reads', 'operations'),
  bytes_read: c64('bytes read', 'bytes'),
  read_time: c32('time reading', 'ms'),
  writes: c32('writes', 'operations'),
  bytes_written: c64('bytes written', 'bytes'),
  write_time: c32('time writing', 'ms'),
})
export type HostDiskIo = ValueOf<typeof hostDiskIo>

export const hostNetIo = counterRecord(0, 2006, 'host_net_io', HOST, {
  bytes_in: c64('bytes received', 'bytes'),
  pkts_in: c32('packets received', 'packets'),
  errs_in: c32('packets received with errors', 'packets'),
  drops_in: c32('received packets dropped', 'packets'),
  bytes_out: c64('bytes sent', 'bytes'),
  pkts_out: c32('packets sent', 'packets'),
  errs_out: c32('packets not sent because of errors', 'packets'),
  drops_out: c32('packets to send dropped', 'packets'),
})
export type HostNetIo = ValueOf<typeof hostNetIo>

export const mib2IpGroup = counterRecord(0, 2007, 'mib2_ip_group', MIB2, {
  ipForwarding: oneOf(ipForwarding, 'whether the host is a router'),
  ipDefaultTTL: u32('TTL of packets sent'),
  ipInReceives: c32('packets received', 'packets'),
  ipInHdrErrors: c32('… with a bad header', 'packets'),
  ipInAddrErrors: c32('… with an invalid destination', 'packets'),
  ipForwDatagrams: c32('packets forwarded', 'packets'),
  ipInUnknownProtos: c32('packets of an unknown protocol', 'packets'),
  ipInDiscards: c32('received packets discarded', 'packets'),
  ipInDelivers: c32('packets delivered', 'packets'),
  ipOutRequests: c32('packets to send', 'packets'),
  ipOutDiscards: c32('packets to send discarded', 'packets'),
  ipOutNoRoutes: c32('packets without a route', 'packets'),
  ipReasmTimeout: u32('longest wait for fragments', 's'),
  ipReasmReqds: c32('fragments received', 'fragments'),
  ipReasmOKs: c32('packets reassembled', 'packets'),
  ipReasmFails: c32('failed reassemblies'),
  ipFragOKs: c32('packets fragmented', 'packets'),
  ipFragFails: c32('packets that could not be fragmented', 'packets'),
  ipFragCreates: c32('fragments made', 'fragments'),
})
export type Mib2IpGroup = ValueOf<typeof mib2IpGroup>

/** 25 of the 26 objects of the group: there is no icmpInTimestampReps. */
export const mib2IcmpGroup = counterRecord(0, 2008, 'mib2_icmp_group', MIB2, {
  icmpInMsgs: c32('messages received', 'messages'),
  icmpInErrors: c32('… with errors', 'messages'),
  icmpInDestUnreachs: c32('destination unreachable received', 'messages'),
  icmpInTimeExcds: c32('time exceeded received', 'messages'),
  icmpInParamProbs: c32('parameter problem received', 'messages'),
  icmpInSrcQuenchs: c32('source quench received', 'messages'),
  icmpInRedirects: c32('redirect received', 'messages'),
  icmpInEchos: c32('echo request received', 'messages'),
  icmpInEchoReps: c32('echo reply received', 'messages'),
  icmpInTimestamps: c32('timestamp request received', 'messages'),
  icmpInAddrMasks: c32('address mask request received', 'messages'),
  icmpInAddrMaskReps: c32('address mask reply received', 'messages'),
  icmpOutMsgs: c32('messages sent', 'messages'),
  icmpOutErrors: c32('messages not sent', 'messages'),
  icmpOutDestUnreachs: c32('destination unreachable sent', 'messages'),
  icmpOutTimeExcds: c32('time exceeded sent', 'messages'),
  icmpOutParamProbs: c32('parameter problem sent', 'messages'),
  icmpOutSrcQuenchs: c32('source quench sent', 'messages'),
  icmpOutRedirects: c32('redirect sent', 'messages'),
  icmpOutEchos: c32('echo request sent', 'messages'),
  icmpOutEchoReps: c32('echo reply sent', 'messages'),
  icmpOutTimestamps: c32('timestamp request sent', 'messages'),
  icmpOutTimestampReps: c32('timestamp reply sent', 'messages'),
  icmpOutAddrMasks: c32('address mask request sent', 'messages'),
  icmpOutAddrMaskReps: c32('address mask reply sent', 'messages'),
})
export type Mib2IcmpGroup = ValueOf<typeof mib2IcmpGroup>

export const mib2TcpGroup = counterRecord(0, 2009, 'mib2_tcp_group', MIB2, {
  tcpRtoAlgorithm: oneOf(tcpRtoAlgorithm, 'how the retransmission timeout is found'),
  tcpRtoMin: u32('least retransmission timeout', 'ms'),
  tcpRtoMax: u32('greatest retransmission timeout', 'ms'),
  tcpMaxConn: u32('greatest number of connections, all ones if not limited'),
  tcpActiveOpens: c32('connections opened', 'connections'),
  tcpPassiveOpens: c32('connections accepted', 'connections'),
  tcpAttemptFails: c32('failed attempts to connect'),
  tcpEstabResets: c32('connections reset', 'connections'),
  tcpCurrEstab: u32('connections now', 'connections'),
  tcpInSegs: c32('segments received', 'segments'),
  tcpOutSegs: c32('segments sent', 'segments'),
  tcpRetransSegs: c32('segments sent again', 'segments'),
  tcpInErrs: c32('segments received with errors', 'segments'),
  tcpOutRsts: c32('segments sent with RST', 'segments'),
  tcpInCsumErrors: c32('segments received with a bad checksum', 'segments'),
})
export type Mib2TcpGroup = ValueOf<typeof mib2TcpGroup>

export const mib2UdpGroup = counterRecord(0, 2010, 'mib2_udp_group', MIB2, {
  udpInDatagrams: c32('datagrams received', 'datagrams'),
  udpNoPorts: c32('datagrams for a port without a listener', 'datagrams'),
  udpInErrors: c32('datagrams not delivered for another reason', 'datagrams'),
  udpOutDatagrams: c32('datagrams sent', 'datagrams'),
  udpRcvbufErrors: c32('datagrams that found the receive buffer full', 'datagrams'),
  udpSndbufErrors: c32('datagrams that found the send buffer full', 'datagrams'),
  udpInCsumErrors: c32('datagrams with a bad checksum', 'datagrams'),
})
export type Mib2UdpGroup = ValueOf<typeof mib2UdpGroup>
