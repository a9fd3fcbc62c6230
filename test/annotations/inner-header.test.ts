import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { InnerHeaderAnnotator } from '../../agent/annotations/inner-header.ts'
import { ABSENT } from '../../agent/samples/packet-sample.ts'
import { packetSample } from '../support/packet-samples.ts'

const annotator = new InnerHeaderAnnotator()
annotator.enabled = true

/** Inner offset and network of a packet in hex; it lies at `offset` of its memory. */
function told(hex: string, { protocol = 1, offset = 0 } = {}): [number, number] {
  const bytes = Buffer.from(hex.replace(/\s/g, ''), 'hex')
  const memory = new Uint8Array((offset + bytes.length + 7) & ~3)
  memory.set(bytes, offset)
  const sample = packetSample(64, {
    headerProtocol: protocol,
    headerWords: new Int32Array(memory.buffer),
    headerOffset: offset,
    headerLength: bytes.length,
  })
  annotator.annotate(sample)
  return [sample.innerOffset, sample.innerVni]
}

const MACS = '020000000001 020000000002'
const ip4 = (protocol: string, options = '') =>
  `4${(5 + options.length / 8).toString(16)}000064 00004000 40${protocol}0000 c0000201 c0000202 ${options}`
const udp = (port: string) => `c000${port}00500000`
const INNER = '0200000000aa 0200000000bb 0800 45000030'
const VNI = '08000000 00002a00'

const cases: readonly [
  name: string,
  hex: string,
  expected: [number, number],
  where?: { protocol?: number; offset?: number },
][] = [
  ['VXLAN', `${MACS} 0800 ${ip4('11')} ${udp('12b5')} ${VNI} ${INNER}`, [50, 42]],
  ['VXLAN on the port of old', `${MACS} 0800 ${ip4('11')} ${udp('2118')} ${VNI} ${INNER}`, [50, 42]],
  [
    'VXLAN behind a tag and IP options',
    `${MACS} 8100000a 0800 ${ip4('11', '01010101')} ${udp('12b5')} ${VNI} ${INNER}`,
    [58, 42],
  ],
  [
    'VXLAN elsewhere in memory',
    `${MACS} 0800 ${ip4('11')} ${udp('12b5')} ${VNI} ${INNER}`,
    [50, 42],
    { offset: 24 },
  ],
  [
    'VXLAN over IPv6, without a link header',
    `60000000 0050 11 40 ${'20010db8000000000000000000000001'.repeat(2)} ${udp('12b5')} ${VNI} ${INNER}`,
    [56, 42],
    { protocol: 12 },
  ],
  ['VXLAN cut behind its own header', `${MACS} 0800 ${ip4('11')} ${udp('12b5')} ${VNI}`, [ABSENT, 42]],
  ['VXLAN cut inside it', `${MACS} 0800 ${ip4('11')} ${udp('12b5')} 0800`, [ABSENT, ABSENT]],
  [
    'Geneve with options',
    `${MACS} 0800 ${ip4('11')} ${udp('17c1')} 02006558 00002a00 0102030400000001 ${INNER}`,
    [58, 42],
  ],
  ['GRE', `${MACS} 0800 ${ip4('2f')} 00000800 45000030`, [38, ABSENT]],
  [
    'GRE with all fields',
    `${MACS} 0800 ${ip4('2f')} b0000800 00000000 00000007 00000001 45000030`,
    [50, ABSENT],
  ],
  ['NVGRE', `${MACS} 0800 ${ip4('2f')} 20006558 00002a05 ${INNER}`, [42, 42]],
  [
    'PPTP is GRE of another version',
    `${MACS} 0800 ${ip4('2f')} 2001880b 00000001 45000030`,
    [ABSENT, ABSENT],
  ],
  ['IP in IP', `${MACS} 0800 ${ip4('04')} 45000030`, [34, ABSENT]],
  ['IPv6 in IP', `${MACS} 0800 ${ip4('29')} 60000000`, [34, ABSENT]],
  ['plain UDP', `${MACS} 0800 ${ip4('11')} ${udp('0035')} ${VNI} ${INNER}`, [ABSENT, ABSENT]],
  ['ARP', `${MACS} 0806 0001080006040001`, [ABSENT, ABSENT]],
]

describe('the inner header of tunnelled packets', () => {
  for (const [name, hex, expected, where] of cases) {
    test(name, () => assert.deepEqual(told(hex, where), expected))
  }

  test('nothing is told unless it is asked for', () => {
    const off = new InnerHeaderAnnotator()
    const sample = packetSample(64, { innerOffset: 7, innerVni: 8 })
    off.annotate(sample)
    assert.deepEqual([sample.innerOffset, sample.innerVni], [ABSENT, ABSENT])
  })

  test('what is told lies inside the header, whatever it is', () => {
    const tunnels = cases.map(([, hex]) => Buffer.from(hex.replace(/\s/g, ''), 'hex'))
    fc.assert(
      fc.property(
        fc.constantFrom(...tunnels),
        fc.nat(80),
        fc.array(fc.tuple(fc.nat(79), fc.nat(255)), { maxLength: 4 }),
        (tunnel, length, changes) => {
          const bytes = Buffer.from(tunnel)
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
          const [offset] = told(bytes.subarray(0, length).toString('hex'))
          assert.ok(offset < Math.max(Math.min(length, bytes.length), 1))
        },
      ),
    )
  })
})
