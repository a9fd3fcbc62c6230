/** sfp (0:10): what the monitors of the pluggable module in an interface show. */

import type { Interface } from '../interfaces.ts'
import { resolveFamily } from '../kernel/genl.ts'
import { NETLINK_GENERIC, NetlinkError, NetlinkSocket } from '../kernel/netlink-socket.ts'
import type { ModuleMonitors, ModulePart } from '../wire/modules/module.ts'
import { readModuleMonitors } from '../wire/modules/read.ts'
import { ETHTOOL_FAMILY, getModuleEeprom, readModuleEeprom } from '../wire/netlink/ethtool.ts'
import type { Message } from '../wire/netlink/message.ts'
import { sfp } from '../wire/sflow/counters/interface.ts'
import type { CounterReader } from './reader.ts'

/** Asks for a part of the memory of the module in an interface. */
export type AskModule = (ifIndex: number, part: ModulePart) => Promise<Uint8Array>

/** A module that does not answer holds back the other modules for this time, and nothing else. */
const TIMEOUT_MS = 2000
/** A module that was changed is read this soon after its link comes. */
const SOONEST_MS = 10_000

export interface ModulesOptions {
  /** How old what was read of a module may become. */
  readonly intervalMs: number
  /** Monotonic clock, in milliseconds. */
  readonly now?: () => number
}

/**
 * Reads modules one after the other, at their own slow pace: one reading takes some I2C transfers of several
 * milliseconds. A poll gets what was read last, at once.
 */
export class Modules {
  readonly #ask: AskModule
  readonly #close: () => void
  readonly #now: () => number
  intervalMs: number
  /** The end of the readings so far. */
  #reading: Promise<void> = Promise.resolve()

  /** Undefined where the kernel has no ethtool netlink (before 5.6). */
  static async open(options: ModulesOptions, namespace?: string): Promise<Modules | undefined> {
    const socket = NetlinkSocket.open(NETLINK_GENERIC, { namespace, timeoutMs: TIMEOUT_MS })
    try {
      const family = await resolveFamily(socket, ETHTOOL_FAMILY)
      if (family === undefined) {
        socket.close()
        return undefined
      }
      const request = (bytes: Uint8Array, operation: string) => socket.request(bytes, operation)
      return new Modules(askByNetlink(family.id, request), () => socket.close(), options)
    } catch (error) {
      socket.close()
      throw error
    }
  }

  constructor(ask: AskModule, close: () => void, { intervalMs, now }: ModulesOptions) {
    this.#ask = ask
    this.#close = close
    this.intervalMs = intervalMs
    this.#now = now ?? (() => performance.now())
  }

  /** The reader of one interface. Only what a driver made can have a module. */
  reader(port: () => Interface | undefined): CounterReader<typeof sfp> {
    let monitors: ModuleMonitors | undefined
    let failure: Error | undefined
    let hasModules = true
    let isReading = false
    let readAtMs = Number.NEGATIVE_INFINITY
    let wasUp = false
    const look = async (ifIndex: number) => {
      try {
        monitors = await readModuleMonitors(part => this.#ask(ifIndex, part))
      } catch (error) {
        monitors = undefined
        const code = error instanceof NetlinkError ? error.code : undefined
        // The driver cannot read modules, now or ever.
        if (code === 'EOPNOTSUPP') hasModules = false
        else if (code === 'ECANCELED') return
        // All others are what a driver says when the cage is empty: each another.
        else if (!(error instanceof NetlinkError) || code === 'EPERM') failure = error as Error
      } finally {
        isReading = false
        readAtMs = this.#now()
      }
    }
    return {
      record: sfp,
      read: () => {
        const now = port()
        if (now === undefined || now.kind !== undefined || !hasModules) return undefined
        const ageMs = this.#now() - readAtMs
        const cameUp = now.operUp && !wasUp && ageMs >= SOONEST_MS
        if (!isReading && (ageMs >= this.intervalMs || cameUp)) {
          isReading = true
          wasUp = now.operUp
          this.#reading = this.#reading.then(() => look(now.ifIndex))
        } else if (!now.operUp) {
          wasUp = false
        }
        if (failure !== undefined) {
          const told = failure
          failure = undefined
          throw told
        }
        return monitors && { module_id: now.ifIndex, ...monitors }
      },
    }
  }

  /** Readings under way end. May be called twice. */
  close(): void {
    this.#close()
  }
}

/** By ETHTOOL_MSG_MODULE_EEPROM_GET; `request` sends a message and gives the answer. */
export function askByNetlink(
  family: number,
  request: (bytes: Uint8Array, operation: string) => Promise<Message | undefined>,
): AskModule {
  return async (ifIndex, part) => {
    const operation = `read the module of interface ${ifIndex}`
    const reply = await request(getModuleEeprom(family, ifIndex, part), operation)
    const bytes = reply === undefined ? new Uint8Array() : readModuleEeprom(reply)
    if (bytes.length === part.length) return bytes
    throw new Error(`${operation}: ${bytes.length} bytes of page ${part.page} instead of ${part.length}`)
  }
}
