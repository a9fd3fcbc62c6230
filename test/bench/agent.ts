import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The agent as packages ship it, built anew. */
export function builtAgent(): string {
  const root = join(import.meta.dirname, '../..')
  execFileSync(process.execPath, [join(root, 'packaging/bundle.ts')], { stdio: 'ignore' })
  return join(root, 'build/weir')
}

/** Writes a configuration into a directory of its own; `remove` deletes it. */
export function configuration(text: string): { path: string; remove: () => void } {
  const directory = mkdtempSync(join(tmpdir(), 'weir-bench-'))
  const path = join(directory, 'weir.conf')
  writeFileSync(path, text)
  return { path, remove: () => rmSync(directory, { recursive: true, force: true }) }
}
