/**
 * Builds the native part: `node native/build.ts`. One C compiler and the headers that come with the pinned Node.js
 * are all it needs. What is newer than its sources is left alone.
 *
 *     native/socket/*.c  →  build/native/socket.node
 *     native/memory/*.c  →  build/native/memory.node
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'

const ROOT = join(import.meta.dirname, '..')
const HEADERS = join(ROOT, 'node_modules', `node-linux-${process.arch}`, 'include', 'node')
const FLAGS = ['-std=c11', '-O2', '-fPIC', '-shared', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror']

/**
 * Compiles every C file of `native/<name>` into the addon `target`, with `extraFlags` behind the usual ones. Throws
 * when there is no compiler, no header or an error in the source; says true when it has built something.
 */
export function buildAddon(name: string, target: string, extraFlags: readonly string[] = []): boolean {
  const folder = join(ROOT, 'native', name)
  const files = readdirSync(folder).map(file => join(folder, file))
  const newest = Math.max(...[...files, import.meta.filename].map(file => statSync(file).mtimeMs))
  if (existsSync(target) && statSync(target).mtimeMs > newest) return false

  if (!existsSync(join(HEADERS, 'node_api.h'))) {
    throw new Error(`no Node.js headers in ${HEADERS}: run 'npm run native', which installs them`)
  }
  const compiler = process.env.CC ?? 'cc'
  const sources = files.filter(file => file.endsWith('.c'))
  mkdirSync(dirname(target), { recursive: true })
  // Never write into a file that a running process has mapped: a new one takes its place.
  const fresh = `${target}.${process.pid}`
  const options = [...FLAGS, ...extraFlags, `-I${HEADERS}`, '-o', fresh, ...sources, '-lpthread']
  const run = spawnSync(compiler, options, { encoding: 'utf8' })
  if (run.error !== undefined) {
    throw new Error(`cannot run the C compiler '${compiler}' (${run.error.message}): install gcc, or set CC`)
  }
  if (run.status !== 0) throw new Error(`${compiler} failed on native/${name}:\n${run.stderr}`)
  renameSync(fresh, target)
  return true
}

/** The addons, each from the folder of its name. */
const ADDONS = ['socket', 'memory']

if (import.meta.main) {
  try {
    for (const name of ADDONS) {
      const target = join(ROOT, 'build', 'native', `${name}.node`)
      if (buildAddon(name, target)) process.stderr.write(`native: built build/native/${name}.node\n`)
    }
  } catch (error) {
    process.stderr.write(`native: ${(error as Error).message}\n`)
    process.exitCode = 1
  }
}
