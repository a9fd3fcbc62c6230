/** Benchmarks: `npm run bench -- [NAME…] [--minutes N]`. Costs are of this machine, now; compare only within one run. */
import { spawnSync } from 'node:child_process'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { bpfBench } from './bpf.ts'
import { countersBench } from './counters.ts'
import { decodeBench } from './decode.ts'
import { dropsBench } from './drops.ts'
import { encodeBench } from './encode.ts'
import { lookingBench } from './looking.ts'
import { peersBench } from './peers.ts'
import { psampleBench } from './psample.ts'
import { residentBench } from './resident.ts'
import { startBench } from './start.ts'
import { tcpBench } from './tcp.ts'

const { values, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: 'string', default: '1' } },
})
const minutes = Number(values.minutes)
const BENCHES = {
  encode: encodeBench,
  psample: psampleBench,
  bpf: bpfBench,
  peers: peersBench,
  decode: decodeBench,
  drops: dropsBench,
  counters: countersBench,
  tcp: tcpBench,
  start: startBench,
  looking: lookingBench,
  resident: () => residentBench(minutes),
}

if (globalThis.gc === undefined) {
  // The heap is collected before each measurement, which needs a flag of the runtime.
  const again = spawnSync(process.execPath, ['--expose-gc', ...process.argv.slice(1)], { stdio: 'inherit' })
  process.exit(again.status ?? 1)
}
const unknown = wanted.filter(name => !(name in BENCHES))
if (unknown.length > 0) {
  console.error(`bench: no benchmark '${unknown.join(', ')}'; there are ${Object.keys(BENCHES).join(', ')}`)
  process.exit(2)
}
console.log(`Node.js ${process.version} on ${cpus()[0]?.model.trim()}, ${cpus().length} processors`)
for (const [name, bench] of Object.entries(BENCHES)) {
  if (wanted.length === 0 || wanted.includes(name)) await bench()
}
