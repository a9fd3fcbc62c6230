/**
 * Runs test files on real kernels in virtual machines:
 *
 *   node test/vm/run.ts [--kernel 6.1|6.12|all] [--timeout SECONDS] [--keep] [--shell] [FILE.test.ts…]
 *
 * Without files, all of test/vm/guest. The guest's root is this machine's own, with this repository at the same
 * place; what a guest writes stays in its memory, except for the output directory /run/weir-vm.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Duplex, Readable } from 'node:stream'
import { parseArgs } from 'node:util'
import { type Image, KERNELS, type KernelName, prepareImage } from './images.ts'

const REPOSITORY = resolve(import.meta.dirname, '../..')
const GUEST_TESTS = join(import.meta.dirname, 'guest')

/** A test that takes longer than this is reported by the test runner itself. */
const TEST_TIMEOUT_MS = 180_000

interface Options {
  readonly files: readonly string[]
  readonly timeoutSeconds: number
  readonly keep: boolean
  readonly shell: boolean
}

/** Boots the image, runs the files and says how it went; true when every test passed and there was one at least. */
async function runGuest(image: Image, options: Options): Promise<boolean> {
  const say = (line: string) => console.log(`[${image.name}] ${line}`)
  const out = await mkdtemp(join(tmpdir(), `weir-vm-${image.name}-`))
  try {
    await writeFile(
      join(out, 'environment'),
      `WEIR_REPOSITORY=${quote(REPOSITORY)} WEIR_SHELL=${options.shell ? 'yes' : 'no'}\nexport WEIR_VM=${image.name}\n`,
    )
    await writeFile(join(out, 'job'), job(options.files))
    say(`booting Linux ${image.release}`)
    const started = performance.now()
    const seconds = () => `${((performance.now() - started) / 1000).toFixed(1)} s`
    const machine = spawnMachine(image, out, options.shell)
    const deadline = setTimeout(() => {
      say(`no end after ${options.timeoutSeconds} s: the guest is killed`)
      machine.kill('SIGKILL')
    }, options.timeoutSeconds * 1000)
    if (options.shell) {
      await ended(machine)
      clearTimeout(deadline)
      return true
    }
    const console_ = createWriteStream(join(out, 'console'))
    ;(machine.stdio[1] as Readable).pipe(console_)
    ;(machine.stdio[2] as Readable).pipe(console_, { end: false })
    let talking = false
    createInterface({ input: machine.stdio[3] as Duplex }).on('line', line => {
      if (!talking) say(`booted in ${seconds()}`)
      talking = true
      say(line)
    })
    await ended(machine)
    clearTimeout(deadline)
    const status = await readFile(join(out, 'status'), 'utf8').catch(() => undefined)
    if (status === undefined) {
      say(`FAILED after ${seconds()}: the guest ended without a result; its console's last lines:`)
      for (const line of await lastLines(join(out, 'console'), 60)) say(`console: ${line}`)
      return false
    }
    const results = await readFile(join(out, 'results.tap'), 'utf8').catch(() => '')
    const count = (word: string) => Number(new RegExp(`^# ${word} (\\d+)$`, 'm').exec(results)?.[1] ?? 0)
    const passed = status.trim() === '0' && count('pass') > 0
    const counts = `${count('pass')} passed, ${count('fail') + count('cancelled')} failed, ${count('skipped')} skipped`
    say(`${passed ? 'passed' : 'FAILED'} after ${seconds()}: ${counts}; exit status ${status.trim()}`)
    return passed
  } finally {
    if (options.keep) say(`output kept in ${out}`)
    else await rm(out, { recursive: true, force: true })
  }
}

/** The script that the guest runs: each file in a process of its own, one after the other. */
function job(files: readonly string[]): string {
  const reporters = ['spec', 'stdout', 'tap', '/run/weir-vm/results.tap']
  const command = [
    ...['node_modules/.bin/node', '--test', '--test-concurrency=1', `--test-timeout=${TEST_TIMEOUT_MS}`],
    ...[`--test-reporter=${reporters[0]}`, `--test-reporter-destination=${reporters[1]}`],
    ...[`--test-reporter=${reporters[2]}`, `--test-reporter-destination=${reporters[3]}`],
    ...files,
  ]
  return `echo 'running ${files.length} test files'\nexec ${command.map(quote).join(' ')}\n`
}

/**
 * Starts qemu without KVM, without a disk and without a network. Its standard output is the guest's console; the
 * fourth descriptor carries the output of the job. It dies with this process, whatever ends it. One processor: with
 * two, emulated by a thread each, a kernel that patches its code while the other runs it sometimes crashes.
 */
function spawnMachine(image: Image, out: string, shell: boolean): ChildProcess {
  const share = (tag: string, path: string, more: string) => [
    '-fsdev',
    `local,id=${tag},path=${path.replaceAll(',', ',,')},security_model=none,${more}`,
    '-device',
    `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`,
  ]
  const port = [
    '-chardev',
    'socket,id=job,fd=3',
    '-device',
    'virtio-serial-pci',
    '-device',
    'virtserialport,chardev=job',
  ]
  const append = [
    ...['console=ttyS0', 'quiet', 'panic=-1', 'oops=panic', 'mitigations=off', 'random.trust_cpu=on'],
    `weir.init=${join(import.meta.dirname, 'init.sh')}`,
  ]
  const qemu = [
    ...['qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '1', '-m', '2048'],
    ...['-nodefaults', '-no-reboot', '-display', 'none', '-serial', shell ? 'mon:stdio' : 'stdio'],
    ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', append.join(' ')],
    ...share('root', '/', 'readonly=on,multidevs=remap'),
    ...share('repository', REPOSITORY, 'readonly=on,multidevs=remap'),
    ...share('modules', image.modules, 'readonly=on'),
    ...share('out', out, 'writeout=immediate'),
    ...['-device', 'virtio-rng-pci'],
    ...(shell ? [] : port),
  ]
  const stdio: ('inherit' | 'ignore' | 'pipe')[] = shell
    ? ['inherit', 'inherit', 'inherit']
    : ['ignore', 'pipe', 'pipe', 'pipe']
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...qemu], { stdio })
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
      timeout: { type: 'string', default: '600' },
      keep: { type: 'boolean', default: false },
      shell: { type: 'boolean', default: false },
    },
  })
  const names = (Object.keys(KERNELS) as KernelName[]).filter(name => ['all', name].includes(values.kernel))
  if (names.length === 0)
    throw new Error(`no kernel '${values.kernel}'; there are ${Object.keys(KERNELS).join(', ')}`)
  const files = positionals.map(file => relative(REPOSITORY, resolve(file)))
  const found = await readdir(GUEST_TESTS)
  const all = found.filter(file => file.endsWith('.test.ts')).map(file => `test/vm/guest/${file}`)
  const options = {
    files: files.length > 0 ? files : all.sort(),
    timeoutSeconds: Number(values.timeout),
    keep: values.keep,
    shell: values.shell,
  }
  const images: Image[] = []
  for (const name of names) images.push(await prepareImage(name, line => console.error(`[${name}] ${line}`)))
  const passed = await Promise.all(images.map(image => runGuest(image, options)))
  return passed.every(Boolean) ? 0 : 1
}

process.exitCode = await main()
