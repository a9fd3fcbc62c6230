import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { datagramText } from '../../agent/decode/text.ts'
import { type RecordBlock, recordOf, type SampleBlock } from '../../agent/wire/sflow/block.ts'
import { hostParent } from '../../agent/wire/sflow/counters/host.ts'
import { portName } from '../../agent/wire/sflow/counters/interface.ts'
import { bstDeviceBuffers } from '../../agent/wire/sflow/counters/vendor.ts'
import { type Datagram, decodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import { extendedRouter } from '../../agent/wire/sflow/flow/extended.ts'
import { sampledHeader } from '../../agent/wire/sflow/flow/header.ts'
import { countersSampleExpanded, flowSampleExpanded, type Interface } from '../../agent/wire/sflow/samples.ts'

const ROOT = join(import.meta.dirname, '../vectors/sflow')

for (const name of readdirSync(ROOT).filter(entry => !entry.includes('.'))) {
  test(`${name} as text (UPDATE=1 rewrites)`, () => {
    const hex = readFileSync(join(ROOT, name, 'bytes.hex'), 'utf8')
      .replace(/^#.*$/gm, '')
      .replace(/\s/g, '')
    const bytes = Buffer.from(hex, 'hex')
    const text = datagramText(decodeDatagram(bytes), bytes.length)
    const golden = join(ROOT, name, 'text')
    if (process.env.UPDATE === '1') writeFileSync(golden, text)
    assert.equal(text, readFileSync(golden, 'utf8'))
  })
}

const AGENT = { agent_address: '', sub_agent_id: 7, sequence_number: 1, uptime: 90_061_001 }

/** The lines below the first one. */
function lines(sample: SampleBlock): string[] {
  const datagram: Datagram = { ...AGENT, samples: [sample] }
  const [first, ...rest] = datagramText({ ...datagram, problems: [] }, 28)
    .trimEnd()
    .split('\n')
  assert.equal(first, 'datagram 1 of agent unknown sub-agent 7, up 90061.001 s, 28 bytes')
  return rest
}

suite('interfaces', () => {
  const rows: [input: Interface, output: Interface, text: string][] = [
    [{ format: 0, value: 3 }, { format: 0, value: 0 }, 'in 3, out unknown'],
    [{ format: 0, value: 0x3fffffff }, { format: 0, value: 0xffffffff }, 'in this device, out this device'],
    [{ format: 0, value: 3 }, { format: 1, value: 33 }, 'in 3, discarded: dev_hdr (33)'],
    [{ format: 0, value: 3 }, { format: 1, value: 9999 }, 'in 3, discarded: 9999'],
    [{ format: 0, value: 3 }, { format: 2, value: 0 }, 'in 3, out several interfaces'],
    [{ format: 3, value: 3 }, { format: 2, value: 4 }, 'in format 3 value 3, out 4 interfaces'],
  ]
  for (const [input, output, text] of rows) {
    test(text, () => {
      const counts = { sequence_number: 1, sampling_rate: 2, sample_pool: 3, drops: 4 }
      const value = { ...counts, source_id: { type: 9, index: 5 }, input, output }
      assert.deepEqual(lines({ sample: flowSampleExpanded, value, records: [] }), [
        `  flow_sample_expanded 1 of source type 9 5, 1 in 2, pool 3, drops 4, ${text}`,
      ])
    })
  }
})

suite('records', () => {
  const rows: [name: string, record: RecordBlock, lines: string[]][] = [
    [
      'characters that a terminal would obey',
      recordOf(portName, { name: 'a\u001b[31m\u009b31m\u202e"' }),
      ['    port_name name="a\\u001b[31m\\u009b31m\\u202e\\""'],
    ],
    [
      'values without a name',
      recordOf(hostParent, { container_type: 77, container_index: 1 }),
      ['    host_parent container_type=77 container_index=1'],
    ],
    [
      'percentages',
      recordOf(bstDeviceBuffers, { unicast: 1234, multicast: -1 }),
      ['    bst_device_buffers unicast=12.34% multicast=unknown'],
    ],
    [
      'an unknown address',
      recordOf(extendedRouter, { nexthop: '', src_mask_len: 8, dst_mask_len: 9 }),
      ['    extended_router nexthop=unknown src_mask_len=8 dst_mask_len=9'],
    ],
    [
      'a header of a link that is not parsed',
      recordOf(sampledHeader, { protocol: 7, frame_length: 60, stripped: 0, header: Buffer.alloc(40, 0xab) }),
      ['    sampled_header PPP, frame of 60 bytes, 0 stripped, 40 captured', `      ${'ab'.repeat(32)}…`],
    ],
    [
      'bytes behind the known fields',
      { ...recordOf(hostParent, { container_type: 2, container_index: 1 }), tail: Uint8Array.of(1, 2, 3, 4) },
      ['    host_parent container_type=physical container_index=1', '      followed by 4 bytes: 01020304'],
    ],
    [
      'an unknown record',
      { enterprise: 9, format: 8, raw: new Uint8Array(0) },
      ['    record 9:8, 0 bytes: ""'],
    ],
  ]
  for (const [name, record, expected] of rows) {
    test(name, () => {
      const value = { sequence_number: 1, source_id: { type: 2, index: 1 } }
      const [, ...rest] = lines({ sample: countersSampleExpanded, value, records: [record] })
      assert.deepEqual(rest, expected)
    })
  }
})
