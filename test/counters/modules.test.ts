import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type AskModule, askByNetlink, Modules } from '../../agent/counters/modules.ts'
import type { Interface } from '../../agent/interfaces.ts'
import { NetlinkError } from '../../agent/kernel/netlink-socket.ts'
import { parseAttributes } from '../../agent/wire/netlink/attributes.ts'
import { genlRequest, type Message, messageType } from '../../agent/wire/netlink/message.ts'
import { port } from '../support/port.ts'

const FAMILY = 21
const MODULE_EEPROM_GET = 31
const MODULE_EEPROM_REPLY = 32
const ERRNO = { EPERM: 1, EIO: 5, ENXIO: 6, EOPNOTSUPP: 95, ETIMEDOUT: 110 } as const
const INTERVAL_MS = 300_000

/** Temperatures of SFP modules by ifIndex, in °C; a negative number is an errno. */
type Cages = Record<number, number>

/** In place of the kernel: request bytes in, reply out, as net/ethtool/eeprom.c checks and answers them. */
function kernel(cages: Cages) {
  const asked: number[] = []
  const request = async (bytes: Uint8Array, operation: string): Promise<Message | undefined> => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    assert.equal(messageType(view, 0), FAMILY)
    assert.equal(view.getUint8(16), MODULE_EEPROM_GET)
    const attributes = parseAttributes(view, 20, bytes.length)
    const ifIndex = attributes.nest(1)!.u32(1)!
    const [offset, length] = [attributes.u32(2)!, attributes.u32(3)!]
    const [page, bank, address] = [attributes.u8(4)!, attributes.u8(5)!, attributes.u8(6)!]
    assert.ok(length > 0 && length <= 128 && offset + length <= 256)
    assert.ok(offset >= 128 || offset + length <= 128, 'a request may not cross the middle of a page')
    assert.ok(page === 0 || offset >= 128, 'the lower half belongs to page 0')
    assert.ok(address === 0x50 || address === 0x51)
    assert.equal(bank, 0)
    if (address === 0x50) asked.push(ifIndex)
    await turn()
    const cage = cages[ifIndex]!
    if (cage < 0) throw new NetlinkError(-cage, operation)
    const memory = new Uint8Array(256)
    if (address === 0x50) memory.set([0x03], 0)
    if (address === 0x50) memory.set([0x68], 92)
    if (address === 0x51) memory.set([cage, 0], 96)
    const reply = genlRequest(FAMILY, MODULE_EEPROM_REPLY, 1)
      .nest(1, header => header.u32(1, ifIndex).text(2, `swp${ifIndex}`))
      .bytes(7, memory.subarray(offset, offset + length))
      .build()
    return { type: FAMILY, flags: 0, view: new DataView(reply.buffer) }
  }
  return { ask: askByNetlink(FAMILY, request), asked, cages }
}

function modules(ask: AskModule, clock: { ms: number } = { ms: 0 }) {
  return new Modules(ask, () => {}, { intervalMs: INTERVAL_MS, now: () => clock.ms })
}

async function settle(): Promise<void> {
  for (let i = 0; i < 30; i++) await turn()
}

