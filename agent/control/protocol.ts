import type { SampleClass } from '../config/config.ts'
import { escapeJson, printable } from '../health/printable.ts'

/**
 * What is said on the control socket, in version 1: JSON objects, a line each, every one with `"weir": 1`. This file
 * knows the words and no socket. docs/control.md describes them for other programs.
 */

export const CONTROL_VERSION = 1
/** Where an agent with a default configuration listens. */
export const CONTROL_SOCKET = '/run/weir/control.sock'
/** Bytes of a request at most, the end of line left out. */
export const REQUEST_BYTES = 65_536

/** Things that can be asked for once; each answer has the thing under its own name. */
const QUESTIONS = ['status', 'ledger', 'interfaces', 'sources', 'collectors', 'drops'] as const
export type Question = (typeof QUESTIONS)[number]

const SAMPLE_CLASSES: readonly SampleClass[] = ['flows', 'counters', 'drops']

/** What a subscriber wants to see. */
export interface Wanted {
  readonly send: readonly SampleClass[]
  /** Names or ifIndexes; a sample fits that names one of them as data source, input or output. Undefined: all. */
  readonly interfaces: readonly (string | number)[] | undefined
  /** One in this many of the flow samples and discarded packets that fit. */
  readonly every: number
  /** Flow samples and discarded packets per second at most; 0 sets no limit. */
  readonly perSecond: number
}

/** A subscriber that says nothing gets this much at most. */
const DEFAULT_PER_SECOND = 10_000

/** `id` is whatever the asker gave, to be given back with the answer; undefined when it gave none. */
export type Request =
  | { readonly kind: 'question'; readonly id: unknown; readonly question: Question }
  | { readonly kind: 'subscribe'; readonly id: unknown; readonly wanted: Wanted }
  | { readonly kind: 'unsubscribe'; readonly id: unknown }
  | { readonly kind: 'refused'; readonly id: unknown; readonly error: ControlError }

export interface ControlError {
  readonly code: 'malformed' | 'version' | 'unknown' | 'too-long' | 'too-many' | 'failed'
  /** What is wrong and what would be right, one line. */
  readonly message: string
}

/** Sums since the subscription, told when they have grown: what the filter took and this reader did not get. */
export interface StreamCounts {
  /** Samples that the filter takes = sent + passed over + held back + lost. */
  readonly matched: number
  /** Copied into datagrams, less those lost. */
  readonly sent: number
  /** Left out because of `every`. */
  readonly passedOver: number
  /** Left out because of `perSecond`. */
  readonly heldBack: number
  /** Lost because this reader was too slow: samples, and the datagrams that held them. */
  readonly lost: number
  readonly lostDatagrams: number
}

/** Reads one line. Never throws. */
export function readRequest(line: string): Request {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    return refused(undefined, 'malformed', `not JSON: ${(error as Error).message}`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return refused(undefined, 'malformed', 'a request is an object: {"weir":1,"request":"status"}')
  }
  const { weir, id, request, ...rest } = value as Record<string, unknown>
  if (weir !== CONTROL_VERSION) {
    const said =
      weir === undefined ? 'no version is given' : `version ${JSON.stringify(weir)} is not spoken here`
    return refused(id, 'version', `${said}: say "weir":${CONTROL_VERSION}`)
  }
  const question = QUESTIONS.find(one => one === request)
  if (question !== undefined) return { kind: 'question', id, question }
  if (request === 'unsubscribe') return { kind: 'unsubscribe', id }
  if (request === 'subscribe') return readSubscription(id, rest)
  const known = [...QUESTIONS, 'subscribe', 'unsubscribe'].join(', ')
  return refused(id, 'unknown', `no request ${JSON.stringify(request) ?? 'is named'}; there are ${known}`)
}

function readSubscription(id: unknown, members: Record<string, unknown>): Request {
  const { send = SAMPLE_CLASSES, interfaces, every = 1, perSecond = DEFAULT_PER_SECOND, ...rest } = members
  const [other] = Object.keys(rest)
  if (other !== undefined) {
    return refused(
      id,
      'malformed',
      `a subscription has no "${other}"; it has send, interfaces, every, perSecond`,
    )
  }
  if (!isListOf(send, one => SAMPLE_CLASSES.some(known => known === one)) || send.length === 0) {
    return refused(id, 'malformed', `send is a list of ${SAMPLE_CLASSES.join(', ')}`)
  }
  if (interfaces !== undefined && !isListOf(interfaces, isInterface)) {
    return refused(id, 'malformed', 'interfaces is a list of names or ifIndexes')
  }
  if (!isCount(every) || every === 0) return refused(id, 'malformed', 'every is a whole number, at least 1')
  if (!isCount(perSecond)) {
    return refused(id, 'malformed', 'perSecond is a whole number; 0 sets no limit')
  }
  return {
    kind: 'subscribe',
    id,
    wanted: {
      send: send as SampleClass[],
      interfaces: interfaces as (string | number)[] | undefined,
      every,
      perSecond,
    },
  }
}

function refused(id: unknown, code: ControlError['code'], message: string): Request {
  return { kind: 'refused', id, error: { code, message: printable(message) } }
}

function isListOf(value: unknown, isOne: (one: unknown) => boolean): value is unknown[] {
  return Array.isArray(value) && value.every(isOne)
}

function isInterface(value: unknown): boolean {
  return typeof value === 'string' || (isCount(value) && value <= 0xffff_ffff)
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

/** One line, its end included. Members that are undefined are left out. Whoever shows it on a terminal may do so. */
export function line(id: unknown, members: Readonly<Record<string, unknown>>): string {
  return escapeJson(`${JSON.stringify({ weir: CONTROL_VERSION, id, ...members })}\n`)
}
