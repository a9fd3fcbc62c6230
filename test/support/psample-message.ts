/** Builds PSAMPLE messages byte by byte, as include/uapi/linux/psample.h lays them out. */

export type Attribute = readonly [type: number, payload: Uint8Array]

export const u16 = (value: number): Uint8Array => new Uint8Array(new Uint16Array([value]).buffer)
export const u32 = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer)
export const u64 = (value: bigint): Uint8Array => new Uint8Array(new BigUint64Array([value]).buffer)

/** The attributes of a plain sample, by number; `changes` replaces or (undefined) removes some. */
export function sampleAttributes(
  changes: Readonly<Record<number, Uint8Array | undefined>> = {},
): Attribute[] {
  const all: Record<number, Uint8Array | undefined> = {
    0: u16(2),
    5: u32(1000),
    2: u32(1000),
    3: u32(1),
    4: u32(1),
    6: frame(128),
    ...changes,
  }
  return Object.entries(all).flatMap(([type, payload]) =>
    payload === undefined ? [] : [[Number(type), payload] as const],
  )
}

/** `length` bytes that begin as an Ethernet frame with IPv4 and go on counting. */
export function frame(length: number): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, i) => i & 0xff)
  bytes.set([0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45].slice(0, length))
  return bytes
}

/** A whole netlink message of family id 32, command SAMPLE. */
export function psampleMessage(attributes: readonly Attribute[]): Uint8Array {
  const parts: Uint8Array[] = [new Uint8Array(20)]
  for (const [type, payload] of attributes) {
    parts.push(u16(payload.length + 4), u16(type), payload, new Uint8Array(-payload.length & 3))
  }
  const message = Uint8Array.from(Buffer.concat(parts))
  const view = new DataView(message.buffer)
  view.setUint32(0, message.length, true)
  view.setUint16(4, 32, true)
  view.setUint8(17, 1)
  return message
}
