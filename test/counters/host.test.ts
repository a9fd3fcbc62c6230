import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir, totalmem, uptime } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { hostAdaptersOf } from '../../agent/counters/host-adapters.ts'
import { machineType, readHostUuid, UNKNOWN_UUID } from '../../agent/counters/host-descr.ts'
import { hostReaders } from '../../agent/counters/host-readers.ts'
import { FileFormatError, readKernelUnits } from '../../agent/kernel/files.ts'
import {
  type HostCpu,
  type HostDescr,
  type HostDiskIo,
  type HostMemory,
  hostAdapters,
  type Mib2IcmpGroup,
  type Mib2UdpGroup,
} from '../../agent/wire/sflow/counters/host.ts'
import { countersSampleSize, writeCountersSample } from '../../agent/wire/sflow/samples.ts'
import { UNKNOWN32 } from '../../agent/wire/struct.ts'
import { Writer } from '../../agent/wire/xdr.ts'
import { port } from '../support/port.ts'
import { capturedHosts, HOSTS, openHost } from './captured-host.ts'

/** All structures of a captured host, in the order of their records. */
async function readAll(name: string, uuid?: string) {
  const { root, machine, interfaces, askSize } = openHost(name)
  const readers = hostReaders({ root, uuid, machine, askSize, interfaces: () => interfaces })
  return Promise.all(readers.map(async reader => ({ record: reader.record, value: (await reader.read())! })))
}

/** A tree for the test alone: a copy of a captured host, with files replaced or (undefined) removed. */
function makeTree(t: TestContext, changes: Record<string, string | undefined>, host?: string): string {
  const root = mkdtempSync(join(tmpdir(), 'weir-host-'))
  t.after(() => rmSync(root, { recursive: true }))
  if (host !== undefined) cpSync(join(HOSTS, host), root, { recursive: true })
  for (const [path, text] of Object.entries(changes)) {
    const full = join(root, path)
    mkdirSync(dirname(full), { recursive: true })
    if (text === undefined) rmSync(full, { force: true })
    else writeFileSync(full, text)
  }
  return root
}

function readersOf(root: string) {
  const eth0 = { ...port(2, 'eth0'), mac: undefined }
  return hostReaders({ root, uuid: undefined, interfaces: () => [eth0] })
}

describe('the structures of a captured host (UPDATE=1 rewrites what is expected)', () => {
  for (const name of capturedHosts()) {
    test(name, async () => {
      const records = await readAll(name)
      const lines = records.flatMap(({ record, value }) =>
        Object.entries(value).map(([field, content]) => `${record.name}.${field} ${shown(content)}\n`),
      )
      const path = join(HOSTS, name, 'expected')
      if (process.env.UPDATE === '1') writeFileSync(path, lines.join(''))
      assert.equal(lines.join(''), readFileSync(path, 'utf8'))

      // The same as the agent sends it.
      const input = { sequence: 1, sourceType: 2, sourceIndex: 1, records }
      const writer = new Writer(new DataView(new ArrayBuffer(2000)))
      writeCountersSample(writer, input)
      assert.equal(writer.offset, countersSampleSize(input))
    })
  }
})

function shown(content: unknown): string {
  return typeof content === 'object' ? JSON.stringify(content) : String(content)
}

test('of many adapters only the first are told, so that the sample fits into a datagram', () => {
  const adapters = Array.from({ length: 4096 }, (_, i) => ({ ...ADAPTER, ifIndex: 4096 - i }))
  const value = hostAdaptersOf(adapters)
  assert.deepEqual(
    value.adapters.map(({ ifIndex }) => ifIndex),
    Array.from({ length: 32 }, (_, i) => i + 1),
  )
  assert.equal(hostAdapters.size(value), 4 + 32 * 16)
})

const ADAPTER = {
  ifIndex: 1,
  loopback: false,
  adminUp: true,
  kind: undefined,
  mac: '02:00:00:00:00:01',
  switchId: undefined,
  linkNetnsId: undefined,
}

describe('who is an adapter', () => {
  const cases: [name: string, change: object, isAdapter: boolean][] = [
    ['a device that is up', {}, true],
    ['one that is down', { adminUp: false }, false],
    ['one without an address', { mac: undefined }, false],
    ['one with an address of zeros', { mac: '00:00:00:00:00:00' }, false],
    ['InfiniBand, whose address has 20 bytes', { mac: Array(20).fill('01').join(':') }, false],
    ['a tunnel, whose address is an IP address', { mac: 'c0:00:02:01' }, false],
    ['the port of a switch', { switchId: '0a0b' }, false],
    ['a bridge', { kind: 'bridge' }, true],
    ['a veth', { kind: 'veth' }, false],
    ['a veth to a container', { kind: 'veth', linkNetnsId: 0 }, false],
  ]
  for (const [name, change, isAdapter] of cases) {
    test(name, () => {
      const { adapters } = hostAdaptersOf([
        { ...ADAPTER, ifIndex: 9 },
        { ...ADAPTER, ...change },
      ])
      assert.equal(
        adapters.some(({ ifIndex }) => ifIndex === 1),
        isAdapter,
      )
    })
  }
})

