/** What shared libraries a program needs at least. */
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { FLOOR, type Target } from './targets.ts'

/** Newest version of each library's symbols that an ELF file uses, as { GLIBC: '2.28' }. */
export function neededVersions(file: string, target: Target): Record<string, string> {
  const output = execFileSync(`${target.triplet}-readelf`, ['--version-info', '--wide', file], {
    encoding: 'utf8',
  })
  const needs = output.slice(output.indexOf('.gnu.version_r'))
  const newest: Record<string, string> = {}
  for (const [, library, version] of needs.matchAll(/Name: ([A-Z]+)_([\d.]+)\b/g)) {
    if (isNewer(version!, newest[library!] ?? '0')) newest[library!] = version!
  }
  return newest
}

/** Fails when a file of the folder would not load on the oldest system that the packages promise to run on. */
export function checkFloor(folder: string, target: Target): void {
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (name !== 'node' && !name.endsWith('.node')) continue
    const needed = neededVersions(join(folder, name), target)
    if (needed.GLIBC === undefined) throw new Error(`${name}: no versions of the C library found in it`)
    for (const [library, version] of Object.entries(needed)) {
      const floor = FLOOR[library as keyof typeof FLOOR]
      // GCC_3.0 and the like are as old as the architecture.
      if (floor !== undefined && isNewer(version, floor)) {
        throw new Error(`${name} needs ${library} ${version}; the oldest system to run on has ${floor}`)
      }
    }
  }
}

function isNewer(one: string, other: string): boolean {
  const [a, b] = [one, other].map(text => text.split('.').map(Number))
  for (let i = 0; i < Math.max(a!.length, b!.length); i++) {
    const difference = (a![i] ?? 0) - (b![i] ?? 0)
    if (difference !== 0) return difference > 0
  }
  return false
}
