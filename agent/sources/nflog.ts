import type { Ledger } from '../health/ledger.ts'
import { type Logger, RateLimitedLog } from '../health/log.ts'
import { NETLINK_NETFILTER, NetlinkError, NetlinkSocket } from '../kernel/netlink-socket.ts'
import { bindNflog } from '../wire/netlink/nflog.ts'
import type { NflogSamples } from './nflog-samples.ts'

/** The NFLOG socket: bound to one group of this network namespace, which nobody else may have. */

export interface NflogOptions {
  readonly group: number
  /** Octets of a packet to export at most. */
  readonly headerBytes: number
  readonly samples: NflogSamples
  readonly ledger: Ledger
  readonly log: Logger
  /** Called when all packets of a batch have been given to `samples`. */
  readonly onBatchEnd: () => void
  readonly namespace?: string | undefined
  /** Receive buffer to ask for, bytes. */
  readonly receiveBytes?: number
  /** How often a refused group is tried again, milliseconds; default 10 s. */
  readonly retryMs?: number
}

export type NflogState = 'stopped' | 'refused' | 'listening'

const RECEIVE_BYTES = 8 * 1024 * 1024
/** Up to the ports behind an IPv6 header. */
const LEAST_BYTES = 64
const SLOTS = 32
/** What the kernel is told to gather; a single packet may be longer. */
const BUFFER_BYTES = 16_384
const SLOT_BYTES = 65_536
const TIMEOUT = 10
const THRESHOLD = 64
const RETRY_MS = 10_000

export class NflogSource {
  state: NflogState = 'stopped'
  readonly #options: NflogOptions
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  #socket: NetlinkSocket | undefined
  #refusal: string | undefined
  #triedMs = 0
  #isTrying = false

  constructor(options: NflogOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'nflog' })
  }

  /** Binds the group. What stands against it is logged, and the agent runs on without. */
  async start(): Promise<void> {
    this.#triedMs = performance.now()
    const { namespace, group, samples, onBatchEnd, headerBytes, receiveBytes = RECEIVE_BYTES } = this.#options
    const socket = NetlinkSocket.open(NETLINK_NETFILTER, {
      namespace,
      receiveBytes,
      noEnobufs: true,
      slots: SLOTS,
      slotBytes: SLOT_BYTES,
      onDatagram: samples.receive,
      onBatchEnd,
    })
    this.#socket = socket
    const wishes = {
      copyBytes: Math.max(headerBytes, LEAST_BYTES),
      bufferBytes: BUFFER_BYTES,
      timeout: TIMEOUT,
      threshold: THRESHOLD,
    }
    try {
      for (const request of bindNflog(group, wishes))
        await socket.request(request, `bind NFLOG group ${group}`)
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error
      this.#refused(error)
      return
    }
    const buffer = socket.receiveBuffer
    if (buffer?.warning !== undefined)
      this.#log.warn({ asked: buffer.asked, granted: buffer.granted }, buffer.warning)
    this.state = 'listening'
    this.#refusal = undefined
    this.#log.info({ group, rate: samples.rate }, `listening to NFLOG group ${group}`)
  }

  /** To be called every second or so. A refusal may end: a module is loaded, the other program goes. */
  poll(): void {
    const { retryMs = RETRY_MS } = this.#options
    if (this.state === 'refused' && performance.now() - this.#triedMs > retryMs) void this.#retry()
    const problem = this.#options.samples.takeProblem()
    if (problem !== undefined)
      this.#limited.line('malformed', held => this.#log.warn({ held }, `malformed message: ${problem}`))
  }

  /** May be called twice. */
  stop(): void {
    this.#socket?.close()
    this.#socket = undefined
    this.state = 'stopped'
  }

  async #retry(): Promise<void> {
    if (this.#isTrying) return
    this.#isTrying = true
    try {
      await this.start()
    } catch (error) {
      // Stopped while the kernel was asked.
      if (this.#socket === undefined) return
      this.#limited.line('retry', held => this.#log.error({ held }, (error as Error).message))
    } finally {
      this.#isTrying = false
    }
  }

  #refused(error: NetlinkError): void {
    // Stopped while the kernel was asked.
    const isStopped = this.#socket === undefined
    this.stop()
    if (isStopped) return
    this.state = 'refused'
    if (error.message === this.#refusal) return
    this.#refusal = error.message
    // The kernel has one answer for both (nfulnl_recv_config).
    const help: Readonly<Record<string, string>> = {
      EPERM: 'needs CAP_NET_ADMIN; if the agent has it, another program listens to this group',
      EINVAL: 'the kernel has no NFLOG: load the module nfnetlink_log',
    }
    const hint = help[error.code] === undefined ? '' : `: ${help[error.code]}`
    this.#log.error(`${error.message}${hint}; no packet samples from NFLOG`)
  }
}