describe('UUID of the host', () => {
  const FIRMWARE = '4C4C4544-0042-3510-8052-B4C04F565931\n'
  const MACHINE_ID = '0123456789abcdef0123456789abcdef\n'
  const OF_MACHINE_ID = '8b36d50a-cb1f-8570-98c1-8147d52eea89'
  const cases: [name: string, firmware: string | undefined, machineId: string | undefined, uuid: string][] = [
    ['the firmware has one', FIRMWARE, MACHINE_ID, '4c4c4544-0042-3510-8052-b4c04f565931'],
    ['no firmware', undefined, MACHINE_ID, OF_MACHINE_ID],
    ['zeros', '00000000-0000-0000-0000-000000000000\n', MACHINE_ID, OF_MACHINE_ID],
    ['all ones', 'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n', MACHINE_ID, OF_MACHINE_ID],
    ['the example of a firmware kit', '03000200-0400-0500-0006-000700080009\n', MACHINE_ID, OF_MACHINE_ID],
    ['words', 'Not Settable\n', MACHINE_ID, OF_MACHINE_ID],
    ['an image not yet booted', undefined, 'uninitialized\n', UNKNOWN_UUID],
    ['nothing at all', undefined, undefined, UNKNOWN_UUID],
  ]
  for (const [name, firmware, machineId, uuid] of cases) {
    test(name, async t => {
      const root = makeTree(t, { 'sys/class/dmi/id/product_uuid': firmware, 'etc/machine-id': machineId })
      assert.equal(await readHostUuid(root), uuid)
    })
  }

  test('the configured one comes first', async () => {
    const uuid = '11111111-2222-3333-4444-555555555555'
    const { value } = (await readAll('linux-6.18-storage', uuid))[0]!
    assert.equal((value as HostDescr).uuid, uuid)
  })
})

describe('machine type', () => {
  const cases: [name: string, type: number][] = [
    ['i686', 2],
    ['x86_64', 3],
    ['aarch64', 10],
    ['armv7l', 10],
    ['ppc64le', 7],
    ['mips64', 9],
    ['s390x', 12],
    ['riscv64', 1],
    ['loongarch64', 1],
  ]
  for (const [name, type] of cases) test(name, () => assert.equal(machineType(name), type))
})

