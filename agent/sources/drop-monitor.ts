import type { Balance, Ledger, Loss } from '../health/ledger.ts'
import { type Logger, RateLimitedLog } from '../health/log.ts'
import { resolveFamily } from '../kernel/genl.ts'
import { SystemError } from '../kernel/native.ts'
import { NETLINK_GENERIC, NetlinkError, NetlinkSocket } from '../kernel/netlink-socket.ts'
import {
  type DropFeed,
  getDropMonitorStats,
  NET_DM_FAMILY,
  NET_DM_GROUP_EVENTS,
  readDropMonitorStats,
} from '../wire/netlink/drop-monitor.ts'
import { type Family, GENL_GROUP_NOTIFY, readFamilyNotification } from '../wire/netlink/genl-ctrl.ts'
import type { DropAlerts } from './drop-alerts.ts'
import { DropMonitorBusyError, DropMonitorControl, type DropMonitorWishes } from './drop-monitor-control.ts'

/**
 * The drop monitor through the life of the kernel's module and among others who use it: joins its group, brings it
 * up, looks every now and then whether it is still on, and puts everything back at the end.
 */

export interface DropMonitorOptions {
  readonly alerts: DropAlerts
  readonly ledger: Ledger
  readonly log: Logger
  /** Called when all messages of a batch have been given to `alerts`. */
  readonly onBatchEnd: () => void
  /** Told of alerts that the kernel lost. */
  readonly onLost: (count: number) => void
  /** Start the monitor; else only listen to what others start. */
  readonly start: boolean
  readonly wishes: DropMonitorWishes
  /** More alerts per second than this, for so many seconds in a row, and the monitor rests for a while. */
  readonly mostPerSecond: number
  readonly mostSeconds: number
  /** Receive buffer to ask for, bytes. */
  readonly receiveBytes?: number
  /** Time between two looks whether the monitor is still on, and of a rest. Default 30 s. */
  readonly probeMs?: number
}

export type DropMonitorState =
  | 'stopped'
  | 'waiting for the kernel module'
  | 'refused'
  | 'taken by others'
  | 'resting'
  | 'listening'

const RECEIVE_BYTES = 8 * 1024 * 1024
const SLOTS = 64
/** A message is at most 65,535 bytes. The rest spreads the slots over the sets of the processor's caches. */
const SLOT_BYTES = 65_536 + 320
const PROBE_MS = 30_000

export class DropMonitorSource {
  state: DropMonitorState = 'stopped'
  readonly #options: DropMonitorOptions
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  readonly #overrun: Loss
  readonly #queue: Loss
  /** Of the ledger, what was there before this source. */
  readonly #lostBefore: number
  readonly #control: DropMonitorControl
  #requests: NetlinkSocket | undefined
  #data: NetlinkSocket | undefined
  #family: Family | undefined
  #joined = false
  /** One thing after the other is done to the monitor. */
  #work: Promise<void> = Promise.resolve()
  #probedAt = 0
  #readingStatistics = false
  /** The kernel's count of what it could not queue, as last read; undefined before the first time. */
  #kernelLost: number | undefined
  #socketDrops = 0
  #messages = 0
  #polledAt = 0
  #secondsAbove = 0
  /** The last thing that was logged of the monitor's state: it is logged once. */
  #told = ''

