/**
 * Packet samples by AF_PACKET: one socket for each sampled interface, both directions, the choice made by the
 * kernel at random. It needs nothing but CAP_NET_RAW, so it serves where the kernel has neither PSAMPLE nor BPF.
 */
import type { Balance, Ledger, Loss } from '../health/ledger.ts'
import {
  emptyPacketMeta,
  PACKET_OTHERHOST,
  PACKET_OUTGOING,
  PacketSocket,
  setTimestamp,
} from '../kernel/packet-socket.ts'
import {
  emptyPacketSample,
  HEADER_PROTOCOL,
  INTERNAL_INTERFACE,
  type PacketSample,
  type PacketSink,
} from '../samples/packet-sample.ts'

export interface PacketSocketSourceOptions {
  readonly ledger: Ledger
  readonly sink: PacketSink
  /** Called when all packets of a batch have been given to the sink. */
  readonly onBatchEnd: () => void
  readonly namespace?: string | undefined
  /** Receive buffer to ask for, bytes, for each socket; default 4 MiB. */
  readonly receiveBytes?: number
}

/** An interface to sample. */
export interface PacketPort {
  readonly ifIndex: number
  readonly name: string
  /** 1 in N, from 1 to 2^32-1. */
  readonly rate: number
  /** Octets of a packet to take at most. */
  readonly headerBytes: number
  readonly promiscuous: boolean
  /**
   * False on an ordinary host: what it receives ends in it and what it sends begins in it, so the other interface is
   * the internal one. True where packets pass through (a router, a bridge, the host's end of a veth): the other
   * interface is then unknown to a packet socket, and reported as that.
   */
  readonly forwards: boolean
}

/** Room for about 1,700 full-sized frames: the kernel charges over two kilobytes for each. */
const RECEIVE_BYTES = 4 << 20
const SLOTS = 64
const FCS_BYTES = 4
/** The filter takes a packet by giving a length; 0 would refuse it. */
const LEAST_SNAP_BYTES = 1
const VLAN_TAG_BYTES = 4
const MAC_ADDRESSES_BYTES = 12
const UNKNOWN_INTERFACE = 0
/** Link types with an Ethernet header; those without any header are told by the IP version (uapi/linux/if_arp.h). */
const ARPHRD_ETHER = 1
const ARPHRD_LOOPBACK = 772

interface Tap {
  readonly port: PacketPort
  readonly socket: PacketSocket
  rate: number
  /**
   * After a change of the rate, what the kernel had picked before is still in the queue: until the queue has been
   * empty once, packets older than the change are samples of this rate. 0 when there are none.
   */
  previousRate: number
  /** Time of that change, nanoseconds since 1970 in two words. */
  readonly changed: { timestampHigh: number; timestampLow: number }
  /** Dropped packets that no sample has told of yet. */
  uncharged: number
  /** Packets in the socket's queue when the kernel was last asked, less those taken since. */
  waiting: number
}

export class PacketSocketSource {
  /** Packets received = samples delivered + packets of unknown link types. */
  received = 0
  delivered = 0
  /** Packets that the kernel has picked, as of the last poll() or stop(). */
  balance: Balance = { offered: 0, delivered: 0, lost: 0 }
  readonly #options: PacketSocketSourceOptions
  readonly #taps = new Map<number, Tap>()
  /** Nothing is picked by them any more, and their queues are being emptied. */
  readonly #ending = new Set<Tap>()
  readonly #packet = emptyPacketMeta()
  readonly #sample: PacketSample = { ...emptyPacketSample(), tagKept: true }
  readonly #overrun: Loss
  readonly #linkType: Loss
  readonly #ended: Loss
  /** Of the ledger, what another instance has counted before this one. */
  readonly #lostBefore: number
  #picked = 0

