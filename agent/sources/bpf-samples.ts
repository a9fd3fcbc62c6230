import { readFile, stat } from 'node:fs/promises'
import type { Balance, Ledger, Loss } from '../health/ledger.ts'
import { builtFile } from '../kernel/addon.ts'
import { BpfError, BpfObject, clockOffset, patiently, possibleCpus } from '../kernel/bpf-object.ts'
import { type Promiscuity, promiscuous } from '../kernel/packet-socket.ts'
import { RingBuffer } from '../kernel/ring-buffer.ts'
import { type Drop, emptyDrop, type Name } from '../samples/drop.ts'
import {
  ABSENT,
  emptyPacketSample,
  HEADER_PROTOCOL,
  INTERNAL_INTERFACE,
  type PacketSample,
  type PacketSink,
} from '../samples/packet-sample.ts'
import { CONSTANTS, CONTROL, PACKET_EVENT, PORT_STATE, SAMPLER_STATE, SLOT } from '../wire/bpf/layout.ts'
import { headersBytes, segmentFrameBytes } from '../wire/segment.ts'
import { ClsactPrograms, type OnRepair } from './clsact-programs.ts'

/**
 * Packet samples by BPF programs at the ingress and egress of interfaces (bpf/sample.bpf.c): both directions, the
 * other interface where the kernel knows it, and an exact count of the packets that passed. A packet that passes
 * through is followed to the driver of its output interface, for the queue there and the time it took. Needs CAP_BPF,
 * CAP_PERFMON and CAP_NET_ADMIN; tested from Linux 6.1 on.
 */

export interface BpfSamplesOptions {
  readonly ledger: Ledger
  readonly sink: PacketSink
  /** Called when all packets of a batch have been given to the sink. */
  readonly onBatchEnd: () => void
  /** Gets the number of packets that passed an interface since the previous call, from poll(). */
  readonly onCounted: (ifIndex: number, packets: number) => void
  /** Octets of a packet to take at most, 0 to 256. */
  readonly headerBytes: number
  /** Follow packets through the kernel. */
  readonly transit: boolean
  /** Words for what the programs tell of a drop: its reason, by number, and the address of the code that dropped. */
  readonly names: DropNames
  /**
   * Gets a followed packet that the kernel dropped. Gives the sFlow discard reason, which the packet's sample then has
   * for an output; undefined when nothing was lost. The record is borrowed until the call returns.
   */
  readonly onDrop: (drop: Drop) => number | undefined
  /** How long a sample may wait here, milliseconds; it may change. */
  readonly lookMs?: (() => number) | undefined
  /** Tells several agents in one namespace apart; below 2^24. */
  readonly instance: number
  /** Where others can remove the programs: told when they are there again, or why they cannot be. */
  readonly onRepair: OnRepair
}

export interface DropNames {
  reason(value: number): Name | undefined
  /** `address`: two words of 32 bits. */
  symbol(high: number, low: number): Name | undefined
}

/** An interface to sample. */
export interface BpfPort {
  readonly ifIndex: number
  readonly name: string
  /** 1 in N, from 1 to 2^31. */
  readonly rate: number
  /**
   * False on an ordinary host: what it receives ends in it, so the output is the internal interface. True where
   * packets pass through: the output of a received packet is found by following it, and else unknown.
   */
  readonly forwards: boolean
  /** Make the interface receive what is addressed to others, too. */
  readonly promiscuous: boolean
  /** True when packets have no link header (tunnels, `tun`). */
  readonly layer3: boolean
}

/** What a source has counted of one interface since it was added. */
export interface PortCounts {
  /** Packets that could have been chosen: chosen + not chosen. */
  packets: number
  /** Chosen packets: delivered + lost. */
  chosen: number
  lost: number
}

/** Where the programs keep their state of an interface. */
interface Place {
  readonly map: 'ports' | 'more_ports'
  readonly key: number
}

