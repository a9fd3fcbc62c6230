import type { DatagramMemory } from '../wire/sflow/flow-sample-writer.ts'

/**
 * Fills datagrams and closes them when they are full or old. Samples of any kind are written in place: ask
 * reserve() where, write there, tell commit() where the sample ended. Closed datagrams wait in the same memory
 * until send() hands all of them to the sink in one call.
 */

export interface DatagramOptions {
  /** IPv4 or IPv6 address, 4 or 16 bytes in network order. */
  agentAddress: Uint8Array
  subAgentId: number
  /** UDP payload bytes at most. */
  maxBytes: number
  /** Longest time from a packet to its datagram, milliseconds: in the source, and then in the open datagram. */
  flushMs: number
}

/**
 * Takes `count` closed datagrams: their bytes are in `memory` at the offsets and lengths that alternate in
 * `spans`. All of it is borrowed until the call returns.
 */
export type DatagramSink = (memory: ArrayBuffer, spans: Int32Array, count: number) => void

/** Gets every sample that is committed, to have it in datagrams of its own. */
export interface SampleFollower {
  /** A whole sample, bytes `start` to `end` of `view`; `words` is the same memory. Borrowed until this returns. */
  sample(view: DataView, words: Int32Array, start: number, end: number): void
  /** Sends what is closed; flush() also what is open. */
  send(): void
  flush(): void
}

/** Datagrams that may wait to be sent; a full house is sent at once. */
const SLOTS = 64
/** BPF rings are looked at after so much of the flush time, but no later than this. */
const LOOK_PART = 1 / 6
const MOST_LOOK_MS = 40
/** Timers are late. */
const LATE = 1.25
/** The least that datagramBytes may be. */
const LEAST_MAX_BYTES = 200
const VERSION = 5

export class Datagrams implements DatagramMemory {
  view!: DataView
  words!: Int32Array
  /** Datagrams closed since the start. */
  closed = 0
  /** Samples committed since the start. */
  samples = 0
  followers: readonly SampleFollower[] = []

  #memory!: ArrayBuffer
  readonly #spans = new Int32Array(SLOTS * 2)
  #slotBytes = 0
  #flushMs: number
  readonly #sink: DatagramSink
  readonly #uptimeMs: () => number
  #headerBytes = 0
  /** Bytes for samples in an empty datagram. */
  #room = 0
  #maxBytes: number
  /** What the path takes at once. */
  #limit = Number.POSITIVE_INFINITY
  #agentAddress: Uint8Array
  #subAgentId: number
  #waiting = 0
  #start = 0
  #position = 0
  #openSamples = 0
  /** The sample being written, and the one before it in the open datagram, come last there. */
  #isLast = false
  #hasLast = false
  #sequence = 0
  #timer: NodeJS.Timeout | undefined
  #openAtLastTick = false

  /** `uptimeMs` tells the milliseconds since the agent started, on the monotonic clock. */
  constructor(options: DatagramOptions, sink: DatagramSink, uptimeMs: () => number) {
    this.#maxBytes = options.maxBytes & ~3
    this.#flushMs = options.flushMs
    this.#sink = sink
    this.#uptimeMs = uptimeMs
    this.#agentAddress = options.agentAddress
    this.#subAgentId = options.subAgentId
    this.#allocate()
    this.#layOut()
  }

  /** The most bytes that one sample can have. */
  get room(): number {
    return this.#room
  }

