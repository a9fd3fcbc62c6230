/** Made by packaging/bpf-layout.ts from bpf/events.h: bytes of each structure and byte offsets of its members. */

export const PACKET_EVENT = {
  bytes: 344,
  nanoseconds: 0,
  ifindex: 8,
  ingressIfindex: 12,
  rate: 16,
  frameBytes: 20,
  hash: 24,
  outputIfindex: 28,
  queueDepth: 32,
  transit: 36,
  headerBytes: 40,
  protocol: 42,
  queue: 44,
  outputQueue: 46,
  segments: 48,
  chosen: 50,
  segmentBytes: 52,
  direction: 54,
  packetType: 55,
  lastSegment: 56,
  followed: 57,
  reserved: 58,
  dropReason: 60,
  dropLocation: 64,
  header: 72,
} as const

export const SAMPLER_STATE = {
  bytes: 48,
  packets: 0,
  chosen: 8,
  lost: 16,
  notFollowed: 24,
  rate: 32,
  skip: 36,
  generation: 40,
  reserved: 44,
} as const

export const PORT_STATE = {
  bytes: 104,
  direction: 0,
  ifindex: 96,
  forwards: 100,
} as const

export const SLOT = {
  bytes: 360,
  state: 0,
  reserved: 4,
  packet: 8,
  event: 16,
} as const

export const CONSTANTS = {
  bytes: 12,
  headerBytes: 0,
  follow: 4,
  namespace: 8,
} as const

export const CONTROL = {
  bytes: 12,
  generation: 0,
  asleep: 4,
  nextMark: 8,
} as const

export const DROP_EVENT = {
  bytes: 320,
  nanoseconds: 0,
  key: 8,
  slot: 24,
  inputIfindex: 28,
  outputIfindex: 32,
  frameBytes: 36,
  headerBytes: 40,
  protocol: 42,
  queue: 44,
  flags: 46,
  reserved: 47,
  header: 48,
} as const

export const DROP_KEY = {
  bytes: 16,
  location: 0,
  reason: 8,
  ifindex: 12,
} as const

export const DROP_SLOT = {
  bytes: 160,
  key: 0,
  second: 16,
  reported: 20,
  silent: 24,
  reserved: 28,
  trap: 32,
  trapGroup: 96,
} as const

export const DROP_COUNTS = {
  bytes: 24,
  seen: 0,
  reported: 8,
  lost: 16,
} as const

export const DROP_LEFT_OUT = {
  bytes: 40,
  count: 0,
} as const

export const DROP_CONSTANTS = {
  bytes: 4112,
  headerBytes: 0,
  namespace: 4,
  everywhere: 8,
  slots: 12,
  wishes: 16,
} as const

export const DROP_CONTROL = {
  bytes: 32,
  asleep: 0,
  share: 4,
  limit: 8,
  nextSlot: 12,
  second: 16,
  reported: 20,
  freed: 24,
  taken: 28,
} as const
