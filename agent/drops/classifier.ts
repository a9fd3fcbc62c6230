import { type Drop, NAMES_MOST, type Name } from '../samples/drop.ts'
import { DISCARD_REASONS } from '../wire/sflow/discard-reasons.ts'
import { byteAt, ipOffset } from './packet-bytes.ts'
import { FUNCTIONS, KERNEL_REASON_PREFIXES, KERNEL_REASONS, type Row, TRAP_GROUPS, TRAPS } from './reasons.ts'

/**
 * Decides what a drop is called, which sFlow discard reason it has, and whether it is left out. Each combination of
 * names is decided once and remembered; only what depends on the packet's bytes is looked at again.
 */

/** Why a drop is not reported at all. */
export type LeftOut = 'noise' | 'host' | 'hidden' | 'unknown-trap' | 'own-datagram'

export interface Verdict {
  /** From 1, each verdict its own. */
  readonly id: number
  /** The reason in the kernel's words: drop reason, `trap NAME`, or the function where there is no reason. */
  readonly label: string
  /** sFlow discard reason. */
  readonly code: number
  /** Undefined: it is reported. */
  readonly leftOut: LeftOut | undefined
}

export interface ClassifierOptions {
  /** Use the kernel's reasons; else the function alone decides. */
  readonly reasonNames: boolean
  /** Report traps that neither they nor their group are known. */
  readonly unknownTraps: boolean
  /** Report what the host's own sockets and protocols refuse. */
  readonly host: boolean
  /** Leave out what matches: reason, trap or function. */
  readonly hide: RegExp | undefined
}

/** Looks at the packet; undefined when it tells nothing more. */
type Look = (drop: Drop) => number | undefined

interface Entry {
  readonly verdict: Verdict
  readonly look: Look | undefined
  /** What the look led to, by discard reason. */
  readonly seen: Map<number, Verdict>
}

const CODES = new Map(DISCARD_REASONS.map(([code, name]) => [name, code]))
const NAMES = new Map(DISCARD_REASONS.map(([code, name]) => [code, name]))
const REASONS = tableOf(KERNEL_REASONS)
const TRAP_ROWS = tableOf(TRAPS)
const GROUP_ROWS = tableOf(TRAP_GROUPS)
const UNKNOWN = codeOf('unknown')

/** Reasons that say nothing: the function decides. */
const NO_REASON = 'NOT_SPECIFIED'
/** EtherTypes of packets; a buffer without interface and with another one never was a packet. */
const PACKET_TYPES = new Set([0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x8847])

export class Classifier {
  readonly #options: ClassifierOptions
  readonly #software = new Map<number, Entry>()
  readonly #hardware = new Map<number, Entry>()
  readonly #byLabel = new Map<string, Verdict>()
  /** By id; 0 is not used. */
  readonly #verdicts: Verdict[] = []
  readonly #notAPacket: Verdict

  constructor(options: ClassifierOptions) {
    this.#options = options
    this.#notAPacket = this.#verdict('not a packet', UNKNOWN, 'noise')
  }

  /** The verdict on a drop; allocates only for what was not seen before. */
  classify(drop: Drop): Verdict {
    if (!drop.hardware && drop.inputIfIndex === 0 && !PACKET_TYPES.has(drop.etherType))
      return this.#notAPacket
    const { verdict, look, seen } = drop.hardware ? this.#ofTrap(drop) : this.#ofReason(drop)
    if (look === undefined || verdict.leftOut !== undefined) return verdict
    const code = look(drop)
    if (code === undefined) return verdict
    let refined = seen.get(code)
    if (refined === undefined) {
      refined = this.#verdict(`${verdict.label}: ${NAMES.get(code)}`, code, undefined)
      seen.set(code, refined)
    }
    return refined
  }

  /** Why a drop with this kernel reason is left out, whatever else is known of it; undefined: more is to be looked at. */
  leftOutByReason(reason: string): LeftOut | undefined {
    const { reasonNames, hide } = this.#options
    if (hide?.test(reason)) return 'hidden'
    return reasonNames && reason !== NO_REASON ? this.#leftOut(reasonRow(reason)) : undefined
  }

  /** The verdict with this id. */
  verdict(id: number): Verdict {
    return this.#verdicts[id - 1]!
  }

  #ofTrap({ trap, trapGroup }: Drop): Entry {
    const key = idOf(trap) * NAMES_MOST + idOf(trapGroup)
    const known = this.#hardware.get(key)
    if (known !== undefined) return known
    const { unknownTraps, hide } = this.#options
    const label = `trap ${trap?.text ?? '?'}`
    const row = TRAP_ROWS.get(trap?.text ?? '') ?? GROUP_ROWS.get(trapGroup?.text ?? '')
    let leftOut = this.#leftOut(row)
    if (row === undefined && !unknownTraps) leftOut = 'unknown-trap'
    if (trap !== undefined && hide?.test(trap.text)) leftOut = 'hidden'
    const code = row === undefined ? UNKNOWN : codeOf(row[1])
    const entry = { verdict: this.#verdict(label, code, leftOut), look: undefined, seen: new Map() }
    this.#hardware.set(key, entry)
    return entry
  }

