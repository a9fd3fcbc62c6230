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

/*
 * Packets that can be followed at a time. A followed packet has a mark in its tc_index, from 1 on: its slot is the
 * remainder of the mark less 1. As there are more marks than slots, the next packets of a slot have others.
 */
#define FOLLOW_SLOTS 8192
#define MARKS (7 * FOLLOW_SLOTS)

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

/* Anything else is the mark of its packet, which is under way. */
enum slot_state {
	FREE = 0,
	/* Somebody, a program or the agent, is at work with it and will give it back. No tc_index is as large. */
	TAKEN = 0x10000,
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
	/* By the programs: the mark that is tried next, less 1, modulo MARKS. */
	__u32 next_mark;
};

/*
 * Dropped packets (drops.bpf.c). Drops that have the same reason, place in the kernel and interface share a slot: what
 * was seen is counted there, for each CPU, and the limit is kept there. Slot 0 is for those that found none at all.
 */
#define DROP_SLOTS 4096
#define OWN_SOCKETS 4096
#define OWN_BY_PORTS (1ull << 63)
#define TRAP_NAME_ROOM 64

/* Instead of a reason: a switch dropped it, and location is the address of the trap's name. */
#define HARDWARE_DROP 0xffffffff

struct drop_key {
	/* Address of the code that dropped the packet. */
	__u64 location;
	/* enum skb_drop_reason of the running kernel, or HARDWARE_DROP. */
	__u32 reason;
	/* By which the packet came in, or else was to leave; 0 when neither is known in the agent's namespace. */
	__u32 ifindex;
};

struct drop_slot {
	struct drop_key key;
	/* The last second in which something was dropped, by drop_control, and what was reported in it. */
	__u32 second;
	__u32 reported;
	/* By the agent: 1 while nothing of this is to be reported. */
	__u32 silent;
	__u32 reserved;
	/* devlink trap and its group, with NUL. */
	char trap[TRAP_NAME_ROOM];
	char trap_group[TRAP_NAME_ROOM];
};

/* Of one slot and one CPU: what was dropped, and of that what was reported, and what found the ring full. */
struct drop_counts {
	__u64 seen;
	__u64 reported;
	__u64 lost;
};

/* How the agent wants a reason to be treated. */
enum drop_wish {
	REPORT = 0,
	NOISE = 1,
	HOST = 2,
	HIDDEN = 3,
	/* No wish, but found with a packet: it is a datagram of the agent's. */
	OWN = 4,
	DROP_WISHES = 5,
};

/* A reason's place among the wishes: its subsystem above its number there. Reasons beyond are reported. */
#define REASON_SUBSYSTEMS 8
#define REASONS_EACH 512

/* Of one CPU: drops that were not reported, by enum drop_wish. */
struct drop_left_out {
	__u64 count[DROP_WISHES];
};

enum drop_flags {
	/* The header begins with a link header. */
	LINK_HEADER = 1,
};

struct drop_event {
	/* CLOCK_MONOTONIC */
	__u64 nanoseconds;
	struct drop_key key;
	/* 0: there was none free. */
	__u32 slot;
	/* 0 when not known in the agent's namespace. */
	__u32 input_ifindex;
	__u32 output_ifindex;
	/* Of the whole packet from where the header begins, with the VLAN tag. */
	__u32 frame_bytes;
	/* Octets in header. */
	__u16 header_bytes;
	/* EtherType behind the VLAN tag, in host order. */
	__u16 protocol;
	/* Transmit queue, when it had one already. */
	__u16 queue;
	/* Bits of enum drop_flags. */
	__u8 flags;
	__u8 reserved;
	__u8 header[HEADER_ROOM];
};

/* Fixed when the programs are loaded. */
struct drop_constants {
	/* Octets of a packet to carry, 1 to HEADER_MOST. */
	__u32 header_bytes;
	/* The network namespace of the interfaces. */
	__u32 namespace;
	/* 1: report what is dropped in other namespaces, too, without its interfaces. */
	__u32 everywhere;
	/* Slots to use, at most DROP_SLOTS; the last quarter is not for single interfaces. */
	__u32 slots;
	/* enum drop_wish for each reason. */
	__u8 wishes[REASON_SUBSYSTEMS * REASONS_EACH];
};

/* Written while the programs run. */
struct drop_control {
	/* By the agent: 1 while it waits to be woken by the next event. */
	__u32 asleep;
	/* By the agent: most reports of one slot in a second, beside the first. */
	__u32 share;
	/* By the agent: most reports of all slots in a second, beside the first ones. */
	__u32 limit;
	/* By the programs: the slot that is given away next. */
	__u32 next_slot;
	/* By the agent: the number of the second that runs, from 1; it sets reported to 0 then. 0: take nothing. */
	__u32 second;
	/* By the programs: reports in this second, beside the first ones. */
	__u32 reported;
	/*
	 * Slots that are free again, in a ring of DROP_SLOTS numbers: how many the agent has put there, and how many the
	 * programs have taken.
	 */
	__u32 freed;
	__u32 taken;
};

#endif
