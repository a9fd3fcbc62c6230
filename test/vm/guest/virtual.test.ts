/**
 * Control groups of version 2 with all their controllers: a container of podman, and services of a real systemd, which is
 * the first process of a namespace of its own here.
 */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { findRecord } from '../../../agent/wire/sflow/block.ts'
import { hostAdapters, hostDescr } from '../../../agent/wire/sflow/counters/host.ts'
import {
  virtCpu,
  virtDiskIo,
  virtMemory,
  virtNetIo,
  virtNode,
} from '../../../agent/wire/sflow/counters/virtual.ts'
import { listening, reversed, run, startDaemon, startPodman } from '../../support/containers.ts'
import { ifIndex, inGuest, modprobe } from '../../support/guest.ts'
import { countersSamplesOf, ip, linkCounts, listen, runWeir, type Scope, until } from '../../support/lab.ts'

const MEBIBYTE = 1048576n
const LOGICAL = 3
const WRITTEN = 32 * 65_536
const OUR_NAMESPACE = '/proc/self/ns/net'

test('containers and services in control groups of version 2', {
  skip: !inGuest && 'needs the virtual machine',
  timeout: 300_000,
}, async t => {
  const scope = reversed(t)
  const folder = mkdtempSync('/tmp/weir-virtual-')
  scope.after(() => rmSync(folder, { recursive: true, force: true }))
  modprobe('veth', 'loop')
  writeFileSync('/sys/fs/cgroup/cgroup.subtree_control', '+cpu +memory +io +cpuset +pids')
  writeFileSync(join(folder, 'disk'), Buffer.alloc(WRITTEN * 2))
  const disk = run('losetup', '--find', '--show', join(folder, 'disk')).trim()
  scope.after(() => void run('losetup', '--detach', disk))
  const bus = await startSystemd(scope, folder, disk)
  const podman = await startPodman(scope, folder)
  const container = podman.start('box', ['--memory', '64m', '--cpus', '1.5'])
  ip(`link add cable0 type veth peer name eth0 netns ${container.pid}`)
  const enter = [`--net=/proc/${container.pid}/ns/net`, 'ip'] as const
  run('nsenter', ...enter, 'link', 'set', 'eth0', 'up')
  ip('link set cable0 up')

  const collector = listen(scope, OUR_NAMESPACE, { address: '127.0.0.1', port: 6343 })
  const file = join(folder, 'weir.conf')
  writeFileSync(
    file,
    `sFlow {
  polling = 3
  agentIP = 192.0.2.1
  collector { ip = 127.0.0.1 }
  systemd { socket = ${bus} refreshVMs = 10 }
  docker { socket = ${podman.socket} }
}
`,
  )
  const agent = runWeir(scope, ['nice'], ['run', '-f', file])
  await agent.line(/^running$/)
  const latest = async (name: string) => {
    const look = () =>
      countersSamplesOf(collector).findLast(
        ({ value, records }) =>
          value.source_id.type === LOGICAL && findRecord(records, hostDescr)?.hostname === name,
      )
    try {
      return await until(`sample of ${name}`, look)
    } catch (error) {
      throw new Error(`${(error as Error).message}; the agent wrote:\n${agent.stderr}`)
    }
  }

  // The container: limits, memory, and the cable to us.
  const group = readFileSync(`/proc/${container.pid}/cgroup`, 'utf8').trim().replace('0::', '/sys/fs/cgroup')
  const box = await latest('box')
  assert.equal(findRecord(box.records, virtMemory)!.maxMemory, 64n * MEBIBYTE)
  const cpus = Number(run('nproc', '--all'))
  assert.equal(findRecord(box.records, virtCpu)!.nrVirtCpu, Math.min(cpus, 2))
  assert.equal(findRecord(box.records, hostAdapters)!.adapters[0]!.ifIndex, ifIndex('cable0'))
  await until('the memory of the container', async () => {
    const { memory } = findRecord((await latest('box')).records, virtMemory)!
    return memory === BigInt(readFileSync(join(group, 'memory.current'), 'utf8').trim())
  })
  await until('the traffic of the container', async () => {
    const { bytes_in, bytes_out } = findRecord((await latest('box')).records, virtNetIo)!
    const { rxBytes, txBytes } = counts('cable0')
    return bytes_in === BigInt(txBytes) && bytes_out === BigInt(rxBytes) && txBytes > 0
  })

  // The services of systemd: with accounting of disks, and without.
  const folderOf = (unit: string) => `/sys/fs/cgroup/sd/system.slice/${unit}`
  for (const unit of ['weir-a.service', 'weir-b.service']) {
    await until(`the CPU time of ${unit}`, async () => {
      const { cpuTime } = findRecord((await latest(unit)).records, virtCpu)!
      const stat = readFileSync(join(folderOf(unit), 'cpu.stat'), 'utf8')
      return cpuTime === Math.floor(Number(/^usage_usec (\d+)$/m.exec(stat)![1]) / 1000)
    })
    await until(`the memory of ${unit}`, async () => {
      const { memory } = findRecord((await latest(unit)).records, virtMemory)!
      return memory === BigInt(readFileSync(join(folderOf(unit), 'memory.current'), 'utf8').trim())
    })
  }
  const a = await until('a service that has written', async () => {
    const { records } = await latest('weir-a.service')
    return findRecord(records, virtDiskIo)!.wr_bytes >= BigInt(WRITTEN) && records
  })
  assert.equal(findRecord(a, virtMemory)!.maxMemory, 64n * MEBIBYTE)
  assert.deepEqual(findRecord(a, virtDiskIo), {
    ...{ capacity: 0n, allocation: 0n, available: 0n, rd_req: 0, rd_bytes: 0n, errs: 0xffffffff },
    ...{ wr_req: 32, wr_bytes: BigInt(WRITTEN) },
  })
  const names = new Set(
    countersSamplesOf(collector)
      .filter(({ value }) => value.source_id.type === LOGICAL)
      .map(({ records }) => findRecord(records, hostDescr)!.hostname),
  )
  // Not the one that ran and left nothing.
  assert.deepEqual([...names].sort(), ['box', 'dbus.service', 'weir-a.service', 'weir-b.service'])
  await until('a host of one container', () =>
    countersSamplesOf(collector, { type: 2, index: 1 }).some(
      ({ records }) => findRecord(records, virtNode)?.num_domains === 1,
    ),
  )
  const { exit } = await agent.stop()
  assert.equal(exit, 0)
})

