/**
 * The agent beside real runtimes: containers of podman (by Docker's API), pods of containerd, a virtual machine of
 * libvirt, and services with real control groups on a real message bus. What collectors get is compared with the
 * kernel's own figures.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { hostAdapters, hostDescr, hostParent } from '../../agent/wire/sflow/counters/host.ts'
import { portName } from '../../agent/wire/sflow/counters/interface.ts'
import {
  virtCpu,
  virtDiskIo,
  virtMemory,
  virtNetIo,
  virtNode,
} from '../../agent/wire/sflow/counters/virtual.ts'
import { extendedEntities } from '../../agent/wire/sflow/flow/application.ts'
import {
  inNamespace,
  isCgroup1,
  reversed,
  run,
  startContainerd,
  startLibvirt,
  startPodman,
} from '../support/containers.ts'
import {
  countersSamplesOf,
  flowSamplesOf,
  ifIndexOf,
  ip,
  ipBatch,
  linkCounts,
  listen,
  makeLab,
  runWeir,
  sendFlow,
  udpPortOf,
  until,
} from '../support/lab.ts'
import { startFakeSystemd, startUnitProcess } from '../support/systemd.ts'

const MAIN = join(import.meta.dirname, '../../agent/main.ts')
const HOST = { type: 2, index: 1 }
const LOGICAL = 3
const PORT = 6343
const UUID = '00112233-4455-6677-8899-aabbccddeeff'
const AGENT = '192.0.2.1'
const MEBIBYTE = 1048576n
/** Of pino. */
const WARN = 40

type Sample = ReturnType<typeof countersSamplesOf>[0]

