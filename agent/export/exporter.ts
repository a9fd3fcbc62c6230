import { isDeepStrictEqual } from 'node:util'
import type { CollectorConfig, SampleClass } from '../config/config.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import { slippedDiscardReason } from '../wire/sflow/discard-reasons.ts'
import {
  type CollectorStatus,
  Collectors,
  type CollectorsOptions,
  type DatagramSocket,
  type SocketTarget,
} from './collectors.ts'
import { type DatagramOptions, type DatagramSink, Datagrams, type SampleFollower } from './datagrams.ts'
import { Tap, type TapFilter } from './tap.ts'

/**
 * Datagrams and who gets them. Collectors that want the same bytes share one stream of datagrams; each stream has its
 * own sequence of datagrams, so that every collector sees one without gaps. Samples are written once, into the plain
 * stream that most want: the others copy them as they are committed.
 */

export interface ExporterOptions {
  readonly collectors: readonly CollectorConfig[]
  readonly datagrams: Omit<DatagramOptions, 'agentAddress'>
  readonly ledger: Ledger
  readonly log: Logger
  readonly open: (target: SocketTarget) => DatagramSocket
  /** As for Collectors. */
  readonly follow: CollectorsOptions['follow']
  /** Milliseconds since the agent started. */
  readonly uptimeMs: () => number
}

/** Datagrams of all streams since the start. */
export interface DatagramBalance {
  readonly filled: number
  readonly given: number
  /** There was no collector for them. */
  readonly unclaimed: number
  readonly withoutAddress: number
}

/** What makes the bytes for one collector different from those for another. */
type Variant = Pick<CollectorConfig, 'send' | 'separate' | 'internalInterface' | 'dropCodes'>

/** How a flow sample or discarded packet names the device itself, unless a collector wants another number. */
const INTERNAL_INTERFACE = 0x3fffffff
/** Of an agent that has none yet. */
const NO_ADDRESS = Uint8Array.of(0, 0, 0, 0)
const PLAIN: Variant = {
  send: ['flows', 'counters', 'drops'],
  separate: false,
  internalInterface: INTERNAL_INTERFACE,
  dropCodes: 'registered',
}

export class Exporter {
  /** Where samples are written. */
  readonly datagrams: Datagrams
  readonly #options: ExporterOptions
  readonly #noAddress: Loss
  readonly #plain: Stream
  #variants: VariantStream[] = []
  #taps: readonly Tap[] = []
  #agentAddress: Uint8Array | undefined
  #datagramOptions: Omit<DatagramOptions, 'agentAddress'>
  #configs: readonly CollectorConfig[]
  /** Of streams that are gone: given to collectors, and closed. */
  #closedBefore = 0
  #filledBefore = 0
  /** Datagrams that nobody was there for, and those whose samples all others have in datagrams of their own. */
  #unclaimed = 0
  #copied = 0
  #isRunning = false

