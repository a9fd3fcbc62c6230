// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sees each packet that the kernel drops, and each that a switch drops and gives to its driver, and reports some: those
 * of which nothing is lost are left out here, and so are those above the limit, so that a flood costs little. All are
 * counted, by reason, place in the kernel and interface.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "events.h"
#include "kernel.h"

/* linux/if_arp.h, which cannot be had without the C library */
#define ARPHRD_ETHER 1
#define ARPHRD_LOOPBACK 772

#define RING_BYTES (2 << 20)
#define MAC_ADDRESSES_BYTES (2 * ETH_ALEN)
#define VLAN_TAG_BYTES 4
#define UDP_PORTS_BYTES 4
#define NO_HEADER 0xffff
#define MOST_NETWORK_HEADER 256
#define SUBSYSTEM_SHIFT 16
/* The lowest bit of a packet's route says that it has no reference to it. */
#define ROUTE_MASK (~1ull)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

/* Which slot a drop has. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DROP_SLOTS);
	__type(key, struct drop_key);
	__type(value, __u32);
} keys SEC(".maps");

/* Seen by the agent, too. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DROP_SLOTS);
	__type(key, __u32);
	__type(value, struct drop_slot);
} slots SEC(".maps");

/* Slots of interfaces that are gone: the agent's to give, ours to take. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DROP_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} free_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_SLOTS);
	__type(key, __u32);
	__type(value, struct drop_counts);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drop_left_out);
} left_out SEC(".maps");

/*
 * The sockets by which the agent sends its datagrams: by their cookies, and for the loopback, where a packet loses its
 * sender, by their ports as the packet has them, with OWN_BY_PORTS.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, OWN_SOCKETS);
	__type(key, __u64);
	__type(value, __u8);
} own_sockets SEC(".maps");

const volatile struct drop_constants drop_constants = { .header_bytes = 128, .slots = DROP_SLOTS };
volatile struct drop_control drop_control SEC(".data") = { .share = 1, .limit = 1, .next_slot = 1 };

/* What is known of a dropped packet before it is looked at. */
struct drop {
	struct drop_key key;
	__u32 input_ifindex;
	__u32 output_ifindex;
	/* The device it came in by, or that is to send what was made here, has Ethernet headers. */
	bool is_ethernet;
};

static __always_inline void leave_out(enum drop_wish wish)
{
	__u32 zero = 0;
	struct drop_left_out *state = bpf_map_lookup_elem(&left_out, &zero);

	if (state && wish < DROP_WISHES)
		state->count[wish]++;
}

static __always_inline enum drop_wish wish_of(__u32 reason)
{
	__u32 subsystem = reason >> SUBSYSTEM_SHIFT, number = reason & ((1 << SUBSYSTEM_SHIFT) - 1);

	if (subsystem >= REASON_SUBSYSTEMS || number >= REASONS_EACH)
		return REPORT;
	return drop_constants.wishes[subsystem * REASONS_EACH + number];
}

/* Whether it has a device. UDP keeps other things in its place, which do not look like an address. */
static __always_inline bool has_device(struct sk_buff *skb)
{
	return (__u64)BPF_CORE_READ(skb, dev) >> 56 == 0xff;
}

static __always_inline __u32 namespace_of_device(struct net_device *dev)
{
	return dev ? BPF_CORE_READ(dev, nd_net.net, ns.inum) : 0;
}

/* The device of the packet's route: of a packet that is made here, the one that is to send it. */
static __always_inline struct net_device *device_of_route(struct sk_buff *skb)
{
	struct dst_entry *route = (struct dst_entry *)(BPF_CORE_READ(skb, _skb_refdst) & ROUTE_MASK);

	return route ? BPF_CORE_READ(route, dev) : NULL;
}

