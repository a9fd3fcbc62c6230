import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Classifier, type ClassifierOptions } from '../../agent/drops/classifier.ts'
import { type Drop, emptyDrop, Names } from '../../agent/samples/drop.ts'
import { udpFrame } from '../support/frames.ts'

const names = new Names()
const MACS = { to: '02:00:00:00:00:01', from: '02:00:00:00:00:02' }

function packet(frame: Partial<Parameters<typeof udpFrame>[0]> = {}): Uint8Array {
  return udpFrame({ ...MACS, source: '192.0.2.2', destination: '192.0.2.1', ...frame })
}

interface Words {
  readonly reason?: string
  readonly symbol?: string
  readonly trap?: string
  readonly group?: string
}

function drop({ reason = '', symbol = '', trap = '', group = '' }: Words, frame = packet()): Drop {
  const memory = new Uint8Array(4 + frame.length + (-frame.length & 3))
  memory.set(frame, 4)
  return {
    ...emptyDrop(),
    hardware: trap !== '' || group !== '',
    inputIfIndex: 2,
    etherType: 0x0800,
    headerWords: new Int32Array(memory.buffer),
    headerOffset: 4,
    headerLength: frame.length,
    reason: names.of(reason),
    symbol: names.of(symbol),
    trap: names.of(trap),
    trapGroup: names.of(group),
  }
}

function classify(what: Drop, options: Partial<ClassifierOptions> = {}) {
  const under = new Classifier({
    reasonNames: true,
    unknownTraps: false,
    host: true,
    hide: undefined,
    ...options,
  })
  const { label, code, leftOut } = under.classify(what)
  return { label, code, leftOut }
}

describe('software drops', () => {
  const rows: readonly [name: string, words: Words, code: number, leftOut?: string][] = [
    ['a reason by its name', { reason: 'NO_SOCKET', symbol: 'udp_queue_rcv_skb+0x1/0x2' }, 3],
    ['the reason counts more than the function', { reason: 'TC_EGRESS', symbol: 'tcp_v4_rcv+0x1/0x2' }, 366],
    ['dev_hdr has its own number', { reason: 'DEV_HDR' }, 332],
    ['a reason that nobody knows yet', { reason: 'BRAND_NEW', symbol: 'tcp_v4_rcv+0x1/0x2' }, 256],
    ['a family of reasons', { reason: 'RX_DROP_U_MIC_FAIL' }, 284],
    ['no reason: the function', { symbol: 'br_allowed_ingress+0x1/0x2 [bridge]' }, 265],
    ['not specified: the function', { reason: 'NOT_SPECIFIED', symbol: 'nf_hook_slow+0xb2/0xd0' }, 258],
    ['a function that nobody knows', { reason: 'NOT_SPECIFIED', symbol: 'my_driver_xmit+0x1/0x2' }, 256],
    ['a symbol that does not resolve', { reason: 'NOT_SPECIFIED', symbol: '0xffffffffc0123456' }, 256],
    ['neither reason nor function', {}, 256],
    ['normal end of life', { reason: 'SKB_CONSUMED' }, 256, 'noise'],
    [
      'teardown, by its function',
      { reason: 'NOT_SPECIFIED', symbol: 'unix_release_sock+0x1/0x2' },
      256,
      'noise',
    ],
    ['frames for others', { reason: 'OTHERHOST' }, 305, 'noise'],
  ]
  for (const [name, words, code, leftOut] of rows) {
    test(name, () => {
      const verdict = classify(drop(words))
      assert.equal(verdict.code, code)
      assert.equal(verdict.leftOut, leftOut)
    })
  }

  test('TTL expiry that the kernel calls a wrong header', () => {
    const words = { reason: 'IP_INHDR', symbol: 'ip_forward+0x1a5/0x550' }
    assert.deepEqual(classify(drop(words, packet({ ttl: 1 }))), {
      label: 'IP_INHDR: ttl_exceeded',
      code: 257,
      leftOut: undefined,
    })
    assert.equal(classify(drop(words, packet({ ttl: 1, vlan: 5 }))).code, 257)
    assert.equal(classify(drop(words, packet({ ttl: 2 }))).code, 275)
    assert.equal(classify(drop({ ...words, symbol: 'ip_rcv_core+0x1/0x2' }, packet({ ttl: 1 }))).code, 275)
    assert.equal(classify(drop({ symbol: words.symbol }, packet({ ttl: 1 }))).code, 257)
  })

  test('hop limit of IPv6', () => {
    const frame = new Uint8Array(64)
    frame.set([0x86, 0xdd, 0x60], 12)
    frame[14 + 7] = 1
    assert.equal(classify(drop({ reason: 'IP_INHDR', symbol: 'ip6_forward+0x1/0x2' }, frame)).code, 257)
  })

  test('which source is invalid', () => {
    const of = (source: string) => classify(drop({ reason: 'IP_INVALID_SOURCE' }, packet({ source }))).code
    assert.deepEqual(['224.0.0.1', '255.255.255.255', '0.0.0.0', '240.0.0.1'].map(of), [273, 276, 290, 285])
  })

  test('which address is a loopback address', () => {
    const of = (options: object) => classify(drop({ reason: 'IP_LOCALNET' }, packet(options))).code
    assert.deepEqual([{ source: '127.0.0.1' }, { destination: '127.8.8.8' }, {}].map(of), [274, 272, 285])
  })

  test('a bridge port that does not forward', () => {
    const words = { reason: 'NOT_SPECIFIED', symbol: 'br_handle_frame+0x1/0x2 [bridge]' }
    assert.equal(classify(drop(words)).code, 266)
    assert.equal(classify(drop(words, packet({ from: '03:00:00:00:00:02' }))).code, 263)
    assert.equal(classify(drop({ ...words, symbol: 'br_handle_frame_finish+0x1/0x2' })).code, 284)
  })

  test('packets too short to be looked into keep the first code', () => {
    const words = { reason: 'IP_INHDR', symbol: 'ip_forward+0x1/0x2' }
    for (const length of [0, 1, 13, 14, 15, 22]) {
      assert.equal(classify(drop(words, packet({ ttl: 1 }).subarray(0, length))).code, 275, `${length} bytes`)
    }
  })

  test('buffers that never were packets', () => {
    const buffer = { ...drop({ reason: 'NOT_SPECIFIED' }), inputIfIndex: 0, etherType: 0 }
    assert.equal(classify(buffer).leftOut, 'noise')
    assert.equal(classify({ ...buffer, etherType: 0x86dd }).leftOut, undefined)
    assert.equal(classify({ ...buffer, inputIfIndex: 2 }).leftOut, undefined)
  })

  test('rn = off: the function decides', () => {
    const words = { reason: 'TC_INGRESS', symbol: 'nf_hook_slow+0x1/0x2' }
    assert.equal(classify(drop(words), { reasonNames: false }).code, 258)
  })

  test('host = off', () => {
    assert.equal(classify(drop({ reason: 'NO_SOCKET' }), { host: false }).leftOut, 'host')
    assert.equal(classify(drop({ reason: 'NETFILTER_DROP' }), { host: false }).leftOut, undefined)
  })

  test('hide looks at reason, function and trap', () => {
    const hidden = (words: Words, hide: RegExp) => classify(drop(words), { hide }).leftOut === 'hidden'
    assert.ok(hidden({ reason: 'NO_SOCKET' }, /^NO_/))
    assert.ok(hidden({ reason: 'TCP_FLAGS', symbol: 'tcp_v4_rcv+0x1/0x2' }, /^tcp_v4_rcv/))
    assert.ok(hidden({ trap: 'tail_drop', group: 'buffer_drops' }, /tail/))
    assert.ok(!hidden({ trap: 'tail_drop', group: 'buffer_drops' }, /^buffer/))
  })
})

