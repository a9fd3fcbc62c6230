/**
 * Builds the packages that the tests install, and the clean systems that they are installed into, where they are not there
 * yet: `node test/packages/prepare.ts [here|all]`. With `here` only what is installed on this machine. None is compressed but
 * those whose size is measured: compressing takes minutes.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { version } from '../../agent/version.ts'
import { buildDeb, LEVEL, type PackageOptions } from '../../packaging/deb.ts'
import { buildImage } from '../../packaging/image.ts'
import { buildRpm } from '../../packaging/rpm.ts'
import { TARGETS } from '../../packaging/targets.ts'
import { buildTree, digestOf } from '../../packaging/tree.ts'
import { COMPRESSED, NEXT, NEXT_VERSION, PACKAGES, prepareSystem, SYSTEMS } from './root.ts'

const repository = join(import.meta.dirname, '../..')
const all = process.argv[2] !== 'here'

/** What a package depends on beside its tree. */
const RECIPES = [
  'packaging/deb.ts',
  'packaging/rpm.ts',
  'packaging/image.ts',
  'packaging/scripts.ts',
  'packaging/system/functions.sh',
].map(path => readFileSync(join(repository, path)))

interface Wanted {
  readonly build: (options: PackageOptions) => string
  readonly folder: string
  readonly version?: string
  readonly level?: number
  /** Also for the tests that are run by `npm test`. */
  readonly here?: true
}

const WANTED: Readonly<Record<'amd64' | 'arm64', readonly Wanted[]>> = {
  amd64: [
    { build: buildDeb, folder: PACKAGES, here: true },
    { build: buildDeb, folder: NEXT, version: NEXT_VERSION, here: true },
    { build: buildRpm, folder: PACKAGES, here: true },
    { build: buildImage, folder: PACKAGES },
    { build: buildDeb, folder: COMPRESSED, level: LEVEL },
  ],
  arm64: [
    { build: buildRpm, folder: PACKAGES },
    { build: buildImage, folder: PACKAGES },
    { build: buildDeb, folder: COMPRESSED, level: LEVEL },
  ],
}

// A commit changes no package by its date.
process.env.SOURCE_DATE_EPOCH ??= '1750000000'
const systems = SYSTEMS.map(name => prepareSystem(name))
for (const target of TARGETS) {
  const wanted = WANTED[target.name].filter(({ here }) => all || here)
  if (wanted.length === 0) continue
  const tree = join(PACKAGES, `tree-${target.name}`)
  const fresh = `${tree}.${process.pid}`
  mkdirSync(PACKAGES, { recursive: true })
  await buildTree(target, fresh, join(repository, 'build'))
  rmSync(tree, { recursive: true, force: true })
  renameSync(fresh, tree)
  // The same files make the same packages.
  const digest = createHash('sha256').update(digestOf(tree))
  for (const text of RECIPES) digest.update(text)
  const made = digest.digest('hex')
  for (const { build, folder, ...rest } of wanted) {
    const stamp = join(folder, `${target.name}-${build.name}.made`)
    const [file, of] = existsSync(stamp) ? readFileSync(stamp, 'utf8').split('\n') : []
    if (file !== undefined && of === made && existsSync(join(folder, file))) continue
    if (file !== undefined) rmSync(join(folder, file), { force: true })
    mkdirSync(folder, { recursive: true })
    const built = build({ target, version, tree, level: 0, ...rest, output: folder })
    console.log(`built ${basename(built)}`)
    writeFileSync(stamp, `${basename(built)}\n${made}\n`)
  }
}
await Promise.all(systems)