  /** How long a source may keep samples for itself, milliseconds: that is part of the flush time. */
  get lookMs(): number {
    return Math.min(this.#flushMs * LOOK_PART, MOST_LOOK_MS)
  }

  /** Sends what is open, then goes on under another agent address; the sequence starts again (sFlow v5 §5). */
  changeAgentAddress(address: Uint8Array): void {
    this.flush()
    this.#agentAddress = address
    this.#sequence = 0
    this.#layOut()
  }

  /**
   * Sends what is open, then goes on with other options. The sequence goes on too, but that of another sub-agent starts
   * from 1 (sFlow v5 §5). `view` and `words` may be others afterwards.
   */
  change({ subAgentId, maxBytes, flushMs }: Omit<DatagramOptions, 'agentAddress'>): void {
    this.flush()
    this.#flushMs = flushMs
    if (subAgentId !== this.#subAgentId) {
      this.#subAgentId = subAgentId
      this.#sequence = 0
    }
    this.#maxBytes = maxBytes & ~3
    if (this.#maxBytes !== this.#slotBytes) this.#allocate()
    this.#layOut()
  }

  /** From now on datagrams have this many bytes at most, if that is less than the configured limit. */
  limit(bytes: number): void {
    this.#limit = Number.isFinite(bytes) ? Math.max(bytes, LEAST_MAX_BYTES) & ~3 : bytes
    this.#room = Math.min(this.#maxBytes, this.#limit) - this.#headerBytes
  }

  /**
   * The byte offset at which a sample of `bytes` bytes may be written, or -1 if it would not fit into an empty
   * datagram. A datagram without room for it is closed first, so the size limit is never exceeded.
   *
   * Samples that are not known to every collector come `last` in a datagram: no other follows them there.
   */
  reserve(bytes: number, last = false): number {
    if (this.#hasLast && !last) this.#close()
    this.#isLast = last
    if (this.#position + bytes > this.#start + this.#headerBytes + this.#room) {
      if (bytes > this.#room) return -1
      this.#close()
    }
    return this.#position
  }

  /** The sample at the reserved offset ends at byte `end`. */
  commit(end: number): void {
    for (const follower of this.followers) follower.sample(this.view, this.words, this.#position, end)
    this.#position = end
    this.#hasLast = this.#isLast
    this.#openSamples++
    this.samples++
    if (this.#timer === undefined) this.#arm()
  }

  /**
   * Reserves room for a sample and copies it there: bytes `start` to `end` of the memory of `words`. Gives the offset of
   * the copy, which is to be committed, or -1 as reserve() does.
   */
  copy(words: Int32Array, start: number, end: number, last = false): number {
    const at = this.reserve(end - start, last)
    if (at < 0) return at
    for (let i = 0; i < (end - start) >> 2; i++) this.words[(at >> 2) + i] = words[(start >> 2) + i]!
    return at
  }

  /** Hands the closed datagrams to the sink. Sources call it once after each batch. */
  send(): void {
    for (const follower of this.followers) follower.send()
    if (this.#waiting === 0) return
    const count = this.#waiting
    this.#waiting = 0
    this.#sink(this.#memory, this.#spans, count)
    this.#moveOpenToFront(count)
  }

  /** Closes the open datagram if it has samples, and sends everything. */
  flush(): void {
    if (this.#openSamples > 0) this.#close()
    this.send()
    for (const follower of this.followers) follower.flush()
  }

  /** Flushes and stops the timer. */
  stop(): void {
    this.flush()
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  /**
   * A timer of about half the flush time runs while samples wait. A datagram found open at two ticks in a row is sent:
   * its first sample is then older than one period and younger than two, and no clock is read per sample. What is
   * closed leaves with the next tick at the latest.
   */
  #arm(): void {
    this.#openAtLastTick = false
    this.#setTimer()
  }

  #setTimer(): void {
    this.#timer = setTimeout(this.#tick, (this.#flushMs - this.lookMs * LATE) / 2)
  }

  readonly #tick = (): void => {
    this.send()
    if (this.#openSamples === 0) {
      this.#timer = undefined
      return
    }
    if (this.#openAtLastTick) {
      this.flush()
      this.#timer = undefined
      return
    }
    this.#openAtLastTick = true
    this.#setTimer()
  }

  #allocate(): void {
    this.#slotBytes = this.#maxBytes
    this.#memory = new ArrayBuffer(SLOTS * this.#slotBytes)
    this.view = new DataView(this.#memory)
    this.words = new Int32Array(this.#memory)
    this.#start = 0
  }

  #layOut(): void {
    this.#headerBytes = this.#agentAddress.length === 16 ? 40 : 28
    this.#room = Math.min(this.#maxBytes, this.#limit) - this.#headerBytes
    this.#position = this.#start + this.#headerBytes
  }

  #close(): void {
    const { view } = this
    const start = this.#start
    const address = this.#agentAddress
    view.setUint32(start, VERSION)
    view.setUint32(start + 4, address.length === 16 ? 2 : 1)
    for (let i = 0; i < address.length; i++) view.setUint8(start + 8 + i, address[i]!)
    const at = start + 8 + address.length
    this.#sequence = (this.#sequence + 1) >>> 0
    view.setUint32(at, this.#subAgentId)
    view.setUint32(at + 4, this.#sequence)
    view.setUint32(at + 8, this.#uptimeMs() >>> 0)
    view.setUint32(at + 12, this.#openSamples)

    const slot = this.#waiting
    this.#spans[slot * 2] = start
    this.#spans[slot * 2 + 1] = this.#position - start
    this.#waiting = slot + 1
    this.closed++
    this.#openSamples = 0
    this.#hasLast = false
    this.#openAtLastTick = false
    if (this.#waiting === SLOTS) {
      this.#waiting = 0
      this.#sink(this.#memory, this.#spans, SLOTS)
    }
    this.#start = this.#waiting * this.#slotBytes
    this.#position = this.#start + this.#headerBytes
  }

  /** The slots before the open datagram are free again: it becomes the first. */
  #moveOpenToFront(slots: number): void {
    const from = slots * this.#slotBytes
    const length = this.#position - this.#start
    this.words.copyWithin(0, from >> 2, (from + length) >> 2)
    this.#start = 0
    this.#position = length
  }
}
