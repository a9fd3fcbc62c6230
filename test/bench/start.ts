/** From exec to the first counters sample at a collector on loopback. */
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { builtAgent, configuration } from './agent.ts'
import { report } from './measure.ts'

const RUNS = 11
const COUNTERS_SAMPLE_EXPANDED = 4

export async function startBench(): Promise<void> {
  console.log(`\nstart: from exec to the first counters sample received, median of ${RUNS}`)
  const agent = builtAgent()
  const collector = createSocket('udp4')
  collector.bind(0, '127.0.0.1')
  await once(collector, 'listening')
  const { port } = collector.address()
  const conf = configuration(
    `sFlow { polling = 30 agentIP = 192.0.2.1 collector { ip = 127.0.0.1 udpport = ${port} } }\n`,
  )
  const times: number[] = []
  try {
    for (let i = 0; i < RUNS; i++) {
      const started = performance.now()
      const child = spawn(agent, ['run', '--log-level', 'error', '-f', conf.path], {
        stdio: 'inherit',
      })
      const [message] = (await once(collector, 'message')) as [Buffer]
      times.push(performance.now() - started)
      if (message.readUInt32BE(28) !== COUNTERS_SAMPLE_EXPANDED)
        throw new Error('the first sample was no counters sample')
      child.kill('SIGTERM')
      await once(child, 'exit')
    }
  } finally {
    conf.remove()
    collector.close()
  }
  times.sort((a, b) => a - b)
  report('median', times[RUNS >> 1]!, 'ms', 500)
  report('slowest', times.at(-1)!, 'ms')
}
