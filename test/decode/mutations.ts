/** Gives one changed copy after the other of the datagrams: the same ones for the same seed. */
export function mutations(datagrams: readonly Uint8Array[], seed: number): () => Uint8Array {
  let state = seed
  // xorshift32 (Marsaglia 2003).
  const random = (below: number) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
  const INTERESTING = [0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xff, 0x1b, 0x9b, 0x0a]
  return () => {
    const original = datagrams[random(datagrams.length)]!
    const kind = random(8)
    const length = kind === 0 ? random(original.length + 1) : original.length + (kind === 1 ? random(64) : 0)
    const bytes = new Uint8Array(length)
    bytes.set(original.subarray(0, length))
    const changes = 1 + random(kind === 2 ? 40 : 4)
    for (let i = 0; i < changes && length > 0; i++) {
      const at = random(length)
      switch (random(4)) {
        case 0:
          bytes[at] = random(256)
          break
        case 1:
          bytes[at] = INTERESTING[random(INTERESTING.length)]!
          break
        case 2: // A length or a count, made a little or much larger.
          if (at + 4 <= length) bytes[(at & ~3) + 3] = random(256)
          break
        default: // A piece put elsewhere.
          bytes.copyWithin(at, random(length), random(length))
      }
    }
    return bytes
  }
}
