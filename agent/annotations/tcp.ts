import type { Ledger, Loss } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import { NETLINK_SOCK_DIAG, NetlinkSocket } from '../kernel/netlink-socket.ts'
import {
  copyPacketSample,
  emptyPacketSample,
  emptyTunnel,
  type PacketSample,
  type PacketSink,
  type SampledTcp,
  type Tunnel,
} from '../samples/packet-sample.ts'
import { parseIp4, parseIp6 } from '../wire/addresses.ts'
import { align4, NetlinkFormatError } from '../wire/netlink/attributes.ts'
import {
  type Connection,
  copyTcpState,
  emptyTcpState,
  hashLookup,
  isSameLookup,
  LOOKUP_BYTES,
  lookupSequence,
  readTcpState,
  writeLookup,
} from '../wire/netlink/inet-diag.ts'
import { messageLength } from '../wire/netlink/message.ts'
import { IP_PROTOCOL, PacketFields } from '../wire/packet.ts'

/**
 * Round-trip time, loss and window of the TCP connections of this host, for extended_tcp_info. The kernel is asked for
 * the socket of each sampled packet that one of its addresses sent or received, once for those of one connection that come
 * together; that sample waits for the answer, mostly less than a millisecond, and no other does.
 */

export interface TcpAnnotatorOptions {
  /** Look into IP-in-IP and VXLAN too. */
  readonly tunnel: boolean
  readonly ledger: Ledger
  readonly log: Logger
  /** ifIndex of the VRF that an interface belongs to, else 0. */
  readonly vrfOf: (ifIndex: number) => number
  /** Takes each sample that was held, with what was found. */
  readonly sink: PacketSink
  /** A batch of them has been given to the sink. */
  readonly onBatchEnd: () => void
}

/** Samples that may wait. A power of two. */
const SLOTS = 1024
/** Questions on their way at once: their answers fit into a receive buffer of the usual size. */
const MOST_ASKED = 128
/** Places of questions that wait to be sent, by their hash: a power of two. */
const PLACES = 2048
const NO_SLOT = -1
/** Words of a sampled header that are kept: as many as can be exported. */
const HEADER_WORDS = 64
/** Two ticks after the question, and a sample has waited long enough. */
const TICK_MS = 50
const STUCK_TICKS = 20
const RECEIVE_BYTES = 1 << 20
/** A tcp_info of 256 bytes with everything around it fits twice. */
const SLOT_BYTES = 2048
const PORT_OF_VXLAN = [4789, 8472]
const IPPROTO_IPV4 = 4
const IPPROTO_IPV6 = 41
const ETHERTYPE_IPV4 = 0x0800
const ETHERTYPE_IPV6 = 0x86dd
const VXLAN_HEADER = 8
const RECEIVED = 1
const SENT = 2

interface Held {
  readonly sample: PacketSample
  readonly words: Int32Array
  readonly tunnel: Tunnel
  readonly tcp: SampledTcp
  /** Sequence number of the question; 0 while nothing is held here. */
  sequence: number
  /** The question has been sent. */
  isAsked: boolean
  tick: number
  /** It has no question of its own: another slot of the same connection leads to it. */
  isFollower: boolean
  /** The next slot that shares this one's answer. */
  next: number
}

export class TcpAnnotator {
  /** Samples that got the state of their connection. */
  annotated = 0
  readonly #options: TcpAnnotatorOptions
  readonly #socket: NetlinkSocket
  readonly #tooMany: Loss
  readonly #unanswered: Loss
  readonly #held: Held[] = []
  readonly #free: number[] = []
  readonly #outer = new PacketFields()
  readonly #inner = new PacketFields()
  readonly #connection: Connection
  /** Addresses of this host by their last 32 bits. */
  #local = new Map<number, Uint8Array[]>()
  /** The question of each slot, and those that are being sent. */
  readonly #questions = new DataView(new ArrayBuffer(SLOTS * LOOKUP_BYTES))
  readonly #batch = new Uint8Array(MOST_ASKED * LOOKUP_BYTES)
  /** The slots of questions that wait to be sent, by their hash; what is there may be out of date. */
  readonly #places = new Uint16Array(PLACES)
  /** Slots whose questions wait to be sent: a ring from `#first` on. */
  readonly #waiting = new Uint16Array(SLOTS)
  #first = 0
  #waitingCount = 0
  /** Questions sent that have not been answered. */
  #asked = 0
  #isSending = false
  #sentTick = 0
  #generation = 0
  #tick = 0
  #timer: NodeJS.Timeout | undefined
  #headerBytes: Uint8Array = new Uint8Array(0)

