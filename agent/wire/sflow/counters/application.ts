/** Counters of applications and services. */

import { c32, text, u32, u64, type ValueOf } from '../../struct.ts'
import { applicationStatus } from '../enumerations.ts'
import { counterRecord } from '../record.ts'

const APPLICATION = 'application structures (2012)'
const HTTP = 'HTTP structures (2011)'
const MEMCACHE = 'memcache structures'
const REGISTRY = 'sFlow.org structure registry'

/** Deprecated in favour of memcache_counters (0:2204). */
export const memcachedCounters = counterRecord(0, 2200, 'memcached_counters', MEMCACHE, {
  uptime: u32('time since the start', 's'),
  rusage_user: u32('user time', 'ms'),
  rusage_system: u32('system time', 'ms'),
  curr_connections: u32('open connections'),
  total_connections: u32('connections accepted'),
  connection_structures: u32('connection structures allocated'),
  cmd_get: u32('get commands'),
  cmd_set: u32('set commands'),
  cmd_flush: u32('flush commands'),
  get_hits: u32('get of a key that was there'),
  get_misses: u32('get of a key that was not'),
  delete_misses: u32('delete of a key that was not there'),
  delete_hits: u32('delete of a key that was'),
  incr_misses: u32('increment of a key that was not there'),
  incr_hits: u32('increment of a key that was'),
  decr_misses: u32('decrement of a key that was not there'),
  decr_hits: u32('decrement of a key that was'),
  cas_misses: u32('compare and set of a key that was not there'),
  cas_hits: u32('compare and set of a key that was'),
  cas_badval: u32('compare and set of another value'),
  auth_cmds: u32('authentications'),
  auth_errors: u32('failed authentications'),
  bytes_read: u64('bytes received', 'bytes'),
  bytes_written: u64('bytes sent', 'bytes'),
  limit_maxbytes: u32('memory allowed', 'bytes'),
  accepting_conns: u32('whether connections are accepted'),
  listen_disabled_num: u32('times the connection limit was reached'),
  threads: u32('worker threads'),
  conn_yields: u32('connections that had to wait for others'),
  bytes: u64('bytes stored', 'bytes'),
  curr_items: u32('items stored'),
  total_items: u32('items ever stored'),
  evictions: u32('items removed for lack of memory'),
})
export type MemcachedCounters = ValueOf<typeof memcachedCounters>

export const httpCounters = counterRecord(0, 2201, 'http_counters', HTTP, {
  method_option_count: c32('OPTIONS requests', 'requests'),
  method_get_count: c32('GET requests', 'requests'),
  method_head_count: c32('HEAD requests', 'requests'),
  method_post_count: c32('POST requests', 'requests'),
  method_put_count: c32('PUT requests', 'requests'),
  method_delete_count: c32('DELETE requests', 'requests'),
  method_trace_count: c32('TRACE requests', 'requests'),
  method_connect_count: c32('CONNECT requests', 'requests'),
  method_other_count: c32('other requests', 'requests'),
  status_1XX_count: c32('answers with status 100 to 199', 'answers'),
  status_2XX_count: c32('answers with status 200 to 299', 'answers'),
  status_3XX_count: c32('answers with status 300 to 399', 'answers'),
  status_4XX_count: c32('answers with status 400 to 499', 'answers'),
  status_5XX_count: c32('answers with status 500 to 599', 'answers'),
  status_other_count: c32('answers with another status', 'answers'),
})
export type HttpCounters = ValueOf<typeof httpCounters>

const outcome = (code: number) =>
  c32(`operations that ended with status ${applicationStatus[code]}`, 'operations')

export const appOperations = counterRecord(0, 2202, 'app_operations', APPLICATION, {
  application: text('name of the application', 32),
  success: outcome(0),
  other: outcome(1),
  timeout: outcome(2),
  internal_error: outcome(3),
  bad_request: outcome(4),
  forbidden: outcome(5),
  too_large: outcome(6),
  not_implemented: outcome(7),
  not_found: outcome(8),
  unavailable: outcome(9),
  unauthorized: outcome(10),
})
export type AppOperations = ValueOf<typeof appOperations>

export const appResources = counterRecord(0, 2203, 'app_resources', APPLICATION, {
  user_time: c32('user time', 'ms'),
  system_time: c32('system time', 'ms'),
  mem_used: u64('memory in use', 'bytes'),
  mem_max: u64('memory allowed', 'bytes'),
  fd_open: u32('open files', 'files'),
  fd_max: u32('most open files allowed', 'files'),
  conn_open: u32('open connections', 'connections'),
  conn_max: u32('most connections allowed', 'connections'),
})
export type AppResources = ValueOf<typeof appResources>

