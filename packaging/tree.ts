/** Lays out the files of an installation for one machine, as both kinds of package bring them. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { constants, gzipSync } from 'node:zlib'
import { ADDONS, buildAddon, buildProgram, libbpfFlags, PROGRAMS } from '../native/build.ts'
import { bundle } from './bundle.ts'
import { checkFloor } from './floor.ts'
import { nodeFolder } from './node-runtime.ts'
import { SYSROOT, type Target } from './targets.ts'

const root = join(import.meta.dirname, '..')

/** What is written from here on has the usual bits, whatever the user's habit is. */
export function usualBits(): void {
  process.umask(0o022)
}

/** When the sources were last changed, seconds; the time of every file in a package. */
export function sourceDate(): number {
  const given = process.env.SOURCE_DATE_EPOCH
  if (given !== undefined && /^\d+$/.test(given)) return Number(given)
  try {
    return Number(run('git', ['-C', root, 'log', '-1', '--format=%ct']))
  } catch {
    // Sources without their history: the newest of the notes on changes stands for them.
    return Math.floor(statSync(join(root, 'CHANGELOG.md')).mtimeMs / 1000)
  }
}

/** Runs a program and gives its standard output; the whole output is in the error when it fails. */
export function run(program: string, args: readonly string[], environment: NodeJS.ProcessEnv = {}): string {
  try {
    return execFileSync(program, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 64 << 20,
      env: { ...process.env, LC_ALL: 'C', ...environment },
    })
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as Error & { stdout?: string; stderr?: string }
    throw new Error(stdout + stderr === '' ? message : `${program} failed:\n${stdout}${stderr}`)
  }
}