describe('hardware drops', () => {
  const rows: readonly [name: string, words: Words, unknownTraps: boolean, code: number, leftOut?: string][] =
    [
      ['a trap by its name', { trap: 'tail_drop', group: 'buffer_drops' }, false, 259],
      ['the trap counts more than its group', { trap: 'irif_disabled', group: 'acl_drops' }, false, 285],
      ['a trap that only its group is known of', { trap: 'fid_miss', group: 'l2_drops' }, false, 284],
      ['parser errors are errors', { trap: 'new_parsing', group: 'parser_error_drops' }, false, 323],
      ['control packets', { trap: 'igmp_query', group: 'mc_snooping' }, false, 256, 'noise'],
      ['an unknown group', { trap: 'odd', group: 'odder' }, false, 256, 'unknown-trap'],
      ['an unknown group, with hw_unknown', { trap: 'odd', group: 'odder' }, true, 256],
      ['no trap, only a group', { group: 'l3_drops' }, false, 285],
    ]
  for (const [name, words, unknownTraps, code, leftOut] of rows) {
    test(name, () => {
      const verdict = classify(drop(words), { unknownTraps })
      assert.equal(verdict.code, code)
      assert.equal(verdict.leftOut, leftOut)
    })
  }
})

test('a verdict is made once', () => {
  const under = new Classifier({ reasonNames: true, unknownTraps: false, host: true, hide: undefined })
  const first = under.classify(drop({ reason: 'NO_SOCKET', symbol: 'a+0x1/0x2' }))
  assert.equal(under.classify(drop({ reason: 'NO_SOCKET', symbol: 'b+0x1/0x2' })), first)
  assert.equal(under.verdict(first.id), first)
})
