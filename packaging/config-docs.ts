/** Writes what is made from the table of settings: docs/configuration.md and conf/weir.conf. */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { configurationReference, defaultFile } from '../agent/config/reference.ts'

const root = join(import.meta.dirname, '..')
for (const [file, text] of [
  ['docs/configuration.md', configurationReference()],
  ['conf/weir.conf', defaultFile()],
] as const) {
  mkdirSync(join(root, file, '..'), { recursive: true })
  writeFileSync(join(root, file), text)
  console.log(`wrote ${file}`)
}
