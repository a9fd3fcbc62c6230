import { NETLINK_ROUTE, NetlinkError, NetlinkSocket } from '../kernel/netlink-socket.ts'
import type { Message } from '../wire/netlink/message.ts'
import { RTM, RTNLGRP } from '../wire/netlink/rt.ts'
import {
  addClsact,
  addProgram,
  CLSACT_EGRESS,
  CLSACT_INGRESS,
  deleteClsact,
  deleteProgram,
  dumpFilters,
  dumpQdiscs,
  type Filter,
  interfaceOfTc,
  readFilter,
  readQdisc,
} from '../wire/netlink/tc.ts'

/**
 * BPF programs at the clsact qdisc of interfaces, for kernels without TCX (before Linux 6.6). Unlike TCX these stay
 * when the agent dies; the next one removes them. Whoever removes the qdisc removes them, too: they are put back.
 */

export interface ClsactProgram {
  readonly name: string
  readonly direction: 'ingress' | 'egress'
  /** Of the loaded program; the kernel keeps the program, not the descriptor. */
  readonly descriptor: number
}

/** Told when programs that others had removed are there again, or why they cannot be. */
export type OnRepair = (ifIndex: number, problem: string | undefined) => void

interface Port {
  readonly ifIndex: number
  readonly programs: ClsactProgram[]
  /** Time until it is looked at when something happens; doubles with each repair. */
  repairMs: number
  lastRepair: number
  timer: NodeJS.Timeout | undefined
}

const PARENTS = { ingress: CLSACT_INGRESS, egress: CLSACT_EGRESS } as const
/** Handle of our filters: "w", or "W" where the clsact is ours too, and the number of the agent in the namespace. */
const HANDLE = 0x77 << 24
const HOOK_HANDLE = 0x57 << 24
/** What the kernel itself begins with. */
const USUAL_PREFERENCE = 0xc000
/** Shortest and longest time between a removal by others and its repair, and after which it is quick again. */
const REPAIR_MS = 50
const REPAIR_MOST_MS = 60_000
const QUIET_MS = 300_000

export class ClsactPrograms {
  readonly #socket: NetlinkSocket
  readonly #handle: number
  readonly #hookHandle: number
  readonly #onRepair: OnRepair
  /** Interfaces whose clsact we made, now or in an earlier run. */
  readonly #ownHooks = new Set<number>()
  readonly #ports = new Map<number, Port>()
  /** Tells of removals; open while there may be some. */
  #events: NetlinkSocket | undefined
  /** The end of all work so far; one thing is done at a time. */
  #work: Promise<unknown> = Promise.resolve()

  /** `instance`, below 2^24, tells several agents in one namespace apart. */
  static open(instance: number, onRepair: OnRepair = () => {}): ClsactPrograms {
    return new ClsactPrograms(NetlinkSocket.open(NETLINK_ROUTE), instance, onRepair)
  }

  private constructor(socket: NetlinkSocket, instance: number, onRepair: OnRepair) {
    this.#socket = socket
    this.#handle = (HANDLE | instance) >>> 0
    this.#hookHandle = (HOOK_HANDLE | instance) >>> 0
    this.#onRepair = onRepair
  }

