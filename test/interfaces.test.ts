import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createLogger } from '../agent/health/log.ts'
import { type Interface, type InterfaceEvent, Interfaces } from '../agent/interfaces.ts'

const log = createLogger(process.env.LOG ?? 'silent')
/** Every change must be known within a second. */
const LIMIT_MS = 1000
let namespaces = 0

function ip(line: string): void {
  execFileSync('ip', line.split(' '), { stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Many commands at once; `lines` as for `ip -batch`. */
function ipBatch(namespace: string, lines: readonly string[]): void {
  execFileSync('ip', ['-n', namespace, '-batch', '-'], {
    input: lines.join('\n'),
    stdio: ['pipe', 'pipe', 'pipe'],
  })
}

/** A namespace of its own for the test, without anything but `lo`. */
function makeNamespace(t: TestContext): string {
  const name = `weir-i-${process.pid}-${++namespaces}`
  ip(`netns add ${name}`)
  t.after(() => ip(`netns del ${name}`))
  return name
}

/** Follows a namespace; `events` fills, until() waits for a state. */
async function follow(t: TestContext, namespace: string, receiveBytes?: number) {
  const interfaces = new Interfaces({
    log,
    namespace,
    ...(receiveBytes === undefined ? {} : { receiveBytes }),
  })
  await interfaces.start()
  t.after(() => interfaces.stop())
  const events: InterfaceEvent[] = []
  let wake = () => {}
  interfaces.subscribe(event => {
    events.push(event)
    wake()
  })
  /** Resolves to what `look` finds, once it finds something. */
  const until = async <T>(what: string, look: () => T | undefined | false): Promise<T> => {
    const deadline = AbortSignal.timeout(LIMIT_MS)
    for (;;) {
      const found = look()
      if (found !== undefined && found !== false) return found
      if (deadline.aborted)
        assert.fail(
          `no ${what} within ${LIMIT_MS} ms: ${[...interfaces.byIndex.values()].map(port => port.name).join(' ')}`,
        )
      await new Promise<void>(resolve => {
        wake = resolve
        deadline.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }
  const named = (name: string, is: (port: Interface) => boolean = () => true) =>
    until(name, () => {
      const port = interfaces.byName(name)
      return port !== undefined && is(port) ? port : undefined
    })
  return { interfaces, events, until, named }
}

describe('interfaces of a namespace', () => {
  test('a veth appears, with its speed, and goes', async t => {
    const namespace = makeNamespace(t)
    const { interfaces, events, until, named } = await follow(t, namespace)
    assert.deepEqual(
      [...interfaces.byIndex.values()].map(({ name, ifType, loopback }) => ({ name, ifType, loopback })),
      [{ name: 'lo', ifType: 24, loopback: true }],
    )
    ip(`-n ${namespace} link add name va address 02:00:00:00:00:0a mtu 1400 type veth peer name vb`)
    const va = await named('va', port => port.speedBitsPerSecond > 0)
    const vb = await named('vb')
    assert.equal(va.mac, '02:00:00:00:00:0a')
    assert.equal(va.mtu, 1400)
    assert.equal(va.kind, 'veth')
    assert.equal(va.ifType, 6)
    assert.equal(va.speedBitsPerSecond, 10_000_000_000)
    assert.equal(va.duplex, 'full')
    assert.equal(va.adminUp, false)
    assert.equal(va.operUp, false)
    assert.equal(va.linkIfIndex, vb.ifIndex)
    assert.equal(va.linkNetnsId, undefined)
    assert.equal(interfaces.byIndex.get(va.ifIndex), va)
    assert.deepEqual(interfaces.byLow16(va.ifIndex), new Set([va.ifIndex]))
    assert.equal(interfaces.highestIfIndex, Math.max(va.ifIndex, vb.ifIndex))
    assert.equal(interfaces.isLayer3(va.ifIndex), false)

    ip(`-n ${namespace} link del va`)
    await until('removal of both', () => interfaces.byIndex.size === 1)
    assert.equal(interfaces.byName('va'), undefined)
    assert.equal(interfaces.byName('vb'), undefined)
    assert.equal(interfaces.byLow16(va.ifIndex), undefined)
    assert.equal(interfaces.highestIfIndex, 1)
    const history = events.filter(event => (event.type === 'add' ? event.after : event.before).name === 'va')
    assert.equal(history[0]!.type, 'add')
    assert.equal(history.at(-1)!.type, 'remove')
    assert.equal(interfaces.malformed, 0)
  })

  test('up, down, alias, MAC, rename', async t => {
    const namespace = makeNamespace(t)
    const { interfaces, events, named } = await follow(t, namespace)
    ip(`-n ${namespace} link add va type veth peer name vb`)
    ip(`-n ${namespace} link set va up`)
    const oneUp = await named('va', port => port.adminUp)
    assert.equal(oneUp.operUp, false)
    ip(`-n ${namespace} link set vb up`)
    await named('va', port => port.operUp)
    ip(`-n ${namespace} link set vb down`)
    await named('va', port => !port.operUp)

    execFileSync('ip', ['-n', namespace, 'link', 'set', 'va', 'alias', 'uplink to rack 4'])
    await named('va', port => port.alias === 'uplink to rack 4')
    ip(`-n ${namespace} link set va address 02:00:00:00:00:0b`)
    await named('va', port => port.mac === '02:00:00:00:00:0b')
    ip(`-n ${namespace} link set va promisc on`)
    await named('va', port => port.promiscuous)

    ip(`-n ${namespace} link set va down`)
    ip(`-n ${namespace} link set va name swp1`)
    const renamed = await named('swp1')
    assert.equal(renamed.ifIndex, oneUp.ifIndex)
    assert.equal(interfaces.byName('va'), undefined)
    for (const event of events) if (event.type === 'change') assert.notDeepEqual(event.before, event.after)
  })

  test('names that change places', async t => {
    const namespace = makeNamespace(t)
    const { interfaces, named, until } = await follow(t, namespace)
    ip(`-n ${namespace} link add name a type veth peer name b`)
    const a = await named('a')
    const b = await named('b')
    ipBatch(namespace, ['link set dev a name c', 'link set dev b name a', 'link set dev c name b'])
    await until('exchange', () => interfaces.byName('b')?.ifIndex === a.ifIndex)
    assert.equal(interfaces.byName('a')!.ifIndex, b.ifIndex)
    assert.equal(interfaces.byName('c'), undefined)
  })

  test('a bridge port: joining and leaving the bridge is no removal', async t => {
    const namespace = makeNamespace(t)
    const { interfaces, events, named } = await follow(t, namespace)
    ipBatch(namespace, [
      'link add br0 type bridge',
      'link add va type veth peer name vb',
      'link set va master br0',
    ])
    const bridge = await named('br0')
    assert.equal(bridge.ifType, 209)
    const port = await named('va', va => va.masterIfIndex !== undefined)
    assert.equal(port.masterIfIndex, bridge.ifIndex)
    assert.equal(port.masterKind, 'bridge')
    ip(`-n ${namespace} link set va nomaster`)
    const alone = await named('va', va => va.masterIfIndex === undefined)
    assert.equal(alone.masterKind, undefined)
    assert.deepEqual(
      events.filter(event => event.type === 'remove'),
      [],
    )
    assert.equal(interfaces.byIndex.get(port.ifIndex), alone)
  })

  test('addresses come, change and go', async t => {
    const namespace = makeNamespace(t)
    ipBatch(namespace, ['link add va type veth peer name vb', 'addr add 192.0.2.1/24 dev va'])
    const { interfaces, named } = await follow(t, namespace)
    const va = interfaces.byName('va')!
    assert.deepEqual(interfaces.localAddresses(), [
      {
        address: '192.0.2.1',
        prefixLength: 24,
        ifIndex: va.ifIndex,
        interfaceName: 'va',
        alias: undefined,
        vlan: false,
        up: false,
        permanent: true,
        scope: 0,
      },
    ])
    ip(`-n ${namespace} addr add 198.51.100.1 peer 198.51.100.2 dev va`)
    ip(`-n ${namespace} addr add 2001:db8::1/64 dev va nodad`)
    await named('va', port => port.addresses.length === 3)
    ip(`-n ${namespace} addr change 2001:db8::1/64 dev va valid_lft 600 preferred_lft 600`)
    await named('va', port => port.addresses.some(({ flags }) => (flags & 0x80) === 0))
    assert.deepEqual(
      interfaces.localAddresses().map(({ address, permanent }) => ({ address, permanent })),
      [
        { address: '192.0.2.1', permanent: true },
        { address: '198.51.100.1', permanent: true },
        { address: '2001:db8::1', permanent: false },
      ],
    )
    ip(`-n ${namespace} addr del 192.0.2.1/24 dev va`)
    await named('va', port => port.addresses.length === 2)
  })

  test('the other end of a veth in another namespace; a move is a removal here', async t => {
    const here = makeNamespace(t)
    const there = makeNamespace(t)
    const { interfaces, named, until } = await follow(t, here)
    const other = await follow(t, there)
    ip(`-n ${here} link add va type veth peer name vb`)
    const vb = await named('vb')
    ip(`-n ${here} link set vb netns ${there}`)
    await until('removal', () => interfaces.byName('vb') === undefined)
    const moved = await other.named('vb')
    assert.equal(moved.mac, vb.mac)
    assert.equal(moved.linkIfIndex, interfaces.byName('va')!.ifIndex)
    assert.equal(typeof moved.linkNetnsId, 'number')
  })

  test('removed and made again under the same name: another interface', async t => {
    const namespace = makeNamespace(t)
    const { events, named } = await follow(t, namespace)
    ip(`-n ${namespace} link add va type veth peer name vb`)
    const first = await named('va')
    ipBatch(namespace, ['link del va', 'link add va type veth peer name vb'])
    const second = await named('va', port => port.ifIndex !== first.ifIndex)
    assert.ok(events.some(event => event.type === 'remove' && event.before.ifIndex === first.ifIndex))
    assert.ok(events.some(event => event.type === 'add' && event.after.ifIndex === second.ifIndex))
  })

  test('an ifIndex above 65535 shares its low 16 bits with another', async t => {
    const namespace = makeNamespace(t)
    ipBatch(namespace, [
      'link add va index 77 type veth peer name vb',
      'link add wa index 65613 type veth peer name wb',
    ])
    const { interfaces, until } = await follow(t, namespace)
    assert.deepEqual(interfaces.byLow16(77), new Set([77, 65613]))
    assert.ok(interfaces.highestIfIndex >= 65613)
    ip(`-n ${namespace} link del wa`)
    await until('removal', () => interfaces.byName('wa') === undefined)
    assert.deepEqual(interfaces.byLow16(77), new Set([77]))
    assert.ok(interfaces.highestIfIndex < 65613)
  })

  test('500 interfaces: there at once after the start, and each that comes is told of', async t => {
    const namespace = makeNamespace(t)
    const { events, until } = await follow(t, namespace)
    const names = Array.from({ length: 250 }, (_, i) => `v${i}`)
    ipBatch(
      namespace,
      names.map(name => `link add ${name} type veth peer name p${name}`),
    )
    await until('500 interfaces', () => events.filter(event => event.type === 'add').length === 500)

    const before = performance.now()
    const { interfaces } = await follow(t, namespace)
    const ms = performance.now() - before
    assert.equal(interfaces.byIndex.size, 501)
    assert.ok(
      [...interfaces.byIndex.values()].every(
        port => port.loopback || port.speedBitsPerSecond === 10_000_000_000,
      ),
    )
    t.diagnostic(`500 interfaces known after ${ms.toFixed(0)} ms`)
  })

  test('lost notifications: everything is read again, and the difference told', async t => {
    const namespace = makeNamespace(t)
    ipBatch(namespace, ['link add gone type veth peer name gone2', 'link add kept type veth peer name kept2'])
    const { interfaces, events, until } = await follow(t, namespace, 1)
    const kept = interfaces.byName('kept')!
    // The event loop stands still during these commands: more notifications than the smallest buffer holds.
    ipBatch(namespace, [
      'link del gone',
      'link set kept up',
      ...Array.from({ length: 60 }, (_, i) => `link add n${i} type veth peer name m${i}`),
      'link set kept down',
      'link set kept name kept3',
    ])
    await until(
      'resync',
      () => interfaces.byName('kept3') !== undefined && interfaces.byName('m59') !== undefined,
    )
    assert.ok(interfaces.resyncs >= 1)
    assert.equal(interfaces.byIndex.size, 1 + 2 + 120)
    assert.equal(interfaces.byName('kept3')!.ifIndex, kept.ifIndex)
    assert.equal(interfaces.byName('gone'), undefined)
    assert.deepEqual(
      events
        .filter(event => event.type === 'remove')
        .map(event => event.before.name)
        .sort(),
      ['gone', 'gone2'],
    )
    // What comes after it is followed as before.
    ip(`-n ${namespace} link set kept3 name last`)
    await until('rename', () => interfaces.byName('last'))
  })

  test('stop ends it, twice as once; a namespace that is not there is an error with its name', async t => {
    const namespace = makeNamespace(t)
    const { interfaces, events } = await follow(t, namespace)
    interfaces.stop()
    interfaces.stop()
    ip(`-n ${namespace} link add va type veth peer name vb`)
    await sleep(50)
    assert.equal(events.length, 0)
    assert.equal(interfaces.byName('lo')!.ifIndex, 1)
    await assert.rejects(
      new Interfaces({ log, namespace: 'weir-i-missing' }).start(),
      /weir-i-missing|ENOENT/,
    )
  })

  test('reading needs no privilege', { skip: process.getuid?.() !== 0 && 'not root to begin with' }, () => {
    const script = `
      import { Interfaces } from '${new URL('../agent/interfaces.ts', import.meta.url).href}'
      import { createLogger } from '${new URL('../agent/health/log.ts', import.meta.url).href}'
      const interfaces = new Interfaces({ log: createLogger('silent') })
      await interfaces.start()
      console.log(interfaces.byName('lo').ifIndex)
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
        script,
      ],
      { encoding: 'utf8' },
    )
    assert.equal(output.trim(), '1')
  })
})

after(() => {
  const left = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })
  assert.ok(!left.includes(`weir-i-${process.pid}-`), `namespaces left behind: ${left}`)
})
