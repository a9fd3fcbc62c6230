import { isIPv4, isIPv6 } from 'node:net'
import type { AppOperations, AppResources, AppWorkers } from '../wire/sflow/counters/application.ts'
import { applicationStatus } from '../wire/sflow/enumerations.ts'
import type {
  AppInitiator,
  AppOperation,
  AppParentContext,
  ExtendedSocketIpv4,
  ExtendedSocketIpv6,
} from '../wire/sflow/flow/application.ts'
import type { rtflow, rtmetric } from '../wire/sflow/samples.ts'
import type { ValueOf } from '../wire/struct.ts'

/**
 * What an application tells of itself: one JSON object with any of `flow_sample`, `counter_sample`, `rtmetric` and
 * `rtflow`, as hsflowd takes them. Pure: text in, values out. A part that is wrong is told of with its place in the
 * object, and the other parts hold.
 */

/** One operation of an application. */
export interface OperationMessage {
  readonly kind: 'operation'
  readonly application: string
  /** Port of the service, which tells several of one name apart; 0 when not told. */
  readonly port: number
  /** The application is the one that asked, not the one that answered. */
  readonly client: boolean
  /** 1 in N: the application tells of one operation in so many. */
  readonly samplingRate: number
  readonly operation: Omit<AppOperation, 'application'>
  readonly parent: AppParentContext | undefined
  readonly initiator: AppInitiator | undefined
  readonly target: AppInitiator | undefined
  readonly socket4: ExtendedSocketIpv4 | undefined
  readonly socket6: ExtendedSocketIpv6 | undefined
}

/** Counters that an application keeps by itself. */
export interface CountersMessage {
  readonly kind: 'counters'
  readonly application: string
  readonly port: number
  readonly operations: Omit<AppOperations, 'application'> | undefined
  readonly resources: AppResources | undefined
  readonly workers: AppWorkers | undefined
}

export interface MetricsMessage {
  readonly kind: 'metrics'
  /** Undefined: the host. */
  readonly source: string | undefined
  readonly metrics: Metrics
}

export interface FieldsMessage {
  readonly kind: 'fields'
  readonly source: string | undefined
  readonly samplingRate: number
  readonly fields: Fields
}

type Metrics = ValueOf<typeof rtmetric>['metrics']
type Fields = ValueOf<typeof rtflow>['fields']

export type Message = OperationMessage | CountersMessage | MetricsMessage | FieldsMessage

/** Sizes in UTF-8 of the structures' own texts (application structures, 2012). */
const APPLICATION_BYTES = 32
const ATTRIBUTES_BYTES = 255
const STATUS_BYTES = 64
const ACTOR_BYTES = 64
const NAME = /^[A-Za-z0-9_-]{1,64}$/
const VALUE_BYTES = 255
const UINT32 = 0xffff_ffff
/** The wire's own unknown counter. */
const UNKNOWN = UINT32

const METRIC_TYPES = [
  'string',
  'counter32',
  'counter64',
  'gauge32',
  'gauge64',
  'gaugeFloat',
  'gaugeDouble',
] as const
const FIELD_TYPES = ['string', 'mac', 'ip', 'ip6', 'int32', 'int64', 'float', 'double'] as const

class Wrong extends Error {}

/** The parts of one message that are right, and what is wrong with the others. */
export function readMessage(text: string): { readonly messages: Message[]; readonly problems: string[] } {
  const messages: Message[] = []
  const problems: string[] = []
  let root: Part
  try {
    root = new Part(parse(text), '')
  } catch (error) {
    return { messages, problems: [(error as Error).message] }
  }
  for (const name of root.names) {
    const read = Object.hasOwn(PARTS, name) ? PARTS[name]! : undefined
    try {
      if (read === undefined) throw new Wrong(`${name}: expected one of ${Object.keys(PARTS).join(', ')}`)
      messages.push(read(root.part(name)!))
    } catch (error) {
      if (!(error instanceof Wrong)) throw error
      problems.push(error.message)
    }
  }
  if (root.names.length === 0) problems.push('an object without any part')
  return { messages, problems }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Wrong(`not JSON: ${(error as Error).message}`)
  }
}

const PARTS: Readonly<Record<string, (part: Part) => Message>> = {
  flow_sample: readOperation,
  counter_sample: readCounters,
  rtmetric: readMetrics,
  rtflow: readFields,
}