  /**
   * Puts the program before all filters of the interface, and removes what an earlier run has left there. Gives a
   * warning when a filter that runs before it cannot be avoided. What the kernel refuses is a NetlinkError.
   */
  attach(ifIndex: number, program: ClsactProgram): Promise<string | undefined> {
    return this.#inTurn(async () => {
      this.#events ??= NetlinkSocket.open(NETLINK_ROUTE, {
        groups: [RTNLGRP.tc],
        onNotification: message => this.#notified(message),
        onOverrun: () => {
          for (const port of this.#ports.values()) this.#lookSoon(port)
        },
      })
      const warning = await this.#place(ifIndex, program)
      const port = this.#ports.get(ifIndex) ?? newPort(ifIndex)
      port.programs.push(program)
      this.#ports.set(ifIndex, port)
      return warning
    })
  }

  async #place(ifIndex: number, { name, direction, descriptor }: ClsactProgram): Promise<string | undefined> {
    const parent = PARENTS[direction]
    if (await this.#hasHook(ifIndex)) await this.#learnOwner(ifIndex)
    else {
      await this.#socket.request(addClsact(ifIndex), 'add clsact')
      this.#ownHooks.add(ifIndex)
    }
    const others: Filter[] = []
    for (const filter of await this.#filters(ifIndex, parent)) {
      if (this.#isOurs(filter)) await this.#socket.request(deleteProgram(filter), `remove an old ${name}`)
      else others.push(filter)
    }
    const lowest = Math.min(USUAL_PREFERENCE + 1, ...others.map(filter => filter.preference))
    const taken = new Set(others.map(filter => filter.preference))
    let preference = Math.max(lowest - 1, 1)
    while (taken.has(preference)) preference++
    const handle = this.#ownHooks.has(ifIndex) ? this.#hookHandle : this.#handle
    await this.#socket.request(
      addProgram({ ifIndex, parent, preference, handle }, descriptor, name),
      `attach ${name}`,
    )
    const before = others.find(filter => filter.preference < preference)
    if (before === undefined) return undefined
    return `${direction}: packets that the ${before.kind} filter at preference ${before.preference} drops or redirects are not seen`
  }

  /** Removes our programs of an interface, and its clsact if that is ours and nobody else uses it. */
  detach(ifIndex: number): Promise<void> {
    clearTimeout(this.#ports.get(ifIndex)?.timer)
    this.#ports.delete(ifIndex)
    return this.#inTurn(() => this.#detach(ifIndex))
  }

  async #detach(ifIndex: number): Promise<void> {
    const isOwnHook = this.#ownHooks.delete(ifIndex)
    try {
      if (!(await this.#hasHook(ifIndex))) return
      let isUsed = false
      for (const parent of Object.values(PARENTS)) {
        for (const filter of await this.#filters(ifIndex, parent)) {
          if (this.#isOurs(filter)) await this.#socket.request(deleteProgram(filter), 'remove a program')
          else isUsed = true
        }
      }
      if (isOwnHook && !isUsed) await this.#socket.request(deleteClsact(ifIndex), 'remove clsact')
    } catch (error) {
      // The interface is gone, and its filters with it.
      if (!isGone(error)) throw error
    }
  }

  /** Removes what an earlier run has left at an interface, and the clsact that it made. Tells if there was anything. */
  async removeOld(ifIndex: number): Promise<boolean> {
    const isFound = await this.#learnOwner(ifIndex)
    if (isFound) await this.detach(ifIndex)
    return isFound
  }

  close(): void {
    for (const { timer } of this.#ports.values()) clearTimeout(timer)
    this.#ports.clear()
    this.#events?.close()
    this.#socket.close()
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#work.then(action)
    this.#work = result.catch(() => {})
    return result
  }

  /** Our own changes are told of here as well. */
  #notified(message: Message): void {
    if (message.type !== RTM.delQdisc && message.type !== RTM.delFilter) return
    const port = this.#ports.get(interfaceOfTc(message))
    if (port !== undefined) this.#lookSoon(port)
  }

  /** Looks at the interface after its back-off: whoever removes the programs again and again is not fought fast. */
  #lookSoon(port: Port): void {
    if (port.timer !== undefined) return
    if (performance.now() - port.lastRepair > QUIET_MS) port.repairMs = REPAIR_MS
    port.timer = setTimeout(() => {
      port.timer = undefined
      void this.#inTurn(() => this.#repair(port))
    }, port.repairMs)
  }

  async #repair(port: Port): Promise<void> {
    const { ifIndex } = port
    const isWanted = () => this.#ports.get(ifIndex) === port
    const told = { isRepaired: false, problem: undefined as string | undefined }
    try {
      for (const program of port.programs) {
        if (!isWanted()) return
        const isThere = (await this.#filters(ifIndex, PARENTS[program.direction])).some(this.#isOurs)
        if (isThere) continue
        await this.#place(ifIndex, program)
        told.isRepaired = true
      }
    } catch (error) {
      // Its removal is told of by itself.
      if (!isWanted() || isGone(error)) return
      told.problem = (error as Error).message
    }
    if (!isWanted() || (!told.isRepaired && told.problem === undefined)) return
    port.lastRepair = performance.now()
    port.repairMs = Math.min(port.repairMs * 2, REPAIR_MOST_MS)
    if (told.problem !== undefined) this.#lookSoon(port)
    this.#onRepair(ifIndex, told.problem)
  }

  /** Whether a program of ours is at the interface. Those that are tell whether the clsact is ours. */
  async #learnOwner(ifIndex: number): Promise<boolean> {
    const filters: Filter[] = []
    for (const parent of Object.values(PARENTS)) filters.push(...(await this.#filters(ifIndex, parent)))
    const ours = filters.filter(this.#isOurs)
    if (ours.some(({ handle }) => handle === this.#hookHandle)) this.#ownHooks.add(ifIndex)
    // Others may have made it anew since.
    else this.#ownHooks.delete(ifIndex)
    return ours.length > 0
  }

  async #hasHook(ifIndex: number): Promise<boolean> {
    const qdiscs = (await this.#socket.dump(dumpQdiscs(), 'list qdiscs')).map(readQdisc)
    return qdiscs.some(qdisc => qdisc.ifIndex === ifIndex && qdisc.kind === 'clsact')
  }

  async #filters(ifIndex: number, parent: number): Promise<Filter[]> {
    const messages = await this.#socket.dump(dumpFilters(ifIndex, parent), 'list filters')
    // A preference without a filter (handle 0) is listed, too.
    return messages.map(readFilter).filter(filter => filter.handle !== 0)
  }

  readonly #isOurs = ({ kind, handle }: Filter): boolean =>
    kind === 'bpf' && (handle === this.#handle || handle === this.#hookHandle)
}

function newPort(ifIndex: number): Port {
  const lastRepair = Number.NEGATIVE_INFINITY
  return { ifIndex, programs: [], repairMs: REPAIR_MS, lastRepair, timer: undefined }
}

function isGone(error: unknown): boolean {
  return error instanceof NetlinkError && error.code === 'ENODEV'
}
