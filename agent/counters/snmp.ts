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

/** A group by its protocol: `Ip`, `Icmp`, `Tcp`, `Udp`, … Throws FileFormatError where it is missing or malformed. */
export type Snmp = (protocol: string) => SnmpGroup

export async function readSnmp(root: string): Promise<Snmp> {
  return parseSnmp(await readTextFile(root, 'proc/net/snmp'))
}

/** Lines that are wrong are an error of their protocol alone; those of no protocol are one of what is missing then. */
function parseSnmp(file: TextFile): Snmp {
  const groups = new Map<string, ReadonlyMap<string, bigint> | FileFormatError>()
  let foreign: FileFormatError | undefined
  let names: string[] | undefined
  const put = (protocol: string, group: ReadonlyMap<string, bigint> | FileFormatError) => {
    if (!groups.has(protocol)) groups.set(protocol, group)
    names = undefined
  }
  for (const [i, line] of file.text.split('\n').entries()) {
    if (line === '') continue
    const words = line.trimEnd().split(/\s+/)
    const protocol = words[0]!
    if (names !== undefined && (protocol !== names[0] || words.length !== names.length)) {
      const expected = `expected "${names[0]}" and ${names.length - 1} values`
      const got = `got "${protocol}" and ${words.length - 1}`
      const isValues = protocol === names[0]
      put(names[0]!, new FileFormatError(file.path, i + 1, `${expected}, ${got}`))
      if (isValues) continue
    }
    if (names !== undefined) put(protocol, readGroup(file, i + 1, names, words))
    else if (protocol.endsWith(':')) names = words
    else {
      const problem = `expected a protocol and a colon, got "${protocol}"`
      foreign ??= new FileFormatError(file.path, i + 1, problem)
    }
  }
  if (names !== undefined) {
    put(names[0]!, new FileFormatError(file.path, 0, `${names[0]} names without values`))
  }
  return protocol => {
    const group = groups.get(`${protocol}:`) ?? foreign
    if (group === undefined) throw new FileFormatError(file.path, 0, `${protocol}: missing`)
    if (group instanceof FileFormatError) throw group
    const value = (name: string, otherwise: number) => {
      const found = group.get(name)
      return found === undefined ? otherwise : low32(found)
    }
    return { counter: name => value(name, UNKNOWN32), gauge: value }
  }
}

function readGroup(
  { path }: TextFile,
  line: number,
  names: readonly string[],
  values: readonly string[],
): ReadonlyMap<string, bigint> | FileFormatError {
  const group = new Map<string, bigint>()
  for (let column = 1; column < names.length; column++) {
    const [name, word] = [names[column]!, values[column]!]
    if (!/^-?\d+$/.test(word)) {
      return new FileFormatError(path, line, `${name}: expected a whole number, got "${word}"`)
    }
    group.set(name, BigInt(word))
  }
  return group
}
