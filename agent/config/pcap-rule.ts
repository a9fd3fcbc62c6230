/** Which pcap { } block, if any, says that an interface is sampled. */

import { lowestBelow, portsBelow, type StackedPort } from '../stacked.ts'
import type { PcapConfig } from './config.ts'
import { type EffectiveRate, effectiveRate, type RateRules, speedName } from './sampling-rate.ts'

/** What the blocks ask about an interface. */
export interface TappedPort extends StackedPort {
  readonly name: string
  /** rtnetlink's kind: `bond`, `vlan`, `veth`, …; undefined for hardware. */
  readonly kind: string | undefined
  /** 0 when unknown. */
  readonly speedBitsPerSecond: number
  readonly loopback: boolean
}

export interface PcapDecision {
  readonly rule: PcapConfig | undefined
  /** Index of the rule in the configuration, -1 when none matches. */
  readonly index: number
  /** Why, for people: `pcap { dev = eth0 } matches` or what stands against it. */
  readonly why: string
}

/** Kinds that a block takes which names neither a device nor a pattern; beside them what has no kind, hardware. */
const USUAL_KINDS: ReadonlySet<string | undefined> = new Set([
  undefined,
  'bond',
  'bridge',
  'dsa',
  'team',
  'vlan',
])

/**
 * Decides for all interfaces. One that `dev` names is always sampled. The others are chosen so that no packet is sampled
 * twice on its way up or down through one machine: the kernel shows it at the member and at the bond, at the port and at
 * the bridge, at the VLAN and at the link below. Those below are taken, unless `dev` names one above.
 */
export function pcapDecisions<Port extends TappedPort>(
  rules: readonly PcapConfig[],
  interfaces: ReadonlyMap<number, Port>,
): Map<number, PcapDecision> {
  const decisions = new Map([...interfaces].map(([ifIndex, port]) => [ifIndex, pcapRule(rules, port)]))
  const below = portsBelow(interfaces)
  const isNamed = ({ ifIndex }: Port) => decisions.get(ifIndex)!.rule?.device !== undefined
  const refuse = ({ ifIndex }: Port, others: readonly Port[]) => {
    const names = others.map(({ name }) => name).join(', ')
    decisions.set(ifIndex, { rule: undefined, index: -1, why: `its packets are sampled at ${names}` })
  }
  for (const port of interfaces.values()) if (isNamed(port)) refuseBelow(port, [port])
  const isChosen = ({ ifIndex }: Port) => decisions.get(ifIndex)!.rule !== undefined
  // Which ones are lowest does not change while those above them are refused.
  const lowest = [...interfaces.values()].map(port => [port, lowestBelow(port, below, isChosen)] as const)
  for (const [port, lower] of lowest) {
    if (isChosen(port) && !isNamed(port) && lower.length > 0) refuse(port, lower)
  }
  return decisions

  function refuseBelow(port: Port, named: readonly Port[], seen = new Set<number>()): void {
    if (seen.has(port.ifIndex)) return
    seen.add(port.ifIndex)
    for (const lower of below(port)) {
      if (!isNamed(lower) && decisions.get(lower.ifIndex)!.rule !== undefined) refuse(lower, named)
      refuseBelow(lower, named, seen)
    }
  }
}

/**
 * Interfaces whose counters are left out because of `vport = off`: the ports of a bridge that is sampled by such a block,
 * but for those that are sampled themselves.
 */
export function portsWithoutCounters<Port extends TappedPort>(
  rules: readonly PcapConfig[],
  interfaces: ReadonlyMap<number, Port>,
): ReadonlySet<number> {
  if (rules.every(({ vport }) => vport !== false)) return new Set()
  const decisions = pcapDecisions(rules, interfaces)
  const isLeftOut = ({ ifIndex, masterIfIndex }: Port) =>
    interfaces.get(masterIfIndex ?? 0)?.kind === 'bridge' &&
    decisions.get(masterIfIndex!)!.rule?.vport === false &&
    decisions.get(ifIndex)!.rule === undefined
  return new Set([...interfaces.values()].filter(isLeftOut).map(({ ifIndex }) => ifIndex))
}

/**
 * Tries the blocks from the last declared to the first. `dev` has to be the name itself; without it `dev.pattern` has to
 * match the name, and without either the interface has to be of a usual kind. `speed`, if given, has to contain the
 * interface's speed, which is 0 when it is not known.
 */
function pcapRule(rules: readonly PcapConfig[], port: TappedPort): PcapDecision {
  let why = rules.length === 0 ? 'there is no pcap { }' : 'no pcap { } names it'
  for (let index = rules.length - 1; index >= 0; index--) {
    const rule = rules[index]!
    const { device, devicePattern, speed } = rule
    if (device !== undefined ? device !== port.name : devicePattern?.test(port.name) === false) continue
    if (device === undefined && port.loopback) {
      why = 'the loopback interface is sampled only when dev names it'
    } else if (device === undefined && devicePattern === undefined && !USUAL_KINDS.has(port.kind)) {
      why = `an interface of kind ${port.kind} is sampled only when dev or dev.pattern names it`
    } else if (speed && !(speed.min <= port.speedBitsPerSecond && port.speedBitsPerSecond <= speed.max)) {
      why =
        port.speedBitsPerSecond === 0
          ? `its speed is not known, and ${pcapText(rule)} asks for one`
          : `${pcapText(rule)} asks for another speed`
    } else {
      return { rule, index, why: `${pcapText(rule)} matches` }
    }
  }
  return { rule: undefined, index: -1, why }
}

/**
 * The rate at which an interface is sampled by the block of this index: what the block says, else by speed as for any
 * interface; 0 while it is administratively down.
 */
export function pcapRate(
  config: RateRules & { readonly pcap: readonly PcapConfig[] },
  index: number,
  port: { readonly speedBitsPerSecond: number; readonly adminUp: boolean },
): EffectiveRate {
  const bySpeed = effectiveRate(config, port)
  const rate = config.pcap[index]?.sampling
  if (rate === undefined || !port.adminUp) return bySpeed
  const line = config.lines.get(`pcap[${index}].sampling`)
  return { rate, rule: `pcap { sampling = ${rate} } (line ${line})` }
}

/** A block as the file has it, as far as it chooses interfaces. */
function pcapText({ device, devicePattern, speed }: PcapConfig): string {
  const words = [
    ...(device === undefined ? [] : [`dev = ${device}`]),
    ...(device !== undefined || devicePattern === undefined ? [] : [`dev.pattern = ${devicePattern.source}`]),
    ...(speed === undefined ? [] : [`speed = ${speedText(speed)}`]),
    '',
  ]
  return `pcap { ${words.join(' ')}}`
}

/** As in the file: `1G-10G`, `1G-`, `10G`. */
export function speedText({ min, max }: NonNullable<PcapConfig['speed']>): string {
  if (min === max) return speedName(min)
  return `${speedName(min)}-${Number.isFinite(max) ? speedName(max) : ''}`
}
