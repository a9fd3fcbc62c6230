import { readFile } from 'node:fs/promises'
import { Command } from 'commander'
import { type AgentAddressChoice, chooseAgentAddress } from '../config/agent-address.ts'
import type { CollectorConfig, Config, DropmonConfig, NflogConfig } from '../config/config.ts'
import { type Difference, differences, formatDifference } from '../config/differences.ts'
import { loadConfigFile } from '../config/load.ts'
import { pcapDecisions, pcapRate, portsWithoutCounters } from '../config/pcap-rule.ts'
import { formatProblem, linesOf, nearest } from '../config/problem.ts'
import { effectiveRate, speedName } from '../config/sampling-rate.ts'
import { type KernelReason, kernelReasons } from '../drops/kernel-names.ts'
import { describeMachine } from '../health/inventory.ts'
import { createLogger } from '../health/log.ts'
import { escapeJson, printable } from '../health/printable.ts'
import { type Interface, Interfaces, type LocalAddress } from '../interfaces.ts'
import { type DropSourceName, sourceOf } from '../parts/drop-reports.ts'
import { isPolled } from '../parts/interface-polling.ts'
import { type FoundRuntime, findRuntimes } from '../parts/virtual-sources.ts'
import { INTERNAL_INTERFACE } from '../samples/packet-sample.ts'
import { type DropTracePoints, dropTracePoints, isFirstNamespace } from '../sources/bpf-drops.ts'
import { selectPorts } from '../sources/tc-ports.ts'
import { countText } from '../virtual/runtime.ts'
import type { DropFeed } from '../wire/netlink/drop-monitor.ts'

/** What a configuration means for the machine it stands on. */
export interface Explanation {
  readonly file: string
  /** The machine in one line. */
  readonly machine: string
  readonly agentAddress: AgentAddressChoice
  readonly collectors: Config['collectors']
  /** Set when DNS replaces the collectors, sampling and polling told here. */
  readonly discovery: Config['discovery']
  /** Groups that packet samples are taken from, whoever makes them. */
  readonly psampleGroups: readonly { readonly group: number; readonly direction: string }[]
  /** The NFLOG group that samples are taken from, 1 in how many packets its rule logs, and 1 in how many are taken. */
  readonly nflog: { readonly group: number; readonly ruleRate: number; readonly rate: number } | undefined
  /** Samples of this host's TCP connections tell how they fare. */
  readonly tcp: boolean
  /** Where applications hand in their samples. */
  readonly json: Config['json']
  readonly pollingSeconds: number
  /** Queueing disciplines are told of, in a structure with a number that is not ours. */
  readonly queues: boolean
  /** Undefined: dropped packets are not reported. */
  readonly drops: ExplainedDrops | undefined
  /** Those of the configuration that have containers, services or virtual machines. */
  readonly runtimes: readonly FoundRuntime[]
  readonly interfaces: readonly ExplainedInterface[]
}

export interface ExplainedDrops {
  /** Where they come from, and why from there. */
  readonly source: DropSourceName
  readonly why: string
  /** Kinds that are started, and kinds that are reported: of the drop monitor also when others have started them. */
  readonly starts: readonly DropFeed[]
  readonly takes: readonly DropFeed[]
  readonly limitPerSecond: number
  /** Drop reasons of this kernel; 0 when it does not tell. */
  readonly reasons: number
  /** Of those, the ones without an sFlow discard reason: they are reported as unknown, with their name. */
  readonly unknownReasons: readonly string[]
}

export interface ExplainedInterface {
  readonly name: string
  readonly ifIndex: number
  /** 0 when unknown. */
  readonly speedBitsPerSecond: number
  readonly adminUp: boolean
  /** Whether its counters are sent. */
  readonly polled: boolean
  readonly sampling: readonly ExplainedSampling[]
}

