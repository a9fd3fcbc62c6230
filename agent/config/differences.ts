/** What two configurations have different, for people. */

import { isDeepStrictEqual } from 'node:util'
import type { Config } from './config.ts'

export interface Difference {
  /** The value's name in the Config: `sampling.bySpeed.10G`, `collector main.port`. */
  readonly name: string
  /** Undefined where there is none. */
  readonly before: string | undefined
  readonly after: string | undefined
}

/** Values that are not told, wherever differences are shown. */
const SECRETS: readonly string[] = ['web.token']

/** Every value of a configuration that is not undefined, as text by its name. Lists are numbered from 0. */
export function valuesByName(config: Config): Map<string, string> {
  const values = new Map<string, string>()
  addValues(values, { ...config, lines: undefined }, '')
  return values
}

function addValues(values: Map<string, string>, value: unknown, path: string): void {
  if (value === undefined) return
  if (value instanceof Map) for (const [key, inner] of value) addValues(values, inner, `${path}.${key}`)
  else if (typeof value === 'object' && value !== null && !(value instanceof RegExp)) {
    for (const [key, inner] of Object.entries(value)) {
      addValues(
        values,
        inner,
        Array.isArray(value) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`,
      )
    }
  } else values.set(path, String(value))
}

/**
 * The values that are not the same, in the order of the names before, then those that are new. Collectors are told apart
 * by their names; one that comes or goes is one difference.
 */
export function differences(before: Config, after: Config): Difference[] {
  const [a, b] = [valuesWithNames(before, after), valuesWithNames(after, before)]
  return [...new Set([...a.keys(), ...b.keys()])]
    .filter(name => a.get(name) !== b.get(name))
    .map(name => ({ name, before: a.get(name), after: b.get(name) }))
}

function valuesWithNames(config: Config, other: Config): Map<string, string> {
  const values = new Map(
    [...valuesByName(config)].filter(([name]) => name !== 'file' && !name.startsWith('collectors[')),
  )
  for (const collector of config.collectors) {
    const { name, host, port } = collector
    if (other.collectors.some(one => one.name === name)) addValues(values, collector, `collector ${name}`)
    else values.set(`collector ${name}`, `${host} port ${port}`)
  }
  return values
}

/** Whether two configurations ask for the same, wherever they come from. */
export function saysTheSame(a: Config, b: Config): boolean {
  return isDeepStrictEqual({ ...a, file: '', lines: undefined }, { ...b, file: '', lines: undefined })
}

/** One difference as a line: `polling.seconds: 30 → 10`. */
export function formatDifference({ name, before, after }: Difference): string {
  if (SECRETS.includes(name)) return `${name}: changed`
  return `${name}: ${before ?? 'none'} → ${after ?? 'none'}`
}
