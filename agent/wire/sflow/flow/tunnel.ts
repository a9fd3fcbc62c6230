/**
 * Tunnels and InfiniBand. A packet sampled on ingress and then encapsulated has `_egress` records for the outer
 * headers to come; one sampled on egress after decapsulation has `_ingress` records for those already gone.
 */

import { fixedOpaque, u32, type ValueOf } from '../../struct.ts'
import { flowRecord } from '../record.ts'
import { sampledEthernet, sampledIpv4, sampledIpv6 } from './header.ts'

const TUNNEL = 'tunnel structures (2012)'
const INFINIBAND = 'InfiniBand structures'

export const extendedL2TunnelEgress = flowRecord(
  0,
  1021,
  'extended_L2_tunnel_egress',
  TUNNEL,
  sampledEthernet.fields,
)
export type ExtendedL2TunnelEgress = ValueOf<typeof extendedL2TunnelEgress>

export const extendedL2TunnelIngress = flowRecord(
  0,
  1022,
  'extended_L2_tunnel_ingress',
  TUNNEL,
  sampledEthernet.fields,
)
export type ExtendedL2TunnelIngress = ValueOf<typeof extendedL2TunnelIngress>

export const extendedIpv4TunnelEgress = flowRecord(
  0,
  1023,
  'extended_ipv4_tunnel_egress',
  TUNNEL,
  sampledIpv4.fields,
)
export type ExtendedIpv4TunnelEgress = ValueOf<typeof extendedIpv4TunnelEgress>

export const extendedIpv4TunnelIngress = flowRecord(
  0,
  1024,
  'extended_ipv4_tunnel_ingress',
  TUNNEL,
  sampledIpv4.fields,
)
export type ExtendedIpv4TunnelIngress = ValueOf<typeof extendedIpv4TunnelIngress>

export const extendedIpv6TunnelEgress = flowRecord(
  0,
  1025,
  'extended_ipv6_tunnel_egress',
  TUNNEL,
  sampledIpv6.fields,
)
export type ExtendedIpv6TunnelEgress = ValueOf<typeof extendedIpv6TunnelEgress>

export const extendedIpv6TunnelIngress = flowRecord(
  0,
  1026,
  'extended_ipv6_tunnel_ingress',
  TUNNEL,
  sampledIpv6.fields,
)
export type ExtendedIpv6TunnelIngress = ValueOf<typeof extendedIpv6TunnelIngress>

const innerHeader = { inner_header_offset: u32('start of the inner header in the sampled header', 'bytes') }

export const extendedDecapsulateEgress = flowRecord(
  0,
  1027,
  'extended_decapsulate_egress',
  TUNNEL,
  innerHeader,
)
export type ExtendedDecapsulateEgress = ValueOf<typeof extendedDecapsulateEgress>

export const extendedDecapsulateIngress = flowRecord(
  0,
  1028,
  'extended_decapsulate_ingress',
  TUNNEL,
  innerHeader,
)
export type ExtendedDecapsulateIngress = ValueOf<typeof extendedDecapsulateIngress>

const virtualNetwork = { vni: u32('virtual network identifier') }

export const extendedVniEgress = flowRecord(0, 1029, 'extended_vni_egress', TUNNEL, virtualNetwork)
export type ExtendedVniEgress = ValueOf<typeof extendedVniEgress>

export const extendedVniIngress = flowRecord(0, 1030, 'extended_vni_ingress', TUNNEL, virtualNetwork)
export type ExtendedVniIngress = ValueOf<typeof extendedVniIngress>

export const extendedIbLrh = flowRecord(0, 1031, 'extended_ib_lrh', INFINIBAND, {
  src_vl: u32('virtual lane received on'),
  src_sl: u32('service level received with'),
  src_dlid: u32('destination LID received with'),
  src_slid: u32('source LID received with'),
  src_lnh: u32('next header received with'),
  dst_vl: u32('virtual lane sent on'),
  dst_sl: u32('service level sent with'),
  dst_dlid: u32('destination LID sent with'),
  dst_slid: u32('source LID sent with'),
  dst_lnh: u32('next header sent with'),
})
export type ExtendedIbLrh = ValueOf<typeof extendedIbLrh>

export const extendedIbGrh = flowRecord(0, 1032, 'extended_ib_grh', INFINIBAND, {
  flow_label: u32('flow label'),
  tc: u32('traffic class'),
  s_gid: fixedOpaque(16, 'source GID'),
  d_gid: fixedOpaque(16, 'destination GID'),
  next_header: u32('next header'),
  length: u32('payload length', 'bytes'),
})
export type ExtendedIbGrh = ValueOf<typeof extendedIbGrh>

/** The registry spells the name `extended_ib_brh`. */
export const extendedIbBth = flowRecord(0, 1033, 'extended_ib_bth', INFINIBAND, {
  pkey: u32('partition key'),
  dst_qp: u32('destination queue pair'),
  opcode: u32('operation'),
})
export type ExtendedIbBth = ValueOf<typeof extendedIbBth>
