import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Interface } from '../../agent/interfaces.ts'
import { selectPorts, wantedSamplers } from '../../agent/sources/tc-ports.ts'
import { port as portOf } from '../support/port.ts'

let nextIndex = 1

/** An interface with an ifIndex of its own. */
function port(name: string, values: Partial<Interface> = {}): Interface {
  return portOf(nextIndex++, name, values)
}

const upper = (name: string, kind: string, parent: Interface) =>
  port(name, { kind, linkIfIndex: parent.ifIndex })
const member = (name: string, master: Interface, values: Partial<Interface> = {}) =>
  port(name, { masterIfIndex: master.ifIndex, masterKind: master.kind, ...values })

const byIndex = (list: readonly Interface[]) => new Map(list.map(one => [one.ifIndex, one]))
const any = /^/

function reasons(
  list: readonly Interface[],
  switchport = any,
  switchportGiven = false,
): Record<string, string | true> {
  const decisions = selectPorts(byIndex(list), { switchport, switchportGiven })
  return Object.fromEntries(decisions.map(({ name, selected, reason }) => [name, selected || reason]))
}

describe('which ports are sampled', () => {
  test('the default pattern takes switch ports by their name', () => {
    const list = [
      port('swp1', { switchId: 'ab' }),
      port('swp1s0'),
      port('eth0'),
      port('lo', { loopback: true }),
    ]
    const pattern = /^swp[0-9s]+$/
    assert.deepEqual(reasons(list, pattern), {
      swp1: true,
      swp1s0: true,
      eth0: 'its name does not match switchport = ^swp[0-9s]+$',
      lo: 'the loopback interface is never sampled',
    })
    assert.deepEqual(
      selectPorts(byIndex(list), { switchport: pattern, switchportGiven: false })[0]!.reason,
      'switch port, matches switchport',
    )
  })

  test('kinds: hardware and veth by themselves, others when the file sets switchport', () => {
    const list = [
      port('swp1', { kind: 'dsa' }),
      port('sim', { kind: 'netdevsim', parentDevice: 'netdevsim10' }),
      port('v', { kind: 'veth' }),
      port('d', { kind: 'dummy' }),
      port('wg', { kind: 'wireguard', hardwareType: 0xfffe }),
      port('ppp0', { hardwareType: 512 }),
    ]
    assert.deepEqual(reasons(list), {
      swp1: true,
      sim: true,
      v: true,
      d: 'a dummy is sampled only when the file sets switchport',
      wg: 'a wireguard is sampled only when the file sets switchport',
      ppp0: 'a link of type 512 is sampled only when the file sets switchport',
    })
    assert.ok(Object.values(reasons(list, any, true)).every(selected => selected === true))
  })

  test('members and not their bridge or bond; parents and not what is on them', () => {
    const bridge = port('br0', { kind: 'bridge' })
    const bond = member('bond0', bridge, { kind: 'bond' })
    const first = member('eth1', bond)
    const second = member('eth2', bond)
    const vlan = upper('bond0.7', 'vlan', bond)
    const macvlan = upper('mac', 'macvlan', vlan)
    const list = [bridge, bond, first, second, vlan, macvlan]
    assert.deepEqual(reasons(list, any, true), {
      br0: 'its packets are sampled at eth1, eth2',
      bond0: 'its packets are sampled at eth1, eth2',
      eth1: true,
      eth2: true,
      'bond0.7': 'its packets are sampled at eth1, eth2',
      mac: 'its packets are sampled at eth1, eth2',
    })
    // Named alone, a bond or a VLAN is sampled itself.
    assert.equal(reasons(list, /^bond0$/, true).bond0, true)
    assert.equal(reasons(list, /^bond0\.7$/, true)['bond0.7'], true)
    assert.equal(reasons(list, /^(bond0|eth9)/, true)['bond0.7'], 'its packets are sampled at bond0')
  })

  test('the two ends of a veth are two links; a parent in another namespace is out of sight', () => {
    const a = port('a', { kind: 'veth', linkIfIndex: nextIndex + 1 })
    const b = port('b', { kind: 'veth', linkIfIndex: a.ifIndex })
    const moved = port('m', { kind: 'macvlan', linkIfIndex: a.ifIndex, linkNetnsId: 0 })
    assert.deepEqual(reasons([a, b, moved], any, true), { a: true, b: true, m: true })
  })

  test('links that point at each other do not hang it', () => {
    const a = port('a', { kind: 'vlan', linkIfIndex: nextIndex + 1 })
    const b = port('b', { kind: 'vlan', linkIfIndex: a.ifIndex })
    assert.equal(Object.keys(reasons([a, b], any, true)).length, 2)
  })
})

describe('the samplers to place', () => {
  const list = [port('swp1'), port('swp2', { speedBitsPerSecond: 0 })]
  const tc = { switchport: /^swp/, switchportGiven: false, sw: false }
  const psample = { group: 5, ingress: true, egress: true }
  const rateOf = ({ speedBitsPerSecond }: Interface) => speedBitsPerSecond / 1_000_000

  test('each direction on its group; a rate of 0 is no sampler; hardware unless sw = on', () => {
    assert.deepEqual(wantedSamplers(byIndex(list), { tc, psample, headerBytes: 96 }, rateOf), [
      {
        ifIndex: list[0]!.ifIndex,
        name: 'swp1',
        direction: 'ingress',
        rate: 10000,
        group: 5,
        truncate: 96,
        skipSw: true,
        skipHw: false,
      },
      {
        ifIndex: list[0]!.ifIndex,
        name: 'swp1',
        direction: 'egress',
        rate: 10000,
        group: 6,
        truncate: 96,
        skipSw: true,
        skipHw: false,
      },
    ])
  })

  test('one direction, in software too, and no header is never whole packets', () => {
    const rules = { tc: { ...tc, sw: true }, psample: { ...psample, egress: false }, headerBytes: 0 }
    const [sampler, ...more] = wantedSamplers(byIndex(list), rules, rateOf)
    assert.deepEqual(more, [])
    assert.equal(sampler!.skipSw, false)
    assert.equal(sampler!.truncate, 1)
  })
})
