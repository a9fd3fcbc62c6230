import type { CounterRecord } from '../wire/sflow/record.ts'
import type { ValueOf } from '../wire/struct.ts'

/** Reads one structure of one data source from the kernel. */
export interface CounterReader<R extends CounterRecord = CounterRecord> {
  /** The structure; its name is also the reader's. */
  readonly record: R
  /**
   * The kernel's figures now; undefined when this data source does not have the structure. Rejects when they cannot
   * be read. A counter the platform lacks is all ones, in every reading alike.
   *
   * What needs no waiting is given at once and not as a promise: on a host with thousands of interfaces that is most of
   * what they are asked for.
   */
  read(): Answer<ValueOf<R> | undefined>
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
