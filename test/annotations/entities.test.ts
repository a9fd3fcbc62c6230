import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { EntityAnnotator } from '../../agent/annotations/entities.ts'
import { ABSENT, emptyPacketSample, HEADER_PROTOCOL } from '../../agent/samples/packet-sample.ts'

const MAC = { host: '020000000001', one: '020000000011', two: '020000000012', other: '0200000000ff' }

/** An Ethernet frame with an IPv4 or IPv6 header, in hex. */
function frame(from: keyof typeof MAC, to: keyof typeof MAC, packet: string): string {
  return MAC[to] + MAC[from] + (packet.startsWith('4') ? '0800' : '86dd') + packet
}

function ip4(source: string, destination: string, protocol = '11', payload = '0001000200080000'): string {
  return `4500001c0000400040${protocol}0000${source}${destination}${payload}`
}

function ip6(source: string, destination: string): string {
  return `6000000000081140${source}${destination}0001000200080000`
}

const ONE = 'cb007211'
const TWO = 'cb007212'
const FAR = 'c0000201'
const ONE6 = '20010db8000000000000000000000011'
const FAR6 = '20010db8000000000000000000000099'
/** Its last four bytes are those of ONE6. */
const ALIKE6 = '20010db8000000010000000000000011'

/** Source and destination that are told of a packet; `innerAt`: where an inner header begins, and its network. */
function told(annotator: EntityAnnotator, hex: string, innerAt = ABSENT, vni = ABSENT): [number, number] {
  const bytes = Buffer.from(hex, 'hex')
  const words = new Int32Array(Math.ceil(bytes.length / 4) + 4)
  new Uint8Array(words.buffer).set(bytes, 8)
  const sample = {
    ...emptyPacketSample(),
    headerProtocol: HEADER_PROTOCOL.ethernet,
    headerWords: words,
    headerOffset: 8,
    headerLength: bytes.length,
    innerOffset: innerAt,
    innerVni: vni,
    sourceEntity: 7,
    destinationEntity: 7,
  }
  annotator.annotate(sample)
  return [sample.sourceEntity, sample.destinationEntity]
}

function annotatorOf(...groups: Parameters<EntityAnnotator['setEntities']>[0][number][]): EntityAnnotator {
  const annotator = new EntityAnnotator()
  annotator.setEntities(groups)
  return annotator
}

const one = { index: 100_001, addresses: ['203.0.114.17', '2001:db8::11'], macs: ['02:00:00:00:00:11'] }
const two = { index: 100_002, addresses: ['203.0.114.18'], macs: ['02:00:00:00:00:12'] }

describe('entities of a sampled packet', () => {
  const annotator = annotatorOf([one, two])

  for (const [name, hex, expected] of [
    ['from one to far away', frame('one', 'host', ip4(ONE, FAR)), [100_001, 0]],
    ['from far away to two', frame('host', 'two', ip4(FAR, TWO)), [0, 100_002]],
    ['between them', frame('one', 'two', ip4(ONE, TWO)), [100_001, 100_002]],
    ['by IPv6', frame('host', 'one', ip6(FAR6, ONE6)), [0, 100_001]],
    [
      'by the address of the adapter, where the IP addresses are of others',
      frame('two', 'host', ip4(FAR, FAR)),
      [100_002, 0],
    ],
    ['of nobody here', frame('host', 'other', ip4(FAR, FAR)), [0, 0]],
    ['with an address that ends alike', frame('host', 'other', ip6(ALIKE6, FAR6)), [0, 0]],
    ['that is cut off', frame('one', 'host', ip4(ONE, FAR)).slice(0, 40), [100_001, 0]],
    ['that is nothing', '00', [0, 0]],
  ] as const) {
    test(name, () => assert.deepEqual(told(annotator, hex), expected))
  }

  test('the inner header comes first', () => {
    const outer = frame('host', 'other', ip4(FAR, FAR, '04', ''))
    assert.deepEqual(told(annotator, outer + ip4(ONE, TWO), 34), [100_001, 100_002])
    const between = frame('one', 'two', ip4(ONE, FAR, '11', ''))
    assert.deepEqual(told(annotator, between + frame('two', 'other', ip4(FAR, FAR)), 34, 5), [100_002, 0])
    // One that tells nothing leaves it to the outer one.
    assert.deepEqual(told(annotator, between + frame('host', 'other', ip4(FAR, FAR)), 34, 5), [100_001, 0])
  })

  test('an address that two have tells nothing', () => {
    const twins = annotatorOf([one, { ...two, addresses: ['203.0.114.17'] }])
    assert.deepEqual(told(twins, frame('host', 'other', ip4(ONE, FAR))), [0, 0])
    // An earlier group has it for itself.
    const first = annotatorOf([one], [{ ...two, addresses: ['203.0.114.17'] }])
    assert.deepEqual(told(first, frame('host', 'other', ip4(ONE, FAR))), [100_001, 0])
  })

  test('nobody is there, or not any more', () => {
    const annotator = new EntityAnnotator()
    assert.deepEqual(told(annotator, frame('one', 'two', ip4(ONE, TWO))), [0, 0])
    annotator.setEntities([[one]])
    assert.deepEqual(told(annotator, frame('one', 'two', ip4(ONE, TWO))), [100_001, 0])
    annotator.setEntities([])
    assert.deepEqual(told(annotator, frame('one', 'two', ip4(ONE, TWO))), [0, 0])
  })
})
