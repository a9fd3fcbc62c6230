import { isDeepStrictEqual } from 'node:util'
import type { WebConfig } from '../config/config.ts'
import type { InterfaceStatus, Unheard } from '../control/status.ts'
import type { Exporter } from '../export/exporter.ts'
import type { HttpServer } from '../health/http.ts'
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
  #current: WebConfig | undefined
  #server: HttpServer | undefined
  #live: LivePage | undefined
  #problem: string | undefined

  constructor(options: WebPageOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'web' })
  }

  /** Starts, stops, or goes on with other settings. Fails with a message that names the address. */
  async change(web: WebConfig | undefined): Promise<void> {
    this.#problem = undefined
    if (isDeepStrictEqual(web, this.#current)) return
    this.stop()
    if (web?.listen === undefined) return
    // Only then: the daemon does not carry a web server otherwise.
    const [{ serveHttp }, { LivePage }, { pageSite }] = await Promise.all([
      import('../health/http.ts'),
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
    const isSocket = 'path' in web.listen
    try {
      this.#server = await serveHttp(web.listen, pageSite({ live, token: web.token, isSocket }))
    } catch (error) {
      // Tried again with the next change of the configuration.
      this.#problem = (error as Error).message
      throw error
    }
    this.#live = live
    this.#current = web
    const where =
      'path' in web.listen ? web.listen.path : `http://${inUrl(web.listen.host)}:${web.listen.port}/`
    this.#log.info(`the page is at ${where}`)
  }

  /** That it cannot listen, for the status. */
  unheard(): Unheard[] {
    return this.#problem === undefined ? [] : [{ name: 'web', problem: this.#problem }]
  }

  /** May be called twice. */
  stop(): void {
    this.#live?.stop()
    this.#server?.close()
    this.#live = undefined
    this.#server = undefined
    this.#current = undefined
  }
}

function inUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host
}
