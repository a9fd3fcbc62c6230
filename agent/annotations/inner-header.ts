import { ABSENT, type PacketSample } from '../samples/packet-sample.ts'
import { IP_PROTOCOL, PacketFields } from '../wire/packet.ts'

/**
 * Where the inner header of a tunnelled packet begins in the sampled header, and the virtual network it belongs to, for
 * extended_decapsulate and extended_vni: VXLAN, Geneve, GRE with NVGRE, and IP in IP.
 */

/** IANA's port, and that of Linux before it had one. */
const VXLAN_PORTS = [4789, 8472] as const
const GENEVE_PORT = 6081
const IP_IN_IP = 4
const IP6_IN_IP = 41
const GRE = 47
const VXLAN_BYTES = 8
const GENEVE_BYTES = 8
const GRE_CHECKSUM = 0x80
const GRE_KEY = 0x20
const GRE_SEQUENCE = 0x10
const GRE_VERSION = 0x07
/** Transparent Ethernet bridging: with a key it is NVGRE, whose network has the key's upper 24 bits (RFC 7637). */
const ETHERTYPE_TEB = 0x6558

export class InnerHeaderAnnotator {
  /** Off: nothing is told. */
  enabled = false
  readonly #fields = new PacketFields()
  #buffer: ArrayBufferLike | undefined
  #bytes: Uint8Array = new Uint8Array(0)

  /** Sets `innerOffset` and `innerVni`; allocates nothing but a view of memory that is new. */
  readonly annotate = (sample: PacketSample): void => {
    sample.innerOffset = ABSENT
    sample.innerVni = ABSENT
    if (!this.enabled) return
    const { buffer } = sample.headerWords
    if (buffer !== this.#buffer) {
      this.#buffer = buffer
      this.#bytes = new Uint8Array(buffer)
    }
    const start = sample.headerWords.byteOffset + sample.headerOffset
    const end = start + sample.headerLength
    const fields = this.#fields
    fields.read(sample.headerProtocol, this.#bytes, start, end)
    const at = fields.transportAt
    if (at < 0) return
    switch (fields.ipProtocol) {
      case IP_PROTOCOL.udp:
        this.#udp(sample, start, end)
        break
      case GRE:
        this.#gre(sample, at, start, end)
        break
      case IP_IN_IP:
      case IP6_IN_IP:
        if (at < end) sample.innerOffset = at - start
        break
    }
  }

  #udp(sample: PacketSample, start: number, end: number): void {
    const { dstPort, payloadAt: at } = this.#fields
    const bytes = this.#bytes
    if (at < 0 || at + VXLAN_BYTES > end) return
    let inner: number
    if (dstPort === VXLAN_PORTS[0] || dstPort === VXLAN_PORTS[1]) inner = at + VXLAN_BYTES
    else if (dstPort === GENEVE_PORT) inner = at + GENEVE_BYTES + (bytes[at]! & 0x3f) * 4
    else return
    sample.innerVni = (bytes[at + 4]! << 16) | (bytes[at + 5]! << 8) | bytes[at + 6]!
    if (inner < end) sample.innerOffset = inner - start
  }

  /** RFC 2784, RFC 2890. */
  #gre(sample: PacketSample, at: number, start: number, end: number): void {
    const bytes = this.#bytes
    if (at + 4 > end || (bytes[at + 1]! & GRE_VERSION) !== 0) return
    const flags = bytes[at]!
    const etherType = (bytes[at + 2]! << 8) | bytes[at + 3]!
    const keyAt = at + 4 + ((flags & GRE_CHECKSUM) !== 0 ? 4 : 0)
    const inner = keyAt + ((flags & GRE_KEY) !== 0 ? 4 : 0) + ((flags & GRE_SEQUENCE) !== 0 ? 4 : 0)
    if ((flags & GRE_KEY) !== 0 && etherType === ETHERTYPE_TEB && keyAt + 4 <= end) {
      sample.innerVni = (bytes[keyAt]! << 16) | (bytes[keyAt + 1]! << 8) | bytes[keyAt + 2]!
    }
    if (inner < end) sample.innerOffset = inner - start
  }
}