interface Port {
  readonly port: BpfPort
  readonly place: Place
  /** By direction. */
  readonly rates: Uint32Array<ArrayBuffer>
  readonly attachments: number[]
  readonly promiscuity: Promiscuity | undefined
  readonly counts: PortCounts
  notFollowed: number
  /** Lost samples that no sample has told of yet. */
  uncharged: number
}

const OBJECT_FILE = 'bpf/sample.bpf.o'
const DIRECTIONS = ['ingress', 'egress'] as const
const PROGRAMS = { ingress: 'weir_ingress', egress: 'weir_egress' } as const
const EGRESS = 1
const PACKET_OTHERHOST = 3
/** Programs that follow packets, at trace points of the kernel. */
const FOLLOWERS = ['weir_queue', 'weir_transmit', 'weir_drop'] as const
/** Bits of enum followed in bpf/events.h. */
const FOLLOWED = { queued: 1, transmitted: 2, dropped: 4, depth: 8, local: 16 } as const
/** States of a slot there; any other is the mark of the packet under way. */
const SLOT_STATE = { free: 0, taken: 0x10000 } as const
/** Slots are looked at this often, for packets that will not be heard of any more. */
const LOOK_MS = 100
/** A packet that no queue has got by then is not passed on: routing and bridging take some microseconds. */
const PASSED_ON_MS = 100
/** A packet may wait in a queue for as long as a transit delay can tell, 2^32 ns. */
const LONGEST_WAIT_MS = 4300
const ETH_P_IPV6 = 0x86dd
const UNKNOWN_INTERFACE = 0
const FCS_BYTES = 4
/** Octets of a packet that a record has room for at most, as in bpf/events.h. */
const HEADER_MOST = 256

export class BpfSamples {
  delivered = 0
  /** Chosen packets, as of the last poll(), remove() or stop(). */
  balance: Balance = { offered: 0, delivered: 0, lost: 0 }
  readonly #options: BpfSamplesOptions
  readonly #object: BpfObject
  readonly #ring: RingBuffer
  readonly #control: Int32Array
  readonly #ports = new Map<number, Port>()
  readonly #sample: PacketSample = { ...emptyPacketSample(), tagKept: true }
  readonly #drop: Drop = emptyDrop()
  readonly #ringFull: Loss
  readonly #foreign: Loss
  readonly #late: Loss
  /** Of the ledger, what another instance has counted before this one. */
  readonly #lateBefore: number
  readonly #lostBefore: number
  /** Of interfaces that are not sampled any more. */
  #chosenBefore = 0
  readonly #notFollowed: Loss
  readonly #lostSight: Loss
  readonly #noDepth: Loss
  readonly #dropped: Loss
  /** The packets that are being followed, in memory that the programs write, too; undefined when none is. */
  readonly #slots:
    | { readonly words: Int32Array; readonly view: DataView; readonly timer: NodeJS.Timeout }
    | undefined
  /** As it was when the slots were last looked at, and how many stayed in use then. */
  #lastMark = 0
  #underWay = 0
  readonly #portSlots: number
  /** Counts of one interface on all CPUs, filled again by each look. */
  readonly #states: DataView
  /** Of a record in the ring. */
  readonly #eventBytes: number
  #clsact: ClsactPrograms | undefined
  #work: Promise<unknown> = Promise.resolve()
  /** From the monotonic clock of the programs to the time of day, nanoseconds, in two words. */
  #offsetHigh = 0
  #offsetLow = 0

  /** Loads the programs. What the kernel refuses is a BpfError. */
  static async open(options: BpfSamplesOptions): Promise<BpfSamples> {
    const { transit } = options
    const constants = new DataView(new ArrayBuffer(CONSTANTS.bytes))
    constants.setUint32(CONSTANTS.headerBytes, programHeaderBytes(options), true)
    constants.setUint32(CONSTANTS.follow, transit ? 1 : 0, true)
    constants.setUint32(CONSTANTS.namespace, (await stat('/proc/self/ns/net')).ino, true)
    const object = await BpfObject.load({
      name: OBJECT_FILE,
      bytes: await readFile(builtFile(OBJECT_FILE)),
      constants: { '.rodata': new Uint8Array(constants.buffer) },
      without: transit ? [] : FOLLOWERS,
    })
    try {
      if (transit) for (const program of FOLLOWERS) await object.attachTracing(program)
      return new BpfSamples(options, object)
    } catch (error) {
      await object.close()
      throw error
    }
  }

