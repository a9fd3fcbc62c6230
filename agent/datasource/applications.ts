import { hostname } from 'node:os'
import type {
  CountersMessage,
  FieldsMessage,
  Message,
  MetricsMessage,
  OperationMessage,
} from '../applications/message.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import { INTERNAL_INTERFACE } from '../samples/packet-sample.ts'
import { type RecordValue, recordOf } from '../wire/sflow/block.ts'
import {
  type AppOperations,
  appOperations,
  appResources,
  appWorkers,
} from '../wire/sflow/counters/application.ts'
import { hostParent } from '../wire/sflow/counters/host.ts'
import { applicationStatus } from '../wire/sflow/enumerations.ts'
import {
  appInitiator,
  appOperation,
  appParentContext,
  appTarget,
  extendedSocketIpv4,
  extendedSocketIpv6,
} from '../wire/sflow/flow/application.ts'
import { countersSampleExpanded, flowSampleExpanded, rtflow, rtmetric } from '../wire/sflow/samples.ts'
import type { RareSampleWriter } from './rare-sample-writer.ts'

/**
 * The data sources of applications that tell of themselves: their sampled operations are flow samples, their counters
 * are sent as they tell them, or are made from their operations when they keep none.
 */

/** Rates and intervals for an application by its name. */
export interface ApplicationRules {
  /** 1 in N operations; 0 takes none. */
  samplingRate(application: string): number
  /** Milliseconds between the counters made for it; 0 makes none. */
  pollingMs(application: string): number
}

export interface ApplicationsOptions {
  readonly writer: RareSampleWriter
  readonly ledger: Ledger
  readonly rules: ApplicationRules
  /** Monotonic clock, milliseconds. */
  readonly now: () => number
  /** At least 0 and below 1. */
  readonly random: () => number
}

const LOGICAL = 3
const HOST = { type: 2, index: 1 } as const
/** Indexes of applications without a port. */
const FIRST_INDEX = 150_000
const MOST = 10_000
/** An application that has not told its counters for this time gets some. */
const OWN_COUNTERS_MS = 120_000
const FORGET_MS = 2 * 3600_000

interface Application {
  readonly name: string
  readonly index: number
  flowSequence: number
  countersSequence: number
  pool: number
  /** Operations by status, each counted with its rate, modulo 2^32. */
  readonly counts: number[]
  heardMs: number
  ownCountersMs: number | undefined
  dueMs: number
}

export class Applications {
  /** Operations told = exported + thinned + those that were lost. */
  operations = 0
  exported = 0
  /** Left out to come down to the configured rate. */
  thinned = 0
  readonly #options: ApplicationsOptions
  readonly #applications = new Map<string, Application>()
  readonly #tooMany: Loss
  readonly #indexes = new Set<number>()
  #next = FIRST_INDEX

