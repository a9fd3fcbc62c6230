/** What two configurations have different, for people. */

import type { Config } from './config.ts'

export interface Difference {
  /** The value's name in the Config: `sampling.bySpeed.10G`, `collectors[main].port`. */
  readonly name: string
  /** Undefined where there is none. */
  readonly before: string | undefined
  readonly after: string | undefined
}

/** Every value of a configuration that is not undefined, as text by its name. Lists are numbered from 0. */
export function valuesByName(config: Config): Map<string, string> {
  const values = new Map<string, string>()
  const walk = (value: unknown, path: string) => {
    if (value === undefined) return
    if (value instanceof Map) for (const [key, inner] of value) walk(inner, `${path}.${key}`)
    else if (typeof value === 'object' && value !== null && !(value instanceof RegExp)) {
      for (const [key, inner] of Object.entries(value)) {
        walk(inner, Array.isArray(value) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`)
      }
    } else values.set(path, String(value))
  }
  walk({ ...config, lines: undefined }, '')
  return values
}

/**
 * The values that are not the same, in the order of the names before, then those that are new. Where they came from is
 * left aside. Collectors are told apart by their names, so that one that is removed does not show as a change of all.
 */
export function differences(before: Config, after: Config): Difference[] {
  const [a, b] = [before, after].map(config => {
    const collectors = new Map(config.collectors.map(collector => [collector.name, collector]))
    const { file, ...values } = config
    return valuesByName({ ...values, collectors } as unknown as Config)
  }) as [Map<string, string>, Map<string, string>]
  return [...new Set([...a.keys(), ...b.keys()])]
    .filter(name => a.get(name) !== b.get(name))
    .map(name => ({ name, before: a.get(name), after: b.get(name) }))
}

/** One difference as a line: `polling.seconds: 30 → 10`. */
export function formatDifference({ name, before, after }: Difference): string {
  return `${name}: ${before ?? 'none'} → ${after ?? 'none'}`
}
