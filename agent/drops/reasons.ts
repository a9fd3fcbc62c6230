/**
 * Why the kernel or a switch drops packets, and which sFlow discard reason says it: one row for each name, with the
 * reason for the choice. Names are looked up, never numbers: those differ between kernels, distributions and even
 * point releases. Kernel names are those of Linux 5.17 to 7.2 (include/net/dropreason-core.h and the enumerations of
 * the subsystems), traps those of devlink (net/devlink/trap.c) and of the drivers that add their own.
 */

/**
 * What a drop means to those who run the network:
 *
 *     forward   a packet was lost on its way, or refused by a policy
 *     host      the end of a connection refused it: no listener, TCP's own checks, a full socket buffer
 *     noise     nothing was lost: normal end of life, copies, buffers that never were packets
 */
export type Kind = 'forward' | 'host' | 'noise'

/** Name, sFlow discard reason (its published name), kind, and why. */
export type Row = readonly [name: string, code: string, kind: Kind, why: string]

/** Kernel drop reasons, without the prefix SKB_DROP_REASON_. */
export const KERNEL_REASONS: readonly Row[] = [
  // Not drops.
  ['SKB_NOT_DROPPED_YET', 'unknown', 'noise', 'the value 0: never a drop'],
  ['NOT_DROPPED_YET', 'unknown', 'noise', 'as the kernel prints it'],
  ['SKB_CONSUMED', 'unknown', 'noise', 'normal end of life'],
  ['CONSUMED', 'unknown', 'noise', 'as the kernel prints it'],
  ['QUEUE_PURGE', 'unknown', 'noise', 'queue of a dying socket; comes for every ICMP answer nobody read'],
  ['SOCKET_CLOSE', 'unknown_l4', 'noise', 'normal teardown of a socket'],
  ['UNIX_DISCONNECT', 'unknown', 'noise', 'AF_UNIX: no packet'],
  ['UNIX_SKIP_OOB', 'unknown', 'noise', 'AF_UNIX: no packet'],
  ['PACKET_SOCK_ERROR', 'unknown', 'noise', 'only the copy for a packet socket is lost'],
  ['CAN_RX_INVALID_FRAME', 'unknown', 'noise', 'CAN bus: not Ethernet'],
  ['CANFD_RX_INVALID_FRAME', 'unknown', 'noise', 'CAN bus: not Ethernet'],
  ['CANXL_RX_INVALID_FRAME', 'unknown', 'noise', 'CAN bus: not Ethernet'],
  [
    'OTHERHOST',
    'dmac_filter',
    'noise',
    'flooded frames for others that a promiscuous port sees; each arrives there',
  ],

  ['NOT_SPECIFIED', 'unknown', 'forward', 'the kernel does not say; the function is looked at'],

  // Link layer.
  ['PKT_TOO_SMALL', 'pkt_too_small', 'forward', 'same meaning'],
  ['HDR_TRUNC', 'pkt_too_small', 'forward', 'ends before its headers do'],
  ['UNICAST_IN_L2_MULTICAST', 'uc_dip_over_mc_dmac', 'forward', 'same meaning'],
  ['UNHANDLED_PROTO', 'unhandled_proto', 'forward', 'same meaning'],
  ['INVALID_PROTO', 'invalid_proto', 'forward', 'same meaning'],
  ['DEV_HDR', 'dev_hdr', 'forward', 'same meaning'],
  ['DEV_READY', 'dev_ready', 'forward', 'same meaning'],
  ['SKB_CSUM', 'skb_csum', 'forward', 'same meaning'],
  ['SKB_GSO_SEG', 'skb_gso_seg', 'forward', 'same meaning'],
  ['SKB_BAD_GSO', 'skb_gso_seg', 'forward', 'segment sizes that contradict the packet'],
  ['TAP_FILTER', 'tap_filter', 'forward', 'same meaning'],
  ['TAP_TXFILTER', 'tap_txfilter', 'forward', 'same meaning'],
  [
    'MAC_INVALID_SOURCE',
    'src_mac_is_multicast',
    'forward',
    'the only source that is invalid is a group address',
  ],
  ['MAC_IEEE_MAC_CONTROL', 'dmac_is_reserved', 'forward', 'sent to 01-80-C2-00-00-0x'],
  ['LOCAL_MAC', 'unknown_l2', 'forward', 'own source address comes from outside: no code for it'],
  ['ARP_PVLAN_DISABLE', 'unknown_l2', 'forward', 'private VLAN without proxy ARP: no code for it'],
  ['BRIDGE_INGRESS_STP_STATE', 'ingress_spanning_tree_filter', 'forward', 'same meaning'],
  ['NO_TX_TARGET', 'port_list_is_empty', 'forward', 'no port to send to'],

  // Policy.
  ['NETFILTER_DROP', 'acl', 'forward', 'a firewall rule'],
  ['SECURITY_HOOK', 'comm_admin_prohibited', 'forward', 'verdict of a security module'],
  ['XFRM_POLICY', 'xfrm_policy', 'forward', 'same meaning'],
  ['BPF_CGROUP_EGRESS', 'bpf_cgroup_egress', 'forward', 'same meaning'],
  ['XDP', 'xdp', 'forward', 'same meaning'],
  ['TC_INGRESS', 'tc_ingress', 'forward', 'same meaning'],
  ['TC_EGRESS', 'tc_egress', 'forward', 'same meaning'],
  ['TC_COOKIE_ERROR', 'tc_ingress', 'forward', 'tc failed to go on with a chain; the direction is not told'],
  ['TC_CHAIN_NOTFOUND', 'tc_ingress', 'forward', 'tc filter leads nowhere; the direction is not told'],
  ['TC_RECLASSIFY_LOOP', 'tc_ingress', 'forward', 'tc filters lead in a circle; the direction is not told'],
  ['SOCKET_FILTER', 'socket_filter', 'host', 'same meaning'],

  // Queues and memory.
  ['QDISC_DROP', 'no_buffer_space', 'forward', 'a queue was full, or its discipline decided so'],
  ['QDISC_BURST_DROP', 'no_buffer_space', 'forward', 'more at once than net.core.qdisc_max_burst'],
  ['QDISC_OVERLIMIT', 'no_buffer_space', 'forward', 'queue full'],
  ['QDISC_CONGESTED', 'red', 'forward', 'decision of an active queue management'],
  ['CAKE_FLOOD', 'red', 'forward', 'decision of an active queue management'],
  ['DUALPI2_STEP_DROP', 'red', 'forward', 'decision of an active queue management'],
  ['FQ_BAND_LIMIT', 'no_buffer_space', 'forward', 'band full'],
  ['FQ_FLOW_LIMIT', 'no_buffer_space', 'forward', 'queue of the flow full'],
  ['FQ_HORIZON_LIMIT', 'traffic_shaping', 'forward', 'to be sent too far in the future'],
  ['CPU_BACKLOG', 'cpu_backlog', 'forward', 'same meaning'],
  ['MACVLAN_BROADCAST_BACKLOG', 'no_buffer_space', 'forward', 'queue full'],
  ['IPVLAN_MULTICAST_BACKLOG', 'no_buffer_space', 'forward', 'queue full'],
  ['FULL_RING', 'no_buffer_space', 'forward', 'ring full'],
  ['NOMEM', 'no_buffer_space', 'forward', 'no memory'],
  ['PFMEMALLOC', 'no_buffer_space', 'forward', 'memory reserve kept for others'],
  ['SOCKET_RCVBUFF', 'no_buffer_space', 'host', 'the application is too slow'],
  ['SOCKET_BACKLOG', 'no_buffer_space', 'host', 'the application is too slow'],
  ['PROTO_MEM', 'no_buffer_space', 'host', 'memory limit of the protocol'],
  ['TCP_LISTEN_OVERFLOW', 'no_buffer_space', 'host', 'queue of connections not accepted yet'],
  ['SKB_UCOPY_FAULT', 'skb_ucopy_fault', 'host', 'same meaning'],
  ['RECURSION_LIMIT', 'unknown', 'forward', 'devices send through each other in a circle: no code for it'],

  // IP.
  ['IP_CSUM', 'ip_header_corrupted', 'forward', 'the code includes a wrong checksum'],
  [
    'IP_INHDR',
    'ip_header_corrupted',
    'forward',
    'wrong header; hides TTL expiry, which is told apart by the packet',
  ],
  ['IP_RPFILTER', 'reverse_path_forwarding', 'forward', 'same meaning, unicast or multicast'],
  ['IP_NOPROTO', 'protocol_unreachable', 'forward', 'same meaning; 328 is deprecated'],
  ['IP_INADDRERRORS', 'host_unreachable', 'forward', 'no usable address to deliver to'],
  ['IP_INNOROUTES', 'net_unreachable', 'forward', 'no route for a packet that came in'],
  ['IP_OUTNOROUTES', 'dst_net_unknown', 'forward', 'no route for a packet that goes out'],
  ['IP_LOCAL_SOURCE', 'reverse_path_forwarding', 'forward', 'own address as source comes from outside'],
  ['IP_INVALID_SOURCE', 'unknown_l3', 'forward', 'a source that may not be; the packet tells which'],
  ['IP_LOCALNET', 'unknown_l3', 'forward', 'loopback address from outside; the packet tells which'],
  ['IP_INVALID_DEST', 'dip_is_local_network', 'forward', 'destination in 0.0.0.0/8'],
  ['PKT_TOO_BIG', 'pkt_too_big', 'forward', 'same meaning'],
  ['DUP_FRAG', 'dup_frag', 'forward', 'same meaning'],
  ['FRAG_REASM_TIMEOUT', 'unknown_l3', 'forward', 'fragments missing: no code for it'],
  ['FRAG_TOO_FAR', 'unknown_l3', 'forward', 'fragments too far apart: no code for it'],
  ['ICMP_CSUM', 'icmp_parsing', 'forward', 'the code is for bad ICMP of any kind'],
  ['IPV6DISABLED', 'ipv6disabled', 'host', 'same meaning; steady where others speak IPv6'],
  ['IPV6_BAD_EXTHDR', 'ipv6_bad_exthdr', 'forward', 'same meaning'],
  ['IPV6_TOO_MANY_EXTHDRS', 'ipv6_bad_exthdr', 'forward', 'extension headers that are not accepted'],
  ['IPV6_NDISC_FRAG', 'ipv6_ndisc_frag', 'forward', 'same meaning'],
  ['IPV6_NDISC_HOP_LIMIT', 'ipv6_ndisc_hop_limit', 'forward', 'same meaning'],
  ['IPV6_NDISC_BAD_CODE', 'ipv6_ndisc_bad_code', 'forward', 'same meaning'],
  ['IPV6_NDISC_BAD_OPTIONS', 'ipv6_ndisc_bad_options', 'forward', 'same meaning'],
  ['IPV6_NDISC_NS_OTHERHOST', 'ipv6_ndisc_ns_otherhost', 'host', 'same meaning; usual on shared links'],
  ['NEIGH_CREATEFAIL', 'unresolved_neigh', 'forward', 'no neighbour entry'],
  ['NEIGH_FAILED', 'unresolved_neigh', 'forward', 'the neighbour does not answer'],
  ['NEIGH_QUEUEFULL', 'unresolved_neigh', 'forward', 'too many wait for its answer'],
  ['NEIGH_DEAD', 'unresolved_neigh', 'forward', 'the entry is going away'],
  ['NEIGH_HH_FILLFAIL', 'unresolved_neigh', 'forward', 'no link address to write'],

  // Tunnels.
  ['VXLAN_INVALID_HDR', 'vxlan_parsing', 'forward', 'same meaning'],
  ['VXLAN_VNI_NOT_FOUND', 'unknown_tunnel', 'forward', 'network that is not configured: no code for it'],
  ['VXLAN_ENTRY_EXISTS', 'unknown_tunnel', 'forward', 'known elsewhere already: no code for it'],
  ['IP_TUNNEL_ECN', 'decap_error', 'forward', 'inner and outer congestion marks contradict each other'],
  ['TUNNEL_TXINFO', 'unknown_tunnel', 'forward', 'sent into a tunnel without saying where to'],

  // Transport.
  ['NO_SOCKET', 'port_unreachable', 'host', 'nobody listens'],
  ['UDP_CSUM', 'udp_parsing', 'forward', 'the code includes a wrong checksum'],
  ['TCP_CSUM', 'tcp_parsing', 'forward', 'the code includes a wrong checksum'],
  ['PSP_INPUT', 'unknown_l4', 'forward', 'PSP encryption: no code for it'],
  ['PSP_OUTPUT', 'unknown_l4', 'forward', 'PSP encryption: no code for it'],
  ['TCP_MD5NOTFOUND', 'tcp_md5notfound', 'host', 'same meaning'],
  ['TCP_MD5UNEXPECTED', 'tcp_md5unexpected', 'host', 'same meaning'],
  ['TCP_MD5FAILURE', 'tcp_md5failure', 'host', 'same meaning'],
  ['TCP_AUTH_HDR', 'unknown_l4', 'host', 'TCP authentication: no code for it'],
  ['TCP_AONOTFOUND', 'unknown_l4', 'host', 'TCP authentication: no code for it'],
  ['TCP_AOUNEXPECTED', 'unknown_l4', 'host', 'TCP authentication: no code for it'],
  ['TCP_AOKEYNOTFOUND', 'unknown_l4', 'host', 'TCP authentication: no code for it'],
  ['TCP_AOFAILURE', 'unknown_l4', 'host', 'TCP authentication: no code for it'],
  ['TCP_FLAGS', 'tcp_flags', 'host', 'same meaning'],
  ['TCP_ABORT_ON_DATA', 'unknown_l4', 'host', 'data for a closed connection: no code for it'],
  ['TCP_ZEROWINDOW', 'tcp_zerowindow', 'host', 'same meaning'],
  ['TCP_OLD_DATA', 'tcp_old_data', 'host', 'same meaning; a retransmission that was not needed'],
  ['TCP_OVERWINDOW', 'tcp_overwindow', 'host', 'same meaning'],
  ['TCP_OFOMERGE', 'tcp_ofomerge', 'host', 'same meaning'],
  ['TCP_RFC7323_PAWS', 'tcp_rfc7323_paws', 'host', 'same meaning'],
  ['TCP_RFC7323_PAWS_ACK', 'tcp_rfc7323_paws', 'host', 'same check, of an acknowledgement'],
  ['TCP_RFC7323_TW_PAWS', 'tcp_rfc7323_paws', 'host', 'same check, after the end of the connection'],
  ['TCP_RFC7323_TSECR', 'tcp_rfc7323_paws', 'host', 'wrong echo of a timestamp'],
  ['TCP_OLD_SEQUENCE', 'tcp_invalid_sequence', 'host', 'before the window'],
  ['TCP_INVALID_SEQUENCE', 'tcp_invalid_sequence', 'host', 'same meaning'],
  ['TCP_INVALID_END_SEQUENCE', 'tcp_invalid_sequence', 'host', 'ends behind the window'],
  ['TCP_INVALID_ACK_SEQUENCE', 'tcp_invalid_sequence', 'host', 'acknowledgement out of range'],
  ['TCP_RESET', 'tcp_reset', 'host', 'same meaning'],
  ['TCP_INVALID_SYN', 'tcp_invalid_syn', 'host', 'same meaning'],
  ['TCP_CLOSE', 'tcp_close', 'host', 'same meaning'],
  ['TCP_FASTOPEN', 'tcp_fastopen', 'host', 'same meaning'],
  ['TCP_OLD_ACK', 'tcp_old_ack', 'host', 'same meaning'],
  ['TCP_TOO_OLD_ACK', 'tcp_too_old_ack', 'host', 'same meaning'],
  ['TCP_ACK_UNSENT_DATA', 'tcp_ack_unsent_data', 'host', 'same meaning'],
  ['TCP_OFO_QUEUE_PRUNE', 'tcp_ofo_queue_prune', 'host', 'same meaning'],
  ['TCP_OFO_DROP', 'tcp_ofo_drop', 'host', 'same meaning'],
  ['TCP_MINTTL', 'tcp_minttl', 'host', 'same meaning'],

  // Open vSwitch (6.6).
  ['OVS_DROP_LAST_ACTION', 'acl', 'forward', 'the flow ends without an output: how a drop rule looks'],
  ['OVS_DROP_EXPLICIT', 'acl', 'forward', 'a drop action'],
  ['OVS_DROP_EXPLICIT_WITH_ERROR', 'unknown', 'forward', 'a drop action after an error'],
  ['OVS_DROP_ACTION_ERROR', 'unknown', 'forward', 'an action failed'],
  ['OVS_DROP_METER', 'traffic_shaping', 'forward', 'rate limit'],
  ['OVS_DROP_RECURSION_LIMIT', 'unknown', 'forward', 'actions lead in a circle: no code for it'],
  ['OVS_DROP_DEFERRED_LIMIT', 'unknown', 'forward', 'too many actions wait: no code for it'],
  ['OVS_DROP_FRAG_L2_TOO_LONG', 'pkt_too_big', 'forward', 'link header too long to fragment'],
  ['OVS_DROP_FRAG_INVALID_PROTO', 'invalid_proto', 'forward', 'cannot be fragmented'],
  ['OVS_DROP_CONNTRACK', 'acl', 'forward', 'refused by connection tracking'],
  ['OVS_DROP_IP_TTL', 'ttl_exceeded', 'forward', 'same meaning'],

  // Queueing disciplines (7.1).
  ['QDISC_DROP_UNSPEC', 'no_buffer_space', 'forward', 'no detail'],
  ['QDISC_DROP_GENERIC', 'no_buffer_space', 'forward', 'no detail'],
  ['QDISC_DROP_OVERLIMIT', 'no_buffer_space', 'forward', 'queue full'],
  ['QDISC_DROP_MAXFLOWS', 'no_buffer_space', 'forward', 'no room for another flow'],
  ['QDISC_DROP_BAND_LIMIT', 'no_buffer_space', 'forward', 'band full'],
  ['QDISC_DROP_FLOW_LIMIT', 'no_buffer_space', 'forward', 'queue of the flow full'],
  ['QDISC_DROP_HORIZON_LIMIT', 'traffic_shaping', 'forward', 'to be sent too far in the future'],
  ['QDISC_DROP_CONGESTED', 'red', 'forward', 'decision of an active queue management'],
  ['QDISC_DROP_FLOOD_PROTECTION', 'red', 'forward', 'decision of an active queue management'],
  ['QDISC_DROP_L4S_STEP_NON_ECN', 'red', 'forward', 'decision of an active queue management'],
]

