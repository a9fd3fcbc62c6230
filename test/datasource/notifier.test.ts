import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Notifier } from '../../agent/datasource/notifier.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { type Drop, emptyDrop, Names } from '../../agent/samples/drop.ts'
import { findRecord } from '../../agent/wire/sflow/block.ts'
import { decodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import { discardedPacketOf } from '../../agent/wire/sflow/samples.ts'
import { frame } from '../support/psample-message.ts'

const names = new Names()

function drop(reason: string, fields: Partial<Drop> = {}): Drop {
  const header = frame(128)
  return {
    ...emptyDrop(),
    inputIfIndex: 2,
    etherType: 0x0800,
    frameLength: 146,
    stripped: 4,
    headerWords: new Int32Array(header.buffer),
    headerLength: header.length,
    reason: names.of(reason),
    ...fields,
  }
}

function setUp({ limit = 100, maxBytes = 1400, headerBytes = 128 } = {}) {
  const datagrams: Uint8Array[] = []
  const under = new Datagrams(
    { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes, flushMs: 250 },
    (memory, spans, count) => {
      for (let i = 0; i < count; i++) {
        datagrams.push(new Uint8Array(memory.slice(spans[i * 2]!, spans[i * 2]! + spans[i * 2 + 1]!)))
      }
    },
    () => 0,
  )
  const ledger = new Ledger()
  const notifier = new Notifier({ datagrams: under, ledger, now: () => 0 })
  const settings = { reasonNames: true, unknownTraps: false, host: true, hide: /^HIDDEN/, headerBytes, limit }
  notifier.change(settings)
  const samples = () => {
    under.stop()
    return datagrams.flatMap(bytes =>
      decodeDatagram(bytes).samples.map(block => {
        assert.ok('records' in block)
        return { ...discardedPacketOf(block)!, header: findRecord(block.records, sampledHeader)! }
      }),
    )
  }
  const losses = () => Object.fromEntries(ledger.entries().map(({ cause, count }) => [cause, count]))
  return { notifier, settings, samples, losses }
}

describe('the notifier', () => {
  test('numbers all drops as one source', () => {
    const { notifier, samples } = setUp()
    notifier.accept(drop('NO_SOCKET'))
    notifier.accept(drop('IP_CSUM', { inputIfIndex: 3, outputIfIndex: 4 }))
    const [first, second] = samples()
    assert.deepEqual([first!.sequence_number, second!.sequence_number], [1, 2])
    assert.deepEqual(second!.source_id, { type: 0, index: 0 })
    assert.deepEqual([second!.inputifindex, second!.outputifindex], [3, 4])
    assert.deepEqual([first!.reason, second!.reason], [3, 275])
  })

  test('drops tells of what was held back or lost before the sample', () => {
    const { notifier, samples, losses } = setUp({ limit: 10 })
    for (let i = 0; i < 30; i++) notifier.accept(drop('NO_SOCKET'))
    notifier.lost(5)
    notifier.accept(drop('IP_CSUM'))
    const seen = samples()
    assert.equal(seen.length, 10)
    assert.equal(seen.at(-1)!.drops, 21 + 5)
    assert.equal(losses().suppressed, 21)
    assert.equal(notifier.offered, notifier.exported + 21)
    assert.deepEqual(notifier.counts(), [
      { reason: 'NO_SOCKET', code: 3, ifIndex: 2, offered: 30, suppressed: 21 },
      { reason: 'IP_CSUM', code: 275, ifIndex: 2, offered: 1, suppressed: 0 },
    ])
  })

  test('what a source held back, left out or lost by itself is counted as if it had come', () => {
    const { notifier, samples, losses } = setUp()
    const verdict = notifier.accept(drop('NO_SOCKET'))
    notifier.heldBack(verdict, 2, 1000)
    notifier.heldBack(notifier.judge(drop('HIDDEN_REASON')), 2, 10)
    notifier.lostOf(verdict, 3, 4)
    notifier.leftOutBefore('noise', 7)
    notifier.accept(drop('NO_SOCKET'))
    assert.equal(samples().at(-1)!.drops, 1004)
    assert.deepEqual(notifier.leftOut, {
      noise: 7,
      host: 0,
      hidden: 10,
      'unknown-trap': 0,
      'own-datagram': 0,
    })
    assert.equal(losses().suppressed, 1000)
    assert.equal(notifier.offered, notifier.exported + 1000 + 17)
    assert.deepEqual(notifier.counts(), [
      { reason: 'NO_SOCKET', code: 3, ifIndex: 2, offered: 1002, suppressed: 1000 },
      { reason: 'NO_SOCKET', code: 3, ifIndex: 3, offered: 4, suppressed: 4 },
    ])
  })

  test('what was to leave by an interface is counted there', () => {
    const { notifier } = setUp()
    notifier.accept(drop('NEIGH_FAILED', { inputIfIndex: 0, outputIfIndex: 5 }))
    assert.deepEqual(
      notifier.counts().map(({ ifIndex }) => ifIndex),
      [5],
    )
  })

  test('a reason that nobody knows goes by its name', () => {
    const { notifier } = setUp()
    notifier.accept(drop('UNKNOWN_0x3e7'))
    assert.deepEqual(
      notifier.counts().map(({ reason, code }) => [reason, code]),
      [['UNKNOWN_0x3e7', 256]],
    )
    assert.equal(notifier.leftOutByReason('UNKNOWN_0x3e7'), undefined)
    assert.equal(notifier.leftOutByReason('HIDDEN_REASON'), 'hidden')
    assert.equal(notifier.leftOutByReason('QUEUE_PURGE'), 'noise')
    assert.equal(notifier.leftOutByReason('NOT_SPECIFIED'), undefined)
  })

  test('what is left out takes no share and is counted by its cause', () => {
    const { notifier, samples } = setUp({ limit: 2 })
    for (let i = 0; i < 50; i++) {
      notifier.accept(drop('SKB_CONSUMED'))
      notifier.accept(drop('HIDDEN_REASON'))
      notifier.accept(drop('', { hardware: true, trap: names.of('odd') }))
    }
    notifier.accept(drop('NO_SOCKET'))
    assert.deepEqual(
      samples().map(({ reason, drops }) => [reason, drops]),
      [[3, 0]],
    )
    assert.deepEqual(notifier.leftOut, {
      noise: 50,
      host: 0,
      hidden: 50,
      'unknown-trap': 50,
      'own-datagram': 0,
    })
  })

  test('headers are cut to what is asked for, and to what a datagram holds', () => {
    const asked = setUp({ headerBytes: 60 })
    asked.notifier.accept(drop('NO_SOCKET'))
    assert.equal(asked.samples()[0]!.header.header.length, 60)
    const small = setUp({ maxBytes: 200 })
    small.notifier.accept(drop('NO_SOCKET'))
    assert.equal(small.samples()[0]!.header.header.length, 84)
  })

  test('one that does not fit is counted', () => {
    const { notifier, samples, losses } = setUp({ maxBytes: 200 })
    notifier.accept(drop('x'.repeat(64), { symbol: names.of('y'.repeat(64)) }))
    assert.equal(losses()['too-long'], 1)
    notifier.accept(drop('NO_SOCKET'))
    assert.deepEqual(
      samples().map(({ sequence_number, drops }) => [sequence_number, drops]),
      [[1, 1]],
    )
  })

  test('other settings: numbers and sums go on', () => {
    const { notifier, settings, samples } = setUp({ limit: 1 })
    notifier.accept(drop('NO_SOCKET'))
    notifier.accept(drop('NO_SOCKET'))
    notifier.change({ ...settings, hide: /NO_SOCKET/ })
    notifier.accept(drop('NO_SOCKET'))
    notifier.accept(drop('IP_CSUM'))
    assert.deepEqual(
      samples().map(({ sequence_number, drops, reason }) => [sequence_number, drops, reason]),
      [
        [1, 0, 3],
        [2, 1, 275],
      ],
    )
    assert.equal(notifier.offered, 4)
    assert.equal(notifier.leftOut.hidden, 1)
  })
})
