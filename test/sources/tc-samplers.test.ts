import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createLogger } from '../../agent/health/log.ts'
import type { Interface, InterfaceEvent } from '../../agent/interfaces.ts'
import { makeCookie } from '../../agent/sources/tc-plan.ts'
import { TcSamplers, type WantedSampler } from '../../agent/sources/tc-samplers.ts'
import { RTM } from '../../agent/wire/netlink/rt.ts'
import { CLSACT_EGRESS, CLSACT_INGRESS, FILTER_FLAG } from '../../agent/wire/netlink/tc.ts'
import { TcKernel } from './tc-kernel.ts'

const log = createLogger('silent')
const INSTANCE = 100000

/** The part of Interfaces that samplers use. */
function interfacesOf(...ifIndexes: number[]) {
  const present = new Set(ifIndexes)
  let tell: (event: InterfaceEvent) => void = () => {}
  return {
    byLow16: (low: number) => new Set([...present].filter(ifIndex => (ifIndex & 0xffff) === low)),
    subscribe: (listener: (event: InterfaceEvent) => void) => {
      tell = listener
      return () => {}
    },
    add(ifIndex: number) {
      present.add(ifIndex)
      tell({ type: 'add', after: { ifIndex } as Interface })
    },
    remove(ifIndex: number) {
      present.delete(ifIndex)
      tell({ type: 'remove', before: { ifIndex } as Interface })
    },
  }
}

function setUp(t: TestContext, ...ifIndexes: number[]) {
  const kernel = new TcKernel()
  for (const ifIndex of ifIndexes) kernel.interfaces.add(ifIndex)
  const interfaces = interfacesOf(...ifIndexes)
  const start = (repairMs = { least: 1, most: 8 }) => {
    const samplers = new TcSamplers({ log, interfaces, instance: INSTANCE, open: kernel.socket, repairMs })
    samplers.start()
    t.after(() => samplers.stop())
    return samplers
  }
  return { kernel, interfaces, start }
}

function wanted(ifIndex: number, values: Partial<WantedSampler> = {}): WantedSampler {
  const name = `swp${ifIndex}`
  return {
    ifIndex,
    name,
    direction: 'ingress',
    rate: 400,
    group: 1,
    truncate: 128,
    skipSw: false,
    skipHw: false,
    ...values,
  }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 2000
  while (!holds()) {
    assert.ok(performance.now() < deadline, `${what}: not within 2 s`)
    await sleep(1)
  }
}

