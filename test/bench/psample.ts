/** From PSAMPLE messages to datagrams: batches as recvmmsg leaves them, each message in its slot. */
import { Sampler } from '../../agent/datasource/sampler.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { PsampleSamples } from '../../agent/sources/psample-samples.ts'
import { recordedPsample } from '../support/recorded.ts'
import { measure, report } from './measure.ts'

const SAMPLES = 5_000_000
const SLOTS = 64
const SLOT_BYTES = 65_536 + 320

export async function psampleBench(): Promise<void> {
  console.log(
    `\nPSAMPLE to datagram: batches of ${SLOTS} recorded messages, ${SAMPLES.toLocaleString('en')} samples`,
  )
  for (const { name, messages } of recordedPsample()) {
    const memory = new ArrayBuffer(SLOTS * SLOT_BYTES)
    const view = new DataView(memory)
    const words = new Int32Array(memory)
    const ends: number[] = []
    for (let slot = 0; slot < SLOTS; slot++) {
      const message = messages[slot % messages.length]!
      new Uint8Array(memory).set(message, slot * SLOT_BYTES)
      ends.push(slot * SLOT_BYTES + message.length)
    }
    const ledger = new Ledger()
    const options = { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes: 1400, flushMs: 250 }
    const datagrams = new Datagrams(
      options,
      () => {},
      () => performance.now(),
    )
    const sampler = new Sampler(datagrams, ledger, 128)
    const samples = new PsampleSamples({
      ingressGroup: 1,
      egressGroup: 2,
      interfaces: { highestIfIndex: 100, byLow16: () => undefined, isLayer3: () => false },
      ledger,
      sink: sampler.accept,
    })
    const result = await measure(SAMPLES, SLOTS, () => {
      for (let slot = 0; slot < SLOTS; slot++) samples.receive(view, words, slot * SLOT_BYTES, ends[slot]!)
      datagrams.send()
    })
    datagrams.stop()
    if (sampler.exported < SAMPLES) throw new Error(`${name}: only ${sampler.exported} samples were exported`)
    report(`${name}: parse, number, encode`, result.nanoseconds, 'ns', 400)
    report('heap growth per sample', Math.max(0, result.heapBytes), 'bytes', 0.5)
  }
}