/** Kernel reasons by the beginning of the name: families of which each member means the same to a collector. */
export const KERNEL_REASON_PREFIXES: readonly Row[] = [
  [
    'RX_DROP_',
    'unknown_l2',
    'host',
    'wireless (mac80211): frame refused on reception, no code for the details',
  ],
]

/** Hardware traps of type drop and exception. */
export const TRAPS: readonly Row[] = [
  ...sameName(
    ...['vlan_tag_mismatch', 'ingress_vlan_filter', 'ingress_spanning_tree_filter', 'port_list_is_empty'],
    ...[
      'port_loopback_filter',
      'dmac_filter',
      'locked_port',
      'blackhole_route',
      'blackhole_nexthop',
      'non_ip',
    ],
    ...['uc_dip_over_mc_dmac', 'dip_is_loopback_address', 'sip_is_mc', 'sip_is_loopback_address'],
    ...['ip_header_corrupted', 'ipv4_sip_is_limited_bc', 'ipv6_mc_dip_reserved_scope'],
    ...['ipv6_mc_dip_interface_local_scope', 'non_routable_packet', 'unresolved_neigh'],
    ...[
      'mc_reverse_path_forwarding',
      'decap_error',
      'overlay_smac_is_mc',
      'vxlan_parsing',
      'llc_snap_parsing',
    ],
    ...['vlan_parsing', 'pppoe_ppp_parsing', 'mpls_parsing', 'arp_parsing', 'ip_1_parsing', 'ip_n_parsing'],
    ...['gre_parsing', 'udp_parsing', 'tcp_parsing', 'ipsec_parsing', 'sctp_parsing', 'dccp_parsing'],
    ...['gtp_parsing', 'esp_parsing'],
    // Names of the standard's own list that drivers may use.
    ...['sip_is_unspecified', 'mlag_port_isolation', 'blackhole_arp_neigh', 'src_mac_is_dmac'],
    ...['dmac_is_reserved', 'sip_is_class_e', 'mc_dmac_mismatch', 'sip_is_dip', 'dip_is_local_network'],
    ...['dip_is_link_local', 'overlay_smac_is_dmac', 'egress_vlan_filter', 'uc_reverse_path_forwarding'],
    ...['split_horizon'],
  ),
  ['source_mac_is_multicast', 'src_mac_is_multicast', 'forward', 'same meaning'],
  ['ttl_value_is_too_small', 'ttl_exceeded', 'forward', 'same meaning'],
  ['mtu_value_is_too_small', 'pkt_too_big', 'forward', 'same meaning'],
  ['reject_route', 'dst_net_prohibited', 'forward', 'a route that refuses'],
  ['ipv4_lpm_miss', 'dst_net_unknown', 'forward', 'no route entry'],
  ['ipv6_lpm_miss', 'dst_net_unknown', 'forward', 'no route entry'],
  ['tail_drop', 'no_buffer_space', 'forward', 'queue full'],
  ['early_drop', 'red', 'forward', 'same meaning'],
  ['ingress_flow_action_drop', 'acl', 'forward', 'a tc rule in hardware'],
  ['egress_flow_action_drop', 'acl', 'forward', 'a tc rule in hardware'],
  // mlxsw
  ['irif_disabled', 'unknown_l3', 'forward', 'router interface off'],
  ['erif_disabled', 'unknown_l3', 'forward', 'router interface off'],
  // prestera
  ['rxdma_drop', 'no_buffer_space', 'forward', 'queue to the processor full'],
  ['port_no_vlan', 'ingress_vlan_filter', 'forward', 'port is not in the VLAN'],
  ['local_port', 'port_loopback_filter', 'forward', 'would go out where it came in'],
  ['invalid_sa', 'src_mac_is_multicast', 'forward', 'the only source that is invalid is a group address'],
  ['illegal_ip_addr', 'unknown_l3', 'forward', 'which address is not told'],
  ['illegal_ipv4_hdr', 'ip_header_corrupted', 'forward', 'same meaning'],
  ['ip_uc_dip_da_mismatch', 'uc_dip_over_mc_dmac', 'forward', 'unicast IP address, other link address'],
  ['ip_sip_is_zero', 'sip_is_unspecified', 'forward', 'same meaning'],
  ['met_red', 'red', 'forward', 'red of a meter'],
  ...Array.from({ length: 8 }, (_, i): Row => [`acl_code_${i}`, 'acl', 'forward', 'rule of an access list']),
]

