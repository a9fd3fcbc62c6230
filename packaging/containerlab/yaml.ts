/** As much of YAML as the topologies of this folder use: nested maps, lists, inline lists, comments. All values are text. */

export type YamlValue = string | YamlMap | YamlValue[]
export interface YamlMap {
  [key: string]: YamlValue
}

interface Line {
  readonly number: number
  readonly indent: number
  readonly text: string
}

/** Reads a document whose top is a map. Throws with the number of a line that it does not understand. */
export function parseYaml(text: string): YamlMap {
  const lines: Line[] = []
  for (const [i, line] of text.split('\n').entries()) {
    const content = line.replace(/(^|\s)#.*$/, '').trimEnd()
    if (content === '') continue
    lines.push({ number: i + 1, indent: content.search(/\S/), text: content.trim() })
  }
  const [value, rest] = readBlock(lines)
  if (rest.length > 0 || Array.isArray(value)) throw new Error(`line ${rest[0]?.number ?? 1}: not understood`)
  return value
}

/** The lines at the indent of the first one, with what is below them; and the lines behind. */
function readBlock(lines: readonly Line[]): [YamlMap | YamlValue[], readonly Line[]] {
  const indent = lines[0]?.indent ?? 0
  const list: YamlValue[] = []
  const map: YamlMap = {}
  let rest = lines
  while (rest[0]?.indent === indent) {
    const [line, ...after] = rest as [Line, ...Line[]]
    if (line.text.startsWith('- ')) {
      const item = line.text.slice(2).trim()
      if (/^[\w-]+:( |$)/.test(item)) {
        // A map whose first key stands behind the dash.
        const [value, left] = readBlock([{ ...line, indent: indent + 2, text: item }, ...after])
        list.push(value)
        rest = left
      } else {
        list.push(scalar(item))
        rest = after
      }
      continue
    }
    const [, key, value] = /^([\w-]+):(?: +(.*))?$/.exec(line.text) ?? []
    if (key === undefined) throw new Error(`line ${line.number}: expected "key: value", got "${line.text}"`)
    if (value !== undefined && value !== '') {
      map[key] = inline(value)
      rest = after
    } else {
      const [below, left] = readBlock(after)
      map[key] = below
      rest = left
    }
  }
  return [list.length > 0 ? list : map, rest]
}

function inline(text: string): YamlValue {
  return text.startsWith('[')
    ? text
        .slice(1, -1)
        .split(',')
        .map(item => scalar(item.trim()))
    : scalar(text)
}

function scalar(text: string): string {
  return text.replace(/^(["'])(.*)\1$/, '$2')
}
