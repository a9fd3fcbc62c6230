/** Readers of control groups: trees of both versions as kernels make them, and what no kernel should write. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { GroupFiles } from '../../agent/counters/control-group.ts'
import { ProcessSums } from '../../agent/counters/process-sums.ts'
import { countCpus, virtCpuReader } from '../../agent/counters/virt-cpu.ts'
import {
  parseDeviceMajors,
  parseIoStat,
  sumOfLayers,
  virtDiskIoReader,
} from '../../agent/counters/virt-disk-io.ts'
import { virtMemoryReader } from '../../agent/counters/virt-memory.ts'
import { Cgroups, groupInAll, parseCgroupMounts, parseProcessGroups } from '../../agent/kernel/cgroup.ts'
import { FileFormatError } from '../../agent/kernel/files.ts'
import { UNKNOWN32, UNKNOWN64 } from '../../agent/wire/struct.ts'

const UNITS = { pageBytes: 4096n, ticksPerSecond: 100n }
const V2 = '30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n'
/** As systemd mounts version 1, with the hierarchy of version 2 beside it (hybrid). */
const V1 = `31 20 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 20 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 20 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 20 0:30 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
35 20 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
36 20 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`

function makeTree(t: TestContext, files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'weir-group-'))
  t.after(() => rmSync(root, { recursive: true }))
  for (const [path, text] of Object.entries(files)) {
    const full = join(root, path)
    mkdirSync(dirname(full), { recursive: true })
    writeFileSync(full, text)
  }
  return root
}

/** What the three readers give of groups in a tree. */
async function readAll(
  t: TestContext,
  mounts: string,
  files: Readonly<Record<string, string>>,
  paths = ['/a.slice/x'],
) {
  const root = makeTree(t, { 'proc/self/mountinfo': mounts, ...files })
  const group = new GroupFiles({
    root,
    cgroups: () => Cgroups.read(root),
    units: async () => UNITS,
    memory: async () => 1_024_000n,
    majors: async () => ({ stacked: new Set(), memory: new Set() }),
    entity: () => ({ groups: paths.map(groupInAll), state: 1 }),
  })
  const [cpu, memory, disk] = await Promise.all([
    virtCpuReader(group).read(),
    virtMemoryReader(group).read(),
    virtDiskIoReader(group).read(),
  ])
  return { cpu, memory, disk }
}

/** Files of one folder. */
function inFolder(folder: string, files: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(files).map(([name, text]) => [`${folder}/${name}`, text]))
}

const X2 = 'sys/fs/cgroup/a.slice/x'
const IO = '8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n'

