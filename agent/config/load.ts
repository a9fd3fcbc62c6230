/** From a configuration file to a frozen Config, or to the reasons why not. */

import { constants, existsSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { isIP, isIPv6 } from 'node:net'
import { fileErrorReason } from '../kernel/file-error.ts'
import { formatAddress, parseAddress } from './address.ts'
import type {
  CollectorConfig,
  Config,
  DropmonConfig,
  ExternalConfig,
  ListenAddress,
  NflogConfig,
  PcapConfig,
  VirtualConfig,
} from './config.ts'
import { type Parsed, parse } from './parse.ts'
import { byPlace, type Place, type Problem, type Severity } from './problem.ts'
import { speedName } from './sampling-rate.ts'
import type { Values } from './settings.ts'

export interface Loaded {
  /** Undefined when a problem is an error. */
  readonly config: Config | undefined
  /** All problems, errors and warnings, in the order of the file. */
  readonly problems: readonly Problem[]
  /** Where each thing that the file sets is: `sFlow`, `psample.group`, `collector[0].ip`. */
  readonly places: ReadonlyMap<string, Place>
}

/** A file that could not be read at all; the message says which and why. */
export class ConfigFileError extends Error {
  override readonly name = 'ConfigFileError'
}

/** Where the configuration is when no file is named: the first that exists. */
export const DEFAULT_FILES = ['/etc/weir.conf', '/etc/hsflowd.conf'] as const

/** Larger files are refused: no configuration is, and the agent should not die of reading a wrong file. */
const MAX_FILE_BYTES = 1 << 20

/** Reads a configuration from text. `file` is its name for messages. Never throws. */
export function loadConfig(text: string, file: string): Loaded {
  const parsed = parse(text)
  const problems = [...parsed.problems]
  checkRules(parsed, problems)
  problems.sort(byPlace)
  const refused = problems.some(({ severity }) => severity === 'error')
  const config = refused ? undefined : freeze(toConfig(parsed, file))
  return { config, problems, places: parsed.places }
}

/**
 * Reads a configuration from a file, `-` for standard input; undefined takes the first of DEFAULT_FILES that
 * exists. Throws ConfigFileError when there is no text to be had.
 */
export async function loadConfigFile(file?: string): Promise<Loaded & { file: string; text: string }> {
  const path = file ?? DEFAULT_FILES.find(name => existsSync(name))
  if (path === undefined) {
    throw new ConfigFileError(
      `no configuration: neither ${DEFAULT_FILES.join(' nor ')} exists; name a file with -f FILE`,
    )
  }
  const text = path === '-' ? await readBounded(process.stdin, 'standard input') : await readText(path)
  const name = path === '-' ? '<stdin>' : path
  return { ...loadConfig(text, name), file: name, text }
}

/** All text of a stream; devices and pipes do not tell beforehand how much that is. */
async function readBounded(stream: AsyncIterable<Buffer | string>, name: string): Promise<string> {
  const pieces: Buffer[] = []
  let bytes = 0
  for await (const piece of stream) {
    pieces.push(Buffer.from(piece))
    bytes += piece.length
    if (bytes > MAX_FILE_BYTES) {
      throw new ConfigFileError(`${name} has more than ${MAX_FILE_BYTES} bytes; no configuration has`)
    }
  }
  return Buffer.concat(pieces).toString('utf8')
}

async function readText(path: string): Promise<string> {
  let handle: FileHandle | undefined
  try {
    // Not to wait for a writer, should it be a pipe.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const stat = await handle.stat()
    if (stat.isDirectory()) throw new ConfigFileError(`${path} is a directory`)
    if (stat.size > MAX_FILE_BYTES) {
      throw new ConfigFileError(
        `${path} has ${stat.size} bytes; a configuration has at most ${MAX_FILE_BYTES}`,
      )
    }
    return await readBounded(handle.createReadStream({ autoClose: false }), path)
  } catch (error) {
    if (error instanceof ConfigFileError) throw error
    throw new ConfigFileError(`cannot read ${path}: ${fileErrorReason(error as NodeJS.ErrnoException)}`)
  } finally {
    await handle?.close()
  }
}

/** What others than this host can reach has to be meant so. */
function checkListen(
  block: string,
  values: { readonly listen: ListenAddress | undefined; readonly remote: boolean } | undefined,
  report: Report,
): void {
  if (values?.listen === undefined || values.remote || isOwnAlone(values.listen)) return
  const { host } = values.listen as { host: string }
  report(
    'error',
    `${block}.listen`,
    `${host} can be reached by other hosts: add remote = on if that is meant`,
  )
}

/** A page that other hosts can reach needs a token that nobody guesses. */
function checkWeb(
  web: { readonly listen: ListenAddress | undefined; readonly token: string | undefined } | undefined,
  report: Report,
): void {
  const LEAST_CHARACTERS = 16
  if (web?.token !== undefined && web.token.length < LEAST_CHARACTERS) {
    report('error', 'web.token', `a token has at least ${LEAST_CHARACTERS} characters`)
  }
  if (web?.listen === undefined || web.token !== undefined || isOwnAlone(web.listen)) return
  const { host } = web.listen as { host: string }
  report('error', 'web.listen', `${host} can be reached by other hosts: that needs a token`)
}

/** Whether nobody but users of this host can connect. */
function isOwnAlone(listen: ListenAddress): boolean {
  return 'path' in listen || /^127\./.test(listen.host) || listen.host === '::1'
}

/** Adds a problem at the name of what is set under this path. */
type Report = (severity: Severity, path: string, message: string, suggestion?: string) => void

/** The rules that no single setting can break. */
function checkRules({ values, places }: Parsed, problems: Problem[]): void {
  const report: Report = (severity, path, message, suggestion) => {
    const place = places.get(path)!
    const { line, column, length } = place
    problems.push({
      severity,
      line,
      column,
      length,
      message,
      ...(suggestion === undefined ? {} : { suggestion }),
    })
  }
  const discovery = values['dns-sd'] !== undefined || values.DNSSD === true

  checkCollectors(values.collector, places, report)
  checkListen('metrics', values.metrics, report)
  checkWeb(values.web, report)
  if (discovery && values.collector.length > 0) {
    report('warning', 'collector[0]', 'the collectors that DNS names take the place of those of the file')
  }
  if (values.collector.length === 0 && !discovery && places.has('sFlow')) {
    const source = (['sonic', 'eapi'] as const).find(name => values[name] !== undefined)
    if (source === undefined)
      report('error', 'sFlow', 'no collector: at least one collector { ip = … } is needed')
    else report('warning', source, 'no collector: nothing is sent')
  }
  for (const source of ['eapi', 'sonic'] as const) {
    if (discovery && values[source] !== undefined) {
      report('error', source, `${source} { } and DNS-SD cannot both give the settings`)
    }
  }
  if (values.dent !== undefined && values.psample === undefined) {
    report('warning', 'dent', 'samplers without psample { } have no effect')
  }

  // A group that was refused has its own error.
  if (values.nflog !== undefined && !places.has('nflog.group') && !places.has('nflogGroup')) {
    report('warning', 'nflog', 'nflog { } without a group has no effect')
  }

  for (const name of values['sampling.'].keys()) {
    const path = `sampling.${name}`
    const speed = speedOf(name)
    if (speed === undefined) {
      report('warning', path, `"${name}" is no speed: only programs that read hsflowd.auto see it`)
    } else if (speedName(speed) !== name) {
      report(
        'warning',
        path,
        `${path} matches no interface: this speed is named ${speedName(speed)}`,
        `sampling.${speedName(speed)}`,
      )
    }
  }
}

function checkCollectors(collectors: Values['collector'], places: Parsed['places'], report: Report): void {
  const lineOf = (index: number) => places.get(`collector[${index}]`)!.line
  const named = new Map<string, number>()
  const targets = new Map<string, number>()
  collectors.forEach((collector, i) => {
    const path = `collector[${i}]`
    const { ip, udpport, dev, vrf, namespace, name, source } = collector
    // An ip that was refused has its own error.
    if (!places.has(`${path}.ip`)) report('error', path, 'collector { } has no ip')
    if (dev !== undefined && vrf !== undefined && dev !== vrf) {
      report('error', `${path}.vrf`, `vrf and dev both say where to send through; dev is ${dev}`)
    }
    if (name !== undefined) {
      const other = named.get(name)
      if (other === undefined) named.set(name, i)
      else report('error', `${path}.name`, `the collector in line ${lineOf(other)} is named ${name} too`)
    }
    if (ip === undefined) return
    const family = isIP(ip)
    if (isNobody(ip)) report('error', `${path}.ip`, `${ip} is the address of no collector`)
    if (isLinkLocal(ip) && !ip.includes('%') && (dev ?? vrf) === undefined) {
      report('error', `${path}.ip`, `a link-local address needs dev: ${ip} may be on any link`)
    }
    if (source !== undefined && family !== 0 && family !== isIP(source)) {
      const [wanted, given] = family === 4 ? ['IPv4', 'IPv6'] : ['IPv6', 'IPv4']
      report(
        'error',
        `${path}.source`,
        `an ${wanted} collector is not reached from the ${given} address ${source}`,
      )
    }
    const target = JSON.stringify([ip, udpport, dev ?? vrf, namespace])
    const same = targets.get(target)
    if (same === undefined) targets.set(target, i)
    else {
      const text = `the same collector as in line ${lineOf(same)}: it gets every datagram twice`
      report('warning', path, text)
    }
  })
}

/** Whether an address stands for none, or for all. */
function isNobody(ip: string): boolean {
  const bytes = parseAddress(ip)
  return bytes !== undefined && ['0.0.0.0', '::', '255.255.255.255'].includes(formatAddress(bytes))
}

function isLinkLocal(ip: string): boolean {
  return isIPv6(ip) && /^fe[89ab][\da-f]:/i.test(ip)
}

/** The speed that a name such as `10G` or `2.5g` stands for; undefined when it is something else. */
function speedOf(name: string): number | undefined {
  const [, number, letter] = /^(\d+(?:\.\d+)?)([kmgt]?)$/i.exec(name) ?? []
  if (number === undefined) return undefined
  return Math.floor(Number(number) * 10 ** (3 * ' kmgt'.indexOf(letter?.toLowerCase() || ' ')))
}

function toConfig({ values, places }: Parsed, file: string): Config {
  const { psample, dent } = values
  return {
    file,
    lines: new Map([...places].map(([name, { line }]) => [name, line])),
    watch: values.watch,
    sampling: {
      rate: values.sampling,
      bySpeed: new Map([...values['sampling.']].filter(([name]) => speedOf(name) !== undefined)),
      bpsRatio: values['sampling.bps_ratio'],
      byApplication: values['sampling.app.'],
    },
    polling: { seconds: values.polling, byApplication: values['polling.app.'] },
    external: externals({ values, places }),
    agent: {
      address: values.agentIP,
      device: values.agent,
      cidrs: values['agent.cidr'].filter(rule => rule !== undefined),
    },
    subAgentId: values.subAgentId,
    uuid: values.uuid,
    headerBytes: values.headerBytes,
    innerHeader: values.innerHeader,
    datagramBytes: values.datagramBytes,
    flushMs: values.flush,
    budget: values.budget,
    collectors: toCollectors(values.collector),
    discovery:
      values['dns-sd'] === undefined && values.DNSSD !== true
        ? undefined
        : { domain: values['dns-sd']?.domain ?? values.DNSSD_domain },
    json: values.json && {
      port: values.json.udpport ?? values.jsonPort,
      fifo: values.json.fifo ?? values.jsonFIFO,
    },
    psample,
    nflog: toNflog(values),
    tc: dent && {
      switchport: dent.switchport,
      switchportGiven: places.has('dent.switchport'),
      sw: dent.sw,
    },
    pcap: values.pcap.map(toPcap),
    transit: values.ebpf?.transit ?? true,
    tcp: values.tcp && { tunnel: values.tcp.tunnel },
    dropmon: values.dropmon && toDropmon(values.dropmon),
    controlGroup: values.control?.group,
    metrics: values.metrics && { listen: values.metrics.listen, send: values.metrics.send },
    web: values.web && { listen: values.web.listen, token: values.web.token },
    virtual: toVirtual(values),
    nvml: values.nvml !== undefined,
    counters: {
      interfaces: values.counters?.interfaces,
      moduleSeconds: values.counters?.modules ?? 300,
      pfc: values.counters?.pfc ?? true,
      queues: values.counters?.queues ?? false,
    },
  }
}

function externals({ values, places }: Pick<Parsed, 'values' | 'places'>): ExternalConfig[] {
  const families = ['sampling', 'polling'].map(key => {
    const named = key === 'sampling' ? values['sampling.'] : values['polling.']
    const applications = key === 'sampling' ? values['sampling.app.'] : values['polling.app.']
    return new Map([...named, ...[...applications].map(([name, n]) => [`app.${name}`, n] as const)])
  }) as [Map<string, number>, Map<string, number>]
  const [sampling, polling] = families
  const place = (name: string) => {
    const lines = ['sampling', 'polling']
      .map(key => places.get(`${key}.${name}`))
      .filter(one => one !== undefined)
    return lines.sort(byPlace)[0]!
  }
  return [...new Set([...sampling.keys(), ...polling.keys()])]
    .sort((a, b) => byPlace(place(b), place(a)))
    .map(name => ({ name, sampling: sampling.get(name), polling: polling.get(name) }))
}

/** The flat forms are values for the block, and do not make one. */
function toNflog({ nflog, nflogGroup, nflogProbability }: Values): NflogConfig | undefined {
  const group = nflog?.group ?? nflogGroup
  if (nflog === undefined || group === undefined) return undefined
  return { group, probability: nflog.probability ?? nflogProbability }
}

function toDropmon(block: NonNullable<Values['dropmon']>): DropmonConfig {
  return {
    source: block.source,
    start: block.start,
    force: block.force,
    software: block.sw,
    hardware: block.hw,
    reasonNames: block.rn,
    unknownTraps: block.hw_unknown,
    softwarePassive: block.sw_passive,
    hardwarePassive: block.hw_passive,
    host: block.host,
    hide: block.hide,
    limit: block.limit,
    mostPerSecond: block.max,
    mostSeconds: block.max_trip,
  }
}

/** No two have the same name: the ledger, the log and the status tell them apart by it. */
function toVirtual(values: Values): VirtualConfig {
  const { systemd, docker, containerd, k8s, kvm } = values
  const search = (block: { refreshVMs?: number | undefined; forgetVMs?: number | undefined }) => ({
    refreshSeconds: block.refreshVMs ?? values.refreshVMs,
    forgetSeconds: block.forgetVMs ?? values.forgetVMs,
  })
  return {
    systemd: systemd && { ...search(systemd), socket: systemd.socket, processes: systemd.cgroup_procs },
    docker: docker && {
      ...search(docker),
      socket: docker.socket,
      hostname: docker.hostname,
      markTraffic: docker.markTraffic,
    },
    containerd: containerd && {
      ...search(containerd),
      socket: containerd.socket,
      hostname: containerd.hostname,
      markTraffic: containerd.markTraffic,
    },
    k8s: k8s && {
      ...search(k8s),
      socket: k8s.unixsock,
      setIfName: k8s.setIfName,
      markTraffic: k8s.markTraffic,
    },
    kvm: kvm && { ...search(kvm), socket: kvm.socket, uri: kvm.uri },
  }
}

function toCollectors(blocks: Values['collector']): CollectorConfig[] {
  const taken = new Set(blocks.map(({ name }) => name))
  const alike = new Map<string, number>()
  return blocks.map(block => {
    const { ip, udpport, dev, vrf, namespace, send, separate } = block
    // checkRules has refused a collector without ip.
    const way = { host: ip!, port: udpport, device: dev ?? vrf, namespace, source: block.source }
    const name = block.name ?? freeName(wayName(way), taken, alike)
    return {
      ...way,
      name,
      send: send ?? ['flows', 'counters', 'drops'],
      separate,
      internalInterface: block['internal-interface'],
      dropCodes: block['drop-codes'],
    }
  })
}

/** The name itself, else with the next number behind it. */
function freeName(name: string, taken: Set<string | undefined>, alike: Map<string, number>): string {
  let free = name
  for (let n = alike.get(name) ?? 1; taken.has(free); ) {
    free = `${name} #${++n}`
    alike.set(name, n)
  }
  taken.add(free)
  return free
}

/** What a collector without a name of its own is called: `192.0.2.1:6343 via mgmt`. */
function wayName(
  collector: Pick<CollectorConfig, 'host' | 'port' | 'device' | 'namespace' | 'source'>,
): string {
  const { host, port, device, namespace, source } = collector
  return [
    isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`,
    ...(device === undefined ? [] : [`via ${device}`]),
    ...(namespace === undefined ? [] : [`in ${namespace}`]),
    ...(source === undefined ? [] : [`from ${source}`]),
  ].join(' ')
}

function toPcap(rule: Values['pcap'][number]): PcapConfig {
  return {
    device: rule.dev,
    devicePattern: rule['dev.pattern'],
    speed: rule.speed,
    sampling: rule.sampling,
    promisc: rule.promisc,
    vport: rule.vport,
  }
}

/** Freezes plain objects and arrays all the way down. Maps and expressions are readonly by type only. */
function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !(value instanceof Map) && !(value instanceof RegExp)) {
    for (const inner of Object.values(value)) freeze(inner)
    Object.freeze(value)
  }
  return value
}
