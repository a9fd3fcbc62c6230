/** The kinds of values of the configuration language: how each is written and what it becomes. */

import { isIP } from 'node:net'
import { formatAddress, masked, maskLength, parseAddress } from './address.ts'
import type { CidrRule, ListenAddress } from './config.ts'
import { posixRegex } from './posix-regex.ts'

/** What reading a value gives: the value, perhaps with a remark (a warning), or the reason why there is none. */
export type Reading<T> =
  | { readonly value: T; readonly remark?: string; readonly suggestion?: string }
  | { readonly error?: string; readonly suggestion?: string }

export interface Kind<T> {
  /** What is expected, to follow "expected": `a whole number from 0 to 300`. */
  readonly expected: string
  /** The same in short, for the reference. */
  readonly brief: string
  read(text: string): Reading<T>
}

const SUFFIX: Readonly<Record<string, number>> = { '': 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12, p: 1e15 }

/**
 * A whole number: decimal, `0x…` hexadecimal or `0…` octal, with an optional last letter K, M or G (10^3, 10^6,
 * 10^9). hsflowd reads the leading digits and ignores what follows them; so do we, and say so.
 */
export function int(min: number, max = 0xffffffff): Kind<number> {
  const brief = max === 0xffffffff ? `whole number, at least ${min}` : `whole number, ${min} to ${max}`
  const expected =
    max === 0xffffffff ? `a whole number, at least ${min}` : `a whole number from ${min} to ${max}`
  return {
    expected,
    brief,
    read(text): Reading<number> {
      const [, digits, junk, suffix] = /^(0x[0-9a-f]+|0[0-7]*|[1-9]\d*)(.*?)([kmg]?)$/is.exec(text) ?? []
      if (digits === undefined) return {}
      const octal = /^0[0-7]/.test(digits)
      const value = (octal ? Number.parseInt(digits, 8) : Number(digits)) * SUFFIX[suffix!.toLowerCase()]!
      const meant = plainNumber(text)
      const suggestion =
        meant !== undefined && meant !== value && meant >= min && meant <= max
          ? { suggestion: `${meant}` }
          : {}
      if (value < min || value > max) return suggestion
      if (junk !== '') return { value, remark: `read as ${value}: "${junk}" is ignored`, ...suggestion }
      if (octal) return { value, remark: `read as ${value}: a leading 0 makes a number octal`, ...suggestion }
      return { value }
    },
  }
}

