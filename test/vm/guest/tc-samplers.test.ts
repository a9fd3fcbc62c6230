/** tc samplers in a real kernel: placed, seen to sample, repaired, changed, taken over, removed. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, type TestContext, test } from 'node:test'
import { createLogger } from '../../../agent/health/log.ts'
import { Interfaces } from '../../../agent/interfaces.ts'
import { resolveFamily } from '../../../agent/kernel/genl.ts'
import { NETLINK_GENERIC, NetlinkSocket } from '../../../agent/kernel/netlink-socket.ts'
import type { SampledPort } from '../../../agent/sources/psample-samples.ts'
import { selectPorts } from '../../../agent/sources/tc-ports.ts'
import { TcSamplers, type WantedSampler } from '../../../agent/sources/tc-samplers.ts'
import { emptyPsampleMessage, readPsample } from '../../../agent/wire/netlink/psample.ts'
import { ifIndex, ip, kernelAtLeast, modprobe, neighbour, ping, run, tc, until } from '../../support/guest.ts'

modprobe(
  'act_sample',
  'cls_matchall',
  'sch_ingress',
  'act_gact',
  'veth',
  'dummy',
  'bonding',
  '8021q',
  'macvlan',
)

const log = createLogger(process.env.LOG ?? 'silent')
const GROUP = 21
const interfaces = new Interfaces({ log })
await interfaces.start()
after(() => interfaces.stop())

interface TcAction {
  readonly kind: string
  readonly rate: number
  readonly group: number
  readonly trunc_size: number
  readonly control_action: { readonly type: string }
  readonly index: number
}

interface TcFilter {
  readonly kind: string
  readonly pref: number
  readonly options?: { readonly not_in_hw?: boolean; readonly actions: readonly TcAction[] }
}

/** The filters with their actions, as the `tc` tool reads them. */
function filters(name: string, direction: 'ingress' | 'egress'): TcFilter[] {
  const all: TcFilter[] = JSON.parse(tc(`-j filter show dev ${name} ${direction}`) || '[]')
  return all.filter(filter => filter.options !== undefined)
}

function samplerOf(name: string, direction: 'ingress' | 'egress'): TcFilter & { readonly action: TcAction } {
  const found = filters(name, direction).filter(({ options }) => options!.actions[0]!.kind === 'sample')
  assert.equal(found.length, 1, `samplers on ${name} ${direction}: ${JSON.stringify(found)}`)
  return { ...found[0]!, action: found[0]!.options!.actions[0]! }
}

function samplers(t: TestContext, instance = 100000): TcSamplers {
  const made = new TcSamplers({ log, interfaces, instance, repairMs: { least: 20, most: 200 } })
  made.start()
  t.after(() => made.stop())
  return made
}

function wanted(name: string, values: Partial<WantedSampler> = {}): WantedSampler {
  const direction = values.direction ?? 'ingress'
  const group = direction === 'ingress' ? GROUP : GROUP + 1
  return {
    ifIndex: ifIndex(name),
    name,
    direction,
    rate: 4,
    group,
    truncate: 96,
    skipSw: false,
    skipHw: false,
    ...values,
  }
}

const both = (name: string, values: Partial<WantedSampler> = {}) => [
  wanted(name, { ...values, direction: 'ingress' }),
  wanted(name, { ...values, direction: 'egress' }),
]

/** A veth in this namespace with its other end, both up; gone after the test. */
function veth(t: TestContext, name: string): void {
  ip(`link add ${name} type veth peer name ${name}p`)
  t.after(() => {
    try {
      ip(`link del ${name}`)
    } catch {
      // The test removed it.
    }
  })
  ip(`link set ${name} up`)
  ip(`link set ${name}p up`)
}

