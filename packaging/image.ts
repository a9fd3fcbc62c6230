/**
 * A container image of a tree, as an archive in the OCI image layout (github.com/opencontainers/image-spec): one layer
 * with the agent, the C and C++ libraries, and nothing else. There is no shell in it.
 */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { PackageOptions } from './deb.ts'
import { BASE, type Target } from './targets.ts'
import { folderOf, LICENCES, run, sourceDate, usualBits } from './tree.ts'

/** What the agent becomes in a container; the number of the sFlow port, so that it is nobody's on the host. */
const USER = 6343

/** Libraries that the programs name, without version. */
const LIBRARIES = ['libc', 'libm', 'libdl', 'libpthread', 'libresolv', 'libgcc_s', 'libstdc++']

/** What the copyright files of the libraries refer to, of the licences that their binaries have. */
const LICENCE_TEXTS = ['GPL-2', 'GPL-3', 'LGPL-2', 'LGPL-2.1', 'LGPL-3']

/** Builds the archive and gives its path. No root and no container engine is needed. */
export function buildImage({ target, version, tree, output, level }: PackageOptions): string {
  usualBits()
  const work = join(output, `.image-${target.name}`)
  rmSync(work, { recursive: true, force: true })
  const root = join(work, 'root')
  layOutRoot(target, tree, root)

  const blobs = join(work, 'layout/blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  const blob = (bytes: Uint8Array, mediaType: string) => {
    const digest = sha256(bytes)
    writeFileSync(join(blobs, digest), bytes)
    return { mediaType, digest: `sha256:${digest}`, size: bytes.length }
  }
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
  const layerTar = join(work, 'layer.tar')
  tar(root, layerTar)
  const content = readFileSync(layerTar)
  const layer = blob(pack(content, level), 'application/vnd.oci.image.layer.v1.tar+gzip')
  const created = new Date(sourceDate() * 1000).toISOString()
  const labels = {
    'org.opencontainers.image.title': 'weir',
    'org.opencontainers.image.description': 'sFlow telemetry agent for Linux hosts and switches',
    'org.opencontainers.image.version': version,
    // Besides, the C and C++ libraries.
    'org.opencontainers.image.licenses': `${LICENCES} AND LGPL-2.1-or-later AND GPL-3.0-or-later WITH GCC-exception-3.1`,
  }
  const config = blob(
    json({
      created,
      architecture: target.name,
      os: 'linux',
      config: {
        // As packaging/weir has it: limits that are for the agent, and not for what else is run in the container.
        Env: ['PATH=/usr/bin', 'MALLOC_ARENA_MAX=1'],
        Entrypoint: [
          '/usr/lib/weir/node',
          '--max-semi-space-size=1',
          '--max-old-space-size=48',
          '/usr/lib/weir/weir.mjs',
        ],
        Cmd: ['container'],
        WorkingDir: '/',
        StopSignal: 'SIGTERM',
        Labels: labels,
        // Not in the specification, and known to the engines all the same. Nanoseconds.
        Healthcheck: {
          Test: ['CMD', '/usr/bin/weir', 'health'],
          Interval: 30e9,
          Timeout: 5e9,
          StartPeriod: 10e9,
          Retries: 3,
        },
      },
      rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(content)}`] },
      history: [{ created, created_by: 'weir packaging/image.ts' }],
    }),
    'application/vnd.oci.image.config.v1+json',
  )
  const manifestType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = blob(
    json({ schemaVersion: 2, mediaType: manifestType, config, layers: [layer], annotations: labels }),
    manifestType,
  )
  const index = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      {
        ...manifest,
        platform: { architecture: target.name, os: 'linux' },
        annotations: {
          'org.opencontainers.image.ref.name': version,
          'io.containerd.image.name': `weir:${version}`,
        },
      },
    ],
  }
  const layout = join(work, 'layout')
  writeFileSync(join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  writeFileSync(join(layout, 'index.json'), JSON.stringify(index))
  // Read by `docker load` of versions that do not know the layout.
  const short = (descriptor: { digest: string }) => `blobs/${descriptor.digest.replace(':', '/')}`
  writeFileSync(
    join(layout, 'manifest.json'),
    JSON.stringify([{ Config: short(config), RepoTags: [`weir:${version}`], Layers: [short(layer)] }]),
  )
  const file = join(output, `weir_${version}_${target.name}.oci.tar`)
  tar(layout, file)
  rmSync(work, { recursive: true })
  return file
}

/** The root file system of a container. */
function layOutRoot(target: Target, tree: string, root: string): void {
  const base = folderOf('debian-files.sh', `base-${target.name}`, BASE.suite, target.name, ...BASE.packages)
  for (const folder of [
    'usr/bin',
    'usr/lib',
    'usr/share/doc',
    'etc',
    'proc',
    'sys',
    'dev',
    'tmp',
    'run/weir',
    'var/lib/weir',
  ]) {
    mkdirSync(join(root, folder), { recursive: true })
  }
  cpSync(join(tree, 'usr/lib/weir'), join(root, 'usr/lib/weir'), { recursive: true })
  cpSync(join(tree, 'usr/share/doc/weir'), join(root, 'usr/share/doc/weir'), { recursive: true })
  // There is no shell that could run the usual start script.
  rmSync(join(root, 'usr/lib/weir/weir'))
  const program = join(root, 'usr/lib/weir/weir.mjs')
  writeFileSync(program, `#!/usr/lib/weir/node\n${readFileSync(program, 'utf8')}`)
  chmodSync(program, 0o755)
  symlinkSync('../lib/weir/weir.mjs', join(root, 'usr/bin/weir'))

  const libraries = join('usr/lib', target.triplet)
  mkdirSync(join(root, libraries))
  for (const name of readdirSync(join(base, libraries))) {
    // A copy of the file that a link means, by the name under which it is looked for.
    const isWanted = LIBRARIES.some(library =>
      new RegExp(`^${library.replaceAll('+', '\\+')}\\.so\\.\\d+$`).test(name),
    )
    if (isWanted) copyFileSync(join(base, libraries, name), join(root, libraries, name))
  }
  const [loaderFolder, loader] = target.loader.split('/') as [string, string]
  const found = [
    join(base, 'usr', target.loader),
    join(base, libraries, loader),
    join(base, 'usr/lib', loader),
  ]
  mkdirSync(join(root, 'usr', loaderFolder), { recursive: true })
  for (const [i, path] of found.entries()) {
    try {
      copyFileSync(path, join(root, 'usr', loaderFolder, loader))
      break
    } catch (error) {
      if (i === found.length - 1) throw error
    }
  }
  for (const folder of new Set(['lib', loaderFolder])) symlinkSync(`usr/${folder}`, join(root, folder))
  for (const name of BASE.packages) {
    mkdirSync(join(root, 'usr/share/doc', name))
    copyFileSync(copyrightFile(base, name), join(root, 'usr/share/doc', name, 'copyright'))
  }
  const texts = 'usr/share/common-licenses'
  mkdirSync(join(root, texts))
  for (const name of LICENCE_TEXTS) copyFileSync(join(base, texts, name), join(root, texts, name))
  writeFileSync(
    join(root, 'etc/passwd'),
    `root:x:0:0:root:/:/sbin/nologin\nweir:x:${USER}:${USER}:weir:/:/sbin/nologin\n`,
  )
  writeFileSync(join(root, 'etc/group'), `root:x:0:\nweir:x:${USER}:\n`)
  writeFileSync(join(root, 'etc/nsswitch.conf'), 'passwd: files\ngroup: files\nhosts: files dns\n')
  chmodSync(join(root, 'tmp'), 0o1777)
  // Whoever runs the container as another user has the agent's files written here.
  chmodSync(join(root, 'run/weir'), 0o1777)
  const date = sourceDate()
  for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' }).sort().reverse()) {
    lutimesSync(join(root, name), date, date)
  }
}

/** Packages made of the same source share one folder of papers. */
function copyrightFile(base: string, name: string): string {
  const file = join(base, 'usr/share/doc', name, 'copyright')
  try {
    readFileSync(file)
    return file
  } catch {
    const shared = readdirSync(join(base, 'usr/share/doc')).find(other => /^gcc-\d+-base$/.test(other))
    if (shared === undefined) throw new Error(`no copyright file of ${name}`)
    return join(base, 'usr/share/doc', shared, 'copyright')
  }
}

/** The same folder gives the same bytes. */
function tar(folder: string, file: string): void {
  const same = ['--sort=name', '--format=ustar', '--owner=0', '--group=0', '--numeric-owner']
  run('tar', [...same, `--mtime=@${sourceDate()}`, '-C', folder, '-cf', file, '.'])
}

function pack(bytes: Uint8Array, level: number): Uint8Array {
  const packed = gzipSync(bytes, { level: level === 0 ? 1 : 9 })
  // The byte that names the system on which it was compressed (RFC 1952): always unknown.
  packed[9] = 255
  return packed
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