/** Hardware traps that are not known by name, by their group. */
export const TRAP_GROUPS: readonly Row[] = [
  ['l2_drops', 'unknown_l2', 'forward', 'layer 2'],
  ['l3_drops', 'unknown_l3', 'forward', 'layer 3'],
  ['l3_exceptions', 'unknown_l3_exception', 'forward', 'layer 3, for the processor to look at'],
  ['buffer_drops', 'unknown_buffer', 'forward', 'buffers'],
  ['tunnel_drops', 'unknown_tunnel', 'forward', 'tunnels'],
  ['acl_drops', 'acl', 'forward', 'access lists'],
  ['parser_error_drops', 'unknown_parsing', 'forward', 'malformed packets'],
  ...[
    ...['stp', 'lacp', 'lldp', 'mc_snooping', 'dhcp', 'neigh_discovery', 'bfd', 'ospf', 'bgp', 'vrrp', 'pim'],
    ...['uc_loopback', 'local_delivery', 'external_delivery', 'ipv6', 'ptp_event', 'ptp_general'],
    ...['acl_sample', 'acl_trap', 'eapol'],
  ].map(
    (group): Row => [group, 'unknown', 'noise', 'control packets on their way to the processor: no loss'],
  ),
]

/**
 * Functions, by the beginning of their name; the first that fits decides. For drops without a reason: all of Linux
 * before 5.18, and what later kernels call NOT_SPECIFIED.
 */
