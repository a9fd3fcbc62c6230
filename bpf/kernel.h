/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The members of the kernel's own structures that the programs read. Where they are is looked up in the type
 * information of the running kernel when a program is loaded.
 */
#ifndef WEIR_KERNEL_H
#define WEIR_KERNEL_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct gnet_stats_queue {
	__u32 backlog;
};

/* In flags: each CPU counts for itself, in cpu_qstats; the sum is what qstats is elsewhere. */
#define TCQ_F_CPUSTATS 0x20

struct Qdisc {
	unsigned int flags;
	struct gnet_stats_queue *cpu_qstats;
	struct gnet_stats_queue qstats;
};

/* A per-CPU array among maps. */
struct bpf_array {
	void *pptrs[0];
};

struct netdev_queue {
	struct Qdisc *qdisc;
};

struct list_head {
	struct list_head *next;
};

struct net_device {
	int ifindex;
	struct netdev_queue *_tx;
	possible_net_t nd_net;
	struct {
		struct list_head lower;
	} adj_list;
	unsigned short type;
};

struct dst_entry {
	struct net_device *dev;
};

typedef struct {
	__s64 counter;
} atomic64_t;

struct sock_common {
	possible_net_t skc_net;
	/* SO_COOKIE: 0 until somebody has asked for it. */
	atomic64_t skc_cookie;
};

struct sock {
	struct sock_common __sk_common;
};

struct sk_buff {
	struct net_device *dev;
	__u16 queue_mapping;
	__u16 tc_index;
	struct sock *sk;
	unsigned long _skb_refdst;
	unsigned int len;
	unsigned int data_len;
	int skb_iif;
	__be16 protocol;
	__u16 transport_header;
	__u16 network_header;
	__u16 mac_header;
	unsigned int tail;
	unsigned char *head;
	unsigned char *data;
	__be16 vlan_proto;
	__u16 vlan_tci;
	__u32 vlan_all;
};

/* Before Linux 6.2: a bit says whether there is a tag, since then vlan_all does. */
struct sk_buff___vlan_present {
	__u8 vlan_present : 1;
};

enum devlink_trap_type {
	DEVLINK_TRAP_TYPE_DROP,
	DEVLINK_TRAP_TYPE_EXCEPTION,
	DEVLINK_TRAP_TYPE_CONTROL,
};

struct devlink_trap_metadata {
	const char *trap_name;
	const char *trap_group_name;
	struct net_device *input_dev;
	enum devlink_trap_type trap_type;
};

#pragma clang attribute pop

#endif