test('both directions are sampled as asked; filters of others still see every packet', async t => {
  neighbour(t, 'tca')
  tc('qdisc add dev tca clsact')
  tc('filter add dev tca ingress pref 100 matchall action ok')
  tc('filter add dev tca egress pref 100 matchall action ok')
  const agent = samplers(t)
  await agent.apply(both('tca'))
  for (const [direction, group] of [
    ['ingress', GROUP],
    ['egress', GROUP + 1],
  ] as const) {
    const { pref, action, options } = samplerOf('tca', direction)
    assert.equal(pref, 10)
    assert.equal(action.rate, 4)
    assert.equal(action.group, group)
    assert.equal(action.trunc_size, 96)
    assert.equal(action.control_action.type, 'continue')
    assert.equal(options!.not_in_hw, true)
  }
  assert.deepEqual(
    agent.status().map(({ direction, sampling, inHardware, preference, note }) => ({
      direction,
      sampling,
      inHardware,
      preference,
      note,
    })),
    [
      { direction: 'ingress', sampling: true, inHardware: false, preference: 10, note: undefined },
      { direction: 'egress', sampling: true, inHardware: false, preference: 10, note: undefined },
    ],
  )
  ping(50)
  for (const { packets } of await agent.counts()) assert.equal(packets, 50n)
  for (const direction of ['ingress', 'egress']) {
    assert.match(tc(`-s filter show dev tca ${direction} pref 100`), /Sent \d+ bytes 50 pkt/)
  }
  await agent.stop()
  assert.deepEqual(
    filters('tca', 'ingress').map(({ pref }) => pref),
    [100],
  )
  assert.deepEqual(
    filters('tca', 'egress').map(({ pref }) => pref),
    [100],
  )
  assert.match(tc('qdisc show dev tca'), /clsact/)
})

test('samples carry our cookie since 6.11; a group of its own tells an interface above 65535', async t => {
  neighbour(t, 'tcb')
  const psample = await listen(t)
  const agent = samplers(t)
  await agent.apply([wanted('tcb', { rate: 1 })])
  ping(20)
  await until('20 samples', () => psample.samples.length === 20)
  for (const { group, cookie } of psample.samples) {
    assert.equal(group, GROUP)
    const port = agent.portOfCookie(new DataView(cookie.buffer), 0, cookie.length)
    assert.deepEqual(
      port,
      kernelAtLeast(6, 11) ? { ifIndex: ifIndex('tcb'), direction: 'ingress' } : undefined,
    )
  }

  ip('link set tcb down')
  ip('link add tcbig index 70001 type dummy')
  t.after(() => ip('link del tcbig'))
  ip('link set tcbig up')
  await until('interface', () => interfaces.byName('tcbig') !== undefined)
  await agent.apply([wanted('tcbig', { rate: 1, direction: 'egress' })])
  const own = agent.status()[0]!.group
  assert.notEqual(own, GROUP + 1)
  assert.equal(samplerOf('tcbig', 'egress').action.group, own)
  const expected: SampledPort = { ifIndex: 70001, direction: 'egress' }
  assert.deepEqual(agent.portOfGroup(own), expected)
  psample.samples.length = 0
  ip('address add 198.51.100.1/24 dev tcbig')
  ip('neighbour add 198.51.100.2 lladdr 02:00:00:00:00:02 dev tcbig')
  run('sh', '-c', 'ping -q -c 5 -i 0.05 -w 1 198.51.100.2 || true')
  await until('samples', () => psample.samples.some(({ group }) => group === own))
  const { output } = psample.samples.find(({ group }) => group === own)!
  assert.equal(output, 70001 % 65536)
})

test('an interface that shares its low 16 bits with another gets a group when the other comes', async t => {
  veth(t, 'tcc')
  await until('interface', () => interfaces.byName('tcc') !== undefined)
  const agent = samplers(t)
  const group = () => agent.status()[0]!.group
  await agent.apply([wanted('tcc')])
  assert.equal(group(), GROUP)
  ip(`link add tclike index ${ifIndex('tcc') + 65536} type dummy`)
  await until('own group', () => agent.status()[0]!.sampling && group() !== GROUP)
  assert.equal(samplerOf('tcc', 'ingress').action.group, group())
  ip('link del tclike')
  await until('shared group', () => agent.status()[0]!.sampling && group() === GROUP)
  assert.equal(agent.repairs, 0)
})

