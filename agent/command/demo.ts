import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import { Lab } from '../demo/lab.ts'
import { DemoReport } from '../demo/report.ts'
import { receiveTraffic, sendTraffic } from '../demo/traffic.ts'
import { kernelSamples } from '../sources/psample.ts'

const COLLECTOR_PORT = 6343
const SAMPLING = 10
const POLLING = 2
/** Less than the traffic would take, and a queue that this empties in 40 ms. */
const NARROW_BITS_PER_SECOND = 20_000_000
const QUEUE_BYTES = 100_000
/** The kernel's type information, without which BPF programs do not follow packets. */
const BTF = '/sys/kernel/btf/vmlinux'
/** Puts the cursor into the upper left corner of an empty terminal. */
const CLEAR = '\x1b[H\x1b[2J'
/** Programs start within this time even on an emulated machine. */
const START_SECONDS = 240

/** `weir demo`: a router between two hosts, traffic that its queue has not enough room for, and what the agent sends. */
export function demoCommand(): Command {
  return new Command('demo')
    .summary('build a small lab, run the agent in it and show what it sends')
    .description(
      'Makes a router between two hosts, three network namespaces, with a narrow way out and traffic that fills the ' +
        'queue in front of it. Runs the agent on the router, decodes what it sends, shows it while it comes, and sums ' +
        'it up. Everything is removed afterwards. Needs root, ip(8) and tc(8).',
    )
    .option('--seconds <n>', 'how long the traffic lasts', seconds, 10)
    .addOption(
      new Option(
        '--by <source>',
        'what samples: bpf follows packets through the router, psample is for switches',
      )
        .choices(['bpf', 'psample'])
        .default(undefined, 'bpf where the kernel has type information, else psample'),
    )
    .action(runDemo)
}

/** `weir demo-traffic`: the traffic of the demo, run inside the lab. Not for users. */
export function demoTrafficCommand(): Command {
  const command = new Command('demo-traffic')
  command.command('receive').action(receiveTraffic)
  command
    .command('send <address> <router> <seconds>')
    .action((address, router, time) => sendTraffic(address, router, Number(time)))
  return command
}

interface DemoOptions {
  readonly seconds: number
  readonly by?: 'bpf' | 'psample'
}

async function runDemo(options: DemoOptions): Promise<void> {
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
    say('three network namespaces: left (eth0) -- (lan0) router (wan0) -- (eth0) right')
    lab = new Lab(`weir-demo-${process.pid}`)
    await show(lab, directory, options, say)
  } finally {
    clean()
    say('the lab is removed')
  }
}

async function show(
  lab: Lab,
  directory: string,
  { seconds, by }: DemoOptions,
  say: (text: string) => void,
): Promise<void> {
  const { left, router, right } = lab
  const problem = lab.narrow(NARROW_BITS_PER_SECOND, QUEUE_BYTES)
  say(
    problem === undefined
      ? `the way out of wan0 takes ${NARROW_BITS_PER_SECOND / 1e6} Mb/s, and its queue ${QUEUE_BYTES / 1000} kB`
      : `no narrow way, so no queue fills: ${problem}`,
  )
  const byPsample = by === 'psample' || (by === undefined && !existsSync(BTF) && (await kernelSamples()))
  say(
    byPsample
      ? 'the kernel samples (tc matchall and PSAMPLE) where packets come in'
      : 'packets are sampled by BPF and followed through the router; without permission by a packet socket',
  )
  const source = byPsample
    ? 'psample { group = 1 }\n  tc { switchport = "^(lan|wan)0$" sw = on }'
    : 'pcap { dev = lan0 }\n  pcap { dev = wan0 }'
  const conf = join(directory, 'weir.conf')
  writeFileSync(
    conf,
    `sFlow {\n  sampling = ${SAMPLING}\n  sampling.bps_ratio = 0\n  polling = ${POLLING}\n  agentIP = ${router.lan.ipv4}\n` +
      `  collector { ip = 127.0.0.1 udpport = ${COLLECTOR_PORT} }\n  dropmon { }\n  ${source}\n}\n`,
  )

  const report = new DemoReport()
  const weir = [process.execPath, process.argv[1]!]
  const decoder = lab.run(
    router,
    [...weir, 'decode', '--json', '--listen', `127.0.0.1:${COLLECTOR_PORT}`],
    line => report.add(line),
  )
  const agent = lab.run(router, [...weir, 'run', '--log-level', 'warn', '-f', conf])
  const early = Promise.race([
    agent.ended.then(status => `the agent ended with status ${status}`),
    decoder.ended.then(status => `the decoder ended with status ${status}`),
  ])
  await inTime(START_SECONDS, early, () => report.countersSamples > 0)
  let isReady = false
  lab.run(right, [...weir, 'demo-traffic', 'receive'], () => {
    isReady = true
  })
  await inTime(START_SECONDS, early, () => isReady)
  say(`traffic for ${seconds} s, 1 packet in ${SAMPLING} sampled, counters every ${POLLING} s`)
  const send = [...weir, 'demo-traffic', 'send', right.ipv4, router.lan.ipv4, String(seconds)]
  const traffic = lab.run(left, send)
  const live = showLive(report)
  try {
    let sent = false
    void traffic.ended.then(() => {
      sent = true
    })
    await inTime(seconds + START_SECONDS, early, () => sent)
  } finally {
    clearInterval(live)
  }
  await sleep((POLLING + 1) * 1000)
  agent.child.kill('SIGTERM')
  await Promise.race([agent.ended, sleep(3000)])
  await sleep(200)
  report.print(process.stdout)
  if (report.flowSamples === 0 || report.countersSamples === 0) {
    throw new Error('the agent sent no samples; the messages above may tell why')
  }
}

/** Shows what comes once a second: in place on a terminal, else a line each time. */
function showLive(report: DemoReport): NodeJS.Timeout {
  let shown = performance.now()
  let second = 0
  return setInterval(() => {
    const now = performance.now()
    const seconds = (now - shown) / 1000
    shown = now
    second++
    if (process.stdout.isTTY) process.stdout.write(`${CLEAR}after ${second} s\n\n${report.live(seconds)}`)
    else process.stdout.write(`${second} s: ${report.liveLine(seconds)}\n`)
  }, 1000)
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
    await sleep(50)
  }
}

function seconds(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 3600) {
    throw new InvalidArgumentError('give whole seconds from 1 to 3600')
  }
  return value
}
