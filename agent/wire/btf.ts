/**
 * Enumerations and structures from type information (BTF: Documentation/bpf/btf.rst, uapi/linux/btf.h), of the running
 * kernel and of BPF objects. Numbers of drop reasons differ between kernels, distributions and point releases: the names are what stays.
 * Integers are little endian, as on every machine weir runs on.
 *
 *     header   magic u16 0xeb9f · version u8 · flags u8 · length u32 · then offset and length u32 each of the
 *              types and of the strings, counted from the end of the header
 *     type     name u32 · info u32 (kind in bits 24 to 28, number of members in the low 16) · size u32, then
 *              what its kind adds
 */

const MAGIC = 0xeb9f
const LEAST_HEADER = 24
const TYPE_BYTES = 12
const KIND = { pointer: 2, struct: 4, enum: 6, typedef: 8, functionPrototype: 13, enum64: 19 } as const

/** Bytes that each kind adds: once, and for each member. */
const EXTRA: Readonly<Record<number, readonly [once: number, perMember: number]>> = {
  1: [4, 0], // int
  2: [0, 0], // pointer
  3: [12, 0], // array
  4: [0, 12], // struct
  5: [0, 12], // union
  6: [0, 8], // enum
  7: [0, 0], // forward
  8: [0, 0], // typedef
  9: [0, 0], // volatile
  10: [0, 0], // const
  11: [0, 0], // restrict
  12: [0, 0], // function
  13: [0, 8], // function prototype
  14: [4, 0], // variable
  15: [0, 12], // section
  16: [0, 0], // float
  17: [4, 0], // declaration tag
  18: [0, 0], // type tag
  19: [0, 12], // enum64
}

/** Bytes that are not the type information they should be. */
export class BtfError extends Error {
  /** Byte offset of what is wrong. */
  readonly offset: number

  constructor(text: string, offset: number) {
    super(`${text} at byte offset ${offset}`)
    this.name = 'BtfError'
    this.offset = offset
  }
}

/**
 * Members of the first enumeration with this name: value by name, in their order; undefined when there is none. The
 * information of a module (/sys/kernel/btf/MODULE) continues that of the kernel: give the latter as `base` (of
 * /sys/kernel/btf/vmlinux), for the names that the module shares with it.
 */
export function readBtfEnum(
  bytes: Uint8Array,
  name: string,
  base?: Uint8Array,
): ReadonlyMap<string, number> | undefined {
  const own = sections(bytes)
  const below = base === undefined ? undefined : sections(base)
  const baseStrings = below === undefined ? 0 : below.stringsEnd - below.strings
  const { view } = own
  const text = (offset: number) =>
    offset >= baseStrings ? textAt(own, offset - baseStrings) : textAt(below!, offset)

  const wanted = new TextEncoder().encode(name)
  let values: Map<string, number> | undefined
  eachType(own, (at, kind, end) => {
    if (kind !== KIND.enum && kind !== KIND.enum64) return true
    if (!isEqual(text(view.getUint32(at, true)), wanted)) return true
    values = new Map()
    const decoder = new TextDecoder()
    for (let member = at + TYPE_BYTES; member < end; member += EXTRA[kind]![1]) {
      // Of an enum64, the upper half is a third word: reasons need 32 bits.
      values.set(decoder.decode(text(view.getUint32(member, true))), view.getUint32(member + 4, true))
    }
    return false
  })
  return values
}

export interface BtfStruct {
  readonly bytes: number
  /** Byte offset of each member, by name, in their order. */
  readonly members: ReadonlyMap<string, number>
}

