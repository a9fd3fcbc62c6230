import type { Ledger, Loss } from '../health/ledger.ts'
import { emptyPacketSample, emptyTunnel, HEADER_PROTOCOL, type PacketSink } from '../samples/packet-sample.ts'
import { emptyPsampleMessage, type PsampleMessage, readPsample, readTunnel } from '../wire/netlink/psample.ts'

/**
 * Turns PSAMPLE messages into packet samples, without I/O: decides which interface was sampled, in which
 * direction, and what was lost in between. It owns the one record that it fills for each packet.
 */

export type Direction = 'ingress' | 'egress'

/** Which interface and direction a PSAMPLE group or cookie of ours stands for. */
export interface SampledPort {
  readonly ifIndex: number
  readonly direction: Direction
}

/** What is needed to know of the machine's interfaces; agent/interfaces.ts has it. */
export interface InterfaceIndexes {
  /** The largest ifIndex there is now. */
  readonly highestIfIndex: number
  /** All ifIndexes whose low 16 bits are these. */
  byLow16(low: number): ReadonlySet<number> | undefined
  /** True when the interface carries frames without a link header (tunnels, `tun`). */
  isLayer3(ifIndex: number): boolean
}

/** The groups whose samples are taken; undefined takes none. */
export interface PsampleGroups {
  readonly ingressGroup: number | undefined
  readonly egressGroup: number | undefined
  /** Whether samples tell of tunnels. */
  readonly tunnels?: boolean
}

export interface PsampleSamplesOptions extends PsampleGroups {
  readonly interfaces: InterfaceIndexes
  readonly ledger: Ledger
  readonly sink: PacketSink
  /** Groups that one sampler of ours has for itself. */
  readonly portOfGroup?: ((group: number) => SampledPort | undefined) | undefined
  /** The cookie of one of our tc samplers, `length` bytes at `offset`. */
  readonly portOfCookie?:
    | ((view: DataView, offset: number, length: number) => SampledPort | undefined)
    | undefined
}

/** What was seen of one PSAMPLE group. */
interface GroupState {
  readonly number: number
  /** Undefined: not a group of ours, its samples are for somebody else. */
  readonly direction: Direction | undefined
  /** The interface, where the group belongs to a single one; else 0. */
  readonly ifIndex: number
  started: boolean
  /** Highest sequence number seen. */
  last: number
  /** Sequence numbers passed since the group was first seen, and samples received of them. */
  advanced: number
  received: number
  /** Numbers skipped and not yet charged to a sample. Negative when late samples arrived meanwhile. */
  uncharged: number
}

/** Frames without FCS reach us; the wire had these octets more. */
const FCS_BYTES = 4
/** Processors overtake each other by a few samples: a step back by more is a restart of the group. */
const REORDER_MOST = 64
/** The kernel reports ifIndexes in 16 bits (net/psample/psample.c, up to 7.2). */
const LOW16 = 65536
const ETH_P_IP = 0x0800
const ETH_P_IPV6 = 0x86dd

export class PsampleSamples {
  /** Messages seen = samples delivered + foreign + malformed + ambiguous. */
  messages = 0
  delivered = 0
  /** Messages of groups that are not ours; not a loss. */
  foreign = 0

  /** Messages that could not be read. */
  get malformed(): number {
    return this.#malformed.count
  }

  /** Messages that came and were no samples in the end. */
  get lostHere(): number {
    return this.#malformed.count + this.#ambiguous.count
  }

  readonly #options: PsampleSamplesOptions
  readonly #sink: PacketSink
  readonly #interfaces: InterfaceIndexes
  readonly #groups = new Map<number, GroupState>()
  readonly #message: PsampleMessage = emptyPsampleMessage()
  readonly #sample = emptyPacketSample()
  readonly #tunnel = emptyTunnel()
  readonly #malformed: Loss
  readonly #ambiguous: Loss
  readonly #unknownOther: Loss
  /** The first thing wrong since takeProblem() was asked. */
  #problem: string | undefined
  #lastGroup: GroupState | undefined
  #numbers: PsampleGroups
  /** Missing samples of groups that are not ours any more. */
  #missingBefore = 0

