/** The bench itself: that a guest is what the other kernel tests take it for. */
import assert from 'node:assert/strict'
import { accessSync, constants, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { modprobe, neighbour, netdevsim, ping, run, sampler, tc } from '../../support/guest.ts'

const REPOSITORY = join(import.meta.dirname, '../../..')

test('the kernel is the one asked for', () => {
  assert.ok(release().startsWith(`${process.env.WEIR_VM}.`), release())
})

test('the repository is there and cannot be written, the rest of the root can', () => {
  assert.ok(existsSync(join(REPOSITORY, 'package.json')))
  assert.throws(() => writeFileSync(join(REPOSITORY, 'written-by-guest'), ''), { code: 'EROFS' })
  writeFileSync('/etc/weir-guest', '')
  accessSync(tmpdir(), constants.W_OK)
})

test('the kernel describes its types (BTF)', () => {
  assert.ok(statSync('/sys/kernel/btf/vmlinux').size > 1e6)
})

test('the file systems that tests use are mounted', () => {
  const mounts = readFileSync('/proc/mounts', 'utf8')
  for (const type of ['proc', 'sysfs', 'devtmpfs', 'tmpfs', 'bpf', 'debugfs', 'tracefs', 'cgroup2']) {
    assert.match(mounts, new RegExp(`^\\S+ \\S+ ${type} `, 'm'))
  }
})

const MODULES = [
  ...['psample', 'act_sample', 'cls_matchall', 'sch_ingress', 'drop_monitor', 'netdevsim'],
  ...['veth', 'dummy', 'bonding', 'bridge', '8021q', 'vrf', 'openvswitch', 'cls_bpf'],
]
for (const name of MODULES) {
  test(`module ${name} loads`, () => {
    modprobe(name)
    assert.ok(existsSync(`/sys/module/${name}`))
  })
}

test('netdevsim is a switch with ports and devlink traps, and goes away', t => {
  const { ports, devlink } = netdevsim(t, 10, 2)
  assert.equal(ports.length, 2)
  const traps: { name: string }[] = JSON.parse(run('devlink', '-j', 'trap', 'show')).trap[devlink]
  const names = traps.map(trap => trap.name)
  for (const trap of ['blackhole_route', 'ttl_value_is_too_small', 'fid_miss'])
    assert.ok(names.includes(trap))
})

test('a sampler on a veth counts what ping sends and receives', t => {
  neighbour(t, 'bench')
  sampler('bench', 'ingress', { rate: 1, group: 5 })
  sampler('bench', 'egress', { rate: 1, group: 6 })
  ping(50)
  for (const direction of ['ingress', 'egress']) {
    assert.match(tc(`-s filter show dev bench ${direction}`), /Sent \d+ bytes 50 pkt/)
  }
})