  /** Opens the socket; what the kernel refuses is a SystemError. */
  constructor(options: TcpAnnotatorOptions) {
    this.#options = options
    const { ledger } = options
    this.#tooMany = ledger.loss(
      'tcp',
      'too-many',
      'samples sent without the state of their connection, because too many waited for one',
    )
    this.#unanswered = ledger.loss(
      'tcp',
      'unanswered',
      'samples sent without the state of their connection, because the kernel did not answer in time',
    )
    for (let slot = SLOTS - 1; slot >= 0; slot--) {
      this.#held[slot] = {
        sample: emptyPacketSample(),
        words: new Int32Array(HEADER_WORDS),
        tunnel: emptyTunnel(),
        tcp: { ...emptyTcpState(), direction: 0 },
        sequence: 0,
        isAsked: false,
        tick: 0,
        isFollower: false,
        next: NO_SLOT,
      }
      this.#free.push(slot)
    }
    this.#connection = {
      bytes: this.#headerBytes,
      addressBytes: 4,
      localAt: 0,
      remoteAt: 0,
      localPort: 0,
      remotePort: 0,
      boundTo: 0,
    }
    this.#socket = NetlinkSocket.open(NETLINK_SOCK_DIAG, {
      receiveBytes: RECEIVE_BYTES,
      slots: MOST_ASKED,
      slotBytes: SLOT_BYTES,
      onDatagram: this.#answered,
      onBatchEnd: () => {
        this.ask()
        options.onBatchEnd()
      },
    })
  }

  /** The addresses that this host has now. */
  setAddresses(addresses: Iterable<string>): void {
    this.#local = new Map()
    for (const text of addresses) {
      const bytes = parseIp4(text) ?? parseIp6(text)
      if (bytes === undefined) continue
      const key = keyAt(bytes, 0, bytes.length)
      this.#local.set(key, [...(this.#local.get(key) ?? []), bytes])
    }
  }

  /** True: the sample is copied, and will come to the sink. False: it is not for this, and goes its way. */
  hold(sample: PacketSample): boolean {
    const packet = this.#read(sample)
    if (packet === undefined) return false
    const direction = this.#direction(packet)
    if (direction === 0) return false
    const slot = this.#free.pop()
    if (slot === undefined) {
      this.#tooMany.count++
      return false
    }
    const held = this.#held[slot]!
    copyPacketSample(sample, held.sample, held.words, held.tunnel)
    held.tcp.direction = direction
    // The sequence names the slot; a late answer to what was held here before is told by the rest of it.
    this.#generation = (this.#generation + 1) & 0xff_ffff
    held.sequence = this.#generation * SLOTS + slot + 1
    this.#connection.boundTo = this.#boundTo(sample, packet)
    writeLookup(this.#questions, slot * LOOKUP_BYTES, held.sequence, this.#connection)
    if (!this.#follow(slot)) this.#waiting[(this.#first + this.#waitingCount++) & (SLOTS - 1)] = slot
    return true
  }

  /** True: a question for the same is about to be sent, and its answer will do. */
  #follow(slot: number): boolean {
    const questions = this.#questions
    const place = hashLookup(questions, slot * LOOKUP_BYTES) & (PLACES - 1)
    const other = this.#places[place]!
    const leader = this.#held[other]!
    this.#places[place] = slot
    const isWaiting = other !== slot && leader.sequence !== 0 && !leader.isAsked && !leader.isFollower
    if (!isWaiting || !isSameLookup(questions, slot * LOOKUP_BYTES, other * LOOKUP_BYTES)) return false
    this.#places[place] = other
    const held = this.#held[slot]!
    held.isFollower = true
    held.next = leader.next
    leader.next = slot
    return true
  }

  /** Asks the kernel for what is held: to be called at the end of each batch of samples. */
  ask(): void {
    const count = Math.min(this.#waitingCount, MOST_ASKED - this.#asked)
    if (count <= 0 || this.#isSending) return
    const questions = new Uint8Array(this.#questions.buffer)
    for (let i = 0; i < count; i++) {
      const slot = this.#waiting[(this.#first + i) & (SLOTS - 1)]!
      this.#batch.set(questions.subarray(slot * LOOKUP_BYTES, (slot + 1) * LOOKUP_BYTES), i * LOOKUP_BYTES)
      const held = this.#held[slot]!
      held.isAsked = true
      held.tick = this.#tick
    }
    this.#first = (this.#first + count) & (SLOTS - 1)
    this.#waitingCount -= count
    this.#asked += count
    this.#isSending = true
    this.#sentTick = this.#tick
    this.#timer ??= setInterval(this.#onTick, TICK_MS)
    this.#socket
      .post(this.#batch.subarray(0, count * LOOKUP_BYTES), 'ask for TCP sockets')
      .catch((error: Error) => this.#options.log.debug(error.message))
      .finally(() => {
        this.#isSending = false
        // Their time begins now: a busy machine may have taken long to send them.
        for (const held of this.#held) {
          if (held.isAsked && held.tick === this.#sentTick) held.tick = this.#tick
        }
        this.ask()
      })
  }

  /** Gives what is held to the sink as it is, and closes the socket. May be called twice. */
  stop(): void {
    this.#socket.close()
    clearInterval(this.#timer)
    this.#timer = undefined
    for (const [slot, { sequence, isFollower }] of this.#held.entries()) {
      if (sequence !== 0 && !isFollower) this.#release(slot, false)
    }
    this.#options.onBatchEnd()
  }

  /** What a TCP packet says; undefined for others. */
  #read(sample: PacketSample): PacketFields | undefined {
    const { headerWords, headerOffset, headerLength, headerProtocol } = sample
    if (this.#headerBytes.buffer !== headerWords.buffer) {
      this.#headerBytes = new Uint8Array(headerWords.buffer)
    }
    const bytes = this.#headerBytes
    const end = headerOffset + headerLength
    const outer = this.#outer
    outer.read(headerProtocol, bytes, headerOffset, end)
    if (outer.ipProtocol === IP_PROTOCOL.tcp) return outer.srcPort < 0 ? undefined : outer
    if (!this.#options.tunnel || outer.ipVersion === 0) return undefined
    const inner = this.#inner
    if (outer.ipProtocol === IP_PROTOCOL.udp && PORT_OF_VXLAN.includes(outer.dstPort)) {
      inner.readEthernet(bytes, outer.payloadAt + VXLAN_HEADER, end)
    } else if (outer.ipProtocol === IPPROTO_IPV4 || outer.ipProtocol === IPPROTO_IPV6) {
      const headerBytes = outer.ipVersion === 4 ? (bytes[outer.ipAt]! & 15) * 4 : 40
      const type = outer.ipProtocol === IPPROTO_IPV4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6
      inner.readNetwork(type, bytes, outer.ipAt + headerBytes, end)
    } else return undefined
    return inner.ipProtocol === IP_PROTOCOL.tcp && inner.srcPort >= 0 ? inner : undefined
  }

  /** Which end is here: 0 when none is, or both are. Fills the connection. */
  #direction(packet: PacketFields): number {
    const { bytes, srcAt, dstAt, srcPort, dstPort } = packet
    const length = packet.ipVersion === 4 ? 4 : 16
    const isFromHere = this.#isLocal(bytes, srcAt, length)
    if (isFromHere === this.#isLocal(bytes, dstAt, length)) return 0
    const connection = this.#connection
    connection.bytes = bytes
    connection.addressBytes = length
    connection.localAt = isFromHere ? srcAt : dstAt
    connection.remoteAt = isFromHere ? dstAt : srcAt
    connection.localPort = isFromHere ? srcPort : dstPort
    connection.remotePort = isFromHere ? dstPort : srcPort
    return isFromHere ? SENT : RECEIVED
  }

  #isLocal(bytes: Uint8Array, at: number, length: number): boolean {
    const alike = this.#local.get(keyAt(bytes, at, length))
    if (alike === undefined) return false
    for (const address of alike) {
      if (address.length !== length) continue
      let i = 0
      while (i < length && address[i] === bytes[at + i]) i++
      if (i === length) return true
    }
    return false
  }

  #boundTo(sample: PacketSample, { ipVersion, bytes, srcAt }: PacketFields): number {
    const isLinkLocal = ipVersion === 6 && bytes[srcAt] === 0xfe && (bytes[srcAt + 1]! & 0xc0) === 0x80
    return isLinkLocal ? sample.dataSource : this.#options.vrfOf(sample.dataSource)
  }

  readonly #answered = (view: DataView, _words: Int32Array, start: number, end: number): void => {
    try {
      for (let at = start, length = 0; at < end; at += align4(length)) {
        length = messageLength(view, at, end)
        const sequence = lookupSequence(view, at)
        const slot = (sequence - 1) & (SLOTS - 1)
        const held = this.#held[slot]!
        if (sequence === 0 || held.sequence !== sequence) continue
        this.#release(slot, readTcpState(view, at, at + length, held.tcp))
      }
    } catch (error) {
      if (!(error instanceof NetlinkFormatError)) throw error
      this.#socket.malformed++
    }
  }

  /** The sample in this slot leaves, and those that share its answer; gives how many they are. */
  #release(slot: number, isKnown: boolean): number {
    const held = this.#held[slot]!
    if (held.isAsked) this.#asked--
    held.isAsked = false
    let follower = held.next
    let count = 1
    this.#leave(slot, isKnown)
    while (follower !== NO_SLOT) {
      const { next, tcp } = this.#held[follower]!
      if (isKnown) copyTcpState(held.tcp, tcp)
      this.#leave(follower, isKnown)
      follower = next
      count++
    }
    return count
  }

  #leave(slot: number, isKnown: boolean): void {
    const held = this.#held[slot]!
    held.sequence = 0
    held.isFollower = false
    held.next = NO_SLOT
    held.sample.tcp = isKnown ? held.tcp : undefined
    if (isKnown) this.annotated++
    this.#options.sink(held.sample)
    this.#free.push(slot)
  }

  readonly #onTick = (): void => {
    this.#tick++
    // The kernel does not even take the questions.
    const isStuck = this.#isSending && this.#tick - this.#sentTick > STUCK_TICKS
    if (isStuck) this.#waitingCount = 0
    let holding = 0
    for (let slot = 0; slot < SLOTS; slot++) {
      const { sequence, isAsked, isFollower, tick } = this.#held[slot]!
      if (sequence === 0 || isFollower) continue
      const isOnItsWay = this.#isSending && tick === this.#sentTick
      if (isStuck || (isAsked && !isOnItsWay && this.#tick - tick >= 2)) {
        this.#unanswered.count += this.#release(slot, false)
      } else holding++
    }
    if (holding === 0 && !this.#isSending) {
      clearInterval(this.#timer)
      this.#timer = undefined
    }
    this.ask()
    this.#options.onBatchEnd()
  }
}

/** The last 32 bits of an address. */
function keyAt(bytes: Uint8Array, at: number, length: number): number {
  const end = at + length
  return (bytes[end - 4]! << 24) | (bytes[end - 3]! << 16) | (bytes[end - 2]! << 8) | bytes[end - 1]!
}
