import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { speedName } from '../config/sampling-rate.ts'
import { ControlClient, NoAgentError } from '../control/client.ts'
import { CONTROL_SOCKET } from '../control/protocol.ts'
import type { Status } from '../control/status.ts'
import { warningsOf } from '../control/warnings.ts'
import { inPart } from '../health/log.ts'
import { escapeJson, printable } from '../health/printable.ts'
import { counted, duration, grouped, size } from '../quantities.ts'
import { tableLines } from './table.ts'

/** Two looks so far apart tell rates. */
const APART_MS = 1000
/** Rows of the tables of interfaces and drops, unless all are asked for. */
const ROWS = 12
const LEAST_ROWS = 2
/** Exit status when no agent answers. */
const NO_AGENT = 3

interface StatusOptions {
  readonly socket: string
  readonly json?: true
  readonly watch?: true
  readonly all?: true
}

/** `weir status`: whether the running agent does what it should, on one screen. */
export function statusCommand(): Command {
  return new Command('status')
    .summary('tell how the running agent is doing')
    .description(
      'Shows what the running agent samples, sends and loses: collectors, sources, interfaces, dropped packets, and the ' +
        'ledger, in which all that was offered is exported or counted as lost. Looks twice, a second apart, for the rates.',
    )
    .option('--socket <socket>', 'control socket of the agent', CONTROL_SOCKET)
    .option('--json', 'print one JSON object, from one look')
    .option('--watch', 'show it again every second until interrupted')
    .option('--all', 'show all interfaces and all kinds of drops')
    .addHelpText(
      'after',
      '\nExit status: 0 when all is well, 1 when there are warnings, 2 on errors, 3 when no agent answers.',
    )
    .action(async (options: StatusOptions) => {
      process.exitCode = await run(options)
    })
}

async function run(options: StatusOptions): Promise<number> {
  try {
    const client = await ControlClient.open(options.socket)
    try {
      if (options.json) return await printJson(client)
      return options.watch ? await watch(client, options) : await printOnce(client, options)
    } finally {
      client.close()
    }
  } catch (error) {
    process.stderr.write(`weir status: ${printable((error as Error).message, 1000)}\n`)
    return error instanceof NoAgentError ? NO_AGENT : 2
  }
}

async function printJson(client: ControlClient): Promise<number> {
  const status = await client.ask<Status>('status')
  const warnings = warningsOf(status)
  process.stdout.write(escapeJson(`${JSON.stringify({ ...status, warnings })}\n`))
  return warnings.length === 0 ? 0 : 1
}

async function printOnce(client: ControlClient, { all }: StatusOptions): Promise<number> {
  const before = await client.ask<Status>('status')
  await sleep(APART_MS)
  const status = await client.ask<Status>('status')
  process.stdout.write(`${statusLines(status, before, all ? Number.POSITIVE_INFINITY : ROWS).join('\n')}\n`)
  return warningsOf(status, before).length === 0 ? 0 : 1
}

const CLEAR_TO_END = '\x1b[J'
const CLEAR_LINE = '\x1b[K'
const HOME = '\x1b[H'
const CLEAR = '\x1b[2J'

/** Until the agent ends or the reader has seen enough. On a terminal the screen is written over, and is not cleared. */
async function watch(client: ControlClient, { all }: StatusOptions): Promise<number> {
  const { stdout } = process
  if (stdout.isTTY) stdout.write(HOME + CLEAR)
  let before = await client.ask<Status>('status')
  for (;;) {
    await sleep(APART_MS)
    const status = await client.ask<Status>('status')
    const rows = all || !stdout.isTTY ? Number.POSITIVE_INFINITY : stdout.rows - 1
    const lines = fittingLines(status, before, all ? Number.POSITIVE_INFINITY : ROWS, rows)
    before = status
    if (!stdout.isTTY) {
      stdout.write(`${lines.join('\n')}\n\n`)
      continue
    }
    const fit = lines.slice(0, stdout.rows - 1).map(line => `${line.slice(0, stdout.columns)}${CLEAR_LINE}`)
    stdout.write(`${HOME}${fit.join('\n')}\n${CLEAR_TO_END}`)
  }
}

