import { lookup, resolve4, resolve6 } from 'node:dns/promises'
import { isIP } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import type { CollectorConfig } from '../config/config.ts'
import type { Ledger, Loss } from '../health/ledger.ts'
import { type Logger, RateLimitedLog } from '../health/log.ts'

/**
 * One socket per collector, each with its own name resolution, errors and counts: whatever happens to one, the
 * others get every datagram.
 */

/** What Collectors needs of a socket; kernel/udp-sender.ts is one. */
export interface DatagramSocket {
  /**
   * Sends `count` datagrams and returns how many the kernel took; the socket itself counts the reasons of the
   * rest. It never throws and never waits.
   */
  send(memory: ArrayBuffer, spans: Int32Array, count: number): number
  /** Payload bytes that the kernel took. */
  readonly bytes: number
  /** Payload bytes that the path takes in one packet, as far as it is known. */
  readonly mostBytes: number
  /** Datagrams not taken, by errno name. */
  readonly errors: ReadonlyMap<string, number>
  /** Errors that the network reported for datagrams that were taken, by errno name; not every one is reported. */
  readonly reports: ReadonlyMap<string, number>
  close(): void
}

export interface SocketTarget {
  /** Numeric address. */
  readonly address: string
  readonly port: number
  readonly device: string | undefined
  readonly namespace: string | undefined
  readonly source: string | undefined
}

/** Addresses of a name, and for how long they are said to hold. */
export interface Resolved {
  readonly addresses: readonly string[]
  readonly ttlSeconds: number
}

export interface CollectorsOptions {
  readonly collectors: readonly CollectorConfig[]
  readonly ledger: Ledger
  readonly log: Logger
  /** Opens a connected socket; throws with a message that names what failed. */
  readonly open: (target: SocketTarget) => DatagramSocket
  /**
   * Calls back when the network that the namespace sees has changed, so that what failed before is worth another try; not
   * for each change of many. Throws when it cannot be.
   */
  readonly follow: (namespace: string | undefined, onChange: () => void) => { close(): void }
  /** All addresses of a name. */
  readonly resolve?: (host: string) => Promise<Resolved>
  /** Told when less, or more, fits into one packet on the way to all of the collectors. */
  readonly onPath?: (mostBytes: number) => void
}

/** Counts and state of one collector, for the status. */
export interface CollectorStatus {
  readonly name: string
  /** Numeric address in use, or the one that is tried; undefined until the name is resolved. */
  readonly address: string | undefined
  readonly port: number
  /** Datagrams offered to this collector = sent + lost. */
  readonly offered: number
  readonly sent: number
  readonly bytes: number
  readonly lost: number
  /** Reports of the network that a datagram sent did not arrive: a sign that it is so, not how many. */
  readonly reported: number
  /** Seconds since a datagram was last taken by the kernel; undefined when none was. */
  readonly ageSeconds: number | undefined
  /** What the kernel refused and what the network reported, by errno name: datagrams. */
  readonly errors: Readonly<Record<string, number>>
  /** Why datagrams are lost now, if they are. */
  readonly problem: string | undefined
  /** For how long the network has reported that they do not arrive; undefined when it does not. */
  readonly unreachableSeconds: number | undefined
}

/** A name is looked up again when its address may have moved: by its TTL, where there is one, but not all the time. */
const DEFAULT_TTL_SECONDS = 300
const LEAST_TTL_SECONDS = 10
const MOST_TTL_SECONDS = 86_400
/** First and longest wait after a failed look-up or a socket that could not be opened. */
const RETRY_MS = 2_000
const RETRY_MOST_MS = 60_000
/**
 * The network reports only some of the datagrams that do not arrive: routers limit what they report, and the kernel looks
 * for a silent neighbour for seconds. After so long without a report they are believed to arrive again.
 */
const HEARD_MS = 10_000

export class Collectors {
  /** Datagrams given to send() while there was a collector. */
  offered = 0
  readonly #options: CollectorsOptions
  readonly #resolve: (host: string) => Promise<Resolved>
  #collectors: Collector[]

  constructor(options: CollectorsOptions) {
    this.#options = options
    this.#resolve = oneAtATime(options.resolve ?? resolveName)
    this.#collectors = options.collectors.map(config => this.#make(config))
  }

