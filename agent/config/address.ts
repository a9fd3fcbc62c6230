/** IP addresses as bytes (4 or 16, in network order), for masks and comparison. */

import { formatIp4, formatIp6, parseIp4, parseIp6 } from '../wire/addresses.ts'
import type { CidrRule } from './config.ts'

/** Reads a numeric address (a zone such as `%eth0` is left out); undefined when it is not one. */
export function parseAddress(text: string): Uint8Array | undefined {
  return parseIp4(text) ?? parseIp6(text.replace(/%.+$/, ''))
}

/** The text of an address: dotted, or the form of RFC 5952. */
export function formatAddress(address: Uint8Array): string {
  return address.length === 4 ? formatIp4(address) : formatIp6(address)
}

/** Whether `address` lies in the block that a rule names; of another family, it does not. */
export function inBlock(address: Uint8Array, rule: Pick<CidrRule, 'address' | 'bits'>): boolean {
  const block = parseAddress(rule.address)
  if (block?.length !== address.length) return false
  const wanted = masked(block, rule.bits)
  return masked(address, rule.bits).every((byte, i) => byte === wanted[i])
}

/** The address with all but its first `prefix` bits cleared. */
export function masked(address: Uint8Array, prefix: number): Uint8Array {
  return address.map((byte, i) => byte & maskByte(prefix - 8 * i))
}

/** The bits of a prefix that a mask stands for (`255.255.0.0`: 16); undefined when its bits are not all in front. */
export function maskLength(mask: Uint8Array): number | undefined {
  for (let prefix = 0; prefix <= mask.length * 8; prefix++) {
    if (mask.every((byte, i) => byte === maskByte(prefix - 8 * i))) return prefix
  }
  return undefined
}

/** A byte of a mask that has `bits` bits left to set. */
function maskByte(bits: number): number {
  return (0xff00 >> Math.min(8, Math.max(0, bits))) & 0xff
}
