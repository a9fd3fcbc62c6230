/** The pinned Node.js for a machine: that of this checkout, or fetched from npm for another one and checked. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Target } from './targets.ts'

const root = join(import.meta.dirname, '..')

/** The folder of the npm package node-linux-*, with bin/node, include and LICENSE. */
export function nodeFolder(target: Target): string {
  const name = `node-linux-${target.node}`
  const installed = join(root, 'node_modules', name)
  if (existsSync(join(installed, 'bin/node'))) return installed

  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version: string; integrity: string } | undefined>
  }
  const entry = lock.packages[`node_modules/${name}`]
  if (entry === undefined) throw new Error(`package-lock.json does not name ${name}`)
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'weir/node')
  const folder = join(cache, `${name}-${entry.version}`)
  if (existsSync(folder)) return folder
  process.stderr.write(`package: fetching ${name} ${entry.version} from npm\n`)
  mkdirSync(cache, { recursive: true })
  const work = mkdtempSync(join(cache, '.fetch-'))
  try {
    execFileSync('npm', ['pack', '--silent', `${name}@${entry.version}`], { cwd: work, stdio: 'pipe' })
    const archive = readdirSync(work).find(file => file.endsWith('.tgz'))!
    const [algorithm, expected] = entry.integrity.split(/-(.*)/)
    const digest = createHash(algorithm!)
      .update(readFileSync(join(work, archive)))
      .digest('base64')
    if (digest !== expected)
      throw new Error(`${archive} is not what package-lock.json says: ${algorithm}-${digest}`)
    execFileSync('tar', ['-xzf', archive], { cwd: work })
    renameSync(join(work, 'package'), folder)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return folder
}