/** What one part of the configuration means for an interface. */
export interface ExplainedSampling {
  readonly source: 'tc' | 'pcap'
  /** 1 in N; 0 when it does not sample the interface. */
  readonly rate: number
  /** `ingress`, `egress` or `both`. */
  readonly direction: string
  /** Why it was chosen, or not. */
  readonly why: string
  /** What sets the rate; undefined when it was not chosen. */
  readonly rule: string | undefined
}

/** `weir explain`: what the agent would do here, and by which rules. Starts nothing and needs no privilege. */
export function explainCommand(): Command {
  return new Command('explain')
    .summary('tell what a configuration does on this machine, and why')
    .description(
      'Tells which agent address is chosen, and for each interface whether it is sampled, at which rate, and which ' +
        'rule says so. Starts nothing.',
    )
    .argument('[interface...]', 'only these interfaces')
    .option(
      '-f, --file <file>',
      'file to read, - for standard input (default: /etc/weir.conf, else /etc/hsflowd.conf)',
    )
    .option('--diff <file>', 'tell what would be different with this configuration')
    .option('--json', 'print one JSON object')
    .action(run)
}

async function run(names: string[], options: { file?: string; diff?: string; json?: true }): Promise<void> {
  const config = await load(options.file)
  const other = options.diff === undefined ? undefined : await load(options.diff)

  const interfaces = new Interfaces({ log: createLogger('warn') })
  await interfaces.start()
  interfaces.stop()
  const { byIndex } = interfaces
  const known = [...byIndex.values()].map(({ name }) => name)
  for (const name of names) {
    if (known.includes(name)) continue
    const near = nearest(name, known)
    throw new Error(`there is no interface ${name}${near === undefined ? '' : `; did you mean ${near}?`}`)
  }
  const machine = await describeMachine()
  const reportsDrops = [config, other].some(one => one?.dropmon !== undefined)
  const kernel = reportsDrops ? await kernelDrops() : NO_DROPS
  const explanationOf = async (one: Config): Promise<Explanation> => {
    const runtimes = await findRuntimes(one.virtual)
    const all = explain(one, byIndex, interfaces.localAddresses(), machine, kernel, runtimes)
    return {
      ...all,
      interfaces: all.interfaces.filter(({ name }) => names.length === 0 || names.includes(name)),
    }
  }
  const explanation = await explanationOf(config)
  if (other === undefined) {
    process.stdout.write(
      options.json ? escapeJson(`${JSON.stringify(explanation)}\n`) : formatExplanation(explanation),
    )
  } else {
    const settings = differences(config, other)
    const effects = effectsOf(explanation, await explanationOf(other))
    process.stdout.write(
      options.json
        ? escapeJson(`${JSON.stringify({ settings, effects })}\n`)
        : formatEffects(settings, effects),
    )
  }
}

async function load(path: string | undefined): Promise<Config> {
  const { config, problems, file, text } = await loadConfigFile(path)
  const lines = linesOf(text)
  for (const problem of problems) process.stderr.write(`${formatProblem(problem, file, lines)}\n`)
  if (config === undefined) throw new Error(`${file} has errors`)
  return config
}

/** What is different on this machine: the agent address, and what becomes of each interface. */
export function effectsOf(before: Explanation, after: Explanation): Difference[] {
  const [a, b] = [before, after].map(explanation => {
    const { agentAddress, interfaces } = explanation
    const effects = new Map([['agent address', agentAddress.chosen?.address ?? 'none']])
    for (const port of interfaces) {
      effects.set(`${port.name} counters`, port.polled ? `every ${explanation.pollingSeconds} s` : 'no')
      const samplers = port.sampling.filter(({ rate }) => rate > 0).map(samplingText)
      effects.set(`${port.name} sampling`, samplers.join(' and ') || 'no')
    }
    return effects
  }) as [Map<string, string>, Map<string, string>]
  return [...a.keys()]
    .filter(name => a.get(name) !== b.get(name))
    .map(name => ({ name, before: a.get(name), after: b.get(name) }))
}

