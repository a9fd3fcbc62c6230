/** The structures of an interface, each field with a value of its own, as tshark reads them. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { CaptureMemory, PcapWriter } from '../../agent/wire/pcap.ts'
import { ethernetCounters, ifCounters, lagPortStats } from '../../agent/wire/sflow/counters/interface.ts'
import type { CounterRecord } from '../../agent/wire/sflow/record.ts'
import { countersSampleSize, writeCountersSample } from '../../agent/wire/sflow/samples.ts'
import { Writer } from '../../agent/wire/xdr.ts'
import { udpFrame } from '../support/frames.ts'

const HEADERS = 42
const DATAGRAM_HEADER = 28
const LINKTYPE_ETHERNET = 1

/** A value of a field: `first` and upwards for numbers; addresses and states that tell their place, too. */
function numbered(record: CounterRecord, first: number): Record<string, unknown> {
  const value = (type: string, i: number) => {
    if (type === 'mac') return `02:00:00:00:00:0${i}`
    if (type === 'fixedOpaque') return Uint8Array.of(0x01, 0x3d, 0x02, 0x3f)
    return type === 'u64' || type === 'c64' ? BigInt(first + i) : first + i
  }
  return Object.fromEntries(
    Object.entries(record.fields).map(([name, { shape }], i) => [name, value(shape.type, i)]),
  )
}

/** The fields as tshark names them, in the order of the standard; ifStatus is shown in its two parts. */
const TSHARK: [record: CounterRecord, first: number, title: string, fields: string[]][] = [
  [
    ifCounters,
    3000,
    'Generic interface counters',
    [
      ...['ifindex', 'iftype', 'ifspeed', 'ifdirection', '', 'ifinoct', 'ifinpkt', 'ifinmcast', 'ifinbcast'],
      ...['ifindisc', 'ifinerr', 'ifinunk', 'ifoutoct', 'ifoutpkt', 'ifoutmcast', 'ifoutbcast', 'ifoutdisc'],
      ...['ifouterr', 'ifpromisc'],
    ].map(name => name && `sflow_245.${name}`),
  ],
  [
    ethernetCounters,
    1000,
    'Ethernet interface counters',
    Object.keys(ethernetCounters.fields).map(name => `sflow_245.${name}`),
  ],
  [
    lagPortStats,
    2000,
    'LAG counters',
    [
      ...['actor_system_id', 'partner_oper_system_id', 'attached_agg_id', '', 'lacpdus.rx', 'marker_pdus.rx'],
      ...['marker_response_pdus.rx', 'unknown.rx', 'illegal.rx', 'lacpdus.tx', 'marker_pdus.tx'],
      'marker_response_pdus.tx',
    ].map(name => name && `sflow.lag_port.${name}`),
  ],
]

test('tshark reads each field where the standard has it', t => {
  const records = TSHARK.map(([record, first]) => ({ record, value: numbered(record, first) }))
  const input = { sequence: 5, sourceType: 0, sourceIndex: 7, records }
  const bytes = DATAGRAM_HEADER + countersSampleSize(input)
  const frame = udpFrame({
    to: '02:00:00:00:00:02',
    from: '02:00:00:00:00:01',
    source: '192.0.2.1',
    destination: '192.0.2.2',
    port: 6343,
    payloadBytes: bytes,
  })
  const writer = new Writer(new DataView(frame.buffer, HEADERS, bytes))
  // Version, address of the agent, sub-agent, sequence, uptime, one sample.
  for (const word of [5, 1, 0xc0000201, 0, 1, 1, 1]) writer.u32(word, 'header')
  writeCountersSample(writer, input)
  // Without a checksum of UDP, which was made of other bytes.
  frame.fill(0, HEADERS - 2, HEADERS)
  const folder = mkdtempSync(join(tmpdir(), 'weir-pcap-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'datagram.pcap')
  const memory = new CaptureMemory()
  const pcap = new PcapWriter(LINKTYPE_ETHERNET, memory)
  pcap.header()
  pcap.packet({ bytes: frame, start: 0, end: frame.length }, frame.length, 0n)
  writeFileSync(file, memory.bytes.subarray(0, memory.length))

  const [packet] = JSON.parse(
    execFileSync('tshark', ['-r', file, '-T', 'json'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  ) as { _source: { layers: { sflow: Record<string, Record<string, Record<string, string>>> } } }[]
  const sample = packet!._source.layers.sflow['Expanded counters sample, seq 5']!
  for (const [record, first, title, fields] of TSHARK) {
    const shown = sample[title]!
    const values = Object.values(numbered(record, first))
    assert.equal(fields.length, values.length)
    for (const [i, field] of fields.entries()) {
      if (field !== '') assert.equal(shown[field], String(values[i]), `${title}: ${field}`)
    }
  }
  // 3004 is neither up nor down to tshark: bits 0 and 1 are 0.
  assert.equal(sample['Generic interface counters']!['sflow_245.ifadmin_status'], '0')
  assert.equal(sample['LAG counters']!['sflow.lag_port.state'], '0x013d023f')
})