  constructor(options: ApplicationsOptions) {
    this.#options = options
    this.#tooMany = options.ledger.loss(
      'applications',
      'too-many',
      `messages of applications beyond ${MOST} different ones; do not put identifiers into app_name`,
    )
  }

  get size(): number {
    return this.#applications.size
  }

  accept(message: Message): void {
    if (message.kind === 'operation') this.#operation(message)
    else if (message.kind === 'counters') this.#counters(message)
    else if (message.kind === 'metrics') this.#metrics(message)
    else this.#fields(message)
  }

  /** Sends the counters that are due. To be called every second or so. */
  poll(): void {
    const now = this.#options.now()
    for (const [key, application] of this.#applications) {
      const { name, index, counts, ownCountersMs, heardMs, dueMs } = application
      if (now - heardMs > FORGET_MS) {
        this.#applications.delete(key)
        this.#indexes.delete(index)
        continue
      }
      const intervalMs = this.#options.rules.pollingMs(name)
      if (intervalMs === 0 || now < dueMs) continue
      application.dueMs = now + intervalMs
      if (ownCountersMs !== undefined && now - ownCountersMs < OWN_COUNTERS_MS) continue
      if (ownCountersMs !== undefined) {
        // These are other counters than the application's: a collector must not take the difference.
        application.ownCountersMs = undefined
        application.countersSequence = 0
      }
      const byStatus = Object.entries(applicationStatus).map(([status, text]) => [
        text,
        counts[Number(status)]!,
      ])
      const operations = { application: name, ...Object.fromEntries(byStatus) } as AppOperations
      this.#writeCounters(application, index, [recordOf(appOperations, operations)])
    }
  }

  #operation(message: OperationMessage): void {
    this.operations++
    const { samplingRate: told, operation } = message
    const application = this.#application(message)
    if (application === undefined) return
    application.counts[operation.status] = (application.counts[operation.status]! + told) >>> 0
    application.pool = (application.pool + told) >>> 0
    const rate = this.#options.rules.samplingRate(message.application)
    // So many of those told of are one that is sent.
    const skip = rate === 0 ? 0 : Math.max(1, Math.floor(rate / told))
    if (skip === 0 || (skip > 1 && this.#options.random() >= 1 / skip)) {
      this.thinned++
      return
    }
    const { parent, initiator, target, socket4, socket6, client } = message
    const records: RecordValue[] = [
      recordOf(appOperation, { application: message.application, ...operation }),
    ]
    if (parent !== undefined) records.push(recordOf(appParentContext, parent))
    if (initiator !== undefined) records.push(recordOf(appInitiator, initiator))
    if (target !== undefined) records.push(recordOf(appTarget, target))
    if (socket4 !== undefined) records.push(recordOf(extendedSocketIpv4, socket4))
    if (socket6 !== undefined) records.push(recordOf(extendedSocketIpv6, socket6))
    const value = {
      sequence_number: (application.flowSequence + 1) >>> 0,
      source_id: { type: LOGICAL, index: application.index },
      sampling_rate: told * skip,
      sample_pool: application.pool,
      drops: 0,
      // The client's request comes from this host, the server's answer is made here.
      input: { format: 0, value: client ? INTERNAL_INTERFACE : 0 },
      output: { format: 0, value: client ? 0 : INTERNAL_INTERFACE },
    }
    if (!this.#options.writer.write({ sample: flowSampleExpanded, value, records }, false)) return
    application.flowSequence = value.sequence_number
    this.exported++
  }

  #counters(message: CountersMessage): void {
    const application = this.#application(message)
    if (application === undefined) return
    if (application.ownCountersMs === undefined) application.countersSequence = 0
    application.ownCountersMs = this.#options.now()
    const { operations, resources, workers } = message
    const records: RecordValue[] = []
    if (operations !== undefined) {
      records.push(
        recordOf(appOperations, { application: message.application, ...operations } as AppOperations),
      )
    }
    if (resources !== undefined) records.push(recordOf(appResources, resources))
    if (workers !== undefined) records.push(recordOf(appWorkers, workers))
    this.#writeCounters(application, application.index, records)
  }

  #writeCounters(application: Application, index: number, records: RecordValue[]): void {
    const parent = recordOf(hostParent, { container_type: HOST.type, container_index: HOST.index })
    const sequence = (application.countersSequence + 1) >>> 0
    const value = { sequence_number: sequence, source_id: { type: LOGICAL, index } }
    const sample = { sample: countersSampleExpanded, value, records: [...records, parent] }
    // Wireshark does not step over these structures: nothing comes behind them.
    if (this.#options.writer.write(sample, true)) application.countersSequence = sequence
  }

  #metrics({ source = hostname(), metrics }: MetricsMessage): void {
    this.#options.writer.write(
      { sample: rtmetric, value: { datasource: source, metrics }, records: [] },
      true,
    )
  }

  #fields({ source = hostname(), samplingRate, fields }: FieldsMessage): void {
    const value = { datasource: source, sampling_rate: samplingRate, sample_pool: 0, fields }
    this.#options.writer.write({ sample: rtflow, value, records: [] }, true)
  }

  #application({ application: name, port }: { application: string; port: number }): Application | undefined {
    const now = this.#options.now()
    const key = `${port} ${name}`
    let application = this.#applications.get(key)
    if (application === undefined) {
      if (this.#applications.size >= MOST) {
        this.#tooMany.count++
        return undefined
      }
      application = {
        name,
        index: this.#index(port),
        flowSequence: 0,
        countersSequence: 0,
        pool: 0,
        counts: Object.keys(applicationStatus).map(() => 0),
        heardMs: now,
        ownCountersMs: undefined,
        dueMs: now + this.#options.rules.pollingMs(name),
      }
      this.#applications.set(key, application)
    }
    application.heardMs = now
    return application
  }

  /** The port itself, unless another application has it: each data source has its own sequence. */
  #index(port: number): number {
    const index = port === 0 || this.#indexes.has(port) ? this.#next++ : port
    this.#indexes.add(index)
    return index
  }
}
