/** A clean Debian system to install into: a layer in memory over one that is kept, in a network namespace of its own. */
import { type ChildProcess, execFileSync, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { version } from '../../agent/version.ts'
import type { Scope } from '../support/lab.ts'

const REPOSITORY = join(import.meta.dirname, '../..')

/** Where packages for tests are; test/packages/prepare.ts builds them. */
export const PACKAGES = join(REPOSITORY, 'build/test-packages')

/** Those that are compressed as they are given away. */
export const COMPRESSED = join(PACKAGES, 'compressed')

/** The Debian package of a newer version, to upgrade to. */
export const NEXT = join(PACKAGES, 'next')
export const NEXT_VERSION = `${version}+next`

/** Packages that are in a system beside the smallest Debian of its release. */
const ADDED = {
  bullseye: [],
  bookworm: [],
  trixie: [],
  'trixie-systemd': ['systemd', 'iproute2', 'iputils-ping', 'kmod'],
} as const
export type SystemName = keyof typeof ADDED
export const SYSTEMS = Object.keys(ADDED) as SystemName[]

/** The folder of a clean system, made first where it is missing: that takes half a minute. */
export function systemFolder(name: SystemName): string {
  return execFileSync('sh', recipe(name), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim()
}

/** Makes a clean system beside other things. */
export async function prepareSystem(name: SystemName): Promise<void> {
  const child = spawn('sh', recipe(name), { stdio: ['ignore', 'ignore', 'inherit'] })
  const [status] = await once(child, 'exit')
  if (status !== 0) throw new Error(`no clean system ${name}`)
}

/** The words of test/packages/root.sh. */
function recipe(name: SystemName): string[] {
  return [join(import.meta.dirname, 'root.sh'), name, name.split('-')[0]!, ...ADDED[name]]
}

/** The package file of this kind: `_amd64.deb`, `.x86_64.rpm`. */
export function packageFile(ending: string, folder = PACKAGES): string {
  const file = readdirSync(folder).find(name => name.endsWith(ending))
  if (file === undefined)
    throw new Error(`no package *${ending} in ${folder}: run 'node test/packages/prepare.ts'`)
  return join(folder, file)
}

/** The mounts that programs in the root expect; they are gone with the mount namespace of `ip netns exec`. */
const ENTER = [
  'mount -t proc proc "$0/proc"',
  'mount -t sysfs sysfs "$0/sys"',
  'mount --rbind /dev "$0/dev"',
  'mkdir -p "$0/sys/fs/bpf"',
  'mount -t bpf bpf "$0/sys/fs/bpf"',
]

export interface RunOptions {
  readonly environment?: NodeJS.ProcessEnv
  /** What is done before, in the mount namespace of the command alone; the root is "$0". */
  readonly before?: readonly string[]
  /** The whole system is read-only. */
  readonly readOnly?: boolean
  readonly input?: string
}

export class Root {
  readonly path: string
  readonly namespace: string

  private constructor(path: string, namespace: string) {
    this.path = path
    this.namespace = namespace
  }

  /** A clean system, whose writes go to a layer that is removed with the test. */
  static make(scope: Scope, system: SystemName, namespace: string): Root {
    const lower = systemFolder(system)
    const work = mkdtempSync(join(tmpdir(), `weir-root-${system}-`))
    const made = new Root(join(work, 'root'), namespace)
    scope.after(() => {
      endProcesses(made)
      for (const path of [made.path, work]) spawnSync('umount', ['-l', path])
      rmSync(work, { recursive: true, force: true })
    })
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1g', 'weir-root', work])
    for (const name of ['upper', 'work', 'root']) mkdirSync(join(work, name))
    const layers = `lowerdir=${lower},upperdir=${work}/upper,workdir=${work}/work`
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', layers, made.path])
    return made
  }

  /** Runs a shell's line in the system. */
  run(line: string, options: RunOptions = {}): SpawnSyncReturns<string> {
    return spawnSync('ip', this.#command(line, options), {
      encoding: 'utf8',
      env: environment(options),
      input: options.input ?? '',
      maxBuffer: 64 << 20,
    })
  }

  /** The same, and throws with all that was said when it fails. */
  must(line: string, options: RunOptions = {}): string {
    const { status, stdout, stderr } = this.run(line, options)
    if (status !== 0) throw new Error(`'${line}' ended with ${status}:\n${stdout}${stderr}`)
    return stdout
  }

  start(line: string, options: RunOptions = {}): ChildProcess {
    return spawn('ip', this.#command(`exec ${line}`, options), {
      env: environment(options),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  /** Every file of the system but what package managers keep for themselves. */
  files(): string[] {
    const kept = [
      ...['./proc', './sys', './dev', './tmp', './run/mount', './var/lib/dpkg', './var/log', './var/cache'],
      // The databases of users keep a copy from before; rpm's own is not Debian's.
      ...[
        './etc/passwd-',
        './etc/shadow-',
        './etc/group-',
        './etc/gshadow-',
        './etc/.pwd.lock',
        './var/lib/rpm',
      ],
    ]
    const prune = kept.flatMap((path, i) => [...(i === 0 ? [] : ['-o']), '-path', path])
    const found = execFileSync('find', ['.', '(', ...prune, ')', '-prune', '-o', '-print'], {
      cwd: this.path,
      encoding: 'utf8',
    })
    return found.trim().split('\n').sort()
  }

  #command(line: string, { before = [], readOnly = false }: RunOptions): string[] {
    const first = readOnly ? ['mount --bind "$0" "$0"', 'mount -o remount,bind,ro "$0"', 'cd "$0"'] : []
    const script = ['set -e', ...first, ...ENTER, ...before, 'exec chroot "$0" /bin/sh -c "$1"'].join('\n')
    return ['netns', 'exec', this.namespace, 'sh', '-c', script, this.path, line]
  }
}

function environment(options: RunOptions): NodeJS.ProcessEnv {
  return {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    LC_ALL: 'C.UTF-8',
    DEBIAN_FRONTEND: 'noninteractive',
    ...options.environment,
  }
}

/** Ends every process whose root is this one. */
function endProcesses(root: Root): void {
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      if (readlinkSync(`/proc/${entry}/root`) === root.path) process.kill(Number(entry), 'SIGKILL')
    } catch {
      // It has ended.
    }
  }
}
