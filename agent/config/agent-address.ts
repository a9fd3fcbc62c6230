/** Chooses the address that the agent is known by, in the way hsflowd does. */

import { formatAddress, inBlock, parseAddress } from './address.ts'
import type { AgentAddressConfig, CidrRule } from './config.ts'

/** One address of one interface of this host. */
export interface AddressCandidate {
  readonly address: string
  readonly ifIndex: number
  readonly interfaceName: string
  /** ifAlias, if it has one. */
  readonly alias?: string | undefined
  /** The interface is a VLAN on another one. */
  readonly vlan: boolean
  /** Administratively up. */
  readonly up: boolean
  /** Configured, not given by a router for a time (IFA_F_PERMANENT). */
  readonly permanent: boolean
}

export interface RankedAddress {
  readonly address: string
  /** The interface that gave it its score; undefined for an `agentIP` that no interface has. */
  readonly interfaceName: string | undefined
  readonly score: number
  /** How the score came about, for example `IPv4 private 11, agent.cidr 10.0.0.0/8 +13`. */
  readonly why: string
}

export interface AgentAddressChoice {
  /** Undefined when there is no candidate. */
  readonly chosen: RankedAddress | undefined
  /** All candidates, best first, whichever was chosen. */
  readonly ranked: readonly RankedAddress[]
  /** Something the user should know: a rule that did not apply. */
  readonly note: string | undefined
}

/** One more than the best class: a preferred address stands above every address that is not. */
const BOOST = 13

/**
 * Ranks the candidates and chooses the best, or `agentIP` when the rules name one. Candidates are in the order in
 * which the kernel lists them. Of an interface that is down only the first IPv4 address and the IPv6 addresses
 * take part. A score of 0 does not exclude an address: it is taken when there is nothing better. `previous` is the
 * address chosen before: among equals it stays, so that the collectors go on knowing the agent by it.
 */
export function chooseAgentAddress(
  candidates: readonly AddressCandidate[],
  rules: AgentAddressConfig,
  previous?: string,
): AgentAddressChoice {
  const pegged = deviceAddresses(candidates, rules.device)
  const byAddress = new Map<string, Scored>()
  const withIpv4 = new Set<number>()
  for (const candidate of candidates) {
    const ip = parseAddress(candidate.address)
    if (ip === undefined) continue
    if (ip.length === 4 && !candidate.up && withIpv4.has(candidate.ifIndex)) continue
    if (ip.length === 4) withIpv4.add(candidate.ifIndex)
    const scored = score(candidate, ip, rules, pegged.has(candidate))
    const same = byAddress.get(scored.address)
    byAddress.set(scored.address, same === undefined ? scored : merge(same, scored))
  }
  // The sort is stable: what is still equal stays in the order of discovery.
  const ranked = [...byAddress.values()].sort(
    (a, b) =>
      b.score - a.score ||
      Number(a.temporary) - Number(b.temporary) ||
      Number(b.address === previous) - Number(a.address === previous) ||
      a.ifIndex - b.ifIndex,
  )
  const note =
    rules.device !== undefined && pegged.size === 0
      ? `agent = ${rules.device}: no interface of this name or alias has an address`
      : undefined
  if (rules.address === undefined) return { chosen: ranked[0], ranked, note }

  const fixed = formatAddress(parseAddress(rules.address)!)
  const local = byAddress.get(fixed)
  return {
    chosen: {
      address: fixed,
      interfaceName: local?.interfaceName,
      score: local?.score ?? 0,
      why: `agentIP = ${rules.address}`,
    },
    ranked,
    note,
  }
}

interface Scored extends RankedAddress {
  readonly interfaceName: string
  /** The lowest of the interfaces that have the address. */
  readonly ifIndex: number
  /** An IPv6 address that may expire. */
  readonly temporary: boolean
}

/** The addresses of the interface with this name, or if there is none, with this alias. */
function deviceAddresses(
  candidates: readonly AddressCandidate[],
  device: string | undefined,
): ReadonlySet<AddressCandidate> {
  if (device === undefined) return new Set()
  const named = candidates.filter(({ interfaceName }) => interfaceName === device)
  return new Set(named.length > 0 ? named : candidates.filter(({ alias }) => alias === device))
}