  constructor(options: PsampleSamplesOptions) {
    this.#options = options
    this.#numbers = options
    this.#sink = options.sink
    this.#interfaces = options.interfaces
    this.#malformed = options.ledger.loss(
      'psample',
      'malformed',
      'the kernel sent a PSAMPLE message that contradicts itself or is cut short',
    )
    this.#ambiguous = options.ledger.loss(
      'psample',
      'ambiguous-ifindex',
      'PSAMPLE carries 16 bits of the ifIndex and several interfaces share them; let weir place the samplers (tc { })',
    )
    this.#unknownOther = options.ledger.loss(
      'psample-interface',
      'ambiguous-other-interface',
      'samples sent with input or output unknown, because several interfaces share the 16 bits PSAMPLE carries',
    )
  }

  /**
   * Takes one datagram of the PSAMPLE socket: bytes `start` to `end` of `view`; `words` is the same memory, and
   * `start` a multiple of 4. The sink is called before this returns.
   */
  readonly receive = (view: DataView, words: Int32Array, start: number, end: number): void => {
    this.messages++
    const message = this.#message
    if (!readPsample(view, start, end, message)) {
      this.#malformed.count++
      this.#problem ??= `${message.problem} at byte offset ${message.problemOffset - start} of the message`
      return
    }
    const group = this.#groupOf(message.group)
    if (group.direction === undefined) {
      this.foreign++
      return
    }
    countSequence(group, message.groupSequence)

    let direction = group.direction
    let input =
      message.inputIfIndexBytes === 2 ? this.#fullIfIndex(message.inputIfIndex) : message.inputIfIndex
    let output =
      message.outputIfIndexBytes === 2 ? this.#fullIfIndex(message.outputIfIndex) : message.outputIfIndex
    if (group.ifIndex !== 0) {
      if (direction === 'ingress') input = group.ifIndex
      else output = group.ifIndex
    } else if (message.cookieLength > 0 && this.#options.portOfCookie !== undefined) {
      const port = this.#options.portOfCookie(view, message.cookieOffset, message.cookieLength)
      if (port !== undefined) {
        direction = port.direction
        if (direction === 'ingress') input = port.ifIndex
        else output = port.ifIndex
      }
    }
    const dataSource = direction === 'ingress' ? input : output
    if (dataSource === AMBIGUOUS) {
      this.#ambiguous.count++
      return
    }
    if (input === AMBIGUOUS || output === AMBIGUOUS) {
      this.#unknownOther.count++
      if (input === AMBIGUOUS) input = 0
      else output = 0
    }

    const sample = this.#sample
    sample.dataSource = dataSource
    sample.samplingRate = message.rate
    sample.inputIfIndex = input
    sample.outputIfIndex = output
    sample.headerProtocol = HEADER_PROTOCOL.ethernet
    sample.frameLength = message.originalSize + FCS_BYTES
    sample.stripped = FCS_BYTES
    sample.headerWords = words
    sample.headerOffset = message.dataOffset
    sample.headerLength = message.dataLength
    sample.egressQueue = message.outTc
    sample.queueDepthBytes = message.outTcOccupancy
    sample.transitDelayNs = message.latency
    sample.timestampHigh = message.timestampHigh
    sample.timestampLow = message.timestampLow
    sample.tunnel = undefined
    if (message.tunnelLength > 0 && this.#numbers.tunnels && readTunnel(view, message, this.#tunnel)) {
      // The kernel does not say whether the headers are gone or to come: a packet that leaves will get them.
      this.#tunnel.isOutput = direction === 'egress'
      sample.tunnel = this.#tunnel
    }
    if (this.#interfaces.isLayer3(dataSource)) this.#withoutLinkHeader(message)
    sample.lostBefore = 0
    if (group.uncharged > 0) {
      sample.lostBefore = group.uncharged
      group.uncharged = 0
    }
    this.delivered++
    this.#sink(sample)
  }

  /**
   * Samples that the kernel made for our groups and that never arrived, since the start: numbers passed less
   * samples received. Exact once nothing is under way, up to the kernel's own unlocked counting of the sequence.
   */
  missing(): number {
    let missing = this.#missingBefore
    for (const group of this.#groups.values()) {
      missing += missingOf(group)
    }
    return missing
  }

  /** What was wrong with the first malformed message since the last call, with its place; for a log line. */
  takeProblem(): string | undefined {
    const problem = this.#problem
    this.#problem = undefined
    return problem
  }

  /** The family is gone or came back: the sequences start again. */
  restart(): void {
    for (const group of this.#groups.values()) group.started = false
  }

  /** Goes on with other groups. Those that stay as they were keep their sequence. */
  changeGroups(numbers: PsampleGroups): void {
    this.#numbers = numbers
    for (const group of this.#groups.values()) {
      if (this.#directionOf(group.number) === group.direction) continue
      this.#missingBefore += missingOf(group)
      this.#groups.delete(group.number)
    }
    this.#lastGroup = undefined
  }

  /** Samplers were placed: a group that nobody claimed so far may now be one of theirs. */
  forgetForeignGroups(): void {
    for (const group of this.#groups.values())
      if (group.direction === undefined) this.#groups.delete(group.number)
    this.#lastGroup = undefined
  }

  #groupOf(number: number): GroupState {
    if (this.#lastGroup?.number === number) return this.#lastGroup
    const group = this.#groups.get(number) ?? this.#addGroup(number)
    this.#lastGroup = group
    return group
  }

  #addGroup(number: number): GroupState {
    const group = {
      number,
      direction: this.#directionOf(number),
      ifIndex: this.#options.portOfGroup?.(number)?.ifIndex ?? 0,
      started: false,
      last: 0,
      advanced: 0,
      received: 0,
      uncharged: 0,
    }
    this.#groups.set(number, group)
    return group
  }

  #directionOf(number: number): Direction | undefined {
    const port = this.#options.portOfGroup?.(number)
    if (port !== undefined) return port.direction
    if (number === this.#numbers.ingressGroup) return 'ingress'
    return number === this.#numbers.egressGroup ? 'egress' : undefined
  }

  /** The interface whose low 16 bits these are; AMBIGUOUS when there are several. */
  #fullIfIndex(low: number): number {
    if (this.#interfaces.highestIfIndex < LOW16) return low
    const candidates = this.#interfaces.byLow16(low)
    if (candidates === undefined || candidates.size === 0) return low
    if (candidates.size > 1) return AMBIGUOUS
    for (const ifIndex of candidates) return ifIndex
    return low
  }

  /** The interface has no link header: the packet begins with its IP header, and no FCS follows it. */
  #withoutLinkHeader(message: PsampleMessage): void {
    const sample = this.#sample
    if (message.protocol === ETH_P_IP) sample.headerProtocol = HEADER_PROTOCOL.ipv4
    else if (message.protocol === ETH_P_IPV6) sample.headerProtocol = HEADER_PROTOCOL.ipv6
    else return
    sample.frameLength = message.originalSize
    sample.stripped = 0
  }
}

/** Several interfaces share the 16 bits. */
const AMBIGUOUS = -1

function missingOf({ direction, advanced, received }: GroupState): number {
  return direction === undefined ? 0 : Math.max(0, advanced - received)
}

/**
 * Counts numbers passed against samples received. The kernel advances the sequence without a lock, so that two
 * CPUs may send one number twice or in the wrong order: a late sample takes back what its gap was charged with.
 */
function countSequence(group: GroupState, sequence: number): void {
  if (!group.started) {
    group.started = true
    group.last = sequence
    group.advanced++
    group.received++
    return
  }
  const step = (sequence - group.last) | 0
  group.received++
  if (step > 0) {
    group.last = sequence
    group.advanced += step
    group.uncharged += step - 1
  } else if (step < -REORDER_MOST) {
    group.last = sequence
    group.advanced++
  } else if (step < 0) {
    group.uncharged--
  }
}
