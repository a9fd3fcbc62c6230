/** Hosts whose files are not as they should be, and containers with limits. */
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import type { ContainerLimits } from '../../agent/counters/container-limits.ts'
import { withinLimits } from '../../agent/counters/host-cpu.ts'
import { hostReaders } from '../../agent/counters/host-readers.ts'
import { FileFormatError } from '../../agent/kernel/files.ts'
import type { HostCpu, HostMemory } from '../../agent/wire/sflow/counters/host.ts'
import { UNKNOWN32 } from '../../agent/wire/struct.ts'
import { HOSTS, openHost } from './captured-host.ts'

/** A copy of a captured host with files replaced or (undefined) removed. */
function change(t: TestContext, host: string, files: Record<string, string | undefined>): string {
  const root = mkdtempSync(join(tmpdir(), 'weir-input-'))
  t.after(() => rmSync(root, { recursive: true }))
  cpSync(join(HOSTS, host), root, { recursive: true })
  for (const [path, text] of Object.entries(files)) {
    const full = join(root, path)
    mkdirSync(dirname(full), { recursive: true })
    if (text === undefined) rmSync(full, { force: true })
    else writeFileSync(full, text)
  }
  return root
}

type Outcome = { readonly value: unknown } | { readonly error: Error & { code?: string; path?: string } }

/** What each reader makes of the host. */
async function outcomes(root: string, host: string): Promise<Map<string, Outcome>> {
  const { machine, interfaces } = openHost(host)
  const askSize = async () => ({ frsize: 4096n, blocks: 1000n, bfree: 500n, bavail: 400n })
  const readers = hostReaders({ root, uuid: undefined, machine, askSize, interfaces: () => interfaces })
  const entries = readers.map(async ({ record, read }): Promise<[string, Outcome]> => {
    try {
      return [record.name, { value: await read() }]
    } catch (error) {
      return [record.name, { error: error as Error }]
    }
  })
  return new Map(await Promise.all(entries))
}

const FILES = [
  ...['proc/stat', 'proc/loadavg', 'proc/uptime', 'proc/meminfo', 'proc/vmstat', 'proc/diskstats'],
  ...['proc/self/mountinfo', 'proc/net/dev', 'proc/net/snmp', 'proc/cpuinfo'],
  ...['proc/sys/kernel/hostname', 'proc/sys/kernel/osrelease'],
]

describe('a file that is missing or cut short costs the structures that need it, and says where', () => {
  for (const host of ['linux-6.12-vm', 'linux-4.19-arm64']) {
    for (const file of FILES) {
      test(`${host}: ${file}`, async t => {
        const root = change(t, host, {})
        const full = join(root, file)
        let text: string
        try {
          text = readFileSync(full, 'latin1')
        } catch {
          return
        }
        const whole = await outcomes(root, host)
        // Whether a structure needs the file at all is found out by taking it away.
        rmSync(full)
        const without = await outcomes(root, host)
        const needs = [...whole.keys()].filter(
          name => JSON.stringify(shown(without.get(name)!)) !== JSON.stringify(shown(whole.get(name)!)),
        )
        assert.ok(needs.length > 0 || file === 'proc/cpuinfo', `nothing needs ${file}`)
        const cuts = [0, 1, ...Array.from({ length: 14 }, (_, i) => Math.floor((text.length * i) / 14))]
        for (const cut of cuts) {
          writeFileSync(full, text.slice(0, cut), 'latin1')
          for (const [name, outcome] of await outcomes(root, host)) {
            const place = `${name} with ${file} cut at ${cut}`
            if (!needs.includes(name)) {
              assert.deepEqual(shown(outcome), shown(whole.get(name)!), place)
            } else if ('error' in outcome) {
              assert.ok(outcome.error instanceof FileFormatError, `${place}: ${outcome.error.stack}`)
              assert.ok(outcome.error.message.startsWith(full), `${place}: ${outcome.error.message}`)
            }
          }
        }
      })
    }
  }
})

/** bigint is no JSON. */
function shown(outcome: Outcome): unknown {
  if ('error' in outcome) return `error ${outcome.error.code}`
  return JSON.parse(JSON.stringify(outcome.value, (_, v) => (typeof v === 'bigint' ? `${v}` : v)))
}

test('a later kernel, with names and columns of its own and in another order, says the same', () => {
  const lines = (host: string) => readFileSync(join(HOSTS, host, 'expected'), 'utf8').split('\n')
  const before = lines('linux-6.12-vm')
  const differing = lines('linux-7.0').filter(line => !before.includes(line))
  assert.deepEqual(differing, ['host_descr.os_release 7.0.3-constructed'])
})

