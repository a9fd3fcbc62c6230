import { ABSENT, HEADER_PROTOCOL, type PacketSample } from '../samples/packet-sample.ts'

/**
 * The VLANs of a sampled packet at its input and output, for extended_switch: from the tag in the sampled header, and
 * from the VLANs of the bridge ports for frames that have none. What is not certain is left unknown.
 */

/** What is to be known of an interface; agent/bridge-vlans.ts has it. */
export interface VlanPorts {
  /** Undefined: not a port of a bridge that filters VLANs. */
  bridgePort(ifIndex: number): BridgePort | undefined
  /** The VLAN of a VLAN interface, 0 for others. */
  vlanOf(ifIndex: number): number
}

export interface BridgePort {
  /** VLAN of frames without a tag, 0 for none. */
  readonly pvid: number
  /** The only VLAN it is a member of, 0 when it has several or none. */
  readonly only: number
  has(vid: number): boolean
}

const ETHERTYPE_AT = 12
const TAGGED_LEAST = 16
const ETH_P_8021Q = 0x8100
const ETH_P_8021AD = 0x88a8
const VID_MASK = 0xfff

/** Fills the VLANs and priorities of each sample. */
export class VlanAnnotator {
  readonly #ports: VlanPorts

  constructor(ports: VlanPorts) {
    this.#ports = ports
  }

  /** Sets `inputVlan`, `inputPriority`, `outputVlan` and `outputPriority`; allocates nothing. */
  readonly annotate = (sample: PacketSample): void => {
    sample.inputVlan = ABSENT
    sample.inputPriority = ABSENT
    sample.outputVlan = ABSENT
    sample.outputPriority = ABSENT
    const input = this.#ports.bridgePort(sample.inputIfIndex)
    const output = this.#ports.bridgePort(sample.outputIfIndex)
    const tci = tagOf(sample)
    // A packet is sampled as it comes in or as it goes out: the tag is that of the data source.
    const isIngress = sample.dataSource === sample.inputIfIndex
    if (isIngress) {
      const priority = tci < 0 ? 0 : tci >> 13
      const vid = vlanAt(input, tci, sample.tagKept) || this.#ports.vlanOf(sample.inputIfIndex)
      if (vid === 0) return
      sample.inputVlan = vid
      if (tci >= 0 || input !== undefined) sample.inputPriority = priority
      if (output?.has(vid)) {
        sample.outputVlan = vid
        sample.outputPriority = sample.inputPriority
      }
    } else {
      const vid = vlanAt(output, tci, sample.tagKept) || this.#ports.vlanOf(sample.outputIfIndex)
      if (vid === 0) return
      sample.outputVlan = vid
      if (tci >= 0) sample.outputPriority = tci >> 13
      if (input?.has(vid)) sample.inputVlan = vid
    }
  }
}

/** The VLAN of a frame at a port; 0 when it is not known. */
function vlanAt(port: BridgePort | undefined, tci: number, tagKept: boolean): number {
  const vid = tci < 0 ? 0 : tci & VID_MASK
  if (vid !== 0) return vid
  if (port === undefined) return 0
  // Without a tag, or with one that has a priority only. Where the tag may have been taken off before, the port decides
  // if it has no choice.
  return tagKept || tci >= 0 ? port.pvid : port.only
}

/** The outermost tag's control information, -1 when the header has none. */
function tagOf(sample: PacketSample): number {
  if (sample.headerProtocol !== HEADER_PROTOCOL.ethernet || sample.headerLength < TAGGED_LEAST) return -1
  // Bytes 12 to 15 of the frame, one word in wire order on a little-endian machine.
  const word = sample.headerWords[(sample.headerOffset + ETHERTYPE_AT) >> 2]!
  const etherType = ((word & 0xff) << 8) | ((word >>> 8) & 0xff)
  if (etherType !== ETH_P_8021Q && etherType !== ETH_P_8021AD) return -1
  return (((word >>> 16) & 0xff) << 8) | (word >>> 24)
}
