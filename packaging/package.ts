/**
 * Builds the packages: `node packaging/package.ts [--only KIND] [--target NAME] [--level 0-9] [--output FOLDER]`. By
 * default deb, rpm and container image, for amd64 and arm64, into build/packages.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { basename, join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { version } from '../agent/version.ts'
import { buildDeb, LEVEL } from './deb.ts'
import { buildImage } from './image.ts'
import { buildRpm } from './rpm.ts'
import { TARGETS, type Target } from './targets.ts'
import { buildTree, treeBytes } from './tree.ts'

const root = join(import.meta.dirname, '..')
const KINDS = { deb: buildDeb, rpm: buildRpm, image: buildImage } as const
type Kind = keyof typeof KINDS

const USAGE = `usage: node packaging/package.ts [--only ${Object.keys(KINDS).join('|')}] [--target ${TARGETS.map(({ name }) => name).join('|')}] [--level 0-9] [--output FOLDER]`

const { only, target: names, level, output } = options()
if (names.length === 1) await build(TARGETS.find(({ name }) => name === names[0])!)
else {
  // One beside the other: they wait for one processor in turn while the others have nothing to do.
  const words = ['--level', String(level), '--output', output, ...only.flatMap(kind => ['--only', kind])]
  const builds = names.map(name =>
    once(
      spawn(process.execPath, [import.meta.filename, '--target', name, ...words], { stdio: 'inherit' }),
      'exit',
    ),
  )
  for (const [status] of await Promise.all(builds)) if (status !== 0) process.exitCode = 1
}

async function build(target: Target): Promise<void> {
  // What is not complete has no name that somebody would take it by.
  const work = join(output, `.build-${target.name}`)
  rmSync(work, { recursive: true, force: true })
  mkdirSync(work, { recursive: true })
  const tree = join(output, `tree-${target.name}`)
  console.log(`${target.name}: building what is inside`)
  await buildTree(target, join(work, 'tree'), join(root, 'build'))
  rmSync(tree, { recursive: true, force: true })
  renameSync(join(work, 'tree'), tree)
  say(`installed ${target.name}`, treeBytes(tree))
  for (const kind of Object.keys(KINDS) as Kind[]) {
    if (!only.includes(kind)) continue
    console.log(`${target.name}: ${kind}${level === 0 ? '' : ', compressing takes a minute'}`)
    const built = KINDS[kind]({ target, version, tree, output: work, level })
    const file = join(output, basename(built))
    renameSync(built, file)
    say(relative(output, file), statSync(file).size)
  }
  rmSync(work, { recursive: true })
}

/** Of the command line; ends the program with 2 if there is something wrong with it. */
function options(): { only: string[]; target: string[]; level: number; output: string } {
  try {
    const { values } = parseArgs({
      options: {
        only: { type: 'string', multiple: true, default: Object.keys(KINDS) },
        target: { type: 'string', multiple: true, default: TARGETS.map(({ name }): string => name) },
        level: { type: 'string', default: String(LEVEL) },
        output: { type: 'string', default: join(root, 'build/packages') },
      },
    })
    const known: Record<'only' | 'target' | 'level', string[]> = {
      only: Object.keys(KINDS),
      target: TARGETS.map(({ name }) => name),
      level: [...'0123456789'],
    }
    for (const name of ['only', 'target', 'level'] as const) {
      const wrong = [values[name]].flat().find(value => !known[name].includes(value))
      if (wrong !== undefined) throw new Error(`--${name} ${wrong}: expected ${known[name].join(', ')}`)
    }
    return {
      ...values,
      target: [...new Set(values.target)],
      level: Number(values.level),
      output: resolve(values.output),
    }
  } catch (error) {
    console.error(`package: ${(error as Error).message}\n${USAGE}`)
    process.exit(2)
  }
}

function say(what: string, bytes: number): void {
  console.log(`${what.padEnd(34)} ${(bytes / 1e6).toFixed(1).padStart(6)} MB`)
}