export const memcacheCounters = counterRecord(0, 2204, 'memcache_counters', MEMCACHE, {
  cmd_set: u32('set commands'),
  cmd_touch: u32('touch commands'),
  cmd_flush: u32('flush commands'),
  get_hits: u32('get of a key that was there'),
  get_misses: u32('get of a key that was not'),
  delete_hits: u32('delete of a key that was there'),
  delete_misses: u32('delete of a key that was not'),
  incr_hits: u32('increment of a key that was there'),
  incr_misses: u32('increment of a key that was not'),
  decr_hits: u32('decrement of a key that was there'),
  decr_misses: u32('decrement of a key that was not'),
  cas_hits: u32('compare and set of a key that was there'),
  cas_misses: u32('compare and set of a key that was not'),
  cas_badval: u32('compare and set of another value'),
  auth_cmds: u32('authentications'),
  auth_errors: u32('failed authentications'),
  threads: u32('worker threads'),
  conn_yields: u32('connections that had to wait for others'),
  listen_disabled_num: u32('times the connection limit was reached'),
  curr_connections: u32('open connections'),
  rejected_connections: u32('connections refused'),
  total_connections: u32('connections accepted'),
  connection_structures: u32('connection structures allocated'),
  evictions: u32('items removed for lack of memory'),
  reclaimed: u32('expired items whose memory was used again'),
  curr_items: u32('items stored'),
  total_items: u32('items ever stored'),
  bytes_read: u64('bytes received', 'bytes'),
  bytes_written: u64('bytes sent', 'bytes'),
  bytes: u64('bytes stored', 'bytes'),
  limit_maxbytes: u64('memory allowed', 'bytes'),
})
export type MemcacheCounters = ValueOf<typeof memcacheCounters>

export const vdiCounters = counterRecord(
  0,
  2205,
  'vdi_counters',
  'virtual desktop structures as read by sflowtool',
  {
    sessions_current: u32('sessions', 'sessions'),
    sessions_total: u32('sessions ever started', 'sessions'),
    sessions_duration: u32('time in sessions', 's'),
    rx_bytes: u32('bytes received', 'bytes'),
    tx_bytes: u32('bytes sent', 'bytes'),
    rx_packets: u32('packets received', 'packets'),
    tx_packets: u32('packets sent', 'packets'),
    rx_packets_lost: u32('packets lost on the way in', 'packets'),
    tx_packets_lost: u32('packets lost on the way out', 'packets'),
    rtt_min: u32('least round trip time', 'ms'),
    rtt_max: u32('greatest round trip time', 'ms'),
    rtt_avg: u32('mean round trip time', 'ms'),
    audio_rx_bytes: u32('audio bytes received', 'bytes'),
    audio_tx_bytes: u32('audio bytes sent', 'bytes'),
    audio_tx_limit: u32('limit for audio sent', 'bit/s'),
    img_rx_bytes: u32('image bytes received', 'bytes'),
    img_tx_bytes: u32('image bytes sent', 'bytes'),
    img_frames: u32('image frames', 'frames'),
    img_qual_min: u32('least image quality', '%'),
    img_qual_max: u32('greatest image quality', '%'),
    img_qual_avg: u32('mean image quality', '%'),
    usb_rx_bytes: u32('USB bytes received', 'bytes'),
    usb_tx_bytes: u32('USB bytes sent', 'bytes'),
  },
)
export type VdiCounters = ValueOf<typeof vdiCounters>

export const appWorkers = counterRecord(0, 2206, 'app_workers', APPLICATION, {
  workers_active: u32('busy workers', 'workers'),
  workers_idle: u32('idle workers', 'workers'),
  workers_max: u32('most workers allowed', 'workers'),
  req_delayed: c32('requests that had to wait', 'requests'),
  req_dropped: c32('requests dropped', 'requests'),
})
export type AppWorkers = ValueOf<typeof appWorkers>

export const ovsDpStats = counterRecord(0, 2207, 'ovs_dp_stats', REGISTRY, {
  hits: c32('packets that matched a flow', 'packets'),
  misses: c32('packets that did not', 'packets'),
  lost: c32('packets lost on the way to user space', 'packets'),
  mask_hits: c32('masks looked at'),
  flows: u32('flows', 'flows'),
  masks: u32('masks', 'masks'),
})
export type OvsDpStats = ValueOf<typeof ovsDpStats>