/** The folder that a script of this one prints. */
export function folderOf(script: string, ...args: string[]): string {
  const output = execFileSync('sh', [join(root, 'packaging', script), ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return output.trim().split('\n').at(-1)!
}

/**
 * Fills `folder`, which must not exist, with the installation for `target`. `cache` is kept from build to build for the
 * native parts. The same sources give the same bytes.
 */
export async function buildTree(target: Target, folder: string, cache: string): Promise<void> {
  usualBits()
  const sysroot = folderOf(
    'debian-files.sh',
    `sysroot-${target.name}`,
    SYSROOT.suite,
    target.name,
    ...SYSROOT.packages,
  )
  const libbpf = folderOf('libbpf.sh', target.triplet, sysroot)
  const at = (path: string) => {
    const full = join(folder, path)
    mkdirSync(dirname(full), { recursive: true })
    return full
  }
  const put = (path: string, content: string | Uint8Array, mode = 0o644) => {
    writeFileSync(at(path), content)
    chmodSync(join(folder, path), mode)
  }
  const strip = (from: string, to: string, ...options: string[]) => {
    run(`${target.triplet}-strip`, [...options, '-o', at(to), from])
    chmodSync(join(folder, to), 0o644)
  }

  // The program.
  const program = await bundle(at('usr/lib/weir/weir.mjs'))
  chmodSync(join(folder, 'usr/lib/weir/weir.mjs'), 0o644)
  put('usr/lib/weir/weir', readFileSync(join(root, 'packaging/weir')), 0o755)
  symlinkSync('../lib/weir/weir', at('usr/bin/weir'))
  const node = nodeFolder(target)
  strip(join(node, 'bin/node'), 'usr/lib/weir/node', '--strip-all')
  chmodSync(join(folder, 'usr/lib/weir/node'), 0o755)

  // The native part, against a C library that is as old as the oldest system to run on.
  const include = [
    '-isystem',
    `${sysroot}/usr/include/${target.triplet}`,
    '-isystem',
    `${sysroot}/usr/include`,
  ]
  // dlopen(3) was in a library of its own then.
  const dynamic = ['-Wl,--as-needed', '-ldl', '-Wl,--no-as-needed']
  const libraries = [
    ...dynamic,
    `-L${sysroot}/usr/lib/${target.triplet}`,
    `-L${sysroot}/lib/${target.triplet}`,
  ]
  const compile = [`--sysroot=${sysroot}`, ...include, `-ffile-prefix-map=${root}/=`]
  const compiler = `${target.triplet}-gcc`
  const bpf = libbpfFlags(libbpf)
  for (const name of [...ADDONS, 'bpf']) {
    const built = join(cache, target.name, `native/${name}.node`)
    const [more, link] = name === 'bpf' ? [bpf.compile, bpf.link] : [[], []]
    buildAddon(name, built, [...compile, ...more], [...libraries, ...link], compiler)
    strip(built, `usr/lib/weir/native/${name}.node`, '--strip-unneeded')
  }
  for (const name of PROGRAMS) {
    const built = join(cache, target.name, `bpf/${name}.bpf.o`)
    buildProgram(name, built, libbpf, `${sysroot}/usr/include/${target.triplet}`)
    // Without the debug information, but with the types that the kernel and libbpf need.
    run('llvm-strip-14', ['--strip-debug', '-o', at(`usr/lib/weir/bpf/${name}.bpf.o`), built])
    chmodSync(join(folder, `usr/lib/weir/bpf/${name}.bpf.o`), 0o644)
  }
  checkFloor(join(folder, 'usr/lib/weir'), target)

  // The system's side of it.
  put('usr/lib/systemd/system/weir.service', readFileSync(join(root, 'packaging/system/weir.service')))
  put('usr/lib/sysusers.d/weir.conf', readFileSync(join(root, 'packaging/system/weir.sysusers')))
  put('etc/init.d/weir', readFileSync(join(root, 'packaging/system/weir.init')), 0o755)
  put('usr/share/weir/weir.conf', readFileSync(join(root, 'conf/weir.conf')))
  // For Grafana alone, without what makes it readable.
  const dashboard = JSON.parse(readFileSync(join(root, 'conf/grafana/weir.json'), 'utf8')) as unknown
  put('usr/share/weir/grafana/weir.json', JSON.stringify(dashboard))
  for (const name of readdirSync(join(root, 'conf/examples'))) {
    put(`usr/share/doc/weir/examples/${name}`, readFileSync(join(root, 'conf/examples', name)))
  }
  generated(folder, put)

  // Papers.
  put('usr/share/doc/weir/NEWS.gz', compress(readFileSync(join(root, 'CHANGELOG.md'))))
  put('usr/share/doc/weir/copyright', copyright(program.packages))
  const licence = (name: string, path: string) =>
    put(`usr/share/doc/weir/licences/${name}.gz`, compress(readFileSync(path)))
  licence('Apache-2.0', join(root, 'LICENSE'))
  licence('nodejs', join(node, 'LICENSE'))
  licence('bpf-BSD-2-Clause', join(root, 'bpf/LICENSE.BSD-2-Clause'))
  licence('zlib', join(sysroot, 'usr/share/doc/zlib1g/copyright'))
  for (const file of readdirSync(join(libbpf, 'licences'))) licence(file, join(libbpf, 'licences', file))
  for (const path of program.packages) licence(`npm-${packageName(path)}`, licenceFile(path))

  settle(folder, sourceDate())
}

/** Man pages and completions, made from the tables of commands and settings. */
function generated(folder: string, put: (path: string, content: Uint8Array) => void): void {
  const scratch = `${folder}.generated`
  for (const script of ['man.ts', 'completion.ts']) {
    const path = join(root, 'packaging', script)
    if (existsSync(path)) run(process.execPath, [path, scratch])
  }
  if (!existsSync(scratch)) return
  for (const file of readdirSync(scratch, { recursive: true, encoding: 'utf8' }).sort()) {
    if (statSync(join(scratch, file)).isDirectory()) continue
    const content = readFileSync(join(scratch, file))
    const name = file.split('/').at(-1)!
    const section = /\.([1-8])$/.exec(name)?.[1]
    if (section !== undefined) put(`usr/share/man/man${section}/${name}.gz`, compress(content))
    else if (name === '_weir') put('usr/share/zsh/vendor-completions/_weir', content)
    else put('usr/share/bash-completion/completions/weir', content)
  }
  rmSync(scratch, { recursive: true })
}

/** Every entry with the same time and owner's bits, whatever the machine's umask is. */
function settle(folder: string, seconds: number): void {
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort().reverse()) {
    const path = join(folder, name)
    const stat = statSync(path, { throwIfNoEntry: false })
    if (stat?.isDirectory()) chmodSync(path, 0o755)
    lutimesSync(path, seconds, seconds)
  }
  chmodSync(folder, 0o755)
  lutimesSync(folder, seconds, seconds)
}

/** gzip whose output depends on the content alone. */
export function compress(content: Uint8Array): Uint8Array {
  const bytes = gzipSync(content, { level: constants.Z_BEST_COMPRESSION })
  // The byte that names the system on which it was compressed (RFC 1952): always unknown.
  bytes[9] = 255
  return bytes
}

function packageName(path: string): string {
  return path.replace('node_modules/', '').replaceAll('/', '-')
}

function licenceFile(path: string): string {
  const name = readdirSync(join(root, path)).find(file => /^licen[cs]e/i.test(file))
  if (name === undefined) throw new Error(`${path} is part of the bundle and has no licence file`)
  return join(root, path, name)
}

/** Of all that is in an installation, as SPDX has it: weir, its BPF programs, libelf, libbpf and zlib, Node.js. */
export const LICENCES =
  'Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause) AND (LGPL-3.0-or-later OR GPL-2.0-or-later) AND BSD-2-Clause AND Zlib' +
  ' AND MIT AND BSD-3-Clause AND BlueOak-1.0.0 AND ISC AND Unicode-3.0'

function copyright(packages: readonly string[]): string {
  const paragraph = (files: string, holder: string, licence: string, ...texts: string[]) =>
    `Files: ${files}\nCopyright: ${holder}\nLicense: ${licence}\nComment: see ${texts.map(text => `/usr/share/doc/weir/licences/${text}.gz`).join(' ')}\n`
  const bundled = packages.map(path => {
    const manifest = JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8')) as {
      name: string
      version: string
      license: string
    }
    return paragraph(
      `usr/lib/weir/weir.mjs (contains ${manifest.name} ${manifest.version})`,
      `the authors of ${manifest.name}`,
      manifest.license,
      `npm-${packageName(path)}`,
    )
  })
  return [
    'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: weir\n',
    paragraph('*', 'the authors of weir', 'Apache-2.0', 'Apache-2.0'),
    paragraph(
      'usr/lib/weir/bpf/*',
      'the authors of weir',
      'GPL-2.0-only OR BSD-2-Clause',
      'GPL-2.0',
      'bpf-BSD-2-Clause',
    ),
    paragraph(
      'usr/lib/weir/node',
      'the authors of Node.js and of what it contains',
      'MIT and others',
      'nodejs',
    ),
    paragraph(
      'usr/lib/weir/native/bpf.node (contains libbpf)',
      'the authors of libbpf',
      'BSD-2-Clause',
      'libbpf-BSD-2-Clause',
    ),
    paragraph(
      'usr/lib/weir/native/bpf.node (contains libelf of elfutils)',
      'the authors of elfutils',
      'LGPL-3.0-or-later OR GPL-2.0-or-later',
      'LGPL-3.0',
      'GPL-3.0',
      'GPL-2.0',
    ),
    paragraph('usr/lib/weir/native/bpf.node (contains zlib)', 'the authors of zlib', 'Zlib', 'zlib'),
    ...bundled,
  ].join('\n')
}

/** Stands for everything in a folder: names, kinds, bits and bytes. */
export function digestOf(folder: string): string {
  const digest = createHash('sha256')
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    const path = join(folder, name)
    const stat = lstatSync(path)
    digest.update(`${name} ${stat.mode} ${stat.mtimeMs}\n`)
    if (stat.isSymbolicLink()) digest.update(readlinkSync(path))
    else if (stat.isFile()) digest.update(readFileSync(path))
  }
  return digest.digest('hex')
}

/** Bytes of all files under a folder. */
export function treeBytes(folder: string): number {
  let sum = 0
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) sum += statSync(join(entry.parentPath, entry.name)).size
  }
  return sum
}