/* The network namespace where a packet without device was dropped: of the route or the socket; 0 when not known. */
static __noinline __u32 namespace_without_device(struct sk_buff *skb, struct sock *receiver)
{
	__u32 namespace = namespace_of_device(device_of_route(skb));

	if (!namespace && receiver)
		namespace = BPF_CORE_READ(receiver, __sk_common.skc_net.net, ns.inum);
	if (!namespace) {
		receiver = BPF_CORE_READ(skb, sk);
		if (receiver)
			namespace = BPF_CORE_READ(receiver, __sk_common.skc_net.net, ns.inum);
	}
	return namespace;
}

/* What is neither at an interface nor of a protocol of networks never was a packet. */
static __always_inline bool is_packet(__be16 protocol)
{
	switch (protocol) {
	case bpf_htons(ETH_P_IP):
	case bpf_htons(ETH_P_IPV6):
	case bpf_htons(ETH_P_ARP):
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
	case bpf_htons(ETH_P_MPLS_UC):
		return true;
	}
	return false;
}

/*
 * Whether a socket of the agent's has sent it. Reporting that would make the next datagram, which would be dropped in
 * turn. A packet that came in has no sender, but may have the socket that is to get it.
 */
static __always_inline bool is_own(struct sk_buff *skb, __u16 device_type)
{
	__u64 key = 0;

	if (!skb->skb_iif) {
		if (skb->sk)
			key = BPF_CORE_READ(skb, sk, __sk_common.skc_cookie.counter);
	} else if (device_type == ARPHRD_LOOPBACK) {
		bpf_probe_read_kernel(&key, UDP_PORTS_BYTES, skb->head + skb->transport_header);
		key |= OWN_BY_PORTS;
	}
	return key && bpf_map_lookup_elem(&own_sockets, &key);
}

/* The number of a slot that is free again; 0 when there is none. */
static __always_inline __u32 take_free_slot(void)
{
	__u32 taken = drop_control.taken, place = taken % DROP_SLOTS, number, *free;

	if (taken == drop_control.freed)
		return 0;
	free = bpf_map_lookup_elem(&free_slots, &place);
	if (!free)
		return 0;
	number = *free;
	return __sync_val_compare_and_swap(&drop_control.taken, taken, taken + 1) == taken ? number : 0;
}

/*
 * The slot of a key, which is made when it is first seen. The last slots are for what has no interface of its own any
 * more, because there are too many; 0 when there is no room at all.
 */
static __noinline __u32 make_slot(struct drop_key *key, const char *trap, const char *trap_group)
{
	__u32 most = drop_constants.slots, number, *known;
	struct drop_slot *slot;

	number = take_free_slot();
	if (!number && key->ifindex && drop_control.next_slot >= most - most / 4) {
		key->ifindex = 0;
		known = bpf_map_lookup_elem(&keys, key);
		if (known)
			return *known;
	}
	if (!number) {
		if (drop_control.next_slot >= most)
			return 0;
		number = __sync_fetch_and_add(&drop_control.next_slot, 1);
	}
	slot = bpf_map_lookup_elem(&slots, &number);
	if (!slot)
		return 0;
	slot->key = *key;
	if (trap)
		bpf_probe_read_kernel_str(slot->trap, sizeof(slot->trap), trap);
	if (trap_group)
		bpf_probe_read_kernel_str(slot->trap_group, sizeof(slot->trap_group), trap_group);
	if (!bpf_map_update_elem(&keys, key, &number, BPF_NOEXIST))
		return number;
	/* Another CPU was faster; this slot stays empty. */
	known = bpf_map_lookup_elem(&keys, key);
	return known ? *known : 0;
}

/* Whether this drop may be reported: the first one of a slot in each second always is. */
static __always_inline bool may_report(struct drop_slot *slot)
{
	__u32 second = drop_control.second, before = slot->second;

	if (before != second && __sync_val_compare_and_swap(&slot->second, before, second) == before) {
		slot->reported = 1;
		return !slot->silent;
	}
	if (slot->silent || slot->reported > drop_control.share || drop_control.reported >= drop_control.limit)
		return false;
	__sync_fetch_and_add(&drop_control.reported, 1);
	__sync_fetch_and_add(&slot->reported, 1);
	return true;
}

