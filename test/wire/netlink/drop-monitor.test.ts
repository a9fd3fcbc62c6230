import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  configureDropMonitor,
  DROP_ORIGIN,
  emptyDropAlert,
  getDropMonitorConfig,
  getDropMonitorStats,
  isPacketAlert,
  readDropAlert,
  readDropMonitorConfig,
  readDropMonitorStats,
  startDropMonitor,
  stopDropMonitor,
} from '../../../agent/wire/netlink/drop-monitor.ts'
import { dropMessage, hardwareDrop, softwareDrop } from '../../support/drop-alert.ts'
import { type Attribute, frame, u16, u32, u64 } from '../../support/psample-message.ts'

function read(attributes: readonly Attribute[], cut = 0) {
  const bytes = dropMessage(attributes)
  const alert = emptyDropAlert()
  const ok = readDropAlert(new DataView(bytes.buffer), 0, bytes.length - cut, alert)
  const textAt = (offset: number, length: number) =>
    Buffer.from(bytes).toString('utf8', offset, offset + length)
  return { ok, alert, bytes, textAt }
}

describe('drop alerts', () => {
  test('every attribute of a software drop', () => {
    const { ok, alert, bytes, textAt } = read(softwareDrop())
    assert.equal(ok, true, alert.problem)
    assert.equal(alert.origin, DROP_ORIGIN.software)
    assert.equal(alert.inputIfIndex, 2)
    assert.equal(alert.originalLength, 142)
    assert.equal(alert.protocol, 0x0800)
    assert.deepEqual(bytes.subarray(alert.dataOffset, alert.dataOffset + alert.dataLength), frame(128))
    assert.equal(alert.dataOffset % 4, 0)
    assert.equal(textAt(alert.reasonOffset, alert.reasonLength), 'NO_SOCKET')
    assert.equal(textAt(alert.symbolOffset, alert.symbolLength), 'udp_queue_rcv_one_skb+0x1a5/0x550')
    assert.equal(alert.trapLength, 0)
    assert.equal(alert.trapGroupLength, 0)
    const time = (BigInt(alert.timestampHigh) << 32n) | BigInt(alert.timestampLow)
    assert.equal(time, 1_700_000_000_123_456_789n)
  })

  test('every attribute of a hardware drop', () => {
    const { ok, alert, textAt } = read(hardwareDrop())
    assert.equal(ok, true, alert.problem)
    assert.equal(alert.origin, DROP_ORIGIN.hardware)
    assert.equal(alert.inputIfIndex, 3)
    assert.equal(textAt(alert.trapOffset, alert.trapLength), 'source_mac_is_multicast')
    assert.equal(textAt(alert.trapGroupOffset, alert.trapGroupLength), 'l2_drops')
    assert.equal(alert.reasonLength, 0)
  })

  const absent: readonly [name: string, changes: Record<number, Uint8Array | undefined>][] = [
    ['port', { 4: undefined }],
    ['what is in the port', { 4: new Uint8Array(0) }],
    ['protocol and payload', { 6: undefined, 7: undefined }],
    ['reason', { 23: undefined }],
    ['symbol', { 3: undefined }],
    ['timestamp', { 5: undefined }],
  ]
  for (const [name, changes] of absent) {
    test(`without ${name}: what is absent does not linger from the one before`, () => {
      const alert = emptyDropAlert()
      for (const full of [softwareDrop(), hardwareDrop()]) {
        const bytes = dropMessage(full)
        assert.ok(readDropAlert(new DataView(bytes.buffer), 0, bytes.length, alert))
      }
      const bytes = dropMessage(softwareDrop(changes))
      assert.ok(readDropAlert(new DataView(bytes.buffer), 0, bytes.length, alert), alert.problem)
      const fresh = read(softwareDrop(changes)).alert
      const lengths = ['dataLength', 'reasonLength', 'symbolLength', 'trapLength', 'trapGroupLength'] as const
      for (const field of [
        ...lengths,
        'inputIfIndex',
        'protocol',
        'timestampHigh',
        'timestampLow',
      ] as const) {
        assert.equal(alert[field], fresh[field], field)
      }
    })
  }

  const bad: readonly [name: string, attributes: Attribute[], problem: RegExp, at: number | undefined][] = [
    ['no origin', softwareDrop({ 14: undefined }), /ORIGIN is missing/, 0],
    ['another origin', softwareDrop({ 14: u16(2) }), /ORIGIN is neither/, 0],
    ['no length', softwareDrop({ 10: undefined }), /ORIG_LEN is missing/, 0],
    ['origin of another size', [[14, u32(0)]], /ORIGIN is not 2 bytes/, 20],
    ['length of another size', [[10, u16(0)]], /ORIG_LEN is not 4 bytes/, 20],
    ['protocol of another size', [[6, u32(0)]], /PROTO is not 2 bytes/, 20],
    ['timestamp of another size', [[5, u32(0)]], /TIMESTAMP is not 8 bytes/, 20],
    ['ifIndex of another size', [[4, Uint8Array.from([6, 0, 0, 0, 1, 0, 0, 0])]], /ifIndex of IN_PORT/, 24],
    ['port cut short', [[4, Uint8Array.from([9, 0, 0, 0, 1, 0, 0, 0])]], /IN_PORT is cut short/, 24],
    ['more bytes than the packet has', softwareDrop({ 10: u32(60) }), /PAYLOAD is longer/, undefined],
  ]
  for (const [name, attributes, problem, at] of bad) {
    test(name, () => {
      const { ok, alert } = read(attributes)
      assert.equal(ok, false)
      assert.match(alert.problem, problem)
      if (at !== undefined) assert.equal(alert.problemOffset, at)
    })
  }

  test('cut anywhere, it is refused', () => {
    const { length } = dropMessage(softwareDrop())
    for (let cut = 1; cut < length; cut++) {
      if (length - cut < 4) continue
      assert.equal(read(softwareDrop(), cut).ok, false, `${cut} bytes cut`)
    }
  })

  test('any bytes: no exception, and places inside of the message', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 24, maxLength: 200 }), body => {
        const bytes = new Uint8Array(20 + body.length)
        bytes.set(body, 20)
        new DataView(bytes.buffer).setUint32(0, bytes.length, true)
        const alert = emptyDropAlert()
        if (readDropAlert(new DataView(bytes.buffer), 0, bytes.length, alert)) {
          assert.ok(alert.dataLength === 0 || alert.dataOffset + alert.dataLength <= bytes.length)
        } else assert.ok(alert.problemOffset >= 0 && alert.problemOffset < bytes.length)
      }),
    )
  })

  test('a summary is no packet alert', () => {
    const isAlert = (bytes: Uint8Array) => isPacketAlert(new DataView(bytes.buffer), 0, bytes.length)
    assert.equal(isAlert(dropMessage(softwareDrop())), true)
    assert.equal(isAlert(dropMessage([[0, new Uint8Array(16)]], 1)), false)
    assert.equal(isAlert(new Uint8Array(10)), false)
  })
})