test('the rate changes in place: the same action, no packet missed or counted twice', async t => {
  neighbour(t, 'tcd')
  const agent = samplers(t)
  await agent.apply(both('tcd'))
  const before = samplerOf('tcd', 'ingress').action.index
  ping(30)
  await agent.apply(both('tcd', { rate: 9, truncate: 64 }))
  const { action } = samplerOf('tcd', 'ingress')
  assert.equal(action.index, before)
  assert.equal(action.rate, 9)
  assert.equal(action.trunc_size, 64)
  assert.equal(agent.retunes, 2)
  assert.equal(agent.gaps, 0)
  ping(20)
  for (const { packets } of await agent.counts()) assert.equal(packets, 50n)
})

test('where the kernel refuses that, the filter is replaced, and counts go on', () => {
  // Root of a user namespace of its own: it owns its network, and may not change actions by themselves.
  const program = `
    import { execFileSync } from 'node:child_process'
    import { Interfaces } from '${new URL('../../../agent/interfaces.ts', import.meta.url).href}'
    import { TcSamplers } from '${new URL('../../../agent/sources/tc-samplers.ts', import.meta.url).href}'
    import { createLogger } from '${new URL('../../../agent/health/log.ts', import.meta.url).href}'
    const ip = line => execFileSync('ip', line.split(' '))
    ip('link add va index 7 type veth peer name vb')
    ip('link set va up')
    ip('link set vb up')
    const log = createLogger('silent')
    const interfaces = new Interfaces({ log })
    await interfaces.start()
    const agent = new TcSamplers({ log, interfaces, instance: 1 })
    agent.start()
    const one = { ifIndex: 7, name: 'va', direction: 'ingress', rate: 4, group: 5, truncate: 96, skipSw: false, skipHw: false }
    await agent.apply([one])
    await agent.apply([{ ...one, rate: 8 }])
    const { sampling, rate, note } = agent.status()[0]
    const shown = execFileSync('tc', 'filter show dev va ingress'.split(' '), { encoding: 'utf8' })
    await agent.stop()
    interfaces.stop()
    console.log(JSON.stringify({ sampling, rate, note, retunes: agent.retunes, gaps: agent.gaps, inKernel: /rate 1\\/(\\d+)/.exec(shown)[1] }))`
  const output = run(
    'unshare',
    '--user',
    '--map-root-user',
    '--net',
    process.execPath,
    '--input-type=module',
    '-e',
    program,
  )
  assert.deepEqual(JSON.parse(output), { sampling: true, rate: 8, retunes: 0, gaps: 1, inKernel: '8' })
})

test('what others remove or change is repaired', async t => {
  veth(t, 'tce')
  await until('interface', () => interfaces.byName('tce') !== undefined)
  const agent = samplers(t)
  await agent.apply(both('tce'))
  const isWhole = () => {
    try {
      return samplerOf('tce', 'ingress').action.rate === 4 && samplerOf('tce', 'egress').action.rate === 4
    } catch {
      return false
    }
  }
  assert.ok(isWhole())
  const damages: readonly [name: string, damage: () => void][] = [
    ['one filter deleted', () => tc('filter del dev tce ingress')],
    [
      'both directions deleted',
      () => void [tc('filter del dev tce ingress'), tc('filter del dev tce egress')],
    ],
    ['the qdisc deleted', () => tc('qdisc del dev tce clsact')],
    ['the qdisc replaced', () => void [tc('qdisc del dev tce clsact'), tc('qdisc add dev tce clsact')]],
    [
      'the action changed',
      () =>
        tc(
          `action replace action sample rate 77 group 3 continue index ${samplerOf('tce', 'ingress').action.index}`,
        ),
    ],
  ]
  for (const [name, damage] of damages) {
    // A look that is under way meanwhile repairs what it comes to after the damage, and the next one the rest.
    const before = agent.repairs
    damage()
    await until(`repair of ${name}`, () => isWhole() && agent.repairs > before)
  }
  await quiet(agent)
  const { repairs } = agent
  // A flap of the link removes nothing and needs no repair.
  ip('link set tce down')
  ip('link set tce up')
  await until('link', () => interfaces.byName('tce')!.operUp)
  await quiet(agent)
  assert.ok(isWhole())
  assert.equal(agent.repairs, repairs)
})

