/**
 * Builds the packages: `node packaging/package.ts [--only KIND] [--target NAME] [--level 0-9] [--output FOLDER]`. By
 * default deb, rpm and container image, for amd64 and arm64, into build/packages.
 */
import { existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { version } from '../agent/version.ts'
import { buildDeb } from './deb.ts'
import { buildImage } from './image.ts'
import { buildRpm } from './rpm.ts'
import { TARGETS } from './targets.ts'
import { buildTree, treeBytes } from './tree.ts'

const root = join(import.meta.dirname, '..')
const KINDS = { deb: buildDeb, rpm: buildRpm, image: buildImage } as const
type Kind = keyof typeof KINDS

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: Object.keys(KINDS) },
    target: { type: 'string', multiple: true, default: TARGETS.map(({ name }) => name) },
    level: { type: 'string', default: '6' },
    output: { type: 'string', default: join(root, 'build/packages') },
  },
})
const output = resolve(values.output)
mkdirSync(output, { recursive: true })
for (const target of TARGETS.filter(({ name }) => values.target.includes(name))) {
  const tree = join(output, `tree-${target.name}`)
  const fresh = `${tree}.${process.pid}`
  await buildTree(target, fresh, join(root, 'build'))
  if (existsSync(tree)) rmSync(tree, { recursive: true })
  renameSync(fresh, tree)
  say(`installed ${target.name}`, treeBytes(tree))
  for (const kind of Object.keys(KINDS) as Kind[]) {
    if (!values.only.includes(kind)) continue
    const file = KINDS[kind]({ target, version, tree, output, level: Number(values.level) })
    say(relative(output, file), statSync(file).size)
  }
}

function say(what: string, bytes: number): void {
  console.log(`${what.padEnd(34)} ${(bytes / 1e6).toFixed(1).padStart(6)} MB`)
}
