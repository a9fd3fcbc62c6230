import type { Balance, Ledger, Loss } from '../health/ledger.ts'
import { type Logger, RateLimitedLog } from '../health/log.ts'
import { resolveFamily } from '../kernel/genl.ts'
import { NETLINK_GENERIC, NETLINK_ROUTE, NetlinkError, NetlinkSocket } from '../kernel/netlink-socket.ts'
import { type Family, GENL_GROUP_NOTIFY, readFamilyNotification } from '../wire/netlink/genl-ctrl.ts'
import { PSAMPLE_FAMILY, PSAMPLE_GROUP_PACKETS } from '../wire/netlink/psample.ts'
import { loadSampleAction } from '../wire/netlink/tc.ts'
import type { PsampleSamples } from './psample-samples.ts'

/**
 * The PSAMPLE socket through the life of the kernel's module: it may be there, be loaded by us, come later, go
 * and come back under other numbers. What arrives goes to PsampleSamples where it was received.
 */

export interface PsampleOptions {
  readonly samples: PsampleSamples
  readonly ledger: Ledger
  readonly log: Logger
  /** Called when all messages of a batch have been given to `samples`. */
  readonly onBatchEnd: () => void
  readonly namespace?: string | undefined
  /** Receive buffer to ask for, bytes. */
  readonly receiveBytes?: number
}

export type PsampleState = 'stopped' | 'waiting for the kernel module' | 'refused' | 'listening'

/** Room for about 13,000 samples: the kernel charges over a kilobyte for each. */
const RECEIVE_BYTES = 8 * 1024 * 1024
const SLOTS = 64
/** A message is at most 65,535 bytes. The rest spreads the slots over the sets of the processor's caches. */
const SLOT_BYTES = 65_536 + 320

export class PsampleSource {
  state: PsampleState = 'stopped'
  readonly #options: PsampleOptions
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()
  readonly #overrun: Loss
  readonly #gap: Loss
  #control: NetlinkSocket | undefined
  #data: NetlinkSocket | undefined
  #joined: number | undefined
  #drops = 0
  #toldMissing = false

