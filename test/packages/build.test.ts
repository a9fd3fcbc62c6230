/** The packages themselves: the same bytes each time, nothing missing and nothing too new or too large in them. */
import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { version } from '../../agent/version.ts'
import { buildDeb } from '../../packaging/deb.ts'
import { checkFloor, neededVersions } from '../../packaging/floor.ts'
import { buildImage } from '../../packaging/image.ts'
import { buildRpm } from '../../packaging/rpm.ts'
import { BASE, TARGETS } from '../../packaging/targets.ts'
import { buildTree, digestOf, folderOf, treeBytes } from '../../packaging/tree.ts'
import { until } from '../support/lab.ts'
import { COMPRESSED, PACKAGES, packageFile } from './root.ts'

const MOST_DEB_BYTES = 30e6
const MOST_INSTALLED_BYTES = 110e6
const [AMD64, ARM64] = TARGETS as [(typeof TARGETS)[0], (typeof TARGETS)[0]]

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'weir-packages-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

function digest(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex')
}

describe('built twice, from nothing, in other folders and with another umask', () => {
  for (const target of TARGETS) {
    test(`${target.name}: the same tree and the same packages`, async t => {
      const umask = process.umask()
      t.after(() => void process.umask(umask))
      process.env.SOURCE_DATE_EPOCH = '1750000000'
      const builds: { tree: string; files: string[] }[] = []
      for (const bits of [0o022, 0o077]) {
        process.umask(bits)
        const output = join(folder(t), 'some/where')
        mkdirSync(output, { recursive: true })
        const tree = join(output, 'tree')
        await buildTree(target, tree, join(output, 'cache'))
        const options = { target, version, tree, output, level: 0 }
        // One machine's packages stand for those of both: they are written by the same programs.
        const builders = target === AMD64 ? [buildDeb, buildRpm, buildImage] : [buildDeb]
        builds.push({ tree: digestOf(tree), files: builders.map(build => digest(build(options))) })
        rmSync(tree, { recursive: true })
      }
      assert.deepEqual(builds[1], builds[0])
    })
  }
})

for (const { name } of TARGETS) {
  test(`${name}: sizes`, () => {
    const deb = statSync(packageFile(`_${name}.deb`, COMPRESSED)).size
    const installed = treeBytes(join(PACKAGES, `tree-${name}`))
    console.log(`# ${name}: deb ${(deb / 1e6).toFixed(1)} MB, installed ${(installed / 1e6).toFixed(2)} MB`)
    assert.ok(deb <= MOST_DEB_BYTES)
    assert.ok(installed <= MOST_INSTALLED_BYTES)
  })
}

test('a program that needs a newer C library is refused', t => {
  const path = folder(t)
  const source = join(path, 'new.c')
  // The address of this one was given a new version by glibc 2.34, from which on it is in libc itself.
  writeFileSync(source, '#include <pthread.h>\nvoid *f(void) { return (void *)pthread_create; }\n')
  const file = join(path, 'new.node')
  execFileSync('gcc', ['-shared', '-fPIC', '-o', file, source])
  assert.equal(neededVersions(file, AMD64).GLIBC, '2.34')
  assert.throws(
    () => checkFloor(path, AMD64),
    /new\.node needs GLIBC 2\.34; the oldest system to run on has 2\.28/,
  )
})

test('licences of all that is inside', () => {
  const papers = join(PACKAGES, 'tree-amd64/usr/share/doc/weir')
  const copyright = readFileSync(join(papers, 'copyright'), 'utf8')
  const licences = readdirSync(join(papers, 'licences'))
  for (const name of ['Apache-2.0', 'nodejs', 'zlib', 'npm-commander', 'npm-pino', 'npm-systeminformation']) {
    assert.ok(licences.includes(`${name}.gz`), name)
  }
  const texts = [...copyright.matchAll(/\/licences\/(\S+)/g)].map(([, name]) => name!)
  assert.deepEqual([...new Set(texts)].sort(), licences.sort())
  // The LGPL-3.0 is a supplement to the GPL-3.0; whoever takes the BPF programs has the choice of two.
  for (const [files, names] of [
    ['contains libelf', ['LGPL-3.0', 'GPL-3.0', 'GPL-2.0']],
    ['bpf/\\*', ['GPL-2.0', 'bpf-BSD-2-Clause']],
  ] as const) {
    const paragraph = new RegExp(`^Files: .*${files}.*\n(?:.+\n)+`, 'm').exec(copyright)![0]
    for (const name of names) assert.match(paragraph, new RegExp(`/licences/${name}.gz`))
  }
  const text = (name: string) => gunzipSync(readFileSync(join(papers, `licences/${name}.gz`))).toString()
  assert.match(text('GPL-3.0'), /GNU GENERAL PUBLIC LICENSE\s+Version 3, /)
  assert.match(text('GPL-2.0'), /GNU GENERAL PUBLIC LICENSE\s+Version 2, /)
  assert.match(text('bpf-BSD-2-Clause'), /the authors of weir/)
  const tag = execFileSync('rpm', ['-qp', '--queryformat', '%{LICENSE}', packageFile('.x86_64.rpm')], {
    encoding: 'utf8',
  })
  assert.match(tag, /\(GPL-2\.0-only OR BSD-2-Clause\)/)
})

