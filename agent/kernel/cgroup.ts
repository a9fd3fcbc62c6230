/**
 * Control groups: where the hierarchies of this machine are mounted, and which groups a process is in. Version 2 has one
 * hierarchy for everything; of version 1 each controller has its own, and a machine may have both at once
 * (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/cgroups.rst).
 */
import { FileFormatError, octalText, readTextFile, type TextFile } from './files.ts'

/** A mounted hierarchy. */
export interface CgroupMount {
  readonly version: 1 | 2
  readonly mountPoint: string
  /** The group that is mounted: `/`, or a deeper one inside a container. */
  readonly top: string
  /** Of version 1; version 2 has them all. */
  readonly controllers: ReadonlySet<string>
}

/** Path of the group in each hierarchy: by controller of version 1, and by '' in version 2. */
export type ControlGroup = ReadonlyMap<string, string>

/** The folder of a group. */
export interface GroupFolder {
  readonly version: 1 | 2
  /** Below the root that files are read under. */
  readonly path: string
  /** Where the hierarchy is mounted: no folder above belongs to a group. */
  readonly mountPoint: string
}

/** Controllers of version 1, as far as anything is read of them, and the hierarchy that systemd keeps without any. */
const CONTROLLERS = ['cpu', 'cpuacct', 'cpuset', 'memory', 'blkio', 'name=systemd'] as const
export type Controller = (typeof CONTROLLERS)[number]

/** A group that has the same path in every hierarchy, as those of systemd have. */
export function groupInAll(path: string): ControlGroup {
  return new Map(['', ...CONTROLLERS].map(controller => [controller, path]))
}

export class Cgroups {
  readonly mounts: readonly CgroupMount[]

  constructor(mounts: readonly CgroupMount[]) {
    this.mounts = mounts
  }

  static async read(root: string): Promise<Cgroups> {
    return new Cgroups(parseCgroupMounts(await readTextFile(root, 'proc/self/mountinfo')))
  }

  /** Where a controller accounts for a group: in its own hierarchy if it has one, else in version 2. */
  folder(group: ControlGroup, controller: Controller): GroupFolder | undefined {
    const own = this.mounts.find(({ controllers }) => controllers.has(controller))
    const mount = own ?? this.mounts.find(({ version }) => version === 2)
    const path = group.get(own === undefined ? '' : controller)
    if (mount === undefined || path === undefined) return undefined
    const { version, mountPoint, top } = mount
    const inside = top === '/' ? path : path === top ? '' : undefined
    const below = inside ?? (path.startsWith(`${top}/`) ? path.slice(top.length) : undefined)
    // A group outside of what is mounted here, as a container sees those of others.
    if (below === undefined || below.split('/').includes('..')) return undefined
    return { version, path: mountPoint + (below === '/' ? '' : below), mountPoint }
  }
}

/** Hierarchies in /proc/self/mountinfo (proc(5)); of one that is mounted several times the first counts. */
export function parseCgroupMounts(mountinfo: TextFile): CgroupMount[] {
  const mounts: CgroupMount[] = []
  for (const line of mountinfo.text.split('\n')) {
    // id parent major:minor top mount-point options optional-fields… - type source super-options
    const words = line.split(' ')
    const dash = words.indexOf('-', 6)
    if (dash < 0) continue
    const type = words[dash + 1]
    if (type !== 'cgroup' && type !== 'cgroup2') continue
    const top = octalText(words[3]!)
    const mountPoint = octalText(words[4]!)
    const options = type === 'cgroup' ? (words[dash + 3] ?? '').split(',') : []
    mounts.push({ version: type === 'cgroup' ? 1 : 2, mountPoint, top, controllers: new Set(options) })
  }
  return mounts
}

/** The groups of a process, from /proc/PID/cgroup: lines `number:controllers:path`. */
export function parseProcessGroups(file: TextFile): ControlGroup {
  const groups = new Map<string, string>()
  for (const [i, line] of file.text.split('\n').entries()) {
    if (line === '') continue
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    if (controllers === undefined || path === undefined) {
      throw new FileFormatError(file.path, i + 1, `expected number:controllers:path, got "${line}"`)
    }
    for (const controller of controllers.split(',')) groups.set(controller, path)
  }
  return groups
}
