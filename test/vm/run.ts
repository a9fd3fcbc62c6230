/**
 * Runs test files on real kernels in virtual machines:
 *
 *   node test/vm/run.ts [--kernel 6.1|6.12|all] [--installed] [--timeout SECONDS] [--keep] [--shell] [FILE.test.ts…]
 *
 * Without files, all of test/vm/guest on the newest kernel, and what depends on the kernel on the others too; with
 * --installed also test/packages/guest, on the newest. A guest's root is this machine's own or, for test/packages, a
 * Debian with systemd; this repository is at the same place in it. What a guest writes stays in its memory, except for
 * the output directory /run/weir-vm.
 */

import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { globSync } from 'node:fs'
import { copyFile, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { release, tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Duplex } from 'node:stream'
import { parseArgs } from 'node:util'
import { bundle } from '../../packaging/bundle.ts'
import { systemFolder } from '../packages/root.ts'
import { onceMore, readResults, writingResults } from '../support/once-more.ts'
import { type Image, KERNELS, type KernelName, prepareImage } from './images.ts'

const REPOSITORY = resolve(import.meta.dirname, '../..')

/** Where the guest sees the output directory. */
const OUT = '/run/weir-vm'

/** What guests run (test/support/program.ts). */
const PROGRAM = join(REPOSITORY, 'build/weir.mjs')

/** A test that takes longer than this is reported by the test runner itself. */
const TEST_TIMEOUT_MS = 180_000

interface Options {
  readonly timeoutSeconds: number
  readonly keep: boolean
}

/** The system that a guest sees, below its own layer of writes. */
interface System {
  /** This machine's own, or a folder. */
  readonly root: string
  /** Its first process, a script of this folder. */
  readonly init: string
}

const HERE: System = { root: '/', init: 'init.sh' }

/** What one guest does. */
interface Job {
  readonly image: Image
  readonly system: System
  readonly files: readonly string[]
}

/** Does the job in a guest, and once more, in another one, what fails; true when every test has passed. */
async function runTests(job: Job, options: Options): Promise<boolean> {
  const { passed, failed } = await runGuest(job, options)
  if (passed || isStopped) return passed
  const say = (line: string) => console.log(`[${job.image.name}] ${line}`)
  return onceMore(failed, say, async files => (await runGuest({ ...job, files }, options)).passed)
}

interface Outcome {
  /** Every test passed and there was one at least in each file. */
  readonly passed: boolean
  /** The files that had a failure, as far as it is known. */
  readonly failed: readonly string[]
}

/** Boots the image, runs the files and says how it went. */
async function runGuest({ image, system, files }: Job, options: Options): Promise<Outcome> {
  const say = (line: string) => console.log(`[${image.name}] ${line}`)
  const out = await mkdtemp(join(tmpdir(), `weir-vm-${image.name}-`))
  try {
    await layOut(out, image, 'tests', system.init)
    await writeFile(join(out, 'job'), script(files))
    say(`booting Linux ${image.release}`)
    const started = performance.now()
    const seconds = () => `${((performance.now() - started) / 1000).toFixed(1)} s`
    const kernelConsole = await open(join(out, 'console'), 'a')
    const machine = spawnMachine(
      [...qemu(image, out, system.root), '-serial', 'stdio', '-chardev', 'socket,id=job,fd=3', ...JOB_PORT],
      ['ignore', kernelConsole.fd, kernelConsole.fd, 'pipe'],
    )
    const deadline = setTimeout(() => {
      say(`no end after ${options.timeoutSeconds} s: the guest is killed`)
      machine.kill('SIGKILL')
    }, options.timeoutSeconds * 1000)
    let talking = false
    createInterface({ input: machine.stdio[3] as Duplex }).on('line', line => {
      if (!talking) say(`booted in ${seconds()}`)
      talking = true
      say(line)
    })
    await ended(machine)
    clearTimeout(deadline)
    await kernelConsole.close()
    const status = await readFile(join(out, 'status'), 'utf8').catch(() => undefined)
    if (status === undefined) {
      say(`FAILED after ${seconds()}: the guest ended without a result; its console's last lines:`)
      for (const line of await lastLines(join(out, 'console'), 60)) say(`console: ${line}`)
      return { passed: false, failed: files }
    }
    const results = await readResults(join(out, 'results.json'))
    const names = new Set(results?.passedNames)
    const empty = files.filter(file => names.has(file))
    for (const file of empty) say(`no test in ${file}`)
    const passed = status.trim() === '0' && (results?.passed ?? 0) > 0 && empty.length === 0
    const counts = `${results?.passed} passed, ${results?.failed} failed, ${results?.skipped} skipped`
    say(`${passed ? 'passed' : 'FAILED'} after ${seconds()}: ${counts}; exit status ${status.trim()}`)
    return { passed, failed: results?.failedFiles ?? [] }
  } finally {
    if (options.keep) say(`output kept in ${out}`)
    else await rm(out, { recursive: true, force: true })
  }
}

/** Boots the image and gives a shell in it, on this terminal; `exit` ends the guest. */
async function runShell(image: Image): Promise<void> {
  const out = await mkdtemp(join(tmpdir(), `weir-vm-${image.name}-`))
  try {
    await layOut(out, image, 'shell', HERE.init)
    await ended(
      spawnMachine(
        [...qemu(image, out, HERE.root), '-serial', 'mon:stdio'],
        ['inherit', 'inherit', 'inherit'],
      ),
    )
  } finally {
    await rm(out, { recursive: true, force: true })
  }
}

/** Puts init.sh and what it reads into the output share. */
async function layOut(out: string, image: Image, what: 'tests' | 'shell', init: string): Promise<void> {
  await copyFile(join(import.meta.dirname, init), join(out, 'init.sh'))
  const variables = [
    `WEIR_REPOSITORY=${quote(REPOSITORY)}`,
    `WEIR_WHAT=${what}`,
    `export WEIR_VM=${image.name} WEIR_PROGRAM=${quote(PROGRAM)}`,
  ]
  await writeFile(join(out, 'environment'), `${variables.join('\n')}\n`)
}

/** The script that the guest runs: each file in a process of its own, one after the other. */
function script(files: readonly string[]): string {
  const command = [
    ...['node_modules/.bin/node', '--test', '--test-concurrency=1', `--test-timeout=${TEST_TIMEOUT_MS}`],
    ...writingResults(join(OUT, 'results.json')),
    ...files,
  ]
  return `echo 'test files: ${files.length}'\nexec ${command.map(quote).join(' ')}\n`
}

/** Carries the output of the job, away from the console, which belongs to the kernel. */
const JOB_PORT = ['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=job']

/**
 * The command line of a guest without KVM, disk or network. One processor: with two, emulated by a thread each, a
 * kernel that patches its own code while the other processor runs it crashes now and then.
 */
function qemu(image: Image, out: string, root: string): string[] {
  const share = (tag: string, path: string, mode: string) => [
    ...['-fsdev', `local,id=${tag},path=${path.replaceAll(',', ',,')},security_model=none,${mode}`],
    ...['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
  ]
  const append = 'console=ttyS0 quiet panic=-1 oops=panic mitigations=off random.trust_cpu=on'
  return [
    ...['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max', '-smp', '1', '-m', '2048'],
    ...['-nodefaults', '-no-reboot', '-display', 'none', '-device', 'virtio-rng-pci'],
    ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', append],
    ...share('root', root, 'readonly=on,multidevs=remap'),
    ...share('repository', REPOSITORY, 'readonly=on,multidevs=remap'),
    ...share('modules', image.modules, 'readonly=on'),
    ...share('out', out, 'writeout=immediate'),
  ]
}

const machines = new Set<ChildProcess>()
let isStopped = false

/** Starts a guest that dies with this process, whatever ends it. */
function spawnMachine(command: readonly string[], stdio: StdioOptions): ChildProcess {
  const machine = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], { stdio })
  machines.add(machine)
  machine.once('close', () => machines.delete(machine))
  return machine
}

