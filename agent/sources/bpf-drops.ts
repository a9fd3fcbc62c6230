import { readFile, stat } from 'node:fs/promises'
import type { Verdict } from '../drops/classifier.ts'
import type { DropNames } from '../drops/drop-names.ts'
import { giveBack } from '../drops/kernel-names.ts'
import type { OwnSocket } from '../drops/own-datagrams.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import { builtFile } from '../kernel/addon.ts'
import { BpfObject, clockOffset, possibleCpus } from '../kernel/bpf-object.ts'
import { RingBuffer } from '../kernel/ring-buffer.ts'
import { type Drop, emptyDrop, type Name, type Names } from '../samples/drop.ts'
import { ABSENT, HEADER_PROTOCOL } from '../samples/packet-sample.ts'
import {
  DROP_CONSTANTS,
  DROP_CONTROL,
  DROP_COUNTS,
  DROP_EVENT,
  DROP_KEY,
  DROP_LEFT_OUT,
  DROP_SLOT,
} from '../wire/bpf/layout.ts'
import { readBtfTracePoint } from '../wire/btf.ts'

/**
 * Dropped packets by BPF programs at the kernel's trace points (bpf/drops.bpf.c): kfree_skb for what the kernel drops,
 * devlink_trap_report for what a switch drops. What is above the limit, or no loss, is held back inside the kernel and
 * counted there. Needs CAP_BPF and CAP_PERFMON, and type information of Linux 5.17 or newer.
 */

/** What becomes of the drops. */
export interface DropReceiver {
  /** Takes one; the record is borrowed until the call returns. */
  accept(drop: Drop): Verdict
  judge(drop: Drop): Verdict
  /** Why drops with this kernel reason are left out, whatever else is known of them. */
  leftOutByReason(reason: string): Verdict['leftOut']
  /** Drops that were seen and held back, that were lost, and that were left out. */
  heldBack(verdict: Verdict, ifIndex: number, count: number): void
  lostOf(verdict: Verdict, ifIndex: number, count: number): void
  leftOutBefore(why: NonNullable<Verdict['leftOut']>, count: number): void
  /** Drops of which nothing is known but that they were lost. */
  lost(count: number): void
  endBatch(): void
  /** What one reason on one interface may have in the second that is running. */
  readonly share: number
}

export interface BpfDropsOptions {
  readonly receiver: DropReceiver
  readonly names: Names
  readonly words: DropNames
  /** The interfaces that there are: those that are gone make room. */
  readonly interfaces: { has(ifIndex: number): boolean }
  readonly ledger: Ledger
  readonly software: boolean
  readonly hardware: boolean
  /** Octets of a packet to take, 1 to 256. */
  readonly headerBytes: number
  /** How long a drop may wait here, milliseconds; it may change. */
  readonly lookMs?: (() => number) | undefined
  /** Reports per second. */
  readonly limit: number
  /** Combinations of reason, function and interface that are kept apart, and some more; default 4096. */
  readonly slots?: number
}

/** What the running kernel has. */
export interface DropTracePoints {
  /** The program for kfree_skb; undefined where that does not exist or does not tell the reason. */
  readonly software: 'weir_drop' | 'weir_drop_at_socket' | undefined
  readonly hardware: boolean
}

const OBJECT_FILE = 'bpf/drops.bpf.o'
const HARDWARE_PROGRAM = 'weir_trap'
/** As in bpf/events.h. */
const HARDWARE_DROP = 0xffff_ffff
const LINK_HEADER = 1
const MOST_SLOTS = 4096
/** A slot whose key is gone rests for so long before it is given away again. */
const RETIREMENT_SECONDS = 3
const REASON_SUBSYSTEMS = 8
const REASONS_EACH = 512
const WISHES = { noise: 1, host: 2, hidden: 3, 'own-datagram': 4 } as const
const ETH_P_IP = 0x0800
const ETH_P_IPV6 = 0x86dd
const FCS_BYTES = 4
/** Reasons of queueing disciplines: the packet has its transmit queue by then. */
const IN_QUEUE = /^(QDISC|FQ|CAKE|DUALPI2)_/

