/** What it costs the agent to be looked at: status, metrics and a stream of samples, beside nobody looking. */
import { request } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { loadConfig } from '../../agent/config/load.ts'
import { ControlClient } from '../../agent/control/client.ts'
import { Lab } from '../../agent/demo/lab.ts'
import { Exporter } from '../../agent/export/exporter.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'
import { builtAgent, configuration } from './agent.ts'
import { measure, report } from './measure.ts'
import { cpuSeconds, PACKETS_PER_SECOND } from './resident.ts'

const SECONDS = 20

export async function lookingBench(): Promise<void> {
  console.log(
    `\nlooking: an agent that samples ${PACKETS_PER_SECOND} packets/s, looked at every second for ${SECONDS} s`,
  )
  await copying()
  const lab = new Lab(`weir-bench-${process.pid}`)
  const conf = configuration('')
  const folder = join(conf.path, '..')
  const [socket, metrics] = [join(folder, 'control.sock'), join(folder, 'metrics.sock')]
  const settings = configuration(
    `sFlow {\n agentIP = ${lab.router.lan.ipv4}\n collector { ip = 127.0.0.1 }\n pcap { dev = lan0 sampling = 1 }\n` +
      ` metrics { listen = ${metrics} }\n}\n`,
  )
  try {
    const agent = lab.run(lab.router, [
      builtAgent(),
      ...['run', '--no-drop', '--log-level', 'error', '-f', settings.path, '--control', socket],
    ])
    lab.run(lab.left, [
      process.execPath,
      join(import.meta.dirname, 'resident.ts'),
      'send',
      lab.router.lan.ipv4,
    ])
    await sleep(3000)
    const pid = agent.child.pid!
    const cost = async (look?: () => Promise<unknown>) => {
      const before = cpuSeconds(pid)
      const start = performance.now()
      while (performance.now() - start < SECONDS * 1000) {
        await look?.()
        await sleep(1000)
      }
      return (100_000 * (cpuSeconds(pid) - before)) / (performance.now() - start)
    }
    const client = await ControlClient.open(socket)
    // Until then what is hot is being compiled, and that is not what looking costs.
    for (let look = 0; look < SECONDS; look++) {
      await client.ask('status')
      await get(metrics)
      await sleep(500)
    }
    const idle = await cost()
    report('processor time of the agent while nobody looks', idle, '%')
    const asked = await cost(() => client.ask('status'))
    report('more with weir status --watch', asked - idle, '%', 1)
    report('more with metrics asked every second', (await cost(() => get(metrics))) - idle, '%', 1)
    let datagrams = 0
    await client.subscribe({}, { onDatagram: () => datagrams++ })
    report('more with a stream of all samples', (await cost()) - idle, '%')
    await client.unsubscribe()
    if (datagrams === 0) throw new Error('the stream was empty')
    report('and while nobody looks again', await cost(), '%')
    client.close()
  } finally {
    lab.close()
    conf.remove()
    settings.remove()
  }
}

/** What a subscriber adds to each sample: the copy, and its share of the text that carries it. */
async function copying(): Promise<void> {
  const bytes = 200
  const exporter = new Exporter({
    follow: () => ({ close: () => {} }),
    collectors: loadConfig('sFlow { collector { ip = 192.0.2.9 } }', 'a').config!.collectors,
    datagrams: { subAgentId: 1, maxBytes: 1400, flushMs: 250 },
    ledger: new Ledger(),
    log: createLogger('silent'),
    open: () => ({
      bytes: 0,
      mostBytes: 65_507,
      errors: new Map(),
      reports: new Map(),
      send: (_memory, _spans, count) => count,
      close: () => {},
    }),
    uptimeMs: () => 0,
  })
  exporter.changeAgentAddress(Uint8Array.of(192, 0, 2, 1))
  exporter.start()
  const { datagrams } = exporter
  const work = (count: number) => {
    for (let i = 0; i < count; i++) {
      const at = datagrams.reserve(bytes)
      datagrams.view.setUint32(at, 3)
      datagrams.view.setUint32(at + 4, bytes - 8)
      datagrams.commit(at + bytes)
    }
    datagrams.send()
  }
  const alone = await measure(3_000_000, 500, work)
  let characters = 0
  const filter = {
    classes: ['flows'],
    interfaces: undefined,
    every: 1,
    perSecond: Number.POSITIVE_INFINITY,
  } as const
  const { end } = exporter.tap(filter, (memory, spans, count) => {
    for (let i = 0; i < count; i++) {
      characters += Buffer.from(memory, spans[i * 2]!, spans[i * 2 + 1]!).toString('base64').length
    }
  })
  const tapped = await measure(3_000_000, 500, work)
  end()
  if (characters === 0) throw new Error('nothing was copied')
  report('sample of 200 bytes committed, nobody subscribed', alone.nanoseconds, 'ns')
  report('more for each subscriber, base64 included', tapped.nanoseconds - alone.nanoseconds, 'ns')
}

function get(socketPath: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path: '/metrics' }, response => {
      response.resume()
      response.on('end', resolve)
    })
    sent.on('error', reject).end()
  })
}
