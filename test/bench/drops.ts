/** From drop alerts to datagrams: what one drop costs that is sent, and one that the limit holds back. */
import { Notifier } from '../../agent/datasource/notifier.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { DropAlerts } from '../../agent/sources/drop-alerts.ts'
import { dropMessage, hardwareDrop, softwareDrop } from '../support/drop-alert.ts'
import { measure, report } from './measure.ts'

const DROPS = 2_000_000
const SLOTS = 64
const SLOT_BYTES = 65_536 + 320

export async function dropsBench(): Promise<void> {
  console.log(`\nDrop alert to datagram: batches of ${SLOTS}, ${DROPS.toLocaleString('en')} drops`)
  await one('parse, classify, encode', Number.MAX_SAFE_INTEGER, 600)
  await one('parse, classify, hold back', 1000, 400)
}

async function one(what: string, limit: number, goal: number): Promise<void> {
  const memory = new ArrayBuffer(SLOTS * SLOT_BYTES)
  const view = new DataView(memory)
  const words = new Int32Array(memory)
  const messages = [dropMessage(softwareDrop()), dropMessage(hardwareDrop())]
  const ends = Array.from({ length: SLOTS }, (_, slot) => {
    const message = messages[slot % messages.length]!
    new Uint8Array(memory).set(message, slot * SLOT_BYTES)
    return slot * SLOT_BYTES + message.length
  })
  const ledger = new Ledger()
  const datagrams = new Datagrams(
    { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes: 1400, flushMs: 250 },
    () => {},
    () => performance.now(),
  )
  const notifier = new Notifier({ datagrams, ledger, now: () => performance.now() })
  notifier.change({
    reasonNames: true,
    unknownTraps: false,
    host: true,
    hide: undefined,
    headerBytes: 128,
    limit,
  })
  const alerts = new DropAlerts({
    software: true,
    hardware: true,
    interfaces: { byIndex: new Set([2, 3]), isLayer3: () => false },
    ledger,
    sink: notifier.accept,
    onLost: notifier.lost,
  })
  const result = await measure(DROPS, SLOTS, () => {
    for (let slot = 0; slot < SLOTS; slot++) alerts.receive(view, words, slot * SLOT_BYTES, ends[slot]!)
    notifier.endBatch()
  })
  datagrams.stop()
  if (notifier.offered < DROPS) throw new Error(`${what}: only ${notifier.offered} drops were seen`)
  report(what, result.nanoseconds, 'ns', goal)
  report('heap growth per drop', Math.max(0, result.heapBytes), 'bytes', 0.5)
}