  constructor(options: PacketSocketSourceOptions) {
    this.#options = options
    this.#overrun = options.ledger.loss(
      'packet-socket',
      'socket-overrun',
      'samples came faster than they were taken and the socket was full; sample fewer packets',
    )
    this.#linkType = options.ledger.loss(
      'packet-socket',
      'link-type',
      'neither Ethernet nor bare IP: sFlow has no way to carry such a header',
    )
    this.#ended = options.ledger.loss(
      'packet-socket',
      'sampling-ended',
      'samples still waiting when the agent stopped, or when their interface went away',
    )
    this.#lostBefore = this.#lost
  }

  /**
   * Samples an interface from now on; gives a warning if there is one to log. What the kernel refuses is a
   * SystemError. An interface that is already sampled is sampled anew, and what was picked before still comes.
   */
  add(port: PacketPort): string | undefined {
    this.end(port.ifIndex)
    const { namespace, receiveBytes = RECEIVE_BYTES } = this.#options
    const socket = PacketSocket.open(
      {
        ...port,
        namespace,
        receiveBytes,
        snapBytes: Math.max(port.headerBytes, LEAST_SNAP_BYTES),
        slots: SLOTS,
      },
      count => this.#receive(tap, count),
    )
    const changed = { timestampHigh: 0, timestampLow: 0 }
    const tap: Tap = { port, socket, rate: port.rate, previousRate: 0, changed, uncharged: 0, waiting: 0 }
    this.#taps.set(port.ifIndex, tap)
    return socket.receiveBuffer.warning
  }

  /** Changes the rate of a sampled interface, without a gap. */
  setRate(ifIndex: number, rate: number): void {
    const tap = this.#taps.get(ifIndex)
    if (tap === undefined || tap.rate === rate) return
    tap.socket.setRate(rate)
    const now = Date.now()
    setTimestamp(tap.changed, Math.floor(now / 1000), (now % 1000) * 1e6)
    tap.previousRate = tap.rate
    tap.rate = rate
  }

  /** Ends sampling of an interface; what was picked before still comes. */
  end(ifIndex: number): void {
    const tap = this.#taps.get(ifIndex)
    if (tap === undefined) return
    tap.socket.pickNone()
    this.#taps.delete(ifIndex)
    this.#ending.add(tap)
    this.#countDrops(tap)
    this.#closeIfEmpty(tap)
  }

  /** Ends sampling of an interface at once, because it is gone. */
  remove(ifIndex: number): void {
    for (const tap of [this.#taps.get(ifIndex), ...this.#ending]) {
      if (tap?.port.ifIndex === ifIndex) this.#close(tap)
    }
  }

  /** Brings the ledger up to date with the kernel's counts; to be called every second or so. */
  poll(): void {
    for (const tap of this.#taps.values()) this.#countDrops(tap)
    this.#strikeBalance()
  }

  stop(): void {
    for (const tap of [...this.#taps.values(), ...this.#ending]) this.#close(tap)
    this.#strikeBalance()
  }

  #strikeBalance(): void {
    this.balance = { offered: this.#picked, delivered: this.delivered, lost: this.#lost - this.#lostBefore }
  }

  get #lost(): number {
    return this.#overrun.count + this.#linkType.count + this.#ended.count
  }

  #close(tap: Tap): void {
    this.#countDrops(tap)
    this.#ended.count += tap.waiting
    tap.socket.close()
    if (!this.#ending.delete(tap)) this.#taps.delete(tap.port.ifIndex)
  }

  #closeIfEmpty(tap: Tap): void {
    if (tap.waiting > 0 || !this.#ending.delete(tap)) return
    tap.socket.close()
  }

  #countDrops(tap: Tap): void {
    const { packets, drops } = tap.socket.statistics()
    tap.waiting += packets - drops
    this.#picked += packets
    tap.uncharged += drops
    this.#overrun.count += drops
  }

  #receive(tap: Tap, count: number): void {
    // An interface that goes down is reported once; the socket goes on when it comes up again.
    if (count < 0) return
    tap.waiting -= count
    for (let slot = 0; slot < count; slot++) this.#take(tap, slot)
    if (count < SLOTS) tap.previousRate = 0
    this.#options.onBatchEnd()
    if (this.#ending.has(tap)) this.#closeIfEmpty(tap)
  }

  #take(tap: Tap, slot: number): void {
    const packet = this.#packet
    const sample = this.#sample
    const { memory } = tap.socket
    tap.socket.read(slot, packet)
    this.received++

    sample.headerWords = memory.words
    sample.headerOffset = packet.offset
    sample.headerLength = packet.length
    sample.stripped = 0
    sample.frameLength = packet.packetBytes
    if (packet.hardwareType === ARPHRD_ETHER || packet.hardwareType === ARPHRD_LOOPBACK) {
      sample.headerProtocol = HEADER_PROTOCOL.ethernet
      sample.stripped = FCS_BYTES
      sample.frameLength += FCS_BYTES
      if (packet.vlanTpid !== 0) this.#restoreTag(memory.view, memory.words)
    } else {
      const version = packet.length > 0 ? memory.view.getUint8(packet.offset) >> 4 : 0
      if (version !== 4 && version !== 6) {
        this.#linkType.count++
        return
      }
      sample.headerProtocol = version === 4 ? HEADER_PROTOCOL.ipv4 : HEADER_PROTOCOL.ipv6
    }

    const { ifIndex, forwards } = tap.port
    sample.dataSource = ifIndex
    sample.samplingRate = this.#rateOf(tap)
    if (packet.packetType === PACKET_OUTGOING) {
      sample.inputIfIndex = forwards ? UNKNOWN_INTERFACE : INTERNAL_INTERFACE
      sample.outputIfIndex = ifIndex
    } else {
      sample.inputIfIndex = ifIndex
      // What is addressed to another station did not end here, whatever kind of host this is.
      const endsHere = !forwards && packet.packetType !== PACKET_OTHERHOST
      sample.outputIfIndex = endsHere ? INTERNAL_INTERFACE : UNKNOWN_INTERFACE
    }
    sample.timestampHigh = packet.timestampHigh
    sample.timestampLow = packet.timestampLow
    sample.lostBefore = tap.uncharged
    tap.uncharged = 0
    this.delivered++
    this.#options.sink(sample)
  }

  /**
   * Puts the VLAN tag back where it was, behind the MAC addresses, which move into the headroom: the packet then
   * begins 4 bytes earlier, still at a word.
   */
  #restoreTag(view: DataView, words: Int32Array): void {
    const packet = this.#packet
    const sample = this.#sample
    if (packet.length < MAC_ADDRESSES_BYTES) return
    const start = packet.offset - VLAN_TAG_BYTES
    const word = start >> 2
    words[word] = words[word + 1]!
    words[word + 1] = words[word + 2]!
    words[word + 2] = words[word + 3]!
    view.setUint16(start + MAC_ADDRESSES_BYTES, packet.vlanTpid)
    view.setUint16(start + MAC_ADDRESSES_BYTES + 2, packet.vlanTci)
    sample.headerOffset = start
    sample.headerLength += VLAN_TAG_BYTES
    sample.frameLength += VLAN_TAG_BYTES
  }

  /** The rate that was in force when the packet was picked. */
  #rateOf(tap: Tap): number {
    if (tap.previousRate === 0) return tap.rate
    const { timestampHigh, timestampLow } = this.#packet
    const { changed } = tap
    const isOlder =
      timestampHigh < changed.timestampHigh ||
      (timestampHigh === changed.timestampHigh && timestampLow < changed.timestampLow)
    return isOlder ? tap.previousRate : tap.rate
  }
}
