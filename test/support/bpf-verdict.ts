/**
 * An object file with one BPF program that gives the same verdict for every packet, for `ip link set … xdpgeneric obj`
 * and `tc filter add … bpf da obj`: the compiler takes an emulated processor many seconds.
 */

const SECTION_BYTES = 64
const SYMBOL_BYTES = 24

/** ELF, 64 bit, little endian, for the machine BPF; `section` is the program's. */
export function bpfVerdict(section: string, verdict: number): Uint8Array {
  const names = Buffer.from(`\0.strtab\0.symtab\0${section}\0license\0verdict\0`)
  const name = (text: string) => names.indexOf(`${text}\0`)
  const program = Buffer.alloc(16)
  program.writeUInt8(0xb7, 0) // r0 = verdict
  program.writeInt32LE(verdict, 4)
  program.writeUInt8(0x95, 8) // exit
  const licence = Buffer.from('GPL\0')
  const symbols = Buffer.alloc(2 * SYMBOL_BYTES)
  symbols.writeUInt32LE(name('verdict'), SYMBOL_BYTES)
  symbols.writeUInt8((1 << 4) | 2, SYMBOL_BYTES + 4) // global function
  symbols.writeUInt16LE(3, SYMBOL_BYTES + 6)
  symbols.writeBigUInt64LE(BigInt(program.length), SYMBOL_BYTES + 16)

  const [STRTAB, SYMTAB, PROGBITS] = [3, 2, 1]
  const [ALLOC, WRITE, EXECUTE] = [2, 1, 4]
  const contents = [
    { name: '', type: 0, flags: 0, bytes: Buffer.alloc(0) },
    { name: '.strtab', type: STRTAB, flags: 0, bytes: names },
    { name: '.symtab', type: SYMTAB, flags: 0, bytes: symbols, link: 1, info: 1, entry: SYMBOL_BYTES },
    { name: section, type: PROGBITS, flags: ALLOC | EXECUTE, bytes: program },
    { name: 'license', type: PROGBITS, flags: ALLOC | WRITE, bytes: licence },
  ]
  const parts: Buffer[] = []
  let offset = SECTION_BYTES
  const table = Buffer.alloc(contents.length * SECTION_BYTES)
  for (const [i, { name: text, type, flags, bytes, link = 0, info = 0, entry = 0 }] of contents.entries()) {
    const at = i * SECTION_BYTES
    table.writeUInt32LE(i === 0 ? 0 : name(text), at)
    table.writeUInt32LE(type, at + 4)
    table.writeBigUInt64LE(BigInt(flags), at + 8)
    table.writeBigUInt64LE(BigInt(offset), at + 24)
    table.writeBigUInt64LE(BigInt(bytes.length), at + 32)
    table.writeUInt32LE(link, at + 40)
    table.writeUInt32LE(info, at + 44)
    table.writeBigUInt64LE(8n, at + 48)
    table.writeBigUInt64LE(BigInt(entry), at + 56)
    const padded = Buffer.concat([bytes, Buffer.alloc(-bytes.length & 7)])
    parts.push(padded)
    offset += padded.length
  }
  const header = Buffer.alloc(SECTION_BYTES)
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  header.writeUInt16LE(1, 16) // relocatable
  header.writeUInt16LE(247, 18) // BPF
  header.writeUInt32LE(1, 20)
  header.writeBigUInt64LE(BigInt(offset), 40)
  header.writeUInt16LE(64, 52)
  header.writeUInt16LE(SECTION_BYTES, 58)
  header.writeUInt16LE(contents.length, 60)
  header.writeUInt16LE(1, 62)
  return Buffer.concat([header, ...parts, table])
}
