import { counted, duration } from '../quantities.ts'
import type { Status } from './status.ts'

/** What is not as it should be with a running agent, and what to do about it. */

export interface Warning {
  /** What and where, one sentence without its full stop. */
  readonly what: string
  /** What to do. */
  readonly mend: string
}

/** A collector that nothing was sent to for so long, though it is there, hears nothing: counters alone come more often. */
const SILENT_SECONDS = 60

/** `before` is an earlier look at the same agent: what was lost since then is told as happening now. */
export function warningsOf(status: Status, before?: Status): Warning[] {
  const { agent, collectors, sources, interfaces, unheard, ledger } = status
  const warnings: Warning[] = []
  const warn = (what: string, mend: string) => void warnings.push({ what, mend })

  if (agent.address === null) {
    warn(
      'nothing is sent: no interface has an address to be known by',
      'give an interface one, or set agentIP',
    )
  }
  if (collectors.length === 0) {
    warn(
      'nothing is sent: there is no collector',
      'name one with collector { ip = … }; with DNS-SD, look at the log',
    )
  }
  if (agent.replaced) {
    warn(
      'the files of the agent have been replaced: it takes no other configuration',
      'restart it: systemctl restart weir',
    )
  }
  for (const { name, problem, address, ageSeconds, unreachableSeconds } of collectors) {
    if (problem !== undefined) {
      const since = unreachableSeconds === undefined ? '' : `, for ${duration(unreachableSeconds)}`
      warn(`collector ${name}: ${problem}${since}`, mendOf(problem, address))
    } else if (address !== undefined && (ageSeconds ?? agent.uptimeSeconds) > SILENT_SECONDS) {
      warn(
        `collector ${name} has got nothing for ${duration(ageSeconds ?? agent.uptimeSeconds)}`,
        'look whether polling is on and what it is sent (send)',
      )
    }
  }
  for (const { name, state } of sources) {
    const mend = STATES[state]
    if (mend !== undefined) warn(`${name}: ${state}`, mend)
  }
  for (const { name, problem, sampledBy } of interfaces) {
    if (problem !== null) warn(`${name} is not sampled (${sampledBy}): ${problem}`, mendOfSampler(problem))
  }
  const isSampling = interfaces.length > 0 || sources.some(({ name }) => FEEDS.has(name))
  if (agent.wantsPackets && !isSampling) {
    warn(
      'no packets are sampled',
      'look with weir explain whether an interface matches and is to be sampled, and at the log',
    )
  }
  for (const { name, problem } of unheard) {
    warn(
      `${name}: ${problem}`,
      `set another one with ${name} { ${name === 'json' ? 'udpport' : 'listen'} = … }, or end what has this: it is tried again`,
    )
  }
  for (const { stage, difference, unit } of ledger.identities) {
    if (difference !== 0) {
      const count = Math.abs(difference)
      warn(
        `${stage}: ${counted(count, unit.slice(0, -1))} ${count === 1 ? 'is' : 'are'} ${difference > 0 ? 'not accounted for' : 'counted twice'}`,
        'this is a mistake in weir: please report it with the output of weir status --json',
      )
    }
  }
  for (const { stage, cause, count, help } of ledger.losses) {
    const earlier = before?.ledger.losses.find(one => one.stage === stage && one.cause === cause)?.count
    if (earlier !== undefined && count > earlier && !NO_LOSS.has(stage))
      warn(`${stage}/${cause}: ${count - earlier} lost just now`, help)
  }
  return warnings
}

/** Stages that count what was sent with less in it than there could be, and drops that were not to be sent. */
const NO_LOSS: ReadonlySet<string> = new Set(['transit', 'sampled-header', 'psample-interface', 'notifier'])

/** Sources whose samples others choose. */
const FEEDS: ReadonlySet<string> = new Set(['psample', 'nflog'])

/** States of sources in which nothing comes, and what to do. */
const STATES: Readonly<Record<string, string>> = {
  'waiting for the kernel module':
    'modprobe psample act_sample (or drop_monitor), or load the driver of the switch',
  refused: 'run the agent with CAP_NET_ADMIN; weir doctor tells what is missing',
  'taken by others': 'end the other program that uses the drop monitor, or set dropmon { start = off }',
}

function mendOfSampler(problem: string): string {
  if (/EPERM|EACCES/.test(problem)) {
    return 'run the agent with the capabilities it needs; weir doctor tells what is missing'
  }
  if (problem.includes('ENOENT')) return 'modprobe cls_matchall act_sample'
  if (problem.includes('EOPNOTSUPP'))
    return 'set dent { sw = on }, or leave the interface out with switchport'
  return 'tc -s filter show dev INTERFACE ingress shows what is in its way; it is tried again'
}

function mendOf(problem: string, address = 'ADDRESS'): string {
  if (problem.includes('do not arrive') && problem.includes('EHOSTUNREACH')) {
    return `no host answers there: start it, or correct ip; see ip neigh show ${address} and ip route get ${address}`
  }
  if (problem.includes('ECONNREFUSED'))
    return 'nothing listens there: start the collector, or correct ip and udpport'
  if (problem.includes('resolve'))
    return 'correct the name, or what resolves it (/etc/resolv.conf, /etc/hosts)'
  if (/ENETUNREACH|EHOSTUNREACH/.test(problem)) return `give the host a route to it: ip route get ${address}`
  if (/ENODEV|ENOENT/.test(problem))
    return 'the interface or namespace that it names is not there: correct dev or namespace'
  if (/EPERM|EACCES/.test(problem)) return 'a firewall of this host refuses it: look at the output chains'
  return 'weir doctor looks at the way to each collector'
}
