import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { endianness } from 'node:os'
import { join } from 'node:path'

/**
 * Loads a native addon. It is `native/<name>.node` beside the program where everything is in one file (/usr/lib/weir),
 * and `build/native/<name>.node` in a checkout. The caller gives its functions types.
 */
export function loadAddon(name: string): unknown {
  if (endianness() !== 'LE') throw new Error('weir runs on little-endian machines only')
  const places = [
    join(import.meta.dirname, `native/${name}.node`),
    join(import.meta.dirname, `../../build/native/${name}.node`),
  ]
  const path = places.find(place => existsSync(place))
  if (path === undefined) {
    throw new Error(`native part missing: run 'npm run native' (looked for ${places.join(' and ')})`)
  }
  return createRequire(import.meta.url)(path)
}
