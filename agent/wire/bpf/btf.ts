/**
 * Type information of BPF objects and of the kernel (BTF): Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
 *
 *     btf_header  magic u16 · version u8 · flags u8 · header length u32 · types at u32 · types length u32 ·
 *                 strings at u32 · strings length u32           (offsets from behind the header)
 *     btf_type    name u32 · info u32 (members in bits 0–15, kind in 24–28, flag in 31) · size or type u32
 */

export interface BtfMember {
  readonly name: string
  /** Offset from the start of the structure. */
  readonly byteOffset: number
}

export interface BtfStruct {
  readonly bytes: number
  readonly members: readonly BtfMember[]
}

const MAGIC = 0xeb9f
const HEADER_BYTES = 24
const TYPE_BYTES = 12
const KIND = {
  int: 1,
  array: 3,
  struct: 4,
  union: 5,
  enum: 6,
  prototype: 13,
  variable: 14,
  section: 15,
} as const
const KIND_TAG = 17
const KIND_ENUM64 = 19

/** The structures of a BTF section by name; the first one of a name counts. @throws Error when it is not BTF. */
export function readStructs(bytes: Uint8Array): Map<string, BtfStruct> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.byteLength < HEADER_BYTES || view.getUint16(0, true) !== MAGIC)
    throw new Error('not a BTF section')
  const data = view.getUint32(4, true)
  const strings = data + view.getUint32(16, true)
  const text = (at: number) => {
    const start = strings + at
    return new TextDecoder().decode(bytes.subarray(start, bytes.indexOf(0, start)))
  }
  const structs = new Map<string, BtfStruct>()
  let at = data + view.getUint32(8, true)
  const end = at + view.getUint32(12, true)
  while (at < end) {
    const info = view.getUint32(at + 4, true)
    const kind = (info >>> 24) & 0x1f
    const count = info & 0xffff
    const members = at + TYPE_BYTES
    const name = text(view.getUint32(at, true))
    if (kind === KIND.struct && !structs.has(name)) {
      const bitfields = info >>> 31 === 1
      structs.set(name, {
        bytes: view.getUint32(at + 8, true),
        members: Array.from({ length: count }, (_, i) => {
          const member = members + i * 12
          const bits = view.getUint32(member + 8, true)
          // With bit fields in the structure, the upper 8 bits are the member's size.
          return {
            name: text(view.getUint32(member, true)),
            byteOffset: (bitfields ? bits & 0xffffff : bits) >> 3,
          }
        }),
      })
    }
    at = members + bytesBehindType(kind, count)
  }
  return structs
}

/** Bytes that follow the common part of a type. */
function bytesBehindType(kind: number, count: number): number {
  switch (kind) {
    case KIND.int:
    case KIND.variable:
    case KIND_TAG:
      return 4
    case KIND.array:
      return 12
    case KIND.struct:
    case KIND.union:
    case KIND.section:
    case KIND_ENUM64:
      return count * 12
    case KIND.enum:
    case KIND.prototype:
      return count * 8
    default:
      return 0
  }
}

/** A section of an ELF file (64 bit, little endian); undefined when there is none of that name. */
export function elfSection(file: Uint8Array, name: string): Uint8Array | undefined {
  const SECTION_BYTES = 64
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  if (view.getUint32(0, false) !== 0x7f454c46) throw new Error('not an ELF file')
  const table = Number(view.getBigUint64(0x28, true))
  const count = view.getUint16(0x3c, true)
  const content = (index: number) => {
    const at = table + index * SECTION_BYTES
    const offset = Number(view.getBigUint64(at + 24, true))
    return file.subarray(offset, offset + Number(view.getBigUint64(at + 32, true)))
  }
  const names = content(view.getUint16(0x3e, true))
  for (let i = 0; i < count; i++) {
    const start = view.getUint32(table + i * SECTION_BYTES, true)
    const text = new TextDecoder().decode(names.subarray(start, names.indexOf(0, start)))
    if (text === name) return content(i)
  }
  return undefined
}
