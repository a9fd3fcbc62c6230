import type { IncomingMessage, ServerResponse } from 'node:http'
import { isDeepStrictEqual } from 'node:util'
import type { MetricsConfig } from '../config/config.ts'
import { metricsOf } from '../control/metrics.ts'
import type { Status } from '../control/status.ts'
import type { Datagrams } from '../export/datagrams.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import { Listener } from '../health/listener.ts'
import type { Logger } from '../health/log.ts'
import { type Family, OPENMETRICS_TYPE } from '../health/openmetrics.ts'
import { ProcessFigures } from '../health/process-figures.ts'
import { type SampleValue, sampleSize, writeSample } from '../wire/sflow/block.ts'
import { rtmetric } from '../wire/sflow/samples.ts'
import type { ValueOf } from '../wire/struct.ts'
import { Writer } from '../wire/xdr.ts'

/** The wiring of metrics: a page for those who ask, and samples for collectors. */

export interface MetricsReportsOptions {
  readonly datagrams: Datagrams
  readonly ledger: Ledger
  readonly log: Logger
  readonly status: () => Status
}

const COUNTER64 = 2
const DOUBLE = 6
/** What receivers take of a name (sflowtool). */
const NAME_CHARACTERS = 64
/** The page is made again for those who ask no sooner than this. */
const PAGE_MS = 200

type Metric = ValueOf<typeof rtmetric>['metrics'][number]

export class MetricsReports {
  readonly #options: MetricsReportsOptions
  readonly #tooLong: Loss
  readonly listener: Listener
  #current: MetricsConfig | undefined
  #figures: ProcessFigures | undefined
  #timer: NodeJS.Timeout | undefined
  #page = { atMs: Number.NEGATIVE_INFINITY, text: '' }

  constructor(options: MetricsReportsOptions) {
    this.#options = options
    this.listener = new Listener('metrics', options.log.child({ part: 'metrics' }))
    this.#tooLong = options.ledger.loss(
      'metrics',
      'too-long',
      'figures of the agent that do not fit into a datagram; raise datagramBytes',
    )
  }

  /** Starts, stops or goes on with other settings; `sendMs` is the time between two samples. */
  async change(metrics: MetricsConfig | undefined, sendMs: number): Promise<void> {
    clearInterval(this.#timer)
    this.#timer = undefined
    const isSame = isDeepStrictEqual(metrics, this.#current)
    if (!isSame) this.stop()
    this.#current = metrics
    if (metrics === undefined) return
    this.#figures ??= new ProcessFigures()
    if (metrics.send && sendMs > 0) this.#timer = setInterval(() => this.#send(), sendMs)
    if (isSame) await this.listener.retry()
    else if (metrics.listen !== undefined) await this.#listen(metrics.listen)
  }

  /** May be called twice. */
  stop(): void {
    clearInterval(this.#timer)
    this.listener.close()
    this.#figures?.stop()
    this.#figures = undefined
    this.#current = undefined
  }

  #listen(address: NonNullable<MetricsConfig['listen']>): Promise<void> {
    const where = 'path' in address ? address.path : `${address.host} port ${address.port}`
    const told = `metrics are at ${where}, /metrics`
    return this.listener.open({ address, told, answer: this.#answer })
  }

  readonly #answer = (request: IncomingMessage, response: ServerResponse): void => {
    const { pathname } = URL.parse(request.url ?? '', 'http://localhost') ?? { pathname: '' }
    if (pathname !== '/metrics') {
      response.writeHead(404, { 'Content-Type': 'text/plain' }).end('metrics are at /metrics\n')
      return
    }
    response.writeHead(200, { 'Content-Type': OPENMETRICS_TYPE, 'Cache-Control': 'no-store' })
    response.end(request.method === 'HEAD' ? undefined : this.#text())
  }

  #text(): string {
    const now = performance.now()
    if (now - this.#page.atMs >= PAGE_MS) {
      this.#page = { atMs: now, text: metricsOf(this.#options.status(), this.#figures!).text() }
    }
    return this.#page.text
  }

  #send(): void {
    const { datagrams } = this.#options
    const all = metricsOf(this.#options.status(), this.#figures!).families.flatMap(asRtmetrics)
    let metrics: Metric[] = []
    for (const metric of all) {
      if (sampleSize(sampleOf([...metrics, metric])) > datagrams.room) {
        this.#write(metrics)
        metrics = []
      }
      metrics.push(metric)
    }
    this.#write(metrics)
    datagrams.send()
  }

  #write(metrics: readonly Metric[]): void {
    if (metrics.length === 0) return
    const { datagrams } = this.#options
    const sample = sampleOf(metrics)
    const bytes = sampleSize(sample)
    // Collectors that do not know this sample lose what comes behind it.
    const at = datagrams.reserve(bytes, true)
    if (at < 0) {
      this.#tooLong.count += metrics.length
      return
    }
    writeSample(new Writer(datagrams.view, at, at + bytes), sample)
    datagrams.commit(at + bytes)
  }
}

function sampleOf(metrics: readonly Metric[]): SampleValue {
  return { sample: rtmetric, value: { datasource: 'weir', metrics }, records: [] }
}

/** `weir_losses_total.bpf.ring-full`: the values of the labels follow the name. Texts are not sent. */
function asRtmetrics({ name, type, points }: Family): Metric[] {
  if (type === 'info') return []
  return points.map(({ suffix, labels, value }) => {
    const isCount = suffix === '_total' && Number.isSafeInteger(value)
    return {
      name: [`${name}${suffix}`, ...Object.values(labels.values)].join('.').slice(0, NAME_CHARACTERS),
      metric: isCount ? { type: COUNTER64, value: BigInt(value) } : { type: DOUBLE, value },
    }
  })
}
