import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { buildAddon } from '../../native/build.ts'

const root = join(import.meta.dirname, '../..')

function makeFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'weir-build-'))
  t.after(() => rmSync(folder, { recursive: true }))
  return folder
}

test('what is newer than its sources is left alone, what is older is built again', t => {
  const target = join(makeFolder(t), 'native/socket.node')
  assert.equal(buildAddon('socket', target), true)
  const { ino } = statSync(target)
  assert.equal(buildAddon('socket', target), false)
  assert.equal(statSync(target).ino, ino)
  utimesSync(target, 0, 0)
  assert.equal(buildAddon('socket', target), true)
  assert.notEqual(statSync(target).ino, ino)
})

test('the addon shows the two symbols of Node-API and no others', t => {
  const target = join(makeFolder(t), 'socket.node')
  buildAddon('socket', target)
  const symbols = execFileSync('nm', ['--dynamic', '--defined-only', '--format=just-symbols', target], {
    encoding: 'utf8',
  })
  assert.deepEqual(symbols.trim().split('\n').sort(), [
    'napi_register_module_v1',
    'node_api_module_get_api_version_v1',
  ])
})

test('an error in a source is shown', t => {
  const target = join(makeFolder(t), 'socket.node')
  assert.throws(() => buildAddon('socket', target, ['-include', '/nothing.h']), /nothing\.h/)
  assert.equal(existsSync(target), false)
})

test('no compiler: the message says what to install', () => {
  const source = `import { buildAddon } from '${root}/native/build.ts'
    try { buildAddon('socket', '/tmp/weir-never-built.node') } catch (error) { console.log(error.message) }`
  const run = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', source], {
    encoding: 'utf8',
    env: { ...process.env, CC: '/nothing/cc' },
  })
  assert.match(
    run.stdout,
    /^cannot run the C compiler '\/nothing\/cc' \(.*ENOENT.*\): install gcc, or set CC/,
  )
})

test('not built: the message says how', t => {
  const folder = makeFolder(t)
  mkdirSync(join(folder, 'agent/kernel'), { recursive: true })
  copyFileSync(join(root, 'agent/kernel/addon.ts'), join(folder, 'agent/kernel/addon.ts'))
  const source = `import { loadAddon } from '${folder}/agent/kernel/addon.ts'
    try { loadAddon('socket') } catch (error) { console.log(error.message) }`
  const run = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', source], {
    encoding: 'utf8',
  })
  assert.match(
    run.stdout,
    /^native part missing: run 'npm run native' \(looked for .*native\/socket\.node and .*\)/,
  )
})
