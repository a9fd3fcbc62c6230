import { NETLINK_ROUTE, NetlinkError, NetlinkSocket } from '../kernel/netlink-socket.ts'
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
  readFilter,
  readQdisc,
} from '../wire/netlink/tc.ts'

/**
 * BPF programs at the clsact qdisc of interfaces, for kernels without TCX (before Linux 6.6). Unlike TCX these stay
 * when the agent dies; the next one removes them.
 */

export interface ClsactProgram {
  readonly name: string
  readonly direction: 'ingress' | 'egress'
  /** Of the loaded program; the kernel keeps the program, not the descriptor. */
  readonly descriptor: number
}

const PARENTS = { ingress: CLSACT_INGRESS, egress: CLSACT_EGRESS } as const
/** Handle of our filters: "w" and the number of the agent among those of the namespace. */
const OWN_HANDLE = 0x77 << 24
/** What the kernel itself begins with. */
const USUAL_PREFERENCE = 0xc000

export class ClsactPrograms {
  readonly #socket: NetlinkSocket
  readonly #handle: number
  /** Interfaces whose clsact we made, now or in an earlier run. */
  readonly #ownHooks = new Set<number>()

  /** `instance`, below 2^24, tells several agents in one namespace apart. */
  static open(instance: number): ClsactPrograms {
    return new ClsactPrograms(NetlinkSocket.open(NETLINK_ROUTE), instance)
  }

  private constructor(socket: NetlinkSocket, instance: number) {
    this.#socket = socket
    this.#handle = (OWN_HANDLE | instance) >>> 0
  }

  /**
   * Puts the program before all filters of the interface, and removes what an earlier run has left there. Gives a
   * warning when a filter that runs before it cannot be avoided. What the kernel refuses is a NetlinkError.
   */
  async attach(ifIndex: number, program: ClsactProgram): Promise<string | undefined> {
    const { name, direction, descriptor } = program
    const parent = PARENTS[direction]
    if (!(await this.#hasHook(ifIndex))) {
      await this.#socket.request(addClsact(ifIndex), 'add clsact')
      this.#ownHooks.add(ifIndex)
    }
    const others: Filter[] = []
    for (const filter of await this.#filters(ifIndex, parent)) {
      if (this.#isOurs(filter)) {
        await this.#socket.request(deleteProgram(filter), `remove an old ${name}`)
        this.#ownHooks.add(ifIndex)
      } else {
        others.push(filter)
      }
    }
    const lowest = Math.min(USUAL_PREFERENCE + 1, ...others.map(filter => filter.preference))
    const taken = new Set(others.map(filter => filter.preference))
    let preference = Math.max(lowest - 1, 1)
    while (taken.has(preference)) preference++
    const place = { ifIndex, parent, preference, handle: this.#handle }
    await this.#socket.request(addProgram(place, descriptor, name), `attach ${name}`)
    const before = others.find(filter => filter.preference < preference)
    if (before === undefined) return undefined
    return `${direction}: packets that the ${before.kind} filter at preference ${before.preference} drops or redirects are not seen`
  }

  /** Removes our programs of an interface, and its clsact if that is ours and nobody else uses it. */
  async detach(ifIndex: number): Promise<void> {
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
      if (!(error instanceof NetlinkError && error.code === 'ENODEV')) throw error
    }
  }

  /** Removes what an earlier run has left at an interface, and the clsact that it made. Tells if there was anything. */
  async removeOld(ifIndex: number): Promise<boolean> {
    for (const parent of Object.values(PARENTS)) {
      const filters = await this.#filters(ifIndex, parent)
      if (filters.some(filter => this.#isOurs(filter))) this.#ownHooks.add(ifIndex)
    }
    const isFound = this.#ownHooks.has(ifIndex)
    if (isFound) await this.detach(ifIndex)
    return isFound
  }

  close(): void {
    this.#socket.close()
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

  #isOurs(filter: Filter): boolean {
    return filter.kind === 'bpf' && filter.handle === this.#handle
  }
}