/** The first structure with this name; undefined when there is none. */
export function readBtfStruct(bytes: Uint8Array, name: string): BtfStruct | undefined {
  const own = sections(bytes)
  const { view } = own
  const wanted = new TextEncoder().encode(name)
  let struct: BtfStruct | undefined
  eachType(own, (at, kind, end) => {
    if (kind !== KIND.struct || !isEqual(textAt(own, view.getUint32(at, true)), wanted)) return true
    const members = new Map<string, number>()
    const decoder = new TextDecoder()
    // Of a structure with bit fields (flag in bit 31), the upper 8 bits of an offset are the member's size.
    const mask = view.getUint32(at + 4, true) >>> 31 === 1 ? 0xff_ffff : 0xffff_ffff
    for (let member = at + TYPE_BYTES; member < end; member += EXTRA[kind]![1]) {
      const bits = (view.getUint32(member + 8, true) & mask) >>> 0
      members.set(decoder.decode(textAt(own, view.getUint32(member, true))), Math.floor(bits / 8))
    }
    struct = { bytes: view.getUint32(at + 8, true), members }
    return false
  })
  return struct
}

/**
 * How many parameters a program at a trace point of the kernel gets; undefined when there is no such trace point. Its
 * function is behind a pointer named `btf_trace_NAME`, and has one parameter more, which no program sees.
 */
export function readBtfTracePoint(bytes: Uint8Array, name: string): number | undefined {
  const own = sections(bytes)
  const { view } = own
  const wanted = new TextEncoder().encode(`btf_trace_${name}`)
  // Types are referred to by their number; the first has 1.
  const places = [0]
  let pointer: number | undefined
  eachType(own, (at, kind) => {
    places.push(at)
    if (kind === KIND.typedef && isEqual(textAt(own, view.getUint32(at, true)), wanted)) pointer = at
    return true
  })
  if (pointer === undefined) return undefined
  const behind = (at: number) => places[view.getUint32(at + 8, true)] ?? 0
  const prototype = behind(behind(pointer))
  const info = view.getUint32(prototype + 4, true)
  return ((info >>> 24) & 0x1f) === KIND.functionPrototype ? (info & 0xffff) - 1 : undefined
}

/** Calls `visit` with where each type begins, its kind and where it ends, as long as that says true. */
function eachType(
  { view, types, typesEnd }: Sections,
  visit: (at: number, kind: number, end: number) => boolean,
): void {
  for (let at = types; at < typesEnd; ) {
    if (at + TYPE_BYTES > typesEnd) throw new BtfError('type cut short', at)
    const info = view.getUint32(at + 4, true)
    const kind = (info >>> 24) & 0x1f
    const extra = EXTRA[kind]
    if (extra === undefined) throw new BtfError(`type of unknown kind ${kind}`, at)
    const end = at + TYPE_BYTES + extra[0] + extra[1] * (info & 0xffff)
    if (end > typesEnd) throw new BtfError('type cut short', at)
    if (!visit(at, kind, end)) return
    at = end
  }
}

function textAt({ bytes, strings, stringsEnd }: Sections, offset: number): Uint8Array {
  const start = strings + offset
  const end = bytes.indexOf(0, start)
  if (start >= stringsEnd || end < 0) throw new BtfError('string outside of its section', start)
  return bytes.subarray(start, end)
}

interface Sections {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly types: number
  readonly typesEnd: number
  readonly strings: number
  readonly stringsEnd: number
}

function sections(bytes: Uint8Array): Sections {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length < LEAST_HEADER) throw new BtfError(`header needs 24 bytes, there are ${bytes.length}`, 0)
  const magic = view.getUint16(0, true)
  if (magic !== MAGIC) throw new BtfError(`magic is 0x${magic.toString(16)} instead of 0xeb9f`, 0)
  const header = view.getUint32(4, true)
  const [types, typesLength, strings, stringsLength] = [8, 12, 16, 20].map(at =>
    view.getUint32(at, true),
  ) as [number, number, number, number]
  const typesEnd = header + types + typesLength
  const stringsEnd = header + strings + stringsLength
  if (typesEnd > bytes.length) throw new BtfError('types reach past the end', 8)
  if (stringsEnd > bytes.length) throw new BtfError('strings reach past the end', 16)
  return { bytes, view, types: header + types, typesEnd, strings: header + strings, stringsEnd }
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
