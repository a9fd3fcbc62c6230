import type { Config } from '../config/config.ts'
import { Gpus } from '../counters/gpus.ts'
import { hostReaders } from '../counters/host-readers.ts'
import type { CounterReader } from '../counters/reader.ts'
import type { Poller } from '../datasource/poller.ts'
import type { Logger } from '../health/log.ts'
import type { Interfaces } from '../interfaces.ts'
import { openNvml } from '../kernel/nvml.ts'

/** The wiring of the counters of the host as a whole: the structures of the kernel, GPUs, and what others add. */

/** Data source of the host. */
const HOST = { type: 2, index: 1 } as const

export interface HostPollingOptions {
  readonly poller: Poller
  readonly interfaces: Interfaces
  readonly log: Logger
  /** Readers of other parts for the same data source. */
  readonly others: () => CounterReader[]
}

export class HostPolling {
  readonly #options: HostPollingOptions
  #gpus: Gpus | undefined
  #polled: Pick<Config, 'uuid' | 'nvml'> | undefined

  constructor(options: HostPollingOptions) {
    this.#options = options
  }

  /** Begins, or goes on with another configuration: the sequence begins anew only when there is something else to tell. */
  change(config: Config): void {
    const { poller, interfaces, others } = this.#options
    const { uuid, nvml, polling } = config
    const intervalMs = polling.seconds * 1000
    const before = this.#polled
    if (before?.uuid === uuid && before?.nvml === nvml) {
      poller.changeInterval(HOST.type, HOST.index, intervalMs)
      return
    }
    this.#polled = { uuid, nvml }
    if (!nvml) this.stop()
    else this.#gpus ??= this.#openGpus()
    const readers = [
      ...hostReaders({ uuid, interfaces: () => interfaces.byIndex.values() }),
      ...others(),
      ...(this.#gpus === undefined ? [] : [this.#gpus.reader]),
    ]
    poller.add({ ...HOST, intervalMs, readers })
  }

  /** May be called twice. */
  stop(): void {
    this.#gpus?.stop()
    this.#gpus = undefined
  }

  #openGpus(): Gpus {
    const log = this.#options.log.child({ part: 'nvml' })
    const gpus = new Gpus({
      open: openNvml,
      onAbsent: ({ message }) => log.warn(`GPUs are not reported: ${message}`),
    })
    gpus.start()
    return gpus
  }
}
