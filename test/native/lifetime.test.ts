import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { buildSync } from 'esbuild'
import { buildAddon } from '../../native/build.ts'

const script = join(import.meta.dirname, 'lifetime.ts')

test('sockets end in every way without a leak', () => {
  const run = spawnSync(process.execPath, [script], { encoding: 'utf8' })
  assert.equal(run.status, 0, `${run.stdout}${run.stderr}`)
  assert.match(run.stdout, /all done/)
})

test('the same in one file, under AddressSanitizer', t => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-asan-'))
  t.after(() => rmSync(folder, { recursive: true }))
  // As it is installed: the program in one file, the native part beside it.
  buildAddon('socket', join(folder, 'native/socket.node'), ['-fsanitize=address', '-g'])
  const outfile = join(folder, 'lifetime.mjs')
  buildSync({
    entryPoints: [script],
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