static __always_inline bool has_tag(struct sk_buff *skb)
{
	struct sk_buff___vlan_present *old = (void *)skb;

	if (bpf_core_field_exists(skb->vlan_all))
		return skb->vlan_all != 0;
	if (bpf_core_field_exists(old->vlan_present))
		return BPF_CORE_READ_BITFIELD(old, vlan_present);
	return false;
}

/* The masking tells any verifier that it is 1 to HEADER_MOST octets. */
static __always_inline bool copy(void *to, __u32 bytes, const void *from)
{
	if (bytes > drop_constants.header_bytes)
		bytes = drop_constants.header_bytes;
	bytes = ((bytes - 1) & (HEADER_MOST - 1)) + 1;
	return bpf_probe_read_kernel(to, bytes, from) == 0;
}

/* Where the packet begins: at its link header, or else at its network header, as far as they have been set. */
static __always_inline __u32 begin_of(struct sk_buff *skb, __u32 data)
{
	if (skb->mac_header != NO_HEADER && skb->mac_header <= data)
		return skb->mac_header;
	if (skb->network_header && skb->network_header < data && data - skb->network_header < MOST_NETWORK_HEADER)
		return skb->network_header;
	return data;
}

/*
 * Fills in the packet from its link header on, where it has one, or else from its network header, as it was on the wire:
 * with the VLAN tag that the kernel keeps beside it. Of a packet in pieces the first is taken.
 */
static __noinline void describe(struct sk_buff *skb, struct drop_event *event, const struct drop *drop)
{
	unsigned char *head = skb->head;
	__u32 data = skb->data - head, start = begin_of(skb, data), end = skb->tail, bytes;
	bool copied;
	__s64 frame;

	event->nanoseconds = bpf_ktime_get_ns();
	event->input_ifindex = drop->input_ifindex;
	event->output_ifindex = drop->output_ifindex;
	event->protocol = bpf_ntohs(skb->protocol);
	event->queue = skb->queue_mapping;
	event->flags = 0;
	event->header_bytes = 0;
	event->frame_bytes = 0;
	if (skb->network_header >= start + ETH_HLEN || (drop->is_ethernet && skb->mac_header != NO_HEADER))
		event->flags = LINK_HEADER;
	frame = (__s64)skb->len + data - start;
	if (frame <= 0 || frame > 0xffffffff || end <= start)
		return;
	event->frame_bytes = frame;
	bytes = end - start;
	if (bytes > frame)
		bytes = frame;
	if (event->flags != LINK_HEADER || bytes <= MAC_ADDRESSES_BYTES || !has_tag(skb)) {
		copied = copy(event->header, bytes, head + start);
	} else {
		copied = !bpf_probe_read_kernel(event->header, MAC_ADDRESSES_BYTES, head + start) &&
			 copy(event->header + MAC_ADDRESSES_BYTES + VLAN_TAG_BYTES, bytes - MAC_ADDRESSES_BYTES,
			      head + start + MAC_ADDRESSES_BYTES);
		*(__be16 *)(event->header + MAC_ADDRESSES_BYTES) = skb->vlan_proto;
		*(__be16 *)(event->header + MAC_ADDRESSES_BYTES + 2) = bpf_htons(skb->vlan_tci);
		event->frame_bytes += VLAN_TAG_BYTES;
		bytes += VLAN_TAG_BYTES;
	}
	if (copied)
		event->header_bytes = bytes < drop_constants.header_bytes ? bytes : drop_constants.header_bytes;
}