function formatEffects(settings: readonly Difference[], effects: readonly Difference[]): string {
  const list = (title: string, all: readonly Difference[]) => [
    all.length === 0 ? `${title}: no difference` : `${title}:`,
    ...all.map(one => `  ${printable(formatDifference(one), 1000)}`),
  ]
  return [...list('settings', settings), ...list('on this machine', effects), ''].join('\n')
}

function samplingText({ rate, source, direction }: ExplainedSampling): string {
  return `1 in ${rate}, ${source}, ${direction}`
}

/** Applies a configuration to interfaces and addresses, as the agent does. */
export function explain(
  config: Config,
  interfaces: ReadonlyMap<number, Interface>,
  addresses: readonly LocalAddress[],
  machine: string,
  kernel: KernelDrops = NO_DROPS,
  runtimes: readonly FoundRuntime[] = [],
): Explanation {
  const { psample, tc, polling } = config
  const groups = [
    ...(psample?.ingress ? [{ group: psample.group, direction: 'ingress' }] : []),
    ...(psample?.egress ? [{ group: psample.group + 1, direction: 'egress' }] : []),
  ]
  const decisions = tc === undefined ? [] : selectPorts(interfaces, tc)
  const uncounted = portsWithoutCounters(config.pcap, interfaces)
  const byPcap = pcapDecisions(config.pcap, interfaces)
  const byTc = new Map(decisions.map(decision => [decision.ifIndex, decision]))

  const samplingOf = (port: Interface): ExplainedSampling[] => {
    const result: ExplainedSampling[] = []
    const decision = byTc.get(port.ifIndex)
    if (decision !== undefined) {
      const { rate, rule } = effectiveRate(config, port)
      const direction = groups.length === 2 ? 'both' : (groups[0]?.direction ?? 'none')
      const why = groups.length === 0 ? 'psample { } takes no samples' : decision.reason
      const chosen = decision.selected && groups.length > 0
      result.push({ source: 'tc', rate: chosen ? rate : 0, direction, why, rule: chosen ? rule : undefined })
    }
    if (config.pcap.length > 0) {
      const { index, why } = byPcap.get(port.ifIndex)!
      const { rate, rule } = index < 0 ? { rate: 0, rule: undefined } : pcapRate(config, index, port)
      result.push({ source: 'pcap', rate, direction: 'both', why, rule })
    }
    return result
  }

  return {
    file: config.file,
    machine,
    agentAddress: chooseAgentAddress(addresses, config.agent),
    collectors: config.collectors,
    discovery: config.discovery,
    psampleGroups: groups,
    nflog:
      config.nflog && config.sampling.rate > 0 ? explainNflog(config.nflog, config.sampling.rate) : undefined,
    tcp: config.tcp !== undefined,
    json: config.json,
    pollingSeconds: polling.seconds,
    queues: config.counters.queues,
    drops: config.dropmon && explainDrops(config.dropmon, kernel),
    runtimes,
    interfaces: [...interfaces.values()].map(port => ({
      name: port.name,
      ifIndex: port.ifIndex,
      speedBitsPerSecond: port.speedBitsPerSecond,
      adminUp: port.adminUp,
      polled: polling.seconds > 0 && !uncounted.has(port.ifIndex) && isPolled(port, config.counters, false),
      sampling: samplingOf(port),
    })),
  }
}

function explainNflog({ group, probability = 1 }: NflogConfig, sampling: number): Explanation['nflog'] {
  const ruleRate = Math.max(1, Math.floor(1 / probability))
  return { group, ruleRate, rate: ruleRate * Math.max(1, Math.ceil(sampling / ruleRate)) }
}

/** What the running kernel tells of drops. */
export interface KernelDrops {
  readonly reasons: readonly KernelReason[]
  readonly tracePoints: DropTracePoints
  /** This is the first network namespace. */
  readonly everywhere: boolean
}

