import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Ledger } from '../../agent/health/ledger.ts'
import { groupsOfPod } from '../../agent/virtual/kubernetes.ts'
import { macsIn } from '../../agent/virtual/libvirt.ts'
import { cleanName } from '../../agent/virtual/names.ts'
import { devicesOf } from '../../agent/virtual/namespace.ts'
import { Registry } from '../../agent/virtual/registry.ts'
import { type Found, STATE } from '../../agent/virtual/runtime.ts'
import { DataSourceIndexes, INDEXES, uuidOfContainer, uuidOfName } from '../../agent/virtual/uuid.ts'

/** Values computed by other means: Python's hashlib, and FNV-1a written out there. */
describe('UUIDs and indexes are those of hsflowd', () => {
  const host = '00112233-4455-6677-8899-aabbccddeeff'
  test('of a name, with the agent address', () => {
    assert.equal(uuidOfName(host, 'sshd.service', '192.0.2.1'), '8b13548a-46b4-5e77-9832-09c03ee10a87')
    assert.equal(uuidOfName(host, 'sshd.service', '2001:db8::1'), '01226aaa-c9e7-58d6-ae2f-0fc5b1a0eb24')
    assert.equal(uuidOfName(host, 'k8s__web_shop_u_a', '192.0.2.1'), '5ff88b77-14e4-55e0-9696-35940894ab04')
    assert.equal(uuidOfName(host, 'a', undefined), uuidOfName(host, 'a', '0.0.0.0'))
  })

  test('of the id of a container', () => {
    const id = 'a264bbfb00dfda7ac2ef6d90be9b4518a0024ae7a7670674350a4519df51213b'
    assert.equal(uuidOfContainer(id), 'a264bbfb-00df-da7a-c2ef-6d90be9b4518')
    assert.equal(uuidOfContainer('my-container'), undefined)
  })

  test('indexes, and the next one where it is taken', () => {
    const indexes = new DataSourceIndexes()
    assert.equal(indexes.take('a264bbfb-00df-da7a-c2ef-6d90be9b4518'), 149_372)
    assert.equal(indexes.take('00112233-4455-6677-8899-aabbccddeeff'), 121_893)
    // These two have the same hash modulo 50,000.
    assert.equal(indexes.take('00000000-0000-0000-0000-0000000000f0'), 106_629)
    assert.equal(indexes.take('00000000-0000-0000-0000-0000000010d0'), 106_630)
    indexes.free(106_629)
    assert.equal(indexes.take('00000000-0000-0000-0000-0000000010d0'), 106_629)
  })

  test('all are used before there is none', () => {
    const indexes = new DataSourceIndexes()
    const uuid = '00000000-0000-0000-0000-000000000000'
    const all = new Set(Array.from({ length: 1000 }, () => indexes.take(uuid)))
    assert.equal(all.size, 1000)
    assert.equal(Math.min(...(all as Set<number>)), 145_365)
    const many = new DataSourceIndexes()
    for (let i = 0; i < INDEXES; i++) {
      const index = many.take(`00000000-0000-0000-0000-${i.toString(16).padStart(12, '0')}`)!
      assert.ok(index >= 100_000 && index < 150_000)
    }
    assert.equal(many.take(uuid), undefined)
  })
})

function found(number: number, name = `name ${number}`): Found {
  const uuid = `00000000-0000-0000-0000-${String(number).padStart(12, '0')}`
  return { uuid, name, state: STATE.running, groups: [], pid: undefined }
}

function makeRegistry() {
  const events: string[] = []
  const clock = { ms: 0 }
  const ledger = new Ledger()
  const registry = new Registry({
    ledger,
    onAdded: ({ name, index }) => void events.push(`+ ${name} ${index}`),
    onRemoved: ({ name, index }) => void events.push(`- ${name} ${index}`),
    now: () => clock.ms,
  })
  return { registry, events, clock, ledger }
}