/** Waits until the agent has repaired nothing for half a second: looks that were due have been taken. */
async function quiet(agent: TcSamplers): Promise<void> {
  for (let before = -1; before !== agent.repairs; ) {
    before = agent.repairs
    await new Promise(resolve => setTimeout(resolve, 500))
  }
}

test('an interface removed and made again', async t => {
  veth(t, 'tcf')
  await until('interface', () => interfaces.byName('tcf') !== undefined)
  const first = ifIndex('tcf')
  const agent = samplers(t)
  await agent.apply([wanted('tcf')])
  ip('link del tcf')
  await until('removal', () => interfaces.byName('tcf') === undefined)
  assert.deepEqual(agent.status(), [])
  assert.deepEqual(await agent.counts(), [])
  veth(t, 'tcf')
  await agent.apply([wanted('tcf')])
  assert.notEqual(ifIndex('tcf'), first)
  assert.equal(agent.status()[0]!.sampling, true)
  samplerOf('tcf', 'ingress')
  // One that is gone before it is asked for is no failure of the others.
  veth(t, 'tcg')
  await agent.apply([{ ...wanted('tcg'), ifIndex: 60_000, name: 'gone' }, wanted('tcg')])
  assert.deepEqual(
    agent.status().map(({ name, sampling }) => ({ name, sampling })),
    [
      { name: 'gone', sampling: false },
      { name: 'tcg', sampling: true },
    ],
  )
})

test('it stands before the filters of others, also of those that come later', async t => {
  veth(t, 'tch')
  await until('interface', () => interfaces.byName('tch') !== undefined)
  tc('qdisc add dev tch clsact')
  tc('filter add dev tch ingress pref 5 matchall action ok')
  const agent = samplers(t)
  await agent.apply([wanted('tch')])
  assert.equal(samplerOf('tch', 'ingress').pref, 4)
  tc('filter add dev tch ingress pref 3 protocol ip flower action ok')
  await until('move', () => agent.status()[0]!.preference === 2)
  assert.equal(samplerOf('tch', 'ingress').pref, 2)
  assert.equal(agent.status()[0]!.note, undefined)
  // Nothing stands before preference 1.
  tc('filter add dev tch ingress pref 1 matchall action ok')
  await until('note', () => agent.status()[0]!.note !== undefined)
  assert.match(agent.status()[0]!.note!, /behind filter matchall at preference 1/)
  assert.equal(agent.status()[0]!.sampling, true)
  assert.deepEqual(
    filters('tch', 'ingress').map(({ pref }) => pref),
    [1, 2, 3, 5],
  )
  tc('filter del dev tch ingress pref 1')
  await until('no note', () => agent.status()[0]!.note === undefined)
})

test('an ingress qdisc of others: ingress is sampled on it, egress says why not', async t => {
  veth(t, 'tci')
  await until('interface', () => interfaces.byName('tci') !== undefined)
  tc('qdisc add dev tci ingress')
  const agent = samplers(t)
  await agent.apply(both('tci'))
  const [ingress, egress] = agent.status()
  assert.equal(ingress!.sampling, true)
  assert.equal(egress!.sampling, false)
  assert.match(egress!.note!, /ingress qdisc of others/)
  assert.match(tc('filter show dev tci parent ffff:'), /action order 1: sample rate 1\/4/)
  await agent.stop()
  assert.doesNotMatch(tc('filter show dev tci parent ffff:'), /sample/)
  assert.match(tc('qdisc show dev tci'), /ingress/)
})