function counts(device: string) {
  run('ip', 'netns', 'attach', 'weir-V-virtual', String(process.pid))
  try {
    return linkCounts('weir-V-virtual', device)
  } finally {
    run('ip', 'netns', 'del', 'weir-V-virtual')
  }
}

/**
 * Starts systemd with a bus and three services, in namespaces of processes and mounts, and in a control group of its own.
 * Gives the socket of the bus.
 */
async function startSystemd(scope: Scope, folder: string, disk: string): Promise<string> {
  const socket = join(folder, 'bus.sock')
  const units = join(folder, 'units')
  mkdirSync(units)
  const unit = (name: string, text: string) =>
    writeFileSync(join(units, name), `[Unit]\nDefaultDependencies=no\n${text}`)
  const work = 'i=0; while [ $$i -lt 20000 ]; do i=$$((i+1)); done'
  unit('weir.target', 'Wants=dbus.service weir-a.service weir-b.service weir-done.service\n')
  unit('dbus.socket', `[Socket]\nListenStream=/run/dbus/system_bus_socket\nListenStream=${socket}\n`)
  unit(
    'dbus.service',
    `Requires=dbus.socket
After=dbus.socket
[Service]
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
`,
  )
  unit(
    'weir-a.service',
    `[Service]
IOAccounting=yes
MemoryMax=64M
ExecStart=/bin/sh -c '${work}; dd if=/dev/zero of=${disk} bs=65536 count=32 oflag=direct; exec sleep 100000'
`,
  )
  unit('weir-b.service', `[Service]\nExecStart=/bin/sh -c '${work}; exec sleep 100000'\n`)
  unit('weir-done.service', '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n')
  const script = `mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/dbus &&
cp ${units}/* /run/systemd/system/ && mkdir -p /sys/fs/cgroup/sd && echo 0 >/sys/fs/cgroup/sd/cgroup.procs &&
exec env -i container=weir PATH=/usr/bin:/bin /lib/systemd/systemd --system --unit=weir.target --log-target=console`
  startDaemon(scope, folder, ['unshare', '--fork', '--kill-child', '--pid', '--mount', 'sh', '-c', script])
  await listening(socket, join(folder, 'unshare.log'))
  return socket
}