describe('the registry', () => {
  test('what is gone keeps its index until it is forgotten', () => {
    const { registry, events, clock } = makeRegistry()
    registry.update('docker', [found(1), found(2)])
    const [first] = registry.present('docker')
    registry.update('docker', [found(2)])
    registry.update('docker', [found(1, 'again'), found(2)])
    assert.equal(registry.present('docker').find(({ name }) => name === 'again')!.index, first!.index)
    registry.update('docker', [])
    clock.ms = 180_000
    registry.forget('docker', 180_000)
    registry.update('docker', [found(1)])
    assert.equal(registry.present()[0], first)
    registry.update('docker', [])
    clock.ms = 360_001
    registry.forget('docker', 180_000)
    registry.update('docker', [found(1)])
    assert.notEqual(registry.present()[0], first)
    assert.deepEqual(
      events.map(event => event.replace(/ \d+$/, '')),
      [
        '+ name 1',
        '+ name 2',
        '- name 1',
        '+ again',
        '- again',
        '- name 2',
        '+ name 1',
        '- name 1',
        '+ name 1',
      ],
    )
  })

  test('a runtime that does not answer keeps what it had, for a while', () => {
    const { registry, clock } = makeRegistry()
    registry.update('docker', [found(1)])
    registry.update('systemd', [found(2)])
    clock.ms = 1000
    registry.forget('docker', 1000)
    assert.equal(registry.present().length, 2)
    clock.ms = 1001
    registry.forget('docker', 1000)
    assert.deepEqual(
      registry.present().map(({ runtime }) => runtime),
      ['systemd'],
    )
  })

  test('the same UUID counts once', () => {
    const { registry, ledger } = makeRegistry()
    registry.update('docker', [found(1), found(1, 'twin')])
    registry.update('containerd', [found(1, 'other')])
    assert.deepEqual(
      registry.present().map(({ name }) => name),
      ['name 1'],
    )
    assert.equal(ledger.total('virtual'), 2)
    registry.update('docker', [])
    registry.update('containerd', [found(1, 'other')])
    assert.deepEqual(
      registry.present().map(({ name }) => name),
      ['other'],
    )
  })
})

test('names are clean', () => {
  assert.equal(cleanName('web-1'), 'web-1')
  assert.equal(cleanName('größe 名前'), 'größe 名前')
  assert.equal(cleanName('\u001b[31mred\u0000\u200b\u2028\u202e\n'), '?[31mred?????')
  assert.equal(cleanName('a\ud800'), 'a\ufffd')
  assert.equal(cleanName('x'.repeat(100_000)).length, 1024)
})

test('the group of a pod, where kubelet made one', () => {
  const uid = 'b0a5c1d2-1111-2222-3333-444455556666'
  const group = (path: string) => new Map([['', path]])
  const cgroupfs = group(`/kubepods/burstable/pod${uid}/abc`)
  assert.deepEqual(groupsOfPod(uid, [cgroupfs]), [group(`/kubepods/burstable/pod${uid}`)])
  const slice = `/kubepods.slice/kubepods-pod${uid.replaceAll('-', '_')}.slice`
  const systemd = [group(`${slice}/cri-containerd-abc.scope`), group(`${slice}/cri-containerd-def.scope`)]
  assert.deepEqual(groupsOfPod(uid, systemd), [group(slice)])
  const others = [group('/k8s.io/abc'), group('/k8s.io/def')]
  assert.equal(groupsOfPod(uid, others), others)
  const mixed = [systemd[0]!, others[0]!]
  assert.equal(groupsOfPod(uid, mixed), mixed)
  // Version 1: hierarchies in which the pod has no group are not asked.
  const hybrid = new Map([
    ['', '/'],
    ['memory', `/kubepods/pod${uid}/abc`],
  ])
  assert.deepEqual(groupsOfPod(uid, [hybrid]), [new Map([['memory', `/kubepods/pod${uid}`]])])
})

test('devices that lead out of a namespace', () => {
  const device = (ifIndex: number, name: string, kind: string, linkNetnsId?: number) => ({
    ifIndex,
    name,
    kind,
    loopback: name === 'lo',
    masterIfIndex: undefined,
    linkIfIndex: undefined,
    linkNetnsId,
    physicalPortName: undefined,
  })
  const devices = [
    device(1, 'lo', ''),
    device(2, 'eth0', 'veth', 0),
    device(3, 'br0', 'bridge'),
    device(4, 'in0', 'veth', 1),
  ]
  // What leads to containers inside the container counts only where nothing leads to us.
  assert.deepEqual(devicesOf(devices, 0), new Set(['eth0']))
  assert.deepEqual(devicesOf(devices, undefined), new Set(['eth0', 'in0']))
})

test('addresses in the description of a domain', () => {
  const xml = `<domain><devices>
<interface type='network'><mac address='52:54:00:AA:BB:01'/><source network='default'/><target dev='vnet0'/></interface>
<interface type='user'><mac address='52:54:00:aa:bb:02'/></interface>
<interface type="bridge"><target dev="vnet1"/><mac address="52:54:00:aa:bb:03"/></interface>
<interface type='x'><mac address='nonsense'/><target dev='vnet2'/></interface>
<console><target type='serial' dev='vnet9'/></console></devices></domain>`
  assert.deepEqual(
    [...macsIn(xml)],
    [
      ['vnet0', '52:54:00:aa:bb:01'],
      ['vnet1', '52:54:00:aa:bb:03'],
    ],
  )
  assert.deepEqual([...macsIn('<interface '.repeat(1000))], [])
})
