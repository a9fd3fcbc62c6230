/**
 * Builds the native part: `node native/build.ts FOLDER`. It needs one C compiler, the headers that come with the
 * pinned Node.js, clang for what runs inside the kernel, and in FOLDER what packaging/libbpf.sh makes. What is newer
 * than its sources is left alone.
 *
 *     native/socket/*.c  →  build/native/socket.node
 *     native/memory/*.c  →  build/native/memory.node
 *     native/process/*.c →  build/native/process.node
 *     native/bpf/*.c     →  build/native/bpf.node, with libbpf inside
 *     bpf/<name>.bpf.c   →  build/bpf/<name>.bpf.o
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

const ROOT = join(import.meta.dirname, '..')
const HEADERS = join(ROOT, 'node_modules', `node-linux-${process.arch}`, 'include', 'node')
/** The machine as Debian calls it. */
const MACHINE = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
const FLAGS = ['-std=c11', '-O2', '-fPIC', '-shared', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror']

/** Programs are compiled for the oldest kernels that run them; the debug information is what their types are read from. */
const BPF_FLAGS = [
  '-target',
  'bpf',
  '-mcpu=v3',
  '-std=gnu11',
  '-O2',
  '-g',
  '-Wall',
  '-Wextra',
  '-Wno-unused-parameter',
  '-Werror',
]

/** The options of the compiler and the linker for the addon that has libbpf inside, from a folder of packaging/libbpf.sh. */
export function libbpfFlags(folder: string): { compile: readonly string[]; link: readonly string[] } {
  const archives = ['libbpf.a', 'libelf.a', 'libeu.a'].map(file => join(folder, 'lib', file))
  return {
    compile: [`-I${join(folder, 'include')}`],
    link: [...archives, '-l:libz.a', '-Wl,--exclude-libs,ALL', '-Wl,--gc-sections'],
  }
}

/**
 * Compiles every C file of `native/<name>` into the addon `target`, with `compile` behind the usual options and
 * `link` behind the usual libraries. Throws when there is no compiler, no header or an error in the source; says
 * true when it has built something.
 */
export function buildAddon(
  name: string,
  target: string,
  compile: readonly string[] = [],
  link: readonly string[] = [],
  compiler: string = process.env.CC ?? 'cc',
): boolean {
  const folder = join(ROOT, 'native', name)
  const files = readdirSync(folder).map(file => join(folder, file))
  if (isNewer(target, [...files, join(ROOT, 'native', 'arguments.h')])) return false

  if (!existsSync(join(HEADERS, 'node_api.h'))) {
    throw new Error(`no Node.js headers in ${HEADERS}: run 'npm run native', which installs them`)
  }
  const sources = files.filter(file => file.endsWith('.c'))
  const options = [...FLAGS, ...compile, `-I${HEADERS}`, ...sources]
  // Code and constants in one segment: pages of padding are most of a small addon otherwise.
  const more = ['-Wl,-z,noseparate-code', '-lpthread']
  run(compiler, options, target, [...link, ...more], 'install gcc, or set CC')
  return true
}

/**
 * Compiles `bpf/<name>.bpf.c` into `target`; says true when it has built something. `types`: the folder with the kernel's
 * headers of one architecture (asm/types.h), which Debian keeps by themselves.
 */
export function buildProgram(
  name: string,
  target: string,
  libbpf: string,
  types = `/usr/include/${MACHINE}-linux-gnu`,
): boolean {
  const folder = join(ROOT, 'bpf')
  const headers = readdirSync(folder).filter(file => file.endsWith('.h'))
  const files = [`${name}.bpf.c`, ...headers].map(file => join(folder, file))
  if (isNewer(target, files)) return false
  // The names of the sources become a part of the object: they are not to tell where it was built.
  const include = [`-ffile-prefix-map=${ROOT}/=`, `-I${join(libbpf, 'include')}`, '-idirafter', types]
  const compiler = process.env.BPF_CC ?? 'clang-14'
  run(compiler, [...BPF_FLAGS, ...include, '-c', files[0]!], target, [], 'install clang, or set BPF_CC')
  return true
}

function isNewer(target: string, files: readonly string[]): boolean {
  if (!existsSync(target)) return false
  const newest = Math.max(...[...files, import.meta.filename].map(file => statSync(file).mtimeMs))
  return statSync(target).mtimeMs > newest
}

function run(
  compiler: string,
  options: readonly string[],
  target: string,
  link: readonly string[],
  help: string,
): void {
  mkdirSync(dirname(target), { recursive: true })
  // Never write into a file that a running process has mapped: a new one takes its place.
  const fresh = `${target}.${process.pid}`
  const result = spawnSync(compiler, [...options, '-o', fresh, ...link], { encoding: 'utf8' })
  if (result.error !== undefined) {
    throw new Error(`cannot run the C compiler '${compiler}' (${result.error.message}): ${help}`)
  }
  if (result.status !== 0)
    throw new Error(`${compiler} failed on ${relative(ROOT, target)}:\n${result.stderr}`)
  renameSync(fresh, target)
}

/** The addons that need nothing but libc, each from the folder of its name. */
export const ADDONS = ['socket', 'memory', 'process', 'nvml']
/** What runs inside the kernel. */
export const PROGRAMS = ['sample', 'drops']

if (import.meta.main) {
  try {
    const libbpf = process.argv[2]
    if (libbpf === undefined) throw new Error("give the folder with libbpf, or run 'npm run native'")
    const { compile, link } = libbpfFlags(libbpf)
    const built = (file: string, build: (target: string) => boolean) => {
      if (build(join(ROOT, 'build', file))) process.stderr.write(`native: built build/${file}\n`)
    }
    for (const name of ADDONS) built(`native/${name}.node`, target => buildAddon(name, target))
    built('native/bpf.node', target => buildAddon('bpf', target, compile, link))
    for (const name of PROGRAMS) built(`bpf/${name}.bpf.o`, target => buildProgram(name, target, libbpf))
  } catch (error) {
    process.stderr.write(`native: ${(error as Error).message}\n`)
    process.exitCode = 1
  }
}