test('filters shared with other interfaces are left alone', async t => {
  veth(t, 'tcj')
  await until('interface', () => interfaces.byName('tcj') !== undefined)
  tc('qdisc add dev tcj ingress_block 9 clsact')
  const agent = samplers(t)
  await agent.apply(both('tcj'))
  const [ingress, egress] = agent.status()
  assert.match(ingress!.note!, /block 9/)
  assert.equal(ingress!.sampling, false)
  assert.equal(egress!.sampling, true)
  assert.doesNotMatch(tc('filter show block 9'), /sample/)
})

test('no hardware to sample in: says what to set', async t => {
  veth(t, 'tck')
  await until('interface', () => interfaces.byName('tck') !== undefined)
  const agent = samplers(t)
  await agent.apply([wanted('tck', { skipSw: true })])
  const [status] = agent.status()
  assert.equal(status!.sampling, false)
  assert.match(status!.note!, /add an ingress sampler to tck: EOPNOTSUPP.*set sw = on/)
  assert.doesNotMatch(
    tc('qdisc show dev tck'),
    /clsact/,
    'no clsact is left, which would be nobody’s after a crash',
  )
  await agent.apply([wanted('tck', { skipHw: true })])
  assert.equal(agent.status()[0]!.sampling, true)
  assert.match(tc('filter show dev tck ingress'), /skip_hw/)
})

test('after a crash: what is wanted is taken over, the rest removed, that of another agent left', async t => {
  neighbour(t, 'tcl')
  veth(t, 'tcm')
  await until('interface', () => interfaces.byName('tcm') !== undefined)
  const other = samplers(t, 7)
  await other.apply([wanted('tcl', { rate: 3 })])
  const crashed = new TcSamplers({ log, interfaces, instance: 100000 })
  crashed.start()
  await crashed.apply([wanted('tcl'), wanted('tcm')])
  t.after(() => crashed.stop())
  const rates = (name: string) => filters(name, 'ingress').map(({ options }) => options!.actions[0]!.rate)
  const index = () =>
    filters('tcl', 'ingress')
      .map(({ options }) => options!.actions[0]!)
      .find(({ rate }) => rate === 4)!.index
  const before = index()
  assert.deepEqual(rates('tcl').sort(), [3, 4])
  ping(30)
  assert.equal((await crashed.counts())[0]!.packets, 30n)

  const next = samplers(t)
  await next.apply([wanted('tcl')])
  assert.deepEqual(rates('tcl').sort(), [3, 4])
  assert.equal(index(), before)
  assert.deepEqual(rates('tcm'), [])
  const passed = { ifIndex: ifIndex('tcl'), direction: 'ingress' }
  assert.deepEqual(await next.counts(), [{ ...passed, packets: 0n, bytes: 0n }])
  ping(20)
  assert.equal((await next.counts())[0]!.packets, 20n)
  await next.stop()
  assert.deepEqual(rates('tcl'), [3])
  assert.match(tc('qdisc show dev tcl'), /clsact/, 'the other agent has a sampler there')
})

test('the stop leaves nothing of ours, and twice is as once', async t => {
  veth(t, 'tcn')
  await until('interface', () => interfaces.byName('tcn') !== undefined)
  const agent = samplers(t)
  await agent.apply(both('tcn'))
  await agent.stop()
  await agent.stop()
  assert.doesNotMatch(tc('qdisc show dev tcn'), /clsact/)
  assert.doesNotMatch(tc('actions list action sample'), /sample/)
})

test('a namespace: its interfaces, its samplers', async t => {
  ip('netns add weir-i-tc')
  t.after(() => ip('netns del weir-i-tc'))
  ip('-n weir-i-tc link add va index 7 type veth peer name vb')
  const there = new Interfaces({ log, namespace: 'weir-i-tc' })
  await there.start()
  t.after(() => there.stop())
  const agent = new TcSamplers({ log, interfaces: there, instance: 1, namespace: 'weir-i-tc' })
  agent.start()
  t.after(() => agent.stop())
  await agent.apply([{ ...wanted('lo'), ifIndex: 7, name: 'va' }])
  assert.equal(agent.status()[0]!.sampling, true)
  assert.match(tc('-n weir-i-tc filter show dev va ingress'), /sample rate 1\/4/)
})