test('the pool of huge pages belongs to all memory and not to the free', async t => {
  const pool = 'MemTotal: 1000000 kB\nMemFree: 200000 kB\nHugePages_Total: 256\nHugePages_Free: 256\n'
  const sizes = 'HugePages_Rsvd: 0\nHugepagesize: 2048 kB\nHugetlb: 524288 kB\n'
  const root = change(t, 'linux-6.12-vm', { 'proc/meminfo': pool + sizes })
  const memory = await memoryOf(root)
  assert.equal(memory.mem_total, 1_000_000n * 1024n)
  assert.equal(memory.mem_free, 200_000n * 1024n)
})

async function memoryOf(root: string): Promise<HostMemory> {
  const outcome = (await outcomes(root, 'container')).get('host_memory')!
  if ('error' in outcome) throw outcome.error
  return outcome.value as HostMemory
}

async function cpuOf(root: string): Promise<HostCpu> {
  const outcome = (await outcomes(root, 'container')).get('host_cpu')!
  if ('error' in outcome) throw outcome.error
  return outcome.value as HostCpu
}

async function cpusOf(root: string): Promise<number> {
  return (await cpuOf(root)).cpu_num
}

const MEMINFO =
  'MemTotal: 8000000 kB\nMemFree: 4000000 kB\nBuffers: 100 kB\nCached: 200 kB\nSwapTotal: 1000000 kB\nSwapFree: 900000 kB\n'
const STAT = `cpu  1 2 3 4\n${[0, 1, 2, 3, 4, 5, 6, 7].map(cpu => `cpu${cpu} 1 2 3 4\n`).join('')}`
const HOST = { 'proc/meminfo': MEMINFO, 'proc/stat': STAT }

const GROUP_2 = 'sys/fs/cgroup'
const VERSION_2 = {
  ...HOST,
  'proc/self/cgroup': '0::/\n',
  'proc/1/cgroup': '0::/\n',
  [`${GROUP_2}/memory.max`]: '536870912\n',
  [`${GROUP_2}/memory.current`]: '402653184\n',
  [`${GROUP_2}/memory.stat`]: 'anon 1000\nfile 134217728\nkernel 5\nshmem 1048576\n',
  [`${GROUP_2}/memory.swap.max`]: '104857600\n',
  [`${GROUP_2}/memory.swap.current`]: '4857600\n',
  [`${GROUP_2}/cpu.max`]: '150000 100000\n',
}

const GROUP_1 = '9:memory:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n1:name=systemd:/docker/ab12\n'
const VERSION_1 = {
  ...HOST,
  'proc/self/cgroup': GROUP_1,
  'proc/1/cgroup': GROUP_1,
  'sys/fs/cgroup/memory/memory.limit_in_bytes': '536870912\n',
  'sys/fs/cgroup/memory/memory.usage_in_bytes': '402653184\n',
  'sys/fs/cgroup/memory/memory.memsw.limit_in_bytes': '641728512\n',
  'sys/fs/cgroup/memory/memory.memsw.usage_in_bytes': '407510784\n',
  'sys/fs/cgroup/memory/memory.stat':
    'cache 1\nshmem 2\ntotal_cache 134217728\ntotal_shmem 1048576\ntotal_rss 5\n',
  'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '150000\n',
  'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
}