/** With as many rows in the tables, down to a few, as let everything fit. */
function fittingLines(status: Status, before: Status, most: number, rows: number): string[] {
  const lines = statusLines(status, before, most)
  return lines.length <= rows || most <= LEAST_ROWS ? lines : fittingLines(status, before, most - 1, rows)
}

/** The status as text; `before` is an earlier look, for rates; `most` rows of interfaces and of drops. */
function statusLines(status: Status, before: Status, most: number): string[] {
  const seconds = Math.max(status.agent.uptimeSeconds - before.agent.uptimeSeconds, 0.001)
  const rate = (now: number, then: number | undefined) => rateText((now - (then ?? now)) / seconds)
  return [
    ...head(status, before, seconds),
    ...warningLines(status, before),
    '',
    ...collectorLines(status, before, rate),
    '',
    ...sourceLines(status, before, rate),
    ...interfaceLines(status, before, rate, most),
    ...dropLines(status, before, rate, most),
    '',
    ...ledgerLines(status),
    ...logLines(status),
  ]
}

type Rate = (now: number, then: number | undefined) => string

function head({ agent, process, samples }: Status, before: Status, seconds: number): string[] {
  const cpu = ((process.cpuSeconds - before.process.cpuSeconds) / seconds) * 100
  const on = agent.addressInterface === null ? '' : ` on ${printable(agent.addressInterface)}`
  const address = agent.address === null ? 'none' : `${agent.address}${on}`
  const polling = agent.pollingSeconds === 0 ? 'off' : `every ${agent.pollingSeconds} s`
  const sent = [
    [samples.flows, 'flow sample'],
    [samples.counters, 'counters sample'],
    [samples.drops, 'dropped packet'],
    [samples.datagrams, 'datagram'],
  ] as const
  return [
    `weir ${agent.version}, process ${agent.pid}, up ${duration(agent.uptimeSeconds)}, ${cpu.toFixed(1)} % of a core, ${size(process.residentBytes)}`,
    `agent address ${address}, sub-agent ${agent.subAgentId}, configuration ${printable(agent.configuration)}, polling ${polling}`,
    `sent: ${sent.map(([count, what]) => counted(count, what)).join(', ')}`,
  ]
}