/* Counts the drop, and reports it when it may be. */
static __noinline int take(struct sk_buff *skb, struct drop *drop, const char *trap, const char *trap_group)
{
	struct drop_counts *count;
	struct drop_event *event;
	struct drop_slot *slot;
	__u32 number, *known;

	known = bpf_map_lookup_elem(&keys, &drop->key);
	number = known ? *known : make_slot(&drop->key, trap, trap_group);
	count = bpf_map_lookup_elem(&counts, &number);
	slot = bpf_map_lookup_elem(&slots, &number);
	if (!count || !slot)
		return 0;
	count->seen++;
	if (!may_report(slot))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count->lost++;
		return 0;
	}
	event->key = drop->key;
	event->slot = number;
	describe(skb, event, drop);
	count->reported++;
	bpf_ringbuf_submit(event, drop_control.asleep ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline int drop_in_software(struct sk_buff *skb, void *location, __u32 reason, struct sock *receiver)
{
	struct drop drop = { .key = { .location = (__u64)location, .reason = reason } };
	__u32 namespace = 0, input = skb->skb_iif, ifindex = 0;
	struct net_device *dev, *route_dev;
	enum drop_wish wish;
	bool is_ours;
	__u16 type = 0;

	if (!drop_control.second)
		return 0;
	if (has_device(skb)) {
		dev = skb->dev;
		namespace = dev->nd_net.net->ns.inum;
		ifindex = dev->ifindex;
		type = dev->type;
	}
	if (!namespace)
		namespace = namespace_without_device(skb, receiver);
	is_ours = namespace == drop_constants.namespace;
	if (!is_ours && !drop_constants.everywhere)
		return 0;
	wish = wish_of(reason);
	if (wish == REPORT && !ifindex && !input && !is_packet(skb->protocol))
		wish = NOISE;
	if (wish == REPORT && is_own(skb, type))
		wish = OWN;
	if (wish != REPORT) {
		leave_out(wish);
		return 0;
	}
	if (!ifindex && !input) {
		route_dev = device_of_route(skb);
		if (route_dev) {
			ifindex = BPF_CORE_READ(route_dev, ifindex);
			type = BPF_CORE_READ(route_dev, type);
		}
	}
	drop.is_ethernet = (type == ARPHRD_ETHER || type == ARPHRD_LOOPBACK) && (!input || input == ifindex);
	if (is_ours) {
		drop.input_ifindex = input;
		drop.output_ifindex = ifindex;
		/* What the driver has just received has no input yet, but is behind its link header. */
		if (!drop.input_ifindex && skb->mac_header != NO_HEADER && skb->mac_header < skb->data - skb->head)
			drop.input_ifindex = drop.output_ifindex;
		if (drop.output_ifindex == drop.input_ifindex)
			drop.output_ifindex = 0;
		drop.key.ifindex = drop.input_ifindex ?: drop.output_ifindex;
	}
	return take(skb, &drop, NULL, NULL);
}

/* Linux 5.17 to 6.10 */
SEC("tp_btf/kfree_skb")
int BPF_PROG(weir_drop, struct sk_buff *skb, void *location, unsigned int reason)
{
	return drop_in_software(skb, location, reason, NULL);
}

/* Since Linux 6.11: with the socket that was to receive the packet. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(weir_drop_at_socket, struct sk_buff *skb, void *location, unsigned int reason, struct sock *receiver)
{
	return drop_in_software(skb, location, reason, receiver);
}

SEC("tp_btf/devlink_trap_report")
int BPF_PROG(weir_trap, void *devlink, struct sk_buff *skb, struct devlink_trap_metadata *metadata)
{
	const char *trap = BPF_CORE_READ(metadata, trap_name);
	struct net_device *dev = BPF_CORE_READ(metadata, input_dev);
	struct drop drop = { .key = { .location = (__u64)trap, .reason = HARDWARE_DROP }, .is_ethernet = true };
	bool is_ours = namespace_of_device(dev) == drop_constants.namespace;

	/* Control packets on their way to the processor are no drops. */
	if (BPF_CORE_READ(metadata, trap_type) == DEVLINK_TRAP_TYPE_CONTROL)
		return 0;
	/* Without a port it belongs to the switch, which is in the first namespace. */
	if (!drop_control.second || (!is_ours && !drop_constants.everywhere))
		return 0;
	if (is_ours)
		drop.input_ifindex = drop.key.ifindex = BPF_CORE_READ(dev, ifindex);
	return take(skb, &drop, trap, BPF_CORE_READ(metadata, trap_group_name));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
