/**
 * Obtains the kernels that the VM tests boot: Debian's own packages, with netdevsim built for each by the tools of
 * the same release. What is made here is kept in ${XDG_CACHE_HOME:-~/.cache}/weir/vm/<kernel>/ and made once.
 */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

const BUILD_SCRIPT = join(import.meta.dirname, 'build-image.sh')

/** The kernels that are tested, and the Debian release that each comes from. */
export const KERNELS = { '6.1': 'bookworm', '6.12': 'trixie' } as const
export type KernelName = keyof typeof KERNELS

/** One kernel, ready to boot. */
export interface Image {
  readonly name: KernelName
  /** What `uname -r` says in the guest. */
  readonly release: string
  readonly kernel: string
  readonly initrd: string
  /** The directory to be seen at /lib/modules/<release>. */
  readonly modules: string
}

/**
 * What is unpacked to build an image, with all that these depend on. The headers bring the compiler that built the
 * kernel.
 */
const packages = (name: KernelName): readonly string[] => [
  ...['linux-image-amd64', 'linux-headers-amd64', `linux-source-${name}`, 'busybox-static', 'kmod', 'cpio'],
  ...['dash', 'coreutils', 'findutils', 'grep', 'sed', 'mawk', 'make', 'xz-utils', 'gzip', 'binutils'],
]

/** Parts of the kernel package that no test can use and that are most of its size. */
const LEFT_OUT = ['drivers/gpu', 'drivers/media', 'drivers/net/wireless', 'drivers/net/ethernet', 'sound']

/** Where the images are kept. */
export function imageDirectory(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'weir', 'vm')
}

/**
 * The image of this kernel, made first where it is missing: that takes a download of about 350 MB and a minute.
 * @param say is told what is being done, one line each.
 * @throws Error where something it needs is missing, or with the output of the step that failed.
 */
export async function prepareImage(name: KernelName, say: (line: string) => void): Promise<Image> {
  const directory = imageDirectory()
  const target = join(directory, name)
  if ((await readFile(join(target, 'recipe'), 'utf8').catch(() => '')) !== (await recipe(name))) {
    await mkdir(directory, { recursive: true })
    await removeAbandoned(directory)
    const work = join(directory, `.${name}-${process.pid}`)
    try {
      await makeImage(name, work, say)
      await rm(target, { recursive: true, force: true })
      await rename(join(work, 'image'), target)
    } finally {
      await rm(work, { recursive: true, force: true })
    }
  }
  const release = (await readFile(join(target, 'release'), 'utf8')).trim()
  return {
    name,
    release,
    kernel: join(target, 'vmlinuz'),
    initrd: join(target, 'initrd.gz'),
    modules: join(target, 'modules'),
  }
}

/** Stands in a finished image for the way it was made, so that a change of these makes it anew. */
async function recipe(name: KernelName): Promise<string> {
  const script = await readFile(BUILD_SCRIPT, 'utf8')
  return createHash('sha256')
    .update(JSON.stringify([script, packages(name), LEFT_OUT]))
    .digest('hex')
}

/** Removes the work directories of runs that were killed; those of living processes stay. */
async function removeAbandoned(directory: string): Promise<void> {
  for (const entry of await readdir(directory)) {
    const pid = /^\.[\d.]+-(\d+)$/.exec(entry)?.[1]
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue
    await rm(join(directory, entry), { recursive: true, force: true })
  }
}

async function makeImage(name: KernelName, work: string, say: (line: string) => void): Promise<void> {
  if (process.arch !== 'x64') throw new Error('the VM tests need an amd64 machine: guests use its programs')
  if (process.getuid?.() !== 0) throw new Error('making the VM images needs root (it builds in a chroot)')
  const started = performance.now()
  const archives = await download(name, work, say)
  say(`unpacking ${archives.length} packages`)
  const root = join(work, 'root')
  await emptyRoot(root)
  for (const file of archives) {
    const source = /\/linux-source-/.test(file)
    await shell(source ? UNPACK_SOURCE : UNPACK, [file, root])
  }
  say('building netdevsim and the initramfs')
  await copyFile(BUILD_SCRIPT, join(root, 'build-image.sh'))
  await shell(
    'mount --rbind /dev "$1/dev" && mount --rbind /proc "$1/proc" && chroot "$1" sh /build-image.sh',
    [root],
  )
  await rename(join(root, 'image'), join(work, 'image'))
  await writeFile(join(work, 'image', 'recipe'), await recipe(name))
  say(`ready after ${Math.round((performance.now() - started) / 1000)} s`)
}

