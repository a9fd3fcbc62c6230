import type { Datagrams } from '../export/datagrams.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import type { PacketSample } from '../samples/packet-sample.ts'
import {
  type FlowSourceState,
  flowSampleBytesWithoutHeader,
  writeFlowSample,
} from '../wire/sflow/flow-sample-writer.ts'

/**
 * Keeps what the standard asks of each data source that samples packets (sequence number, sample pool, drops:
 * sFlow v5 §5) and writes its flow samples. It does not know where packets come from or where datagrams go.
 */

interface FlowSource extends FlowSourceState {
  /** 1 in N asked for; 0 when the feed's own rate is taken as it is. */
  configuredRate: number
  /** Sum of the rates of samples held back because the feed samples more often than configured. */
  heldRate: number
  /** Packets added to the pool by samples since the last exact count. */
  poolEstimated: number
  /** Packets by which the pool was ahead of that count. */
  poolAhead: number
  /** Those of them that the samples since have not made up for: so long the pool stands still. */
  poolOwed: number
}

/** A sampled header shorter than this is of no use to a collector: it ends before the EtherType's payload. */
const LEAST_HEADER_BYTES = 16

export class Sampler {
  readonly #datagrams: Datagrams
  readonly #sources = new Map<number, FlowSource>()
  readonly #noDataSource: Loss
  readonly #tooLong: Loss
  readonly #shortened: Loss
  /** Octets of a packet to export at most. */
  headerBytes: number
  /** Samples taken from the sources. offered = exported + subSampled + the losses of stage `sampler`. */
  offered = 0
  /** Samples written into datagrams. */
  exported = 0
  /** Samples merged into a later one because the feed's rate is finer than the configured one. */
  subSampled = 0

  constructor(datagrams: Datagrams, ledger: Ledger, headerBytes: number) {
    this.#datagrams = datagrams
    this.headerBytes = headerBytes
    this.#noDataSource = ledger.loss(
      'sampler',
      'no-data-source',
      'the sample names no interface it was taken on; check that the sampler reports ifIndexes',
    )
    this.#tooLong = ledger.loss(
      'sampler',
      'too-long',
      'the sample does not fit into a datagram; raise datagramBytes',
    )
    this.#shortened = ledger.loss(
      'sampled-header',
      'shortened',
      'headers cut to fit the datagram (the samples themselves were sent); raise datagramBytes or lower headerBytes',
    )
  }

  /** Takes one sample from a source. The record is borrowed until this returns. */
  readonly accept = (sample: PacketSample): void => {
    this.offered++
    const ifIndex = sample.dataSource
    if (ifIndex === 0) {
      this.#noDataSource.count++
      return
    }
    const source = this.#sources.get(ifIndex) ?? this.#add(ifIndex)
    const rate = sample.samplingRate
    if (sample.lostBefore > 0) source.drops = (source.drops + sample.lostBefore) >>> 0
    const owed = Math.min(source.poolOwed, rate)
    source.poolOwed -= owed
    source.samplePool = (source.samplePool + rate - owed) >>> 0
    source.poolEstimated += rate - owed
    if (source.configuredRate > rate) {
      source.heldRate += rate
      if (source.heldRate + rate / 2 < source.configuredRate) {
        this.subSampled++
        return
      }
      sample.samplingRate = source.heldRate
      source.heldRate = 0
    }
    this.#write(sample, source)
  }

  /**
   * Asks for 1 in `rate` of the packets of an interface whose feed may sample more often; 0 takes the feed's rate.
   * So many samples are then merged into one that the sum of their rates, which it carries, is as near to `rate` as
   * it can be: a feed that is only a little finer, as hardware rounds it, passes as it is.
   */
  configureRate(ifIndex: number, rate: number): void {
    if (rate === 0 && !this.#sources.has(ifIndex)) return
    const source = this.#sources.get(ifIndex) ?? this.#add(ifIndex)
    if (source.configuredRate === rate) return
    source.configuredRate = rate
    source.heldRate = 0
  }

  /**
   * Corrects the sample pool of an interface by an exact count: `packets` passed its samplers since the previous
   * call. Between two calls each sample adds its rate. The pool never goes back: when the estimate ran ahead, it
   * stands still until the samples that follow have made up for it.
   */
  countedPackets(ifIndex: number, packets: number): void {
    const source = this.#sources.get(ifIndex) ?? this.#add(ifIndex)
    const ahead = source.poolAhead + source.poolEstimated - packets
    source.poolEstimated = 0
    source.poolAhead = Math.max(ahead, 0)
    source.poolOwed = source.poolAhead
    if (ahead < 0) source.samplePool = (source.samplePool - ahead) >>> 0
  }

  /** The interface is gone: a later one with the same ifIndex starts afresh. */
  forget(ifIndex: number): void {
    this.#sources.delete(ifIndex)
  }

  /** What is kept of one data source, for the status. */
  state(ifIndex: number): Readonly<FlowSourceState> | undefined {
    return this.#sources.get(ifIndex)
  }

  #write(sample: PacketSample, source: FlowSource): void {
    const datagrams = this.#datagrams
    const fixed = flowSampleBytesWithoutHeader(sample)
    const room = datagrams.room - fixed
    let length = sample.headerLength
    if (length > this.headerBytes) length = this.headerBytes
    if (length > room) {
      if (room < LEAST_HEADER_BYTES) {
        this.#tooLong.count++
        return
      }
      length = room & ~3
      this.#shortened.count++
    }
    const at = datagrams.reserve(fixed + ((length + 3) & ~3))
    source.sequence = (source.sequence + 1) >>> 0
    datagrams.commit(writeFlowSample(datagrams, at, sample, source, length))
    this.exported++
  }

  #add(ifIndex: number): FlowSource {
    const source = {
      sequence: 0,
      samplePool: 0,
      drops: 0,
      configuredRate: 0,
      heldRate: 0,
      poolEstimated: 0,
      poolAhead: 0,
      poolOwed: 0,
    }
    this.#sources.set(ifIndex, source)
    return source
  }
}
