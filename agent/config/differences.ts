/** What two configurations have different, in the words of the configuration file. */

import { isDeepStrictEqual } from 'node:util'
import { endpoint } from '../wire/packet.ts'
import type { CidrRule, Config, ListenAddress, PcapConfig, TcConfig } from './config.ts'
import { speedText } from './pcap-rule.ts'
import { type Entries, settings } from './settings.ts'

export interface Difference {
  /** A setting as the file names it, `sampling.10G`, `collector main.udpport`, or a whole block, `psample`. */
  readonly name: string
  /** Undefined where there is none. */
  readonly before: string | undefined
  readonly after: string | undefined
}

/** Values that are not told, wherever differences are shown. */
const SECRETS: ReadonlySet<string> = new Set(['web.token'])

/** What the file calls the values that stand outside of blocks, by their names in the Config. */
const WORDS: Readonly<Record<string, string>> = {
  'sampling.rate': 'sampling',
  'sampling.bySpeed': 'sampling',
  'sampling.bpsRatio': 'sampling.bps_ratio',
  'sampling.byApplication': 'sampling.app',
  'polling.seconds': 'polling',
  'polling.byApplication': 'polling.app',
  'agent.address': 'agentIP',
  'agent.device': 'agent',
  'agent.cidrs': 'agent.cidr',
  flushMs: 'flush',
  discovery: 'dns-sd',
  transit: 'ebpf.transit',
  controlGroup: 'control.group',
  'counters.moduleSeconds': 'counters.modules',
  'virtual.systemd': 'systemd',
  'virtual.docker': 'docker',
  'virtual.containerd': 'containerd',
  'virtual.k8s': 'k8s',
  'virtual.kvm': 'kvm',
}
/** What it calls those in blocks: of one block, or of any that has them. */
const WORDS_IN_BLOCKS: Readonly<Record<string, string>> = {
  'json.port': 'udpport',
  'dropmon.software': 'sw',
  'dropmon.hardware': 'hw',
  'dropmon.reasonNames': 'rn',
  'dropmon.unknownTraps': 'hw_unknown',
  'dropmon.softwarePassive': 'sw_passive',
  'dropmon.hardwarePassive': 'hw_passive',
  'dropmon.mostPerSecond': 'max',
  'dropmon.mostSeconds': 'max_trip',
  'k8s.socket': 'unixsock',
  'systemd.processes': 'cgroup_procs',
  'collector.host': 'ip',
  'collector.port': 'udpport',
  'collector.device': 'dev',
  'collector.internalInterface': 'internal-interface',
  'collector.dropCodes': 'drop-codes',
  'pcap.device': 'dev',
  'pcap.devicePattern': 'dev.pattern',
  refreshSeconds: 'refreshVMs',
  forgetSeconds: 'forgetVMs',
}
/** Parts of the Config that are there whatever the file says, and are no blocks. */
const GROUPS: ReadonlySet<string> = new Set(['sampling', 'polling', 'agent', 'virtual', 'counters'])

/** The values of a block by name, or the text of a value. */
type Node = string | ReadonlyMap<string, string>

/**
 * The settings that are not the same, in the order of the names before, then those that are new. A block that comes or
 * goes is one difference; collectors are told apart by their names, pcap blocks by what they sample.
 */
export function differences(before: Config, after: Config): Difference[] {
  const [a, b] = [nodesOf(before), nodesOf(after)]
  return [...new Set([...a.keys(), ...b.keys()])].flatMap(name => compare(name, a.get(name), b.get(name)))
}

function compare(name: string, before: Node | undefined, after: Node | undefined): Difference[] {
  if (before instanceof Map && after instanceof Map) {
    return [...new Set([...before.keys(), ...after.keys()])].flatMap(key =>
      compare(`${name}.${key}`, before.get(key), after.get(key)),
    )
  }
  const [a, b] = [textOf(name, before), textOf(name, after)]
  return a === b ? [] : [{ name, before: a, after: b }]
}

/** A whole block as the file could have it, on one line, without what is the default anyway. */
function textOf(block: string, node: Node | undefined): string | undefined {
  if (!(node instanceof Map)) return node as string | undefined
  const given = [...node].filter(([name, value]) => value !== defaultOf(block, name))
  const words = given.map(([name, value]) => `${name} = ${SECRETS.has(`${block}.${name}`) ? '…' : value} `)
  return `{ ${words.join('')}}`
}