describe('files that are not what they should be are named with line and field', () => {
  const cases: [name: string, change: Record<string, string | undefined>, record: string, message: string][] =
    [
      [
        'a number that is none',
        { 'proc/meminfo': 'MemTotal:       x kB\n' },
        'host_memory',
        'proc/meminfo:1: MemTotal: expected a whole number, got "x"',
      ],
      [
        'another unit',
        { 'proc/meminfo': 'MemTotal:    1024 kB\nMemFree:    12 MB\n' },
        'host_memory',
        'proc/meminfo:2: MemFree: expected a number of kB, got "MemFree:    12 MB"',
      ],
      ['an empty file', { 'proc/meminfo': '' }, 'host_memory', 'proc/meminfo: MemTotal: missing'],
      [
        'a negative event count',
        { 'proc/vmstat': 'nr_free_pages 1\npswpin -1\n' },
        'host_memory',
        'proc/vmstat:2: pswpin: expected a whole number, got "-1"',
      ],
      [
        'no page size',
        { 'proc/self/auxv': '' },
        'host_memory',
        'proc/self/auxv: expected the page size and the clock ticks (AT_PAGESZ, AT_CLKTCK)',
      ],
      [
        'a CPU time that is none',
        { 'proc/stat': 'cpu  1 2 ? 4\n' },
        'host_cpu',
        'proc/stat:1: cpu_system: expected a whole number, got "?"',
      ],
      [
        'no CPU at all',
        { 'proc/stat': 'ctxt 5\n' },
        'host_cpu',
        'proc/stat: expected a line "cpu", found none',
      ],
      [
        'loads without tasks',
        { 'proc/loadavg': '0.1 0.2 0.3\n' },
        'host_cpu',
        'proc/loadavg:1: expected three loads and running/all tasks, got "0.1 0.2 0.3"',
      ],
      [
        'an uptime that is none',
        { 'proc/uptime': 'long\n' },
        'host_cpu',
        'proc/uptime:1: expected seconds since boot, got "long"',
      ],
      [
        'a line of a disk cut short',
        { 'proc/diskstats': '   8  0 sda 1 2 3\n' },
        'host_disk_io',
        'proc/diskstats:1: sda: milliseconds reading: missing',
      ],
      [
        'a disk without a name',
        { 'proc/diskstats': '   8  0\n' },
        'host_disk_io',
        'proc/diskstats:1: expected major, minor and name, got "   8  0"',
      ],
      [
        'a mount without its second half',
        { 'proc/self/mountinfo': '27 1 254:0 / / rw shared:1\n' },
        'host_disk_io',
        'proc/self/mountinfo:1: expected the fields of a mount, got "27 1 254:0 / / rw shared:1"',
      ],
      [
        'a network device cut short',
        { 'proc/net/dev': 'Inter-|\n face |\n  eth0: 1 2 3 4 5 6 7 8 9\n' },
        'host_net_io',
        'proc/net/dev:3: eth0: packets sent: missing',
      ],
      [
        'a network device without a colon',
        { 'proc/net/dev': 'Inter-|\n face |\n  eth0 1 2\n' },
        'host_net_io',
        'proc/net/dev:3: expected a device name and a colon, got "  eth0 1 2"',
      ],
      [
        'a value for each name',
        { 'proc/net/snmp': 'Ip: Forwarding DefaultTTL\nIp: 1\n' },
        'mib2_ip_group',
        'proc/net/snmp:2: expected "Ip:" and 2 values, got "Ip:" and 1',
      ],
      [
        'values of another protocol',
        { 'proc/net/snmp': 'Ip: Forwarding\nTcp: 1\n' },
        'mib2_ip_group',
        'proc/net/snmp:2: expected "Ip:" and 1 values, got "Tcp:" and 1',
      ],
      [
        'names without values',
        { 'proc/net/snmp': 'Ip: Forwarding\n' },
        'mib2_ip_group',
        'proc/net/snmp: Ip: names without values',
      ],
      [
        'a protocol that is not there',
        { 'proc/net/snmp': 'Ip: Forwarding\nIp: 1\n' },
        'mib2_udp_group',
        'proc/net/snmp: Udp: missing',
      ],
      [
        'a value that is none',
        { 'proc/net/snmp': 'Udp: InDatagrams NoPorts\nUdp: 1 many\n' },
        'mib2_udp_group',
        'proc/net/snmp:2: NoPorts: expected a whole number, got "many"',
      ],
    ]
  for (const [name, change, record, message] of cases) {
    test(`${record}: ${name}`, async t => {
      const root = makeTree(t, change, 'linux-6.12-vm')
      const reader = readersOf(root).find(candidate => candidate.record.name === record)!
      await assert.rejects(
        async () => reader.read(),
        (error: Error) => {
          assert.ok(error instanceof FileFormatError)
          assert.equal(error.message, `${root}/${message}`)
          return true
        },
      )
    })
  }

  const others = 'Icmp: InMsgs\nIcmp: 2\nTcp: InSegs\nTcp: 3\nUdp: InDatagrams\nUdp: 4\n'
  for (const [name, ip, message] of [
    ['a value that is none', 'Ip: Forwarding\nIp: x\n', ':2: Forwarding: expected a whole number, got "x"'],
    ['a value too few', 'Ip: Forwarding\nIp:\n', ':2: expected "Ip:" and 1 values, got "Ip:" and 0'],
    ['no values', 'Ip: Forwarding\n', ':2: expected "Ip:" and 1 values, got "Icmp:" and 1'],
    ['no names', 'Ip: 1\n', ':2: expected "Ip:" and 1 values, got "Icmp:" and 1'],
    ['no protocol', 'Forwarding\n1\n', ':1: expected a protocol and a colon, got "Forwarding"'],
    ['garbage for values', 'Ip: Forwarding\n1\n', ':2: expected "Ip:" and 1 values, got "1" and 0'],
  ] as const) {
    test(`/proc/net/snmp with ${name} of one protocol: the others are read`, async t => {
      const root = makeTree(t, { 'proc/net/snmp': `${ip}${others}` }, 'linux-6.12-vm')
      const [bad, ...good] = readersOf(root).filter(({ record }) => record.name.startsWith('mib2_'))
      await assert.rejects(async () => bad!.read(), { message: `${root}/proc/net/snmp${message}` })
      const values = (await Promise.all(good.map(reader => reader.read()))) as Record<string, number>[]
      const known = values.flatMap(value => [value.icmpInMsgs, value.tcpInSegs, value.udpInDatagrams])
      assert.deepEqual(
        known.filter(one => one !== undefined),
        [2, 3, 4],
      )
    })
  }

  test('a file that is not there is the error of the system', async t => {
    const root = makeTree(t, { 'proc/meminfo': undefined }, 'linux-6.12-vm')
    const reader = readersOf(root).find(({ record }) => record.name === 'host_memory')!
    await assert.rejects(async () => reader.read(), { code: 'ENOENT', path: `${root}/proc/meminfo` })
  })

  test('what a kernel does not count yet is all ones', async t => {
    const root = makeTree(
      t,
      {
        'proc/stat': 'cpu  1 2 3 4\n',
        'proc/net/snmp': 'Icmp: InMsgs InErrors\nIcmp: 5 6\n',
      },
      'linux-6.12-vm',
    )
    const read = (name: string) =>
      readersOf(root)
        .find(({ record }) => record.name === name)!
        .read()
    const { cpu_user, cpu_idle, cpu_wio, cpu_guest, contexts } = (await read('host_cpu')) as HostCpu
    assert.deepEqual(
      [cpu_user, cpu_idle, cpu_wio, cpu_guest, contexts],
      [10, 40, ...Array(3).fill(UNKNOWN32)],
    )
    const { icmpInErrors, icmpInEchos } = (await read('mib2_icmp_group')) as Mib2IcmpGroup
    assert.deepEqual([icmpInErrors, icmpInEchos], [6, UNKNOWN32])
  })
})

