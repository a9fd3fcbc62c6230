/**
 * Collectors and settings out of DNS (`dns-sd { }`): the SRV records of `_sflow._udp` name the collectors, its TXT
 * record holds settings. They take the place of those of the file, as with hsflowd.
 */

import { createHash } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { hostname } from 'node:os'
import { type Logger, RateLimitedLog } from '../health/log.ts'
import { askDns, dnsServers } from '../kernel/dns-client.ts'
import { DNS_TYPE, type SrvRecord } from '../wire/dns.ts'
import type { Config, DiscoveryConfig, DropmonConfig } from './config.ts'
import { int } from './kinds.ts'
import { loadConfig } from './load.ts'

/** What DNS says. */
export interface Discovered {
  /** None: the service is withdrawn. */
  readonly targets: readonly { readonly host: string; readonly port: number }[]
  /** Strings of the TXT record, `key=value`. */
  readonly texts: readonly string[]
  /** When to ask again. */
  readonly ttlSeconds: number
}

const SERVICE = '_sflow._udp'
const LEAST_TTL_SECONDS = 10
const MOST_TTL_SECONDS = 86_400
/** When to ask again after an answer that names nobody, and so has no TTL that we read. */
const WITHDRAWN_SECONDS = 60
/** First and longest wait after a question that nobody answered. */
const RETRY_MS = 10_000
const RETRY_MOST_MS = 300_000

/** Asks again and again, each time when the answer runs out. The last answer holds until there is another. */
export class Discovery {
  readonly #config: DiscoveryConfig
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  readonly #onAnswer: (discovered: Discovered) => void
  #timer: NodeJS.Timeout | undefined
  #retryMs = RETRY_MS
  #isRunning = false

  constructor(config: DiscoveryConfig, log: Logger, onAnswer: (discovered: Discovered) => void) {
    this.#config = config
    this.#log = log
    this.#onAnswer = onAnswer
  }

  start(): void {
    this.#isRunning = true
    void this.#ask()
  }

