/**
 * Writes agent/wire/bpf/layout.ts: where things are in what crosses the border between the BPF programs and the
 * agent, from the type information that the compiler has put into the object. `node packaging/bpf-layout.ts`
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readBtfStruct } from '../agent/wire/btf.ts'

const ROOT = join(import.meta.dirname, '..')
const OBJECTS: Readonly<Record<string, readonly string[]>> = {
  sample: ['packet_event', 'sampler_state', 'port_state', 'slot', 'constants', 'control'],
  drops: [
    'drop_event',
    'drop_key',
    'drop_slot',
    'drop_counts',
    'drop_left_out',
    'drop_constants',
    'drop_control',
  ],
}

/** The source of layout.ts as the built objects would have it. */
export function layoutSource(): string {
  const lines = [
    '/** Made by packaging/bpf-layout.ts from bpf/events.h: bytes of each structure and byte offsets of its members. */',
  ]
  for (const [object, names] of Object.entries(OBJECTS)) lines.push(...structsOf(object, names))
  return `${lines.join('\n')}\n`
}

function structsOf(object: string, names: readonly string[]): string[] {
  const file = join(ROOT, `build/bpf/${object}.bpf.o`)
  const section = elfSection(readFileSync(file), '.BTF')
  if (section === undefined) throw new Error(`${file} has no type information`)
  const lines: string[] = []
  for (const name of names) {
    const struct = readBtfStruct(section, name)
    if (struct === undefined) throw new Error(`${file} does not use struct ${name}`)
    lines.push('', `export const ${name.toUpperCase()} = {`, `  bytes: ${struct.bytes},`)
    for (const [member, byteOffset] of struct.members) {
      const words = member.split('_')
      const key = words.map((word, i) => (i === 0 ? word : word[0]!.toUpperCase() + word.slice(1))).join('')
      lines.push(`  ${key}: ${byteOffset},`)
    }
    lines.push('} as const')
  }
  return lines
}

/** A section of an ELF file (64 bit, little endian); undefined when there is none of that name. */
function elfSection(file: Uint8Array, name: string): Uint8Array | undefined {
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

if (import.meta.main) writeFileSync(join(ROOT, 'agent/wire/bpf/layout.ts'), layoutSource())
