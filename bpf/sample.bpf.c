// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Chooses 1 in N packets at the ingress and the egress of interfaces, and puts the beginning of each into a ring
 * buffer. A packet that is not chosen costs one lookup of state that belongs to this CPU alone, and a subtraction.
 *
 * A chosen packet may be followed: it gets a mark into its tc_index, which nothing but two ancient qdiscs (dsmark, gred)
 * ever reads and which stays with it until it is freed. Where it is queued, given to a driver or dropped, the mark leads
 * back to its slot, and what was learnt goes into the ring. A packet without a mark costs one test there.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "events.h"
#include "kernel.h"

#define AF_INET 2
#define AF_INET6 10
#define MOST_PORTS 65536
#define RING_BYTES (4 << 20)
#define MAC_ADDRESSES_BYTES (2 * ETH_ALEN)
#define VLAN_TAG_BYTES 4
/* Ethernet, IPv4 and TCP without options: to tell the segments of a packet that does not know their number. */
#define USUAL_HEADERS_BYTES 54
/* Draws for one large packet at most. */
#define MOST_DRAWS 64
/* Where there are more processors, the depth of a queue that each counts for itself is not known. */
#define MOST_CPUS 1024

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

/*
 * State of the sampled interfaces; the agent makes it before it attaches the programs. The look-up of an array is part
 * of the program; that of a hash takes four times as long as all the rest.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORT_SLOTS);
	__type(key, __u32);
	__type(value, struct port_state);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MOST_PORTS);
	__type(key, __u32);
	__type(value, struct port_state);
} more_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MOST_PORTS);
	__type(key, __u32);
	__type(value, struct port_rates);
} rates SEC(".maps");

/* Seen by the agent, too, which takes back what was never sent. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FOLLOW_SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

const volatile struct constants constants = { .header_bytes = 128 };
volatile struct control control SEC(".data");

/* Uniform from 1 to 2 * rate - 1, so that the mean is the rate. */
static __always_inline __u32 draw(__u32 rate)
{
	return 1 + (((__u64)bpf_get_prandom_u32() * (2 * (__u64)rate - 1)) >> 32);
}

static __noinline void read_rate(struct sampler_state *state, __u32 ifindex, enum direction direction)
{
	struct port_rates *wanted;
	__u32 rate = 0;

	state->generation = control.generation;
	wanted = bpf_map_lookup_elem(&rates, &ifindex);
	if (wanted)
		rate = wanted->rate[direction];
	if (rate == state->rate)
		return;
	state->rate = rate;
	if (rate)
		state->skip = draw(rate);
}

static __always_inline __u32 count_segments(struct __sk_buff *skb)
{
	__u32 payload;

	if (!skb->gso_size)
		return 1;
	if (skb->gso_segs)
		return skb->gso_segs;
	/* Packets from guests (virtio, tap) do not tell. */
	payload = skb->len > USUAL_HEADERS_BYTES ? skb->len - USUAL_HEADERS_BYTES : 1;
	return (payload + skb->gso_size - 1) / skb->gso_size;
}

/*
 * Of an event in the ring, which ends where the header that was asked for does: so there is room for more of them. The
 * constants are known when the program is loaded, as is this.
 */
static __always_inline __u32 event_bytes(void)
{
	return sizeof(struct packet_event) - HEADER_MOST + ((constants.header_bytes + 7) & ~7u);
}

/*
 * Copies up to `bytes` octets from `from` on, and no more than were asked for. The masking tells any verifier that there
 * is one at least. The compiler is kept from comparing another variable than the one that is used: Linux 6.1 does not
 * see what the one tells of the other.
 */
static __always_inline bool copy(struct __sk_buff *skb, __u32 from, void *to, __u32 bytes)
{
	if (bytes > HEADER_MOST)
		bytes = HEADER_MOST;
	bytes = ((bytes - 1) & (HEADER_MOST - 1)) + 1;
	barrier_var(bytes);
	if (bytes > constants.header_bytes)
		bytes = constants.header_bytes;
	return bpf_skb_load_bytes(skb, from, to, bytes) == 0;
}