/** Functions that drop what a device has received before it has become a received packet. */
const IN_DRIVER = /^(veth_xdp_rcv_skb|tun_get_user|tun_xdp_one)\b/

/** What is known of drops that have reason, place and interface in common. */
interface Slot {
  readonly hardware: boolean
  readonly ifIndex: number
  reason: Name | undefined
  symbol: Name | undefined
  trap: Name | undefined
  trapGroup: Name | undefined
  isInQueue: boolean
  isInDriver: boolean
  /** The verdict without the packet, and of the last one that was reported. */
  base: Verdict
  last: Verdict
  /** Of the names. */
  generation: number
  /** What has been told of. */
  heldBack: number
  lost: number
}

/** Looks into the kernel's type information, the bytes of /sys/kernel/btf/vmlinux. */
export function dropTracePoints(btf: Uint8Array): DropTracePoints {
  const parameters = readBtfTracePoint(btf, 'kfree_skb') ?? 0
  const software = parameters > 3 ? 'weir_drop_at_socket' : parameters === 3 ? 'weir_drop' : undefined
  return { software, hardware: readBtfTracePoint(btf, 'devlink_trap_report') !== undefined }
}

/** Where drops of all namespaces are seen; else those of this one alone are. */
export async function isFirstNamespace(): Promise<boolean> {
  // Settings of the whole machine are shown in its first network namespace only.
  return (await stat('/proc/sys/net/core/netdev_budget').catch(() => undefined)) !== undefined
}

export class BpfDrops {
  /** Kinds that are seen. */
  readonly feeds: readonly ('software' | 'hardware')[]
  /** Drops of all namespaces are seen. */
  readonly everywhere: boolean

  readonly #options: BpfDropsOptions
  readonly #object: BpfObject
  readonly #attachments: number[]
  readonly #ring: RingBuffer
  readonly #control: Int32Array
  readonly #slotMemory: DataView
  readonly #slotCount: number
  /** By number. */
  readonly #slots: (Slot | undefined)[] = []
  readonly #counts: DataView
  readonly #leftOutCounts: DataView
  /** Slots of interfaces that are gone, with the second in which their keys were taken away. */
  #retired: { readonly number: number; readonly second: number }[] = []
  readonly #leftOut = { noise: 0, host: 0, hidden: 0, 'own-datagram': 0 }
  readonly #drop = emptyDrop()
  readonly #ringFull: Loss
  readonly #foreign: Loss
  readonly #missed: Loss
  /** Programs that are attached. */
  readonly #programs: string[] = []
  /** The kernel's own count of what they missed, that has been told of. */
  #misses = 0
  readonly #key = new Uint32Array(1)
  #offsetHigh = 0
  #offsetLow = 0
  #stopped = false

  /** Loads and attaches the programs, which take nothing yet. What the kernel lacks is an Error, what it refuses a BpfError. */
  static async open(options: BpfDropsOptions): Promise<BpfDrops> {
    const { receiver, words, software, hardware, headerBytes } = options
    const btf = await readFile('/sys/kernel/btf/vmlinux').catch(() => undefined)
    if (btf === undefined) throw new Error('this kernel has no type information (/sys/kernel/btf/vmlinux)')
    const points = dropTracePoints(btf)
    giveBack(btf)
    if (software && points.software === undefined)
      throw new Error('the trace point kfree_skb of this kernel tells no reasons: that came with Linux 5.17')
    const programs = [
      ...(software ? [points.software!] : []),
      ...(hardware && points.hardware ? [HARDWARE_PROGRAM] : []),
    ]
    if (programs.length === 0) throw new Error('this kernel has no trace point for drops of the hardware')
    const everywhere = await isFirstNamespace()
    const constants = new DataView(new ArrayBuffer(DROP_CONSTANTS.bytes))
    constants.setUint32(DROP_CONSTANTS.headerBytes, headerBytes, true)
    constants.setUint32(DROP_CONSTANTS.namespace, (await stat('/proc/self/ns/net')).ino, true)
    constants.setUint32(DROP_CONSTANTS.everywhere, everywhere ? 1 : 0, true)
    constants.setUint32(DROP_CONSTANTS.slots, options.slots ?? MOST_SLOTS, true)
    for (const [number, name] of words.reasons()) {
      const why = name === undefined ? undefined : receiver.leftOutByReason(name.text)
      const place = (number >>> 16) * REASONS_EACH + (number & 0xffff)
      if (why === undefined || why === 'unknown-trap') continue
      if (number >>> 16 >= REASON_SUBSYSTEMS || (number & 0xffff) >= REASONS_EACH) continue
      constants.setUint8(DROP_CONSTANTS.wishes + place, WISHES[why])
    }
    const all = ['weir_drop', 'weir_drop_at_socket', HARDWARE_PROGRAM]
    const object = await BpfObject.load({
      name: OBJECT_FILE,
      bytes: await readFile(builtFile(OBJECT_FILE)),
      constants: { '.rodata': new Uint8Array(constants.buffer) },
      without: all.filter(program => !programs.includes(program)),
    })
    const source = new BpfDrops(options, object, {
      feeds: programs.map(program => (program === HARDWARE_PROGRAM ? 'hardware' : 'software')),
      everywhere,
    })
    try {
      for (const program of programs) {
        source.#attachments.push(await object.attachTracing(program))
        source.#programs.push(program)
      }
    } catch (error) {
      await source.stop()
      throw error
    }
    return source
  }

