import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { NetlinkFormatError } from '../../../agent/wire/netlink/attributes.ts'
import { type Message, MessageBuilder } from '../../../agent/wire/netlink/message.ts'
import { RTM } from '../../../agent/wire/netlink/rt.ts'
import {
  addClsact,
  addSampler,
  CLSACT_EGRESS,
  CLSACT_INGRESS,
  CONTINUE,
  deleteClsact,
  deleteSampler,
  dumpFilters,
  dumpQdiscs,
  dumpSampleActions,
  ETH_P_ALL,
  FILTER_FLAG,
  interfaceOfTc,
  readFilter,
  readQdisc,
  readSampleActions,
  retuneSample,
} from '../../../agent/wire/netlink/tc.ts'

const recorded: Record<'qdiscs' | 'filters' | 'actions' | 'notifications', string[]> = JSON.parse(
  readFileSync(new URL('tc-recorded.json', import.meta.url), 'utf8'),
)

function message(bytes: Uint8Array): Message {
  const buffer = new Uint8Array(bytes.length + 24)
  buffer.set(bytes, 8)
  const view = new DataView(buffer.buffer, 8, bytes.length)
  return { type: view.getUint16(4, true), flags: view.getUint16(6, true), view }
}

const messages = (list: readonly string[]) => list.map(bytes => message(Buffer.from(bytes, 'hex')))
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const cookie = Uint8Array.from([...Buffer.from('weir'), 1, 0, 0, 0, 0xa0, 0x86, 1, 0, 2, 0, 0, 0])

describe('tc requests', () => {
  // length, type, flags, sequence, port; tcmsg or tcamsg; attributes. Written down from the kernel's headers.
  const rows: readonly [name: string, bytes: Uint8Array, expected: string[]][] = [
    [
      'add clsact',
      addClsact(2),
      [
        '30000000240001060000000000000000',
        '00000000020000000000fffff1ffffff00000000',
        '0b000100636c736163740000',
      ],
    ],
    [
      'delete clsact',
      deleteClsact(2),
      [
        '30000000250001000000000000000000',
        '00000000020000000000fffff1ffffff00000000',
        '0b000100636c736163740000',
      ],
    ],
    [
      'all qdiscs',
      dumpQdiscs(),
      ['24000000260001030000000000000000', '0000000000000000000000000000000000000000'],
    ],
    [
      'filters at egress',
      dumpFilters(2, CLSACT_EGRESS),
      ['240000002e0001030000000000000000', '000000000200000000000000f3ffffff00000000'],
    ],
    [
      'delete one filter',
      deleteSampler({ ifIndex: 2, parent: CLSACT_INGRESS, preference: 10, protocol: ETH_P_ALL, handle: 1 }),
      [
        '340000002d0001000000000000000000',
        '000000000200000001000000f2ffffff00030a00',
        '0d0001006d61746368616c6c00000000',
      ],
    ],
    [
      'add a sampler',
      addSampler({
        ifIndex: 2,
        parent: CLSACT_INGRESS,
        preference: 10,
        handle: 1,
        flags: FILTER_FLAG.skipSw,
        rate: 400,
        group: 1,
        truncate: 128,
        cookie,
      }),
      [
        '9c0000002c0001060000000000000000',
        '000000000200000001000000f2ffffff00030a00',
        '0d0001006d61746368616c6c00000000',
        '68000280', // options
        '5c000280', // actions
        '58000180', // the first
        '0b00010073616d706c650000', // kind
        '34000280', // its options
        '18000200' + '0000000000000000ffffffff0000000000000000', // control -1
        '0800030090010000',
        '0800050001000000',
        '0800040080000000',
        '14000600' + '7765697201000000a086010002000000',
        '0800030002000000', // skip_sw
      ],
    ],
    [
      'change an action; no length takes whole packets',
      retuneSample(7, { rate: 800, group: 2, truncate: 0 }, cookie),
      [
        '68000000300001050000000000000000',
        '00000000',
        '54000180',
        '50000180',
        '0b00010073616d706c650000',
        '2c000280',
        '18000200' + '0700000000000000ffffffff0000000000000000',
        '0800030020030000',
        '0800050002000000',
        '14000600' + '7765697201000000a086010002000000',
      ],
    ],
    [
      'all sample actions',
      dumpSampleActions(),
      [
        '34000000320001030000000000000000',
        '00000000',
        '14000180',
        '10000180',
        '0b00010073616d706c650000',
        '0c000200' + '0100000001000000',
      ],
    ],
  ]
  for (const [name, bytes, expected] of rows) {
    test(name, () => assert.equal(hex(bytes), expected.join('')))
  }

  test('a preference or rate out of range is never sent cut to size', () => {
    const sampler = {
      ifIndex: 2,
      parent: CLSACT_INGRESS,
      preference: 10,
      handle: 1,
      flags: 0,
      group: 1,
      truncate: 0,
      cookie,
    }
    assert.throws(() => addSampler({ ...sampler, rate: 2 ** 32 }), RangeError)
    assert.throws(() => addSampler({ ...sampler, rate: 0.5 }), RangeError)
    assert.throws(() => addSampler({ ...sampler, rate: 1, preference: 65536 }), RangeError)
  })
})

