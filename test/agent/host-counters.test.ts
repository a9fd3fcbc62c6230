/**
 * The structures of a host as a collector gets them, and at the same time the figures of the kernel by other programs:
 * nstat, free, df, ip. Each sample is between what they show before and what they show behind it.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { availableParallelism, hostname, release } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import * as host from '../../agent/wire/sflow/counters/host.ts'
import { nvidiaGpu } from '../../agent/wire/sflow/counters/vendor.ts'
import { queueDisciplines } from '../../agent/wire/sflow/counters/weir.ts'
import type { CounterRecord } from '../../agent/wire/sflow/record.ts'
import type { ValueOf } from '../../agent/wire/struct.ts'
import { countersSamplesOf, listen, makeLab, startAgent, until } from '../support/lab.ts'

const FAKE_NVML = join(import.meta.dirname, '../support/fake-nvml.c')

/** Field of the structure, and the kernel's name as nstat writes it. */
const SNMP: [record: CounterRecord, prefix: string, names: Record<string, string>][] = [
  [
    host.mib2IpGroup,
    'Ip',
    {
      ipInReceives: 'InReceives',
      ipInAddrErrors: 'InAddrErrors',
      ipForwDatagrams: 'ForwDatagrams',
      ipInDelivers: 'InDelivers',
      ipOutRequests: 'OutRequests',
      ipOutNoRoutes: 'OutNoRoutes',
      ipFragOKs: 'FragOKs',
      ipFragCreates: 'FragCreates',
    },
  ],
  [
    host.mib2IcmpGroup,
    'Icmp',
    {
      icmpInMsgs: 'InMsgs',
      icmpInErrors: 'InErrors',
      icmpInDestUnreachs: 'InDestUnreachs',
      icmpInEchos: 'InEchos',
      icmpInEchoReps: 'InEchoReps',
      icmpOutMsgs: 'OutMsgs',
      icmpOutDestUnreachs: 'OutDestUnreachs',
      icmpOutEchos: 'OutEchos',
      icmpOutEchoReps: 'OutEchoReps',
      icmpOutTimestampReps: 'OutTimestampReps',
      icmpOutAddrMaskReps: 'OutAddrMaskReps',
    },
  ],
  [
    host.mib2TcpGroup,
    'Tcp',
    {
      tcpActiveOpens: 'ActiveOpens',
      tcpPassiveOpens: 'PassiveOpens',
      tcpAttemptFails: 'AttemptFails',
      tcpInSegs: 'InSegs',
      tcpOutSegs: 'OutSegs',
      tcpOutRsts: 'OutRsts',
      tcpInCsumErrors: 'InCsumErrors',
    },
  ],
  [
    host.mib2UdpGroup,
    'Udp',
    {
      udpInDatagrams: 'InDatagrams',
      udpNoPorts: 'NoPorts',
      udpInErrors: 'InErrors',
      udpOutDatagrams: 'OutDatagrams',
      udpRcvbufErrors: 'RcvbufErrors',
    },
  ],
]

/** What the traffic below must have raised: a test of zeros would test nothing. */
const RAISED = [
  ...['ipInReceives', 'ipFragOKs', 'ipFragCreates', 'icmpInMsgs', 'icmpInEchos', 'icmpOutEchoReps'],
  ...['icmpOutDestUnreachs', 'icmpOutEchos', 'icmpInEchoReps', 'tcpAttemptFails', 'tcpOutRsts', 'udpNoPorts'],
]

