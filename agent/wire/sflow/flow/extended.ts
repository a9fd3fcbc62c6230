/** What a switch, router or access point did with the packet. */

import { addr, list, mac, oneOf, opaque, struct, text, u32, u64, type ValueOf } from '../../struct.ts'
import { asPathSegmentType, ieee80211Version, urlDirection } from '../enumerations.ts'
import { flowRecord } from '../record.ts'

const SFLOW_V5 = 'sFlow v5 (2004) §5'
const IEEE80211 = '802.11 structures (2007)'

export const extendedSwitch = flowRecord(0, 1001, 'extended_switch', SFLOW_V5, {
  src_vlan: u32('VLAN of the packet received, all ones if unknown'),
  src_priority: u32('priority of the packet received, all ones if unknown'),
  dst_vlan: u32('VLAN of the packet sent, all ones if unknown'),
  dst_priority: u32('priority of the packet sent, all ones if unknown'),
})
export type ExtendedSwitch = ValueOf<typeof extendedSwitch>

export const extendedRouter = flowRecord(0, 1002, 'extended_router', SFLOW_V5, {
  nexthop: addr('next router (immediate, by an erratum)'),
  src_mask_len: u32('prefix length of the source', 'bits'),
  dst_mask_len: u32('prefix length of the destination', 'bits'),
})
export type ExtendedRouter = ValueOf<typeof extendedRouter>

export const extendedGateway = flowRecord(0, 1003, 'extended_gateway', SFLOW_V5, {
  nexthop: addr('BGP next hop'),
  as: u32('AS of the router'),
  src_as: u32('AS of the source'),
  src_peer_as: u32('AS of the peer towards the source'),
  dst_as_path: list(
    struct({
      type: oneOf(asPathSegmentType, 'type of the segment'),
      path: list(u32('AS number'), 'AS numbers'),
    }),
    'AS path to the destination',
  ),
  communities: list(u32('community'), 'communities of the route'),
  localpref: u32('local preference of the route'),
})
export type ExtendedGateway = ValueOf<typeof extendedGateway>

export const extendedUser = flowRecord(0, 1004, 'extended_user', SFLOW_V5, {
  src_charset: u32('IANA MIBenum of the source name, 106 UTF-8, 0 unknown'),
  src_user: opaque('name at the source'),
  dst_charset: u32('IANA MIBenum of the destination name'),
  dst_user: opaque('name at the destination'),
})
export type ExtendedUser = ValueOf<typeof extendedUser>

/** Deprecated. */
export const extendedUrl = flowRecord(0, 1005, 'extended_url', SFLOW_V5, {
  direction: oneOf(urlDirection, 'which address is the server'),
  url: text('HTTP request line'),
  host: text('host of the request'),
})
export type ExtendedUrl = ValueOf<typeof extendedUrl>

const labelStack = (doc: string) =>
  list(u32('label stack entry: label 20 bits, class 3, bottom 1, TTL 8'), `${doc}, top first`)

export const extendedMpls = flowRecord(0, 1006, 'extended_mpls', SFLOW_V5, {
  nexthop: addr('next hop'),
  in_stack: labelStack('labels of the packet received'),
  out_stack: labelStack('labels of the packet sent'),
})
export type ExtendedMpls = ValueOf<typeof extendedMpls>

export const extendedNat = flowRecord(0, 1007, 'extended_nat', SFLOW_V5, {
  src_address: addr('source after translation'),
  dst_address: addr('destination after translation'),
})
export type ExtendedNat = ValueOf<typeof extendedNat>

export const extendedMplsTunnel = flowRecord(0, 1008, 'extended_mpls_tunnel', SFLOW_V5, {
  tunnel_lsp_name: text('name of the tunnel'),
  tunnel_id: u32('number of the tunnel'),
  tunnel_cos: u32('class of service'),
})
export type ExtendedMplsTunnel = ValueOf<typeof extendedMplsTunnel>

export const extendedMplsVc = flowRecord(0, 1009, 'extended_mpls_vc', SFLOW_V5, {
  vc_instance_name: text('name of the virtual circuit'),
  vll_vc_id: u32('number of the virtual circuit'),
  vc_label_cos: u32('class of service'),
})
export type ExtendedMplsVc = ValueOf<typeof extendedMplsVc>

export const extendedMplsFtn = flowRecord(0, 1010, 'extended_mpls_FTN', SFLOW_V5, {
  mplsFTNDescr: text('name of the mapping'),
  mplsFTNMask: u32('fields it matches'),
})
export type ExtendedMplsFtn = ValueOf<typeof extendedMplsFtn>

