import { TcpAnnotator } from '../annotations/tcp.ts'
import type { TcpInfoConfig } from '../config/config.ts'
import type { Ledger } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import type { Interfaces } from '../interfaces.ts'
import type { PacketSample, PacketSink } from '../samples/packet-sample.ts'

/** The wiring of what is known of TCP connections: there while the configuration has `tcp { }`. */

export interface TcpAnnotationsOptions {
  readonly interfaces: Interfaces
  readonly ledger: Ledger
  readonly log: Logger
  /** Takes each sample that was held. */
  readonly sink: PacketSink
  readonly onBatchEnd: () => void
}

export class TcpAnnotations {
  readonly #options: TcpAnnotationsOptions
  #annotator: TcpAnnotator | undefined
  /** By annotators that are gone. */
  #annotatedBefore = 0

  constructor(options: TcpAnnotationsOptions) {
    this.#options = options
  }

  /** Samples that got the state of their connection, since the agent started. */
  status(): { readonly annotated: number } {
    return { annotated: this.#annotatedBefore + (this.#annotator?.annotated ?? 0) }
  }

  /** Starts, stops, or begins anew. */
  change(config: TcpInfoConfig | undefined): void {
    this.stop()
    if (config === undefined) return
    const { interfaces, log } = this.#options
    const vrfOf = (ifIndex: number) => {
      const port = interfaces.byIndex.get(ifIndex)
      return port?.masterKind === 'vrf' ? port.masterIfIndex! : 0
    }
    this.#annotator = new TcpAnnotator({
      ...this.#options,
      ...config,
      log: log.child({ part: 'tcp' }),
      vrfOf,
    })
    this.followAddresses()
  }

  /** The addresses of interfaces may have changed. */
  followAddresses(): void {
    this.#annotator?.setAddresses(this.#options.interfaces.localAddresses().map(({ address }) => address))
  }

  /** True: the sample will come to the sink. */
  hold(sample: PacketSample): boolean {
    return this.#annotator?.hold(sample) === true
  }

  /** A batch of samples is complete. */
  endBatch(): void {
    this.#annotator?.ask()
  }

  /** What is held goes out as it is. May be called twice. */
  stop(): void {
    this.#annotator?.stop()
    this.#annotatedBefore = this.status().annotated
    this.#annotator = undefined
  }
}
