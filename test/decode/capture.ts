/** A pcap file with each payload in a UDP datagram from 192.0.2.1:1 to 192.0.2.2:6343, one a second. */
export function pcap(...payloads: Uint8Array[]): Buffer {
  const packets = payloads.map((payload, i) => {
    const packet = Buffer.alloc(16 + 28 + payload.length)
    packet.writeUInt32BE(1_700_000_000 + i, 0)
    packet.writeUInt32BE(28 + payload.length, 8)
    packet.writeUInt32BE(28 + payload.length, 12)
    packet.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0x18, 0xc7], 16)
    packet.writeUInt16BE(28 + payload.length, 18)
    packet.writeUInt16BE(8 + payload.length, 40)
    packet.set(payload, 44)
    return packet
  })
  const RAW_IP = 101
  const header = Buffer.alloc(24)
  header.writeUInt32BE(0xa1b2c3d4, 0)
  header.writeUInt32BE(0x00020004, 4)
  header.writeUInt32BE(65_535, 16)
  header.writeUInt32BE(RAW_IP, 20)
  return Buffer.concat([header, ...packets])
}
