/** Kinds of arguments that several commands take. */

import { InvalidArgumentError } from 'commander'
import type { ListenAddress } from '../decode/input.ts'

/** A whole number from 1 on. */
export function positive(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('Expected a whole number from 1 on.')
  return Number(text)
}

export function udpPort(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text) || Number(text) > 65_535) {
    throw new InvalidArgumentError('Expected a port, 1 to 65535.')
  }
  return Number(text)
}

/** An address and a port, either of which may be all there is: then it is given as `last`. */
export function splitAddress(text: string): { address: string | undefined; last: string | undefined } {
  const [, bracketed, plain, last] = /^(?:(?:\[([^\]]*)\]|([^[\]:]*)):)?([^:]*)$/.exec(text) ?? []
  return { address: bracketed ?? plain, last }
}

/** `6343`, `192.0.2.1:6343` or `[2001:db8::1]:6343` */
export function listenAddress(text: string): ListenAddress {
  const { address, last } = splitAddress(text)
  if (last === undefined) throw new InvalidArgumentError('Expected PORT, ADDRESS:PORT or [IPV6]:PORT.')
  return { address, port: udpPort(last) }
}
