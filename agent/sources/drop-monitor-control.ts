import { NetlinkError } from '../kernel/netlink-socket.ts'
import {
  configureDropMonitor,
  type DropFeed,
  type DropMonitorConfig,
  getDropMonitorConfig,
  readDropMonitorConfig,
  startDropMonitor,
  stopDropMonitor,
} from '../wire/netlink/drop-monitor.ts'
import type { Message } from '../wire/netlink/message.ts'

/**
 * The one switch of the drop monitor, which has no owner: whoever may can start, stop and configure it, nobody is
 * told, and whether it is on can only be learned by starting it. This remembers what was changed, and puts it back.
 */

export interface DropMonitorWishes {
  readonly software: boolean
  readonly hardware: boolean
  /** Take it from others who have it on in a mode without packets. */
  readonly force: boolean
  readonly truncateBytes: number
  readonly queueLength: number
}

/** Sends a request to the family and waits for its answer. */
export type SendRequest = (message: Uint8Array, operation: string) => Promise<Message | undefined>

/** What bringing it up came to. */
export interface Brought {
  /** Feeds that were off and are on now. */
  readonly started: readonly DropFeed[]
  /** Feeds that this kernel does not have. */
  readonly missing: readonly DropFeed[]
  /** What the monitor delivers now. */
  readonly config: DropMonitorConfig
}

/** Others have the monitor on, in a mode that is of no use here. */
export class DropMonitorBusyError extends Error {
  override readonly name = 'DropMonitorBusyError'
}

const FEEDS: readonly DropFeed[] = ['software', 'hardware']
/** Two programs that both insist would take it from each other for ever. */
const TAKE_OVERS_MOST = 5

export class DropMonitorControl {
  readonly #wishes: DropMonitorWishes
  /** The configuration before the first change of ours. */
  #previous: DropMonitorConfig | undefined
  readonly #started = new Set<DropFeed>()
  /** Feeds of others that a take-over stopped. */
  readonly #stopped = new Set<DropFeed>()
  #takeOvers = 0

  constructor(wishes: DropMonitorWishes) {
    this.#wishes = wishes
  }

  /**
   * Configures the monitor and starts the feeds wished for, as far as they are not on. May be called again and
   * again: what others have stopped meanwhile is on afterwards. Throws a DropMonitorBusyError when others have it
   * and it may not be taken, a NetlinkError when the kernel refuses.
   */
  async bringUp(family: number, send: SendRequest): Promise<Brought> {
    let config = await read(family, send)
    if (!this.#isWished(config)) {
      const before = config
      if (await this.#configure(family, send, before)) {
        this.#previous ??= before
        config = await read(family, send)
        if (!this.#isUsable(config)) throw new DropMonitorBusyError('others configure it at the same time')
      }
    }
    const started: DropFeed[] = []
    const missing: DropFeed[] = []
    for (const feed of FEEDS) {
      if (!this.#wishes[feed]) continue
      const outcome = await start(family, send, feed)
      if (outcome === 'started') {
        started.push(feed)
        this.#started.add(feed)
      } else if (outcome === 'missing') missing.push(feed)
    }
    return { started, missing, config }
  }

  /** Stops what was started here and puts back what was changed; others who came meanwhile keep what they have. */
  async restore(family: number, send: SendRequest): Promise<void> {
    for (const feed of this.#started) await send(stopDropMonitor(family, feed), `stop ${feed} drops`)
    const previous = this.#previous
    const stopped = [...this.#stopped]
    this.forget()
    if (previous === undefined) return
    try {
      await send(configureDropMonitor(family, previous), 'configure the drop monitor')
    } catch (error) {
      if (!isRefusal(error, 'EBUSY')) throw error
    }
    for (const feed of stopped) await start(family, send, feed)
  }

  /** The module is gone, and all that was changed with it. */
  forget(): void {
    this.#previous = undefined
    this.#started.clear()
    this.#stopped.clear()
  }

  /** True when the configuration was changed; false when others have it on and it serves as it is. */
  async #configure(family: number, send: SendRequest, before: DropMonitorConfig): Promise<boolean> {
    const { truncateBytes, queueLength, force } = this.#wishes
    const request = configureDropMonitor(family, { packets: true, truncateBytes, queueLength })
    try {
      await send(request, 'configure the drop monitor')
      return true
    } catch (error) {
      if (!isRefusal(error, 'EBUSY')) throw error
    }
    if (this.#isUsable(before)) return false
    if (!force) throw new DropMonitorBusyError('another program has it on, in a mode without packets')
    if (this.#takeOvers === TAKE_OVERS_MOST)
      throw new DropMonitorBusyError('another program takes it again and again')
    this.#takeOvers++
    for (const feed of FEEDS) {
      const isOn = (await start(family, send, feed)) === 'on already'
      if (isOn && !this.#started.has(feed)) this.#stopped.add(feed)
      await send(stopDropMonitor(family, feed), `stop ${feed} drops`)
    }
    await send(request, 'configure the drop monitor')
    return true
  }

  #isWished({ packets, truncateBytes, queueLength }: DropMonitorConfig): boolean {
    const wishes = this.#wishes
    return packets && truncateBytes === wishes.truncateBytes && queueLength === wishes.queueLength
  }

  #isUsable({ packets, truncateBytes }: DropMonitorConfig): boolean {
    return packets && (truncateBytes === 0 || truncateBytes >= this.#wishes.truncateBytes)
  }
}

async function read(family: number, send: SendRequest): Promise<DropMonitorConfig> {
  const answer = await send(getDropMonitorConfig(family), 'read the configuration of the drop monitor')
  if (answer === undefined) throw new Error('the drop monitor does not tell its configuration')
  return readDropMonitorConfig(answer)
}

async function start(
  family: number,
  send: SendRequest,
  feed: DropFeed,
): Promise<'started' | 'on already' | 'missing'> {
  try {
    await send(startDropMonitor(family, feed), `start ${feed} drops`)
    return 'started'
  } catch (error) {
    if (isRefusal(error, 'EAGAIN')) return 'on already'
    if (feed === 'hardware' && isRefusal(error, 'EOPNOTSUPP')) return 'missing'
    throw error
  }
}

function isRefusal(error: unknown, code: string): boolean {
  return error instanceof NetlinkError && error.code === code
}