  private constructor(
    options: BpfDropsOptions,
    object: BpfObject,
    { feeds, everywhere }: Pick<BpfDrops, 'feeds' | 'everywhere'>,
  ) {
    this.#options = options
    this.#object = object
    this.#attachments = []
    this.feeds = feeds
    this.everywhere = everywhere
    const { ledger } = options
    this.#ringFull = ledger.loss(
      'bpf-drops',
      'ring-full',
      'drops to be reported came faster than they were taken and the ring buffer was full; lower dropmon.limit',
    )
    this.#foreign = ledger.loss(
      'bpf-drops',
      'unknown-record',
      'the programs made a record that this version does not know; install bpf/ and the agent from one package',
    )
    this.#missed = ledger.loss(
      'bpf-drops',
      'interrupted',
      'packets dropped by an interrupt that came while the same processor was counting another drop',
    )
    this.#slotCount = object.entries('slots')
    const bytes = this.#slotCount * DROP_SLOT.bytes
    this.#slotMemory = new DataView(object.memory('slots', 0, bytes, 'writable'))
    this.#counts = new DataView(new ArrayBuffer(DROP_COUNTS.bytes * possibleCpus()))
    this.#leftOutCounts = new DataView(new ArrayBuffer(DROP_LEFT_OUT.bytes * possibleCpus()))
    this.#control = new Int32Array(object.memory('.data', 0, DROP_CONTROL.bytes, 'writable'))
    this.#ring = new RingBuffer({
      object,
      map: 'events',
      onRecord: (offset, length) => this.#takeRecord(offset, length),
      onBatchEnd: () => options.receiver.endBatch(),
      mostMs: options.lookMs,
      setAsleep: asleep => this.#set('asleep', asleep ? 1 : 0),
    })
    this.#setClock()
  }

  /** Takes what is dropped from now on. */
  begin(): void {
    this.#beginSecond()
  }

  /** Takes nothing that is dropped from now on; to be followed by stop(). */
  end(): void {
    this.#set('second', 0)
  }

  /** Tells of what was held back, and begins another second; to be called every second after begin(). */
  poll(): void {
    if (this.#stopped || this.#get('second') === 0) return
    const second = this.#get('second')
    this.#beginSecond()
    this.#setClock()
    this.#readLeftOut()
    this.#readCounts(second - 1)
    this.#makeRoom(second)
    void this.#readMisses()
  }

  /** Leaves out what this socket sends from now on. */
  addOwn(socket: OwnSocket): void {
    for (const key of ownKeys(socket)) this.#object.update('own_sockets', key, Uint8Array.of(1))
  }

  removeOwn(socket: OwnSocket): void {
    for (const key of ownKeys(socket)) this.#object.remove('own_sockets', key)
  }

  /** Ends it; what was seen before is told of. May be called twice. */
  async stop(): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    this.end()
    for (const attachment of this.#attachments) await this.#object.detach(attachment)
    await this.#readMisses()
    this.#ring.close()
    this.#readLeftOut()
    this.#readCounts(0)
    await this.#object.close()
  }

  /** Slots that were dropped from in this second or later are looked at: a program may be a little behind. */
  #readCounts(since: number, first = 0, end = Math.min(this.#get('nextSlot'), this.#slotCount)): void {
    for (let number = first; number < end; number++) {
      const at = number * DROP_SLOT.bytes
      const second = this.#slotMemory.getUint32(at + DROP_SLOT.second, true)
      if (second === 0 || second < since) continue
      const counts = this.#counts
      this.#key[0] = number
      if (!this.#object.lookup('counts', bytesOf(this.#key), bytesOf(counts))) continue
      const seen = sumOf(counts, DROP_COUNTS.bytes, DROP_COUNTS.seen)
      const reported = sumOf(counts, DROP_COUNTS.bytes, DROP_COUNTS.reported)
      const lost = sumOf(counts, DROP_COUNTS.bytes, DROP_COUNTS.lost)
      this.#tell(this.#slotOf(number), seen - reported - lost, lost)
    }
  }

  /** A program does not run within itself; the kernel counts how often that was so, and shows it with the descriptor. */
  async #readMisses(): Promise<void> {
    const counts = this.#programs.map(async program => {
      const descriptor = this.#object.programDescriptor(program)
      const text = await readFile(`/proc/self/fdinfo/${descriptor}`, 'utf8')
      return Number(/^recursion_misses:\s*(\d+)$/m.exec(text)?.[1] ?? 0)
    })
    // What may not be read is not known.
    const misses = await Promise.all(counts).then(
      all => all.reduce((sum, count) => sum + count, 0),
      () => this.#misses,
    )
    if (misses <= this.#misses) return
    this.#missed.count += misses - this.#misses
    this.#options.receiver.lost(misses - this.#misses)
    this.#misses = misses
  }

  /**
   * Where interfaces come and go, each would leave its slots behind. A slot without its key is found by no program any
   * more; one that has found it before is done with it long before it is given away again.
   */
  #makeRoom(second: number): void {
    const { interfaces, slots: most = this.#slotCount } = this.#options
    this.#retired = this.#retired.filter(({ number, second: retired }) => {
      if (second - retired < RETIREMENT_SECONDS) return true
      this.#readCounts(0, number, number + 1)
      this.#give(number)
      return false
    })
    const used = Math.min(this.#get('nextSlot'), most)
    const free = (this.#get('freed') - this.#get('taken')) >>> 0
    if (used - free - this.#retired.length <= most / 2) return
    for (let number = 1; number < used; number++) {
      const at = number * DROP_SLOT.bytes
      const ifIndex = this.#slotMemory.getUint32(at + DROP_SLOT.key + DROP_KEY.ifindex, true)
      if (ifIndex === 0 || interfaces.has(ifIndex)) continue
      const key = new Uint8Array(this.#slotMemory.buffer, at + DROP_SLOT.key, DROP_KEY.bytes)
      if (this.#object.remove('keys', key)) this.#retired.push({ number, second })
    }
  }

  #give(number: number): void {
    const counts = bytesOf(this.#counts)
    counts.fill(0)
    this.#key[0] = number
    this.#object.update('counts', bytesOf(this.#key), counts)
    new Uint8Array(this.#slotMemory.buffer, number * DROP_SLOT.bytes, DROP_SLOT.bytes).fill(0)
    this.#slots[number] = undefined
    const freed = this.#get('freed')
    this.#object.update('free_slots', bytesOf(Uint32Array.of(freed % this.#slotCount)), bytesOf(this.#key))
    this.#set('freed', freed + 1)
  }

  #tell(slot: Slot, heldBack: number, lost: number): void {
    const { receiver } = this.#options
    // The counts of a drop that happens now are not all there yet: the next look makes up for it.
    if (heldBack > slot.heldBack) {
      receiver.heldBack(slot.last, slot.ifIndex, heldBack - slot.heldBack)
      slot.heldBack = heldBack
    }
    if (lost > slot.lost) {
      this.#ringFull.count += lost - slot.lost
      receiver.lostOf(slot.last, slot.ifIndex, lost - slot.lost)
      slot.lost = lost
    }
  }

  #readLeftOut(): void {
    const counts = this.#leftOutCounts
    this.#key[0] = 0
    if (!this.#object.lookup('left_out', bytesOf(this.#key), bytesOf(counts))) return
    for (const why of ['noise', 'host', 'hidden', 'own-datagram'] as const) {
      const count = sumOf(counts, DROP_LEFT_OUT.bytes, DROP_LEFT_OUT.count + 8 * WISHES[why])
      if (count > this.#leftOut[why]) this.#options.receiver.leftOutBefore(why, count - this.#leftOut[why])
      this.#leftOut[why] = count
    }
  }

  #beginSecond(): void {
    const { receiver, limit } = this.#options
    this.#set('share', receiver.share)
    // The receiver keeps the limit; this one is for a burst of many reasons at once.
    this.#set('limit', 2 * limit)
    this.#set('reported', 0)
    this.#set('second', this.#get('second') + 1)
  }

  #takeRecord(offset: number, length: number): void {
    if (length !== DROP_EVENT.bytes) {
      this.#foreign.count++
      return
    }
    const { words, view } = this.#ring
    const number = view.getUint32(offset + DROP_EVENT.slot, true)
    const slot = number === 0 ? this.#withoutSlot(view, offset + DROP_EVENT.key) : this.#slotOf(number)
    const drop = this.#drop
    this.#name(drop, slot)
    drop.inputIfIndex = view.getUint32(offset + DROP_EVENT.inputIfindex, true)
    drop.outputIfIndex = view.getUint32(offset + DROP_EVENT.outputIfindex, true)
    if (slot.isInDriver && drop.inputIfIndex === 0) {
      drop.inputIfIndex = drop.outputIfIndex
      drop.outputIfIndex = 0
    }
    drop.etherType = view.getUint16(offset + DROP_EVENT.protocol, true)
    drop.frameLength = view.getUint32(offset + DROP_EVENT.frameBytes, true)
    drop.stripped = 0
    drop.headerProtocol = HEADER_PROTOCOL.ethernet
    drop.headerWords = words
    drop.headerOffset = offset + DROP_EVENT.header
    drop.headerLength = view.getUint16(offset + DROP_EVENT.headerBytes, true)
    if ((view.getUint8(offset + DROP_EVENT.flags) & LINK_HEADER) !== 0) {
      drop.frameLength += FCS_BYTES
      drop.stripped = FCS_BYTES
    } else if (drop.etherType === ETH_P_IP) {
      drop.headerProtocol = HEADER_PROTOCOL.ipv4
    } else if (drop.etherType === ETH_P_IPV6) {
      drop.headerProtocol = HEADER_PROTOCOL.ipv6
    } else {
      // No protocol of sampled_header fits.
      drop.headerLength = 0
    }
    drop.egressQueue = slot.isInQueue ? view.getUint16(offset + DROP_EVENT.queue, true) : ABSENT
    const low = view.getUint32(offset + DROP_EVENT.nanoseconds, true) + this.#offsetLow
    const high = view.getUint32(offset + DROP_EVENT.nanoseconds + 4, true) + this.#offsetHigh
    drop.timestampLow = low >>> 0
    drop.timestampHigh = (high + (low > 0xffff_ffff ? 1 : 0)) >>> 0
    const verdict = this.#options.receiver.accept(drop)
    if (verdict.leftOut === undefined) slot.last = verdict
  }

  #slotOf(number: number): Slot {
    const known = this.#slots[number]
    if (known !== undefined) {
      if (known.generation !== this.#options.words.generation) this.#resolve(known, number)
      return known
    }
    const view = this.#slotMemory
    const key = number * DROP_SLOT.bytes + DROP_SLOT.key
    const slot = this.#withoutSlot(view, key)
    if (number === 0) slot.reason = undefined
    this.#slots[number] = slot
    this.#resolve(slot, number)
    return slot
  }

  /** What a key alone tells. */
  #withoutSlot(view: DataView, key: number): Slot {
    const hardware = view.getUint32(key + DROP_KEY.reason, true) === HARDWARE_DROP
    const slot: Slot = {
      hardware,
      ifIndex: view.getUint32(key + DROP_KEY.ifindex, true),
      reason: undefined,
      symbol: undefined,
      trap: undefined,
      trapGroup: undefined,
      isInQueue: false,
      isInDriver: false,
      base: UNJUDGED,
      last: UNJUDGED,
      generation: -1,
      heldBack: 0,
      lost: 0,
    }
    this.#nameByKey(slot, view, key)
    return slot
  }

  #nameByKey(slot: Slot, view: DataView, key: number): void {
    if (slot.hardware) return
    const { words } = this.#options
    slot.reason = words.reason(view.getUint32(key + DROP_KEY.reason, true))
    slot.symbol = words.symbol(
      view.getUint32(key + DROP_KEY.location + 4, true),
      view.getUint32(key + DROP_KEY.location, true),
    )
    slot.isInDriver = slot.symbol !== undefined && IN_DRIVER.test(slot.symbol.text)
    slot.isInQueue = slot.reason !== undefined && IN_QUEUE.test(slot.reason.text)
  }

  /** Finds the words for a slot, and tells the programs when nothing of it is wanted. */
  #resolve(slot: Slot, number: number): void {
    const { receiver, words, names } = this.#options
    const view = this.#slotMemory
    const at = number * DROP_SLOT.bytes
    slot.generation = words.generation
    // Slot 0 is for whatever found no other free.
    if (number > 0) this.#nameByKey(slot, view, at + DROP_SLOT.key)
    if (slot.hardware) {
      slot.trap = readText(names, view, at + DROP_SLOT.trap)
      slot.trapGroup = readText(names, view, at + DROP_SLOT.trapGroup)
    }
    const drop = emptyDrop()
    this.#name(drop, slot)
    drop.inputIfIndex = slot.ifIndex
    // A packet as good as any: what depends on it is decided for each.
    drop.etherType = ETH_P_IP
    slot.base = receiver.judge(drop)
    slot.last = slot.base
    view.setUint32(at + DROP_SLOT.silent, slot.base.leftOut === undefined ? 0 : 1, true)
  }

  #name(drop: Drop, { hardware, reason, symbol, trap, trapGroup }: Slot): void {
    drop.hardware = hardware
    drop.reason = reason
    drop.symbol = symbol
    drop.trap = trap
    drop.trapGroup = trapGroup
  }

  #get(member: keyof typeof DROP_CONTROL): number {
    return Atomics.load(this.#control, DROP_CONTROL[member] >> 2) >>> 0
  }

  #set(member: keyof typeof DROP_CONTROL, value: number): void {
    Atomics.store(this.#control, DROP_CONTROL[member] >> 2, value)
  }

  #setClock(): void {
    const offset = clockOffset()
    this.#offsetHigh = Number(BigInt.asUintN(32, offset >> 32n))
    this.#offsetLow = Number(BigInt.asUintN(32, offset))
  }
}

/** The keys of a socket in own_sockets: its cookie, and its ports with the highest bit. */
function ownKeys({ cookie, ends }: OwnSocket): Uint8Array[] {
  return [cookie, Uint8Array.of(...ends.subarray(-4), 0, 0, 0, 0x80)]
}

const UNJUDGED: Verdict = { id: 0, label: '', code: 0, leftOut: undefined }

function bytesOf({ buffer }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer)
}

/** The sum over all processors of a count, below 2^53. */
function sumOf(view: DataView, stride: number, member: number): number {
  let sum = 0
  for (let at = member; at < view.byteLength; at += stride) {
    sum += view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true)
  }
  return sum
}

/** A text that ends with NUL. */
function readText(names: Names, view: DataView, at: number): Name | undefined {
  let length = 0
  while (view.getUint8(at + length) !== 0) length++
  return names.read(view, at, length)
}
