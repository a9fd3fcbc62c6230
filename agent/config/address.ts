/** Numeric IP addresses as numbers, for masks and comparison. */

import { isIP } from 'node:net'
import type { CidrRule } from './config.ts'

export interface IpAddress {
  readonly family: 4 | 6
  /** The 32 or 128 bits of the address. */
  readonly bits: bigint
}

/** Reads a numeric address (a zone such as `%eth0` is left out); undefined when it is not one. */
export function parseAddress(text: string): IpAddress | undefined {
  const family = isIP(text)
  if (family === 4) return { family, bits: fromParts(text.split('.'), 10, 8n) }
  if (family !== 6) return undefined
  // The URL parser writes any valid form as hexadecimal groups with at most one "::".
  const plain = new URL(`http://[${text.replace(/%.*/, '')}]`).hostname.slice(1, -1)
  const [head = '', tail] = plain.split('::')
  const before = head === '' ? [] : head.split(':')
  const after = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros: string[] = Array(8 - before.length - after.length).fill('0')
  return { family, bits: fromParts([...before, ...zeros, ...after], 16, 16n) }
}

/** The text of an address: dotted, or the shortest form of RFC 5952. */
export function formatAddress({ family, bits }: IpAddress): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map(shift => (bits >> shift) & 0xffn).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => ((bits >> BigInt(112 - 16 * i)) & 0xffffn).toString(16))
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1)
}

/** Whether `address` lies in the block that a rule names; of another family, it does not. */
export function inBlock(address: IpAddress, rule: Pick<CidrRule, 'address' | 'bits'>): boolean {
  const block = parseAddress(rule.address)
  return block?.family === address.family && masked(address, rule.bits).bits === masked(block, rule.bits).bits
}

/** The address with all but its first `prefix` bits cleared. */
export function masked({ family, bits }: IpAddress, prefix: number): IpAddress {
  const rest = BigInt((family === 4 ? 32 : 128) - prefix)
  return { family, bits: (bits >> rest) << rest }
}

function fromParts(parts: readonly string[], base: number, width: bigint): bigint {
  return parts.reduce((bits, part) => (bits << width) | BigInt(Number.parseInt(part, base)), 0n)
}
