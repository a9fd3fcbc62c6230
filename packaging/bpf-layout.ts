/**
 * Writes agent/wire/bpf/layout.ts: where things are in what crosses the border between the BPF programs and the
 * agent, from the type information that the compiler has put into the object. `node packaging/bpf-layout.ts`
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { elfSection, readStructs } from '../agent/wire/bpf/btf.ts'

const ROOT = join(import.meta.dirname, '..')
const OBJECT = join(ROOT, 'build/bpf/sample.bpf.o')
const STRUCTS = ['packet_event', 'port_rates', 'sampler_state', 'port_state', 'slot', 'constants', 'control']

/** The source of layout.ts as the built object would have it. */
export function layoutSource(): string {
  const section = elfSection(readFileSync(OBJECT), '.BTF')
  if (section === undefined) throw new Error(`${OBJECT} has no type information`)
  const structs = readStructs(section)
  const lines = [
    '/** Made by packaging/bpf-layout.ts from bpf/events.h: bytes of each structure and byte offsets of its members. */',
  ]
  for (const name of STRUCTS) {
    const struct = structs.get(name)
    if (struct === undefined) throw new Error(`${OBJECT} does not use struct ${name}`)
    lines.push('', `export const ${name.toUpperCase()} = {`, `  bytes: ${struct.bytes},`)
    for (const { name: member, byteOffset } of struct.members) {
      const words = member.split('_')
      const key = words.map((word, i) => (i === 0 ? word : word[0]!.toUpperCase() + word.slice(1))).join('')
      lines.push(`  ${key}: ${byteOffset},`)
    }
    lines.push('} as const')
  }
  return `${lines.join('\n')}\n`
}

if (import.meta.main) writeFileSync(join(ROOT, 'agent/wire/bpf/layout.ts'), layoutSource())
