import { isDeepStrictEqual } from 'node:util'
import { Feed } from '../applications/feed.ts'
import { applicationPolling, applicationRate } from '../config/application-rules.ts'
import type { Config, JsonConfig } from '../config/config.ts'
import { Applications } from '../datasource/applications.ts'
import { RareSampleWriter } from '../datasource/rare-sample-writer.ts'
import type { Datagrams } from '../export/datagrams.ts'
import type { Ledger } from '../health/ledger.ts'
import type { Unheard } from '../health/listener.ts'
import type { Logger } from '../health/log.ts'

/** The wiring of applications that tell of themselves (`json { }`): their data sources stay while the feed changes. */

export interface ApplicationSourcesOptions {
  readonly datagrams: Datagrams
  readonly ledger: Ledger
  readonly log: Logger
}

export class ApplicationSources {
  readonly #options: ApplicationSourcesOptions
  readonly #applications: Applications
  #config: Pick<Config, 'sampling' | 'polling'> | undefined
  #json: JsonConfig | undefined
  #feed: Feed | undefined

  constructor(options: ApplicationSourcesOptions) {
    this.#options = options
    const { datagrams, ledger } = options
    this.#applications = new Applications({
      writer: new RareSampleWriter(datagrams, ledger, 'applications'),
      ledger,
      rules: {
        samplingRate: name => (this.#config === undefined ? 0 : applicationRate(this.#config.sampling, name)),
        pollingMs: name =>
          this.#config === undefined ? 0 : 1000 * applicationPolling(this.#config.polling, name),
      },
      now: () => performance.now(),
      random: Math.random,
    })
  }

  /** Starts, stops or goes on with other settings; with the same again, what could not be opened is tried again. */
  change({ json, sampling, polling }: Pick<Config, 'json' | 'sampling' | 'polling'>): void {
    this.#config = { sampling, polling }
    if (isDeepStrictEqual(json, this.#json)) {
      this.#feed?.retry()
      return
    }
    this.stop()
    this.#json = json
    if (json === undefined) return
    const { ledger, log, datagrams } = this.#options
    this.#feed = new Feed({
      ...json,
      ledger,
      log,
      onMessage: message => {
        this.#applications.accept(message)
        datagrams.send()
      },
    })
    this.#feed.start()
  }

  /** To be called every second or so. */
  poll(): void {
    if (this.#feed === undefined) return
    this.#feed.poll()
    this.#applications.poll()
  }

  /** May be called twice. */
  stop(): void {
    this.#feed?.stop()
    this.#feed = undefined
    this.#json = undefined
  }

  /** Where applications are to be heard and cannot be. */
  unheard(): Unheard[] {
    return this.#feed?.unheard() ?? []
  }

  /** Undefined while applications were never heard. */
  status():
    | { messages: number; applications: number; operations: number; exported: number; thinned: number }
    | undefined {
    if (this.#feed === undefined && this.#applications.operations === 0) return undefined
    const { size, operations, exported, thinned } = this.#applications
    return { messages: this.#feed?.messages ?? 0, applications: size, operations, exported, thinned }
  }
}
