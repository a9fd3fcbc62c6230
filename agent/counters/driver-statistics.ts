import { KernelSocket, SystemError } from '../kernel/native.ts'
import {
  countersRequest,
  driverInfoRequest,
  namesRequest,
  placesOf,
  readCounters,
  readNames,
  readStatisticsCount,
  SIOCETHTOOL,
  type StatisticsPlaces,
  statisticsAt,
} from '../wire/ethtool-strings.ts'
import type { EthernetStats } from '../wire/netlink/ethtool.ts'

const AF_INET = 2
const SOCK_DGRAM = 2
/** The names change with the number of queues, seldom twice while they are read. */
const TRIES = 2

/** The ioctl as a function: overwrites `bytes` with the answer. */
export type AskDriver = (device: string, bytes: Uint8Array) => Promise<void>

/**
 * Statistics that a driver has by names of its own, for drivers without the standard ones. The names of an interface are
 * read once, and again when their number changes.
 */
export class DriverStatistics {
  readonly #ask: AskDriver
  readonly #close: () => void
  readonly #places = new Map<number, StatisticsPlaces>()

  static open(namespace?: string): DriverStatistics {
    const socket = KernelSocket.open('socket for ethtool', AF_INET, SOCK_DGRAM, 0, namespace)
    return new DriverStatistics(
      (device, bytes) =>
        socket.control(SIOCETHTOOL, device, bytes, `read the driver's statistics of ${device}`),
      () => socket.close(),
    )
  }

  constructor(ask: AskDriver, close: () => void) {
    this.#ask = ask
    this.#close = close
  }

  /** Undefined when there is no such interface, or its driver has none of the statistics that we know by name. */
  async read(ifIndex: number, device: string): Promise<EthernetStats | undefined> {
    for (let tries = TRIES; tries > 0; tries--) {
      const places = this.#places.get(ifIndex) ?? (await this.#findPlaces(ifIndex, device))
      if (places === undefined) return undefined
      const counters = await this.#counters(device, places.count)
      if (counters !== undefined) {
        return { ifIndex, mac: statisticsAt(places.mac, counters), phy: statisticsAt(places.phy, counters) }
      }
      this.#places.delete(ifIndex)
    }
    return undefined
  }

  /** The interface is gone. */
  forget(ifIndex: number): void {
    this.#places.delete(ifIndex)
  }

  /** Questions under way fail. May be called twice. */
  close(): void {
    this.#close()
  }

  async #findPlaces(ifIndex: number, device: string): Promise<StatisticsPlaces | undefined> {
    const info = driverInfoRequest()
    if (!(await this.#answers(device, info))) return undefined
    const count = readStatisticsCount(info)
    if (count === 0) return undefined
    const names = namesRequest(count)
    if (!(await this.#answers(device, names))) return undefined
    const places = placesOf(readNames(names))
    if (places.mac.size + places.phy.size === 0) return undefined
    this.#places.set(ifIndex, places)
    return places
  }

  /** Undefined when there are others by now. */
  async #counters(device: string, count: number): Promise<DataView | undefined> {
    const bytes = countersRequest(count)
    if (!(await this.#answers(device, bytes))) return undefined
    return readCounters(bytes, count)
  }

  async #answers(device: string, bytes: Uint8Array): Promise<boolean> {
    try {
      await this.#ask(device, bytes)
      return true
    } catch (error) {
      if (error instanceof SystemError && ABSENT.has(error.code)) return false
      throw error
    }
  }
}

/** EFAULT: more than there was room for, so their number has changed. */
const ABSENT: ReadonlySet<string> = new Set(['ENODEV', 'EOPNOTSUPP', 'EFAULT'])