describe('sfp', () => {
  test('what was read is told at each poll, and read again when it is old', async () => {
    const { ask, asked, cages } = kernel({ 7: 40 })
    const clock = { ms: 1000 }
    const reader = modules(ask, clock).reader(() => port(7, 'swp7'))
    assert.equal(reader.read(), undefined, 'nothing has been read yet')
    await settle()
    const first = await reader.read()
    assert.equal(first!.module_id, 7)
    assert.equal(first!.module_temperature, 40_000)
    cages[7] = 45
    clock.ms += INTERVAL_MS - 1
    assert.equal((await reader.read())!.module_temperature, 40_000)
    await settle()
    assert.equal(asked.length, 1)
    clock.ms += 1
    assert.equal((await reader.read())!.module_temperature, 40_000)
    await settle()
    assert.equal((await reader.read())!.module_temperature, 45_000)
    assert.equal(asked.length, 2)
  })

  test('modules are read one after the other, and an empty cage costs the others nothing', async () => {
    const { ask, asked } = kernel({ 1: -ERRNO.EIO, 2: 20, 3: -ERRNO.ETIMEDOUT, 4: -ERRNO.ENXIO, 5: 50 })
    let underWay = 0
    const one: AskModule = async (ifIndex, part) => {
      assert.equal(underWay++, 0)
      return ask(ifIndex, part).finally(() => underWay--)
    }
    const all = modules(one)
    const readers = [1, 2, 3, 4, 5].map(index => all.reader(() => port(index, `swp${index}`)))
    for (const reader of readers) assert.equal(reader.read(), undefined)
    await settle()
    const answers = await Promise.all(readers.map(reader => reader.read()))
    assert.deepEqual(
      answers.map(answer => answer?.module_temperature),
      [undefined, 20_000, undefined, undefined, 50_000],
    )
    assert.deepEqual(asked, [1, 2, 3, 4, 5])
  })

  test('a module that is pulled is told no more; one that brings a link is read soon', async () => {
    const { ask, asked, cages } = kernel({ 7: 40 })
    const clock = { ms: 0 }
    let now: Interface = port(7, 'swp7')
    const reader = modules(ask, clock).reader(() => now)
    reader.read()
    await settle()
    assert.ok(reader.read())
    cages[7] = -ERRNO.EIO
    now = { ...now, operUp: false }
    clock.ms += INTERVAL_MS
    reader.read()
    await settle()
    assert.equal(reader.read(), undefined)
    cages[7] = 30
    clock.ms += 20_000
    reader.read()
    await settle()
    assert.equal(asked.length, 2, 'no link, and not old yet')
    now = { ...now, operUp: true }
    reader.read()
    await settle()
    assert.equal((await reader.read())!.module_temperature, 30_000)
  })

  test('a driver that reads no modules is asked once', async () => {
    const { ask, asked } = kernel({ 7: -ERRNO.EOPNOTSUPP })
    const clock = { ms: 0 }
    const reader = modules(ask, clock).reader(() => port(7, 'eth0'))
    for (let poll = 0; poll < 5; poll++) {
      assert.equal(reader.read(), undefined)
      await settle()
      clock.ms += INTERVAL_MS
    }
    assert.equal(asked.length, 1)
  })

  test('without the capability the error is told once for each try', async () => {
    const { ask } = kernel({ 7: -ERRNO.EPERM })
    const reader = modules(ask).reader(() => port(7, 'eth0'))
    reader.read()
    await settle()
    assert.throws(() => reader.read(), { message: /^read the module of interface 7: EPERM/ })
    assert.equal(reader.read(), undefined)
  })

  test('an answer cut short is an error that says so', async () => {
    const { ask } = kernel({ 7: 40 })
    const short: AskModule = askByNetlink(FAMILY, async () => {
      const reply = genlRequest(FAMILY, MODULE_EEPROM_REPLY, 1).bytes(7, new Uint8Array(64)).build()
      return { type: FAMILY, flags: 0, view: new DataView(reply.buffer) }
    })
    await assert.rejects(short(7, { address: 0x50, bank: 0, page: 3, offset: 128, length: 128 }), {
      message: 'read the module of interface 7: 64 bytes of page 3 instead of 128',
    })
    assert.equal((await ask(7, { address: 0x50, bank: 0, page: 0, offset: 0, length: 128 }))[0], 3)
  })

  test('virtual interfaces are not asked', async () => {
    const { ask, asked } = kernel({ 7: 40 })
    const reader = modules(ask).reader(() => port(7, 'v0', { kind: 'veth' }))
    assert.equal(reader.read(), undefined)
    await settle()
    assert.equal(asked.length, 0)
  })

  test('the kernel here: no interface of a namespace has a module', async t => {
    const real = (await Modules.open({ intervalMs: INTERVAL_MS }))!
    t.after(() => real.close())
    const reader = real.reader(() => port(1, 'lo'))
    reader.read()
    for (let i = 0; i < 50; i++) await new Promise(resolve => setTimeout(resolve, 2))
    assert.equal(reader.read(), undefined)
  })
})