  /** Opens the sockets of numeric collectors at once; names follow when they are resolved. */
  start(): void {
    for (const collector of this.#collectors) collector.start()
  }

  get isEmpty(): boolean {
    return this.#collectors.length === 0
  }

  /** Payload bytes that all paths take in one packet; Infinity as long as none is known. */
  get mostBytes(): number {
    return Math.min(...this.#collectors.map(collector => collector.mostBytes))
  }

  /** Goes on with other collectors. One whose configuration is the same keeps its socket and its counts. */
  change(configs: readonly CollectorConfig[]): void {
    const before = [...this.#collectors]
    this.#collectors = configs.map(config => {
      const same = before.findIndex(collector => isDeepStrictEqual(collector.config, config))
      if (same >= 0) return before.splice(same, 1)[0]!
      const added = this.#make(config)
      added.start()
      return added
    })
    for (const collector of before) collector.stop()
  }

  /** Sends the same datagrams to each collector. The memory is borrowed until the call returns. */
  readonly send = (memory: ArrayBuffer, spans: Int32Array, count: number): void => {
    if (this.#collectors.length > 0) this.offered += count
    for (const collector of this.#collectors) collector.send(memory, spans, count)
  }

  status(): CollectorStatus[] {
    return this.#collectors.map(collector => collector.status())
  }

  stop(): void {
    for (const collector of this.#collectors) collector.stop()
  }

  #make(config: CollectorConfig): Collector {
    return new Collector(config, this.#options, this.#resolve, () => this.#options.onPath?.(this.mostBytes))
  }
}

class Collector {
  readonly config: CollectorConfig
  /** Payload bytes that the path takes in one packet; Infinity as long as there is no socket. */
  mostBytes = Number.POSITIVE_INFINITY
  readonly #open: (target: SocketTarget) => DatagramSocket
  readonly #resolve: (host: string) => Promise<Resolved>
  readonly #follow: CollectorsOptions['follow']
  readonly #onPath: () => void
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  readonly #notReady: Loss
  readonly #notTaken: Loss
  #socket: DatagramSocket | undefined
  #address: string | undefined
  #timer: NodeJS.Timeout | undefined
  #retryMs = RETRY_MS
  /** While a socket cannot be opened, or the name not be resolved. */
  #network: { close(): void } | undefined
  #isResolving = false
  /** The look-up that is under way may fail for what has changed since it began: the next one is to be soon. */
  #isOutdated = false
  #stopped = false
  #offered = 0
  #sent = 0
  #bytes = 0
  #lost = 0
  #reported = 0
  #sentAtMs: number | undefined
  /** Of sockets that are closed. */
  readonly #errorsBefore = new Map<string, number>()
  /** A new socket will be tried, unless the one that there is takes datagrams again before. */
  #reopening = false
  /** The socket is to be replaced also when its address is still that of the name. */
  #stale = false
  #problem: string | undefined
  /** When the network first, and last, reported that datagrams do not arrive. */
  #unreachable: { readonly sinceMs: number; lastMs: number } | undefined
  /** The address that it was reported of. */
  #reportedOf: string | undefined
  /** Errors by name when they were last told of. */
  readonly #told = new Map<string, number>()

  constructor(
    config: CollectorConfig,
    options: CollectorsOptions,
    resolve: (host: string) => Promise<Resolved>,
    onPath: () => void,
  ) {
    this.config = config
    this.#open = options.open
    this.#resolve = resolve
    this.#follow = options.follow
    this.#onPath = onPath
    this.#log = options.log.child({ part: 'collector', collector: config.name })
    this.#notReady = options.ledger.loss(
      `collector ${config.name}`,
      'not-ready',
      'no socket yet: the name is not resolved, the device or namespace is missing, or there is no way there',
    )
    this.#notTaken = options.ledger.loss(
      `collector ${config.name}`,
      'not-sent',
      'the kernel refused the datagram (no route, full buffer, port unreachable); see the errors of the collector',
    )
  }

  start(): void {
    if (isIP(this.config.host) !== 0) this.#connect(this.config.host)
    else void this.#resolveAndConnect()
  }

  send(memory: ArrayBuffer, spans: Int32Array, count: number): void {
    this.#offered += count
    const socket = this.#socket
    if (socket === undefined) {
      this.#notReady.count += count
      this.#lost += count
      return
    }
    const bytesBefore = socket.bytes
    const reportsBefore = sum(socket.reports)
    const sent = socket.send(memory, spans, count)
    const reports = sum(socket.reports) - reportsBefore
    this.#sent += sent
    this.#bytes += socket.bytes - bytesBefore
    this.#reported += reports
    if (socket.mostBytes !== this.mostBytes) this.#measured(socket)
    if (sent > 0) this.#sentAtMs = performance.now()
    if (sent < count) this.#refused(socket, count - sent)
    else if (reports > 0) this.#unheard(socket)
    else this.#heard()
  }

  status(): CollectorStatus {
    return {
      name: this.config.name,
      address: this.#address,
      port: this.config.port,
      offered: this.#offered,
      sent: this.#sent,
      bytes: this.#bytes,
      lost: this.#lost,
      reported: this.#reported,
      ageSeconds: this.#sentAtMs === undefined ? undefined : (performance.now() - this.#sentAtMs) / 1000,
      errors: this.#errors(),
      problem: this.#problem,
      unreachableSeconds:
        this.#unreachable === undefined ? undefined : (performance.now() - this.#unreachable.sinceMs) / 1000,
    }
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#unfollow()
    this.#close()
  }

  #close(): void {
    for (const [name, count] of Object.entries(this.#errors())) this.#errorsBefore.set(name, count)
    this.#socket?.close()
    this.#socket = undefined
  }

  #errors(): Record<string, number> {
    const counts = Object.fromEntries(this.#errorsBefore)
    for (const reasons of [this.#socket?.errors, this.#socket?.reports]) {
      for (const [name, count] of reasons ?? []) counts[name] = (counts[name] ?? 0) + count
    }
    return counts
  }

  /**
   * The kernel does not take datagrams. The socket may be bound to a device or namespace that is gone, though one of
   * that name is there again: a new socket would find it. A full buffer comes and goes: this is the data path, and the
   * network is not followed before that new socket has failed.
   */
  #refused(socket: DatagramSocket, count: number): void {
    this.#notTaken.count += count
    this.#lost += count
    this.#tell('are not sent', socket.errors)
    if (this.#reopening) return
    this.#reopening = true
    this.#retry(() => this.#reconnect())
  }

  /** Opens a new socket, if one is still wanted; to a name after a new look-up, which is due either way. */
  #reconnect(): void {
    clearTimeout(this.#timer)
    if (this.#reopening) this.#stale = true
    this.#reopening = false
    if (isIP(this.config.host) === 0) void this.#resolveAndConnect()
    else if (this.#stale) this.#connect(this.config.host)
  }

  /** Datagrams leave, and the network says that they do not get there: nobody listens at the port, for example. */
  #unheard(socket: DatagramSocket): void {
    const now = performance.now()
    this.#reportedOf = this.#address
    if (this.#unreachable === undefined) this.#unreachable = { sinceMs: now, lastMs: now }
    else this.#unreachable.lastMs = now
    this.#tell('do not arrive', socket.reports)
  }

  /** All were taken, and nothing speaks against their arrival. */
  #heard(): void {
    this.#retryMs = RETRY_MS
    this.#reopening = false
    this.#stale = false
    this.#unfollow()
    if (this.#unreachable !== undefined) {
      if (performance.now() - this.#unreachable.lastMs < HEARD_MS) return
      this.#unreachable = undefined
      this.#log.info(`datagrams to ${this.#address} port ${this.config.port} are not reported lost any more`)
    }
    this.#problem = undefined
  }

  #measured(socket: DatagramSocket): void {
    this.mostBytes = socket.mostBytes
    this.#onPath()
  }

  #tell(what: string, reasons: ReadonlyMap<string, number>): void {
    const names = [...reasons]
      .filter(([name, count]) => count > (this.#told.get(name) ?? 0))
      .map(([name]) => name)
    for (const [name, count] of reasons) this.#told.set(name, count)
    if (names.length === 0) return
    this.#problem = `datagrams to ${this.#address} port ${this.config.port} ${what}: ${names.join(', ')}`
    this.#limited.line(this.#problem, held =>
      this.#log.warn({ counts: Object.fromEntries(reasons), held }, this.#problem),
    )
  }

  #connect(address: string): void {
    const { port, device, namespace, source } = this.config
    try {
      const socket = this.#open({ address, port, device, namespace, source })
      this.#close()
      this.#socket = socket
      this.#address = address
      this.#stale = false
      this.#unfollow()
      // Those of another address are another matter.
      if (address !== this.#reportedOf) this.#unreachable = undefined
      if (this.#unreachable === undefined) this.#problem = undefined
      this.#told.clear()
      this.#measured(socket)
    } catch (error) {
      // As long as there is another socket, it is the one that is told of.
      if (this.#socket === undefined) this.#address = address
      this.#reopening = true
      this.#failed((error as Error).message, () => this.#reconnect())
    }
  }

  async #resolveAndConnect(): Promise<void> {
    const { host } = this.config
    this.#isResolving = true
    this.#isOutdated = false
    try {
      const { addresses, ttlSeconds } = await this.#resolve(host).finally(() => {
        this.#isResolving = false
      })
      if (this.#stopped) return
      const first = addresses[0]
      if (first === undefined) throw new Error('the name has no address')
      // An address that is still among the answers is kept, whatever their order now.
      if (this.#stale || this.#address === undefined || !addresses.includes(this.#address)) {
        this.#log.info({ address: first }, `${host} is ${first}`)
        this.#connect(first)
      }
      // One timer serves all: what waits to open the socket again looks the name up by itself.
      if (this.#socket !== undefined && !this.#reopening) {
        this.#again(ttlSeconds * 1000, () => void this.#resolveAndConnect())
      }
    } catch (error) {
      if (this.#stopped) return
      const reason = `cannot resolve '${host}': ${(error as Error).message}`
      this.#failed(reason, () => this.#reconnect())
    }
  }

  /** There is no socket, or no address: that is tried again in a while, or when the network has changed. */
  #failed(reason: string, retry: () => void): void {
    this.#problem = reason
    this.#limited.line(reason, held => this.#log.warn({ held }, reason))
    try {
      this.#network ??= this.#follow(this.config.namespace, this.#changed)
    } catch {
      // Time alone will tell: its namespace is not there, for example.
    }
    this.#retry(retry)
  }

  /** Waits longer each time, until a datagram is taken again. */
  #retry(action: () => void): void {
    this.#again(this.#isOutdated ? RETRY_MS : this.#retryMs, action)
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MOST_MS)
  }

  /** Leaves the waits as long as they are: some networks change all the time. */
  readonly #changed = (): void => {
    if (this.#isResolving) this.#isOutdated = true
    else this.#reconnect()
  }

  #unfollow(): void {
    this.#network?.close()
    this.#network = undefined
  }

  #again(afterMs: number, action: () => void): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(action, afterMs)
    this.#timer.unref()
  }
}

function sum(counts: ReadonlyMap<string, number>): number {
  let total = 0
  for (const count of counts.values()) total += count
  return total
}

/**
 * The system's resolver, which knows /etc/hosts and the like, tells the addresses; those of them that DNS has tell how
 * long they hold.
 */
async function resolveName(host: string): Promise<Resolved> {
  const answers = await lookup(host, { all: true, order: 'verbatim' })
  const addresses = answers.map(answer => answer.address)
  const records = await Promise.allSettled([resolve4(host, { ttl: true }), resolve6(host, { ttl: true })])
  const ttls = records
    .flatMap(result => (result.status === 'fulfilled' ? result.value : []))
    .filter(({ address }) => addresses.includes(address))
    .map(({ ttl }) => ttl)
  const ttl = ttls.length === 0 ? DEFAULT_TTL_SECONDS : Math.min(...ttls)
  return { addresses, ttlSeconds: Math.min(Math.max(ttl, LEAST_TTL_SECONDS), MOST_TTL_SECONDS) }
}

/** The system's resolver occupies a thread while it waits; one at a time leaves the others for the counters. */
function oneAtATime(resolve: (host: string) => Promise<Resolved>): (host: string) => Promise<Resolved> {
  let last: Promise<unknown> = Promise.resolve()
  return host => {
    const next = last.then(
      () => resolve(host),
      () => resolve(host),
    )
    last = next
    return next
  }
}
