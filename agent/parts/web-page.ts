import { isDeepStrictEqual } from 'node:util'
import type { WebConfig } from '../config/config.ts'
import type { InterfaceStatus } from '../control/status.ts'
import type { Exporter } from '../export/exporter.ts'
import { Listener } from '../health/listener.ts'
import type { Logger } from '../health/log.ts'
import type { LivePage } from '../web/live.ts'

/** The wiring of the page: where it listens, and what it is fed from while somebody looks. */

export interface WebPageOptions {
  readonly exporter: Exporter
  readonly interfaces: () => Promise<readonly InterfaceStatus[]>
  readonly address: () => string | undefined
  readonly log: Logger
}

/** Flow samples and dropped packets that are copied for the page each second; what is more is estimated from them. */
const PER_SECOND = 2000

export class WebPage {
  readonly #options: WebPageOptions
  readonly #log: Logger
  readonly listener: Listener
  #current: WebConfig | undefined
  #live: LivePage | undefined

  constructor(options: WebPageOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'web' })
    this.listener = new Listener('web', this.#log)
  }

  /** Starts, stops, or goes on with other settings. */
  async change(web: WebConfig | undefined): Promise<void> {
    if (isDeepStrictEqual(web, this.#current)) return this.listener.retry()
    this.stop()
    this.#current = web
    if (web?.listen === undefined) return
    // Only then: the daemon does not carry a page otherwise.
    const [{ LivePage }, { pageSite }] = await Promise.all([
      import('../web/live.ts'),
      import('../web/site.ts'),
    ])
    const { exporter, interfaces, address } = this.#options
    const live = new LivePage({
      tap: onDatagram => {
        const filter = {
          classes: ['flows', 'counters', 'drops'] as const,
          interfaces: undefined,
          every: 1,
          perSecond: PER_SECOND,
        }
        const { tap, end } = exporter.tap(filter, (memory, spans, count) => {
          for (let i = 0; i < count; i++) {
            onDatagram(new Uint8Array(memory, spans[i * 2]!, spans[i * 2 + 1]!))
          }
        })
        return { end, counts: tap }
      },
      interfaces,
      agent: () => address() ?? 'unknown',
      failed: error => this.#log.error({ err: error }, `the page has failed: ${error.message}`),
    })
    this.#live = live
    const isSocket = 'path' in web.listen
    const where =
      'path' in web.listen ? web.listen.path : `http://${inUrl(web.listen.host)}:${web.listen.port}/`
    const answer = pageSite({ live, token: web.token, isSocket })
    await this.listener.open({ address: web.listen, answer, told: `the page is at ${where}` })
  }

  /** May be called twice. */
  stop(): void {
    this.#live?.stop()
    this.listener.close()
    this.#live = undefined
    this.#current = undefined
  }
}

function inUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host
}
