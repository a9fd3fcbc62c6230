import type { Config } from '../../agent/config/config.ts'

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