describe('this host, compared with what the system says in the same instant', () => {
  const read = (name: string) =>
    readersOf('/')
      .find(({ record }) => record.name === name)!
      .read()
  const numbersOf = (file: string, name: string) => {
    const line = readFileSync(file, 'utf8')
      .split('\n')
      .find(text => text.startsWith(`${name} `))!
    return line.split(/ +/).slice(1).map(BigInt)
  }
  const assertBetween = (what: string, least: bigint, value: number, most: bigint) => {
    const isBetween = BigInt.asUintN(32, least) <= BigInt(value) && BigInt(value) <= BigInt.asUintN(32, most)
    assert.ok(isBetween, `${what}: ${value} is not between ${least} and ${most} (modulo 2^32)`)
  }

  test('host_cpu', async () => {
    const before = { times: numbersOf('/proc/stat', 'cpu'), contexts: numbersOf('/proc/stat', 'ctxt')[0]! }
    const cpu = (await read('host_cpu')) as HostCpu
    const after = { times: numbersOf('/proc/stat', 'cpu'), contexts: numbersOf('/proc/stat', 'ctxt')[0]! }
    assertBetween('user', before.times[0]! * 10n, cpu.cpu_user, after.times[0]! * 10n)
    assertBetween('system', before.times[2]! * 10n, cpu.cpu_system, after.times[2]! * 10n)
    assertBetween('idle', before.times[3]! * 10n, cpu.cpu_idle, after.times[3]! * 10n)
    assertBetween('contexts', before.contexts, cpu.contexts, after.contexts)
    assert.equal(cpu.cpu_num, cpus().length)
    assert.ok(Math.abs(cpu.uptime - uptime()) <= 1)
  })

  test('host_memory', async () => {
    const { pageBytes } = await readKernelUnits('/')
    const pages = () => (numbersOf('/proc/vmstat', 'pgpgout')[0]! * 1024n) / pageBytes
    const before = pages()
    const memory = (await read('host_memory')) as HostMemory
    assertBetween('page_out', before, memory.page_out, pages())
    assert.equal(memory.mem_total, BigInt(totalmem()))
    assert.ok(memory.mem_free > 0n && memory.mem_free < memory.mem_total)
  })

  test('host_disk_io', async () => {
    const disk = (await read('host_disk_io')) as HostDiskIo
    assert.ok(disk.disk_free <= disk.disk_total)
    assert.ok(disk.part_max_used >= -1 && disk.part_max_used <= 10_000)
  })

  test('mib2_udp_group', async () => {
    const before = (await read('mib2_udp_group')) as Mib2UdpGroup
    const socket = createSocket('udp4')
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    for (let i = 0; i < 10; i++) {
      socket.send('x', socket.address().port, '127.0.0.1')
      await once(socket, 'message')
    }
    socket.close()
    const after = (await read('mib2_udp_group')) as Mib2UdpGroup
    // Others may talk at the same time.
    assert.ok(after.udpOutDatagrams - before.udpOutDatagrams >= 10)
    assert.ok(after.udpInDatagrams - before.udpInDatagrams >= 10)
  })
})
