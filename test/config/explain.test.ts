import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Explanation, effectsOf, explain, formatExplanation } from '../../agent/command/explain.ts'
import { formatDifference } from '../../agent/config/differences.ts'
import { loadConfig } from '../../agent/config/load.ts'
import { port } from '../support/port.ts'

function configOf(settings: string) {
  const { config, problems } = loadConfig(
    `sFlow {\ncollector { ip = 192.0.2.1 }\n${settings}\n}`,
    'test.conf',
  )
  assert.ok(config, JSON.stringify(problems))
  return config
}

const ports = new Map(
  [
    port(1, 'lo', { loopback: true, speedBitsPerSecond: 0 }),
    port(2, 'swp1'),
    port(3, 'swp2', { adminUp: false }),
    port(4, 'eth0', { speedBitsPerSecond: 0 }),
  ].map(one => [one.ifIndex, one]),
)

/** Per interface and sampler, `tc 10000 both` or `tc 0`. */
function samplers(settings: string): Record<string, string[]> {
  const { interfaces } = explain(configOf(settings), ports, [], 'a switch')
  return Object.fromEntries(
    interfaces.map(({ name, sampling }) => [
      name,
      sampling.map(({ source, rate, direction }) => `${source} ${rate}${rate === 0 ? '' : ` ${direction}`}`),
    ]),
  )
}

test('explain: nothing samples', () => {
  assert.deepEqual(samplers(''), { lo: [], swp1: [], swp2: [], eth0: [] })
})

test('explain: tc samplers, in one direction and in both', () => {
  assert.deepEqual(samplers('psample { } dent { }'), {
    lo: ['tc 0'],
    swp1: ['tc 10000 ingress'],
    swp2: ['tc 0'],
    eth0: ['tc 0'],
  })
  assert.deepEqual(samplers('psample { egress = on } dent { }').swp1, ['tc 10000 both'])
  assert.deepEqual(samplers('psample { ingress = off egress = on } dent { }').swp1, ['tc 10000 egress'])
})

test('explain: tc samplers that nobody listens to', () => {
  assert.deepEqual(samplers('dent { }').swp1, ['tc 0'])
  assert.deepEqual(samplers('psample { ingress = off } dent { }').swp1, ['tc 0'])
})

test('explain: pcap blocks, beside tc', () => {
  assert.deepEqual(
    samplers('sampling = 99\npsample { } dent { } pcap { dev.pattern = ^eth } pcap { dev = swp2 }'),
    {
      lo: ['tc 0', 'pcap 0'],
      swp1: ['tc 10000 ingress', 'pcap 0'],
      swp2: ['tc 0', 'pcap 0'],
      eth0: ['tc 0', 'pcap 99 both'],
    },
  )
})

test('explain: the text says what and why', () => {
  const config = configOf('sampling.10G = 1000\npolling = 20\nagent = eth0\npsample { } dent { }')
  const addresses = [
    { address: '10.0.0.1', ifIndex: 4, interfaceName: 'eth0' },
    { address: '203.0.113.1', ifIndex: 2, interfaceName: 'swp1' },
  ].map(one => ({
    ...one,
    prefixLength: 24,
    alias: undefined,
    vlan: false,
    up: true,
    permanent: true,
    scope: 0,
  }))
  assert.equal(
    formatExplanation(explain(config, ports, addresses, 'a switch, Linux 6.12')),
    [
      'machine        a switch, Linux 6.12',
      'configuration  test.conf',
      'agent address  10.0.0.1 on eth0: IPv4 private 11, agent = eth0 +13',
      '               not 203.0.113.1 on swp1: IPv4 public 12',
      'collector      192.0.2.1:6343',
      'psample        group 1, ingress: whatever the kernel samples there',
      'polling        every 20 s',
      '',
      'interface  speed  state  counters  sampling                why',
      'lo         ?      up     no        no                      the loopback interface is never sampled',
      'swp1       10G    up     yes       1 in 1000, tc, ingress  physical port, matches switchport; sampling.10G = 1000 (line 3)',
      'swp2       10G    down   no        no                      physical port, matches switchport; the interface is administratively down',
      'eth0       ?      up     yes       no                      its name does not match switchport = ^swp[0-9s]+$',
      '',
    ].join('\n'),
  )
})

test('explain: drops', () => {
  const reasons = [
    { name: 'NO_SOCKET', value: 3, from: 'vmlinux', isMapped: true },
    { name: 'BRAND_NEW', value: 4, from: 'vmlinux', isMapped: false },
  ]
  const kernel = (software: 'weir_drop' | undefined, hardware: boolean, everywhere: boolean) => ({
    reasons,
    tracePoints: { software, hardware },
    everywhere,
  })
  const lines = (settings: string, drops = kernel(undefined, false, true)) =>
    formatExplanation(explain(configOf(settings), ports, [], 'a switch', drops))
      .split('\n')
      .filter((_, i, all) => all.slice(Math.max(i - 2, 0), i + 1).some(one => one.startsWith('drops')))
  assert.deepEqual(lines('dropmon { limit = 50 }'), [
    'drops          software and hardware drops by the drop monitor; at most 50 a second',
    '               this kernel has no trace points for BPF',
    '               2 drop reasons in this kernel, unknown to weir: BRAND_NEW',
  ])
  assert.deepEqual(
    lines('dropmon { start = off sw = off hw = off hw_passive = on }')[0],
    'drops          hardware drops by the drop monitor, when others start it; at most 100 a second',
  )
  assert.deepEqual(lines('dropmon { }', kernel('weir_drop', false, false)).slice(0, 2), [
    'drops          software drops by eBPF; at most 100 a second',
    '               of this network namespace; this kernel has the trace points; else the drop monitor',
  ])
  for (const { settings, why } of [
    { settings: 'source = ebpf', why: 'of all network namespaces; source = ebpf' },
    { settings: 'source = drop_monitor', why: 'source = drop_monitor' },
    { settings: 'start = off', why: 'only the drop monitor has what others started' },
    { settings: 'sw = off sw_passive = on', why: 'only the drop monitor has what others started' },
  ]) {
    const told = lines(`dropmon { ${settings} }`, kernel('weir_drop', true, true))
    assert.equal(told[1]!.trim(), why, settings)
  }
  assert.equal(
    lines('dropmon { source = ebpf }')[1]!.trim(),
    'but this kernel does not have its trace points',
  )
  assert.deepEqual(lines(''), [])
})

