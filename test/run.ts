/**
 * Runs the tests: `node test/run.ts [unit|vm|packages|all]`. Unit, property, golden and network namespace tests run here;
 * the kernel tests run in virtual machines with Debian's kernels; packages are built and installed on clean systems.
 */
import { spawn } from 'node:child_process'
import { globSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { onceMore, readResults, writingResults } from './support/once-more.ts'

const root = join(import.meta.dirname, '..')
const what = process.argv[2] ?? 'all'

/** The agent is started hundreds of times: its types are stripped once. */
const env = { ...process.env, NODE_COMPILE_CACHE: join(root, 'build/compile-cache') }

/** Runs Node.js on `args` with its output shown; resolves with the exit status. */
function run(args: string[]): Promise<number> {
  return new Promise(resolve => {
    const child = spawn(process.execPath, args, { cwd: root, env, stdio: 'inherit' })
    child.on('exit', (code, signal) => {
      if (signal !== null) console.error(`test: ended by ${signal}`)
      resolve(code ?? 1)
    })
  })
}

/** Runs test files; what fails is run once more, alone, which is said. */
async function runFiles(args: string[], files: string[]): Promise<number> {
  mkdirSync(join(root, 'build'), { recursive: true })
  const file = join(root, 'build/test-results.json')
  const status = await run(['--test', ...args, ...writingResults(file), ...files])
  if (status === 0) return 0
  const failed = (await readResults(file))?.failedFiles ?? []
  const alone = ['--test', '--test-timeout=300000', '--test-concurrency=1']
  const say = (line: string) => console.log(`== ${line}`)
  return (await onceMore(failed, say, async again => (await run([...alone, ...again])) === 0)) ? 0 : status
}

interface Step {
  readonly name: string
  readonly run: () => Promise<number>
}

/** What `npm test` leaves to `npm run test:packages`, which takes some minutes more. */
const ONLY_PACKAGES = ['build', 'image'].map(name => `test/packages/${name}.test.ts`)

const find = (pattern: string) => globSync(pattern, { cwd: root }).sort()

const steps: Step[] = []
if (what === 'all' || what === 'unit') {
  const files = find('test/**/*.test.ts').filter(file => !/^test\/(vm|packages)\//.test(file))
  steps.push({
    name: `${files.length} files of unit, property, golden and namespace tests`,
    run: () => runFiles(['--test-timeout=120000', '--test-concurrency=2'], files),
  })
}
/** What `what` runs in virtual machines, as arguments of test/vm/run.ts. */
const GUESTS: Readonly<Record<string, { name: string; args: string[] }>> = {
  all: { name: 'kernels in virtual machines, and a system with systemd', args: ['--installed'] },
  vm: { name: 'kernels in virtual machines', args: [] },
  packages: {
    name: 'a system with systemd in a virtual machine',
    args: ['--kernel', '6.12', ...find('test/packages/guest/*.test.ts')],
  },
}
const guests = GUESTS[what]
const runGuests = () => run(['test/vm/run.ts', ...guests!.args])

if (what === 'all' || what === 'packages') {
  const files = find('test/packages/*.test.ts').filter(
    file => what === 'packages' || !ONLY_PACKAGES.includes(file),
  )
  const runPackages = () => runFiles(['--test-timeout=300000', '--test-concurrency=2'], files)
  steps.push(
    {
      name: 'building packages, and clean systems to install them into',
      run: () => run(['test/packages/prepare.ts', what === 'packages' ? 'all' : 'here']),
    },
    {
      // Guests compute, and an installed agent is mostly waited for.
      name: `${guests!.name}; beside them ${files.length} files of tests of packages`,
      run: async () => Math.max(...(await Promise.all([runGuests(), runPackages()]))),
    },
  )
} else if (guests !== undefined) steps.push({ name: guests.name, run: runGuests })
if (steps.length === 0) {
  console.error(`test: unknown set '${what}'; give unit, vm, packages or all`)
  process.exit(2)
}

let failed = false
for (const step of steps) {
  const started = Date.now()
  console.log(`\n== ${step.name}`)
  const status = await step.run()
  const seconds = Math.round((Date.now() - started) / 1000)
  console.log(`== ${step.name}: ${status === 0 ? 'passed' : 'FAILED'} in ${seconds} s`)
  if (status !== 0) failed = true
}
if (what === 'all') {
  console.log(
    "\n== left to 'npm run test:packages': the container image, sizes, the same bytes twice, arm64 in an emulator",
  )
}
process.exit(failed ? 1 : 0)