test('without the capability: every port says what is needed', () => {
  const program = `
    import { Interfaces } from '${new URL('../../../agent/interfaces.ts', import.meta.url).href}'
    import { TcSamplers } from '${new URL('../../../agent/sources/tc-samplers.ts', import.meta.url).href}'
    import { createLogger } from '${new URL('../../../agent/health/log.ts', import.meta.url).href}'
    const log = createLogger('silent')
    const interfaces = new Interfaces({ log })
    await interfaces.start()
    const agent = new TcSamplers({ log, interfaces, instance: 1 })
    agent.start()
    const one = { ifIndex: 1, name: 'lo', direction: 'ingress', rate: 4, group: 5, truncate: 96, skipSw: false, skipHw: false }
    await agent.apply([one])
    console.log(agent.status()[0].note)
    await agent.stop()
    interfaces.stop()`
  const output = execFileSync(
    'setpriv',
    [
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
      '--bounding-set=-all',
      process.execPath,
      '--input-type=module',
      '-e',
      program,
    ],
    { encoding: 'utf8' },
  )
  assert.match(output, /add clsact to lo: EPERM .*needs CAP_NET_ADMIN/)
})

test('no packet is sampled twice: members, not the bond; parents, not the VLAN', async t => {
  for (const name of ['tco', 'tcp', 'tcq']) veth(t, name)
  for (const link of ['tcbond type bond mode 802.3ad', 'tcbr type bridge', 'tcdummy type dummy']) {
    ip(`link add ${link}`)
    t.after(() => ip(`link del ${link.split(' ')[0]}`))
  }
  ip('link set tco down')
  ip('link set tco master tcbond')
  ip('link set tcp master tcbr')
  ip('link add link tcbond name tcbond.7 type vlan id 7')
  ip('link add link tcq name tcmac type macvlan')
  await until(
    'interfaces',
    () => interfaces.byName('tcmac') !== undefined && interfaces.byName('tco')?.masterKind === 'bond',
  )
  const decide = (switchport: RegExp, switchportGiven: boolean) =>
    Object.fromEntries(
      selectPorts(interfaces.byIndex, { switchport, switchportGiven })
        .filter(({ name }) => switchport.test(name))
        .map(({ name, selected, reason }) => [name, selected || reason]),
    )
  assert.deepEqual(decide(/^tc(o|p|q|bond|br|dummy|bond\.7|mac)$/, true), {
    tco: true,
    tcp: true,
    tcq: true,
    tcbond: 'its packets are sampled at tco',
    tcbr: 'its packets are sampled at tcp',
    tcdummy: true,
    'tcbond.7': 'its packets are sampled at tco',
    tcmac: 'its packets are sampled at tcq',
  })
  assert.equal(interfaces.byName('tcbond.7')!.vlanId, 7)
  assert.equal(interfaces.byName('tcbond.7')!.ifType, 135)
  assert.equal(interfaces.byName('tcbond')!.ifType, 161)
})

/** Receives all samples of the namespace. */
async function listen(t: TestContext) {
  const samples: { readonly group: number; readonly output: number; readonly cookie: Uint8Array }[] = []
  const message = emptyPsampleMessage()
  const socket = NetlinkSocket.open(NETLINK_GENERIC, {
    receiveBytes: 1 << 20,
    onDatagram: (view, _words, start, end) => {
      assert.ok(readPsample(view, start, end, message), message.problem)
      const at = view.byteOffset + message.cookieOffset
      const cookie = new Uint8Array(view.buffer, at, message.cookieLength).slice()
      samples.push({ group: message.group, output: message.outputIfIndex, cookie })
    },
  })
  t.after(() => socket.close())
  const control = NetlinkSocket.open(NETLINK_GENERIC)
  const family = await resolveFamily(control, 'psample')
  control.close()
  socket.join(family!.groups.get('packets')!)
  return { samples }
}
