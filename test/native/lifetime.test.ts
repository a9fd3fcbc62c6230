import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { buildSync } from 'esbuild'
import { builtFile } from '../../agent/kernel/addon.ts'
import { buildAddon, libbpfFlags } from '../../native/build.ts'

const PARTS = [
  { name: 'sockets', script: 'lifetime.ts', addon: 'socket', compile: [], link: [] },
  { name: 'BPF objects', script: 'bpf-lifetime.ts', addon: 'bpf', ...libbpfFlags(libbpfFolder()) },
] as const

for (const { name, script, addon, compile, link } of PARTS) {
  test(`${name} end in every way without a leak`, () => {
    const run = spawnSync(process.execPath, [join(import.meta.dirname, script)], { encoding: 'utf8' })
    assert.equal(run.status, 0, `${run.stdout}${run.stderr}`)
    assert.match(run.stdout, /all done/)
  })

  test(`${name}: the same in one file, under AddressSanitizer`, t => {
    const folder = mkdtempSync(join(tmpdir(), 'weir-asan-'))
    t.after(() => rmSync(folder, { recursive: true }))
    // As it is installed: the program in one file, the native part beside it.
    const sanitize = ['-fsanitize=address', '-g']
    buildAddon(addon, join(folder, `native/${addon}.node`), [...compile, ...sanitize], link)
    cpSync(dirname(builtFile('bpf/sample.bpf.o')), join(folder, 'bpf'), { recursive: true })
    const outfile = join(folder, 'lifetime.mjs')
    buildSync({
      entryPoints: [join(import.meta.dirname, script)],
      bundle: true,
      platform: 'node',
      format: 'esm',
      outfile,
      logLevel: 'error',
    })
    const library = execFileSync('cc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim()
    const run = spawnSync(process.execPath, [outfile], {
      encoding: 'utf8',
      // Node.js itself keeps memory to its end, which is no leak of ours.
      env: { ...process.env, LD_PRELOAD: library, ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1' },
    })
    assert.equal(run.status, 0, `${run.stdout}${run.stderr}`)
    assert.match(run.stdout, /all done/)
  })
}

/** What `npm run native` has built it with. */
function libbpfFolder(): string {
  const script = join(import.meta.dirname, '../../packaging/libbpf.sh')
  return execFileSync('sh', [script], { encoding: 'utf8' }).trim()
}
