/**
 * Builds the packages that the tests install, and the clean systems that they are installed into, where they are not there
 * yet. The one for this machine is as it is given away; the others are compressed less, which takes minutes else.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { version } from '../../agent/version.ts'
import { buildDeb } from '../../packaging/deb.ts'
import { buildImage } from '../../packaging/image.ts'
import { buildRpm } from '../../packaging/rpm.ts'
import { TARGETS } from '../../packaging/targets.ts'
import { buildTree, digestOf } from '../../packaging/tree.ts'
import { PACKAGES } from './root.ts'

const repository = join(import.meta.dirname, '../..')

/** The releases of Debian that the packages are installed on. */
const SUITES = ['bullseye', 'bookworm', 'trixie']

// A commit changes no package by its date.
process.env.SOURCE_DATE_EPOCH ??= '1750000000'
const output = PACKAGES
mkdirSync(output, { recursive: true })
for (const target of TARGETS) {
  const tree = join(output, `tree-${target.name}`)
  const fresh = `${tree}.${process.pid}`
  await buildTree(target, fresh, join(repository, 'build'))
  // The same files make the same packages.
  const recipes = ['deb', 'rpm', 'image', 'scripts'].map(name =>
    readFileSync(join(repository, `packaging/${name}.ts`)),
  )
  const functions = readFileSync(join(repository, 'packaging/system/functions.sh'))
  const digest = createHash('sha256').update(digestOf(fresh))
  for (const text of [...recipes, functions]) digest.update(text)
  const stamp = join(output, `made-${target.name}`)
  const wanted = digest.digest('hex')
  if (readIfAny(stamp) === wanted) {
    rmSync(fresh, { recursive: true })
    continue
  }
  rmSync(tree, { recursive: true, force: true })
  renameSync(fresh, tree)
  const common = { target, version, tree, output }
  console.log(`packages for ${target.name}`)
  buildDeb({ ...common, level: target.name === 'amd64' ? 6 : 0 })
  buildRpm({ ...common, level: 0 })
  buildImage({ ...common, level: 0 })
  writeFileSync(stamp, wanted)
}
for (const suite of SUITES) {
  execFileSync('sh', [join(import.meta.dirname, 'root.sh'), suite, suite], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
}

function readIfAny(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
