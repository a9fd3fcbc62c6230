import type { CounterRecord } from '../wire/sflow/record.ts'
import type { ValueOf } from '../wire/struct.ts'

/** What readers of many data sources need alike: asked once for all that are due. */
export interface BulkQuestion<A = unknown> {
  /** The answer for the data sources of these indexes; what it lacks is not there. */
  ask(indexes: readonly number[]): Promise<A>
}

/** Reads one structure of one data source from the kernel. */
export interface CounterReader<R extends CounterRecord = CounterRecord, A = unknown> {
  /** The structure; its name is also the reader's. */
  readonly record: R
  /** Looked at before each reading: what is to be asked for it, together with others. Undefined: read() asks by itself. */
  readonly bulk?: BulkQuestion<A> | undefined
  /**
   * The kernel's figures now; undefined when this data source does not have the structure. Rejects when they cannot
   * be read. A counter the platform lacks is all ones, in every reading alike.
   *
   * What needs no waiting is given at once and not as a promise: on a host with thousands of interfaces that is most of
   * what they are asked for. `answer` is that of `bulk`, where it was asked.
   */
  read(answer?: A): Answer<ValueOf<R> | undefined>
}

/** At once, or later. */
export type Answer<T> = T | Promise<T>

/**
 * Lets those who ask while an answer is under way share it: structures that come from one file or one request are
 * then read once, and in the same instant.
 */
export function shared<T>(read: () => Promise<T>): () => Promise<T> {
  let underWay: Promise<T> | undefined
  return () => {
    underWay ??= read().finally(() => {
      underWay = undefined
    })
    return underWay
  }
}

/** Asks anew only after `ms` milliseconds: for what hardly ever changes and many ask for. A failure is not kept. */
export function kept<T>(ms: number, read: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined
  let askedMs = Number.NEGATIVE_INFINITY
  return () => {
    const now = performance.now()
    if (answer !== undefined && now - askedMs < ms) return answer
    askedMs = now
    answer = read()
    answer.catch(() => {
      askedMs = Number.NEGATIVE_INFINITY
    })
    return answer
  }
}
