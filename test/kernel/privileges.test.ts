/** Which capabilities a configuration needs, and that a process which gives up the others cannot have them back. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import { CAPABILITIES, maskOf, namesOf, neededPrivileges, systemUser } from '../../agent/kernel/privileges.ts'

const root = join(import.meta.dirname, '../..')

describe('needed by', () => {
  for (const [settings, expected] of [
    ['', []],
    ['psample { }', ['CAP_NET_ADMIN']],
    ['psample { } tc { switchport = "^swp" }', ['CAP_NET_ADMIN']],
    ['pcap { dev = eth0 }', ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_SYSLOG', 'CAP_PERFMON', 'CAP_BPF']],
    ['dropmon { }', ['CAP_NET_ADMIN', 'CAP_SYS_ADMIN', 'CAP_SYSLOG', 'CAP_PERFMON', 'CAP_BPF']],
    ['collector { ip = 192.0.2.2 namespace = blue }', ['CAP_SYS_ADMIN']],
    ['collector { ip = 192.0.2.2 dev = mgmt }', ['CAP_NET_RAW']],
  ] as const) {
    test(settings || 'counters alone', () => {
      const { config } = loadConfig(`sFlow { collector { ip = 192.0.2.1 } ${settings} }`, 'test.conf')
      assert.deepEqual(namesOf(maskOf(neededPrivileges(config!))), expected)
    })
  }
})

test('every capability that weir can use is in the unit and in docs/installing.md, and no other', () => {
  const unit = readFileSync(join(root, 'packaging/system/weir.service'), 'utf8')
  const page = readFileSync(join(root, 'docs/installing.md'), 'utf8')
  for (const setting of ['AmbientCapabilities', 'CapabilityBoundingSet']) {
    const [, names] = new RegExp(`^${setting}=(.*)$`, 'm').exec(unit)!
    assert.deepEqual(names!.split(' ').sort(), Object.keys(CAPABILITIES).sort(), setting)
  }
  for (const name of Object.keys(CAPABILITIES)) assert.ok(page.includes(name), name)
})

test('a user by name', () => {
  assert.deepEqual(systemUser('root'), { user: 0, group: 0 })
  assert.equal(systemUser('no-such-user'), undefined)
})

test('given up: the same process, with what was to be kept and no way back', () => {
  const keep = 1n << BigInt(CAPABILITIES.CAP_NET_RAW)
  const source = `
    import { readFileSync } from 'node:fs'
    import { reducePrivileges } from '${root}/agent/kernel/privileges.ts'
    console.log(process.pid)
    reducePrivileges({ keep: ${keep}n, user: { user: 65534, group: 65534 } })
    console.log(readFileSync('/proc/self/status', 'utf8'))
    try { process.setuid(0); console.log('root again') } catch (error) { console.log(error.code) }
    console.log(readFileSync('/etc/shadow', { flag: 'r' }).length)`
  const file = join(root, 'build', `privileges-${process.pid}.ts`)
  const run = spawnSync(
    'sh',
    ['-c', `cat >${file}; node_modules/.bin/node ${file}; status=$?; rm ${file}; exit $status`],
    {
      cwd: root,
      encoding: 'utf8',
      input: source,
    },
  )
  const pids = run.stdout.match(/^\d+$/gm)!
  assert.equal(pids.length, 2, run.stderr)
  assert.equal(pids[0], pids[1])
  assert.match(run.stdout, /^Uid:\t65534\t65534\t65534\t65534$/m)
  assert.match(run.stdout, /^Groups:\s*$/m)
  const hex = keep.toString(16).padStart(16, '0')
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
    assert.match(run.stdout, new RegExp(`^${set}:\t${hex}$`, 'm'))
  }
  assert.match(run.stdout, /^NoNewPrivs:\t1$/m)
  assert.match(run.stdout, /^EPERM$/m)
  assert.match(run.stderr, /EACCES/)
  assert.equal(execFileSync('id', ['-u'], { encoding: 'utf8' }).trim(), '0')
})
