/** The open enumerations of the structures: unknown numbers are values like any other. */

import type { Names } from '../struct.ts'

/** sFlow v5 §5, 802.11 structures (2007); 18 from the InfiniBand structures. */
export const headerProtocol: Names = {
  1: 'ethernet',
  2: 'token bus',
  3: 'token ring',
  4: 'FDDI',
  5: 'frame relay',
  6: 'X.25',
  7: 'PPP',
  8: 'SMDS',
  9: 'AAL5',
  10: 'AAL5-IP',
  11: 'IPv4',
  12: 'IPv6',
  13: 'MPLS',
  14: 'POS',
  15: '802.11 MAC',
  16: '802.11n A-MPDU',
  17: '802.11n A-MSDU subframe',
  18: 'InfiniBand',
}

/** sFlow v5 §5.1; 3 from the host structures (2010). */
export const dataSourceType: Names = { 0: 'interface', 1: 'VLAN', 2: 'physical', 3: 'logical' }

/** sFlow v5 §5. */
export const interfaceFormat: Names = { 0: 'ifIndex', 1: 'discarded', 2: 'multiple' }

/** sFlow v5 §5, from MAU-MIB. */
export const ifDirection: Names = { 0: 'unknown', 1: 'full duplex', 2: 'half duplex', 3: 'in', 4: 'out' }

/** sFlow v5 §5: bit 0 administrative, bit 1 operational. */
export const ifStatus: Names = { 0: 'down', 1: 'up, not running', 2: 'down, running', 3: 'up' }

/** IANA ifType numbers that Linux interfaces have. */
export const ifType: Names = {
  1: 'other',
  6: 'ethernetCsmacd',
  23: 'ppp',
  24: 'softwareLoopback',
  32: 'frameRelay',
  53: 'propVirtual',
  71: 'ieee80211',
  131: 'tunnel',
  135: 'l2vlan',
  161: 'ieee8023adLag',
  199: 'infiniband',
  209: 'bridge',
}

/** Host structures (2010). */
export const machineType: Names = {
  0: 'unknown',
  1: 'other',
  2: 'x86',
  3: 'x86_64',
  4: 'ia64',
  5: 'sparc',
  6: 'alpha',
  7: 'powerpc',
  8: 'm68k',
  9: 'mips',
  10: 'arm',
  11: 'hppa',
  12: 's390',
}

/** Host structures (2010). */
export const osName: Names = {
  0: 'unknown',
  1: 'other',
  2: 'linux',
  3: 'windows',
  4: 'darwin',
  5: 'hpux',
  6: 'aix',
  7: 'dragonfly',
  8: 'freebsd',
  9: 'netbsd',
  10: 'openbsd',
  11: 'osf',
  12: 'solaris',
}

/** Host structures (2010), after libvirt. */
export const domainState: Names = {
  0: 'none',
  1: 'running',
  2: 'blocked',
  3: 'paused',
  4: 'shutting down',
  5: 'shut off',
  6: 'crashed',
}

/** IP-MIB ipForwarding. */
export const ipForwarding: Names = { 1: 'forwarding', 2: 'not forwarding' }

/** TCP-MIB tcpRtoAlgorithm. */
export const tcpRtoAlgorithm: Names = { 1: 'other', 2: 'constant', 3: 'rsre', 4: 'vanj', 5: 'rfc2988' }

/** sFlow v5 §5: type of an AS path segment. */
export const asPathSegmentType: Names = { 1: 'set', 2: 'sequence' }

/** sFlow v5 §5: which side is the server. */
export const urlDirection: Names = { 1: 'source', 2: 'destination' }

/** 802.11 structures (2007). */
export const ieee80211Version: Names = { 1: '802.11a', 2: '802.11b', 3: '802.11g', 4: '802.11n' }

/** Dropped packet structures (2020). */
export const aclDirection: Names = { 0: 'unknown', 1: 'ingress', 2: 'egress' }

/** HTTP structures (2011). */
export const serviceDirection: Names = { 1: 'client', 2: 'server' }

/** TCP information: direction of the sampled packet. */
export const packetDirection: Names = { 0: 'unknown', 1: 'received', 2: 'sent' }

/** HTTP structures (2011). */
export const transactionStatus: Names = {
  0: 'ok',
  1: 'failure',
  2: 'out of memory',
  3: 'timeout',
  4: 'not permitted',
}

/** Application structures (2012). */
export const applicationStatus: Names = {
  0: 'success',
  1: 'other',
  2: 'timeout',
  3: 'internal_error',
  4: 'bad_request',
  5: 'forbidden',
  6: 'too_large',
  7: 'not_implemented',
  8: 'not_found',
  9: 'unavailable',
  10: 'unauthorized',
}

/** HTTP structures (2011). */
export const httpMethod: Names = {
  0: 'other',
  1: 'options',
  2: 'get',
  3: 'head',
  4: 'post',
  5: 'put',
  6: 'delete',
  7: 'trace',
  8: 'connect',
}

/** Memcache structures. */
export const memcacheProtocol: Names = { 0: 'other', 1: 'ascii', 2: 'binary' }

/** Memcache structures. */
export const memcacheCommand: Names = {
  0: 'other',
  1: 'set',
  2: 'add',
  3: 'replace',
  4: 'append',
  5: 'prepend',
  6: 'cas',
  7: 'get',
  8: 'gets',
  9: 'incr',
  10: 'decr',
  11: 'delete',
  12: 'stats',
  13: 'flush',
  14: 'version',
  15: 'quit',
  16: 'touch',
}

/** Memcache structures. */
export const memcacheStatus: Names = {
  0: 'unknown',
  1: 'ok',
  2: 'error',
  3: 'client_error',
  4: 'server_error',
  5: 'stored',
  6: 'not_stored',
  7: 'exists',
  8: 'not_found',
  9: 'deleted',
}