describe('a container has what it may use', () => {
  const limited = {
    mem_total: 512n << 20n,
    mem_free: 128n << 20n,
    mem_shared: 1n << 20n,
    mem_buffers: 0n,
    mem_cached: 128n << 20n,
    swap_total: 104_857_600n,
    swap_free: 100_000_000n,
  }
  for (const [version, files] of [
    ['version 2', VERSION_2],
    ['version 1', VERSION_1],
  ] as [string, Record<string, string>][]) {
    test(`control groups of ${version}`, async t => {
      const root = change(t, 'container', files)
      const { page_in, page_out, swap_in, swap_out, ...memory } = await memoryOf(root)
      assert.deepEqual(memory, limited)
      assert.equal(await cpusOf(root), 2)
    })
  }

  test('its processor time is that of its processes, and what it could have used besides is idle', async t => {
    for (const files of [
      {
        ...VERSION_2,
        [`${GROUP_2}/cpu.stat`]: 'usage_usec 9\nuser_usec 40000999\nsystem_usec 20000000\nnr_periods 1\n',
      },
      {
        ...VERSION_1,
        'sys/fs/cgroup/cpuacct/cpuacct.usage_user': '40000999000\n',
        'sys/fs/cgroup/cpuacct/cpuacct.usage_sys': '20000000000\n',
      },
    ]) {
      const root = change(t, 'container', { ...files, 'proc/uptime': '100.50 700.00\n' })
      const { cpu_num, cpu_user, cpu_system, cpu_idle, cpu_nice, cpu_wio, uptime } = await cpuOf(root)
      // One and a half CPUs for 100.5 s are 150.75 s.
      assert.deepEqual([cpu_num, cpu_user, cpu_system, cpu_idle], [2, 40_000, 20_000, 90_750])
      assert.deepEqual([cpu_nice, cpu_wio, uptime], [UNKNOWN32, UNKNOWN32, 100])
    }
  })

  test('idle time does not go back after a burst, and starts again from nothing', () => {
    const host = { cpu_num: 8 } as Parameters<typeof withinLimits>[0]
    const limits = (user: bigint) => ({ cpus: 1, used: { user, system: 0n } }) as ContainerLimits
    let idle = 0n
    const next = (user: bigint, upMs: number) => {
      const { times, idleMs } = withinLimits(host, limits(user), upMs, idle)
      idle = idleMs
      return times.cpu_idle
    }
    assert.equal(next(1000n, 10_000), 9000)
    assert.equal(next(4000n, 11_000), 9000)
    assert.equal(next(4500n, 20_000), 15_500)
    idle = 0n
    assert.equal(next(99_000n, 20_000), 0)
  })

  const unlimited = { mem_total: 8_000_000n * 1024n, mem_free: 4_000_000n * 1024n }
  const cases: [name: string, files: Record<string, string | undefined>, cpus: number][] = [
    ['no limits', { [`${GROUP_2}/memory.max`]: 'max\n', [`${GROUP_2}/cpu.max`]: 'max 100000\n' }, 8],
    ['a limit beyond the memory of the host', { [`${GROUP_2}/memory.max`]: '99999999999999\n' }, 2],
    ['the host, whose root has no limits', { [`${GROUP_2}/memory.max`]: undefined }, 8],
    ['a container among the processes of its host', { 'proc/1/cgroup': '0::/../../init.scope\n' }, 8],
    ['no control groups', { 'proc/self/cgroup': undefined, 'proc/1/cgroup': undefined }, 8],
  ]
  for (const [name, files, cpus] of cases) {
    test(`${name}: the figures of the host`, async t => {
      const root = change(t, 'container', { ...VERSION_2, ...files })
      const { mem_total, mem_free } = await memoryOf(root)
      assert.deepEqual({ mem_total, mem_free }, unlimited)
      assert.equal(await cpusOf(root), cpus)
    })
  }

  test('version 1 on the host: every root has files, the first process is in another group', async t => {
    const root = change(t, 'container', { ...VERSION_1, 'proc/1/cgroup': '9:memory:/init.scope\n' })
    assert.equal((await memoryOf(root)).mem_total, unlimited.mem_total)
  })

  test('less of a CPU is one; without a quota of version 1 all of them', async t => {
    assert.equal(
      await cpusOf(change(t, 'container', { ...VERSION_2, [`${GROUP_2}/cpu.max`]: '5000 100000' })),
      1,
    )
    const none = { ...VERSION_1, 'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n' }
    assert.equal(await cpusOf(change(t, 'container', none)), 8)
  })

  test('more used than allowed, as while a limit is lowered: nothing is free', async t => {
    const full = { ...VERSION_2, [`${GROUP_2}/memory.current`]: '900000000\n' }
    assert.equal((await memoryOf(change(t, 'container', full))).mem_free, 0n)
  })

  test('limits that are no numbers are named', async t => {
    const root = change(t, 'container', { ...VERSION_2, [`${GROUP_2}/memory.max`]: 'much\n' })
    await assert.rejects(memoryOf(root), {
      message: `${root}/${GROUP_2}/memory.max:1: memory.max: expected a whole number, got "much"`,
    })
    const odd = change(t, 'container', { ...VERSION_2, [`${GROUP_2}/cpu.max`]: '100000\n' })
    await assert.rejects(cpusOf(odd), {
      message: `${odd}/${GROUP_2}/cpu.max:1: expected a quota and a period, got "100000"`,
    })
  })
})