test('containers, pods, virtual machines and services, as the kernel counts them', {
  timeout: 300_000,
}, async t => {
  const scope = reversed(t)
  const lab = makeLab(scope)
  const { host, peer, folder } = lab
  const podman = await startPodman(scope, folder)
  const libvirt = await startLibvirt(scope, folder, host.namespace)
  const containerd = await startContainerd(scope, folder, podman, host.namespace)
  const systemd = await startFakeSystemd(scope, folder)

  // A container that works for a while and then rests, with a cable to the host.
  const work =
    'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/file bs=64k count=32 oflag=direct; exec sleep 100000'
  const busy = podman.start(
    'busy',
    ['--memory', '64m', '--cpus', '1.5', '--hostname', 'inside', '--entrypoint', '["/bin/sh","-c"]'],
    [work],
  )
  const mac = '02:00:00:00:09:01'
  ip(`-n ${host.namespace} link add cable0 type veth peer name eth0 netns ${busy.pid}`)
  const inside = `/proc/${busy.pid}/ns/net`
  const enter = [`--net=${inside}`, 'ip'] as const
  run('nsenter', ...enter, 'link', 'set', 'eth0', 'addrgenmode', 'none', 'address', mac)
  run('nsenter', ...enter, 'link', 'set', 'eth0', 'up')
  run('nsenter', ...enter, 'address', 'add', '203.0.114.2/24', 'dev', 'eth0')
  ipBatch(host.namespace, [
    'link set cable0 addrgenmode none',
    'link set cable0 up',
    'address add 203.0.114.1/24 dev cable0',
    `neighbour replace 203.0.114.2 lladdr ${mac} dev cable0 nud permanent`,
  ])
  // Of the same namespace as the host, so without adapters and figures of its own.
  podman.start('shared', ['--network', `ns:/var/run/netns/${host.namespace}`])

  const group = `/system.slice/weir-${process.pid}.service`
  const unit = startUnitProcess(scope, group, [
    'sh',
    '-c',
    'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exec sleep 100000',
  ])
  const service = { name: `weir-${process.pid}.service`, active: 'active', sub: 'running', group }
  systemd.units = [
    service,
    { name: 'done.service', active: 'active', sub: 'exited', group: '' },
    {
      name: 'user@1000.service',
      active: 'active',
      sub: 'running',
      group: '/user.slice/user-1000.slice/user@1000.service',
    },
    { name: 'no-group.service', active: 'active', sub: 'running', group: '' },
    { name: 'stopped.service', active: 'inactive', sub: 'dead', group: '/system.slice/stopped.service' },
  ]
  const pod = await containerd.startPod({
    name: 'web-0',
    namespace: 'shop',
    uid: 'b0a5c1d2-1111-2222-3333-444455556666',
  })
  await libvirt.create('qemu:///system', domainXml(`vm${process.pid}`, join(folder, 'disk.img')))

  const collector = listen(scope, peer.namespace, { address: peer.mgmt0.ipv4, port: PORT })
  const file = join(folder, 'weir.conf')
  writeFileSync(
    file,
    `sFlow {
  polling = 1
  agentIP = ${AGENT}
  uuid = ${UUID}
  collector { ip = ${peer.mgmt0.ipv4} }
  systemd { socket = ${systemd.socket} refreshVMs = 10 }
  pcap { dev = cable0 sampling = 1 }
  docker { socket = ${podman.socket} markTraffic = on }
  containerd { socket = ${containerd.socket} }
  k8s { unixsock = ${containerd.socket} }
  kvm { socket = ${libvirt.socket} }
}
`,
  )
  const agent = runWeir(scope, inNamespace(host.namespace), ['run', '-f', file])
  await agent.line(/^running$/)

  const samplesOf = (index: number) => countersSamplesOf(collector, { type: LOGICAL, index })
  const named = async (name: string) => {
    const look = () =>
      countersSamplesOf(collector).findLast(
        sample => sample.value.source_id.type === LOGICAL && descrOf(sample)?.hostname === name,
      )
    try {
      return await until(`sample of ${name}`, look)
    } catch (error) {
      throw new Error(`${(error as Error).message}; the agent wrote:\n${agent.stderr}`)
    }
  }
  /** A sample of which what `figures` takes is what `kernel` says at the same time. */
  const equal = async <T>(name: string, figures: (sample: Sample) => T, kernel: () => T) => {
    const { index } = (await named(name)).value.source_id
    let seen: T | undefined
    let wanted: T | undefined
    const same = () => {
      const sample = samplesOf(index).at(-1)!
      seen = figures(sample)
      wanted = kernel()
      return JSON.stringify(seen, big) === JSON.stringify(wanted, big)
    }
    try {
      await until(`figures of ${name} as the kernel has them`, same, 30_000)
    } catch {
      assert.deepEqual(seen, wanted, name)
    }
  }

  // Docker: who it is.
  const first = await named('busy')
  const { index } = first.value.source_id
  const uuid = formatted(busy.id.slice(0, 32))
  assert.equal(descrOf(first)!.uuid, uuid)
  assert.equal(index, indexOf(uuid))
  assert.deepEqual(findRecord(first.records, hostParent), { container_type: 2, container_index: 1 })
  assert.deepEqual(
    first.records.map(record => ('record' in record ? record.record.name : 'unknown')),
    ['host_descr', 'host_adapters', 'virt_cpu', 'virt_memory', 'virt_disk_io', 'virt_net_io', 'host_parent'],
  )
  // The adapter is known by our end of its cable.
  const end = ifIndexOf(host.namespace, 'cable0')
  assert.deepEqual(findRecord(first.records, hostAdapters)!.adapters, [{ ifIndex: end, mac_address: [mac] }])

  // Docker: what it uses.
  await equal(
    'busy',
    sample => findRecord(sample.records, virtCpu),
    () => ({
      state: 1,
      cpuTime: Number(cpuNs(groupFolder(busy.pid, 'cpuacct')) / 1_000_000n),
      nrVirtCpu: 2,
    }),
  )
  await equal(
    'busy',
    sample => findRecord(sample.records, virtMemory),
    () => ({
      memory: number(groupFolder(busy.pid, 'memory'), isCgroup1 ? 'memory.usage_in_bytes' : 'memory.current'),
      maxMemory: 64n * MEBIBYTE,
    }),
  )
  const written = () => findRecord(samplesOf(index).at(-1)!.records, virtDiskIo)!
  await until('the file that was written', () => written().wr_bytes >= 2n * MEBIBYTE)
  assert.deepEqual([written().errs, written().capacity], [0xffffffff, 0n])
  // Version 1 counts no operations where no device has a limit (Linux 6.10); then the bytes are those of the processes.
  if (countsDisks()) assert.ok(written().wr_req >= 32)
  else assert.equal(written().wr_req, 0xffffffff)

  // In and out are the container's: what the host's end sent it has received.
  sendFlow(host.namespace, {
    from: { address: '203.0.114.1', port: 5001 },
    to: { address: '203.0.114.2', port: 9 },
    payloadBytes: 1000,
    packets: 50,
  })
  await equal(
    'busy',
    sample => findRecord(sample.records, virtNetIo)!,
    () => {
      const { rxBytes, rxPackets, txBytes, txPackets } = linkCounts(host.namespace, 'cable0')
      return {
        bytes_in: BigInt(txBytes),
        pkts_in: txPackets,
        errs_in: 0,
        drops_in: 0,
        bytes_out: BigInt(rxBytes),
        pkts_out: rxPackets,
        errs_out: 0,
        drops_out: 0,
      }
    },
  )
  const traffic = findRecord(samplesOf(index).at(-1)!.records, virtNetIo)!
  assert.ok(traffic.bytes_in >= 50_000n && traffic.bytes_in > traffic.bytes_out)

  // Sampled packets tell of the container; the host itself is none.
  const entities = (port: number) =>
    flowSamplesOf(collector)
      .filter(sample => udpPortOf(sample) === port)
      .map(({ records }) => findRecord(records, extendedEntities))
  const container9 = await until('sampled packets to the container', () => {
    const found = entities(9)
    return found.length >= 50 && found
  })
  const toContainer = { src_ds_class: 0, src_ds_index: 0, dst_ds_class: LOGICAL, dst_ds_index: index }
  assert.deepEqual(
    container9,
    container9.map(() => toContainer),
  )
  const from = { address: '203.0.114.2', port: 5002 }
  sendFlow(inside, { from, to: { address: '203.0.114.1', port: 10 }, payloadBytes: 10, packets: 5 })
  const back = await until('sampled packets of the container', () => {
    const found = entities(10)
    return found.length >= 5 && found
  })
  assert.deepEqual(back[0], { src_ds_class: LOGICAL, src_ds_index: index, dst_ds_class: 0, dst_ds_index: 0 })

  const shared = await named('shared')
  assert.equal(findRecord(shared.records, virtNetIo), undefined)
  assert.equal(findRecord(shared.records, hostAdapters), undefined)

  // A service: named by its unit, with a UUID that is made of the name.
  const served = await named(service.name)
  assert.match(descrOf(served)!.uuid, /^........-....-5...-[89ab]/)
  assert.equal(served.value.source_id.index, indexOf(descrOf(served)!.uuid))
  assert.equal(findRecord(served.records, virtNetIo), undefined)
  await equal(
    service.name,
    sample => findRecord(sample.records, virtCpu)!.cpuTime,
    () => Number(cpuNs(unit.folderOf('cpuacct')) / 1_000_000n),
  )
  await equal(
    service.name,
    sample => findRecord(sample.records, virtMemory)!.memory,
    () => number(unit.folderOf('memory'), isCgroup1 ? 'memory.usage_in_bytes' : 'memory.current'),
  )

  // A pod, once as a pod and once as its containers; its interface is called by its name.
  const podName = 'k8s__web-0_shop_u_a'
  const web = await named(podName)
  const { adapters } = findRecord(web.records, hostAdapters)!
  assert.equal(adapters.length, 1)
  const port = adapters[0]!.ifIndex
  assert.ok(port > 0)
  await until('the name of the pod at its interface', () =>
    countersSamplesOf(collector, { type: 0, index: port }).some(
      ({ records }) => findRecord(records, portName)?.name === podName,
    ),
  )
  assert.equal(descrOf(await named('k8s_main_web-0_shop'))!.uuid, formatted(pod.container.slice(0, 32)))
  assert.equal(descrOf(await named('k8s_POD_web-0_shop'))!.uuid, formatted(pod.sandbox.slice(0, 32)))
  const container = Number(
    containerd
      .command('tasks', 'ls')
      .split('\n')
      .find(line => line.startsWith(pod.container))!
      .split(/\s+/)[1],
  )
  const sandbox = Number(
    containerd
      .command('tasks', 'ls')
      .split('\n')
      .find(line => line.startsWith(pod.sandbox))!
      .split(/\s+/)[1],
  )
  await equal(
    podName,
    sample => findRecord(sample.records, virtCpu)!.cpuTime,
    () =>
      Number(
        [container, sandbox].reduce((sum, pid) => sum + cpuNs(groupFolder(pid, 'cpuacct')) / 1000n, 0n) /
          1000n,
      ),
  )
  await equal(
    podName,
    sample => findRecord(sample.records, virtMemory)!.memory,
    () =>
      [container, sandbox].reduce(
        (sum, pid) =>
          sum + number(groupFolder(pid, 'memory'), isCgroup1 ? 'memory.usage_in_bytes' : 'memory.current'),
        0n,
      ),
  )

  // A virtual machine.
  const vm = await named(`vm${process.pid}`)
  assert.equal(descrOf(vm)!.uuid, VM_UUID)
  assert.deepEqual(findRecord(vm.records, hostAdapters)!.adapters, [
    { ifIndex: ifIndexOf(host.namespace, `tap${process.pid}`), mac_address: ['52:54:00:00:00:01'] },
  ])
  const { state, nrVirtCpu, cpuTime } = findRecord(vm.records, virtCpu)!
  assert.deepEqual([state, nrVirtCpu], [1, 1])
  assert.ok(cpuTime > 0)
  assert.deepEqual(findRecord(vm.records, virtMemory), { memory: 32n * MEBIBYTE, maxMemory: 32n * MEBIBYTE })
  const disk = findRecord(vm.records, virtDiskIo)!
  assert.deepEqual([disk.capacity, disk.errs], [MEBIBYTE, 0xffffffff])
  assert.ok(disk.rd_req > 0 && disk.rd_bytes > 0n, 'the firmware has read the disk')

  // The host tells of its role: virtual machines come first.
  const node = await until('a host of a virtual machine', () => {
    const role = findRecord(countersSamplesOf(collector, HOST).at(-1)!.records, virtNode)
    return role?.num_domains === 1 && role
  })
  assert.equal(node.cpus, Number(run('nproc', '--all')))

  // What is there is also told without the agent.
  const [program, ...rest] = [...inNamespace(host.namespace), process.execPath, MAIN, 'explain', '-f', file]
  const { stdout } = await promisify(execFile)(program!, rest)
  for (const line of [
    /^systemd +1 service found$/m,
    /^docker +2 containers found$/m,
    /^containerd +2 containers found$/m,
    /^k8s +1 pod found$/m,
    /^kvm +1 virtual machine found$/m,
  ]) {
    assert.match(stdout, line)
  }

  // What changes is noticed: Docker tells, the others are asked again.
  podman.command('pause', 'busy')
  await until('a paused container', () => findRecord(samplesOf(index).at(-1)!.records, virtCpu)!.state === 3)
  podman.command('unpause', 'busy')
  await until(
    'a container that goes on',
    () => findRecord(samplesOf(index).at(-1)!.records, virtCpu)!.state === 1,
  )
  podman.command('rename', 'busy', 'renamed')
  await named('renamed')
  podman.command('rm', '-f', '-t', '0', 'renamed')
  const unitIndex = served.value.source_id.index
  systemd.units = []
  /** Whether nothing comes of a data source while the host is polled three times. */
  const isSilent = async (source: number) => {
    const count = samplesOf(source).length
    const polls = countersSamplesOf(collector, HOST).length
    await until('three more polls', () => countersSamplesOf(collector, HOST).length >= polls + 3)
    return samplesOf(source).length === count
  }
  await until('the end of a container', () => isSilent(index))
  await until('the end of a service', () => isSilent(unitIndex))

  // Another configuration touches what it changes and nothing else: the pod goes on, its containers are not told of.
  const sequenceOf = (source: number) => samplesOf(source).at(-1)!.value.sequence_number
  const podIndex = web.value.source_id.index
  const containerIndex = (await named('k8s_main_web-0_shop')).value.source_id.index
  const sequence = sequenceOf(podIndex)
  const lines = readFileSync(file, 'utf8').split('\n')
  writeFileSync(file, lines.filter(line => !line.includes('containerd { ')).join('\n'))
  agent.child.kill('SIGHUP')
  await until('no containers of containerd', () => isSilent(containerIndex))
  assert.ok(sequenceOf(podIndex) > sequence)
  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  // What was sent was as it should be.
  const wrong = ['counters/invalid', 'counters/too-long', 'virtual/same-uuid']
  assert.deepEqual(
    Object.entries(status.lost).filter(([name]) => wrong.includes(name)),
    [],
  )
  // And nothing was unreadable. A busy machine may be slow, and what ends may do so while it is read.
  const ended = [index, unitIndex, containerIndex]
  const unreadable = agent.stderr
    .split('\n')
    .filter(line => line.startsWith('{'))
    .map(line => JSON.parse(line) as { level: number; part?: string; source?: number; msg: string })
    .filter(({ level, part, source }) => level >= WARN && part === 'counters' && !ended.includes(source ?? 0))
    .filter(({ msg }) => !msg.includes('no answer within'))
  assert.deepEqual(unreadable, [])
})

