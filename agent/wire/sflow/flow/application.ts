/** Transactions, sockets, operations of applications and the entities behind an address. */

import { i32, ip4, ip6, oneOf, opaque, text, u32, u64, type ValueOf } from '../../struct.ts'
import {
  applicationStatus,
  dataSourceType,
  httpMethod,
  memcacheCommand,
  memcacheProtocol,
  memcacheStatus,
  packetDirection,
  serviceDirection,
  transactionStatus,
} from '../enumerations.ts'
import { flowRecord } from '../record.ts'

const HTTP = 'HTTP structures (2011)'
const APPLICATION = 'application structures (2012)'
const TRANSACTION = 'sFlow.org structure registry: transactions'

export const transaction = flowRecord(0, 2000, 'transaction', TRANSACTION, {
  direction: oneOf(serviceDirection, 'role of this device'),
  wait: u32('time before the work began', 'µs'),
  duration: u32('time of the work', 'µs'),
  status: oneOf(transactionStatus, 'how it ended'),
  bytes_received: u64('bytes received', 'bytes'),
  bytes_sent: u64('bytes sent', 'bytes'),
})
export type Transaction = ValueOf<typeof transaction>

export const extendedNfsStorageTransaction = flowRecord(
  0,
  2001,
  'extended_nfs_storage_transaction',
  TRANSACTION,
  {
    path: opaque('path of the file'),
    operation: u32('NFS operation'),
    status: u32('nfsstat4'),
  },
)
export type ExtendedNfsStorageTransaction = ValueOf<typeof extendedNfsStorageTransaction>

export const extendedScsiStorageTransaction = flowRecord(
  0,
  2002,
  'extended_scsi_storage_transaction',
  TRANSACTION,
  {
    lun: u32('logical unit'),
    operation: u32('SCSI operation, all ones if unknown'),
    status: u32('SCSI status'),
  },
)
export type ExtendedScsiStorageTransaction = ValueOf<typeof extendedScsiStorageTransaction>

export const extendedHttpTransaction = flowRecord(0, 2003, 'extended_http_transaction', TRANSACTION, {
  url: text('URL'),
  host: text('host'),
  referer: text('referer'),
  useragent: text('user agent'),
  user: text('user'),
  status: u32('HTTP status'),
})
export type ExtendedHttpTransaction = ValueOf<typeof extendedHttpTransaction>

const socket4 = {
  protocol: u32('IP protocol'),
  local_ip: ip4('local address'),
  remote_ip: ip4('remote address'),
  local_port: u32('local port'),
  remote_port: u32('remote port'),
}

const socket6 = { ...socket4, local_ip: ip6('local address'), remote_ip: ip6('remote address') }

export const extendedSocketIpv4 = flowRecord(0, 2100, 'extended_socket_ipv4', HTTP, socket4)
export type ExtendedSocketIpv4 = ValueOf<typeof extendedSocketIpv4>

export const extendedSocketIpv6 = flowRecord(0, 2101, 'extended_socket_ipv6', HTTP, socket6)
export type ExtendedSocketIpv6 = ValueOf<typeof extendedSocketIpv6>

/** The connection behind a proxy. */
export const extendedProxySocketIpv4 = flowRecord(0, 2102, 'extended_proxy_socket_ipv4', HTTP, socket4)
export type ExtendedProxySocketIpv4 = ValueOf<typeof extendedProxySocketIpv4>

/** The connection behind a proxy. */
export const extendedProxySocketIpv6 = flowRecord(0, 2103, 'extended_proxy_socket_ipv6', HTTP, socket6)
export type ExtendedProxySocketIpv6 = ValueOf<typeof extendedProxySocketIpv6>

export const memcacheOperation = flowRecord(0, 2200, 'memcache_operation', 'memcache structures', {
  protocol: oneOf(memcacheProtocol, 'protocol'),
  command: oneOf(memcacheCommand, 'command'),
  key: text('first key', 255),
  nkeys: u32('keys', 'keys'),
  value_bytes: u32('size of the value', 'bytes'),
  duration: u32('time it took', 'µs'),
  status: oneOf(memcacheStatus, 'how it ended'),
})
export type MemcacheOperation = ValueOf<typeof memcacheOperation>

const context = {
  application: text('name of the application', 32),
  operation: text('name of the operation', 32),
  attributes: text('attributes as name=value pairs joined by &', 255),
}

export const appOperation = flowRecord(0, 2202, 'app_operation', APPLICATION, {
  ...context,
  status_descr: text('status in words', 64),
  req_bytes: u64('size of the request', 'bytes'),
  resp_bytes: u64('size of the answer', 'bytes'),
  duration: u32('time it took', 'µs'),
  status: oneOf(applicationStatus, 'how it ended'),
})
export type AppOperation = ValueOf<typeof appOperation>