describe('tc samplers', () => {
  test('placed as asked, one request after another, and removed at the stop', async t => {
    const { kernel, start } = setUp(t, 2, 3)
    const samplers = start()
    await samplers.apply([wanted(2), wanted(2, { direction: 'egress', group: 2 }), wanted(3)])
    assert.deepEqual(kernel.requests, [
      'newQdisc 2',
      'newFilter 2',
      'newFilter 2',
      'newQdisc 3',
      'newFilter 3',
    ])
    const [ingress, egress] = kernel.filters
    assert.equal(ingress!.parent, CLSACT_INGRESS)
    assert.equal(egress!.parent, CLSACT_EGRESS)
    assert.deepEqual(
      ingress!.action!.cookie,
      makeCookie({ instance: INSTANCE, ifIndex: 2, direction: 'ingress', ownsHook: true }),
    )
    assert.equal(egress!.action!.group, 2)
    assert.ok(samplers.status().every(({ sampling, note }) => sampling && note === undefined))
    await sleep(20)
    assert.equal(samplers.repairs, 0)
    await samplers.stop()
    assert.deepEqual(kernel.filters, [])
    assert.deepEqual([...kernel.qdiscs], [])
    assert.equal(kernel.open, 0)
  })

  test('nothing to do is nothing done', async t => {
    const { kernel, start } = setUp(t, 2)
    const samplers = start()
    await samplers.apply([wanted(2)])
    await sleep(20)
    const before = kernel.requests.length + kernel.dumps
    await samplers.apply([wanted(2)])
    assert.equal(kernel.requests.length + kernel.dumps, before)
  })

  test('in software the rate changes in place, in hardware by another filter, and the counts go on', async t => {
    const { kernel, start } = setUp(t, 2)
    const samplers = start()
    await samplers.apply([wanted(2)])
    kernel.pass(2, 1000n)
    await samplers.apply([wanted(2, { rate: 800 })])
    assert.deepEqual({ retunes: samplers.retunes, gaps: samplers.gaps }, { retunes: 1, gaps: 0 })

    kernel.offload = true
    await samplers.apply([wanted(2, { rate: 800, skipSw: true })])
    assert.equal(samplers.gaps, 1)
    assert.equal(samplers.status()[0]!.inHardware, true)
    kernel.pass(2, 500n)
    await samplers.apply([wanted(2, { rate: 100, skipSw: true })])
    assert.deepEqual({ retunes: samplers.retunes, gaps: samplers.gaps }, { retunes: 1, gaps: 2 })
    assert.equal(kernel.filters[0]!.action!.rate, 100)
    kernel.pass(2, 7n)
    assert.deepEqual(await samplers.counts(), [
      { ifIndex: 2, direction: 'ingress', packets: 1507n, bytes: 150700n },
    ])
  })

  test('a change in place that is refused: replaced, and not tried again', async t => {
    const { kernel, start } = setUp(t, 2)
    kernel.refuse.set(RTM.newAction, 'EPERM')
    const samplers = start()
    await samplers.apply([wanted(2)])
    await samplers.apply([wanted(2, { rate: 800 })])
    await samplers.apply([wanted(2, { rate: 900 })])
    assert.equal(samplers.gaps, 2)
    assert.equal(samplers.retunes, 0)
    assert.equal(kernel.filters.length, 1)
    assert.equal(kernel.filters[0]!.action!.rate, 900)
  })

  const refusals: readonly [
    name: string,
    type: number,
    code: Parameters<TcKernel['refuse']['set']>[1],
    note: RegExp,
  ][] = [
    ['no permission', RTM.newQdisc, 'EPERM', /add clsact to swp2: EPERM .*needs CAP_NET_ADMIN/],
    ['no module', RTM.newFilter, 'ENOENT', /sampler to swp2: ENOENT .*cls_matchall and act_sample/],
    ['a list that fails', RTM.getQdisc, 'EPERM', /list qdiscs: EPERM/],
  ]
  for (const [name, type, code, note] of refusals) {
    test(`${name}: told with the port, tried again, and working when it ends`, async t => {
      const { kernel, start } = setUp(t, 2)
      kernel.refuse.set(type, code)
      const samplers = start()
      await samplers.apply([wanted(2)])
      assert.equal(samplers.status()[0]!.sampling, false)
      assert.match(samplers.status()[0]!.note!, note)
      kernel.refuse.clear()
      await until('sampling', () => samplers.status()[0]!.sampling)
      assert.equal(samplers.status()[0]!.note, undefined)
      assert.equal(kernel.filters.length, 1)
    })
  }

  test('one that is refused does not keep the others', async t => {
    const { start } = setUp(t, 2)
    const samplers = start()
    await samplers.apply([wanted(9), wanted(2, { skipSw: true }), wanted(2, { direction: 'egress' })])
    assert.deepEqual(
      samplers.status().map(({ sampling }) => sampling),
      [false, false, true],
    )
    assert.match(samplers.status()[1]!.note!, /set sw = on/)
  })

  test('removed by others: repaired, at growing intervals', async t => {
    const { kernel, start } = setUp(t, 2)
    const samplers = start({ least: 5, most: 40 })
    await samplers.apply([wanted(2)])
    await sleep(20)
    const pauses: number[] = []
    for (let round = 1; round <= 5; round++) {
      const before = performance.now()
      kernel.remove(filter => filter.ifIndex === 2)
      await until(`repair ${round}`, () => kernel.filters.length === 1 && samplers.repairs === round)
      pauses.push(performance.now() - before)
    }
    for (const [round, least] of [4, 9, 19, 39, 39].entries()) {
      assert.ok(pauses[round]! >= least, `pause ${round}: ${pauses[round]} ms`)
    }
  })

  test('filters of others are never asked to go', async t => {
    const { kernel, start } = setUp(t, 2)
    kernel.qdiscs.set(2, 'clsact')
    kernel.addForeign(2, CLSACT_INGRESS, 49152)
    kernel.addForeign(2, CLSACT_INGRESS, 3)
    const samplers = start()
    await samplers.apply([wanted(2)])
    assert.equal(samplers.status()[0]!.preference, 2)
    await samplers.stop()
    assert.deepEqual(
      kernel.filters.map(({ preference }) => preference),
      [49152, 3],
    )
    assert.equal(kernel.qdiscs.get(2), 'clsact')
  })

  test('a clsact of ours that others use by now stays', async t => {
    const { kernel, start } = setUp(t, 2)
    const samplers = start()
    await samplers.apply([wanted(2)])
    kernel.addForeign(2, CLSACT_EGRESS, 5)
    await samplers.stop()
    assert.equal(kernel.qdiscs.get(2), 'clsact')
    assert.deepEqual(
      kernel.filters.map(({ kind }) => kind),
      ['flower'],
    )
  })

  test('after a crash: a clsact that was made for samplers goes with them, another one stays', async t => {
    const { kernel, start } = setUp(t, 2, 3)
    kernel.qdiscs.set(3, 'clsact')
    await start().apply([wanted(2), wanted(3)])
    await start().apply([])
    assert.deepEqual(kernel.filters, [])
    assert.deepEqual([...kernel.qdiscs], [[3, 'clsact']])
  })

  test('after a crash: the same action goes on, a changed one is set right, one too many goes', async t => {
    const { kernel, start } = setUp(t, 2, 3, 4)
    await start().apply([wanted(2), wanted(3), wanted(4)])
    const [kept, changed] = kernel.filters.map(({ action }) => action!.index)
    kernel.pass(2, 5_000_000_000n)
    kernel.filters[1]!.action!.rate = 5
    const next = start()
    await next.apply([wanted(2), wanted(3)])
    assert.deepEqual(await next.counts(), [
      { ifIndex: 2, direction: 'ingress', packets: 0n, bytes: 0n },
      { ifIndex: 3, direction: 'ingress', packets: 0n, bytes: 0n },
    ])
    assert.deepEqual(
      kernel.filters.map(({ ifIndex, action }) => [ifIndex, action!.index, action!.rate]),
      [
        [2, kept, 400],
        [3, changed, 400],
      ],
    )
    kernel.pass(2, 1n)
    await next.apply([wanted(2, { skipHw: true }), wanted(3)])
    assert.equal(next.gaps, 1)
    kernel.pass(2, 1n)
    assert.deepEqual((await next.counts())[0], { ifIndex: 2, direction: 'ingress', packets: 2n, bytes: 200n })
  })

  test('counts: all of a new sampler, also when its action gets the index of the one before', async t => {
    const { kernel, start } = setUp(t, 2)
    const samplers = start()
    await samplers.apply([wanted(2)])
    kernel.pass(2, 5n)
    await samplers.apply([wanted(2, { skipHw: true })])
    assert.deepEqual(
      kernel.filters.map(({ action }) => action!.index),
      [1],
    )
    kernel.pass(2, 20n)
    assert.equal((await samplers.counts())[0]!.packets, 25n)
  })

  test('counts: not of interfaces where hardware samples and does not count', async t => {
    const { kernel, start } = setUp(t, 2, 3)
    kernel.offload = true
    kernel.hardwareCounts = false
    const samplers = start()
    await samplers.apply([
      wanted(2),
      wanted(2, { direction: 'egress', group: 2, skipHw: true }),
      wanted(3, { skipHw: true }),
    ])
    kernel.pass(2, 1000n, 3n)
    kernel.pass(3, 7n)
    const software = { ifIndex: 3, direction: 'ingress', packets: 7n, bytes: 700n } as const
    assert.deepEqual(await samplers.counts(), [software])
    kernel.hardwareCounts = true
    kernel.pass(2, 500n)
    const counts = [
      { ifIndex: 2, direction: 'ingress', packets: 503n, bytes: 50_300n },
      { ifIndex: 2, direction: 'egress', packets: 1500n, bytes: 150_000n },
      software,
    ]
    assert.deepEqual(await samplers.counts(), counts)
    await samplers.apply([])
    assert.deepEqual(await samplers.counts(), counts, 'what passed before the removal')
  })

  test('two of ours at one hook: one is too many', async t => {
    const { kernel, start } = setUp(t, 2)
    const samplers = start()
    await samplers.apply([wanted(2)])
    const [filter] = kernel.filters
    kernel.filters.push({ ...filter!, preference: 7, action: { ...filter!.action!, index: 99 } })
    await samplers.apply([wanted(2, { rate: 401 })])
    assert.equal(kernel.filters.length, 1)
    assert.equal(kernel.filters[0]!.action!.rate, 401)
  })

  test('PSAMPLE cannot carry the ifIndex: a group for the interface alone, as long as it needs one', async t => {
    const { kernel, interfaces, start } = setUp(t, 2, 65_600)
    const samplers = start()
    await samplers.apply([wanted(2), wanted(65_600), wanted(65_600, { direction: 'egress', group: 2 })])
    const groups = () => samplers.status().map(({ group }) => group)
    const [shared, ingress, egress] = groups() as [number, number, number]
    assert.equal(shared, 1)
    assert.equal(new Set([1, 2, ingress, egress]).size, 4)
    assert.deepEqual(
      kernel.filters.map(({ action }) => action!.group),
      [1, ingress, egress],
    )
    assert.deepEqual(samplers.portOfGroup(egress), { ifIndex: 65_600, direction: 'egress' })
    assert.equal(samplers.portOfGroup(1), undefined)

    kernel.interfaces.add(65_538)
    interfaces.add(65_538)
    await until('own group', () => groups()[0] !== 1 && samplers.status()[0]!.sampling)
    interfaces.remove(65_538)
    await until('shared group', () => groups()[0] === 1 && samplers.status()[0]!.sampling)
    assert.equal(kernel.filters[0]!.action!.group, 1)
    assert.equal(samplers.repairs, 0)
  })

  test('cookies: only those of this instance, and of samplers that are wanted', async t => {
    const { start } = setUp(t, 2)
    const samplers = start()
    await samplers.apply([wanted(2)])
    const portOf = (bytes: Uint8Array, length = bytes.length) => {
      const padded = Uint8Array.from([9, 9, 9, ...bytes])
      return samplers.portOfCookie(new DataView(padded.buffer), 3, length)
    }
    const cookie = { instance: INSTANCE, ifIndex: 2, direction: 'ingress' } as const
    assert.deepEqual(portOf(makeCookie(cookie)), { ifIndex: 2, direction: 'ingress' })
    assert.equal(portOf(makeCookie({ ...cookie, instance: 1 })), undefined)
    assert.equal(portOf(makeCookie({ ...cookie, ifIndex: 3 })), undefined)
    assert.equal(portOf(makeCookie(cookie), 15), undefined)
    assert.equal(portOf(makeCookie(cookie).with(0, 0)), undefined)
    assert.equal(portOf(makeCookie(cookie).with(4, 2)), undefined)
    assert.equal(portOf(makeCookie(cookie).with(5, 2)), undefined)
  })

  test('an interface that goes is forgotten, with its counts', async t => {
    const { kernel, interfaces, start } = setUp(t, 2, 3)
    const samplers = start()
    await samplers.apply([wanted(2), wanted(3)])
    kernel.interfaces.delete(2)
    kernel.filters = kernel.filters.filter(({ ifIndex }) => ifIndex !== 2)
    interfaces.remove(2)
    assert.deepEqual(
      samplers.status().map(({ ifIndex }) => ifIndex),
      [3],
    )
    assert.deepEqual(
      (await samplers.counts()).map(({ ifIndex }) => ifIndex),
      [3],
    )
  })

  test('calls that overlap: the last one holds', async t => {
    const { kernel, start } = setUp(t, 2, 3)
    const samplers = start()
    await Promise.all([
      samplers.apply([wanted(2), wanted(3)]),
      samplers.apply([wanted(2, { rate: 5 })]),
      samplers.apply([wanted(3, { rate: 6 })]),
    ])
    assert.deepEqual(
      kernel.filters.map(({ ifIndex, action }) => [ifIndex, action!.rate]),
      [[3, 6]],
    )
    const last = samplers.apply([wanted(2)])
    await samplers.stop()
    await last
    assert.deepEqual(kernel.filters, [])
  })

  test('what is asked for during the stop, and after it, is not placed', async t => {
    const { kernel, start } = setUp(t, 2, 3, 4, 5)
    const samplers = start()
    const all = [2, 3, 4, 5].map(ifIndex => wanted(ifIndex))
    await samplers.apply(all)
    const stopped = samplers.stop()
    while (!kernel.requests.includes('delFilter 2')) await Promise.resolve()
    await samplers.apply(all)
    await stopped
    await samplers.apply(all)
    assert.deepEqual(kernel.filters, [])
    assert.deepEqual([...kernel.qdiscs], [])
    assert.deepEqual(samplers.status(), [])
  })

  test('a stop in the middle of a repair leaves nothing', async t => {
    const { kernel, start } = setUp(t, 2)
    const samplers = start()
    await samplers.apply([wanted(2), wanted(2, { direction: 'egress', group: 2 })])
    const { requests } = kernel
    let stopped: Promise<void> | undefined
    requests.push = (...added) => {
      if (added.includes('newFilter 2')) stopped ??= samplers.stop()
      return Array.prototype.push.apply(requests, added)
    }
    kernel.remove(filter => filter.parent === CLSACT_INGRESS)
    await until('the repair', () => stopped !== undefined)
    await stopped
    assert.deepEqual(kernel.filters, [])
    assert.deepEqual([...kernel.qdiscs], [])
  })

  test('what the kernel shows is not what was asked for: said, not trusted', async t => {
    const { kernel, start } = setUp(t, 2)
    const samplers = start()
    const filters = kernel.filters
    filters.push = (...added) => {
      for (const { action } of added) action!.control = 3
      return Array.prototype.push.apply(filters, added)
    }
    await samplers.apply([wanted(2)])
    assert.match(samplers.status()[0]!.note!, /does not show it as it was asked for/)
    assert.equal(samplers.status()[0]!.sampling, false)
    assert.notEqual(filters[0]!.flags & FILTER_FLAG.notInHw, 0)
  })
})
