import type { Balance, Ledger, Loss } from '../health/ledger.ts'
import {
  emptyPacketSample,
  HEADER_PROTOCOL,
  INTERNAL_INTERFACE,
  type PacketSink,
} from '../samples/packet-sample.ts'
import {
  emptyNflogPacket,
  HOOK,
  isNflogPacket,
  NETDEV_HOOK,
  NFPROTO,
  type NflogPacket,
  readNflog,
} from '../wire/netlink/nflog.ts'

/**
 * Turns packets that a firewall rule has logged into packet samples, without I/O: which way they go, which interface
 * saw them, and one of so many that the rate comes to what is configured. It owns the record that it fills.
 */

export interface NflogSamplesOptions {
  /** 1 in N packets that the rule lets through to us. */
  readonly ruleRate: number
  /** 1 in N that is wanted; what the rule does not thin out is thinned here. */
  readonly rate: number
  readonly ledger: Ledger
  readonly sink: PacketSink
  /** At least 0 and below 1. */
  readonly random: () => number
}

const MESSAGE_LEAST = 16
const ETHERNET_BYTES = 14
const FCS_BYTES = 4
const ADDRESSES_BYTES = 12
const TAG_BYTES = 4
/** An Ethernet header with four tags. */
const LINK_MOST = 30
const ARPHRD_ETHER = 1
const ETH_P_IP = 0x0800
const ETH_P_IPV6 = 0x86dd
const IP6_HEADER_BYTES = 40
/** Room for the longest header that is exported, with link header and tag, and the word that ends it. */
const HEADER_MEMORY = 512
const TWO32 = 2 ** 32

export class NflogSamples {
  /** Packets logged to us = thinned + delivered + malformed. */
  packets = 0
  thinned = 0
  delivered = 0
  readonly #options: NflogSamplesOptions
  readonly #packet = emptyNflogPacket()
  readonly #sample = emptyPacketSample()
  readonly #memory = new Uint8Array(HEADER_MEMORY)
  readonly #view = new DataView(this.#memory.buffer)
  readonly #malformed: Loss
  readonly #lost: Loss
  /** One in so many of what the rule lets through. */
  #oneIn: number
  /** Packets to let go before the next sample. */
  #skip: number
  /** That of the last packet: the group begins with 0 when it is bound. */
  #sequence = -1
  /** Lost packets that do not make up a lost sample yet. */
  #uncharged = 0
  #problem: string | undefined