  #ofReason({ reason, symbol }: Drop): Entry {
    const key = idOf(reason) * NAMES_MOST + idOf(symbol)
    const known = this.#software.get(key)
    if (known !== undefined) return known
    const { reasonNames, hide } = this.#options
    const name = functionOf(symbol)
    const given = reasonNames && reason !== undefined && reason.text !== NO_REASON ? reason.text : undefined
    const row = given === undefined ? functionRow(name) : reasonRow(given)
    let code = row === undefined ? UNKNOWN : codeOf(row[1])
    if (code === codeOf('tc_ingress') && name.startsWith('__dev_queue_xmit')) code = codeOf('tc_egress')
    let leftOut = this.#leftOut(row)
    if (hide !== undefined && (hide.test(reason?.text ?? '') || hide.test(symbol?.text ?? '')))
      leftOut = 'hidden'
    const label = given ?? (name === '' ? NO_REASON : name)
    const verdict = this.#verdict(label, code, leftOut)
    const entry = { verdict, look: lookFor(given, name), seen: new Map() }
    this.#software.set(key, entry)
    return entry
  }

  #leftOut(row: Row | undefined): LeftOut | undefined {
    const kind = row?.[2]
    if (kind === 'noise') return 'noise'
    return kind === 'host' && !this.#options.host ? 'host' : undefined
  }

  /** One verdict for all that look the same to a reader; it is made on first use. */
  #verdict(label: string, code: number, leftOut: LeftOut | undefined): Verdict {
    const key = `${label} ${code} ${leftOut ?? ''}`
    let verdict = this.#byLabel.get(key)
    if (verdict === undefined) {
      verdict = { id: this.#verdicts.length + 1, label, code, leftOut }
      this.#verdicts.push(verdict)
      this.#byLabel.set(key, verdict)
    }
    return verdict
  }
}

/** True when the tables know this kernel drop reason, given without its prefix. */
export function isKnownReason(name: string): boolean {
  return reasonRow(name) !== undefined
}

function reasonRow(name: string): Row | undefined {
  return REASONS.get(name) ?? KERNEL_REASON_PREFIXES.find(([prefix]) => name.startsWith(prefix))
}

function functionRow(name: string): Row | undefined {
  return name === '' ? undefined : FUNCTIONS.find(([prefix]) => name.startsWith(prefix))
}

/** The function without offset; empty when the kernel could not resolve it and gave its address. */
function functionOf(symbol: Name | undefined): string {
  const name = symbol?.text.split('+', 1)[0] ?? ''
  return name.startsWith('0x') ? '' : name
}

function idOf(name: Name | undefined): number {
  return name?.id ?? 0
}

function codeOf(name: string): number {
  const code = CODES.get(name)
  if (code === undefined) throw new Error(`no discard reason is named ${name}`)
  return code
}

function tableOf(rows: readonly Row[]): ReadonlyMap<string, Row> {
  return new Map(rows.map(row => [row[0], row]))
}

function lookFor(reason: string | undefined, name: string): Look | undefined {
  const forwards = name.startsWith('ip_forward') || name.startsWith('ip6_forward')
  if (forwards && (reason === undefined || reason === 'IP_INHDR')) return ttlExceeded
  if (reason === undefined && name === 'br_handle_frame') return blockedPort
  if (reason === 'IP_INVALID_SOURCE') return invalidSource
  if (reason === 'IP_LOCALNET') return loopbackAddress
  return undefined
}

/** A router's decrement would leave nothing: ip_forward() and ip6_forward() call that a wrong header. */
function ttlExceeded(drop: Drop): number | undefined {
  const at = ipOffset(drop)
  if (at < 0) return undefined
  const version = byteAt(drop, at) >> 4
  const ttl = byteAt(drop, at + (version === 4 ? 8 : 7))
  return ttl >= 0 && ttl <= 1 ? codeOf('ttl_exceeded') : undefined
}

/** A bridge refuses two things where a frame comes in: sources that cannot be, and ports that do not forward. */
function blockedPort(drop: Drop): number | undefined {
  const source = byteAt(drop, 6)
  if (source < 0) return undefined
  return codeOf((source & 1) === 1 ? 'src_mac_is_multicast' : 'ingress_spanning_tree_filter')
}

function invalidSource(drop: Drop): number | undefined {
  const source = ip4Address(drop, 12)
  if (source < 0) return undefined
  if (source === 0) return codeOf('sip_is_unspecified')
  if (source === 0xffffffff) return codeOf('ipv4_sip_is_limited_bc')
  return source >>> 28 === 0xe ? codeOf('sip_is_mc') : undefined
}

function loopbackAddress(drop: Drop): number | undefined {
  if (ip4Address(drop, 12) >>> 24 === 127) return codeOf('sip_is_loopback_address')
  return ip4Address(drop, 16) >>> 24 === 127 ? codeOf('dip_is_loopback_address') : undefined
}

/** The address at this offset of an IPv4 header, -1 when there is none. */
function ip4Address(drop: Drop, offset: number): number {
  const at = ipOffset(drop)
  if (at < 0 || byteAt(drop, at) >> 4 !== 4 || byteAt(drop, at + offset + 3) < 0) return -1
  let address = 0
  for (let i = 0; i < 4; i++) address = address * 256 + byteAt(drop, at + offset + i)
  return address
}