  constructor(options: ExporterOptions) {
    this.#options = options
    this.#datagramOptions = options.datagrams
    this.#configs = options.collectors
    this.#noAddress = options.ledger.loss(
      'datagrams',
      'no-agent-address',
      'no interface has an address to be known by; give one to an interface, or set agentIP',
    )
    this.#plain = this.#stream(PLAIN, options.collectors)
    this.datagrams = this.#plain.datagrams
    this.#fitVariants(options.collectors)
  }

  /** Datagrams closed for collectors since the start, those of all streams. */
  get closed(): number {
    return this.#streams.reduce((sum, { collectors }) => sum + collectors.offered, this.#closedBefore)
  }

  /** Datagrams closed, by what became of them: filled = given to collectors + unclaimed + without address + waiting. */
  get balance(): DatagramBalance {
    const all = this.#streams.reduce((sum, { datagrams }) => sum + datagrams.closed, this.#filledBefore)
    const filled = all - this.#copied
    return { filled, given: this.closed, unclaimed: this.#unclaimed, withoutAddress: this.#noAddress.count }
  }

  start(): void {
    this.#isRunning = true
    for (const { collectors } of this.#streams) collectors.start()
  }

  /** Goes on with other collectors; those that stay as they are keep their sockets, counts and sequence. */
  changeCollectors(configs: readonly CollectorConfig[]): void {
    this.datagrams.flush()
    this.#configs = configs
    this.#plain.change(configs.filter(config => isDeepStrictEqual(variantOf(config), PLAIN)))
    this.#fitVariants(configs)
  }

  /** Goes on with other limits, or as another sub-agent. */
  changeDatagrams(options: Omit<DatagramOptions, 'agentAddress'>): void {
    this.#datagramOptions = options
    for (const { datagrams } of [...this.#streams, ...this.#taps]) datagrams.change(options)
  }

  /** The address to be known by; while it is undefined nothing is sent. */
  changeAgentAddress(address: Uint8Array | undefined): void {
    this.datagrams.flush()
    this.#agentAddress = address
    if (address === undefined) return
    for (const { datagrams } of [...this.#streams, ...this.#taps]) datagrams.changeAgentAddress(address)
  }

  /**
   * Gives `sink` copies of the samples that the filter takes, from now on, in datagrams with a sequence of their own.
   * `end` ends it; the datagram that is open then is handed on.
   */
  tap(filter: TapFilter, sink: DatagramSink): { readonly tap: Tap; readonly end: () => void } {
    const options = { ...this.#datagramOptions, agentAddress: this.#agentAddress ?? NO_ADDRESS }
    const tap = new Tap(new Datagrams(options, sink, this.#options.uptimeMs), filter)
    this.#setTaps([...this.#taps, tap])
    const end = () => {
      this.#setTaps(this.#taps.filter(one => one !== tap))
      tap.stop()
    }
    return { tap, end }
  }

  /** In the order of the configuration. */
  status(): CollectorStatus[] {
    const lists = this.#streams.map(({ variant, collectors }) => ({ variant, list: collectors.status() }))
    return this.#configs.map(config => {
      const { list } = lists.find(({ variant }) => isDeepStrictEqual(variant, variantOf(config)))!
      return list.shift()!
    })
  }

  stop(): void {
    for (const stream of this.#streams) stream.stop()
  }

  get #streams(): readonly Stream[] {
    return [this.#plain, ...this.#variants]
  }

  #stream(variant: Variant, configs: readonly CollectorConfig[]): Stream {
    const own = configs.filter(config => isDeepStrictEqual(variantOf(config), variant))
    const { ledger, log, open, follow, uptimeMs } = this.#options
    const stream: Stream = new Stream(
      variant,
      new Collectors({
        collectors: own,
        ledger,
        log,
        open,
        follow,
        onPath: bytes => stream.datagrams.limit(bytes),
      }),
      new Datagrams(
        { ...this.#datagramOptions, agentAddress: this.#agentAddress ?? NO_ADDRESS },
        (memory, spans, count) => {
          if (this.#agentAddress === undefined) this.#noAddress.count += count
          else if (!stream.collectors.isEmpty) stream.collectors.send(memory, spans, count)
          else if (this.#variants.length === 0) this.#unclaimed += count
          else this.#copied += count
        },
        uptimeMs,
      ),
    )
    return stream
  }

  /** One stream for each variant that a collector wants. */
  #fitVariants(configs: readonly CollectorConfig[]): void {
    const wanted: Variant[] = []
    for (const config of configs) {
      const variant = variantOf(config)
      if (![PLAIN, ...wanted].some(one => isDeepStrictEqual(one, variant))) wanted.push(variant)
    }
    const before = this.#variants
    this.#variants = wanted.map(variant => {
      const own = configs.filter(config => isDeepStrictEqual(variantOf(config), variant))
      const same = before.find(stream => isDeepStrictEqual(stream.variant, variant))
      if (same !== undefined) {
        same.change(own)
        return same
      }
      const stream = this.#stream(variant, own)
      if (this.#isRunning) stream.collectors.start()
      return new VariantStream(stream, this.#options.ledger)
    })
    for (const stream of before) {
      if (this.#variants.includes(stream)) continue
      stream.stop()
      this.#closedBefore += stream.collectors.offered
      this.#filledBefore += stream.datagrams.closed
    }
    this.#setTaps(this.#taps)
  }

  #setTaps(taps: readonly Tap[]): void {
    this.#taps = taps
    this.datagrams.followers = [...this.#variants, ...taps]
  }
}

class Stream {
  readonly variant: Variant
  readonly collectors: Collectors
  readonly datagrams: Datagrams

  constructor(variant: Variant, collectors: Collectors, datagrams: Datagrams) {
    this.variant = variant
    this.collectors = collectors
    this.datagrams = datagrams
  }

  change(configs: readonly CollectorConfig[]): void {
    this.collectors.change(configs)
    this.datagrams.limit(this.collectors.mostBytes)
  }

  stop(): void {
    this.datagrams.stop()
    this.collectors.stop()
  }
}

/** Formats of samples of enterprise 0 (sFlow v5 §5): compact, expanded. */
const CLASS_OF_FORMAT: Readonly<Record<number, SampleClass>> = {
  1: 'flows',
  3: 'flows',
  2: 'counters',
  4: 'counters',
  5: 'drops',
}
const FLOW_SAMPLE_EXPANDED = 3
const DISCARDED_PACKET = 5
/** Beyond are the structures of other enterprises, which not every collector steps over. */
const LAST_OF_ENTERPRISE_0 = 0xfff

class VariantStream extends Stream implements SampleFollower {
  readonly #tooLong: Loss
  #lastClass: SampleClass | undefined

  constructor({ variant, collectors, datagrams }: Stream, ledger: Ledger) {
    super(variant, collectors, datagrams)
    this.#tooLong = ledger.loss(
      'datagrams',
      'too-long-for-path',
      'samples that do not fit into what the path to a collector takes at once; lower headerBytes',
    )
  }

  /** Takes a copy of a sample if its class is wanted. Samples of other enterprises have no class: all get them. */
  sample(view: DataView, words: Int32Array, start: number, end: number): void {
    const { send, separate, internalInterface, dropCodes } = this.variant
    const { datagrams } = this
    const format = view.getUint32(start)
    const sampleClass = CLASS_OF_FORMAT[format]
    if (sampleClass !== undefined && !send.includes(sampleClass)) return
    if (separate && sampleClass !== this.#lastClass) datagrams.flush()
    this.#lastClass = sampleClass
    const at = datagrams.copy(words, start, end, format === DISCARDED_PACKET || format > LAST_OF_ENTERPRISE_0)
    if (at < 0) {
      this.#tooLong.count++
      return
    }
    if (internalInterface !== INTERNAL_INTERFACE)
      replaceInternal(datagrams.view, at, format, internalInterface)
    if (dropCodes === 'hsflowd' && format === DISCARDED_PACKET) replaceReason(datagrams.view, at)
    datagrams.commit(at + end - start)
  }

  send(): void {
    this.datagrams.send()
  }

  flush(): void {
    this.datagrams.flush()
  }
}

/** Names the device itself by another number, as input and output. */
function replaceInternal(view: DataView, at: number, format: number, value: number): void {
  // flow_sample_expanded: … input format, value, output format, value; discarded_packet: … input, output.
  const offsets = format === FLOW_SAMPLE_EXPANDED ? [36, 44] : format === DISCARDED_PACKET ? [24, 28] : []
  for (const offset of offsets) {
    if (view.getUint32(at + offset) === INTERNAL_INTERFACE) view.setUint32(at + offset, value)
  }
}

/** Where a discarded_packet has its reason. */
const REASON_OFFSET = 32

/** Gives a discard reason the number that hsflowd has for it. */
function replaceReason(view: DataView, at: number): void {
  view.setUint32(at + REASON_OFFSET, slippedDiscardReason(view.getUint32(at + REASON_OFFSET)))
}

function variantOf({ send, separate, internalInterface, dropCodes }: CollectorConfig): Variant {
  return { send, separate, internalInterface, dropCodes }
}
