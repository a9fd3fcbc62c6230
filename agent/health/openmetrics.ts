/**
 * The text format of OpenMetrics 1.0 (https://openmetrics.io, as Prometheus reads it): families of metrics, each with
 * its type, unit and help, and samples with labels. It knows the format and no metric.
 */

export const OPENMETRICS_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8'

export type Labels = Readonly<Record<string, string>>
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

  /** A family whose values are given with their labels. Those with the same labels are one: their values are added. */
  add(
    type: 'counter' | 'gauge' | 'info',
    name: string,
    help: string,
    points: Iterable<readonly [Labels, number]>,
  ): void {
    const byLabels = new Map<string, Point>()
    for (const [labels, value] of points) {
      const key = JSON.stringify(labels)
      const before = byLabels.get(key)?.value ?? 0
      byLabels.set(key, { suffix: SUFFIXES[type], labels, value: before + value })
    }
    this.#push(type, name, help, [...byLabels.values()])
  }

  one(type: 'counter' | 'gauge', name: string, help: string, value: number): void {
    this.add(type, name, help, [[{}, value]])
  }

  /** Times something took: how many, and all of them together. */
  summary(name: string, help: string, count: number, sum: number): void {
    this.#push('summary', name, help, [
      { suffix: '_count', labels: {}, value: count },
      { suffix: '_sum', labels: {}, value: sum },
    ])
  }

  text(): string {
    const lines: string[] = []
    for (const { name, type, unit, help, points } of this.families) {
      lines.push(`# TYPE ${name} ${type}`)
      if (unit !== undefined) lines.push(`# UNIT ${name} ${unit}`)
      lines.push(`# HELP ${name} ${escapeText(help)}`)
      for (const { suffix, labels, value } of points)
        lines.push(`${name}${suffix}${labelText(labels)} ${value}`)
    }
    return `${lines.join('\n')}\n# EOF\n`
  }

  #push(type: MetricType, name: string, help: string, points: readonly Point[]): void {
    if (points.length === 0) return
    const unit = UNITS.find(one => name.endsWith(`_${one}`))
    this.families.push({ name, type, unit, help, points })
  }
}

const UNITS = ['seconds', 'bytes', 'ratio'] as const

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeText(value)}"`)
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

function escapeText(text: string): string {
  return text.replace(/[\\"\n]/g, character => (character === '\n' ? '\\n' : `\\${character}`))
}