const NO_DROPS: KernelDrops = {
  reasons: [],
  tracePoints: { software: undefined, hardware: false },
  everywhere: false,
}

async function kernelDrops(): Promise<KernelDrops> {
  const btf = await readFile('/sys/kernel/btf/vmlinux').catch(() => undefined)
  return {
    reasons: kernelReasons(),
    tracePoints: btf === undefined ? NO_DROPS.tracePoints : dropTracePoints(btf),
    everywhere: await isFirstNamespace(),
  }
}

function explainDrops(
  dropmon: DropmonConfig,
  { reasons, tracePoints, everywhere }: KernelDrops,
): ExplainedDrops {
  const { start, software, hardware, softwarePassive, hardwarePassive, limit } = dropmon
  const feeds = (withSoftware: boolean, withHardware: boolean): DropFeed[] => [
    ...(withSoftware ? (['software'] as const) : []),
    ...(withHardware ? (['hardware'] as const) : []),
  ]
  const told = {
    limitPerSecond: limit,
    reasons: reasons.length,
    unknownReasons: reasons.filter(({ isMapped }) => !isMapped).map(({ name }) => name),
  }
  const byBpf = feeds(software && tracePoints.software !== undefined, hardware && tracePoints.hardware)
  const canBpf = byBpf.length > 0 && (!software || tracePoints.software !== undefined)
  const isForced = dropmon.source !== 'auto'
  if (sourceOf(dropmon) === 'eBPF' && (canBpf || isForced)) {
    const where = everywhere ? 'all network namespaces' : 'this network namespace'
    const choice = isForced ? 'source = ebpf' : 'this kernel has the trace points; else the drop monitor'
    const why = canBpf ? `of ${where}; ${choice}` : 'but this kernel does not have its trace points'
    return { source: 'eBPF', why, starts: byBpf, takes: byBpf, ...told }
  }
  const passive = 'only the drop monitor has what others started'
  const reason = sourceOf(dropmon) === 'eBPF' ? 'this kernel has no trace points for BPF' : passive
  return {
    source: 'drop monitor',
    why: isForced ? 'source = drop_monitor' : reason,
    starts: start ? feeds(software, hardware) : [],
    takes: feeds(software || softwarePassive, hardware || hardwarePassive),
    ...told,
  }
}