describe('recorded from a 6.12 kernel', () => {
  test('qdiscs', () => {
    const qdiscs = messages(recorded.qdiscs).map(readQdisc)
    assert.deepEqual(
      qdiscs.map(({ ifIndex, kind }) => [ifIndex, kind]),
      [
        [1, 'noqueue'],
        [2, 'noqueue'],
        [2, 'clsact'],
      ],
    )
    assert.deepEqual(qdiscs[2], {
      ifIndex: 2,
      handle: 0xffff0000,
      parent: 0xfffffff1,
      kind: 'clsact',
      ingressBlock: undefined,
      egressBlock: undefined,
    })
  })

  const place = { ifIndex: 2, parent: CLSACT_INGRESS, chain: 0 }
  const action = {
    index: 1,
    control: CONTINUE,
    rate: 400,
    group: 1,
    truncate: 128,
    cookie,
    stats: { packets: 7n, bytes: 896n, hasHardwarePart: false },
  }

  test('filters: our own in full, of the others the place', () => {
    const matchall = { ...place, preference: 10, protocol: ETH_P_ALL, kind: 'matchall' }
    const flower = {
      ...place,
      preference: 100,
      protocol: 0x0800,
      kind: 'flower',
      flags: 0,
      sample: undefined,
    }
    assert.deepEqual(messages(recorded.filters).map(readFilter), [
      { ...matchall, handle: 0, flags: 0, sample: undefined },
      { ...matchall, handle: 1, flags: FILTER_FLAG.notInHw, sample: action },
      { ...flower, handle: 0 },
      { ...flower, handle: 1 },
    ])
  })

  test('actions by themselves', () => {
    assert.deepEqual(messages(recorded.actions).flatMap(readSampleActions), [action])
  })

  test('notifications', () => {
    const list = messages(recorded.notifications)
    const [changed] = list.filter(({ type }) => type === RTM.newAction).flatMap(readSampleActions)
    assert.deepEqual(changed, { ...action, rate: 800, group: 2, truncate: 64 })
    const [deleted] = list.filter(({ type }) => type === RTM.delFilter).map(readFilter)
    assert.equal(deleted!.handle, 1)
    assert.equal(deleted!.sample!.rate, 800)
    const tc = list.filter(({ type }) => type <= RTM.getFilter && type >= RTM.newQdisc)
    assert.deepEqual(
      tc.map(interfaceOfTc),
      tc.map(() => 2),
    )
  })
})

/** A filter message of this kind with these attributes behind it. */
function filterMessage(kind: string, build: (builder: MessageBuilder) => void): Uint8Array<ArrayBuffer> {
  const builder = new MessageBuilder(RTM.newFilter, 0, new Uint8Array(20)).text(1, kind)
  build(builder)
  return builder.build()
}

/** The same with a sample action: `options` and `stats` are inside. */
function sampleMessage(
  options: (options: MessageBuilder) => void,
  stats: (stats: MessageBuilder) => void = () => {},
): Uint8Array<ArrayBuffer> {
  return filterMessage('matchall', filter =>
    filter.nest(2, matchall =>
      matchall.nest(2, actions =>
        actions.nest(1, action => action.text(1, 'sample').nest(2, options).nest(4, stats)),
      ),
    ),
  )
}