/** What a person most likely means by a number with a fraction, digit grouping or leading zeros. */
function plainNumber(text: string): number | undefined {
  const [, number, suffix] = /^(\d+(?:[,_']\d{3})*(?:\.\d+)?)([kmg]?)$/i.exec(text) ?? []
  if (number === undefined) return undefined
  const value = Number(number.replace(/[,_']/g, '')) * SUFFIX[suffix!.toLowerCase()]!
  return Number.isInteger(value) ? value : undefined
}

/** A fraction from 0 to 1. */
export function fraction(): Kind<number> {
  return {
    expected: 'a number from 0.0 to 1.0',
    brief: 'number, 0.0 to 1.0',
    read(text): Reading<number> {
      const [digits, ...rest] = /^\d+(?:\.\d*)?(?:e[-+]?\d+)?/i.exec(text) ?? []
      if (digits === undefined || rest.length > 0) return {}
      const value = Number(digits)
      if (value > 1) return {}
      const junk = text.slice(digits.length)
      return junk === '' ? { value } : { value, remark: `read as ${value}: "${junk}" is ignored` }
    },
  }
}

/** `on` or `off`, in any letter case. */
export function onOff(): Kind<boolean> {
  return {
    expected: 'on or off',
    brief: 'on or off',
    read(text): Reading<boolean> {
      const word = text.toLowerCase()
      if (word === 'on' || word === 'off') return { value: word === 'on' }
      if (/^(1|y|yes|true|enabled?)$/.test(word)) return { suggestion: 'on' }
      if (/^(0|n|no|false|none|disabled?)$/.test(word)) return { suggestion: 'off' }
      return {}
    },
  }
}

/** One of a few words, in any letter case. */
export function oneOf<const W extends string>(...words: readonly W[]): Kind<W> {
  const list = `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`
  return {
    expected: list,
    brief: list,
    read(text): Reading<W> {
      const value = words.find(word => word === text.toLowerCase())
      return value === undefined ? {} : { value }
    },
  }
}

/** Some of a few words, separated by commas. */
export function someOf<const W extends string>(...words: readonly W[]): Kind<readonly W[]> {
  const list = words.join(', ')
  return {
    expected: `a list, separated by commas, of ${list}`,
    brief: `list, separated by commas, of ${list}`,
    read(text): Reading<readonly W[]> {
      const chosen = text.toLowerCase().split(',')
      const value = words.filter(word => chosen.includes(word))
      return value.length === new Set(chosen).size ? { value } : {}
    },
  }
}

/** Any one word: interface names, paths and other text that is not checked. */
export function word(what: string): Kind<string> {
  return {
    expected: what,
    brief: what.replace(/^an? /, ''),
    read(text): Reading<string> {
      return text === '' ? {} : { value: text }
    },
  }
}

/** A numeric address or a host name; names are not resolved here. */
export function host(): Kind<string> {
  return {
    expected: 'an IP address or a host name',
    brief: 'IP address or host name',
    read(text): Reading<string> {
      if (isIP(text) !== 0) return { value: text }
      if (/^[\d.]+$/.test(text)) {
        // The C library takes short and octal forms of IPv4 addresses, as the URL parser does.
        const url = text.endsWith('.') ? null : URL.parse(`http://${text}/`)
        if (url === null) return {}
        return { value: url.hostname, remark: `read as ${url.hostname}`, suggestion: url.hostname }
      }
      return isHostName(text) ? { value: text } : hostInside(text)
    },
  }
}

function isHostName(text: string): boolean {
  return /^[\p{L}\p{N}_]([\p{L}\p{N}_.-]*[\p{L}\p{N}_.])?$/u.test(text) && !text.includes('..')
}

/** The address or name in what other programs would take for one: with brackets, a port or a scheme. */
function hostInside(text: string): Reading<string> {
  const [, bracketed, bare, port] = /^(?:\w+:\/\/)?(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d+))?$/.exec(text) ?? []
  const inside = bracketed ?? bare ?? ''
  if (bracketed === undefined ? isIP(inside) !== 4 && !isHostName(inside) : isIP(inside) !== 6) return {}
  return port === undefined
    ? { suggestion: inside }
    : { suggestion: `${inside} udpport = ${port}`, error: 'a port is a setting of its own' }
}

/** A numeric address. A name is accepted, as hsflowd does, but gives no value. */
export function address(): Kind<string | undefined> {
  return {
    expected: 'an IP address',
    brief: 'IP address',
    read(text): Reading<string | undefined> {
      const reading = host().read(text)
      if (!('value' in reading)) return {}
      if (parseAddress(reading.value) !== undefined) return reading
      return { value: undefined, remark: 'a name is not looked up here and has no effect: write the address' }
    },
  }
}

/** Where a server listens: address and port, or the path of a Unix socket. */
export function listen(): Kind<ListenAddress> {
  return {
    expected: 'an address with a port, as 127.0.0.1:9143 or [::1]:9143, or the path of a socket',
    brief: 'address:port, or path of a socket',
    read(text): Reading<ListenAddress> {
      if (text.startsWith('/')) return { value: { path: text } }
      const [, ip6, ip4, digits] = /^(?:\[(.+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? []
      const host = ip6 ?? ip4 ?? ''
      const port = Number(digits)
      if (host === 'localhost') return { suggestion: `127.0.0.1:${digits}` }
      if (/^\d{1,5}$/.test(text)) return { suggestion: `127.0.0.1:${text}` }
      if (isIP(host) !== (ip6 === undefined ? 4 : 6) || port < 1 || port > 65535) return {}
      return { value: { host, port } }
    },
  }
}

/** `address`, `address/bits` or `address/mask`, with a leading `!` for an exclusion. */
export function cidr(): Kind<CidrRule | undefined> {
  return {
    expected: 'an address block such as 192.0.2.0/24, or !192.0.2.0/24 to exclude it',
    brief: 'address block',
    read(text): Reading<CidrRule | undefined> {
      const exclude = text.startsWith('!')
      const [before = '', after, more] = text.slice(exclude ? 1 : 0).split('/')
      if (more !== undefined) return {}
      const ip = parseAddress(before)
      if (ip === undefined) {
        if (!('value' in host().read(before))) return {}
        return {
          value: undefined,
          remark: 'a name is not looked up here and has no effect: write the address',
        }
      }
      const width = ip.length * 8
      const bits = after === undefined ? width : prefixLength(after, ip)
      if (bits === undefined && after?.includes('.'))
        return { error: 'a mask has all its ones in front, as 255.255.0.0' }
      if (bits === undefined || bits > width) return { error: `a prefix has 0 to ${width} bits` }
      return { value: { address: formatAddress(masked(ip, bits)), bits, exclude } }
    },
  }
}

/** The bits of a prefix written as a number or as a mask; undefined when it is neither. */
function prefixLength(text: string, address: Uint8Array): number | undefined {
  if (/^\d{1,3}$/.test(text)) return Number(text)
  const mask = parseAddress(text)
  return mask?.length === address.length ? maskLength(mask) : undefined
}

/** `A` (exactly), `A-B` or `A-` (and above), in bit/s with K, M, G, T or P; a fraction (`2.5G`) is allowed. */
export function speedRange(): Kind<{ readonly min: number; readonly max: number }> {
  return {
    expected: 'a speed or range such as 1G, 1G-100G or 10G-',
    brief: 'speed or range of speeds',
    read(text): Reading<{ readonly min: number; readonly max: number }> {
      const [, low, lowUnit, dash, high, highUnit] =
        /^(\d+(?:\.\d+)?)([kmgtp]?)(?:(-)(?:(\d+(?:\.\d+)?)([kmgtp]?))?)?$/i.exec(text) ?? []
      if (low === undefined) return {}
      const min = Number(low) * SUFFIX[lowUnit!.toLowerCase()]!
      if (dash === undefined) return { value: { min, max: min } }
      if (high === undefined) return { value: { min, max: Number.POSITIVE_INFINITY } }
      const max = Number(high) * SUFFIX[highUnit!.toLowerCase()]!
      return min <= max
        ? { value: { min, max } }
        : { value: { min, max }, remark: 'no speed is in this range' }
    },
  }
}

/** A POSIX extended regular expression; it matches anywhere unless anchored. */
export function regex(): Kind<RegExp> {
  return {
    expected: 'a POSIX extended regular expression',
    brief: 'POSIX extended regular expression',
    read(text): Reading<RegExp> {
      try {
        return { value: posixRegex(text) }
      } catch (error) {
        return { error: (error as Error).message }
      }
    },
  }
}

/** 32 hexadecimal digits, with `-`, `.` or `:` between them as one likes; becomes lower case with dashes. */
export function uuid(): Kind<string> {
  return {
    expected: 'a UUID (32 hexadecimal digits)',
    brief: 'UUID',
    read(text): Reading<string> {
      const digits = text.replace(/[-.:]/g, '').toLowerCase()
      if (!/^[0-9a-f]{32}$/.test(digits)) return {}
      return { value: digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') }
    },
  }
}