  stop(): void {
    this.#isRunning = false
    clearTimeout(this.#timer)
  }

  async #ask(): Promise<void> {
    let againMs: number
    try {
      const discovered = await discover(this.#config.domain)
      if (!this.#isRunning) return
      this.#retryMs = RETRY_MS
      againMs = discovered.ttlSeconds * 1000
      this.#onAnswer(discovered)
    } catch (error) {
      if (!this.#isRunning) return
      const reason = `cannot look up ${SERVICE}: ${(error as Error).message}`
      this.#limited.line(reason, held => this.#log.warn({ held }, reason))
      againMs = this.#retryMs
      this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MOST_MS)
    }
    this.#timer = setTimeout(() => void this.#ask(), againMs).unref()
  }
}

/** Names to ask for: with the domain behind it as it is written, else with each of the search list. */
function serviceNames(domain: string | undefined, search: readonly string[]): string[] {
  if (domain !== undefined) return [`${SERVICE}${domain.startsWith('.') ? '' : '.'}${domain}`]
  return search.length === 0 ? [SERVICE] : search.map(one => `${SERVICE}.${one}`)
}

/** Asks once. Fails when no server answers; that there is no such service is an answer. */
export async function discover(domain: string | undefined): Promise<Discovered> {
  const servers = await dnsServers()
  for (const name of serviceNames(domain, servers.search)) {
    const srv = await askDns(servers, name, DNS_TYPE.SRV)
    const records = srv.records.filter(record => record.type === 'SRV')
    if (records.length === 0) continue
    const txt = await askDns(servers, name, DNS_TYPE.TXT)
    const ttl = Math.min(srv.leastTtlSeconds ?? 0, txt.leastTtlSeconds ?? MOST_TTL_SECONDS)
    return {
      targets: await chooseTargets(records, hostname(), isKnown),
      texts: txt.records.flatMap(record => (record.type === 'TXT' ? record.strings : [])),
      ttlSeconds: Math.min(Math.max(ttl, LEAST_TTL_SECONDS), MOST_TTL_SECONDS),
    }
  }
  return { targets: [], texts: [], ttlSeconds: WITHDRAWN_SECONDS }
}

async function isKnown(host: string): Promise<boolean> {
  try {
    await lookup(host)
    return true
  } catch {
    return false
  }
}

/**
 * The collectors among the targets (RFC 2782): those of the lowest priority number of which any is known by an address.
 * Targets of equal weights each get everything; where weights differ the hosts share the targets in proportion, and
 * each chooses one by its own name: the same one as long as it is there.
 */
export async function chooseTargets(
  records: readonly SrvRecord[],
  host: string,
  isKnown: (host: string) => Promise<boolean>,
): Promise<Discovered['targets']> {
  const offered = records.filter(({ target }) => target !== '')
  const levels = [...new Set(offered.map(({ priority }) => priority))].sort((a, b) => a - b)
  let first: readonly SrvRecord[] = []
  for (const level of levels) {
    const all = offered.filter(({ priority }) => priority === level)
    const known = await Promise.all(all.map(({ target }) => isKnown(target)))
    const usable = all.filter((_, i) => known[i])
    if (usable.length > 0) return byWeight(usable, host).map(toTarget)
    if (first.length === 0) first = all
  }
  // None has an address now: they are looked up again for as long as it takes.
  return byWeight(first, host).map(toTarget)
}

function toTarget({ target, port }: SrvRecord): Discovered['targets'][number] {
  return { host: target, port }
}

function byWeight(records: readonly SrvRecord[], host: string): readonly SrvRecord[] {
  if (records.every(({ weight }) => weight === records[0]!.weight)) return records
  // Weighted rendezvous hashing: when a target comes or goes, only the hosts that it has or had choose anew.
  const score = ({ target, port, weight }: SrvRecord) => {
    const hash = createHash('sha256').update(`${host} ${target} ${port}`).digest().readUInt32BE(0)
    return weight / -Math.log((hash + 1) / (2 ** 32 + 1))
  }
  return [records.reduce((best, record) => (score(record) > score(best) ? record : best))]
}

/** Names of settings that a TXT record may give, in lower case; a name that ends in a dot stands for all that begin so. */
const TXT_SETTINGS = [
  'sampling',
  'sampling.',
  'polling',
  'polling.',
  'agentip',
  'agent',
  'agent.cidr',
  'headerbytes',
]
const MOST_HEADER_BYTES = 256
/** Not a setting of the file's language: drops reported per second, and whether they are at all. */
const DROP_LIMIT = 'droplimit'
const dropLimit = int(0, 10_000)

/**
 * The configuration that holds with what was discovered: collectors, sampling, polling and header bytes come from DNS,
 * or are the defaults, whatever the file says; the agent address comes from the file where DNS says nothing of it.
 * What cannot be used is told to `remark`. Before there is an answer (undefined), and when the service is withdrawn,
 * nothing is sampled, polled or sent.
 */
export function withDiscovered(
  config: Config,
  discovered: Discovered | undefined,
  remark: (text: string) => void,
): Config {
  const idle: Config = {
    ...config,
    collectors: [],
    polling: { ...config.polling, seconds: 0 },
    psample: undefined,
    tc: undefined,
    pcap: [],
    nflog: undefined,
    dropmon: undefined,
    virtual: { systemd: undefined, docker: undefined, containerd: undefined, k8s: undefined, kvm: undefined },
  }
  if (discovered === undefined || discovered.targets.length === 0) return idle
  const collectors = discovered.targets
    .map(({ host, port }) => ({
      text: `collector { ip = ${quoted(host)} udpport = ${port} }`,
      what: `SRV ${host}`,
    }))
    .filter(one => isValid(one.text, one.what, remark))
  const limits = discovered.texts.filter(text => keyOf(text) === DROP_LIMIT)
  const settings = discovered.texts
    .filter(text => !limits.includes(text))
    .flatMap(text => textSetting(text, remark))
  const valid = settings.filter(one => isValid(`${ANY_COLLECTOR} ${one.text}`, one.what, remark))
  const all = [...collectors, ...valid].map(({ text }) => text).join('\n')
  const found = loadConfig(`sFlow {\n${all}\n}`, 'DNS').config
  if (found === undefined) return idle
  const lines = new Map(config.lines)
  for (const name of config.lines.keys()) if (isTextSetting(name)) lines.delete(name)
  for (const name of found.lines.keys()) if (isTextSetting(name)) lines.set(name, 0)
  return {
    ...config,
    lines,
    collectors: found.collectors,
    sampling: found.sampling,
    polling: found.polling,
    external: found.external,
    headerBytes: found.headerBytes,
    dropmon: limits.reduce((dropmon, text) => withDropLimit(dropmon, text, remark), config.dropmon),
    agent: {
      address: found.agent.address ?? config.agent.address,
      device: found.agent.device ?? config.agent.device,
      cidrs: found.agent.cidrs.length > 0 ? found.agent.cidrs : config.agent.cidrs,
    },
  }
}

const ANY_COLLECTOR = 'collector { ip = 127.0.0.1 }'

/** The name in front of the `=` of a TXT string, in lower case; empty when it has none. */
function keyOf(text: string): string {
  return text
    .slice(0, Math.max(text.indexOf('='), 0))
    .trim()
    .toLowerCase()
}

/** As with hsflowd: 0 ends the reports, another number is their limit and starts them, kernel drops at least. */
function withDropLimit(
  dropmon: DropmonConfig | undefined,
  text: string,
  remark: (text: string) => void,
): DropmonConfig | undefined {
  const reading = dropLimit.read(text.slice(text.indexOf('=') + 1).trim())
  if (!('value' in reading)) {
    remark(`TXT "${text}": expected ${dropLimit.expected}`)
    return dropmon
  }
  if (dropmon === undefined) {
    remark(`TXT "${text}": the file has no dropmon { }, so that no drops are reported`)
    return undefined
  }
  if (reading.value === 0) return undefined
  const started = { start: true, software: true, reasonNames: true, hardwarePassive: true }
  return { ...dropmon, ...(dropmon.start ? {} : started), limit: reading.value }
}

/** A TXT string as a setting of the file's language; none when it is not for us. */
function textSetting(text: string, remark: (text: string) => void): { text: string; what: string }[] {
  const equals = text.indexOf('=')
  const key = text.slice(0, Math.max(equals, 0)).trim()
  const value = text.slice(equals + 1).trim()
  if (key.toLowerCase() === 'txtvers') return []
  const what = `TXT "${text}"`
  if (!isTextSetting(key)) {
    remark(`${what}: not a setting that DNS can give`)
    return []
  }
  const isTooLong = key.toLowerCase() === 'headerbytes' && Number(value) > MOST_HEADER_BYTES
  return [{ text: `${key} = ${quoted(isTooLong ? `${MOST_HEADER_BYTES}` : value)}`, what }]
}

function isTextSetting(name: string): boolean {
  const lower = name.toLowerCase()
  return TXT_SETTINGS.some(
    one => one === lower || (one.endsWith('.') && /^[^\s{}=;#"]+$/.test(name) && lower.startsWith(one)),
  )
}

function isValid(text: string, what: string, remark: (text: string) => void): boolean {
  const { config, problems } = loadConfig(`sFlow { ${text} }`, 'DNS')
  for (const { severity, message } of problems) if (severity === 'error') remark(`${what}: ${message}`)
  return config !== undefined
}

function quoted(text: string): string {
  return `"${text.replace(/[\r\n]/g, ' ').replaceAll('"', '""')}"`
}
