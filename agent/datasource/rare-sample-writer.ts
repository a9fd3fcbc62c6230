import type { Datagrams } from '../export/datagrams.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import { type SampleValue, sampleSize, writeSample } from '../wire/sflow/block.ts'
import { WireError, Writer } from '../wire/xdr.ts'

/** Writes samples of any kind into the open datagram, those that are too rare to need a writer of their own. */
export class RareSampleWriter {
  readonly #datagrams: Datagrams
  readonly #tooLong: Loss
  readonly #invalid: Loss

  /** `stage`: where losses are counted. */
  constructor(datagrams: Datagrams, ledger: Ledger, stage: string) {
    this.#datagrams = datagrams
    this.#tooLong = ledger.loss(stage, 'too-long', 'samples longer than a datagram; raise datagramBytes')
    this.#invalid = ledger.loss(stage, 'invalid', 'samples with a value that its field cannot carry')
  }

  /**
   * False when the sample does not fit or cannot be written, which is counted. Samples that some collectors do not know
   * come `last` in a datagram.
   */
  write(sample: SampleValue, last: boolean): boolean {
    const datagrams = this.#datagrams
    try {
      const bytes = sampleSize(sample)
      const at = datagrams.reserve(bytes, last)
      if (at < 0) {
        this.#tooLong.count++
        return false
      }
      writeSample(new Writer(datagrams.view, at, at + bytes), sample)
      datagrams.commit(at + bytes)
      return true
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      this.#invalid.count++
      return false
    }
  }
}
