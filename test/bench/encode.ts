/** Writing flow samples into datagrams: 128-byte header and three extended records (queue, depth, delay). */
import { Datagrams } from '../../agent/export/datagrams.ts'
import { writeFlowSample } from '../../agent/wire/sflow/flow-sample-writer.ts'
import { packetSample } from '../support/packet-samples.ts'
import { measure, report } from './measure.ts'

const SAMPLES = 10_000_000

export async function encodeBench(): Promise<void> {
  console.log(
    `\nencode: flow sample, 128-byte header, three extended records, ${SAMPLES.toLocaleString('en')} samples`,
  )
  const sample = packetSample(128, {
    egressQueue: 7,
    queueDepthBytes: 11_354_112,
    transitDelayNs: 839_660_224,
  })
  const options = { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes: 1400, flushMs: 250 }
  let bytes = 0
  const datagrams = new Datagrams(
    options,
    (_memory, spans, count) => {
      for (let i = 0; i < count; i++) bytes += spans[i * 2 + 1]!
    },
    () => 1000,
  )
  const source = { sequence: 0, samplePool: 0, drops: 0 }
  const writer = await measure(SAMPLES, 1000, count => {
    for (let i = 0; i < count; i++) {
      source.sequence++
      writeFlowSample(datagrams, 28, sample, source, 128)
    }
  })
  report('write one sample', writer.nanoseconds, 'ns', 150)
  report('heap growth per sample', Math.max(0, writer.heapBytes), 'bytes', 0.01)
  report('garbage collections', writer.collections, '')

  const whole = await measure(SAMPLES, 1000, count => {
    for (let i = 0; i < count; i++) {
      source.sequence++
      const at = datagrams.reserve(76 + 128 + 36)
      datagrams.commit(writeFlowSample(datagrams, at, sample, source, 128))
    }
    datagrams.send()
  })
  datagrams.stop()
  report('write it into the open datagram, close full ones', whole.nanoseconds, 'ns')
  report('heap growth per sample', Math.max(0, whole.heapBytes), 'bytes', 0.5)
  if (bytes === 0) throw new Error('no datagram was made')
}
