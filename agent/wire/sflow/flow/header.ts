/** Forms of the packet itself. */

import { ip4, ip6, mac, oneOf, opaque, u32, type ValueOf } from '../../struct.ts'
import { headerProtocol } from '../enumerations.ts'
import { flowRecord } from '../record.ts'

const SFLOW_V5 = 'sFlow v5 (2004) §5'

export const sampledHeader = flowRecord(0, 1, 'sampled_header', SFLOW_V5, {
  protocol: oneOf(headerProtocol, 'what the header begins with'),
  frame_length: u32('length on the wire with FCS, without preamble', 'bytes'),
  stripped: u32('of these, bytes removed before the header and at the end (FCS)', 'bytes'),
  header: opaque('first bytes of the packet'),
})
export type SampledHeader = ValueOf<typeof sampledHeader>

/** The source comes first, unlike in a frame. */
export const sampledEthernet = flowRecord(0, 2, 'sampled_ethernet', SFLOW_V5, {
  length: u32('length of the frame with FCS, without lower layers', 'bytes'),
  src_mac: mac('source'),
  dst_mac: mac('destination'),
  type: u32('EtherType'),
})
export type SampledEthernet = ValueOf<typeof sampledEthernet>

export const sampledIpv4 = flowRecord(0, 3, 'sampled_ipv4', SFLOW_V5, {
  length: u32('length of the IP packet', 'bytes'),
  protocol: u32('IP protocol'),
  src_ip: ip4('source'),
  dst_ip: ip4('destination'),
  src_port: u32('TCP or UDP source port'),
  dst_port: u32('TCP or UDP destination port'),
  tcp_flags: u32('TCP flags'),
  tos: u32('type of service'),
})
export type SampledIpv4 = ValueOf<typeof sampledIpv4>

export const sampledIpv6 = flowRecord(0, 4, 'sampled_ipv6', SFLOW_V5, {
  length: u32('length of the IP packet without lower layers', 'bytes'),
  protocol: u32('next header'),
  src_ip: ip6('source'),
  dst_ip: ip6('destination'),
  src_port: u32('TCP or UDP source port'),
  dst_port: u32('TCP or UDP destination port'),
  tcp_flags: u32('TCP flags'),
  priority: u32('traffic class'),
})
export type SampledIpv6 = ValueOf<typeof sampledIpv6>