/** As text; `block` may have what tells it from others behind its name. */
function defaultOf(block: string, name: string): string | undefined {
  const entries: Entries = settings
  const entry = entries[block.split(' ')[0]!]
  const inner = entry?.form === 'block' ? (entry.entries as Entries)[name] : undefined
  if (inner?.form !== 'setting' || inner.initial === undefined) return undefined
  const reading = inner.kind.read(inner.initial)
  return 'value' in reading ? valueText(reading.value) : undefined
}

function nodesOf(config: Config): Map<string, Node> {
  const { file, lines, external, collectors, pcap, tc, nvml, agent, ...others } = config
  const nodes = new Map<string, Node>()
  for (const [name, value] of Object.entries(others)) add(nodes, name, value)
  add(nodes, 'agent', { ...agent, cidrs: agent.cidrs.map(cidrText).join(', ') || undefined })
  for (const { name, sampling, polling } of external) {
    add(nodes, `sampling.${name}`, sampling)
    add(nodes, `polling.${name}`, polling)
  }
  for (const { name, ...rest } of collectors) nodes.set(`collector ${name}`, blockOf('collector', rest))
  const names = pcapNames(pcap)
  pcap.forEach((rule, i) => {
    nodes.set(`pcap ${names[i]}`, blockOf('pcap', { ...rule, speed: rule.speed && speedText(rule.speed) }))
  })
  // The last one that matches an interface holds.
  if (pcap.length > 1) nodes.set('order of pcap', names.join(', '))
  if (tc !== undefined) nodes.set('dent', blockOf('dent', { switchport: switchportText(tc), sw: tc.sw }))
  if (nvml) nodes.set('nvml', new Map())
  return nodes
}

function add(nodes: Map<string, Node>, path: string, value: unknown): void {
  const word = WORDS[path] ?? path
  if (value === undefined) return
  if (value instanceof Map) for (const [key, inner] of value) nodes.set(`${word}.${key}`, valueText(inner))
  else if (GROUPS.has(path)) {
    for (const [key, inner] of Object.entries(value as object)) add(nodes, `${path}.${key}`, inner)
  } else if (isPlain(value)) nodes.set(word, blockOf(word, value))
  else nodes.set(word, valueText(value))
}

function blockOf(block: string, values: object): Map<string, string> {
  const given = Object.entries(values).filter(([, value]) => value !== undefined)
  return new Map(
    given.map(([key, value]) => [
      WORDS_IN_BLOCKS[`${block}.${key}`] ?? WORDS_IN_BLOCKS[key] ?? key,
      valueText(value),
    ]),
  )
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof RegExp)
}

function valueText(value: unknown): string {
  if (typeof value === 'boolean') return value ? 'on' : 'off'
  if (value instanceof RegExp) return value.source
  if (Array.isArray(value)) return value.join(', ')
  if (isPlain(value)) return listenText(value as ListenAddress)
  return String(value)
}

function listenText(listen: ListenAddress): string {
  return 'path' in listen ? listen.path : endpoint(listen.host, listen.port)
}

function cidrText({ address, bits, exclude }: CidrRule): string {
  return `${exclude ? '!' : ''}${address}/${bits}`
}

/** Any kind of interface may match an expression that the file has, even if it is that of the default. */
function switchportText({ switchport, switchportGiven }: TcConfig): string {
  return switchportGiven ? switchport.source : `${switchport.source} (default)`
}

/** What each block names; blocks that name the same are numbered. */
function pcapNames(pcap: readonly PcapConfig[]): string[] {
  const names = pcap.map(
    ({ device, devicePattern, speed }) =>
      device ?? devicePattern?.source ?? (speed && speedText(speed)) ?? 'of any interface',
  )
  return names.map((name, i) => {
    const before = names.slice(0, i).filter(other => other === name).length
    return before === 0 ? name : `${name} #${before + 1}`
  })
}

/** Whether two configurations ask for the same, wherever they come from. */
export function saysTheSame(a: Config, b: Config): boolean {
  return isDeepStrictEqual({ ...a, file: '', lines: undefined }, { ...b, file: '', lines: undefined })
}

/** One difference as a line: `polling: 30 → 10`. */
export function formatDifference({ name, before, after }: Difference): string {
  if (SECRETS.has(name)) return `${name}: changed`
  return `${name}: ${before ?? 'none'} → ${after ?? 'none'}`
}
