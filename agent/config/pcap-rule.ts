/** Which pcap { } block, if any, says that an interface is sampled. */

import type { PcapConfig } from './config.ts'
import { type EffectiveRate, effectiveRate, type RateRules } from './sampling-rate.ts'

/** What the blocks ask about an interface. */
export interface TappedPort {
  readonly name: string
  /** rtnetlink's kind: `bond`, `vlan`, `veth`, …; undefined for hardware. */
  readonly kind: string | undefined
  /** 0 when unknown. */
  readonly speedBitsPerSecond: number
}

export interface PcapDecision {
  readonly rule: PcapConfig | undefined
  /** Index of the rule in the configuration, -1 when none matches. */
  readonly index: number
  /** Why, for people: `pcap[1] matches` or what stands against it. */
  readonly why: string
}

/** Kinds that only a block which names the device samples: their packets pass another interface too. */
const LEFT_OUT: ReadonlySet<string> = new Set(['bond', 'team', 'vlan', 'veth', 'openvswitch'])

/**
 * Tries the blocks from the last declared to the first. `dev` has to be the name itself; without it `dev.pattern`
 * has to match the name, if given, and the kind must not be one that is left out. `speed`, if given, has to contain
 * the interface's speed, which is 0 when it is not known.
 */
export function pcapRule(rules: readonly PcapConfig[], port: TappedPort): PcapDecision {
  let why = rules.length === 0 ? 'there is no pcap { }' : 'no pcap { } names it'
  for (let index = rules.length - 1; index >= 0; index--) {
    const rule = rules[index]!
    const { device, devicePattern, speed } = rule
    if (device !== undefined ? device !== port.name : devicePattern?.test(port.name) === false) continue
    if (device === undefined && port.kind !== undefined && LEFT_OUT.has(port.kind)) {
      why = `pcap[${index}] leaves out interfaces of kind ${port.kind} unless dev names them`
    } else if (speed && !(speed.min <= port.speedBitsPerSecond && port.speedBitsPerSecond <= speed.max)) {
      why =
        port.speedBitsPerSecond === 0
          ? `its speed is not known, and pcap[${index}] asks for one`
          : `pcap[${index}] asks for another speed`
    } else {
      return { rule, index, why: `pcap[${index}] matches` }
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
  const name = `pcap[${index}].sampling`
  return { rate, rule: `${name} = ${rate} (line ${config.lines.get(name)})` }
}