const module = join(import.meta.dirname, '../../agent/command/explain.ts')
const script = `import(${JSON.stringify(module)}).then(m => m.explainCommand().parseAsync(process.argv.slice(1), { from: 'user' }))`

test('weir explain in a namespace', { skip: process.getuid!() === 0 ? false : 'needs root' }, t => {
  const namespace = `weir-F-${process.pid}`
  const ip = (...args: string[]) => execFileSync('ip', args)
  ip('netns', 'add', namespace)
  t.after(() => ip('netns', 'del', namespace))
  ip('-n', namespace, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1')
  ip('-n', namespace, 'link', 'set', 'eth0', 'up')
  ip('-n', namespace, 'link', 'set', 'eth1', 'up')
  ip('-n', namespace, 'address', 'add', '10.77.0.1/24', 'dev', 'eth0')
  const weir = (input: string, ...args: string[]) =>
    spawnSync('ip', ['netns', 'exec', namespace, process.execPath, '-e', script, '--', ...args], {
      input,
      encoding: 'utf8',
    })

  const conf = 'sFlow { collector { ip = 10.77.0.2 } pcap { dev = eth0 } sampling.10G = 123 }'
  const { status, stdout, stderr } = weir(conf, '-f', '-', '--json', 'eth0')
  assert.deepEqual([status, stderr], [0, ''])
  const { agentAddress, interfaces } = JSON.parse(stdout) as Explanation
  assert.equal(agentAddress.chosen?.address, '10.77.0.1')
  assert.deepEqual(
    interfaces.map(({ name, speedBitsPerSecond, polled, sampling }) => [
      name,
      speedBitsPerSecond,
      polled,
      sampling,
    ]),
    [
      [
        'eth0',
        10e9, // what veth says of itself
        true,
        [
          {
            source: 'pcap',
            rate: 123,
            direction: 'both',
            why: 'pcap { dev = eth0 } matches',
            rule: 'sampling.10G = 123 (line 1)',
          },
        ],
      ],
    ],
  )

  const unknown = weir(conf, '-f', '-', 'eht0')
  assert.equal(unknown.status, 1)
  assert.match(unknown.stderr, /there is no interface eht0; did you mean eth0\?/)
  const wrong = weir('sFlow { poling = 5 }', '-f', '-')
  assert.equal(wrong.status, 1)
  assert.equal(wrong.stdout, '')
  assert.match(wrong.stderr, /<stdin>:1:9: "poling" is not a setting/)
})

test('explain --diff: what another configuration would change on this machine', () => {
  const of = (settings: string) => explain(configOf(settings), ports, [], 'a machine')
  const before = of('psample { } dent { }')
  assert.deepEqual(effectsOf(before, of('psample { } dent { } headerBytes = 64')), [])
  const after = of('polling = 5 psample { } dent { } sampling.10G = 7 pcap { dev = eth0 }')
  assert.deepEqual(effectsOf(before, after).map(formatDifference), [
    'swp1 counters: every 30 s → every 5 s',
    'swp1 sampling: 1 in 10000, tc, ingress → 1 in 7, tc, ingress',
    'eth0 counters: every 30 s → every 5 s',
    'eth0 sampling: no → 1 in 400, pcap, both',
  ])
})

test('explain: firewall rules, connections, applications, and what is not usual about a collector', () => {
  const text = formatExplanation(
    explain(
      configOf(`sampling = 1000 nflog { group = 5 probability = 0.01 } tcp { } json { udpport = 36343 }
        collector { name = x ip = 10.1.1.1 vrf = mgmt send = drops separate = on drop-codes = hsflowd }`),
      ports,
      [],
      'a switch',
    ),
  )
  assert.match(
    text,
    /^nflog +group 5: .* logs 1 in 100 packets, of which 1 in 10 is taken: 1 in 1000 in all$/m,
  )
  assert.match(text, /^tcp +samples of connections/m)
  assert.match(text, /^json +UDP port 36343 of the loopback addresses$/m)
  const collector = "x \\(10.1.1.1 port 6343 through mgmt\\), drops only, classes apart, hsflowd's drop codes"
  assert.match(text, new RegExp(`^collector +${collector}$`, 'm'))
})

test('explain: the structure whose number is not ours is named', () => {
  const textOf = (settings: string) => formatExplanation(explain(configOf(settings), ports, [], 'a switch'))
  const named = /polling +every 20 s\n +with queueing disciplines as 32473:1, .*reserved for documentation/
  assert.match(textOf('polling = 20 counters { queues = on }'), named)
  assert.doesNotMatch(textOf('polling = 20'), /32473/)
})
