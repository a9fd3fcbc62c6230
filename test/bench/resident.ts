/** Memory and processor time of the agent at 2,000 samples a second, each packet of a veth sampled. */
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { Lab } from '../../agent/demo/lab.ts'
import { builtAgent, configuration } from './agent.ts'
import { report } from './measure.ts'

export const PACKETS_PER_SECOND = 2000
const TICK_MS = 10
const STEP_SECONDS = 30
const COLLECTOR_PORT = 6343

export async function residentBench(minutes = 1): Promise<void> {
  console.log(`\nresident: ${PACKETS_PER_SECOND} samples/s for ${minutes} min (--minutes N for longer)`)
  const lab = new Lab(`weir-bench-${process.pid}`)
  const conf = configuration(
    `sFlow {\n polling = 20\n agentIP = ${lab.router.lan.ipv4}\n collector { ip = 127.0.0.1 udpport = ${COLLECTOR_PORT} }\n` +
      ' pcap { dev = lan0 sampling = 1 }\n}\n',
  )
  try {
    let datagrams = 0
    const self = [process.execPath, import.meta.filename]
    lab.run(lab.router, [...self, 'collect'], line => {
      datagrams = Number(line)
    })
    const agent = lab.run(lab.router, [builtAgent(), 'run', '--log-level', 'warn', '-f', conf.path])
    await setTimeout(1000)
    lab.run(lab.left, [...self, 'send', lab.router.lan.ipv4])
    const pid = agent.child.pid!
    let resident = 0
    for (let second = STEP_SECONDS; second <= minutes * 60; second += STEP_SECONDS) {
      await setTimeout(STEP_SECONDS * 1000)
      resident = residentMegabytes(pid)
      console.log(
        `    after ${second} s: ${resident.toFixed(1)} MB resident, ${datagrams} datagrams received`,
      )
    }
    report('resident memory', resident, 'MB', 60)
    report('processor time, of one core', (100 * cpuSeconds(pid)) / (minutes * 60), '%')
    if (datagrams < minutes * 60 * 100) throw new Error(`only ${datagrams} datagrams arrived`)
  } finally {
    lab.close()
    conf.remove()
  }
}

function residentMegabytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1.024e-3
}

/** User and system time so far (proc(5): fields 14 and 15, in ticks of 10 ms). */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

/** Run in the lab: counts datagrams, tells the count once a second. */
function collect(): void {
  let datagrams = 0
  createSocket('udp4')
    .on('message', () => datagrams++)
    .bind(COLLECTOR_PORT)
  setInterval(() => console.log(datagrams), 1000)
}

/** Run in the lab: sends packets at an even pace until it is ended. */
function send(address: string): void {
  const socket = createSocket('udp4')
  const payload = Buffer.alloc(400, 'weir')
  const started = performance.now()
  let sent = 0
  setInterval(() => {
    const due = ((performance.now() - started) * PACKETS_PER_SECOND) / 1000
    for (; sent < due; sent++) socket.send(payload, 9, address, () => {})
  }, TICK_MS)
}

if (process.argv[1] === import.meta.filename) {
  if (process.argv[2] === 'collect') collect()
  else if (process.argv[2] === 'send') send(process.argv[3]!)
}
