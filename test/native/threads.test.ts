/** Work on other threads while the environment that asked for it ends: workers come and go, the process stays. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

const ROOT = join(import.meta.dirname, '../..')
const FAKE_NVML = join(ROOT, 'test/support/fake-nvml.c')

let folder: string
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'weir-threads-'))
})
after(() => rmSync(folder, { recursive: true }))

/** Runs `inside` in eight workers, one after the other, each of which is ended when it says so; then ends by itself. */
function inWorkers(name: string, inside: string): void {
  const worker = join(folder, `${name}-worker.ts`)
  writeFileSync(worker, `import { parentPort } from 'node:worker_threads'\n${inside}`)
  const main = join(folder, `${name}.ts`)
  writeFileSync(
    main,
    `import { once } from 'node:events'
    import { Worker } from 'node:worker_threads'
    for (let i = 0; i < 8; i++) {
      const worker = new Worker(${JSON.stringify(worker)})
      const ended = once(worker, 'exit')
      await once(worker, 'message')
      if (i % 2 === 0) await worker.terminate()
      else await ended
      globalThis.gc()
    }
    console.log('survived')`,
  )
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', main], {
    encoding: 'utf8',
    timeout: 120_000,
  })
  assert.deepEqual([stdout.trim(), status, signal], ['survived', 0, null], stderr)
}

function library(name: string, ...definitions: string[]): string {
  const path = join(folder, `${name}.so`)
  execFileSync('cc', ['-shared', '-fPIC', '-o', path, ...definitions, FAKE_NVML])
  return path
}

const NVML = JSON.stringify(join(ROOT, 'agent/kernel/nvml.ts'))
const NATIVE = JSON.stringify(join(ROOT, 'agent/kernel/native.ts'))

for (const [name, definitions] of [
  ['answers', []],
  ['hangs', ['-DHANG_READ']],
  ['never-loads', ['-DHANG_INIT']],
] as [string, string[]][]) {
  test(`GPUs: the worker ends under a library that ${name}`, () => {
    const path = JSON.stringify(library(name, ...definitions))
    inWorkers(
      `nvml-${name}`,
      `import { openNvml } from ${NVML}
      void openNvml(${path}).then(ask => ask()).catch(() => {})
      parentPort.postMessage('asked')
      parentPort.unref()`,
    )
  })
}

test('device requests: the worker ends while they are under way, and the descriptor is closed', () => {
  inWorkers(
    'control',
    `import { readdirSync } from 'node:fs'
    import { KernelSocket } from ${NATIVE}
    const socket = KernelSocket.open('socket', 2, 2, 0)
    for (let i = 0; i < 50; i++) {
      const info = new Uint8Array(196)
      info[0] = 3
      socket.control(0x8946, 'lo', info, 'ask lo').catch(() => {})
    }
    if (Math.random() < 0.5) socket.close()
    const open = readdirSync('/proc/self/fd').length
    if (open > 100) throw new Error(open + ' descriptors')
    parentPort.postMessage('asked')
    parentPort.unref()`,
  )
})