describe('requests', () => {
  const of = (bytes: Uint8Array) => Buffer.from(bytes.subarray(16)).toString('hex')
  const rows: readonly [name: string, bytes: Uint8Array, hex: string][] = [
    ['CONFIG_GET', getDropMonitorConfig(33), '06020000'],
    ['STATS_GET', getDropMonitorStats(33), '08020000'],
    ['START software', startDropMonitor(33, 'software'), '0302000004001400'],
    ['START hardware', startDropMonitor(33, 'hardware'), '0302000004001500'],
    ['STOP software', stopDropMonitor(33, 'software'), '0402000004001400'],
    [
      'CONFIG',
      configureDropMonitor(33, { packets: true, truncateBytes: 128, queueLength: 1000 }),
      '02020000' + '0500010001000000' + '0800090080000000' + '08000b00e8030000',
    ],
  ]
  for (const [name, bytes, hex] of rows) test(name, () => assert.equal(of(bytes), hex))

  const reply = (attributes: readonly Attribute[]) => {
    const bytes = dropMessage(attributes, 7)
    return { type: 33, flags: 0, view: new DataView(bytes.buffer) }
  }

  test('the configuration', () => {
    const attributes: Attribute[] = [
      [1, Uint8Array.of(1)],
      [9, u32(128)],
      [11, u32(1000)],
    ]
    assert.deepEqual(readDropMonitorConfig(reply(attributes)), {
      packets: true,
      truncateBytes: 128,
      queueLength: 1000,
    })
    assert.throws(() => readDropMonitorConfig(reply(attributes.slice(1))), { code: 'missing' })
  })

  test('the statistics, both feeds or one', () => {
    const nest = (value: bigint) => Uint8Array.from(Buffer.concat([u16(12), u16(0), u64(value)]))
    const both: Attribute[] = [
      [12, nest(5n)],
      [13, nest(7n)],
    ]
    assert.equal(readDropMonitorStats(reply(both)), 12)
    assert.equal(readDropMonitorStats(reply(both.slice(0, 1))), 5)
  })
})
