/**
 * Sees drops by BPF in the namespace where it runs, with this many slots: `node drop-driver.ts SLOTS LIMIT`. Writes a line
 * when it does, and at SIGTERM one JSON object with what it has seen.
 */
import { Notifier, type NotifierSettings } from '../../agent/datasource/notifier.ts'
import { DropNames } from '../../agent/drops/drop-names.ts'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'
import { Interfaces } from '../../agent/interfaces.ts'
import { Names } from '../../agent/samples/drop.ts'
import { BpfDrops } from '../../agent/sources/bpf-drops.ts'

const [slots, limit] = process.argv.slice(2).map(Number) as [number, number]
const ledger = new Ledger()
const datagrams = new Datagrams(
  { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes: 1400, flushMs: 1000 },
  () => {},
  () => performance.now(),
)
const receiver = new Notifier({ datagrams, ledger, now: () => performance.now() })
const settings: NotifierSettings = {
  reasonNames: true,
  unknownTraps: false,
  host: true,
  hide: undefined,
  headerBytes: 128,
  limit,
}
receiver.change(settings)
const names = new Names()
const words = new DropNames(names)
await words.load()
const interfaces = new Interfaces({ log: createLogger('fatal') })
await interfaces.start()
const open = {
  receiver,
  names,
  words,
  interfaces: interfaces.byIndex,
  ledger,
  software: true,
  hardware: false,
  headerBytes: 128,
}
const source = await BpfDrops.open({ ...open, limit, slots })
source.begin()
// Faster than the agent does it: its second is the program's measure of time.
const timer = setInterval(() => source.poll(), 200)
process.on('SIGTERM', async () => {
  clearInterval(timer)
  await source.stop()
  datagrams.stop()
  interfaces.stop()
  const { offered, exported, leftOut } = receiver
  const lost = ledger.entries().filter(({ count }) => count > 0)
  console.log(JSON.stringify({ offered, exported, leftOut, by: receiver.counts(), lost }))
})
console.log('ready')
