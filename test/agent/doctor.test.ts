/** `weir doctor`: what is well, and then one thing after the other broken. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { examine } from '../support/doctor.ts'
import { ip, makeLab, startAgent, until } from '../support/lab.ts'

const ROOT = join(import.meta.dirname, '../..')

test('weir doctor: each thing that is broken is told with what mends it', async t => {
  const lab = makeLab(t)
  const { host, peer, folder } = lab
  const inside = ['ip', 'netns', 'exec', host.namespace]
  const socket = join(folder, 'control.sock')
  const args = ['--socket', socket]
  const settings = `collector { name = main ip = ${peer.mgmt0.ipv4} } pcap { dev = eth0 sampling = 100 }`
  const states = (found: readonly { state: string }[]) => found.map(({ state }) => state)

  await t.test('nothing broken, without an agent', async () => {
    const { exit, findings, of } = await examine(inside, { folder, settings, args })
    assert.equal(exit, 0)
    for (const name of [
      'configuration',
      'kernel',
      'namespace',
      'capabilities',
      'btf',
      'bpf',
      'bpf tracing',
      'tcx',
    ]) {
      assert.deepEqual(states(of(name)), ['ok'], name)
    }
    assert.match(of('collector main')[0]!.what, /there is a way/)
    assert.match(of('agent address')[0]!.what, new RegExp(`${host.eth0.ipv4} on eth0`))
    assert.match(of('namespace')[0]!.what, /a network namespace of its own/)
    const others = findings.filter(
      ({ state, name }) => state !== 'ok' && name !== 'hsflowd' && name !== 'clock source',
    )
    // What this configuration has no use for.
    assert.deepEqual([...new Set(states(others))], ['unused'])
  })

  await t.test('with an agent that runs, and in text', async s => {
    const agent = startAgent(s, lab, settings, { args: ['--control', socket] })
    await agent.line(/^running$/)
    await until('control socket', () => existsSync(socket))
    const { of } = await examine(inside, { folder, settings, args })
    assert.match(of('agent')[0]!.what, new RegExp(`^weir \\S+ runs, process ${agent.child.pid}$`))
    const file = join(folder, 'text.conf')
    writeFileSync(file, `sFlow { ${settings} psample { } }`)
    const doctor = [...inside, process.execPath, join(ROOT, 'agent/main.ts'), 'doctor', '-f', file, ...args]
    const text = await new Promise<string>(resolve => {
      execFile(doctor[0]!, doctor.slice(1), (_, out) => resolve(out))
    })
    assert.match(text, /^ok +kernel +Linux \d/m)
    assert.match(text, /^MISSING +psample +the kernel has no PSAMPLE now\n +→ modprobe psample$/m)
    assert.match(text, /^1 missing, \d+ weak$/m)
    await agent.stop()
  })

  const broken: {
    readonly name: string
    readonly under?: readonly string[]
    readonly settings?: string
    readonly exit: number
    readonly finding: string
    readonly state: string
    readonly what: RegExp
    readonly mend: RegExp
  }[] = [
    {
      name: 'a capability that BPF needs',
      under: ['setpriv', '--bounding-set=-sys_admin,-bpf', '--inh-caps=-sys_admin,-bpf'],
      exit: 0,
      finding: 'capabilities',
      state: 'weak',
      what: /^pcap: no CAP_BPF, for loading BPF programs/,
      mend: /AmbientCapabilities=CAP_BPF/,
    },
    {
      name: 'BPF that is refused for it',
      under: ['setpriv', '--bounding-set=-sys_admin,-bpf', '--inh-caps=-sys_admin,-bpf'],
      exit: 0,
      finding: 'bpf',
      state: 'weak',
      what: /EPERM.*packet sockets instead/,
      mend: /CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN/,
    },
    {
      name: 'BPF and what would take its place, both refused',
      under: ['setpriv', '--bounding-set=-sys_admin,-bpf,-net_raw', '--inh-caps=-sys_admin,-bpf,-net_raw'],
      exit: 1,
      finding: 'bpf',
      state: 'missing',
      what: /EPERM.*without CAP_NET_RAW: no packets are sampled$/,
      mend: /CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN/,
    },
    {
      name: 'a receive buffer that the system cuts',
      under: ['setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin'],
      settings: 'dropmon { source = ebpf }',
      exit: 0,
      finding: 'buffers',
      state: 'weak',
      what: /is granted of 8\.0 MiB; net\.core\.rmem_max is .*lost sooner/,
      mend: /^sysctl -w net\.core\.rmem_max=8388608$/,
    },
    {
      name: 'a collector without a route',
      settings: 'collector { name = far ip = 203.0.113.1 }',
      exit: 1,
      finding: 'collector far',
      state: 'missing',
      what: /^203\.0\.113\.1: .*ENETUNREACH/,
      mend: /^ip route get 203\.0\.113\.1;/,
    },
    {
      name: 'a collector behind a device that is gone',
      settings: `collector { name = far ip = ${peer.mgmt0.ipv4} dev = missing0 }`,
      exit: 1,
      finding: 'collector far',
      state: 'missing',
      what: /missing0: ENODEV/,
      mend: /^ip route get 198\.51\.100\.2 oif missing0;/,
    },
    {
      name: 'a name that does not resolve',
      settings: 'collector { name = far ip = no-such-host.invalid }',
      exit: 1,
      finding: 'collector far',
      state: 'missing',
      what: /^cannot resolve no-such-host\.invalid: /,
      mend: /^getent hosts no-such-host\.invalid;/,
    },
    {
      name: 'a collector on this host that does not listen',
      settings: 'collector { name = here ip = 127.0.0.1 udpport = 6399 }',
      exit: 0,
      finding: 'collector here',
      state: 'weak',
      what: /^nothing listens at port 6399 of this host$/,
      mend: /weir decode --listen 6399/,
    },
    {
      name: 'the drop monitor in a namespace that has none',
      settings: 'dropmon { source = drop_monitor }',
      exit: 1,
      finding: 'drop monitor',
      state: 'missing',
      what: /in the first network namespace only/,
      mend: /source = ebpf/,
    },
    {
      name: 'an interface that is not there',
      settings: 'pcap { dev = eth9 }',
      exit: 0,
      finding: 'configuration',
      state: 'weak',
      what: /there is no interface eth9 now/,
      mend: /^weir check -f /,
    },
    {
      name: 'a setting that there is not',
      settings: 'poling = 20',
      exit: 1,
      finding: 'configuration',
      state: 'missing',
      what: /has 1 error and is refused$/,
      mend: /^weir check -f /,
    },
  ]
  for (const { name, under = [], settings: more = '', exit, finding, state, what, mend } of broken) {
    await t.test(name, async () => {
      const found = await examine([...inside, ...under], { folder, settings: `${settings} ${more}`, args })
      const fits = found.of(finding).find(one => one.state === state && what.test(one.what))
      assert.ok(fits, JSON.stringify(found.of(finding)))
      assert.match(fits.mend!, mend)
      assert.equal(found.exit, exit, JSON.stringify(found.findings.filter(one => one.state === 'missing')))
    })
  }

  await t.test(
    'a kernel without type information, an old one, a slow clock, lock-down, hsflowd beside it',
    async () => {
      const root = join(folder, 'root')
      const write = (path: string, text: string) => {
        mkdirSync(dirname(join(root, path)), { recursive: true })
        writeFileSync(join(root, path), text)
      }
      const clock = '/sys/devices/system/clocksource/clocksource0'
      write('/proc/sys/kernel/osrelease', '4.19.0-1-amd64\n')
      write(`${clock}/current_clocksource`, 'hpet\n')
      write(`${clock}/available_clocksource`, 'tsc hpet acpi_pm \n')
      write('/proc/77/comm', 'hsflowd\n')
      write('/sys/kernel/security/lockdown', 'none integrity [confidentiality]\n')
      const { exit, of } = await examine(inside, { folder, settings, args: [...args, '--root', root] })
      assert.equal(exit, 1)
      assert.deepEqual(of('kernel'), [
        {
          name: 'kernel',
          state: 'missing',
          what: 'Linux 4.19.0-1-amd64; weir needs 5.4',
          mend: 'install a newer kernel',
        },
      ])
      assert.equal(of('clock source')[0]!.mend, `echo tsc > ${clock}/current_clocksource`)
      assert.match(of('btf')[0]!.mend!, /CONFIG_DEBUG_INFO_BTF=y/)
      assert.match(of('hsflowd')[0]!.what, /^runs, process 77: /)
      assert.equal(of('hsflowd')[0]!.mend, 'systemctl disable --now hsflowd')
      assert.match(of('bpf')[0]!.what, /locked down for confidentiality/)
    },
  )

  await t.test('a place for its files that is read-only, or full', async () => {
    const run = join(folder, 'run')
    mkdirSync(run)
    const mounted = (options: string, before = ':') => [
      ...inside,
      'unshare',
      '--mount',
      'sh',
      '-c',
      `mount -t tmpfs -o ${options} none ${run} && { ${before}; } && exec "$@"`,
      'sh',
    ]
    const there = ['--socket', join(run, 'control.sock')]
    const readOnly = await examine(mounted('ro'), { folder, settings, args: there })
    assert.match(readOnly.of(run)[0]!.what, /EROFS/)
    assert.match(readOnly.of(run)[0]!.mend!, /^mount -o remount,rw /)
    const full = await examine(mounted('size=64k', `head -c 65536 /dev/zero > ${run}/x || true`), {
      folder,
      settings,
      args: there,
    })
    assert.match(full.of(run)[0]!.what, /bytes are free/)
    assert.equal(full.exit, 0)
  })

  await t.test('no address to be known by', async () => {
    for (const device of ['eth0', 'mgmt0']) ip(`-n ${host.namespace} address flush dev ${device}`)
    ip(`-n ${host.namespace} address flush dev lo`)
    const { exit, of } = await examine(inside, { folder, settings, args })
    assert.equal(exit, 1)
    assert.equal(of('agent address')[0]!.state, 'missing')
    assert.match(of('agent address')[0]!.mend!, /^ip address add /)
  })
})