/* Fills in the beginning of the packet as it was on the wire: with the VLAN tag that the kernel keeps beside it. */
static __noinline bool read_header(struct __sk_buff *skb, struct packet_event *event)
{
	__u32 bytes = skb->len;

	event->frame_bytes = bytes;
	if (!skb->vlan_present || bytes <= MAC_ADDRESSES_BYTES) {
		if (bytes > 0 && !copy(skb, 0, event->header, bytes))
			return false;
	} else {
		if (bpf_skb_load_bytes(skb, 0, event->header, MAC_ADDRESSES_BYTES) ||
		    !copy(skb, MAC_ADDRESSES_BYTES, event->header + MAC_ADDRESSES_BYTES + VLAN_TAG_BYTES,
			  bytes - MAC_ADDRESSES_BYTES))
			return false;
		*(__be16 *)(event->header + MAC_ADDRESSES_BYTES) = skb->vlan_proto;
		*(__be16 *)(event->header + MAC_ADDRESSES_BYTES + 2) = bpf_htons(skb->vlan_tci);
		event->frame_bytes += VLAN_TAG_BYTES;
	}
	event->header_bytes =
		event->frame_bytes < constants.header_bytes ? event->frame_bytes : constants.header_bytes;
	return true;
}

/* What is known of a chosen packet beside what it tells itself. */
struct choice {
	__u32 rate;
	__u32 segments;
	__u32 chosen;
	enum direction direction;
	bool last_segment;
};

static __noinline bool describe(struct __sk_buff *skb, struct packet_event *event, const struct choice *choice)
{
	if (!read_header(skb, event))
		return false;
	event->nanoseconds = bpf_ktime_get_ns();
	event->ifindex = skb->ifindex;
	event->ingress_ifindex = skb->ingress_ifindex;
	event->rate = choice->rate;
	event->hash = skb->hash;
	event->protocol = bpf_ntohs(skb->protocol);
	event->queue = skb->queue_mapping;
	event->segments = choice->segments;
	event->chosen = choice->chosen;
	event->segment_bytes = skb->gso_size;
	event->direction = choice->direction;
	event->packet_type = skb->pkt_type;
	event->last_segment = choice->last_segment;
	event->followed = 0;
	return true;
}