function ended(machine: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    machine.once('error', reject)
    machine.once('close', () => resolve())
  })
}

async function lastLines(path: string, count: number): Promise<string[]> {
  const text = await readFile(path, 'utf8').catch(() => '')
  return text.trimEnd().split(/\r*\n/).slice(-count)
}

function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      kernel: { type: 'string', default: 'all' },
      timeout: { type: 'string', default: '1800' },
      keep: { type: 'boolean', default: false },
      shell: { type: 'boolean', default: false },
      installed: { type: 'boolean', default: false },
    },
  })
  const names = (Object.keys(KERNELS) as KernelName[]).filter(name => ['all', name].includes(values.kernel))
  if (names.length === 0)
    throw new Error(`no kernel '${values.kernel}'; there are ${Object.keys(KERNELS).join(', ')}`)
  const files = positionals.map(file => relative(REPOSITORY, resolve(file)))
  const options = { timeoutSeconds: Number(values.timeout), keep: values.keep }
  const images: Image[] = []
  for (const name of names) images.push(await prepareImage(name, line => console.error(`[${name}] ${line}`)))
  await bundle(PROGRAM)
  if (values.shell) {
    await runShell(images.at(-1)!)
    return 0
  }
  const jobs =
    files.length === 0
      ? allJobs(images, values.installed)
      : images.map(image => ({ image, files, system: files.every(isOfPackages) ? installed() : HERE }))
  let failed = false
  const next = async () => {
    for (let one = jobs.shift(); one !== undefined && !isStopped; one = jobs.shift()) {
      if (!(await runTests(one, options))) failed = true
    }
  }
  await Promise.all(Array.from({ length: GUESTS_AT_ONCE }, next))
  return failed ? 1 : 0
}

