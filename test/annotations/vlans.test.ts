import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type BridgePort, VlanAnnotator } from '../../agent/annotations/vlans.ts'
import { ABSENT } from '../../agent/samples/packet-sample.ts'
import { packetSample } from '../support/packet-samples.ts'

const port = (pvid: number, ...members: number[]): BridgePort => ({
  pvid,
  only: members.length === 1 ? members[0]! : 0,
  has: vid => members.includes(vid),
})
/** 2 and 3 are trunks, 4 an access port, 5 a VLAN interface; all others are nothing of that kind. */
const ports = new Map([
  [2, port(30, 10, 20, 30)],
  [3, port(0, 10, 20)],
  [4, port(20, 20)],
])
const { annotate } = new VlanAnnotator({
  bridgePort: ifIndex => ports.get(ifIndex),
  vlanOf: ifIndex => (ifIndex === 5 ? 77 : 0),
})

interface Case {
  readonly name: string
  readonly input: number
  readonly output: number
  readonly at: 'input' | 'output'
  /** Tag protocol and control information in the header. */
  readonly tag?: readonly [number, number]
  readonly tagKept?: boolean
  /** VLAN and priority at the input, and at the output. */
  readonly expected: readonly [number, number, number, number]
}

const cases: readonly Case[] = [
  {
    name: 'a tag on a trunk',
    input: 2,
    output: 3,
    at: 'input',
    tag: [0x8100, 0xa014],
    expected: [20, 5, 20, 5],
  },
  { name: 'a service tag', input: 2, output: 0, at: 'input', tag: [0x88a8, 10], expected: [10, 0, -1, -1] },
  { name: 'no tag: that of the port', input: 2, output: 3, at: 'input', expected: [30, 0, -1, -1] },
  {
    name: 'a tag for priority only',
    input: 2,
    output: 0,
    at: 'input',
    tag: [0x8100, 0xe000],
    expected: [30, 7, -1, -1],
  },
  { name: 'no tag and no VLAN for such', input: 3, output: 2, at: 'input', expected: [-1, -1, -1, -1] },
  {
    name: 'a tag that may be gone',
    input: 2,
    output: 3,
    at: 'input',
    tagKept: false,
    expected: [-1, -1, -1, -1],
  },
  {
    name: 'the same where there is no choice',
    input: 4,
    output: 3,
    at: 'input',
    tagKept: false,
    expected: [20, 0, 20, 0],
  },
  { name: 'no bridge', input: 9, output: 8, at: 'input', tag: [0x8100, 0x2005], expected: [5, 1, -1, -1] },
  { name: 'no bridge, no tag', input: 9, output: 8, at: 'input', expected: [-1, -1, -1, -1] },
  { name: 'a VLAN interface', input: 5, output: 8, at: 'input', expected: [77, -1, -1, -1] },
  {
    name: 'sampled at the output',
    input: 4,
    output: 2,
    at: 'output',
    tag: [0x8100, 0x6014],
    expected: [20, -1, 20, 3],
  },
  { name: 'out without a tag', input: 2, output: 4, at: 'output', expected: [20, -1, 20, -1] },
  {
    name: 'out to a VLAN that the input has not',
    input: 4,
    output: 2,
    at: 'output',
    tag: [0x8100, 10],
    expected: [-1, -1, 10, 0],
  },
]

for (const { name, input, output, at, tag, tagKept = true, expected } of cases) {
  test(name, () => {
    const sample = packetSample(64, {
      dataSource: at === 'input' ? input : output,
      inputIfIndex: input,
      outputIfIndex: output,
      tagKept,
    })
    const header = new DataView(sample.headerWords.buffer)
    header.setUint16(12, tag?.[0] ?? 0x0800)
    if (tag !== undefined) header.setUint16(14, tag[1])
    annotate(sample)
    const found = [sample.inputVlan, sample.inputPriority, sample.outputVlan, sample.outputPriority]
    assert.deepEqual(found, expected)
  })
}

test('a header that ends before its tag, and one without a link header', () => {
  for (const changes of [{ headerLength: 15 }, { headerProtocol: 11 }]) {
    const sample = packetSample(64, { inputIfIndex: 9, dataSource: 9, tagKept: true, ...changes })
    new DataView(sample.headerWords.buffer).setUint32(12, 0x8100_0014)
    annotate(sample)
    assert.equal(sample.inputVlan, ABSENT)
  }
})