  private constructor(options: BpfSamplesOptions, object: BpfObject) {
    this.#options = options
    this.#object = object
    this.#eventBytes = PACKET_EVENT.bytes - HEADER_MOST + ((programHeaderBytes(options) + 7) & ~7)
    this.#ringFull = options.ledger.loss(
      'bpf',
      'ring-full',
      'samples came faster than they were taken and the ring buffer was full; sample fewer packets',
    )
    this.#foreign = options.ledger.loss(
      'bpf',
      'unknown-record',
      'the programs made a record that this version does not know; install bpf/ and the agent from one package',
    )
    this.#late = options.ledger.loss(
      'bpf',
      'sampling-ended',
      'samples of an interface that were under way when its sampling ended',
    )
    this.#lateBefore = this.#late.count
    this.#lostBefore = this.#lost
    const loss = (cause: string, help: string) => options.ledger.loss('transit', cause, help)
    this.#notFollowed = loss(
      'not-followed',
      'samples without transit: marked by another agent, or too many under way',
    )
    this.#lostSight = loss(
      'lost-sight',
      'samples without transit: cloned, redirected, held for long, or unmarked by a tc program of others',
    )
    this.#noDepth = loss(
      'no-depth',
      'samples with their output and no queue depth: the kernel ran no program when they were queued (bpf/README.md)',
    )
    this.#dropped = loss(
      'dropped',
      'sampled packets that the kernel dropped on their way; each is reported, with the reason for its output',
    )
    if (options.transit) {
      const bytes = object.entries('slots') * SLOT.bytes
      const memory = object.memory('slots', 0, bytes, 'writable')
      const view = new DataView(memory)
      const timer = setInterval(() => this.#lookAtSlots(view), LOOK_MS)
      this.#slots = { words: new Int32Array(memory), view, timer }
    }
    this.#portSlots = object.entries('ports')
    this.#states = new DataView(new ArrayBuffer(PORT_STATE.bytes * possibleCpus()))
    this.#control = new Int32Array(object.memory('.data', 0, CONTROL.bytes, 'writable'))
    this.#ring = new RingBuffer({
      object,
      map: 'events',
      onRecord: (offset, length) => this.#takeRecord(offset, length),
      onBatchEnd: options.onBatchEnd,
      mostMs: options.lookMs,
      setAsleep: asleep => Atomics.store(this.#control, CONTROL.asleep / 4, asleep ? 1 : 0),
    })
    this.#setClock()
  }

  /**
   * Samples an interface from now on; gives a warning if there is one to log. What the kernel refuses is a
   * SystemError, and nothing is left behind. Calls for one interface must not overlap.
   */
  async add(port: BpfPort): Promise<string | undefined> {
    const { ifIndex, name, rate } = port
    const rates = Uint32Array.of(rate, rate)
    const counts = { packets: 0, chosen: 0, lost: 0 }
    const promiscuity = port.promiscuous ? promiscuous(ifIndex, name) : undefined
    const place = this.#placeOf(ifIndex)
    const state: Port = {
      port,
      place,
      rates,
      attachments: [],
      promiscuity,
      counts,
      notFollowed: 0,
      uncharged: 0,
    }
    this.#ports.set(ifIndex, state)
    // It may be removed while it waits.
    const whileWanted = (update: () => void) =>
      patiently(() => {
        if (this.#ports.get(ifIndex) === state) update()
      })
    try {
      return await this.#inTurn(async () => {
        await whileWanted(() => this.#write(place, ifIndex, port.forwards))
        await whileWanted(() => this.#tune(ifIndex, state.rates))
        const warnings: string[] = []
        for (const direction of DIRECTIONS) {
          const warning = await this.#attach(state, direction)
          if (warning !== undefined) warnings.push(warning)
        }
        return warnings.length === 0 ? undefined : warnings.join('; ')
      })
    } catch (error) {
      if (this.#ports.get(ifIndex) === state) await this.remove(ifIndex)
      throw error
    }
  }

  /** Changes the rates of a sampled interface while its programs run; 0 takes nothing in that direction. */
  setRate(ifIndex: number, ingress: number, egress = ingress): void {
    const rates = Uint32Array.of(ingress, egress)
    // One that is being added will have these.
    this.#ports.get(ifIndex)?.rates.set(rates)
    this.#tune(ifIndex, rates)
  }

  /** Tells the programs the rates of an interface; without some it has no samples. */
  #tune(ifIndex: number, rates?: Uint32Array<ArrayBuffer>): void {
    if (rates === undefined) this.#object.remove('rates', keyOf(ifIndex))
    else this.#object.update('rates', keyOf(ifIndex), new Uint8Array(rates.buffer))
    Atomics.add(this.#control, CONTROL.generation / 4, 1)
  }

  /**
   * Ends sampling of an interface, which may be gone already; what was chosen before is delivered. Done when the call
   * returns, but for the programs, which are detached when the promise is fulfilled.
   */
  async remove(ifIndex: number): Promise<void> {
    const state = this.#ports.get(ifIndex)
    if (state === undefined) return
    // Needs no memory.
    this.#tune(ifIndex)
    this.#count(state)
    this.#ring.drain()
    this.#takeBack(event => this.#slots!.view.getUint32(event + PACKET_EVENT.ifindex, true) === ifIndex)
    this.#ports.delete(ifIndex)
    this.#chosenBefore += state.counts.chosen
    if (state.place.map === 'ports') this.#write(state.place, 0)
    else this.#object.remove(state.place.map, keyOf(state.place.key))
    state.promiscuity?.close()
    await this.#inTurn(async () => {
      for (const attachment of state.attachments) await this.#object.detach(attachment)
      await this.#clsact?.detach(ifIndex)
    })
  }

  /**
   * Brings pools and ledger up to date with the programs' counts; to be called every second or so. The samples of what
   * was counted are delivered before it is told: a pool that had the packets first would then count them twice.
   */
  poll(): void {
    this.#setClock()
    // What is counted after this has been chosen before: more may be chosen than is delivered, and never less.
    this.#ring.drain()
    const before = [...this.#ports.values()].map(state => ({ state, packets: state.counts.packets }))
    for (const { state } of before) this.#count(state)
    this.#strikeBalance()
    this.#ring.drain()
    for (const { state, packets } of before) {
      const passed = state.counts.packets - packets
      if (passed > 0) this.#options.onCounted(state.port.ifIndex, passed)
    }
  }

  /** Delivers what has been reported by now. */
  drain(): void {
    this.#ring.drain()
  }

  /** What the programs have counted of an interface up to the last poll(). */
  counts(ifIndex: number): Readonly<PortCounts> | undefined {
    return this.#ports.get(ifIndex)?.counts
  }

  /** Detaches everything, delivers what was chosen before, and ends. */
  async stop(): Promise<void> {
    await Promise.all([...this.#ports.keys()].map(ifIndex => this.remove(ifIndex)))
    clearInterval(this.#slots?.timer)
    this.#ring.close()
    this.#strikeBalance()
    this.#clsact?.close()
    await this.#object.close()
  }

  /** The slot of an interface, or, where another one has that, an entry of its own. */
  #placeOf(ifIndex: number): Place {
    const slot = ifIndex % this.#portSlots
    for (const { place } of this.#ports.values()) {
      if (place.map === 'ports' && place.key === slot) return { map: 'more_ports', key: ifIndex }
    }
    return { map: 'ports', key: slot }
  }

  /** Begins a state for an interface on all CPUs; 0 is none. */
  #write({ map, key }: Place, ifIndex: number, forwards = false): void {
    const states = new DataView(new ArrayBuffer(this.#states.byteLength))
    for (let at = 0; at < states.byteLength; at += PORT_STATE.bytes) {
      states.setUint32(at + PORT_STATE.ifindex, ifIndex, true)
      states.setUint32(at + PORT_STATE.forwards, forwards ? 1 : 0, true)
    }
    this.#object.update(map, keyOf(key), new Uint8Array(states.buffer))
  }

  /** Attaching and detaching, one after the other: an ifIndex may be given to a new interface meanwhile. */
  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#work.then(action)
    this.#work = result.catch(() => {})
    return result
  }

  get #lost(): number {
    return this.#ringFull.count + this.#foreign.count + this.#late.count
  }

  #strikeBalance(): void {
    // What came of an interface after its last count was chosen after it, too.
    let offered = this.#chosenBefore + this.#late.count - this.#lateBefore
    for (const { counts } of this.#ports.values()) offered += counts.chosen
    const lost = this.#lost - this.#lostBefore
    this.balance = { offered, delivered: this.delivered, lost }
  }

  /** By TCX; where the kernel does not have it, by clsact from then on. */
  async #attach(state: Port, direction: (typeof DIRECTIONS)[number]): Promise<string | undefined> {
    const { ifIndex } = state.port
    const name = PROGRAMS[direction]
    if (this.#clsact === undefined) {
      try {
        state.attachments.push(await this.#object.attachTcx(name, ifIndex))
        return undefined
      } catch (error) {
        if (!(error instanceof BpfError) || error.code !== 'EINVAL') throw error
        this.#clsact = ClsactPrograms.open(this.#options.instance, this.#options.onRepair)
      }
    }
    const descriptor = this.#object.programDescriptor(name)
    return this.#clsact.attach(ifIndex, { name, direction, descriptor })
  }

  /** Reads the counts of an interface: each CPU has its own, for each direction. */
  #count(state: Port): void {
    const states = this.#states
    const { counts, place } = state
    if (!this.#object.lookup(place.map, keyOf(place.key), new Uint8Array(states.buffer))) return
    const lostBefore = counts.lost
    let notFollowed = 0
    counts.packets = 0
    counts.chosen = 0
    counts.lost = 0
    for (let cpu = 0; cpu < states.byteLength; cpu += PORT_STATE.bytes) {
      for (let at = cpu; at < cpu + DIRECTIONS.length * SAMPLER_STATE.bytes; at += SAMPLER_STATE.bytes) {
        counts.packets += readCount(states, at + SAMPLER_STATE.packets)
        counts.chosen += readCount(states, at + SAMPLER_STATE.chosen)
        counts.lost += readCount(states, at + SAMPLER_STATE.lost)
        notFollowed += readCount(states, at + SAMPLER_STATE.notFollowed)
      }
    }
    state.uncharged += counts.lost - lostBefore
    this.#ringFull.count += counts.lost - lostBefore
    this.#notFollowed.count += notFollowed - state.notFollowed
    state.notFollowed = notFollowed
  }

  /** Takes back the slots of packets that were not heard of for so long that they never will be. */
  #lookAtSlots(view: DataView): void {
    const nextMark = Atomics.load(this.#control, CONTROL.nextMark / 4)
    if (nextMark === this.#lastMark && this.#underWay === 0) return
    this.#lastMark = nextMark
    const nowMs = Number(process.hrtime.bigint() / 1_000_000n)
    this.#underWay = this.#takeBack(event => {
      const isQueued = (view.getUint8(event + PACKET_EVENT.followed) & FOLLOWED.queued) !== 0
      const ageMs = nowMs - readCount(view, event + PACKET_EVENT.nanoseconds) / 1e6
      return ageMs >= (isQueued ? LONGEST_WAIT_MS : PASSED_ON_MS)
    })
  }

  /** Delivers the followed packets for which `isDue` holds as they are; gives the number of slots that stay in use. */
  #takeBack(isDue: (event: number) => boolean): number {
    if (this.#slots === undefined) return 0
    const { words, view } = this.#slots
    let inUse = 0
    let taken = 0
    for (let at = 0; at < view.byteLength; at += SLOT.bytes) {
      const state = (at + SLOT.state) >> 2
      const mark = words[state]!
      if (mark === SLOT_STATE.free) continue
      const event = at + SLOT.event
      // A program may be at it just now, or come to it before us.
      const isOurs =
        mark !== SLOT_STATE.taken &&
        isDue(event) &&
        Atomics.compareExchange(words, state, mark, SLOT_STATE.taken) === mark
      if (!isOurs) {
        inUse++
        continue
      }
      this.#take(words, view, event, true)
      Atomics.store(words, state, SLOT_STATE.free)
      taken++
    }
    if (taken > 0) this.#options.onBatchEnd()
    return inUse
  }

  #takeRecord(offset: number, length: number): void {
    if (length === this.#eventBytes) this.#take(this.#ring.words, this.#ring.view, offset, false)
    else this.#foreign.count++
  }

  /** `isForgotten`: the packet was followed, and not heard of any more. */
  #take(words: Int32Array, view: DataView, offset: number, isForgotten: boolean): void {
    const state = this.#ports.get(view.getUint32(offset + PACKET_EVENT.ifindex, true))
    const chosen = view.getUint16(offset + PACKET_EVENT.chosen, true)
    if (state === undefined) {
      this.#late.count += chosen
      return
    }
    const { port } = state
    const sample = this.#sample
    sample.dataSource = port.ifIndex
    sample.headerWords = words
    sample.headerOffset = offset + PACKET_EVENT.header
    sample.headerLength = view.getUint16(offset + PACKET_EVENT.headerBytes, true)
    sample.headerProtocol = HEADER_PROTOCOL.ethernet
    sample.stripped = FCS_BYTES
    if (port.layer3) {
      const isIp6 = view.getUint16(offset + PACKET_EVENT.protocol, true) === ETH_P_IPV6
      sample.headerProtocol = isIp6 ? HEADER_PROTOCOL.ipv6 : HEADER_PROTOCOL.ipv4
      sample.stripped = 0
    }
    const followed = view.getUint8(offset + PACKET_EVENT.followed)
    const isQueued = (followed & FOLLOWED.queued) !== 0
    if (isQueued && (followed & FOLLOWED.depth) === 0) this.#noDepth.count += chosen
    const isLocal = isForgotten && !isQueued && (followed & FOLLOWED.local) !== 0
    sample.egressQueue = isQueued ? view.getUint16(offset + PACKET_EVENT.outputQueue, true) : ABSENT
    sample.queueDepthBytes =
      (followed & FOLLOWED.depth) !== 0 ? view.getUint32(offset + PACKET_EVENT.queueDepth, true) : ABSENT
    sample.transitDelayNs =
      (followed & FOLLOWED.transmitted) !== 0 ? view.getUint32(offset + PACKET_EVENT.transit, true) : ABSENT
    if (view.getUint8(offset + PACKET_EVENT.direction) === EGRESS) {
      const input = view.getUint32(offset + PACKET_EVENT.ingressIfindex, true)
      sample.inputIfIndex = input === 0 ? INTERNAL_INTERFACE : input
      sample.outputIfIndex = port.ifIndex
    } else {
      sample.inputIfIndex = port.ifIndex
      // What is addressed to another station did not end here, whatever kind of host this is.
      const mayEndHere = view.getUint8(offset + PACKET_EVENT.packetType) !== PACKET_OTHERHOST
      const endsHere = mayEndHere && (port.forwards ? isLocal : true)
      sample.outputIfIndex = endsHere ? INTERNAL_INTERFACE : UNKNOWN_INTERFACE
      if (isQueued) sample.outputIfIndex = view.getUint32(offset + PACKET_EVENT.outputIfindex, true)
    }
    const low = view.getUint32(offset + PACKET_EVENT.nanoseconds, true) + this.#offsetLow
    const high = view.getUint32(offset + PACKET_EVENT.nanoseconds + 4, true) + this.#offsetHigh
    sample.timestampLow = low >>> 0
    sample.timestampHigh = (high + (low > 0xffff_ffff ? 1 : 0)) >>> 0
    sample.discardReason = ABSENT
    if ((followed & FOLLOWED.dropped) !== 0) {
      this.#dropped.count += chosen
      sample.discardReason = this.#tellDrop(view, offset, isQueued) ?? ABSENT
    } else if (isForgotten && !isLocal) {
      this.#lostSight.count += chosen
    }

    const rate = view.getUint32(offset + PACKET_EVENT.rate, true)
    const segments = view.getUint16(offset + PACKET_EVENT.segments, true)
    if (segments === 1) {
      this.#deliver(state, rate, view.getUint32(offset + PACKET_EVENT.frameBytes, true))
      return
    }
    const lastChosen = view.getUint8(offset + PACKET_EVENT.lastSegment) === 1 ? chosen : 0
    const frameBytes = view.getUint32(offset + PACKET_EVENT.frameBytes, true)
    const segmentBytes = view.getUint16(offset + PACKET_EVENT.segmentBytes, true)
    const headers = headersBytes(view, sample.headerOffset, sample.headerLength, !port.layer3)
    for (let i = 1; i <= chosen; i++) {
      this.#deliver(
        state,
        rate,
        segmentFrameBytes(frameBytes, segments, segmentBytes, headers, i === lastChosen),
      )
    }
  }

  /** Tells of the packet of #sample, which was dropped; gives the discard reason. */
  #tellDrop(view: DataView, offset: number, isQueued: boolean): number | undefined {
    const sample = this.#sample
    const drop = this.#drop
    const { names, onDrop } = this.#options
    drop.inputIfIndex = sample.inputIfIndex
    drop.outputIfIndex = isQueued ? sample.outputIfIndex : UNKNOWN_INTERFACE
    drop.headerProtocol = sample.headerProtocol
    drop.etherType = view.getUint16(offset + PACKET_EVENT.protocol, true)
    drop.frameLength = view.getUint32(offset + PACKET_EVENT.frameBytes, true) + sample.stripped
    drop.stripped = sample.stripped
    drop.headerWords = sample.headerWords
    drop.headerOffset = sample.headerOffset
    drop.headerLength = sample.headerLength
    drop.reason = names.reason(view.getUint32(offset + PACKET_EVENT.dropReason, true))
    drop.symbol = names.symbol(
      view.getUint32(offset + PACKET_EVENT.dropLocation + 4, true),
      view.getUint32(offset + PACKET_EVENT.dropLocation, true),
    )
    drop.egressQueue = sample.egressQueue
    const low = sample.timestampLow + view.getUint32(offset + PACKET_EVENT.transit, true)
    drop.timestampLow = low >>> 0
    drop.timestampHigh = (sample.timestampHigh + (low > 0xffff_ffff ? 1 : 0)) >>> 0
    return onDrop(drop)
  }

  /** Gives the sample to the sink, which may have changed it since the previous segment of the same packet. */
  #deliver(state: Port, rate: number, frameBytes: number): void {
    const sample = this.#sample
    sample.samplingRate = rate
    sample.frameLength = frameBytes + sample.stripped
    sample.lostBefore = state.uncharged
    state.uncharged = 0
    this.delivered++
    this.#options.sink(sample)
  }

  #setClock(): void {
    const offset = clockOffset()
    this.#offsetHigh = Number(BigInt.asUintN(32, offset >> 32n))
    this.#offsetLow = Number(BigInt.asUintN(32, offset))
  }
}

/** Octets of a packet that the programs take: one at least, or their verification would fail. */
function programHeaderBytes({ headerBytes }: BpfSamplesOptions): number {
  return Math.max(headerBytes, 1)
}

function keyOf(ifIndex: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(ifIndex).buffer)
}

/** A count of the kernel, below 2^53. */
function readCount(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true)
}