export const appParentContext = flowRecord(0, 2203, 'app_parent_context', APPLICATION, context)
export type AppParentContext = ValueOf<typeof appParentContext>

export const appInitiator = flowRecord(0, 2204, 'app_initiator', APPLICATION, {
  actor: text('who began the operation', 64),
})
export type AppInitiator = ValueOf<typeof appInitiator>

export const appTarget = flowRecord(0, 2205, 'app_target', APPLICATION, {
  actor: text('whom the operation is about', 64),
})
export type AppTarget = ValueOf<typeof appTarget>

const request = { uri: text('request URI', 255), host: text('host', 64) }

export const httpRequest = flowRecord(0, 2206, 'http_request', HTTP, {
  method: oneOf(httpMethod, 'method'),
  protocol: u32('version: 1000 × major + minor'),
  ...request,
  referer: text('referer', 255),
  useragent: text('user agent', 128),
  xff: text('X-Forwarded-For', 64),
  authuser: text('user name', 32),
  mime_type: text('type of the answer', 64),
  req_bytes: u64('size of the request', 'bytes'),
  resp_bytes: u64('size of the answer', 'bytes'),
  duration: u32('time it took', 'µs'),
  status: i32('HTTP status'),
})
export type HttpRequest = ValueOf<typeof httpRequest>

/** The request as a proxy passed it on; only if it was rewritten. */
export const extendedProxyRequest = flowRecord(0, 2207, 'extended_proxy_request', HTTP, request)
export type ExtendedProxyRequest = ValueOf<typeof extendedProxyRequest>

const navigationTime = (event: string) => u32(`${event}, 0 if it did not happen`, 'ms')

/** Times are shifted so that the least is 1. */
export const extendedNavTiming = flowRecord(0, 2208, 'extended_nav_timing', 'W3C Navigation Timing', {
  type: u32('performance.navigation.type'),
  redirectCount: u32('redirections'),
  navigationStart: navigationTime('previous document unloaded'),
  unloadEventStart: navigationTime('unload event began'),
  unloadEventEnd: navigationTime('unload event ended'),
  redirectStart: navigationTime('first redirection began'),
  redirectEnd: navigationTime('last redirection ended'),
  fetchStart: navigationTime('fetch began'),
  domainLookupStart: navigationTime('name look-up began'),
  domainLookupEnd: navigationTime('name look-up ended'),
  connectStart: navigationTime('connect began'),
  connectEnd: navigationTime('connect ended'),
  secureConnectionStart: navigationTime('TLS handshake began'),
  requestStart: navigationTime('request began'),
  responseStart: navigationTime('answer began'),
  responseEnd: navigationTime('answer ended'),
  domLoading: navigationTime('document loading'),
  domInteractive: navigationTime('document interactive'),
  domContentLoadedEventStart: navigationTime('DOMContentLoaded event began'),
  domContentLoadedEventEnd: navigationTime('DOMContentLoaded event ended'),
  domComplete: navigationTime('document complete'),
  loadEventStart: navigationTime('load event began'),
  loadEventEnd: navigationTime('load event ended'),
})
export type ExtendedNavTiming = ValueOf<typeof extendedNavTiming>

export const extendedTcpInfo = flowRecord(
  0,
  2209,
  'extended_tcp_info',
  'TCP structures, from Linux tcp_info',
  {
    direction: oneOf(packetDirection, 'direction of the sampled packet'),
    snd_mss: u32('segment size for sending', 'bytes'),
    rcv_mss: u32('segment size for receiving', 'bytes'),
    unacked: u32('segments not acknowledged', 'segments'),
    lost: u32('segments lost', 'segments'),
    retrans: u32('segments sent again', 'segments'),
    pmtu: u32('path MTU', 'bytes'),
    rtt: u32('smoothed round trip time', 'µs'),
    rttvar: u32('its variation', 'µs'),
    snd_cwnd: u32('congestion window', 'segments'),
    reordering: u32('reordering', 'segments'),
    min_rtt: u32('least round trip time', 'µs'),
  },
)
export type ExtendedTcpInfo = ValueOf<typeof extendedTcpInfo>

/** Data sources that own the two addresses; 0:0 unknown. */
export const extendedEntities = flowRecord(0, 2210, 'extended_entities', 'sFlow.org structure registry', {
  src_ds_class: oneOf(dataSourceType, 'data source type of the source'),
  src_ds_index: u32('data source index of the source'),
  dst_ds_class: oneOf(dataSourceType, 'data source type of the destination'),
  dst_ds_index: u32('data source index of the destination'),
})
export type ExtendedEntities = ValueOf<typeof extendedEntities>
