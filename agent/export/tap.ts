import type { SampleClass } from '../config/config.ts'
import type { Datagrams, SampleFollower } from './datagrams.ts'

/**
 * A look at what is sent, while somebody looks: copies of chosen samples, in datagrams of their own. The samples are
 * byte for byte those that collectors get. While nobody looks there is no tap, and nothing is paid.
 */

/** Which samples a tap copies. */
export interface TapFilter {
  readonly classes: readonly SampleClass[]
  /** Samples that name one of these interfaces, as data source, input or output; undefined takes them all. */
  readonly interfaces: ReadonlySet<number> | undefined
  /** One in this many of the flow samples and discarded packets that fit; counters are not thinned. */
  readonly every: number
  /** Flow samples and discarded packets per second at most; Infinity sets no limit. */
  readonly perSecond: number
}

const FLOW_SAMPLE_EXPANDED = 3
const COUNTERS_SAMPLE_EXPANDED = 4
const DISCARDED_PACKET = 5
/** The limit holds for each window of this many milliseconds. */
const WINDOW_MS = 100

export class Tap implements SampleFollower {
  /** Samples that the filter takes = copied + passed over (by `every`) + held back (by `perSecond`). */
  matched = 0
  copied = 0
  passedOver = 0
  heldBack = 0
  readonly datagrams: Datagrams
  #filter!: TapFilter
  #perWindow = 0
  #left = 0
  /** Which of `every` samples the last one was. */
  #turn = 0
  readonly #timer: NodeJS.Timeout

  constructor(datagrams: Datagrams, filter: TapFilter) {
    this.datagrams = datagrams
    this.change(filter)
    this.#timer = setInterval(() => {
      this.#left = this.#perWindow
    }, WINDOW_MS).unref()
  }

  /** Goes on with another filter. */
  change(filter: TapFilter): void {
    this.#filter = filter
    const perWindow = Math.ceil((filter.perSecond * WINDOW_MS) / 1000)
    if (perWindow === this.#perWindow) return
    this.#perWindow = perWindow
    this.#left = perWindow
  }

  sample(view: DataView, words: Int32Array, start: number, end: number): void {
    const format = view.getUint32(start)
    if (!this.#fits(view, start, format)) return
    this.matched++
    if (format !== COUNTERS_SAMPLE_EXPANDED) {
      const { every } = this.#filter
      this.#turn = this.#turn < every ? this.#turn + 1 : 1
      if (this.#turn > 1) {
        this.passedOver++
        return
      }
      if (this.#left === 0) {
        this.heldBack++
        return
      }
      this.#left--
    }
    const at = this.datagrams.copy(words, start, end, format === DISCARDED_PACKET)
    if (at < 0) {
      this.heldBack++
      return
    }
    this.datagrams.commit(at + end - start)
    this.copied++
  }

  send(): void {
    this.datagrams.send()
  }

  flush(): void {
    this.datagrams.flush()
  }

  /** Ends; what is open is handed on. */
  stop(): void {
    clearInterval(this.#timer)
    this.datagrams.stop()
  }

  #fits(view: DataView, start: number, format: number): boolean {
    const { classes, interfaces } = this.#filter
    const has = (at: number) => interfaces!.has(view.getUint32(start + at))
    // Formats of enterprise 0, as this agent writes them: format, length, sequence, source type, source index, …
    switch (format) {
      case FLOW_SAMPLE_EXPANDED:
        if (!classes.includes('flows')) return false
        return interfaces === undefined || has(16) || has(36) || has(44)
      case COUNTERS_SAMPLE_EXPANDED:
        if (!classes.includes('counters')) return false
        return interfaces === undefined || (view.getUint32(start + 12) === 0 && has(16))
      case DISCARDED_PACKET:
        if (!classes.includes('drops')) return false
        return interfaces === undefined || has(24) || has(28)
      default:
        return interfaces === undefined
    }
  }
}
