/** A Debian package of a tree. */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { DEBIAN_SCRIPTS } from './scripts.ts'
import type { Target } from './targets.ts'
import { compress, run, sourceDate, treeBytes, usualBits } from './tree.ts'

const MAINTAINER = 'The weir authors <weir@example.com>'

/** Of xz, for packages that are given away. */
export const LEVEL = 6

export interface PackageOptions {
  readonly target: Target
  readonly version: string
  /** The files, as buildTree() lays them out; not changed. */
  readonly tree: string
  /** Where the package is put. */
  readonly output: string
  /** Of xz; with 0 nothing is compressed, which tests take. */
  readonly level: number
}

/** Builds the package and gives its path. No root is needed: everything in it belongs to root all the same. */
export function buildDeb({ target, version, tree, output, level }: PackageOptions): string {
  usualBits()
  const work = join(output, `.deb-${target.name}`)
  rmSync(work, { recursive: true, force: true })
  cpSync(tree, work, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true })
  const control = join(work, 'DEBIAN')
  mkdirSync(control)
  writeFileSync(
    join(control, 'control'),
    `Package: weir
Version: ${version}
Architecture: ${target.name}
Maintainer: ${MAINTAINER}
Installed-Size: ${Math.ceil(treeBytes(work) / 1024)}
Depends: libc6 (>= 2.28), libgcc-s1 | libgcc1, libstdc++6 (>= 8), passwd
Section: net
Priority: optional
Description: sFlow telemetry agent for Linux hosts and switches
 Takes packet samples, dropped packets and counters from the kernel and the
 switch ASIC behind it and streams them as standard sFlow version 5 to any
 collector. Reads the configuration of Host sFlow's hsflowd.
`,
  )
  const changes = `weir (${version}) stable; urgency=medium\n\n  * See NEWS.gz.\n\n -- ${MAINTAINER}  ${mailDate(sourceDate())}\n`
  writeFileSync(join(work, 'usr/share/doc/weir/changelog.gz'), compress(Buffer.from(changes)))
  writeFileSync(join(control, 'conffiles'), '/etc/init.d/weir\n')
  writeFileSync(join(control, 'md5sums'), md5sums(work))
  for (const [name, text] of Object.entries(DEBIAN_SCRIPTS)) {
    writeFileSync(join(control, name), text)
    chmodSync(join(control, name), 0o755)
  }
  const date = sourceDate()
  for (const name of readdirSync(control)) {
    if (DEBIAN_SCRIPTS[name] === undefined) chmodSync(join(control, name), 0o644)
    lutimesSync(join(control, name), date, date)
  }
  for (const path of [
    control,
    join(work, 'usr/share/doc/weir/changelog.gz'),
    join(work, 'usr/share/doc/weir'),
    work,
  ]) {
    chmodSync(path, path.endsWith('.gz') ? 0o644 : 0o755)
    lutimesSync(path, date, date)
  }
  const file = join(output, `weir_${version}_${target.name}.deb`)
  const compression = level === 0 ? ['-Znone'] : ['-Zxz', `-z${level}`]
  const options = ['--root-owner-group', ...compression, '--build', work, file]
  run('dpkg-deb', options, { SOURCE_DATE_EPOCH: String(date) })
  rmSync(work, { recursive: true })
  return file
}

/** As in a letter: Wed, 25 Nov 2026 12:00:00 +0000. */
function mailDate(seconds: number): string {
  return new Date(seconds * 1000).toUTCString().replace('GMT', '+0000')
}

function md5sums(tree: string): string {
  const lines: string[] = []
  for (const entry of readdirSync(tree, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    const name = path.slice(tree.length + 1)
    if (!entry.isFile() || name.startsWith('DEBIAN/') || name.startsWith('etc/')) continue
    lines.push(`${createHash('md5').update(readFileSync(path)).digest('hex')}  ${name}\n`)
  }
  return lines.sort((a, b) => (a.slice(34) < b.slice(34) ? -1 : 1)).join('')
}