describe('actions of other shapes', () => {
  test('several actions of one filter are not a sampler', () => {
    const bytes = filterMessage('matchall', filter =>
      filter.nest(2, matchall =>
        matchall.nest(2, actions => {
          actions.nest(1, action =>
            action.text(1, 'sample').nest(2, options => options.bytes(2, new Uint8Array(20))),
          )
          actions.nest(2, action => action.text(1, 'gact'))
        }),
      ),
    )
    assert.equal(readFilter(message(bytes)).sample, undefined)
  })

  test('another kind of filter may use the same attribute numbers for something else', () => {
    const bytes = filterMessage('flower', filter => filter.nest(2, options => options.u8(2, 1).u8(3, 1)))
    assert.equal(readFilter(message(bytes)).kind, 'flower')
  })

  test('an action without cookie, rate and statistics', () => {
    const { sample } = readFilter(message(sampleMessage(options => options.bytes(2, new Uint8Array(20)))))
    assert.deepEqual(sample, {
      index: 0,
      control: 0,
      rate: 0,
      group: 0,
      truncate: 0,
      cookie: new Uint8Array(0),
      stats: { packets: 0n, bytes: 0n, hasHardwarePart: false },
    })
  })

  test('more packets than 32 bits: once for all, once for the hardware', () => {
    const basic = new DataView(new ArrayBuffer(16))
    basic.setBigUint64(0, 1n << 50n, true)
    basic.setUint32(8, 5, true)
    const bytes = sampleMessage(
      options => options.bytes(2, new Uint8Array(20)),
      stats =>
        stats
          .bytes(1, new Uint8Array(basic.buffer))
          .u64(8, (1n << 32n) + 5n)
          .bytes(7, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0))
          .u64(8, 3n),
    )
    assert.deepEqual(readFilter(message(bytes)).sample!.stats, {
      packets: (1n << 32n) + 5n,
      bytes: 1n << 50n,
      hasHardwarePart: true,
    })
  })
})

describe('malformed', () => {
  const rows: readonly [name: string, bytes: Uint8Array, code: string, offset: number][] = [
    ['a filter shorter than its header', new Uint8Array(35), 'wrong-size', 0],
    [
      'parameters of 19 bytes',
      sampleMessage(options => options.bytes(2, new Uint8Array(19))),
      'wrong-size',
      80,
    ],
    [
      'a rate of 2 bytes',
      sampleMessage(options => options.bytes(2, new Uint8Array(20)).u16(3, 1)),
      'wrong-size',
      104,
    ],
    [
      'statistics of 8 bytes',
      sampleMessage(
        options => options.bytes(2, new Uint8Array(20)),
        stats => stats.bytes(1, new Uint8Array(8)),
      ),
      'wrong-size',
      108,
    ],
    [
      'flags of 1 byte',
      filterMessage('matchall', filter => filter.nest(2, matchall => matchall.u8(3, 1))),
      'wrong-size',
      56,
    ],
    ['two kinds', filterMessage('matchall', filter => filter.text(1, 'flower')), 'repeated', 52],
  ]
  for (const [name, bytes, code, offset] of rows) {
    test(name, () => {
      assert.throws(
        () => readFilter(message(bytes)),
        (error: unknown) => {
          assert.ok(error instanceof NetlinkFormatError, `${error}`)
          assert.deepEqual({ code: error.code, offset: error.offset }, { code, offset })
          return true
        },
      )
    })
  }

  test('any byte changed, any length cut: read, or refused at a place inside', () => {
    const all = [...recorded.filters, ...recorded.actions, ...recorded.qdiscs].map(bytes =>
      Buffer.from(bytes, 'hex'),
    )
    fc.assert(
      fc.property(fc.nat(all.length - 1), fc.nat(400), fc.nat(255), fc.nat(400), (which, at, value, cut) => {
        const bytes = Uint8Array.from(all[which]!.subarray(0, Math.max(16, all[which]!.length - cut)))
        if (at < bytes.length) bytes[at] = value
        for (const read of [readFilter, readSampleActions, readQdisc, interfaceOfTc]) {
          try {
            read(message(bytes))
          } catch (error) {
            assert.ok(error instanceof NetlinkFormatError, `${error}`)
            assert.ok(error.offset >= 0 && error.offset <= bytes.length)
          }
        }
      }),
      { numRuns: 1000 },
    )
  })
})