describe('version 2', () => {
  test('a group with all controllers', async t => {
    const files = inFolder(X2, {
      'cpu.stat': 'usage_usec 5000123\nuser_usec 4\nsystem_usec 5\ncore_sched.force_idle_usec 0\n',
      'cpu.max': '150000 100000\n',
      'cpuset.cpus.effective': '0-3,8\n',
      'memory.current': '40960\n',
      'memory.max': 'max\n',
      'io.stat': IO,
    })
    assert.deepEqual(await readAll(t, V2, files), {
      cpu: { state: 1, cpuTime: 5000, nrVirtCpu: 2 },
      memory: { memory: 40960n, maxMemory: 1_024_000n },
      disk: { ...NO_SIZE, rd_req: 1, rd_bytes: 4096n, wr_req: 2, wr_bytes: 8192n },
    })
  })

  test('the least limit of all groups around it holds; the machine is the last', async t => {
    const around = {
      ...inFolder(X2, { 'memory.current': '1\n', 'memory.max': '900000\n' }),
      'sys/fs/cgroup/a.slice/memory.max': '500000\n',
    }
    assert.equal((await readAll(t, V2, around)).memory!.maxMemory, 500_000n)
    const huge = inFolder(X2, { 'memory.current': '1\n', 'memory.max': '9000000000\n' })
    assert.equal((await readAll(t, V2, huge)).memory!.maxMemory, 1_024_000n)
  })

  test('several groups are added up', async t => {
    const one = {
      'cpu.stat': 'usage_usec 1999\n',
      'memory.current': '10\n',
      'memory.max': '100\n',
      'io.stat': IO,
    }
    const files = { ...inFolder('sys/fs/cgroup/p/a', one), ...inFolder('sys/fs/cgroup/p/b', one) }
    const { cpu, memory, disk } = await readAll(t, V2, files, ['/p/a', '/p/b', '/p/gone'])
    assert.equal(cpu!.cpuTime, 3)
    assert.deepEqual(memory, { memory: 20n, maxMemory: 200n })
    assert.equal(disk!.wr_bytes, 16_384n)
  })

  test('a group without controllers: what its processes come to', async t => {
    const files = {
      [`${X2}/cgroup.procs`]: '7\n8\n',
      'proc/7/stat': stat(7, '(a b) c', [100, 50, 10, 5], 3),
      'proc/7/io': 'rchar: 999\nwchar: 999\nread_bytes: 4096\nwrite_bytes: 512\ncancelled_write_bytes: 0\n',
      'proc/8/stat': stat(8, 'x', [1, 0, 0, 0], 1),
    }
    assert.deepEqual(await readAll(t, V2, files), {
      cpu: { state: 1, cpuTime: 1660, nrVirtCpu: 0 },
      memory: { memory: 4n * 4096n, maxMemory: 1_024_000n },
      disk: { ...NO_SIZE, rd_req: UNKNOWN32, rd_bytes: 4096n, wr_req: UNKNOWN32, wr_bytes: 512n },
    })
  })

  test('a group that is gone', async t => {
    assert.deepEqual(await readAll(t, V2, {}), {
      cpu: { state: 1, cpuTime: UNKNOWN32, nrVirtCpu: 0 },
      memory: undefined,
      disk: { ...NO_SIZE, rd_req: UNKNOWN32, rd_bytes: UNKNOWN64, wr_req: UNKNOWN32, wr_bytes: UNKNOWN64 },
    })
  })

  for (const [name, file, text, message] of [
    [
      'CPU time that is no number',
      'cpu.stat',
      'usage_usec -5\n',
      /cpu.stat:1: usage_usec: expected a whole number/,
    ],
    ['CPU time that is missing', 'cpu.stat', 'user_usec 5\n', /cpu.stat: usage_usec: missing/],
    [
      'memory that is cut off',
      'memory.current',
      '',
      /memory.current:1: memory.current: expected a whole number/,
    ],
    [
      'a limit that is nonsense',
      'memory.max',
      'lots\n',
      /memory.max:1: memory.max: expected a whole number, got "lots"/,
    ],
    [
      'transfers that are nonsense',
      'io.stat',
      '8:0 rbytes=x\n',
      /io.stat:1: 8:0 rbytes: expected a whole number/,
    ],
  ] as const) {
    test(name, async t => {
      const good = {
        'cpu.stat': 'usage_usec 1\n',
        'memory.current': '1\n',
        'memory.max': 'max\n',
        'io.stat': IO,
      }
      await assert.rejects(
        readAll(t, V2, inFolder(X2, { ...good, [file]: text })),
        (error: Error) => error instanceof FileFormatError && message.test(error.message),
      )
    })
  }
})

const NO_SIZE = { capacity: 0n, allocation: 0n, available: 0n, errs: UNKNOWN32 }

describe('version 1', () => {
  const folder = (controller: string) => `sys/fs/cgroup/${controller}/a.slice/x`
  const memory = inFolder(folder('memory'), {
    'memory.usage_in_bytes': '8192\n',
    'memory.stat': 'cache 1\nrss 2\nhierarchical_memory_limit 700000\n',
  })
  const cpu = inFolder(folder('cpu,cpuacct'), {
    'cpuacct.usage': '5000999999\n',
    'cpu.cfs_quota_us': '-1\n',
    'cpu.cfs_period_us': '100000\n',
  })

  test('a group with all controllers', async t => {
    const files = {
      ...cpu,
      ...memory,
      ...inFolder(folder('cpuset'), { 'cpuset.effective_cpus': '1\n' }),
      ...inFolder(folder('blkio'), {
        'blkio.throttle.io_service_bytes_recursive':
          '8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 5\nTotal 35\n',
        'blkio.throttle.io_serviced_recursive':
          '8:0 Read 1\n8:0 Write 2\n8:0 Total 3\n8:16 Read 4\nTotal 7\n',
      }),
    }
    assert.deepEqual(await readAll(t, V1, files), {
      cpu: { state: 1, cpuTime: 5000, nrVirtCpu: 1 },
      memory: { memory: 8192n, maxMemory: 700_000n },
      disk: { ...NO_SIZE, rd_req: 5, rd_bytes: 15n, wr_req: 2, wr_bytes: 20n },
    })
  })

  test('a kernel that does not count disks, and one on which nothing was transferred', async t => {
    const nothing = {
      'blkio.throttle.io_service_bytes_recursive': 'Total 0\n',
      'blkio.throttle.io_serviced_recursive': 'Total 0\n',
    }
    const some = {
      'blkio.throttle.io_service_bytes_recursive': '8:0 Read 10\nTotal 10\n',
      'blkio.throttle.io_serviced_recursive': '8:0 Read 1\nTotal 1\n',
    }
    const group = { ...cpu, ...memory, ...inFolder(folder('blkio'), nothing) }
    const without = await readAll(t, V1, { ...group, ...inFolder('sys/fs/cgroup/blkio', nothing) })
    assert.equal(without.disk!.rd_bytes, UNKNOWN64)
    const counting = await readAll(t, V1, { ...group, ...inFolder('sys/fs/cgroup/blkio', some) })
    assert.equal(counting.disk!.rd_bytes, 0n)
  })
})