/** A guest has one processor: so many keep this machine busy. */
const GUESTS_AT_ONCE = 2

/** These are about what lies above the kernel's interfaces, which the other files are about: one kernel is enough. */
const NEWEST_ONLY: ReadonlySet<string> = new Set(
  [
    'bench',
    'clock-and-links',
    'demo',
    'doctor',
    'lockdown',
    'rates',
    'reload',
    'status',
    'virtual',
    'vlans',
    'ways',
  ].map(name => `test/vm/guest/${name}.test.ts`),
)

/** What it does to the kernel cannot be undone. */
const LAST = 'test/vm/guest/lockdown.test.ts'

/** The tests of BPF samples, which `npm test` also runs on this machine: of kernels that are no newer the oldest is enough. */
const ALSO_HERE = 'test/vm/guest/bpf.test.ts'

/** This machine's kernel is this one, or a newer one. */
function isHere(kernel: KernelName): boolean {
  const [[major, minor], [thatMajor, thatMinor]] = [release(), kernel].map(text =>
    text.split('.').map(Number),
  ) as [[number, number], [number, number]]
  return major > thatMajor || (major === thatMajor && minor >= thatMinor)
}

/** Tests of an installed package, which have a system of their own. */
const isOfPackages = (file: string) => file.startsWith('test/packages/')

/** A Debian with systemd, without this machine's programs: nothing that a package needs comes from elsewhere. */
const installed = (): System => ({ root: systemFolder('trixie-systemd'), init: 'init-systemd.sh' })

/** All files on the newest kernel, and on the others those that depend on the kernel. */
function allJobs(images: readonly Image[], withInstalled: boolean): Job[] {
  const find = (pattern: string) => globSync(pattern, { cwd: REPOSITORY }).sort()
  const files = find('test/vm/guest/*.test.ts').sort((a, b) => Number(a === LAST) - Number(b === LAST))
  const newest = images.at(-1)!
  const isEnough = images.length > 1 && isHere(newest.name)
  if (isEnough) {
    console.log(
      `[${newest.name}] without ${ALSO_HERE}: this machine's kernel, ${release()}, has run its tests`,
    )
  }
  const onNewest = files.filter(file => !(isEnough && file === ALSO_HERE))
  const jobs: Job[] = inParts(onNewest, 2 * GUESTS_AT_ONCE).map(part => ({
    image: newest,
    system: HERE,
    files: part,
  }))
  if (withInstalled) {
    jobs.unshift({ image: newest, system: installed(), files: find('test/packages/guest/*.test.ts') })
  }
  for (const image of images.slice(0, -1)) {
    const dependent = files.filter(file => !NEWEST_ONLY.has(file))
    console.log(
      `[${image.name}] ${dependent.length} of ${files.length} files: those that depend on the kernel`,
    )
    // The longest ones first, so that the last ones end at about the same time.
    jobs.unshift(...inParts(dependent, GUESTS_AT_ONCE).map(part => ({ image, system: HERE, files: part })))
  }
  return jobs
}

/** As many guests as end at about the same time, for a boot is short beside what they do. */
function inParts<T>(all: readonly T[], parts: number): T[][] {
  return Array.from({ length: parts }, (_, part) => all.filter((_, i) => i % parts === part))
}

// A guest that is killed ends like one that crashed: its run fails, and what it left is cleared away.
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    isStopped = true
    for (const machine of machines) machine.kill('SIGKILL')
  })
}
process.exitCode = await main()
