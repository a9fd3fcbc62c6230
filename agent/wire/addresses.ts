/** Network addresses as text and as bytes in network order. */

/** `02:00:00:00:00:01` for the 6 bytes at `offset`. */
export function formatMac(bytes: Uint8Array, offset = 0): string {
  let text = ''
  for (let i = 0; i < 6; i++) {
    if (i > 0) text += ':'
    text += bytes[offset + i]!.toString(16).padStart(2, '0')
  }
  return text
}

/** The 6 bytes of a MAC address written as by formatMac, or undefined. */
export function parseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined
  return Uint8Array.from(text.split(':'), byte => Number.parseInt(byte, 16))
}

/** Dotted decimal for the 4 bytes at `offset`. */
export function formatIp4(bytes: Uint8Array, offset = 0): string {
  return `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}`
}

/** The 4 bytes of a dotted decimal address, or undefined. */
export function parseIp4(text: string): Uint8Array | undefined {
  if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text)) return undefined
  const parts = text.split('.').map(Number)
  return parts.every(part => part <= 255) ? Uint8Array.from(parts) : undefined
}

/** RFC 5952 text for the 16 bytes at `offset`; IPv4-mapped addresses end in dotted decimal (§5 there). */
export function formatIp6(bytes: Uint8Array, offset = 0): string {
  const groups: number[] = []
  for (let i = 0; i < 16; i += 2) groups.push((bytes[offset + i]! << 8) | bytes[offset + i + 1]!)
  if (groups[5] === 0xffff && groups.slice(0, 5).every(group => group === 0)) {
    return `::ffff:${formatIp4(bytes, offset + 12)}`
  }
  const { start, length } = longestZeroRun(groups)
  const hex = groups.map(group => group.toString(16))
  if (length < 2) return hex.join(':')
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 }
  for (let start = 0; start < groups.length; start++) {
    let length = 0
    while (start + length < groups.length && groups[start + length] === 0) length++
    if (length > best.length) best = { start, length }
  }
  return best
}

/** The 16 bytes of an IPv6 address in any of the forms of RFC 4291 §2.2 (no zone), or undefined. */
export function parseIp6(text: string): Uint8Array | undefined {
  const [head, tail, ...more] = text.split('::')
  if (more.length > 0) return undefined
  const before = groupBytes(head!)
  const after = tail === undefined ? [] : groupBytes(tail)
  if (before === undefined || after === undefined) return undefined
  if (tail !== undefined && head!.includes('.')) return undefined
  const missing = 16 - before.length - after.length
  if (tail === undefined ? missing !== 0 : missing < 2) return undefined
  return Uint8Array.from([...before, ...new Array<number>(missing).fill(0), ...after])
}

/** The bytes of `1:2:3` or `1:2:192.0.2.1`; none for an empty text. */
function groupBytes(text: string): number[] | undefined {
  if (text === '') return []
  const bytes: number[] = []
  const groups = text.split(':')
  for (const [i, group] of groups.entries()) {
    if (/^[0-9a-f]{1,4}$/i.test(group)) {
      const value = Number.parseInt(group, 16)
      bytes.push(value >> 8, value & 0xff)
    } else {
      const ip4 = i === groups.length - 1 ? parseIp4(group) : undefined
      if (ip4 === undefined) return undefined
      bytes.push(...ip4)
    }
  }
  return bytes
}

/** Lower-case UUID text with dashes for the 16 bytes at `offset`, in the order of the bytes (RFC 9562 §4). */
export function formatUuid(bytes: Uint8Array, offset = 0): string {
  let text = ''
  for (let i = 0; i < 16; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) text += '-'
    text += bytes[offset + i]!.toString(16).padStart(2, '0')
  }
  return text
}

/** The 16 bytes of a UUID with dashes, or undefined. */
export function parseUuid(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return undefined
  return Uint8Array.from(text.replaceAll('-', '').match(/../g)!, byte => Number.parseInt(byte, 16))
}
