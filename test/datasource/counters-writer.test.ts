import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CountersWriter } from '../../agent/datasource/counters-writer.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { recordOf } from '../../agent/wire/sflow/block.ts'
import { hostAdapters, hostParent } from '../../agent/wire/sflow/counters/host.ts'
import { portName } from '../../agent/wire/sflow/counters/interface.ts'
import { decodeDatagram } from '../../agent/wire/sflow/datagram.ts'
import { countersSampleOf } from '../../agent/wire/sflow/samples.ts'

function writer(maxBytes = 1400) {
  const sent: Uint8Array[] = []
  const datagrams = new Datagrams(
    { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes, flushMs: 250 },
    (memory, spans, count) => {
      for (let i = 0; i < count; i++)
        sent.push(new Uint8Array(memory, spans[i * 2]!, spans[i * 2 + 1]!).slice())
    },
    () => 0,
  )
  const ledger = new Ledger()
  const under = new CountersWriter(datagrams, ledger)
  /** What arrived: of each sample its sequence number and the names of its records. */
  const arrived = () => {
    datagrams.stop()
    for (const datagram of sent) assert.ok(datagram.length <= maxBytes)
    return sent.flatMap(datagram =>
      decodeDatagram(datagram).samples.map(sample => [
        countersSampleOf(sample)!.sequence_number,
        'records' in sample
          ? sample.records.map(block => ('record' in block ? block.record.name : 'raw'))
          : [],
      ]),
    )
  }
  const loss = (cause: string) => ledger.entries().find(entry => entry.cause === cause)!.count
  return { under, arrived, loss }
}

const parent = recordOf(hostParent, { container_type: 2, container_index: 1 })
const name = (length: number) => recordOf(portName, { name: 'x'.repeat(length) })
const adapters = (count: number) =>
  recordOf(hostAdapters, {
    adapters: Array.from({ length: count }, (_, i) => ({
      ifIndex: i + 1,
      mac_address: ['02:00:00:00:00:01'],
    })),
  })
const source = { sequence: 7, sourceType: 2, sourceIndex: 1 }

describe('counters samples', () => {
  test('fit into one datagram as they are', () => {
    const { under, arrived } = writer()
    assert.equal(under.write({ ...source, records: [parent, name(8)] }), 1)
    assert.deepEqual(arrived(), [[7, ['host_parent', 'port_name']]])
  })

  test('that are too long become several of the same source', () => {
    const { under, arrived } = writer(200)
    const records = [parent, name(100), parent, name(100), parent]
    assert.equal(under.write({ ...source, records }), 2)
    assert.deepEqual(arrived(), [
      [7, ['host_parent', 'port_name', 'host_parent']],
      [8, ['port_name', 'host_parent']],
    ])
    assert.equal(under.exported, 5)
  })

  test('a structure longer than a datagram is counted and told of; the others are sent', () => {
    const { under, arrived, loss } = writer(200)
    assert.equal(under.write({ ...source, records: [parent, adapters(20), name(8)] }), 2)
    assert.deepEqual(arrived(), [
      [7, ['host_parent']],
      [8, ['port_name']],
    ])
    assert.equal(loss('too-long'), 1)
    assert.equal(under.takeProblem(), 'host_adapters does not fit into a datagram')
    assert.equal(under.takeProblem(), undefined)
  })

  test('a value that its field cannot carry costs its sample only', () => {
    const { under, arrived, loss } = writer()
    const broken = recordOf(hostParent, { container_type: -1, container_index: 1 })
    assert.equal(under.write({ ...source, records: [broken] }), 0)
    assert.equal(under.write({ ...source, records: [parent] }), 1)
    assert.deepEqual(arrived(), [[7, ['host_parent']]])
    assert.equal(loss('invalid'), 1)
    assert.match(under.takeProblem()!, /container_type/)
  })
})
