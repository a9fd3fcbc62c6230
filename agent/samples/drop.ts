/**
 * What every source of dropped packets delivers. A source owns one Drop and fills it again for each packet; a
 * receiver takes what it needs before it returns and keeps no reference. Names stay: each is kept once, so that
 * they can be compared and looked up without making strings.
 */

import { ABSENT, HEADER_PROTOCOL } from './packet-sample.ts'

/** A word of the kernel's: a drop reason, a function, a trap. */
export interface Name {
  /** From 1, below NAMES_MOST; each name of a table has its own. */
  readonly id: number
  readonly text: string
  /** The same in UTF-8, at most 64 bytes: longer ones are cut. */
  readonly bytes: Uint8Array
}

export interface Drop {
  /** A switch dropped it and told its driver; else the kernel did. */
  hardware: boolean
  /** ifIndex, 0 when unknown or when the packet was made here. */
  inputIfIndex: number
  /** ifIndex, 0 when unknown. */
  outputIfIndex: number
  /** One of HEADER_PROTOCOL. */
  headerProtocol: number
  /** EtherType as the kernel has it, 0 when it has none. */
  etherType: number
  /** Octets on the wire: link header, payload and FCS. */
  frameLength: number
  /** Of those, octets removed before the packet was taken (the FCS: 4). */
  stripped: number
  /** The packet's first bytes; see PacketSample, whose rules hold. */
  headerWords: Int32Array
  headerOffset: number
  headerLength: number
  /** Kernel drop reason, without `SKB_DROP_REASON_`. */
  reason: Name | undefined
  /** Function that dropped it, with its offset: `name+0xoff/0xsize`. */
  symbol: Name | undefined
  /** devlink trap and its group, when `hardware`. */
  trap: Name | undefined
  trapGroup: Name | undefined
  /** Egress queue (traffic class) of the output interface, or ABSENT. */
  egressQueue: number
  /** Nanoseconds since 1970 (UTC) as two 32-bit words; both 0 when unknown. */
  timestampHigh: number
  timestampLow: number
}

/** Receives one drop; `drop` is borrowed until the call returns. */
export type DropSink = (drop: Drop) => void

/** A drop with nothing known, to be filled by the source that owns it. */
export function emptyDrop(): Drop {
  return {
    hardware: false,
    inputIfIndex: 0,
    outputIfIndex: 0,
    headerProtocol: HEADER_PROTOCOL.ethernet,
    etherType: 0,
    frameLength: 0,
    stripped: 0,
    headerWords: new Int32Array(0),
    headerOffset: 0,
    headerLength: 0,
    reason: undefined,
    symbol: undefined,
    trap: undefined,
    trapGroup: undefined,
    egressQueue: ABSENT,
    timestampHigh: 0,
    timestampLow: 0,
  }
}

/** Ids are below this, so that two of them make one number. */
export const NAMES_MOST = 4096
const NAME_BYTES = 64
/** A power of two, and so many more than names that a free slot is always near. */
const SLOTS = 4 * NAMES_MOST

/** Keeps each name once. A kernel has some hundred; what does not fit any more is not known by name. */
export class Names {
  readonly #slots = new Array<Name | undefined>(SLOTS).fill(undefined)
  #count = 0

  /** The name of these bytes; undefined for an empty one and when the table is full. Allocates for new names only. */
  read(view: DataView, offset: number, length: number): Name | undefined {
    const size = Math.min(length, NAME_BYTES)
    if (size === 0) return undefined
    let hash = 0x811c9dc5
    for (let i = 0; i < size; i++) hash = Math.imul(hash ^ view.getUint8(offset + i), 0x01000193)
    for (let slot = hash & (SLOTS - 1); ; slot = (slot + 1) & (SLOTS - 1)) {
      const name = this.#slots[slot]
      if (name === undefined) return this.#add(slot, view, offset, size)
      if (isSame(name.bytes, view, offset, size)) return name
    }
  }

  /** The name of this text. */
  of(text: string): Name | undefined {
    const bytes = new TextEncoder().encode(text)
    return this.read(new DataView(bytes.buffer), 0, bytes.length)
  }

  #add(slot: number, view: DataView, offset: number, size: number): Name | undefined {
    if (this.#count === NAMES_MOST - 1) return undefined
    const bytes = new Uint8Array(view.buffer, view.byteOffset + offset, size).slice()
    const name = { id: ++this.#count, text: new TextDecoder().decode(bytes), bytes }
    this.#slots[slot] = name
    return name
  }
}

function isSame(bytes: Uint8Array, view: DataView, offset: number, size: number): boolean {
  if (bytes.length !== size) return false
  for (let i = 0; i < size; i++) if (bytes[i] !== view.getUint8(offset + i)) return false
  return true
}
