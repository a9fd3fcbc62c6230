import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Ledger } from '../../agent/health/ledger.ts'
import { type Drop, NAMES_MOST, Names } from '../../agent/samples/drop.ts'
import { DropAlerts, type DropAlertsOptions } from '../../agent/sources/drop-alerts.ts'
import { dropMessage, hardwareDrop, softwareDrop } from '../support/drop-alert.ts'
import { type Attribute, frame, u16, u32 } from '../support/psample-message.ts'

function setUp(options: Partial<DropAlertsOptions> = {}) {
  const drops: Drop[] = []
  let lost = 0
  const ledger = new Ledger()
  const under = new DropAlerts({
    software: true,
    hardware: true,
    interfaces: { byIndex: new Set([2, 3, 9]), isLayer3: ifIndex => ifIndex === 9 },
    ledger,
    sink: drop => drops.push({ ...drop }),
    onLost: count => {
      lost += count
    },
    ...options,
  })
  const receive = (attributes: readonly Attribute[], command?: number) => {
    const bytes = dropMessage(attributes, command)
    const start = 64
    const memory = new ArrayBuffer(start + bytes.length + 64)
    new Uint8Array(memory).set(bytes, start)
    under.receive(new DataView(memory), new Int32Array(memory), start, start + bytes.length)
  }
  return { under, drops, ledger, receive, lost: () => lost }
}

const port = (ifIndex: number): Uint8Array => Uint8Array.from(Buffer.concat([u16(8), u16(0), u32(ifIndex)]))

describe('alerts become drops', () => {
  test('software', () => {
    const { drops, receive } = setUp()
    receive(softwareDrop())
    const [drop] = drops
    assert.equal(drop!.hardware, false)
    assert.equal(drop!.inputIfIndex, 2)
    assert.equal(drop!.outputIfIndex, 0)
    assert.equal(drop!.headerProtocol, 1)
    assert.equal(drop!.frameLength, 146)
    assert.equal(drop!.stripped, 4)
    assert.equal(drop!.reason!.text, 'NO_SOCKET')
    assert.equal(drop!.symbol!.text, 'udp_queue_rcv_one_skb+0x1a5/0x550')
    assert.equal(drop!.trap, undefined)
    const bytes = new Uint8Array(drop!.headerWords.buffer, drop!.headerOffset, drop!.headerLength)
    assert.deepEqual(bytes, frame(128))
  })

  test('hardware', () => {
    const { drops, receive } = setUp()
    receive(hardwareDrop())
    assert.equal(drops[0]!.hardware, true)
    assert.equal(drops[0]!.inputIfIndex, 3)
    assert.equal(drops[0]!.trap!.text, 'source_mac_is_multicast')
    assert.equal(drops[0]!.trapGroup!.text, 'l2_drops')
    assert.equal(drops[0]!.reason, undefined)
  })

  test('an interface of another namespace is not known', () => {
    const { drops, receive } = setUp()
    receive(softwareDrop({ 4: port(77) }))
    assert.equal(drops[0]!.inputIfIndex, 0)
  })

  test('an interface without link header', () => {
    const { drops, receive } = setUp()
    receive(softwareDrop({ 4: port(9) }))
    receive(softwareDrop({ 4: port(9), 6: u16(0x86dd) }))
    assert.deepEqual(
      drops.map(({ headerProtocol, frameLength, stripped }) => [headerProtocol, frameLength, stripped]),
      [
        [11, 142, 0],
        [12, 142, 0],
      ],
    )
  })

  test('packets shorter than an Ethernet header, and empty ones', () => {
    const { drops, receive } = setUp()
    receive(softwareDrop({ 10: u32(9), 7: frame(9) }))
    receive(softwareDrop({ 10: u32(0), 7: undefined, 6: undefined }))
    assert.deepEqual(
      drops.map(({ headerLength, frameLength }) => [headerLength, frameLength]),
      [
        [9, 13],
        [0, 4],
      ],
    )
  })

  test('what is not wanted, and summaries, are left to others', () => {
    const { under, drops, receive, lost } = setUp({ software: false })
    receive(softwareDrop())
    receive([[0, new Uint8Array(16)]], 1)
    receive(hardwareDrop())
    assert.equal(drops.length, 1)
    assert.equal(under.foreign, 2)
    assert.equal(under.messages, 3)
    assert.equal(lost(), 0)
  })

  test('a malformed alert is counted and told of, with its place', () => {
    const { under, drops, ledger, receive, lost } = setUp()
    receive(softwareDrop({ 14: undefined }))
    assert.equal(drops.length, 0)
    assert.equal(ledger.total('drop-monitor'), 1)
    assert.equal(lost(), 1)
    assert.equal(under.takeProblem(), 'ORIGIN is missing at byte offset 0 of the message')
    assert.equal(under.takeProblem(), undefined)
  })
})

describe('names', () => {
  test('each is kept once', () => {
    const names = new Names()
    const first = names.of('NO_SOCKET')
    assert.equal(names.of('NO_SOCKET'), first)
    assert.notEqual(names.of('NO_SOCKETS'), first)
    assert.equal(names.of(''), undefined)
  })

  test('long ones are cut to 64 bytes', () => {
    const name = new Names().of('x'.repeat(100))!
    assert.equal(name.text, 'x'.repeat(64))
    assert.equal(name.bytes.length, 64)
  })

  test('a full table knows what it knows, and nothing new', () => {
    const names = new Names()
    for (let i = 1; i < NAMES_MOST; i++) assert.equal(names.of(`name ${i}`)!.id, i)
    assert.equal(names.of('one more'), undefined)
    assert.equal(names.of('name 7')!.id, 7)
  })
})