  constructor(options: DropMonitorOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'dropmon' })
    this.#control = new DropMonitorControl(options.wishes)
    this.#overrun = options.ledger.loss(
      'drop-monitor',
      'socket-overrun',
      'drop alerts came faster than they were taken and the socket was full; raise net.core.rmem_max',
    )
    this.#queue = options.ledger.loss(
      'drop-monitor',
      'kernel-queue',
      'the kernel dropped packets faster than its drop monitor could queue them (NET_DM statistics)',
    )
    this.#lostBefore = this.#lost()
  }

  /**
   * Opens the sockets, joins the group and brings the monitor up, or waits for the kernel module to come. What is
   * refused is logged with what is needed: the agent runs on with what it has.
   */
  async start(): Promise<void> {
    const { alerts, onBatchEnd, receiveBytes = RECEIVE_BYTES } = this.#options
    this.#data = NetlinkSocket.open(NETLINK_GENERIC, {
      receiveBytes,
      noEnobufs: true,
      slots: SLOTS,
      slotBytes: SLOT_BYTES,
      onDatagram: alerts.receive,
      onBatchEnd,
    })
    const buffer = this.#data.receiveBuffer
    if (buffer?.warning !== undefined)
      this.#log.warn({ asked: buffer.asked, granted: buffer.granted }, buffer.warning)
    this.#requests = NetlinkSocket.open(NETLINK_GENERIC, {
      groups: [GENL_GROUP_NOTIFY],
      onNotification: message => {
        const change = readFamilyNotification(message)
        if (change?.family.name !== NET_DM_FAMILY) return
        if (change.gone) this.#gone()
        else void this.#do(() => this.#attach())
      },
      onOverrun: () => void this.#do(() => this.#attach()),
    })
    this.#polledAt = performance.now()
    await this.#do(() => this.#attach())
  }

  /** Drops of the wanted kinds since the start of this source, as far as the kernel tells. */
  balance(): Balance {
    const { delivered } = this.#options.alerts
    const lost = this.#lost() - this.#lostBefore
    return { offered: delivered + lost, delivered, lost }
  }

  /** Brings the ledger up to date, and the monitor up if somebody stopped it; to be called every second or so. */
  poll(): void {
    if (this.#data === undefined) return
    this.#countOverruns()
    const problem = this.#options.alerts.takeProblem()
    if (problem !== undefined)
      this.#limited.line('malformed', held => this.#log.warn({ held }, `malformed message: ${problem}`))
    void this.#countKernelLosses()
    this.#watchRate()
    const { probeMs = PROBE_MS } = this.#options
    if (performance.now() - this.#probedAt >= probeMs) void this.#do(() => this.#attach())
  }

  /** Puts the monitor back as it was, counts the last losses and closes. May be called twice. */
  async stop(): Promise<void> {
    if (this.#data === undefined) return
    await this.#countKernelLosses()
    await this.#do(() => this.#restore())
    this.#countOverruns()
    this.#data?.close()
    this.#requests?.close()
    this.#data = undefined
    this.#requests = undefined
    this.#family = undefined
    this.#joined = false
    this.state = 'stopped'
  }

  /** Does things in the order in which they were asked for; what goes wrong is logged and tried again later. */
  #do(action: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(async () => {
      if (this.#data === undefined) return
      try {
        await action()
      } catch (error) {
        const { message } = error as Error
        const denied = error instanceof SystemError && error.code === 'EPERM'
        this.#become(
          error instanceof DropMonitorBusyError ? 'taken by others' : 'refused',
          denied ? `${message}: needs ${this.#joined ? 'CAP_NET_ADMIN' : 'CAP_SYS_ADMIN'}` : message,
        )
      }
    })
    return this.#work
  }

  readonly #send = (message: Uint8Array, operation: string) => this.#requests!.request(message, operation)

  /** Finds the family, joins its group and brings the monitor up, as far as that has not been done. */
  async #attach(): Promise<void> {
    this.#probedAt = performance.now()
    this.#family = await resolveFamily(this.#requests!, NET_DM_FAMILY)
    const group = this.#family?.groups.get(NET_DM_GROUP_EVENTS)
    if (this.#family === undefined || group === undefined) {
      this.#gone()
      return
    }
    if (!this.#joined) {
      this.#data!.join(group, `${NET_DM_FAMILY} ${NET_DM_GROUP_EVENTS}`)
      this.#joined = true
      this.#secondsAbove = 0
    }
    if (this.#kernelLost === undefined) await this.#countKernelLosses()
    if (!this.#options.start) {
      this.#become('listening', 'listening to a drop monitor that others start')
      return
    }
    const { started, missing, config } = await this.#control.bringUp(this.#family.id, this.#send)
    if (this.state === 'listening' && started.length > 0)
      this.#log.warn({ started }, 'somebody had stopped the drop monitor; it is on again')
    const without = missing.length === 0 ? '' : '; this kernel has no hardware drops'
    const others = this.#feeds().filter(feed => !started.includes(feed) && !missing.includes(feed))
    const shared = others.length === 0 ? '' : `; others have ${others.join(' and ')} drops on already`
    if (this.state !== 'listening')
      this.#log.info({ ...config, started }, `listening for dropped packets${shared}${without}`)
    this.#become('listening')
  }

  #feeds(): DropFeed[] {
    const { software, hardware } = this.#options.wishes
    return [...(software ? (['software'] as const) : []), ...(hardware ? (['hardware'] as const) : [])]
  }

  async #restore(): Promise<void> {
    if (this.#family !== undefined && this.#options.start)
      await this.#control.restore(this.#family.id, this.#send)
  }

  #gone(): void {
    this.#family = undefined
    this.#joined = false
    this.#kernelLost = undefined
    this.#control.forget()
    this.#become(
      'waiting for the kernel module',
      'the kernel has no drop monitor here: load the module drop_monitor; it is only in the first network namespace',
    )
  }

  #become(state: DropMonitorState, problem?: string): void {
    this.state = state
    const told = `${state}: ${problem ?? ''}`
    if (told === this.#told) return
    this.#told = told
    if (problem === undefined) return
    if (state === 'listening') this.#log.info(problem)
    else this.#log.warn(problem)
  }

  #lost(): number {
    return this.#overrun.count + this.#queue.count + this.#options.alerts.malformed
  }

  #countOverruns(): void {
    const drops = this.#data!.drops()
    const lost = (drops - this.#socketDrops) >>> 0
    this.#socketDrops = drops
    if (lost === 0) return
    this.#overrun.count += lost
    this.#options.onLost(lost)
    const granted = this.#data!.receiveBuffer?.granted
    this.#limited.line('overrun', held =>
      this.#log.warn({ lost, granted, held }, 'drop alerts lost: the socket was full'),
    )
  }

  /** The kernel counts since its module was loaded, for all who listen: what is new since the last look is ours. */
  async #countKernelLosses(): Promise<void> {
    const family = this.#family
    if (family === undefined || this.#readingStatistics) return
    this.#readingStatistics = true
    try {
      const answer = await this.#send(
        getDropMonitorStats(family.id),
        'read the statistics of the drop monitor',
      )
      if (answer === undefined || this.#family !== family) return
      const lost = readDropMonitorStats(answer)
      const before = this.#kernelLost ?? lost
      this.#kernelLost = lost
      if (lost <= before) return
      this.#queue.count += lost - before
      this.#options.onLost(lost - before)
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ECANCELED') return
      this.#limited.line('statistics', held => this.#log.warn({ held }, (error as Error).message))
    } finally {
      this.#readingStatistics = false
    }
  }

  /** Alerts beyond all measure cost the whole machine: the monitor rests, and the next look brings it up again. */
  #watchRate(): void {
    const { alerts, mostPerSecond, mostSeconds } = this.#options
    const now = performance.now()
    const rate = ((alerts.messages - this.#messages) * 1000) / Math.max(now - this.#polledAt, 1)
    this.#messages = alerts.messages
    this.#polledAt = now
    if (this.state !== 'listening') return
    this.#secondsAbove = rate > mostPerSecond ? this.#secondsAbove + 1 : 0
    if (this.#secondsAbove < mostSeconds) return
    this.#probedAt = now
    void this.#do(() => this.#rest(Math.round(rate)))
  }

  async #rest(rate: number): Promise<void> {
    const group = this.#family?.groups.get(NET_DM_GROUP_EVENTS)
    if (group === undefined) return
    this.#data!.leave(group)
    this.#joined = false
    await this.#restore()
    const seconds = (this.#options.probeMs ?? PROBE_MS) / 1000
    this.#become('resting', `${rate} drop alerts in a second: the drop monitor rests for ${seconds} s`)
  }
}
