/**
 * The text format of OpenMetrics 1.0 (https://openmetrics.io, as Prometheus reads it): families of metrics, each with
 * its type, unit and help, and samples with labels. It knows the format and no metric.
 */
import { printable } from './printable.ts'

export const OPENMETRICS_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8'

/** Labels of one point, made once for all families that have them. */
export interface Labels {
  readonly values: Readonly<Record<string, string>>
  /** As written: `{name="value",…}`, or nothing. */
  readonly text: string
}

/** Names come from outside: nothing in a label is for a terminal to obey. */
export function labelled(given: Readonly<Record<string, string>>): Labels {
  const values: Record<string, string> = {}
  const pairs: string[] = []
  for (const [name, value] of Object.entries(given)) {
    values[name] = printable(value)
    pairs.push(`${name}="${escapeText(values[name])}"`)
  }
  return { values, text: pairs.length === 0 ? '' : `{${pairs.join(',')}}` }
}

const NO_LABELS = labelled({})

export type MetricType = 'counter' | 'gauge' | 'info' | 'summary'

export interface Family {
  /** Ends with the unit, if there is one. */
  readonly name: string
  readonly type: MetricType
  readonly unit: string | undefined
  readonly help: string
  readonly points: readonly Point[]
}

export interface Point {
  /** Appended to the family's name: `_total`, `_info`, `_count`, `_sum` or nothing. */
  readonly suffix: string
  readonly labels: Labels
  readonly value: number
}

/** What the suffix of the only samples of a type is. */
const SUFFIXES: Readonly<Record<MetricType, string>> = {
  counter: '_total',
  gauge: '',
  info: '_info',
  summary: '',
}

/** Collects families; those that get no point are left out. */
export class Metrics {
  readonly families: Family[] = []

  /** A family whose values are given with their labels, no two of which may be the same. */
  add(
    type: 'counter' | 'gauge' | 'info',
    name: string,
    help: string,
    points: Iterable<readonly [Labels, number]>,
  ): void {
    const suffix = SUFFIXES[type]
    const all: Point[] = []
    for (const [labels, value] of points) all.push({ suffix, labels, value })
    this.#push(type, name, help, all)
  }

  one(type: 'counter' | 'gauge', name: string, help: string, value: number): void {
    this.add(type, name, help, [[NO_LABELS, value]])
  }

  /** Times something took: how many, and all of them together. */
  summary(name: string, help: string, count: number, sum: number): void {
    this.#push('summary', name, help, [
      { suffix: '_count', labels: NO_LABELS, value: count },
      { suffix: '_sum', labels: NO_LABELS, value: sum },
    ])
  }

  text(): string {
    let text = ''
    for (const { name, type, unit, help, points } of this.families) {
      text += `# TYPE ${name} ${type}\n`
      if (unit !== undefined) text += `# UNIT ${name} ${unit}\n`
      text += `# HELP ${name} ${escapeText(help)}\n`
      for (const { suffix, labels, value } of points) text += `${name}${suffix}${labels.text} ${value}\n`
    }
    return `${text}# EOF\n`
  }

  #push(type: MetricType, name: string, help: string, points: readonly Point[]): void {
    if (points.length === 0) return
    const unit = UNITS.find(one => name.endsWith(`_${one}`))
    this.families.push({ name, type, unit, help, points })
  }
}

const UNITS = ['seconds', 'bytes', 'ratio'] as const

function escapeText(text: string): string {
  return !/[\\"\n]/.test(text)
    ? text
    : text.replace(/[\\"\n]/g, character => (character === '\n' ? '\\n' : `\\${character}`))
}
