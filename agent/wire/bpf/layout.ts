/** Made by packaging/bpf-layout.ts from bpf/events.h: bytes of each structure and byte offsets of its members. */

export const PACKET_EVENT = {
  bytes: 320,
  nanoseconds: 0,
  ifindex: 8,
  ingressIfindex: 12,
  rate: 16,
  frameBytes: 20,
  hash: 24,
  headerBytes: 28,
  protocol: 30,
  queue: 32,
  segments: 34,
  chosen: 36,
  segmentBytes: 38,
  direction: 40,
  packetType: 41,
  lastSegment: 42,
  reserved: 43,
  header: 48,
} as const

export const PORT_RATES = {
  bytes: 8,
  rate: 0,
} as const

export const SAMPLER_STATE = {
  bytes: 40,
  packets: 0,
  chosen: 8,
  lost: 16,
  rate: 24,
  skip: 28,
  generation: 32,
  reserved: 36,
} as const

export const PORT_STATE = {
  bytes: 88,
  direction: 0,
  ifindex: 80,
  reserved: 84,
} as const

export const CONSTANTS = {
  bytes: 4,
  headerBytes: 0,
} as const

export const CONTROL = {
  bytes: 8,
  generation: 0,
  asleep: 4,
} as const