export const FUNCTIONS: readonly Row[] = [
  ['unix_', 'unknown', 'noise', 'AF_UNIX: no packet'],
  ['netlink_', 'unknown', 'noise', 'netlink: no packet'],
  ['skb_queue_purge', 'unknown', 'noise', 'queue that is thrown away, of a socket that is closed'],
  ['inet_sock_destruct', 'unknown', 'noise', 'teardown of a socket'],
  ['__sk_destruct', 'unknown', 'noise', 'teardown of a socket'],
  ['udp_destruct', 'unknown', 'noise', 'teardown of a socket'],
  ['sk_stream_kill_queues', 'unknown', 'noise', 'teardown of a connection'],
  ['skb_release_data', 'unknown', 'noise', 'parts of a packet that is freed'],
  ['packet_rcv', 'unknown', 'noise', 'only the copy for a packet socket is lost'],
  ['tpacket_rcv', 'unknown', 'noise', 'only the copy for a packet socket is lost'],
  ['do_xdp_generic', 'xdp', 'forward', 'verdict of an XDP program (generic)'],
  ['netif_receive_generic_xdp', 'xdp', 'forward', 'verdict of an XDP program (generic)'],
  ['generic_xdp_', 'xdp', 'forward', 'verdict of an XDP program (generic)'],
  ['veth_xdp_rcv_skb', 'xdp', 'forward', 'verdict of an XDP program on a veth'],
  ['dst_discard', 'blackhole_route', 'forward', 'where routes to nowhere lead'],
  ['nf_hook_slow', 'acl', 'forward', 'verdict of a firewall rule'],
  ['br_allowed_ingress', 'ingress_vlan_filter', 'forward', 'VLAN filter of a bridge'],
  ['__allowed_ingress', 'ingress_vlan_filter', 'forward', 'VLAN filter of a bridge'],
  ['br_handle_vlan', 'egress_vlan_filter', 'forward', 'VLAN filter of a bridge'],
  ['br_', 'unknown_l2', 'forward', 'bridge'],
  ['__br_', 'unknown_l2', 'forward', 'bridge'],
  ['__dev_queue_xmit', 'no_buffer_space', 'forward', 'queue of the output interface'],
  ['__dev_xmit_skb', 'no_buffer_space', 'forward', 'queue of the output interface'],
  ['sch_direct_xmit', 'no_buffer_space', 'forward', 'queue of the output interface'],
  ['enqueue_to_backlog', 'cpu_backlog', 'forward', 'queue of the processor'],
  ['neigh_', 'unresolved_neigh', 'forward', 'neighbour'],
  ['__neigh_', 'unresolved_neigh', 'forward', 'neighbour'],
  ['arp_', 'unknown_l2', 'forward', 'address resolution'],
  ['tcp_', 'unknown_l4', 'host', 'refused by TCP'],
  ['__tcp_', 'unknown_l4', 'host', 'refused by TCP'],
  ['udp_', 'unknown_l4', 'host', 'refused by UDP'],
  ['__udp', 'unknown_l4', 'host', 'refused by UDP'],
  ['udpv6_', 'unknown_l4', 'host', 'refused by UDP'],
  ['icmp', 'unknown_l3', 'host', 'refused by ICMP'],
  ['ip_error', 'net_unreachable', 'forward', 'where packets without a route end'],
  ['ip_', 'unknown_l3', 'forward', 'refused by IPv4'],
  ['ipv4_', 'unknown_l3', 'forward', 'refused by IPv4'],
  ['ip6_mc_input', 'unknown_l3', 'host', 'multicast that nobody here has joined'],
  ['ip6_', 'unknown_l3', 'forward', 'refused by IPv6'],
  ['ipv6_', 'unknown_l3', 'forward', 'refused by IPv6'],
  ['raw', 'unknown_l3', 'host', 'raw sockets'],
]

/** Traps that have the name of their discard reason. */
function sameName(...names: readonly string[]): Row[] {
  return names.map(name => [name, name, 'forward', 'same name, same meaning'])
}
