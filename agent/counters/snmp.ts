/**
 * /proc/net/snmp: per protocol a line of names and a line of values. Names are added in the middle from one kernel
 * to the next, so nothing is ever read by its position.
 */

import { FileFormatError, low32, readTextFile, type TextFile } from '../kernel/files.ts'
import { UNKNOWN32 } from '../wire/struct.ts'

/** The figures of one protocol. */
export interface SnmpGroup {
  /** The lower 32 bits of a counter; UNKNOWN32 where the kernel has no such name. */
  counter(name: string): number
  /** A setting or gauge; `otherwise` where the kernel has no such name. Negative ones wrap: -1 is all ones. */
  gauge(name: string, otherwise: number): number
}

/** All groups by protocol: `Ip`, `Icmp`, `Tcp`, `Udp`, … */
export type Snmp = (protocol: string) => SnmpGroup

export async function readSnmp(root: string): Promise<Snmp> {
  return parseSnmp(await readTextFile(root, 'proc/net/snmp'))
}

function parseSnmp(file: TextFile): Snmp {
  const groups = new Map<string, Map<string, bigint>>()
  let names: string[] | undefined
  for (const [i, line] of file.text.split('\n').entries()) {
    if (line === '') continue
    const words = line.trimEnd().split(/\s+/)
    const protocol = words[0]!
    if (!protocol.endsWith(':')) {
      throw new FileFormatError(file.path, i + 1, `expected a protocol and a colon, got "${protocol}"`)
    }
    if (names === undefined) {
      names = words
      continue
    }
    if (protocol !== names[0] || words.length !== names.length) {
      const expected = `expected "${names[0]}" and ${names.length - 1} values`
      throw new FileFormatError(file.path, i + 1, `${expected}, got "${protocol}" and ${words.length - 1}`)
    }
    const group = new Map<string, bigint>()
    for (let column = 1; column < names.length; column++) {
      const name = names[column]!
      const word = words[column]!
      if (!/^-?\d+$/.test(word)) {
        throw new FileFormatError(file.path, i + 1, `${name}: expected a whole number, got "${word}"`)
      }
      group.set(name, BigInt(word))
    }
    groups.set(protocol.slice(0, -1), group)
    names = undefined
  }
  if (names !== undefined) throw new FileFormatError(file.path, 0, `${names[0]} names without values`)
  return protocol => {
    const group = groups.get(protocol)
    if (group === undefined) throw new FileFormatError(file.path, 0, `${protocol}: missing`)
    const value = (name: string, otherwise: number) => {
      const found = group.get(name)
      return found === undefined ? otherwise : low32(found)
    }
    return { counter: name => value(name, UNKNOWN32), gauge: value }
  }
}
