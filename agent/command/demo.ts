import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import { Lab } from '../demo/lab.ts'
import { DemoReport } from '../demo/report.ts'
import { receiveTraffic, sendTraffic } from '../demo/traffic.ts'
import { kernelSamples } from '../sources/psample.ts'

const COLLECTOR_PORT = 6343
const SAMPLING = 50
const POLLING = 2
/** Programs start within this time even on an emulated machine. */
const START_SECONDS = 30

/** `weir demo`: two hosts, traffic between them, the agent on one, and a table of what it sent. */
export function demoCommand(): Command {
  return new Command('demo')
    .summary('build a small lab, run the agent in it and show what it sends')
    .description(
      'Makes two network namespaces with a cable between them and traffic on it, runs the agent in one of them, ' +
        'decodes what it sends and prints it as a table. Everything is removed afterwards. Needs root and ip(8).',
    )
    .option('--seconds <n>', 'how long the traffic lasts', seconds, 10)
    .action(runDemo)
}

/** `weir demo-traffic`: the traffic of the demo, run inside the lab. Not for users. */
export function demoTrafficCommand(): Command {
  const command = new Command('demo-traffic')
  command.command('receive').action(receiveTraffic)
  command.command('send <address> <seconds>').action((address, time) => sendTraffic(address, Number(time)))
  return command
}

async function runDemo({ seconds }: { seconds: number }): Promise<void> {
  if (process.getuid!() !== 0) throw new Error('the demo makes network namespaces: run it as root')
  const say = (text: string) => process.stderr.write(`demo: ${text}\n`)
  const directory = mkdtempSync(join(tmpdir(), 'weir-demo-'))
  let lab: Lab | undefined
  const clean = () => {
    lab?.close()
    rmSync(directory, { recursive: true, force: true })
  }
  const interrupted = () => {
    clean()
    process.exit(130)
  }
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted)
  try {
    say('two network namespaces and a cable between them')
    lab = new Lab(`weir-demo-${process.pid}`)
    const hasPsample = await kernelSamples()
    const source = hasPsample
      ? 'psample { group = 1 egress = on }\n  tc { switchport = ^eth0$ sw = on }'
      : 'pcap { dev = eth0 }'
    say(
      hasPsample
        ? 'the kernel samples (tc matchall and PSAMPLE), input and output'
        : 'this kernel has no PSAMPLE: packets are sampled by BPF where it is allowed, else by a packet socket',
    )
    const conf = join(directory, 'weir.conf')
    writeFileSync(
      conf,
      `sFlow {\n  sampling = ${SAMPLING}\n  sampling.bps_ratio = 0\n  polling = ${POLLING}\n  agentIP = ${lab.host.ipv4}\n` +
        `  collector { ip = 127.0.0.1 udpport = ${COLLECTOR_PORT} }\n  ${source}\n}\n`,
    )

    const report = new DemoReport()
    const weir = [process.execPath, process.argv[1]!]
    const decoder = lab.run(
      lab.host,
      [...weir, 'decode', '--json', '--listen', `127.0.0.1:${COLLECTOR_PORT}`],
      line => report.add(line),
    )
    lab.run(lab.host, [...weir, 'demo-traffic', 'receive'])
    const agent = lab.run(lab.host, [...weir, 'run', '--log-level', 'warn', '-f', conf])
    const early = Promise.race([
      agent.ended.then(status => `the agent ended with status ${status}`),
      decoder.ended.then(status => `the decoder ended with status ${status}`),
    ])
    await inTime(START_SECONDS, early, () => report.countersSamples > 0)
    say(`traffic for ${seconds} s, 1 packet in ${SAMPLING} sampled, counters every ${POLLING} s`)
    const traffic = lab.run(lab.peer, [...weir, 'demo-traffic', 'send', lab.host.ipv4, String(seconds)])
    let sent = false
    void traffic.ended.then(() => {
      sent = true
    })
    await inTime(seconds + START_SECONDS, early, () => sent)
    await setTimeout((POLLING + 1) * 1000)
    agent.child.kill('SIGTERM')
    await Promise.race([agent.ended, setTimeout(3000)])
    await setTimeout(200)
    report.print(process.stdout)
    if (report.flowSamples === 0 || report.countersSamples === 0) {
      throw new Error('the agent sent no samples; the messages above may tell why')
    }
  } finally {
    clean()
    say('the lab is removed')
  }
}

/** Waits until `condition` holds; fails when `early` says that something has ended, or after `seconds`. */
async function inTime(seconds: number, early: Promise<string>, condition: () => boolean): Promise<void> {
  let ended: string | undefined
  void early.then(text => {
    ended = text
  })
  const deadline = performance.now() + seconds * 1000
  while (!condition()) {
    if (ended !== undefined) throw new Error(ended)
    if (performance.now() > deadline) throw new Error(`nothing arrived within ${seconds} s`)
    await setTimeout(50)
  }
}

function seconds(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 3600) {
    throw new InvalidArgumentError('give whole seconds from 1 to 3600')
  }
  return value
}
