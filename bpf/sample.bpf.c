// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Chooses 1 in N packets at the ingress and the egress of interfaces, and puts the beginning of each into a ring
 * buffer. A packet that is not chosen costs one lookup of state that belongs to this CPU alone, and a subtraction.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "events.h"

#define MOST_PORTS 65536
#define RING_BYTES (4 << 20)
#define MAC_ADDRESSES_BYTES (2 * ETH_ALEN)
#define VLAN_TAG_BYTES 4
/* Ethernet, IPv4 and TCP without options: to tell the segments of a packet that does not know their number. */
#define USUAL_HEADERS_BYTES 54
/* Draws for one large packet at most. */
#define MOST_DRAWS 64

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

/* Copies up to `bytes` octets from `from` on; the masking tells any verifier that it is 1 to HEADER_MOST of them. */
static __always_inline bool copy(struct __sk_buff *skb, __u32 from, void *to, __u32 bytes)
{
	if (bytes > constants.header_bytes)
		bytes = constants.header_bytes;
	bytes = ((bytes - 1) & (HEADER_MOST - 1)) + 1;
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

/* One segment at least is to be chosen: draws until the next one is beyond this packet, and reports the packet. */
static __noinline int choose(struct __sk_buff *skb, struct sampler_state *state, __u32 segments,
			     enum direction direction)
{
	__u32 left = segments, chosen = 0, rate;
	struct packet_event *event;
	bool last = false;

	if (!state)
		return TCX_NEXT;
	rate = state->rate;
	for (int i = 0; i < MOST_DRAWS && state->skip <= left; i++) {
		left -= state->skip;
		state->skip = draw(rate);
		last = left == 0;
		chosen++;
	}
	if (state->skip <= left) {
		/* As many as there would be on average. */
		state->chosen += left / rate;
		state->lost += left / rate;
	} else {
		state->skip -= left;
	}
	state->chosen += chosen;

	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		state->lost += chosen;
		return TCX_NEXT;
	}
	if (!read_header(skb, event)) {
		bpf_ringbuf_discard(event, BPF_RB_NO_WAKEUP);
		state->lost += chosen;
		return TCX_NEXT;
	}
	event->nanoseconds = bpf_ktime_get_ns();
	event->ifindex = skb->ifindex;
	event->ingress_ifindex = skb->ingress_ifindex;
	event->rate = rate;
	event->hash = skb->hash;
	event->protocol = bpf_ntohs(skb->protocol);
	event->queue = skb->queue_mapping;
	event->segments = segments;
	event->chosen = chosen;
	event->segment_bytes = skb->gso_size;
	event->direction = direction;
	event->packet_type = skb->pkt_type;
	event->last_segment = last;
	/* A wake-up costs many times more than the sample: only when the agent says that it sleeps. */
	bpf_ringbuf_submit(event, control.asleep ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
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
	return choose(skb, state, segments, direction);
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

char LICENSE[] SEC("license") = "Dual BSD/GPL";
