import type { PsampleConfig, TcConfig } from '../config/config.ts'
import type { Interface } from '../interfaces.ts'
import { lowestBelow, portsBelow } from '../stacked.ts'
import type { WantedSampler } from './tc-samplers.ts'

/** Whether an interface gets tc samplers, and why. */
export interface PortDecision {
  readonly ifIndex: number
  readonly name: string
  readonly selected: boolean
  /** One line for the user, without the name. */
  readonly reason: string
}

const ARPHRD_ETHER = 1

/**
 * Decides which interfaces get tc samplers, so that no packet is sampled twice on its way through one machine: the
 * kernel shows a packet of a bond's member at the member and at the bond, one of a bridge at its port and, if it is
 * for this host, at the bridge, and one of a VLAN also at the link below. Those below are taken.
 *
 * Ports are physical and switch ports and veths; when the file names `switchport` itself, whatever it matches.
 */
export function selectPorts(
  interfaces: ReadonlyMap<number, Interface>,
  config: Pick<TcConfig, 'switchport' | 'switchportGiven'>,
): PortDecision[] {
  const refusals = new Map([...interfaces.values()].map(port => [port.ifIndex, refusal(port, config)]))
  const isCandidate = ({ ifIndex }: Interface) => refusals.get(ifIndex) === undefined
  const below = portsBelow(interfaces)
  return [...interfaces.values()].map(port => {
    const { ifIndex, name } = port
    const refused = refusals.get(ifIndex)
    if (refused !== undefined) return { ifIndex, name, selected: false, reason: refused }
    const sampled = lowestBelow(port, below, isCandidate)
    if (sampled.length > 0) {
      const names = sampled.map(lower => lower.name).join(', ')
      return { ifIndex, name, selected: false, reason: `its packets are sampled at ${names}` }
    }
    return { ifIndex, name, selected: true, reason: `${kindText(port)}, matches switchport` }
  })
}

export interface SamplerRules {
  readonly tc: TcConfig
  readonly psample: Pick<PsampleConfig, 'group' | 'ingress' | 'egress'>
  /** Octets of a packet to export at most. */
  readonly headerBytes: number
}

/**
 * The samplers to place: on each selected port one for each direction that the psample block takes, ingress on its
 * group and egress on the next. `rateOf` gives the N of 1 in N; a port with 0 gets none. Unless the file says
 * `sw = on` the hardware is to sample, and no packet that only the CPU sees.
 */
export function wantedSamplers(
  interfaces: ReadonlyMap<number, Interface>,
  { tc, psample, headerBytes }: SamplerRules,
  rateOf: (port: Interface) => number,
): WantedSampler[] {
  return selectPorts(interfaces, tc).flatMap(({ ifIndex, name, selected }) => {
    const rate = selected ? rateOf(interfaces.get(ifIndex)!) : 0
    if (rate === 0) return []
    // A length of 0 would ask for whole packets.
    const truncate = Math.max(headerBytes, 1)
    const sampler = { ifIndex, name, rate, truncate, skipSw: !tc.sw, skipHw: false }
    const samplers: WantedSampler[] = []
    if (psample.ingress) samplers.push({ ...sampler, direction: 'ingress', group: psample.group })
    if (psample.egress) samplers.push({ ...sampler, direction: 'egress', group: psample.group + 1 })
    return samplers
  })
}

/** Why the interface is no candidate; undefined when it is one. */
function refusal(
  port: Interface,
  { switchport, switchportGiven }: Pick<TcConfig, 'switchport' | 'switchportGiven'>,
): string | undefined {
  if (port.loopback) return 'the loopback interface is never sampled'
  if (!switchport.test(port.name)) return `its name does not match switchport = ${switchport.source}`
  if (switchportGiven || isPort(port)) return undefined
  return `a ${kindText(port)} is sampled only when the file sets switchport`
}

/** Hardware, what stands for it in a simulation, and the veths of containers and labs. */
function isPort(port: Interface): boolean {
  if (port.kind === 'veth' || port.kind === 'dsa' || port.parentDevice !== undefined) return true
  return port.kind === undefined && port.hardwareType === ARPHRD_ETHER
}

function kindText(port: Interface): string {
  if (port.switchId !== undefined) return 'switch port'
  return (
    port.kind ?? (port.hardwareType === ARPHRD_ETHER ? 'physical port' : `link of type ${port.hardwareType}`)
  )
}