/** The explanation as text. */
export function formatExplanation(explanation: Explanation): string {
  const { agentAddress, collectors, psampleGroups, pollingSeconds, drops, interfaces } = explanation
  const { chosen, ranked, note } = agentAddress
  const facts: [string, string][] = [
    ['machine', explanation.machine],
    ['configuration', explanation.file],
  ]
  if (chosen === undefined) facts.push(['agent address', 'none: no interface has one, so nothing is sent'])
  else facts.push(['agent address', `${chosen.address}${on(chosen.interfaceName)}: ${chosen.why}`])
  if (note !== undefined) facts.push(['', note])
  for (const other of ranked) {
    if (other.address === chosen?.address) continue
    facts.push(['', `not ${other.address}${on(other.interfaceName)}: ${other.why}`])
  }
  if (explanation.discovery !== undefined) {
    const domain = explanation.discovery.domain ?? " of the resolver's search list"
    facts.push([
      'DNS-SD',
      `_sflow._udp${domain} gives the collectors, sampling and polling, in place of the file`,
    ])
  }
  for (const collector of collectors) facts.push(['collector', collectorText(collector)])
  for (const { group, direction } of psampleGroups) {
    facts.push(['psample', `group ${group}, ${direction}: whatever the kernel samples there`])
  }
  const { nflog, tcp, json } = explanation
  if (nflog !== undefined) {
    const { group, ruleRate, rate } = nflog
    const thinned =
      rate === ruleRate ? '' : `, of which 1 in ${rate / ruleRate} is taken: 1 in ${rate} in all`
    facts.push(['nflog', `group ${group}: a firewall rule logs 1 in ${ruleRate} packets${thinned}`])
  }
  if (tcp) facts.push(['tcp', 'samples of connections of this host tell round-trip time, loss and window'])
  if (json !== undefined) {
    const places = [
      ...(json.port ? [`UDP port ${json.port} of the loopback addresses`] : []),
      ...(json.fifo === undefined ? [] : [json.fifo]),
    ]
    facts.push(['json', places.join(' and ') || 'neither a port nor a pipe: nothing is taken'])
  }
  facts.push(['polling', pollingSeconds === 0 ? 'off' : `every ${pollingSeconds} s`])
  if (explanation.queues && pollingSeconds > 0) {
    facts.push([
      '',
      'with queueing disciplines as 32473:1, a number that is reserved for documentation (RFC 5612)',
    ])
  }
  if (drops !== undefined) {
    const takes = drops.takes.join(' and ') || 'no'
    const starts = drops.starts.length === 0 ? ', when others start it' : ''
    facts.push([
      'drops',
      `${takes} drops by ${drops.source === 'eBPF' ? '' : 'the '}${drops.source}${starts}; at most ${drops.limitPerSecond} a second`,
    ])
    facts.push(['', drops.why])
    if (drops.reasons > 0) {
      const unknown = drops.unknownReasons
      const known = unknown.length === 0 ? 'all known' : `unknown to weir: ${unknown.join(', ')}`
      facts.push(['', `${drops.reasons} drop reasons in this kernel, ${known}`])
    }
  }

  for (const { runtime, things, count, problem } of explanation.runtimes) {
    facts.push([runtime, problem ?? `${countText(count!, things)} found`])
  }

  const rows = interfaces.flatMap(port => {
    const speed = port.speedBitsPerSecond === 0 ? '?' : speedName(port.speedBitsPerSecond)
    const state = port.adminUp ? 'up' : 'down'
    const start = [port.name, speed, state, port.polled ? 'yes' : 'no']
    if (port.sampling.length === 0)
      return [[...start, 'no', 'the configuration puts no sampler on interfaces']]
    return port.sampling.map(sampling => [
      ...start,
      sampling.rate === 0 ? 'no' : samplingText(sampling),
      sampling.rule === undefined ? sampling.why : `${sampling.why}; ${sampling.rule}`,
    ])
  })
  return [
    ...columns(facts),
    '',
    ...columns([['interface', 'speed', 'state', 'counters', 'sampling', 'why'], ...rows]),
    '',
  ].join('\n')
}

/** A collector, and what is not usual about it. */
function collectorText(collector: CollectorConfig): string {
  const { name, host, port, device, namespace, send, separate, internalInterface, dropCodes } = collector
  const through = device === undefined ? '' : ` through ${device}`
  const inside = namespace === undefined ? '' : ` in namespace ${namespace}`
  const traits = [
    ...(send.length === 3 ? [] : [`${send.join(' and ')} only`]),
    ...(separate ? ['classes apart'] : []),
    ...(internalInterface === INTERNAL_INTERFACE ? [] : [`this host is interface ${internalInterface}`]),
    ...(dropCodes === 'hsflowd' ? ["hsflowd's drop codes"] : []),
  ]
  // A name that the file does not give tells all of the way.
  const whole = name.includes(host) ? name : `${name} (${host} port ${port}${through}${inside})`
  return [whole, ...traits].join(', ')
}

function on(interfaceName: string | undefined): string {
  return interfaceName === undefined ? '' : ` on ${interfaceName}`
}

/** Lines with each column as wide as its widest cell. */
function columns(given: readonly (readonly string[])[]): string[] {
  const rows = given.map(row => row.map(cell => printable(cell, 1000)))
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map(row => row[i]!.length)))
  return rows.map(row =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  )
}
