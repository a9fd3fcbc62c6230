import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { endianness } from 'node:os'
import { join } from 'node:path'

/** Loads the native addon `name`. The caller gives its functions types. */
export function loadAddon(name: string): unknown {
  if (endianness() !== 'LE') throw new Error('weir runs on little-endian machines only')
  return createRequire(import.meta.url)(builtFile(`native/${name}.node`))
}

/**
 * Where a file is that the build makes, as `native/socket.node`: beside the program where everything is in one
 * folder (/usr/lib/weir), and in `build` in a checkout.
 */
export function builtFile(path: string): string {
  const places = [join(import.meta.dirname, path), join(import.meta.dirname, '../../build', path)]
  const found = places.find(place => existsSync(place))
  if (found === undefined) {
    throw new Error(`native part missing: run 'npm run native' (looked for ${places.join(' and ')})`)
  }
  return found
}