export const extendedMplsLdpFec = flowRecord(0, 1011, 'extended_mpls_LDP_FEC', SFLOW_V5, {
  mplsFecAddrPrefixLength: u32('prefix length', 'bits'),
})
export type ExtendedMplsLdpFec = ValueOf<typeof extendedMplsLdpFec>

const vlanStack = (doc: string) =>
  list(u32('TPID in the upper half, TCI in the lower'), `${doc}, outermost first`)

export const extendedVlantunnel = flowRecord(0, 1012, 'extended_vlantunnel', SFLOW_V5, {
  stack: vlanStack('VLAN tags that were stripped from the header'),
})
export type ExtendedVlantunnel = ValueOf<typeof extendedVlantunnel>

export const extended80211Payload = flowRecord(0, 1013, 'extended_80211_payload', IEEE80211, {
  ciphersuite: u32('OUI in the upper 24 bits, suite type in the lower 8'),
  data: opaque('decrypted payload from LLC on'),
})
export type Extended80211Payload = ValueOf<typeof extended80211Payload>

export const extended80211Rx = flowRecord(0, 1014, 'extended_80211_rx', IEEE80211, {
  ssid: text('name of the network', 32),
  bssid: mac('access point'),
  version: oneOf(ieee80211Version, 'kind of radio'),
  channel: u32('channel'),
  speed: u64('speed', 'bit/s'),
  rsni: u32('received signal to noise ratio (802.11k)'),
  rcpi: u32('received channel power (802.11k)'),
  packet_duration: u32('time the packet took, 0 if unknown', 'µs'),
})
export type Extended80211Rx = ValueOf<typeof extended80211Rx>

export const extended80211Tx = flowRecord(0, 1015, 'extended_80211_tx', IEEE80211, {
  ssid: text('name of the network', 32),
  bssid: mac('access point'),
  version: oneOf(ieee80211Version, 'kind of radio'),
  transmissions: u32('times the packet was sent, 0 if unknown'),
  packet_duration: u32('time of the successful transmission, 0 if unknown', 'µs'),
  retrans_duration: u32('time of the failed transmissions, 0 if unknown', 'µs'),
  channel: u32('channel'),
  speed: u64('speed', 'bit/s'),
  power: u32('power', 'mW'),
})
export type Extended80211Tx = ValueOf<typeof extended80211Tx>

/** A record inside a record is its data format and its body. */
export const extended80211Aggregation = flowRecord(0, 1016, 'extended_80211_aggregation', IEEE80211, {
  pdus: list(
    struct({
      flow_records: list(
        struct({ format: u32('data format of the record'), body: opaque('body of the record') }),
        'flow records of the PDU',
      ),
    }),
    'PDUs of the aggregate',
  ),
})
export type Extended80211Aggregation = ValueOf<typeof extended80211Aggregation>

/** Deprecated. */
export const extendedOpenflowV1 = flowRecord(
  0,
  1017,
  'extended_openflow_v1',
  'sFlow.org structure registry',
  {
    flow_cookie: u64('cookie of the flow entry'),
    flow_match: u32('wildcards of the match (OpenFlow 1.0)'),
    flow_actions: u32('actions taken'),
  },
)
export type ExtendedOpenflowV1 = ValueOf<typeof extendedOpenflowV1>

export const extendedFc = flowRecord(0, 1018, 'extended_fc', 'Fibre Channel structures', {
  src_mask_len: u32('domain and area mask of the source', 'bits'),
  dst_mask_len: u32('domain and area mask of the destination', 'bits'),
  next_hop: u32('24-bit address of the next switch'),
  metric: u32('route type bit 31, protocol bits 30 to 24, metric bits 23 to 0'),
})
export type ExtendedFc = ValueOf<typeof extendedFc>

export const extendedQueueLength = flowRecord(0, 1019, 'extended_queue_length', 'queue length structures', {
  queueIndex: u32('queue'),
  queueLength: u32('segments in it before the packet', 'segments'),
})
export type ExtendedQueueLength = ValueOf<typeof extendedQueueLength>

export const extendedNatPort = flowRecord(0, 1020, 'extended_nat_port', 'port NAT structures', {
  src_port: u32('source port after translation'),
  dst_port: u32('destination port after translation'),
})
export type ExtendedNatPort = ValueOf<typeof extendedNatPort>

export const extendedVlanin = flowRecord(0, 1034, 'extended_vlanin', 'sFlow.org structure registry', {
  stack: vlanStack('VLAN tags of the packet received'),
})
export type ExtendedVlanin = ValueOf<typeof extendedVlanin>

export const extendedVlanout = flowRecord(0, 1035, 'extended_vlanout', 'sFlow.org structure registry', {
  stack: vlanStack('VLAN tags of the packet sent'),
})
export type ExtendedVlanout = ValueOf<typeof extendedVlanout>
