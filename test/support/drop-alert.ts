/** Builds the drop monitor's messages byte by byte, as include/uapi/linux/net_dropmon.h lays them out. */

import { type Attribute, frame, u16, u32, u64 } from './psample-message.ts'

const text = (value: string): Uint8Array => new TextEncoder().encode(`${value}\0`)

/** The port of an alert, ifIndex and (for hardware) name. */
export function inPort(ifIndex: number, name?: string): Uint8Array {
  const parts = [u16(8), u16(0), u32(ifIndex)]
  if (name !== undefined) {
    const bytes = text(name)
    parts.push(u16(bytes.length + 4), u16(1), bytes, new Uint8Array(-bytes.length & 3))
  }
  return Uint8Array.from(Buffer.concat(parts))
}

type Changes = Readonly<Record<number, Uint8Array | undefined>>

/** The attributes of a software drop, by number; `changes` replaces or (undefined) removes some. */
export function softwareDrop(changes: Changes = {}): Attribute[] {
  return attributesOf({
    14: u16(0),
    2: u64(0xffffffff81234567n),
    23: text('NO_SOCKET'),
    3: text('udp_queue_rcv_one_skb+0x1a5/0x550'),
    4: inPort(2),
    5: u64(1_700_000_000_123_456_789n),
    10: u32(142),
    6: u16(0x0800),
    7: frame(128),
    ...changes,
  })
}

export function hardwareDrop(changes: Changes = {}): Attribute[] {
  return attributesOf({
    14: u16(1),
    15: text('l2_drops'),
    16: text('source_mac_is_multicast'),
    4: inPort(3, 'eth1'),
    22: new Uint8Array(6),
    5: u64(1_700_000_000_000_000_001n),
    10: u32(142),
    6: u16(0x0800),
    7: frame(142),
    ...changes,
  })
}

function attributesOf(all: Changes): Attribute[] {
  return Object.entries(all).flatMap(([type, payload]) =>
    payload === undefined ? [] : [[Number(type), payload] as const],
  )
}

/** A whole netlink message of family id 33; command 5 is a packet alert. */
export function dropMessage(attributes: readonly Attribute[], command = 5): Uint8Array {
  const parts: Uint8Array[] = [new Uint8Array(20)]
  for (const [type, payload] of attributes) {
    parts.push(u16(payload.length + 4), u16(type), payload, new Uint8Array(-payload.length & 3))
  }
  const message = Uint8Array.from(Buffer.concat(parts))
  const view = new DataView(message.buffer)
  view.setUint32(0, message.length, true)
  view.setUint16(4, 33, true)
  view.setUint8(16, command)
  view.setUint8(17, 2)
  return message
}

export { text }
