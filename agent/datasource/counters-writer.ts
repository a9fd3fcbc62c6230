import type { Datagrams } from '../export/datagrams.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import { type CountersSampleInput, countersSampleSize, writeCountersSample } from '../wire/sflow/samples.ts'
import { WireError, Writer } from '../wire/xdr.ts'

const INTERFACE_SOURCE = 0

/**
 * Writes counters samples into the open datagram. A sample that is too long for one datagram becomes several of the
 * same source, which the standard allows; a structure that is too long by itself is counted and left out.
 */
export class CountersWriter {
  /** Structures to be written = exported + the losses `too-long` and `invalid` of stage `counters`. */
  offered = 0
  /** Structures written. */
  exported = 0
  /** Samples written. */
  samples = 0
  readonly #datagrams: Datagrams
  readonly #tooLong: Loss
  readonly #invalid: Loss
  /** The first thing wrong since takeProblem() was asked. */
  #problem: string | undefined

  constructor(datagrams: Datagrams, ledger: Ledger) {
    this.#datagrams = datagrams
    this.#tooLong = ledger.loss(
      'counters',
      'too-long',
      'structures longer than a datagram, for example the adapters of a host with very many; raise datagramBytes',
    )
    this.#invalid = ledger.loss('counters', 'invalid', 'structures with a value that its field cannot carry')
  }

  /** Writes the sample and returns how many samples of the source it became: they take as many sequence numbers. */
  readonly write = (input: CountersSampleInput): number => {
    const { records } = input
    this.offered += records.length
    let sequence = input.sequence
    let first = 0
    // Nearly every sample fits as it is: then its size is looked at once.
    const whole = countersSampleSize(input)
    if (records.length > 0 && whole <= this.#datagrams.room) {
      if (this.#writeOne(input, whole)) sequence++
      first = records.length
    }
    while (first < records.length) {
      let end = first
      let bytes = 0
      // As many records as fit; their sizes add up, so the last try that fitted is the sample.
      for (; end < records.length; end++) {
        const size = countersSampleSize({ ...input, records: records.slice(first, end + 1) })
        if (size > this.#datagrams.room) break
        bytes = size
      }
      if (end === first) {
        this.#tooLong.count++
        this.#problem ??= `${records[first]!.record.name} does not fit into a datagram`
        first++
        continue
      }
      if (this.#writeOne({ ...input, sequence, records: records.slice(first, end) }, bytes)) sequence++
      first = end
    }
    // Wireshark cannot step over the structures of a host or a container: nothing comes behind them.
    if (input.sourceType !== INTERFACE_SOURCE) this.#datagrams.flush()
    return sequence - input.sequence
  }

  /** What was wrong since the last call, for a log line. */
  takeProblem(): string | undefined {
    const problem = this.#problem
    this.#problem = undefined
    return problem
  }

  #writeOne(input: CountersSampleInput, bytes: number): boolean {
    const at = this.#datagrams.reserve(bytes)
    try {
      writeCountersSample(new Writer(this.#datagrams.view, at, at + bytes), input)
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      this.#invalid.count += input.records.length
      this.#problem ??= error.message
      return false
    }
    this.#datagrams.commit(at + bytes)
    this.exported += input.records.length
    this.samples++
    return true
  }
}
