/** Interfaces that stand upon others: a packet that passes one passes those below it, too. */

/** What is to be known of an interface for that; agent/interfaces.ts has it. */
export interface StackedPort {
  readonly ifIndex: number
  readonly kind: string | undefined
  readonly masterIfIndex: number | undefined
  readonly linkIfIndex: number | undefined
  readonly linkNetnsId: number | undefined
}

/** Links that pass every packet on to the one below them. */
const UPPER_KINDS: ReadonlySet<string> = new Set(['vlan', 'macvlan', 'macvtap', 'ipvlan', 'ipvtap'])

/**
 * Gives a function for the interfaces right below one: the members of a bridge or bond, the parent of a VLAN, as far
 * as they are in the same namespace.
 */
export function portsBelow<Port extends StackedPort>(
  interfaces: ReadonlyMap<number, Port>,
): (port: Port) => Port[] {
  const members = Map.groupBy(interfaces.values(), port => port.masterIfIndex)
  return port => {
    const list = [...(members.get(port.ifIndex) ?? [])]
    if (port.kind !== undefined && UPPER_KINDS.has(port.kind) && port.linkNetnsId === undefined) {
      const parent = interfaces.get(port.linkIfIndex ?? 0)
      if (parent !== undefined) list.push(parent)
    }
    return list
  }
}

/** Those for which `isCandidate` holds below this one, and have none below themselves. */
export function lowestBelow<Port extends StackedPort>(
  port: Port,
  below: (port: Port) => Port[],
  isCandidate: (port: Port) => boolean,
  seen = new Set<number>(),
): Port[] {
  if (seen.has(port.ifIndex)) return []
  seen.add(port.ifIndex)
  return below(port).flatMap(lower => {
    const list = lowestBelow(lower, below, isCandidate, seen)
    return list.length > 0 || !isCandidate(lower) ? list : [lower]
  })
}