function readOperation(part: Part): OperationMessage {
  const operation = part.part('app_operation')
  if (operation === undefined) throw new Wrong(`${part.place('app_operation')} is missing`)
  const parent = part.part('app_parent_context')
  const initiator = part.part('app_initiator')
  const target = part.part('app_target')
  const socket4 = part.part('extended_socket_ipv4')
  const socket6 = part.part('extended_socket_ipv6')
  return {
    kind: 'operation',
    ...named(part),
    client: part.flag('client'),
    samplingRate: part.whole('sampling_rate', 1, UINT32, 1),
    operation: {
      ...contextOf(operation),
      status_descr: operation.text('status_descr', STATUS_BYTES),
      req_bytes: operation.big('req_bytes'),
      resp_bytes: operation.big('resp_bytes'),
      duration: operation.whole('uS', 0, UINT32, 0),
      status: operation.code('status', applicationStatus),
    },
    parent: parent && { application: parent.text('application', APPLICATION_BYTES), ...contextOf(parent) },
    initiator: initiator && { actor: initiator.text('actor', ACTOR_BYTES) },
    target: target && { actor: target.text('actor', ACTOR_BYTES) },
    socket4: socket4 && socketOf(socket4, isIPv4, 'an IPv4 address'),
    socket6: socket6 && socketOf(socket6, isIPv6, 'an IPv6 address'),
  }
}

function named(part: Part): { readonly application: string; readonly port: number } {
  const application = part.text('app_name', APPLICATION_BYTES)
  if (application === '') throw new Wrong(`${part.place('app_name')} is missing`)
  return { application, port: part.whole('service_port', 0, 65535, 0) }
}

function contextOf(part: Part): { readonly operation: string; readonly attributes: string } {
  return {
    operation: part.text('operation', APPLICATION_BYTES),
    attributes: part.text('attributes', ATTRIBUTES_BYTES),
  }
}

function socketOf(part: Part, is: (text: string) => boolean, expected: string): ExtendedSocketIpv4 {
  const address = (name: string): string => {
    const value = part.value(name)
    if (typeof value === 'string' && is(value) && !value.includes('%')) return value
    throw part.wrong(name, expected)
  }
  return {
    protocol: part.whole('protocol', 0, 255, 0),
    local_ip: address('local_ip'),
    remote_ip: address('remote_ip'),
    local_port: part.whole('local_port', 0, 65535, 0),
    remote_port: part.whole('remote_port', 0, 65535, 0),
  }
}

function readCounters(part: Part): CountersMessage {
  const operations = part.part('app_operations')
  const resources = part.part('app_resources')
  const workers = part.part('app_workers')
  if (operations === undefined && resources === undefined && workers === undefined) {
    throw new Wrong(`${part.place('app_operations')}, app_resources and app_workers are missing`)
  }
  const counts: Record<string, number> = {}
  for (const name of Object.values(applicationStatus)) {
    if (operations !== undefined) counts[name] = operations.counter(name)
  }
  return {
    kind: 'counters',
    ...named(part),
    operations: operations && (counts as Omit<AppOperations, 'application'>),
    resources: resources && {
      user_time: resources.counter('user_time'),
      system_time: resources.counter('system_time'),
      mem_used: resources.big('mem_used'),
      mem_max: resources.big('mem_max'),
      fd_open: resources.whole('fd_open', 0, UINT32, 0),
      fd_max: resources.whole('fd_max', 0, UINT32, 0),
      conn_open: resources.whole('conn_open', 0, UINT32, 0),
      conn_max: resources.whole('conn_max', 0, UINT32, 0),
    },
    workers: workers && {
      workers_active: workers.whole('workers_active', 0, UINT32, 0),
      workers_idle: workers.whole('workers_idle', 0, UINT32, 0),
      workers_max: workers.whole('workers_max', 0, UINT32, 0),
      req_delayed: workers.counter('req_delayed'),
      req_dropped: workers.counter('req_dropped'),
    },
  }
}

function readMetrics(part: Part): MetricsMessage {
  const metrics = part.names
    .filter(name => name !== 'datasource')
    .map(name => {
      const { type, value } = typed(part, name, METRIC_TYPES)
      return { name, metric: { type, value: METRIC_VALUES[type]!(value) } }
    })
  if (metrics.length === 0) throw new Wrong(`${part.place('')}without a metric`)
  return { kind: 'metrics', source: sourceOf(part), metrics: metrics as Metrics }
}

function readFields(part: Part): FieldsMessage {
  const fields = part.names
    .filter(name => name !== 'datasource' && name !== 'sampling_rate')
    .map(name => {
      const { type, value } = typed(part, name, FIELD_TYPES)
      return { name, field: { type, value: FIELD_VALUES[type]!(value) } }
    })
  if (fields.length === 0) throw new Wrong(`${part.place('')}without a field`)
  return {
    kind: 'fields',
    source: sourceOf(part),
    samplingRate: part.whole('sampling_rate', 1, UINT32, 1),
    fields: fields as Fields,
  }
}

function sourceOf(part: Part): string | undefined {
  const source = part.value('datasource')
  if (source === undefined) return undefined
  // A name that begins with a digit would be taken for a data source's number.
  if (typeof source === 'string' && /^[^0-9]/.test(source)) return cut(source, VALUE_BYTES)
  throw part.wrong('datasource', 'a name that does not begin with a digit')
}

