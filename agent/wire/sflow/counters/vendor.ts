/** Counters under the enterprise numbers of vendors. */

import { c32, list, pct, u32, u64, type ValueOf } from '../../struct.ts'
import { counterRecord } from '../record.ts'

const BROADCOM = 'Broadcom structures, sFlow.org structure registry'
const NVIDIA = 'NVIDIA structures, sFlow.org structure registry'

/** Peaks since the last export. */
export const bstDeviceBuffers = counterRecord(4413, 1, 'bst_device_buffers', BROADCOM, {
  unicast: pct('unicast buffers in use'),
  multicast: pct('multicast buffers in use'),
})
export type BstDeviceBuffers = ValueOf<typeof bstDeviceBuffers>

/** Peaks since the last export. */
export const bstPortBuffers = counterRecord(4413, 2, 'bst_port_buffers', BROADCOM, {
  ingress_uc: pct('ingress unicast buffers in use'),
  ingress_mc: pct('ingress multicast buffers in use'),
  egress_uc: pct('egress unicast buffers in use'),
  egress_mc: pct('egress multicast buffers in use'),
  egress_queue_uc: list(pct('buffers in use'), 'unicast, for each egress queue', 8),
  egress_queue_mc: list(pct('buffers in use'), 'multicast, for each egress queue', 8),
})
export type BstPortBuffers = ValueOf<typeof bstPortBuffers>

export const hwTables = counterRecord(4413, 3, 'hw_tables', BROADCOM, {
  host_entries: u32('hosts'),
  host_entries_max: u32('room for hosts'),
  ipv4_entries: u32('IPv4 entries'),
  ipv4_entries_max: u32('room for IPv4 entries'),
  ipv6_entries: u32('IPv6 entries'),
  ipv6_entries_max: u32('room for IPv6 entries'),
  ipv4_ipv6_entries: u32('IPv4 and IPv6 entries'),
  ipv4_ipv6_entries_max: u32('room for IPv4 and IPv6 entries'),
  long_ipv6_entries: u32('long IPv6 entries'),
  long_ipv6_entries_max: u32('room for long IPv6 entries'),
  total_routes: u32('routes'),
  total_routes_max: u32('room for routes'),
  ecmp_nexthops: u32('ECMP next hops'),
  ecmp_nexthops_max: u32('room for ECMP next hops'),
  mac_entries: u32('MAC addresses'),
  mac_entries_max: u32('room for MAC addresses'),
  ipv4_neighbors: u32('IPv4 neighbours'),
  ipv6_neighbors: u32('IPv6 neighbours'),
  ipv4_routes: u32('IPv4 routes'),
  ipv6_routes: u32('IPv6 routes'),
  acl_ingress_entries: u32('ingress ACL entries'),
  acl_ingress_entries_max: u32('room for ingress ACL entries'),
  acl_ingress_counters: u32('ingress ACL counters'),
  acl_ingress_counters_max: u32('room for ingress ACL counters'),
  acl_ingress_meters: u32('ingress ACL meters'),
  acl_ingress_meters_max: u32('room for ingress ACL meters'),
  acl_ingress_slices: u32('ingress ACL slices'),
  acl_ingress_slices_max: u32('room for ingress ACL slices'),
  acl_egress_entries: u32('egress ACL entries'),
  acl_egress_entries_max: u32('room for egress ACL entries'),
  acl_egress_counters: u32('egress ACL counters'),
  acl_egress_counters_max: u32('room for egress ACL counters'),
  acl_egress_meters: u32('egress ACL meters'),
  acl_egress_meters_max: u32('room for egress ACL meters'),
  acl_egress_slices: u32('egress ACL slices'),
  acl_egress_slices_max: u32('room for egress ACL slices'),
})
export type HwTables = ValueOf<typeof hwTables>

/** Sums over all devices, unless stated otherwise. */
export const nvidiaGpu = counterRecord(5703, 1, 'nvidia_gpu', NVIDIA, {
  device_count: u32('devices'),
  processes: u32('processes'),
  gpu_time: c32('time a kernel was running', 'ms'),
  mem_time: c32('time memory was in use', 'ms'),
  mem_total: u64('memory', 'bytes'),
  mem_free: u64('free memory', 'bytes'),
  ecc_errors: c32('uncorrected memory errors'),
  energy: c32('energy used', 'mJ'),
  temperature: u32('temperature of the hottest device', '°C'),
  fan_speed: u32('speed of the fastest fan', '%'),
})
export type NvidiaGpu = ValueOf<typeof nvidiaGpu>
