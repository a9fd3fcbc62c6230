/** Builds Ethernet frames with IPv4 and UDP, right or wrong as a test wants them. */

export interface UdpFrame {
  readonly to: string
  readonly from: string
  readonly source: string
  readonly destination: string
  readonly port?: number
  readonly ttl?: number
  readonly payloadBytes?: number
  /** EtherType; default IPv4. */
  readonly etherType?: number
  /** VLAN id of a tag. */
  readonly vlan?: number | undefined
  readonly dontFragment?: boolean
  readonly wrongIpChecksum?: boolean
  readonly wrongUdpChecksum?: boolean
}

/** The frame without FCS; headers are 42 bytes, 46 with a tag. */
export function udpFrame(options: UdpFrame): Uint8Array {
  const {
    to,
    from,
    source,
    destination,
    port = 9,
    ttl = 64,
    payloadBytes = 100,
    etherType = 0x0800,
  } = options
  const udp = Buffer.alloc(8 + payloadBytes, 0x77)
  udp.writeUInt16BE(4000, 0)
  udp.writeUInt16BE(port, 2)
  udp.writeUInt16BE(udp.length, 4)
  udp.writeUInt16BE(0, 6)
  const ip = Buffer.alloc(20)
  ip[0] = 0x45
  ip.writeUInt16BE(20 + udp.length, 2)
  ip.writeUInt16BE(options.dontFragment ? 0x4000 : 0, 6)
  ip[8] = ttl
  ip[9] = 17
  ip.set(source.split('.').map(Number), 12)
  ip.set(destination.split('.').map(Number), 16)
  ip.writeUInt16BE(checksum(ip) ^ (options.wrongIpChecksum ? 1 : 0), 10)
  const pseudo = Buffer.concat([
    ip.subarray(12, 20),
    Buffer.from([0, 17, udp.length >> 8, udp.length & 0xff]),
  ])
  udp.writeUInt16BE(checksum(Buffer.concat([pseudo, udp])) ^ (options.wrongUdpChecksum ? 1 : 0), 6)
  const tag = options.vlan === undefined ? [] : [0x81, 0x00, options.vlan >> 8, options.vlan & 0xff]
  const head = Buffer.from([...mac(to), ...mac(from), ...tag, etherType >> 8, etherType & 0xff])
  return Uint8Array.from(Buffer.concat([head, ip, udp]))
}

function mac(text: string): number[] {
  return text.split(':').map(part => Number.parseInt(part, 16))
}

/** The Internet checksum (RFC 1071). */
function checksum(bytes: Uint8Array): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i]! * 256 + (bytes[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