function collectorLines({ collectors }: Status, before: Status, rate: Rate): string[] {
  const rows = collectors.map(({ name, address, port, sent, bytes, lost, ageSeconds, problem, ...one }) => {
    const { unreachableSeconds: unreachable } = one
    const then = before.collectors.find(one => one.name === name)
    return [
      printable(name, 40),
      address === undefined ? '?' : address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`,
      grouped(sent),
      rate(sent, then?.sent),
      size(bytes),
      grouped(lost),
      ageSeconds === undefined ? 'never' : `${duration(ageSeconds)} ago`,
      problem === undefined
        ? 'ok'
        : unreachable === undefined
          ? 'problem'
          : `unreachable for ${duration(unreachable)}`,
    ]
  })
  return tableLines([
    ['collector', 'address', '>datagrams', '>/s', '>bytes', '>lost', '>last', 'state'],
    ...rows,
  ])
}

function sourceLines({ sources }: Status, before: Status, rate: Rate): string[] {
  const rows = sources.map(({ name, state, offered, delivered, lost }) => {
    const then = before.sources.find(one => one.name === name)
    const losses = Object.entries(lost).filter(([, count]) => count > 0)
    const text = losses.map(([cause, count]) => `${grouped(count)} ${cause}`).join(', ')
    return [name, state, grouped(offered), rate(delivered, then?.delivered), text === '' ? '0' : text]
  })
  return tableLines([['source', 'state', '>samples', '>/s', 'lost'], ...rows])
}

/** Sources whose samples others may choose. */
const FEEDS: readonly string[] = ['psample', 'nflog']

function interfaceLines({ interfaces, sources }: Status, before: Status, rate: Rate, most: number): string[] {
  if (interfaces.length === 0) return []
  const sorted = interfaces.toSorted((a, b) => b.samples - a.samples)
  // Samples that weir has not placed the sampler of; where no feed has brought any, it has taken the sampler away.
  const isFed = sources.some(({ name, delivered }) => FEEDS.includes(name) && delivered > 0)
  const others = isFed ? 'by the feed' : 'no more'
  const rows = sorted.slice(0, most).map(({ name, ifIndex, speedBitsPerSecond, up, sampledBy, ...one }) => {
    const then = before.interfaces.find(other => other.ifIndex === ifIndex)
    const sampled =
      sampledBy === null
        ? others
        : one.problem === null
          ? `1 in ${grouped(one.rate ?? 0)}, ${sampledBy}`
          : 'not, as warned'
    return [
      printable(name, 24),
      speedBitsPerSecond === 0 ? '?' : speedName(speedBitsPerSecond),
      up ? 'up' : 'down',
      sampled,
      grouped(one.samples),
      rate(one.samples, then?.samples),
      grouped(one.pool),
      grouped(one.drops),
    ]
  })
  return [
    '',
    ...tableLines([
      ['interface', '>speed', 'link', 'sampled', '>samples', '>/s', '>pool', '>drops'],
      ...rows,
    ]),
    ...more(sorted.length - most, 'interface'),
  ]
}

function dropLines({ drops }: Status, before: Status, rate: Rate, most: number): string[] {
  if (drops === null) return []
  const rows = drops.by
    .slice(0, most)
    .map(({ reason, code, ifIndex, interface: name, offered, suppressed }) => {
      const then = before.drops?.by.find(one => one.reason === reason && one.ifIndex === ifIndex)
      const where = ifIndex === 0 ? '' : printable(name ?? `ifIndex ${ifIndex}`, 24)
      return [
        printable(reason, 48),
        String(code),
        where,
        grouped(offered),
        rate(offered, then?.offered),
        grouped(suppressed),
      ]
    })
  if (rows.length === 0) return ['', 'no dropped packets reported']
  const others = drops.by.length - most + (drops.others?.pairs ?? 0)
  return [
    '',
    ...tableLines([['drop reason', '>code', 'interface', '>drops', '>/s', '>not sent'], ...rows]),
    ...more(others, 'kind of drops', 'kinds of drops'),
  ]
}

function ledgerLines({ ledger: { identities, losses } }: Status): string[] {
  const rows = identities
    .filter(({ offered, difference }) => offered > 0 || difference !== 0)
    .map(({ stage, unit, offered, parts, underWay, difference }) => {
      const terms = parts
        .filter(({ count }) => count > 0)
        .map(({ name, count }) => `${grouped(count)} ${name}`)
      if (underWay > 0) terms.push(`${grouped(underWay)} under way`)
      const sum = terms.length === 0 ? '0' : terms.join(' + ')
      const mark =
        difference === 0 ? '✓' : `✗ ${grouped(Math.abs(difference))} too ${difference > 0 ? 'few' : 'many'}`
      return [printable(stage, 40), counted(offered, unit.slice(0, -1)), `= ${printable(sum)}  ${mark}`]
    })
  const lost = losses.filter(({ count }) => count > 0)
  const lines =
    rows.length === 0 ? ['nothing has been offered yet'] : tableLines([['ledger', '>offered', ''], ...rows])
  if (lost.length === 0) return lines
  const lossRows = lost.map(({ stage, cause, count, help }) => [
    printable(`${stage}/${cause}`, 60),
    grouped(count),
    help,
  ])
  return [...lines, '', ...tableLines([['counted since the start', '>count', ''], ...lossRows])]
}

function warningLines(status: Status, before: Status): string[] {
  return warningsOf(status, before).flatMap(({ what, mend }) => [
    '',
    `warning: ${printable(what)}`,
    `         ${printable(mend)}`,
  ])
}

/** Log lines that are shown. */
const LOG_LINES = 5

function logLines({ log }: Status): string[] {
  const last = log.slice(-LOG_LINES).map(({ time, level, part, message }) => {
    const text = printable(inPart(part, message), 300)
    return `  ${time.slice(0, 19).replace('T', ' ')} ${level} ${text}`
  })
  return last.length === 0 ? [] : ['', 'last warnings of the log (UTC)', ...last]
}

function more(count: number, one: string, many = `${one}s`): string[] {
  return count > 0 ? [`… and ${counted(count, `more ${one}`, `more ${many}`)} (--all)`] : []
}

function rateText(perSecond: number): string {
  const rate = Math.max(perSecond, 0)
  return rate === 0 || rate >= 100 ? grouped(Math.round(rate)) : rate.toFixed(1)
}