test('a build that is killed leaves no package that could be taken for a whole one', async t => {
  const output = folder(t)
  const program = join(import.meta.dirname, '../../packaging/package.ts')
  const build = spawn(process.execPath, [program, '--only', 'deb', '--target', 'amd64', '--output', output], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  let said = ''
  build.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const begun = () =>
    readdirSync(output, { recursive: true, encoding: 'utf8' }).some(name => name.endsWith('_amd64.deb'))
  await until('a package', begun, 120_000)
  process.kill(-build.pid!, 'SIGKILL')
  await once(build, 'exit')
  assert.match(said, /amd64: deb, compressing/)
  assert.deepEqual(
    readdirSync(output).filter(name => name.endsWith('.deb')),
    [],
  )
})

test('arm64: the programs run in the emulator', t => {
  const base = folderOf('debian-files.sh', `base-${ARM64.name}`, BASE.suite, ARM64.name, ...BASE.packages)
  // The libraries as a system has them: /lib is a link.
  const system = folder(t)
  for (const [name, to] of [
    ['lib', 'usr/lib'],
    ['usr', 'usr'],
  ] as const)
    symlinkSync(join(base, to), join(system, name))
  const tree = join(PACKAGES, 'tree-arm64/usr/lib/weir')
  const emulated = (...args: string[]) =>
    spawnSync('qemu-aarch64-static', ['-L', system, join(tree, 'node'), ...args], { encoding: 'utf8' })
  const weir = (...args: string[]) => emulated(join(tree, 'weir.mjs'), ...args)
  assert.equal(weir('--version').stdout.trim(), version)

  const path = folder(t)
  const good = join(path, 'good.conf')
  writeFileSync(good, 'sFlow { collector { ip = 192.0.2.1 } }\n')
  assert.match(weir('check', '-f', good).stdout, /good\.conf: ok/)
  const bad = join(path, 'bad.conf')
  writeFileSync(bad, 'sFlow { poling = 20 }\n')
  assert.match(weir('check', '-f', bad).stdout, /bad\.conf:1:9: .*did you mean polling\?/s)

  const vector = readFileSync(
    join(import.meta.dirname, '../vectors/sflow/compact-interfaces/bytes.hex'),
    'utf8',
  )
  const datagram = join(path, 'datagram')
  writeFileSync(datagram, Buffer.from(vector.replace(/#.*$/gm, '').replace(/\s+/g, ''), 'hex'))
  const here = spawnSync(process.execPath, ['agent/main.ts', 'decode', datagram], {
    encoding: 'utf8',
    cwd: join(import.meta.dirname, '../..'),
  })
  assert.equal(here.status, 0, here.stderr)
  assert.equal(weir('decode', datagram).stdout, here.stdout)

  // The addons load and their functions are there; what they call, the emulator has not (bpf(2), netlink).
  const addons = readdirSync(join(tree, 'native')).sort()
  const script = `for (const name of ${JSON.stringify(addons)}) {
    const addon = require(${JSON.stringify(tree)} + '/native/' + name)
    console.log(name, Object.keys(addon).length > 0)
  }`
  const loaded = emulated('-e', script)
  assert.equal(loaded.stdout, addons.map(name => `${name} true\n`).join(''), loaded.stderr)
  assert.deepEqual(Object.keys(neededVersions(join(tree, 'native/bpf.node'), ARM64)), ['GLIBC'])
})