  constructor(options: NflogSamplesOptions) {
    this.#options = options
    this.#oneIn = oneIn(options.ruleRate, options.rate)
    this.#skip = this.#nextSkip()
    this.#malformed = options.ledger.loss(
      'nflog',
      'malformed',
      'logged packets that the kernel described wrongly',
    )
    this.#lost = options.ledger.loss(
      'nflog',
      'sequence-gap',
      'logged packets that never arrived: the socket was full; thin them out in the rule, or raise net.core.rmem_max',
    )
  }

  /** The N of 1 in N of the samples from now on. */
  get rate(): number {
    return this.#oneIn * this.#options.ruleRate
  }

  /** Wants 1 in `rate` from now on. */
  changeRate(rate: number): void {
    const before = this.#oneIn
    this.#oneIn = oneIn(this.#options.ruleRate, rate)
    if (this.#oneIn !== before) this.#skip = this.#nextSkip()
  }

  /** Takes one datagram of the socket: messages from byte `start` to `end` of `view`. */
  readonly receive = (view: DataView, _words: Int32Array, start: number, end: number): void => {
    for (let at = start; at + MESSAGE_LEAST <= end; ) {
      const length = view.getUint32(at, true)
      if (length < MESSAGE_LEAST || at + length > end) {
        this.packets++
        this.#isMalformed('message longer than its datagram', at - start)
        return
      }
      if (isNflogPacket(view, at)) this.#logged(view, at, at + length)
      at += (length + 3) & ~3
    }
  }

  /** Packets that were not thinned out on purpose. */
  balance(): Balance {
    const lost = this.#malformed.count + this.#lost.count
    const offered = this.packets - this.thinned + this.#lost.count
    return { offered, delivered: this.delivered, lost }
  }

  /** What was wrong with the first malformed message since the last call; for a log line. */
  takeProblem(): string | undefined {
    const problem = this.#problem
    this.#problem = undefined
    return problem
  }

  #logged(view: DataView, start: number, end: number): void {
    this.packets++
    const packet = this.#packet
    if (!readNflog(view, start, end, packet)) {
      this.#isMalformed(packet.problem, packet.problemOffset - start)
      return
    }
    this.#countGap(packet.sequence)
    if (this.#skip > 0) {
      this.#skip--
      this.thinned++
      return
    }
    this.#skip = this.#nextSkip()
    const sample = this.#sample
    this.#placeInterfaces(packet)
    this.#copyHeader(view, packet)
    sample.samplingRate = this.rate
    sample.lostBefore = Math.floor(this.#uncharged / this.#oneIn)
    this.#uncharged -= sample.lostBefore * this.#oneIn
    this.#placeTime(packet)
    this.delivered++
    this.#options.sink(sample)
  }

  /** Before the packet has come in it is sampled at its input, behind routing at its output. */
  #placeInterfaces(packet: NflogPacket): void {
    const sample = this.#sample
    const input = packet.physicalInput || packet.inputDevice
    const output = packet.physicalOutput || packet.outputDevice
    const { family, hook } = packet
    if (family === NFPROTO.netdev) {
      const isIngress = hook === NETDEV_HOOK.ingress
      sample.inputIfIndex = isIngress ? input : 0
      sample.outputIfIndex = isIngress ? 0 : output
      sample.dataSource = isIngress ? input : output
      return
    }
    const isLeaving = hook === HOOK.localOut || hook === HOOK.postRouting
    // What leaves and has come in by no interface was made here; what has come in as far as this ends here.
    sample.inputIfIndex = isLeaving && input === 0 ? INTERNAL_INTERFACE : input
    sample.outputIfIndex = hook === HOOK.localIn ? INTERNAL_INTERFACE : output
    sample.dataSource = isLeaving ? output : input
  }

  /** Puts link header and packet together again; without a link header the packet begins with its IP header. */
  #copyHeader(view: DataView, packet: NflogPacket): void {
    const sample = this.#sample
    const { payloadOffset, payloadLength, linkOffset, linkLength } = packet
    const isEthernet =
      linkLength >= ETHERNET_BYTES &&
      (packet.hardwareType === ARPHRD_ETHER || packet.family === NFPROTO.bridge)
    const size = packetBytes(view, packet)
    let at = 0
    if (isEthernet) {
      at = this.#copy(view, linkOffset, Math.min(linkLength, LINK_MOST), 0)
      if (packet.vlanProtocol !== 0) {
        // The tag stands between the addresses and what follows them.
        this.#memory.copyWithin(ADDRESSES_BYTES + TAG_BYTES, ADDRESSES_BYTES, at)
        this.#view.setUint16(ADDRESSES_BYTES, packet.vlanProtocol)
        this.#view.setUint16(ADDRESSES_BYTES + 2, packet.vlanTci)
        at += TAG_BYTES
      }
      sample.headerProtocol = HEADER_PROTOCOL.ethernet
      sample.frameLength = at + size + FCS_BYTES
      sample.stripped = FCS_BYTES
    } else {
      const isIp6 = packet.protocol === ETH_P_IPV6
      sample.headerProtocol = isIp6 ? HEADER_PROTOCOL.ipv6 : HEADER_PROTOCOL.ipv4
      sample.frameLength = size
      sample.stripped = 0
    }
    sample.headerWords = this.#words
    sample.headerOffset = 0
    sample.headerLength = this.#copy(view, payloadOffset, payloadLength, at)
  }

  readonly #words = new Int32Array(this.#memory.buffer)

  /** Copies bytes to `to`, as many as there is room for; gives the offset behind them. */
  #copy(view: DataView, from: number, length: number, to: number): number {
    const end = Math.min(to + length, HEADER_MEMORY)
    for (let i = to; i < end; i++) this.#memory[i] = view.getUint8(from + i - to)
    return end
  }

  #placeTime({ seconds, microseconds }: NflogPacket): void {
    const sample = this.#sample
    // Nanoseconds since 1970 have more than 53 bits: in halves, each step exact.
    const upper = (seconds >>> 16) * 1e9
    const rest = (upper % 65536) * 65536 + (seconds & 0xffff) * 1e9 + microseconds * 1000
    sample.timestampHigh = Math.floor(upper / 65536) + Math.floor(rest / TWO32)
    sample.timestampLow = rest % TWO32
  }

  #countGap(sequence: number): void {
    if (sequence < 0) return
    const step = (sequence - this.#sequence) | 0
    this.#sequence = sequence
    if (step <= 1) return
    this.#lost.count += step - 1
    this.#uncharged += step - 1
  }

  #isMalformed(problem: string, offset: number): void {
    this.#malformed.count++
    this.#problem ??= `${problem} at byte offset ${offset} of the message`
  }

  /** Uniform from 0 to 2N-2: N-1 on average, and no period that traffic could fall in step with. */
  #nextSkip(): number {
    return Math.floor(this.#options.random() * (2 * this.#oneIn - 1))
  }
}

function oneIn(ruleRate: number, rate: number): number {
  return Math.max(1, Math.ceil(rate / ruleRate))
}

/** Octets of the packet from its network header on: the kernel tells those it copied, the IP header all of them. */
function packetBytes(view: DataView, { protocol, payloadOffset, payloadLength }: NflogPacket): number {
  if (protocol === ETH_P_IP && payloadLength >= 4) {
    return Math.max(view.getUint16(payloadOffset + 2), payloadLength)
  }
  if (protocol === ETH_P_IPV6 && payloadLength >= 6) {
    return Math.max(view.getUint16(payloadOffset + 4) + IP6_HEADER_BYTES, payloadLength)
  }
  return payloadLength
}