test('the host as a collector gets it, beside the figures of the kernel', async t => {
  const lab = makeLab(t)
  const { namespace } = lab.host
  const run = (where: string, ...command: string[]) =>
    execFileSync('ip', ['netns', 'exec', where, ...command], { encoding: 'utf8' })
  const shell = (where: string, text: string) => run(where, 'sh', '-c', text)
  const libraries = join(lab.folder, 'lib')
  mkdirSync(libraries)
  execFileSync('cc', ['-shared', '-fPIC', '-o', join(libraries, 'libnvidia-ml.so.1'), FAKE_NVML])

  const there = lab.peer.eth0.ipv4
  const here = lab.host.eth0.ipv4
  // Echo in both directions, too large for one packet; a closed port of each protocol in both directions.
  shell(namespace, `ping -q -c 3 -i 0.01 -s 4000 ${there}`)
  shell(lab.peer.namespace, `ping -q -c 5 -i 0.01 ${here}`)
  const closed = (address: string) =>
    `for i in 1 2 3; do bash -c 'echo x >/dev/udp/${address}/9; exec 3<>/dev/tcp/${address}/9' 2>/dev/null; done; true`
  shell(namespace, closed(there))
  shell(lab.peer.namespace, closed(here))
  run(namespace, 'tc', 'qdisc', 'replace', 'dev', 'eth0', 'root', 'handle', '5:', 'pfifo', 'limit', '100')

  const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: 6343 })
  const agent = startAgent(
    t,
    lab,
    `polling = 1
    collector { ip = ${lab.peer.mgmt0.ipv4} }
    nvml { }
    counters { queues = on }`,
    { under: ['env', `LD_LIBRARY_PATH=${libraries}`] },
  )
  await agent.line(/^running$/)
  const samples = () => countersSamplesOf(collector, { type: 2, index: 1 })

  const snmp = () => {
    // All counters since boot, those that are zero too, and without a history file.
    const { kernel } = JSON.parse(run(namespace, 'nstat', '-asz', '--json')) as {
      kernel: Record<string, number>
    }
    return kernel
  }
  const memory = () => {
    const [, total, , free, shared] = /^Mem: +(\d+) +(\d+) +(\d+) +(\d+)/m.exec(
      execFileSync('free', ['-b'], { encoding: 'utf8' }),
    )!
    return { total: BigInt(total!), free: BigInt(free!), shared: BigInt(shared!) }
  }
  const link = () => {
    const all = JSON.parse(run(namespace, 'ip', '-s', '-j', 'link', 'show')) as {
      ifname: string
      stats64: Record<'rx' | 'tx', Record<'bytes' | 'packets' | 'dropped', number>>
    }[]
    const sum = (way: 'rx' | 'tx', what: 'bytes' | 'packets') =>
      all.filter(({ ifname }) => ifname !== 'lo').reduce((total, one) => total + one.stats64[way][what], 0)
    return { in: sum('rx', 'packets'), bytesIn: sum('rx', 'bytes'), out: sum('tx', 'packets') }
  }
  const ticks = () =>
    readFileSync('/proc/stat', 'utf8')
      .split('\n', 1)[0]!
      .split(/ +/)
      .slice(1)
      .map(word => Number(word) * 10)
  const uptime = () => Number(readFileSync('/proc/uptime', 'utf8').split('.')[0])

  const before = { snmp: snmp(), link: link(), uptime: uptime(), ticks: ticks() }
  // One may be under way; the next was read behind all this.
  const count = samples().length
  const { records } = await until('two samples', () => samples()[count + 1])
  const after = { snmp: snmp(), link: link(), uptime: uptime(), ticks: ticks() }
  const of = <R extends CounterRecord>(record: R): ValueOf<R> => {
    const value = findRecord(records, record)
    assert.ok(value, `no ${record.name}`)
    return value
  }
  const between = (name: string, low: number, value: number, high: number) =>
    assert.ok(low <= value && value <= high, `${name}: ${value} is not from ${low} to ${high}`)

  for (const [record, prefix, names] of SNMP) {
    const value = of(record) as Record<string, number>
    for (const [field, name] of Object.entries(names)) {
      const kernel = prefix + name
      assert.ok(kernel in before.snmp, `nstat shows no ${kernel}`)
      between(field, before.snmp[kernel]!, value[field]!, after.snmp[kernel]!)
      if (RAISED.includes(field)) assert.ok(value[field]! > 0, `${field} is 0`)
    }
  }
  const ip = of(host.mib2IpGroup)
  assert.equal(ip.ipForwarding, 2)
  assert.equal(ip.ipDefaultTTL, Number(run(namespace, 'sysctl', '-n', 'net.ipv4.ip_default_ttl')))

  // In a namespace with nothing but veths that lead out, these are its adapters and its traffic.
  const net = of(host.hostNetIo)
  between('packets received', before.link.in, net.pkts_in, after.link.in)
  between('bytes received', before.link.bytesIn, Number(net.bytes_in), after.link.bytesIn)
  between('packets sent', before.link.out, net.pkts_out, after.link.out)
  assert.deepEqual(of(host.hostAdapters).adapters, [
    { ifIndex: lab.host.eth0.ifIndex, mac_address: [lab.host.eth0.mac] },
    { ifIndex: lab.host.mgmt0.ifIndex, mac_address: [lab.host.mgmt0.mac] },
  ])

  const descr = of(host.hostDescr)
  assert.deepEqual([descr.hostname, descr.os_release, descr.os_name], [hostname(), release(), 2])

  const cpu = of(host.hostCpu)
  assert.equal(cpu.cpu_num, availableParallelism())
  between('uptime', before.uptime, cpu.uptime, after.uptime)
  // USER_HZ is 100: a tick is 10 ms.
  const [user, nice, system, idle] = [0, 1, 2, 3].map(column => [
    before.ticks[column]! % 2 ** 32,
    after.ticks[column]! % 2 ** 32,
  ]) as [number[], number[], number[], number[]]
  for (const [name, value, [low, high]] of [
    ['cpu_user', cpu.cpu_user, user],
    ['cpu_nice', cpu.cpu_nice, nice],
    ['cpu_system', cpu.cpu_system, system],
    ['cpu_idle', cpu.cpu_idle, idle],
  ] as [string, number, number[]][]) {
    between(name, low!, value, high!)
  }

  const ram = of(host.hostMemory)
  assert.equal(ram.mem_total, memory().total)
  between('free memory', 0, Number(ram.mem_free), Number(ram.mem_total))
  // The size of what is mounted from a disk, as df has it: at least the root, where that is a disk.
  const disk = of(host.hostDiskIo)
  const df = execFileSync('df', ['-B1', '--local', '--output=source,size'], { encoding: 'utf8' })
  const disks = new Map(
    [...df.matchAll(/^(\/dev\/\S+) +(\d+)$/gm)].map(([, source, size]) => [source!, BigInt(size!)]),
  )
  const total = [...disks.values()].reduce((sum, size) => sum + size, 0n)
  assert.ok(disk.disk_total <= total, `${disk.disk_total} of ${total}`)
  if (disks.has('/dev/root') || disks.size > 0) assert.ok(disk.disk_total > 0n, df)
  assert.ok(disk.part_max_used >= -1 && disk.part_max_used <= 10_000)

  const gpu = of(nvidiaGpu)
  assert.deepEqual([gpu.device_count, gpu.processes, gpu.temperature, gpu.fan_speed], [2, 3, 74, 42])
  assert.equal(gpu.ecc_errors, 7)

  const [shown] = JSON.parse(run(namespace, 'tc', '-s', '-j', 'qdisc', 'show', 'dev', 'eth0')) as {
    kind: string
    packets: number
  }[]
  const ofEth0 = () => countersSamplesOf(collector, { type: 0, index: lab.host.eth0.ifIndex }).at(-1)
  const eth0 = await until('sample of eth0', ofEth0)
  const [queue] = findRecord(eth0.records, queueDisciplines)!.queues
  assert.deepEqual([queue!.handle, queue!.kind, shown!.kind], [0x50000, 'pfifo', 'pfifo'])
  assert.ok(queue!.packets <= BigInt(shown!.packets))

  agent.child.kill('SIGTERM')
  assert.equal(await agent.ended, 0)
})
