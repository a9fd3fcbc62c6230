/** An IPv4 header without options; `bytes` is the length of the whole packet. */
export function ip4Header(fields: { bytes: number; protocol: number; from: string; to: string }): Uint8Array {
  const header = Buffer.alloc(20)
  header.set([0x45])
  header.writeUInt16BE(fields.bytes, 2)
  header.set([64, fields.protocol], 8)
  header.set(fields.from.split('.').map(Number), 12)
  header.set(fields.to.split('.').map(Number), 16)
  let sum = 0
  for (let at = 0; at < 20; at += 2) sum += header.readUInt16BE(at)
  header.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 10)
  return header
}
