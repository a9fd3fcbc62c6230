/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What crosses the border between the programs in this folder and the agent. Widths are fixed and padding is
 * explicit; agent/wire/bpf/layout.ts is made from it, and a test fails when the two differ.
 */
#ifndef WEIR_EVENTS_H
#define WEIR_EVENTS_H

#include <linux/types.h>

/* Octets of a packet to carry at most, and room for the MAC addresses and the tag that are put before the rest. */
#define HEADER_MOST 256
#define HEADER_ROOM (HEADER_MOST + 16)

/* An interface has the slot that is the remainder of its ifindex, or, where that is taken, an entry in a hash. */
#define PORT_SLOTS 1024

enum direction {
	INGRESS = 0,
	EGRESS = 1,
};

/* Packets that can be followed at a time. A slot's number is in the packet's tc_index, where 0 is none. */
#define FOLLOW_SLOTS 8192

/* How far a packet was followed. */
enum followed {
	/* It arrived at the queue of the output interface. */
	QUEUED = 1,
	/* The driver took it: the delay is known. */
	TRANSMITTED = 2,
	/* The kernel dropped it. */
	DROPPED = 4,
	/* The depth of the queue could be read. */
	DEPTH = 8,
	/* Its route ends here, so that nothing more is to be heard of it. */
	LOCAL = 16,
};

/*
 * A packet of which one segment or several were chosen. A large packet that is to be cut into segments later (GSO),
 * or was put together from segments (GRO), counts as those segments.
 */
struct packet_event {
	/* CLOCK_MONOTONIC */
	__u64 nanoseconds;
	/* The interface that samples, and the one by which the packet came in: 0 when it was made here. */
	__u32 ifindex;
	__u32 ingress_ifindex;
	/* 1 in this many was chosen. */
	__u32 rate;
	/* Of the whole packet, with the VLAN tag. */
	__u32 frame_bytes;
	/* Flow hash, 0 when none was computed. */
	__u32 hash;
	/*
	 * Where it left, bytes waiting there before it, and nanoseconds from here to the driver, or to where it was
	 * dropped, at most 2^32 - 1.
	 */
	__u32 output_ifindex;
	__u32 queue_depth;
	__u32 transit;
	/* Octets in header. */
	__u16 header_bytes;
	/* EtherType behind the VLAN tag, in host order. */
	__u16 protocol;
	/* Of ingress: receive queue + 1, 0 when not known. Of egress: what was asked for, 0 when nothing was. */
	__u16 queue;
	/* Of the output interface. */
	__u16 output_queue;
	/* Segments the packet stands for, and of those the chosen ones: 1 of 1 for any ordinary packet. */
	__u16 segments;
	__u16 chosen;
	/* Payload of each segment but the last; 0 for an ordinary packet. */
	__u16 segment_bytes;
	/* One of enum direction. */
	__u8 direction;
	/* PACKET_HOST and so on (linux/if_packet.h). */
	__u8 packet_type;
	/* 1: the last segment is among the chosen. */
	__u8 last_segment;
	/* Bits of enum followed. */
	__u8 followed;
	__u8 reserved[2];
	/* Why it was dropped, as the running kernel numbers its reasons, and the address of the code that did it. */
	__u32 drop_reason;
	__u64 drop_location;
	__u8 header[HEADER_ROOM];
};

/* What the agent wants of an interface; 0: nothing in this direction. */
struct port_rates {
	__u32 rate[2];
};

/* Of one interface, one direction and one CPU. */
struct sampler_state {
	/* Packets that could have been chosen, those that were, and of those the ones that found the ring full. */
	__u64 packets;
	__u64 chosen;
	__u64 lost;
	/* Events of packets that could not be followed: they belong to somebody, or too many are under way. */
	__u64 not_followed;
	/* The rate that skip was drawn for. */
	__u32 rate;
	/* Packets up to the next one to choose, that one included. */
	__u32 skip;
	/* Of the settings, when the rate was read. */
	__u32 generation;
	__u32 reserved;
};

struct port_state {
	struct sampler_state direction[2];
	__u32 ifindex;
	/* 1: packets that come in here may leave elsewhere. */
	__u32 forwards;
};

enum slot_state {
	FREE = 0,
	/* Its packet is under way. */
	BUSY = 1,
	/* Somebody, a program or the agent, is at work with it and will give it back. */
	TAKEN = 2,
};

/* A packet under way. What is to be reported of it is in the event. */
struct slot {
	__u32 state;
	__u32 reserved;
	/* Its address tells it from a clone. */
	__u64 packet;
	struct packet_event event;
};

/* Fixed when the programs are loaded. */
struct constants {
	/* Octets of a packet to carry, 1 to HEADER_MOST. */
	__u32 header_bytes;
	/* 1: follow packets. */
	__u32 follow;
	/* The network namespace of the interfaces. */
	__u32 namespace;
};

/* Written while the programs run. */
struct control {
	/* By the agent: grows when any rate has changed. */
	__u32 generation;
	/* By the agent: 1 while it waits to be woken by the next event. */
	__u32 asleep;
	/* By the programs: the slot that is tried next, modulo FOLLOW_SLOTS. */
	__u32 next_slot;
};

#endif