const UNPACK = `dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink ${LEFT_OUT.map(
  path => `--exclude='*/kernel/${path}'`,
).join(' ')}`

/** linux-source holds one tar file; of its 1.5 GB only netdevsim is wanted. */
const UNPACK_SOURCE = `dpkg-deb --fsys-tarfile "$1" | tar -x -O --wildcards './usr/src/linux-source-*.tar.xz' |
  tar -x -J -C "$2/usr/src" --strip-components=1 --wildcards '*/drivers/net/netdevsim'`

/** Downloads the kernel, its headers and source, and a compiler with all it depends on, for one Debian release. */
async function download(name: KernelName, work: string, say: (line: string) => void): Promise<string[]> {
  const suite = KERNELS[name]
  const apt = join(work, 'apt')
  const archives = join(apt, 'cache', 'archives')
  await mkdir(join(apt, 'state', 'lists', 'partial'), { recursive: true })
  await mkdir(join(archives, 'partial'), { recursive: true })
  await writeFile(join(apt, 'sources.list'), await sources(suite))
  // With an empty status file apt resolves everything, down to the C library, from this release alone.
  await writeFile(join(apt, 'status'), '')
  const options = [
    `Dir::Etc::sourcelist=${apt}/sources.list`,
    'Dir::Etc::sourceparts=/dev/null',
    `Dir::State=${apt}/state`,
    `Dir::State::status=${apt}/status`,
    `Dir::Cache=${apt}/cache`,
    'Acquire::Languages=none',
    'Acquire::Retries=3',
    'APT::Install-Recommends=false',
    'APT::Sandbox::User=root',
    'APT::Update::Error-Mode=any',
  ].flatMap(option => ['-o', option])
  say(`reading the package lists of Debian ${suite}`)
  await command('apt-get', [...options, 'update'])
  const install = [...options, '--yes', 'install', ...packages(name)]
  const planned = await command('apt-get', ['--print-uris', ...install])
  const sizes = [...planned.matchAll(/^'\S+' \S+ (\d+) /gm)].map(([, size]) => Number(size))
  const megabytes = Math.round(sizes.reduce((sum, size) => sum + size, 0) / 1e6)
  say(`downloading ${sizes.length} packages, ${megabytes} MB`)
  await command('apt-get', ['--download-only', ...install])
  return (await readdir(archives)).filter(file => file.endsWith('.deb')).map(file => join(archives, file))
}

/** apt's source lines for a Debian release, from the mirrors that this machine already uses. */
async function sources(suite: string): Promise<string> {
  const format = ['--format', '$(LABEL) $(REPO_URI)', 'Created-By: Packages']
  const mirrors = await command('apt-get', ['indextargets', ...format])
  const mirror = (label: string) => new RegExp(`^${label} (\\S+)$`, 'm').exec(mirrors)?.[1]
  const main = mirror('Debian')
  if (main === undefined) {
    throw new Error("no Debian archive among this machine's apt sources (or 'apt-get update' was never run)")
  }
  const signed = '[arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
  const security = mirror('Debian-Security')
  const lines = [`deb ${signed} ${main} ${suite} main\n`]
  if (security !== undefined) lines.push(`deb ${signed} ${security} ${suite}-security main\n`)
  return lines.join('')
}

/** The directories and links that packages expect and that no package brings when only unpacked. */
async function emptyRoot(root: string): Promise<void> {
  for (const path of ['dev', 'proc', 'tmp']) await mkdir(join(root, path), { recursive: true })
  for (const path of ['bin', 'sbin', 'lib', 'lib64']) {
    await mkdir(join(root, 'usr', path), { recursive: true })
    await symlink(`usr/${path}`, join(root, path))
  }
  await symlink('mawk', join(root, 'usr/bin/awk'))
}

/** Runs a script in a mount namespace of its own, so that what it mounts is gone when it ends. */
async function shell(script: string, parameters: readonly string[]): Promise<void> {
  await command('unshare', ['--mount', 'bash', '-euo', 'pipefail', '-c', script, 'bash', ...parameters])
}

/** Runs a program and gives its standard output; its whole output is in the error when it fails. */
async function command(program: string, parameters: readonly string[]): Promise<string> {
  const environment = { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' }
  try {
    return (await run(program, parameters, { env: environment, maxBuffer: 64 << 20 })).stdout
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as Error & { stdout?: string; stderr?: string }
    if (stdout === '' && stderr === '') throw error
    throw new Error(`${message.split('\n')[0]}\n${stdout}${stderr}`)
  }
}