  constructor(options: PsampleOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'psample' })
    this.#overrun = options.ledger.loss(
      'psample',
      'socket-overrun',
      'samples came faster than they were taken and the socket was full; lower the rate or raise net.core.rmem_max',
    )
    this.#gap = options.ledger.loss(
      'psample',
      'sequence-gap',
      'the kernel made samples that never reached the socket, and not because it was full',
    )
  }

  /**
   * Opens the sockets and joins the group, or waits for the kernel module to come. Without the permission to
   * listen it logs what is needed and stays idle: the agent runs on with what it has.
   */
  async start(): Promise<void> {
    const { namespace, samples, onBatchEnd, receiveBytes = RECEIVE_BYTES } = this.#options
    this.#data = NetlinkSocket.open(NETLINK_GENERIC, {
      namespace,
      receiveBytes,
      noEnobufs: true,
      slots: SLOTS,
      slotBytes: SLOT_BYTES,
      onDatagram: samples.receive,
      onBatchEnd,
    })
    const buffer = this.#data.receiveBuffer
    if (buffer?.warning !== undefined)
      this.#log.warn({ asked: buffer.asked, granted: buffer.granted }, buffer.warning)
    this.#control = NetlinkSocket.open(NETLINK_GENERIC, {
      namespace,
      groups: [GENL_GROUP_NOTIFY],
      onNotification: message => {
        const change = readFamilyNotification(message)
        if (change?.family.name !== PSAMPLE_FAMILY) return
        if (change.gone) this.#gone()
        else this.#join(change.family)
      },
      onOverrun: () => void this.#attach(),
    })
    await this.#attach()
  }

  /** Brings the ledger up to date with the kernel's counts; to be called every second or so. */
  poll(): void {
    if (this.#data === undefined) return
    const drops = this.#data.drops()
    const lost = (drops - this.#drops) >>> 0
    this.#drops = drops
    if (lost > 0) {
      this.#overrun.count += lost
      const granted = this.#data.receiveBuffer?.granted
      this.#limited.line('overrun', held =>
        this.#log.warn({ lost, granted, held }, 'samples lost: the socket was full'),
      )
    }
    // The gaps of the sequence show the same losses again, as soon as a sample comes behind them. What came for the
    // groups of others is in these counts as well, so that a gap of ours may be taken for theirs, never the reverse.
    const { samples } = this.#options
    const explained = this.#overrun.count + samples.malformed
    const elsewhere = samples.missing() - explained
    if (elsewhere > this.#gap.count) this.#gap.count = elsewhere
    const problem = samples.takeProblem()
    if (problem !== undefined)
      this.#limited.line('malformed', held => this.#log.warn({ held }, `malformed message: ${problem}`))
  }

  /**
   * Samples of our groups as of the last poll(). How many the kernel made is known by its sequence numbers alone, and
   * what they do not show yet is missing on both sides.
   */
  balance(): Balance {
    const { delivered, lostHere } = this.#options.samples
    const lost = lostHere + this.#overrun.count + this.#gap.count
    return { offered: delivered + lost, delivered, lost }
  }

  stop(): void {
    this.poll()
    this.#data?.close()
    this.#control?.close()
    this.#data = undefined
    this.#control = undefined
    this.#joined = undefined
    this.state = 'stopped'
  }

  async #attach(): Promise<void> {
    const control = this.#control
    if (control === undefined) return
    try {
      let family = await resolveFamily(control, PSAMPLE_FAMILY)
      if (family === undefined) {
        await loadPsample(this.#options.namespace)
        family = await resolveFamily(control, PSAMPLE_FAMILY)
      }
      if (this.#control !== control) return
      if (family === undefined) this.#gone()
      else this.#join(family)
    } catch (error) {
      if (this.#control === control) this.#log.error((error as Error).message)
    }
  }

  #join(family: Family): void {
    const group = family.groups.get(PSAMPLE_GROUP_PACKETS)
    if (this.#data === undefined || group === undefined || group === this.#joined) return
    try {
      this.#data.join(group, `${PSAMPLE_FAMILY} ${PSAMPLE_GROUP_PACKETS}`)
    } catch (error) {
      this.state = 'refused'
      this.#log.error(`${(error as Error).message}: needs CAP_NET_ADMIN; no packet samples from PSAMPLE`)
      return
    }
    this.#joined = group
    this.#options.samples.restart()
    this.state = 'listening'
    this.#toldMissing = false
    this.#log.info({ receiveBuffer: this.#data.receiveBuffer?.granted }, 'listening for samples')
  }

  #gone(): void {
    this.#joined = undefined
    this.state = 'waiting for the kernel module'
    if (this.#toldMissing) return
    this.#toldMissing = true
    this.#log.warn(
      'the kernel has no PSAMPLE now: load the module psample, or a driver that samples; waiting for it',
    )
  }
}

/**
 * True when the kernel can sample with tc: PSAMPLE and its tc action are there, or could be loaded. Used to choose
 * a source; asks no more than the kernel's readiness.
 */
export async function kernelSamples(namespace?: string): Promise<boolean> {
  const control = NetlinkSocket.open(NETLINK_GENERIC, { namespace })
  try {
    const hasAction = await loadPsample(namespace)
    return hasAction && (await resolveFamily(control, PSAMPLE_FAMILY)) !== undefined
  } finally {
    control.close()
  }
}

/** Makes the kernel load act_sample and psample if it can; tells whether it has the action. */
async function loadPsample(namespace: string | undefined): Promise<boolean> {
  const route = NetlinkSocket.open(NETLINK_ROUTE, { namespace })
  try {
    await route.request(loadSampleAction(), 'load act_sample')
    return true
  } catch (error) {
    return error instanceof NetlinkError && error.code === 'EINVAL'
  } finally {
    route.close()
  }
}