function descrOf(sample: Sample) {
  return findRecord(sample.records, hostDescr)
}

function formatted(hex: string): string {
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** FNV-1a over the bytes of the UUID, modulo 50,000. */
function indexOf(uuid: string): number {
  let hash = 2166136261n
  for (const byte of Buffer.from(uuid.replaceAll('-', ''), 'hex')) {
    hash = ((hash ^ BigInt(byte)) * 16777619n) % 2n ** 32n
  }
  return 100_000 + Number(hash % 50_000n)
}

function big(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}

function number(folder: string, file: string): bigint {
  return BigInt(readFileSync(join(folder, file), 'utf8').trim())
}

function countsDisks(): boolean {
  if (!isCgroup1) return true
  return /^\d+:\d+ /m.test(
    readFileSync('/sys/fs/cgroup/blkio/blkio.throttle.io_service_bytes_recursive', 'utf8'),
  )
}

/** Folder of the control group of a process. */
function groupFolder(pid: number, controller: string): string {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n')
  const line = lines.find(one => (isCgroup1 ? one.split(':')[1] === controller : one.startsWith('0::')))!
  return join('/sys/fs/cgroup', isCgroup1 ? controller : '', line.split(':')[2]!)
}

/** CPU time of a group in nanoseconds. */
function cpuNs(folder: string): bigint {
  if (isCgroup1) return number(folder, 'cpuacct.usage')
  return BigInt(/^usage_usec (\d+)$/m.exec(readFileSync(join(folder, 'cpu.stat'), 'utf8'))![1]!) * 1000n
}

const VM_UUID = 'c0ffee00-1234-4321-8888-00000000beef'

/** A machine that finds nothing to boot on its disk, and waits. */
function domainXml(name: string, disk: string): string {
  writeFileSync(disk, Buffer.alloc(Number(MEBIBYTE)))
  return `<domain type='qemu'><name>${name}</name><uuid>${VM_UUID}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file'><driver name='qemu' type='raw'/><source file='${disk}'/><target dev='hda' bus='ide'/></disk>
<interface type='ethernet'><mac address='52:54:00:00:00:01'/><target dev='tap${process.pid}'/></interface></devices></domain>`
}