describe('where groups are', () => {
  const mounts = (text: string) => new Cgroups(parseCgroupMounts({ path: 'mountinfo', text }))

  test('by the hierarchy of the controller, else by version 2', () => {
    const group = parseProcessGroups({
      path: 'cgroup',
      text: '12:cpu,cpuacct:/docker/x\n3:memory:/docker/m\n1:name=systemd:/docker/s\n0::/two\n',
    })
    const v1 = mounts(V1)
    assert.equal(v1.folder(group, 'cpuacct')!.path, '/sys/fs/cgroup/cpu,cpuacct/docker/x')
    assert.equal(v1.folder(group, 'memory')!.path, '/sys/fs/cgroup/memory/docker/m')
    assert.equal(v1.folder(group, 'name=systemd')!.path, '/sys/fs/cgroup/systemd/docker/s')
    assert.equal(v1.folder(group, 'cpuset'), undefined)
    assert.equal(mounts(V2).folder(group, 'memory')!.path, '/sys/fs/cgroup/two')
    assert.equal(mounts('').folder(group, 'memory'), undefined)
  })

  test('of a hierarchy that is mounted from below its top, as in a container', () => {
    const inside = mounts('30 20 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n')
    const at = (path: string) => inside.folder(groupInAll(path), 'memory')?.path
    assert.equal(at('/docker/x'), '/sys/fs/cgroup')
    assert.equal(at('/docker/x/y'), '/sys/fs/cgroup/y')
    assert.equal(at('/docker/xy'), undefined)
    assert.equal(at('/system.slice/a.service'), undefined)
  })

  test('never above their hierarchy', () => {
    assert.equal(mounts(V2).folder(groupInAll('/../../../etc'), 'memory'), undefined)
    assert.equal(mounts(V2).folder(groupInAll('/'), 'memory')!.path, '/sys/fs/cgroup')
  })

  test('lines that are nonsense', () => {
    assert.throws(
      () => parseProcessGroups({ path: 'cgroup', text: 'x\n' }),
      /cgroup:1: expected number:controllers:path/,
    )
    assert.deepEqual(parseCgroupMounts({ path: 'm', text: 'garbage\n1 2 3\n\n' }), [])
  })
})

test('lists of CPUs', () => {
  for (const [list, count] of [
    ['0-3,8\n', 5],
    ['0', 1],
    ['\n', undefined],
    [undefined, undefined],
  ] as const) {
    assert.equal(countCpus(list), count)
  }
})

test('a transfer counts once, however many devices stand on each other', () => {
  const majors = parseDeviceMajors({
    path: 'devices',
    text: 'Character devices:\n  1 mem\n\nBlock devices:\n  7 loop\n  8 sd\n  9 md\n253 device-mapper\n254 zram\n',
  })
  const bytesOf = (text: string) => sumOfLayers(parseIoStat({ path: 'io.stat', text }), majors).writtenBytes
  assert.equal(bytesOf('8:0 wbytes=10\n253:0 wbytes=10\n'), 10n)
  assert.equal(bytesOf('8:0 wbytes=10\n8:16 wbytes=5\n'), 15n)
  // Two file systems, one of them on device mapper.
  assert.equal(bytesOf('8:0 wbytes=30\n253:0 wbytes=10\n'), 30n)
  // A stack that does its work in a group of its own.
  assert.equal(bytesOf('253:0 wbytes=10\n253:1 wbytes=1\n'), 11n)
  assert.equal(bytesOf('254:0 wbytes=99\n8:0 \n8:16\n'), 0n)
})

test('sums of processes do not go back when one ends', async t => {
  const root = makeTree(t, {
    'proc/1/stat': stat(1, 'a', [100, 0, 0, 0], 1),
    'proc/2/stat': stat(2, 'b', [50, 0, 0, 0], 1),
  })
  const sums = new ProcessSums(root, async () => UNITS)
  assert.equal((await sums.usage([1, 2]))!.cpuMs, 1500n)
  assert.equal((await sums.usage([1]))!.cpuMs, 1500n)
  writeFileSync(join(root, 'proc/1/stat'), stat(1, 'a', [110, 0, 0, 0], 1))
  assert.equal((await sums.usage([1]))!.cpuMs, 1600n)
  assert.equal(await sums.usage([]), undefined)
  assert.equal(await sums.usage(Array.from({ length: 1001 }, (_, i) => i)), undefined)
})

/** /proc/PID/stat with a name, the four times, and the pages in memory. */
function stat(pid: number, name: string, times: readonly number[], pages: number): string {
  const before = Array.from({ length: 10 }, () => 0)
  return `${pid} (${name}) S ${before.join(' ')} ${times.join(' ')} 20 0 1 0 12345 1000 ${pages} 0\n`
}
