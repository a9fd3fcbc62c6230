import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const ROOT = join(import.meta.dirname, '../vectors/sflow')

/** The golden datagrams by name. */
export const VECTORS: ReadonlyMap<string, Buffer> = new Map(
  readdirSync(ROOT)
    .filter(entry => !entry.includes('.'))
    .map(name => {
      const text = readFileSync(join(ROOT, name, 'bytes.hex'), 'utf8')
      return [name, Buffer.from(text.replace(/^#.*$/gm, '').replace(/\s/g, ''), 'hex')]
    }),
)

/** A file beside the bytes of a vector. */
export function besideVector(name: string, file: string): string {
  return join(ROOT, name, file)
}
