import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'

const root = join(import.meta.dirname, '../..')
const module = join(root, 'agent/command/check.ts')

/** Runs `weir check` with `args`, fed with `input`. */
function check(args: string[], input = '') {
  const script = `import(${JSON.stringify(module)}).then(m => m.checkCommand().parseAsync(process.argv.slice(1), { from: 'user' }))`
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script, '--', ...args], {
    input,
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}

test('weir check: a good file', () => {
  const file = join(root, 'conf/weir.conf')
  assert.deepEqual(check(['-f', file]), { status: 0, stdout: `${file}: ok\n`, stderr: '' })
})

test('weir check: warnings alone are no failure', () => {
  const { status, stdout } = check(['--file', '-'], 'sFlow { collector { ip = 192.0.2.1 } xen { } ovs { } }')
  assert.equal(status, 0)
  assert.match(stdout, /^<stdin>:1:38: warning: xen \{ \} has no effect/)
  assert.match(stdout, /\n<stdin>: ok, 2 warnings\n$/)
})

test('weir check: errors are', () => {
  const { status, stdout } = check(
    ['-f', '-'],
    'sFlow {\n collector { ip = 192.0.2.1 }\n polling = x\n modules = y\n}',
  )
  assert.equal(status, 1)
  assert.match(stdout, /^<stdin>:3:12: polling: expected .*\n {2}3 \| {2}polling = x\n/)
  assert.match(stdout, /\n<stdin>: refused, 1 error, 1 warning\n$/)
})

test('weir check --json', () => {
  const { status, stdout } = check(
    ['--json', '-f', '-'],
    'sFlow { collector { ip = 192.0.2.1 }\npoling = 5 }',
  )
  assert.equal(status, 1)
  assert.deepEqual(JSON.parse(stdout), {
    file: '<stdin>',
    ok: false,
    errors: 1,
    warnings: 0,
    problems: [
      {
        severity: 'error',
        line: 2,
        column: 1,
        length: 6,
        message: '"poling" is not a setting of sFlow { }',
        suggestion: 'polling',
      },
    ],
  })
})

test('weir check: no such file', () => {
  assert.deepEqual(check(['-f', '/nonexistent/weir.conf']), {
    status: 1,
    stdout: '',
    stderr: 'weir check: cannot read /nonexistent/weir.conf: it does not exist\n',
  })
})

test('weir check: more than a configuration can be, from a pipe or a device', () => {
  const big = check(['-f', '-'], '#'.repeat((1 << 20) + 1))
  assert.equal(big.status, 1)
  assert.match(big.stderr, /standard input has more than 1048576 bytes; no configuration has/)
  const endless = check(['-f', '/dev/zero'])
  assert.equal(endless.status, 1)
  assert.match(endless.stderr, /\/dev\/zero has more than 1048576 bytes/)
})