/* A wake-up costs many times more than the sample: only when the agent says that it sleeps. */
static __always_inline __u64 wake_up(void)
{
	return control.asleep ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Whether the route of a packet that came in ends here. What is not IP is not routed. */
static __noinline bool ends_here(struct __sk_buff *skb)
{
	struct bpf_fib_lookup route = { .ifindex = skb->ifindex };
	struct iphdr ip4;
	struct ipv6hdr ip6;

	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		if (bpf_skb_load_bytes_relative(skb, 0, &ip4, sizeof(ip4), BPF_HDR_START_NET))
			return false;
		route.family = AF_INET;
		route.ipv4_src = ip4.saddr;
		route.ipv4_dst = ip4.daddr;
		break;
	case bpf_htons(ETH_P_IPV6):
		if (bpf_skb_load_bytes_relative(skb, 0, &ip6, sizeof(ip6), BPF_HDR_START_NET))
			return false;
		route.family = AF_INET6;
		__builtin_memcpy(route.ipv6_src, &ip6.saddr, sizeof(ip6.saddr));
		__builtin_memcpy(route.ipv6_dst, &ip6.daddr, sizeof(ip6.daddr));
		break;
	default:
		return true;
	}
	return bpf_fib_lookup(skb, &route, sizeof(route), 0) == BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* Puts the packet into a slot. False: it is not to be followed, or cannot be. */
static __always_inline bool follow(struct __sk_buff *skb, struct port_state *port, struct sampler_state *state,
				   const struct choice *choice)
{
	struct slot *slot = NULL;
	__u32 mark, number;

	if (choice->direction == INGRESS && !port->forwards)
		return false;
	if (!skb->tc_index) {
		mark = __sync_fetch_and_add(&control.next_mark, 1) % MARKS + 1;
		number = (mark - 1) % FOLLOW_SLOTS;
		slot = bpf_map_lookup_elem(&slots, &number);
	}
	if (!slot || __sync_val_compare_and_swap(&slot->state, FREE, TAKEN) != FREE) {
		state->not_followed++;
		return false;
	}
	if (!describe(skb, &slot->event, choice)) {
		slot->state = FREE;
		return false;
	}
	if (choice->direction == INGRESS && ends_here(skb))
		slot->event.followed = LOCAL;
	slot->packet = (__u64)skb;
	__sync_lock_test_and_set(&slot->state, mark);
	skb->tc_index = mark;
	return true;
}

/* One segment at least is to be chosen: draws until the next one is beyond this packet, and reports the packet. */
static __noinline int choose(struct __sk_buff *skb, struct port_state *port, __u32 segments,
			     enum direction direction)
{
	struct choice choice = { .segments = segments, .direction = direction };
	struct sampler_state *state;
	struct packet_event *event;
	__u32 left = segments;

	if (!port)
		return TCX_NEXT;
	state = &port->direction[direction == EGRESS];
	choice.rate = state->rate;
	for (int i = 0; i < MOST_DRAWS && state->skip <= left; i++) {
		left -= state->skip;
		state->skip = draw(choice.rate);
		choice.last_segment = left == 0;
		choice.chosen++;
	}
	if (state->skip <= left) {
		/* As many as there would be on average. */
		state->chosen += left / choice.rate;
		state->lost += left / choice.rate;
	} else {
		state->skip -= left;
	}
	state->chosen += choice.chosen;
	if (constants.follow && follow(skb, port, state, &choice))
		return TCX_NEXT;

	event = bpf_ringbuf_reserve(&events, event_bytes(), 0);
	if (!event) {
		state->lost += choice.chosen;
		return TCX_NEXT;
	}
	if (!describe(skb, event, &choice)) {
		bpf_ringbuf_discard(event, BPF_RB_NO_WAKEUP);
		state->lost += choice.chosen;
		return TCX_NEXT;
	}
	bpf_ringbuf_submit(event, wake_up());
	return TCX_NEXT;
}

static __always_inline struct port_state *find_port(__u32 ifindex)
{
	__u32 slot = ifindex % PORT_SLOTS;
	struct port_state *port = bpf_map_lookup_elem(&ports, &slot);

	if (port && port->ifindex != ifindex)
		port = bpf_map_lookup_elem(&more_ports, &ifindex);
	return port;
}

static __always_inline int sample(struct __sk_buff *skb, enum direction direction)
{
	__u32 ifindex = skb->ifindex, segments;
	struct sampler_state *state;
	struct port_state *port;

	port = find_port(ifindex);
	if (!port)
		return TCX_NEXT;
	state = &port->direction[direction];
	if (state->generation != control.generation)
		read_rate(state, ifindex, direction);
	if (!state->rate)
		return TCX_NEXT;
	segments = count_segments(skb);
	state->packets += segments;
	if (state->skip > segments) {
		state->skip -= segments;
		return TCX_NEXT;
	}
	return choose(skb, port, segments, direction);
}

SEC("tcx/ingress")
int weir_ingress(struct __sk_buff *skb)
{
	return sample(skb, INGRESS);
}

SEC("tcx/egress")
int weir_egress(struct __sk_buff *skb)
{
	return sample(skb, EGRESS);
}

/*
 * The slot of a packet that has a mark, when that is still the packet in the slot. The mark alone does not say so: clones
 * have it too, and packets of another agent in another namespace. Segments have it and stand for the packet.
 */
static __noinline struct slot *take_slot(struct sk_buff *skb, __u32 namespace)
{
	__u32 mark = skb->tc_index, number = (mark - 1) % FOLLOW_SLOTS;
	struct slot *slot = bpf_map_lookup_elem(&slots, &number);

	if (!slot || slot->state != mark || namespace != constants.namespace)
		return NULL;
	if (slot->packet != (__u64)skb && slot->event.segments == 1)
		return NULL;
	return __sync_val_compare_and_swap(&slot->state, mark, TAKEN) == mark ? slot : NULL;
}

/* Gives the slot back as it is, for the next step of its packet. */
static __always_inline void keep_slot(struct slot *slot, struct sk_buff *skb)
{
	__sync_lock_test_and_set(&slot->state, skb->tc_index);
}

/* Reports the packet and gives the slot back for another one. */
static __noinline int report(struct slot *slot)
{
	struct port_state *port;

	if (!slot)
		return 0;
	if (bpf_ringbuf_output(&events, &slot->event, event_bytes(), wake_up())) {
		port = find_port(slot->event.ifindex);
		if (port)
			port->direction[slot->event.direction == EGRESS].lost += slot->event.chosen;
	}
	__sync_lock_test_and_set(&slot->state, FREE);
	return 0;
}

/*
 * The backlog of a qdisc whose statistics are kept for each CPU. That of one CPU may be negative, as one puts packets in
 * and another takes them out: the sum is right. The memory of other CPUs is as far from what the kernel notes for all of
 * them as it is with a map of our own, whose values a program may ask for.
 */
static __noinline bool read_cpu_backlog(struct Qdisc *qdisc, __u32 *depth)
{
	void *map = &ports, *noted, *ours, *statistics;
	struct gnet_stats_queue *queue;
	__u32 sum = 0, key = 0, cpu;

	statistics = BPF_CORE_READ(qdisc, cpu_qstats);
	/* From the stack as bytes: addresses to calculate with, which the verifier does not let pointers be. */
	bpf_probe_read_kernel(&map, sizeof(map), &map);
	if (!statistics || bpf_probe_read_kernel(&noted, sizeof(noted),
						 map + bpf_core_field_offset(struct bpf_array, pptrs)))
		return false;
	for (cpu = 0; cpu < MOST_CPUS; cpu++) {
		ours = bpf_map_lookup_percpu_elem(&ports, &key, cpu);
		if (!ours)
			break;
		bpf_probe_read_kernel(&ours, sizeof(ours), &ours);
		queue = statistics + ((__u64)ours - (__u64)noted);
		sum += BPF_CORE_READ(queue, backlog);
	}
	*depth = sum;
	return cpu < MOST_CPUS;
}

static __always_inline void set_transit(struct packet_event *event)
{
	__u64 transit = bpf_ktime_get_ns() - event->nanoseconds;

	event->transit = transit < 0xffffffff ? transit : 0xffffffff;
}

/* The packet has been given a transmit queue and is about to be put into it. Of stacked devices the lowest counts. */
SEC("tp_btf/net_dev_queue")
int BPF_PROG(weir_queue, struct sk_buff *skb)
{
	struct net_device *dev;
	struct netdev_queue *queue;
	struct packet_event *event;
	struct Qdisc *qdisc;
	struct slot *slot;

	if (!skb->tc_index)
		return 0;
	dev = skb->dev;
	slot = take_slot(skb, dev->nd_net.net->ns.inum);
	if (!slot)
		return 0;
	event = &slot->event;
	event->output_ifindex = dev->ifindex;
	event->output_queue = skb->queue_mapping;
	event->followed |= QUEUED;
	event->followed &= ~DEPTH;
	/* Read as a number: verifiers before Linux 6.4 do not let a variable be added to a pointer of the kernel. */
	queue = (void *)BPF_CORE_READ(dev, _tx) + skb->queue_mapping * bpf_core_type_size(struct netdev_queue);
	qdisc = BPF_CORE_READ(queue, qdisc);
	if (!(BPF_CORE_READ(qdisc, flags) & TCQ_F_CPUSTATS)) {
		event->queue_depth = BPF_CORE_READ(qdisc, qstats.backlog);
		event->followed |= DEPTH;
	} else if (read_cpu_backlog(qdisc, &event->queue_depth)) {
		event->followed |= DEPTH;
	}
	/* Of a packet that was chosen here, where it leaves, nothing more is to be learnt. */
	if (event->direction == EGRESS)
		return report(slot);
	keep_slot(slot, skb);
	return 0;
}

/* The driver gets the packet, or the device that this one is stacked upon, which then queues it in turn. */
SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(weir_transmit, struct sk_buff *skb, struct net_device *dev)
{
	struct list_head *lower;
	struct packet_event *event;
	struct slot *slot;

	if (!skb->tc_index)
		return 0;
	slot = take_slot(skb, dev->nd_net.net->ns.inum);
	if (!slot)
		return 0;
	lower = __builtin_preserve_access_index(&dev->adj_list.lower);
	if (BPF_CORE_READ(lower, next) != lower) {
		keep_slot(slot, skb);
		return 0;
	}
	event = &slot->event;
	if (!(event->followed & QUEUED)) {
		/* It was not seen at the queue, which the kernel passes by at times: nothing is known of its depth. */
		event->output_ifindex = dev->ifindex;
		event->output_queue = skb->queue_mapping;
		event->followed |= QUEUED;
	}
	if (event->direction == INGRESS) {
		set_transit(event);
		event->followed |= TRANSMITTED;
	}
	return report(slot);
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(weir_drop, struct sk_buff *skb, void *location, unsigned int reason)
{
	struct slot *slot;

	if (!skb->tc_index)
		return 0;
	/* The packet may have no device any more, so its namespace is not looked at. */
	slot = take_slot(skb, constants.namespace);
	if (!slot)
		return 0;
	/* A copy of a large packet, for a packet socket or a mirror: only after the queue it is a segment. */
	if (slot->packet != (__u64)skb && !(slot->event.followed & QUEUED)) {
		keep_slot(slot, skb);
		return 0;
	}
	set_transit(&slot->event);
	slot->event.drop_reason = reason;
	slot->event.drop_location = (__u64)location;
	slot->event.followed |= DROPPED;
	return report(slot);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