function score(
  candidate: AddressCandidate,
  ip: Uint8Array,
  rules: AgentAddressConfig,
  pegged: boolean,
): Scored {
  const [base, name] = ip.length === 4 ? classOfIpv4(ip, candidate.vlan) : classOfIpv6(ip, candidate.vlan)
  let sum = base
  const why = [`${name} ${base}`]
  const match = firstMatch(ip, rules.cidrs)
  if (match !== undefined) {
    const block = `agent.cidr ${match.rule.exclude ? '!' : ''}${match.rule.address}/${match.rule.bits}`
    sum = match.rule.exclude ? 0 : sum + match.position * BOOST
    why.push(match.rule.exclude ? `${block} sets 0` : `${block} +${match.position * BOOST}`)
  }
  if (pegged) {
    sum += BOOST
    why.push(`agent = ${rules.device} +${BOOST}`)
  }
  return {
    address: formatAddress(ip),
    interfaceName: candidate.interfaceName,
    score: sum,
    why: why.join(', '),
    ifIndex: candidate.ifIndex,
    temporary: ip.length === 16 && !candidate.permanent,
  }
}

/** One address on two interfaces: it has the better score, and the lower ifIndex. */
function merge(a: Scored, b: Scored): Scored {
  const best = b.score > a.score ? b : a
  return { ...best, ifIndex: Math.min(a.ifIndex, b.ifIndex), temporary: a.temporary && b.temporary }
}

/** Blocks are tried from the last declared to the first; the position counts from the last, which is 1. */
function firstMatch(
  ip: Uint8Array,
  cidrs: readonly CidrRule[],
): { rule: CidrRule; position: number } | undefined {
  for (let i = cidrs.length - 1; i >= 0; i--) {
    const rule = cidrs[i]!
    if (inBlock(ip, rule)) return { rule, position: cidrs.length - i }
  }
  return undefined
}

/** Blocks of a kind of addresses, with the score and the name of the kind. The order of tests matters. */
type Classes = readonly (readonly [address: string, bits: number, score: number, name: string])[]

const IPV4_BEFORE_VLAN: Classes = [
  ['0.0.0.0', 32, 0, 'unspecified'],
  ['127.0.0.0', 8, 4, 'IPv4 loopback'],
  ['169.254.0.0', 16, 5, 'IPv4 self-assigned'],
]
const IPV4_AFTER_VLAN: Classes = [
  ['10.0.0.0', 8, 11, 'IPv4 private'],
  ['172.16.0.0', 12, 11, 'IPv4 private'],
  ['192.168.0.0', 16, 11, 'IPv4 private'],
  ['240.0.0.0', 4, 1, 'IPv4 class E'],
  ['224.0.0.0', 4, 0, 'IPv4 multicast'],
]
const IPV6_BEFORE_VLAN: Classes = [
  ['::', 128, 0, 'unspecified'],
  ['::1', 128, 3, 'IPv6 loopback'],
  ['fe80::', 10, 6, 'IPv6 link-local'],
  ['fc00::', 7, 9, 'IPv6 unique-local'],
]
const IPV6_AFTER_VLAN: Classes = [['ff00::', 8, 0, 'IPv6 multicast']]

function classOfIpv4(ip: Uint8Array, vlan: boolean): readonly [number, string] {
  return (
    classIn(IPV4_BEFORE_VLAN, ip) ??
    (vlan ? [8, 'IPv4 on a VLAN'] : undefined) ??
    classIn(IPV4_AFTER_VLAN, ip) ?? [12, 'IPv4 public']
  )
}

function classOfIpv6(ip: Uint8Array, vlan: boolean): readonly [number, string] {
  return (
    classIn(IPV6_BEFORE_VLAN, ip) ??
    (vlan ? [7, 'IPv6 on a VLAN'] : undefined) ??
    classIn(IPV6_AFTER_VLAN, ip) ?? [10, 'IPv6 global']
  )
}

function classIn(classes: Classes, ip: Uint8Array): readonly [number, string] | undefined {
  const found = classes.find(([address, bits]) => inBlock(ip, { address, bits }))
  return found && [found[2], found[3]]
}