/** `{ "type": …, "value": … }`. */
function typed(part: Part, name: string, types: readonly string[]): { type: number; value: Part } {
  if (!NAME.test(name))
    throw new Wrong(`${part.place(name)}: a name has letters, digits, - and _, at most 64`)
  const entry = part.part(name)!
  const type = types.indexOf(String(entry.value('type')))
  if (type < 0) throw entry.wrong('type', `one of ${types.join(', ')}`)
  if (entry.value('value') === undefined) throw new Wrong(`${entry.place('value')} is missing`)
  return { type, value: entry }
}

const METRIC_VALUES: readonly ((entry: Part) => unknown)[] = [
  entry => entry.text('value', VALUE_BYTES),
  entry => entry.whole('value', 0, UINT32, 0),
  entry => entry.big('value'),
  entry => entry.whole('value', 0, UINT32, 0),
  entry => entry.big('value'),
  entry => entry.number('value'),
  entry => entry.number('value'),
]

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/
const FIELD_VALUES: readonly ((entry: Part) => unknown)[] = [
  entry => entry.text('value', VALUE_BYTES),
  entry => entry.like('value', text => MAC.test(text), 'a MAC address like 02:00:00:00:00:01'),
  entry => entry.like('value', isIPv4, 'an IPv4 address'),
  entry => entry.like('value', text => isIPv6(text) && !text.includes('%'), 'an IPv6 address'),
  entry => entry.whole('value', 0, UINT32, 0),
  entry => entry.big('value'),
  entry => entry.number('value'),
  entry => entry.number('value'),
]

/** One object of the message, which knows where it is. */
class Part {
  readonly #values: Readonly<Record<string, unknown>>
  readonly #path: string

  constructor(value: unknown, path: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new Wrong(`${path === '' ? 'the message' : path}: expected an object`)
    }
    this.#values = value as Record<string, unknown>
    this.#path = path
  }

  get names(): string[] {
    return Object.keys(this.#values)
  }

  place(name: string): string {
    return this.#path === '' ? name : `${this.#path}.${name}`
  }

  wrong(name: string, expected: string): Wrong {
    const found = JSON.stringify(this.value(name)) ?? 'nothing'
    return new Wrong(`${this.place(name)}: expected ${expected}, got ${cut(found, 64)}`)
  }

  value(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? this.#values[name] : undefined
  }

  part(name: string): Part | undefined {
    const value = this.value(name)
    return value === undefined ? undefined : new Part(value, this.place(name))
  }

  /** A text, cut to `most` bytes of UTF-8; empty when it is not there. */
  text(name: string, most: number): string {
    const value = this.value(name)
    if (value === undefined) return ''
    if (typeof value === 'string') return cut(value, most)
    throw this.wrong(name, 'a text')
  }

  like(name: string, is: (text: string) => boolean, expected: string): string {
    const value = this.value(name)
    if (typeof value === 'string' && is(value.toLowerCase())) return value.toLowerCase()
    throw this.wrong(name, expected)
  }

  flag(name: string): boolean {
    const value = this.value(name)
    if (value === undefined || typeof value === 'boolean') return value === true
    throw this.wrong(name, 'true or false')
  }

  number(name: string): number {
    const value = this.value(name)
    if (typeof value === 'number') return value
    throw this.wrong(name, 'a number')
  }

  whole(name: string, least: number, most: number, otherwise: number): number {
    const value = this.value(name)
    if (value === undefined) return otherwise
    if (Number.isInteger(value) && least <= (value as number) && (value as number) <= most)
      return value as number
    throw this.wrong(name, `a whole number from ${least} to ${most}`)
  }

  counter(name: string): number {
    return this.whole(name, 0, UINT32, UNKNOWN)
  }

  /** Up to 64 bits, as a number or, where a number would not be exact, as its digits in a text. */
  big(name: string): bigint {
    const value = this.value(name)
    if (value === undefined) return 0n
    const isWhole = typeof value === 'string' ? /^\d{1,20}$/.test(value) : Number.isInteger(value)
    if (isWhole) {
      const exact = BigInt(value as number | string)
      if (BigInt.asUintN(64, exact) === exact) return exact
    }
    throw this.wrong(name, 'a whole number of 64 bits')
  }

  code(name: string, names: Readonly<Record<number, string>>): number {
    const value = this.value(name)
    if (value === undefined) return 0
    if (typeof value === 'number' && Object.hasOwn(names, value)) return value
    const found = Object.entries(names).find(([, text]) => text === value)
    if (found !== undefined) return Number(found[0])
    throw this.wrong(name, `a number from 0 to ${Object.keys(names).length - 1}, or its name`)
  }
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** At most `most` bytes of UTF-8, no character cut in two. */
function cut(text: string, most: number): string {
  if (text.length <= most / 3) return text
  const bytes = new Uint8Array(most)
  return decoder.decode(bytes.subarray(0, encoder.encodeInto(text, bytes).written))
}
