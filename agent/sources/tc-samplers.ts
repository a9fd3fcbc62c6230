import type { Logger } from '../health/log.ts'
import type { Interfaces } from '../interfaces.ts'
import {
  NETLINK_ROUTE,
  NetlinkError,
  NetlinkSocket,
  type NetlinkSocketOptions,
} from '../kernel/netlink-socket.ts'
import { NetlinkFormatError } from '../wire/netlink/attributes.ts'
import type { Message } from '../wire/netlink/message.ts'
import { RTM, RTNLGRP } from '../wire/netlink/rt.ts'
import {
  addClsact,
  addSampler,
  CLSACT_EGRESS,
  CLSACT_INGRESS,
  deleteClsact,
  deleteSampler,
  dumpFilters,
  dumpQdiscs,
  dumpSampleActions,
  FILTER_FLAG,
  type Filter,
  INGRESS_HANDLE,
  interfaceOfTc,
  type Qdisc,
  readFilter,
  readQdisc,
  readSampleActions,
  retuneSample,
  type SampleAction,
} from '../wire/netlink/tc.ts'
import type { Direction, SampledPort } from './psample-samples.ts'
import {
  hasParameters,
  keyOfAction,
  keyOfCookie,
  makeCookie,
  ownsHook,
  type Plan,
  planSampler,
  SAMPLER_HANDLE,
  samplerKey,
  samplerKeyOf,
  type Target,
} from './tc-plan.ts'

/** One sampler that should be there. */
export interface WantedSampler {
  readonly ifIndex: number
  /** For messages only. */
  readonly name: string
  readonly direction: Direction
  /** 1 in N, at least 1. */
  readonly rate: number
  /** PSAMPLE group; interfaces whose ifIndex PSAMPLE cannot carry get one of their own instead. */
  readonly group: number
  /** Octets of a packet at most; 0 takes all. */
  readonly truncate: number
  /** Ask for sampling in hardware only, or in software only. */
  readonly skipSw: boolean
  readonly skipHw: boolean
}

/** What became of a wanted sampler. */
export interface SamplerStatus {
  readonly ifIndex: number
  readonly name: string
  readonly direction: Direction
  readonly rate: number
  /** The PSAMPLE group in force. */
  readonly group: number
  /** Placed, and seen in the kernel as it was asked for. */
  readonly sampling: boolean
  readonly inHardware: boolean
  readonly preference: number | undefined
  /** Why it does not sample, or what it does not see. */
  readonly note: string | undefined
}

/** What passed a sampler since it was placed or adopted; grows through all changes of its rate. */
export interface SamplerCount {
  readonly ifIndex: number
  readonly direction: Direction
  readonly packets: bigint
  /** At ingress without the link header, at egress with it. */
  readonly bytes: bigint
}

/** What of a netlink socket is needed here. */
export type TcSocket = Pick<NetlinkSocket, 'request' | 'dump' | 'close'>

export interface TcSamplersOptions {
  readonly log: Logger
  readonly interfaces: Pick<Interfaces, 'subscribe' | 'byLow16'>
  /** Tells the samplers of several agents in one namespace apart; the same again after a restart. */
  readonly instance: number
  /** Network namespace, a name or a path; default: our own. */
  readonly namespace?: string | undefined
  /** A PSAMPLE group has become that of a single interface. */
  readonly onGroup?: (group: number) => void
  /** Opens the sockets; default: NetlinkSocket.open. */
  readonly open?: (protocol: number, options: NetlinkSocketOptions) => TcSocket
  /** Shortest and longest time between the removal of a sampler by someone else and its repair, milliseconds. */
  readonly repairMs?: { readonly least: number; readonly most: number }
}

/** One interface that has or had samplers. */
interface Port {
  readonly ifIndex: number
  name: string
  /** Time until the next look at it when something happens; doubles with each repair. */
  repairMs: number
  lastRepair: number
  timer: NodeJS.Timeout | undefined
}

interface Sampler {
  readonly wanted: WantedSampler
  readonly port: SampledPort
  readonly target: Target
  filter: Filter | undefined
  behind: Filter | undefined
  problem: string | undefined
}

/** Statistics of a sampler over the actions that it had one after another. */
interface Count {
  readonly port: SampledPort
  /** Sums over the actions before this one, without what the first one had counted when it was adopted. */
  earlierPackets: bigint
  earlierBytes: bigint
  index: number
  packets: bigint
  bytes: bigint
  /** Of the filter that has the action. */
  inHardware: boolean
  hasHardwarePart: boolean
}

type Hook = { readonly kind: 'clsact' | 'ingress'; readonly blocks: Record<Direction, number | undefined> }

const DIRECTIONS = ['ingress', 'egress'] as const
const REPAIR_MS = { least: 50, most: 60_000 }
/** After this long without repairs the next one is quick again. */
const QUIET_MS = 300_000
/** Not the index of any action: the kernel counts them from 1. */
const NO_ACTION = 0
/** PSAMPLE carries 16 bits of an ifIndex. */
const MOST_PSAMPLE_IFINDEX = 0xffff
/** Groups of single interfaces: this and twice the ifIndex, +1 for egress. Far above what people number by hand. */
const OWN_GROUPS = 0x8000_0000

/**
 * Places samplers on interfaces by rtnetlink: a clsact qdisc, and on it a matchall filter with a sample action. They
 * are marked with a cookie; filters without it are never touched, and still see every packet. What is placed is
 * checked in the kernel, repaired when someone removes it, and removed at the stop. Samplers outlive a crash: the
 * next run takes over those that it wants and removes the others.
 */
export class TcSamplers {
  /** Samplers placed again, or set right, after somebody else had removed or changed them. */
  repairs = 0
  /** Rates changed while the sampler ran. */
  retunes = 0
  /** Samplers replaced by others: for some microseconds between the two nothing was sampled. */
  gaps = 0
  /** Interfaces on which samplers of an earlier run were found. */
  leftovers = 0

  readonly #options: TcSamplersOptions
  readonly #log: Logger
  readonly #instance: number
  readonly #open: (protocol: number, options: NetlinkSocketOptions) => TcSocket
  readonly #repairMs: { readonly least: number; readonly most: number }
  #wanted: readonly WantedSampler[] = []
  #samplers = new Map<number, Sampler>()
  readonly #ports = new Map<number, Port>()
  readonly #counts = new Map<number, Count>()
  /** The interfaces that a group of their own stands for; stays, since samples may still be under way. */
  readonly #portOfGroup = new Map<number, SampledPort>()
  readonly #portOfKey = new Map<number, SampledPort>()
  /** Interfaces whose clsact is ours, or an earlier run's. */
  readonly #ownHooks = new Set<number>()
  /** Interfaces to look at; true: only because something happened to it, so that a change is a repair. */
  readonly #due = new Map<number, boolean>()
  /** The end of all work so far; one thing is done at a time. */
  #work: Promise<void> = Promise.resolve()
  #canRetune = true
  #foundLeftovers = false
  #isStopping = false
  #control: TcSocket | undefined
  #events: TcSocket | undefined
  #unsubscribe: (() => void) | undefined

  constructor(options: TcSamplersOptions) {
    this.#options = options
    this.#log = options.log.child({ part: 'tc' })
    this.#instance = options.instance
    this.#open = options.open ?? NetlinkSocket.open
    this.#repairMs = options.repairMs ?? REPAIR_MS
  }

  /** Opens the sockets. Nothing is placed before apply(). */
  start(): void {
    const { namespace, interfaces } = this.#options
    this.#isStopping = false
    this.#control = this.#open(NETLINK_ROUTE, { namespace })
    try {
      this.#events = this.#open(NETLINK_ROUTE, {
        namespace,
        groups: [RTNLGRP.tc],
        onNotification: message => this.#notified(message),
        onOverrun: () => {
          for (const port of this.#ports.values()) this.#lookSoon(port)
        },
      })
    } catch (error) {
      this.#control.close()
      this.#control = undefined
      throw error
    }
    this.#unsubscribe = interfaces.subscribe(event => {
      if (event.type === 'remove') this.#forget(event.before.ifIndex)
      // An interface more or less may decide who shares 16 bits of the ifIndex.
      if (event.type !== 'change')
        this.#renumber(event.type === 'add' ? event.after.ifIndex : event.before.ifIndex)
      // Drivers of switches may set their tables up anew with the link.
      else if (event.after.operUp && !event.before.operUp) this.#look(event.after.ifIndex)
    })
  }

  /**
   * Makes these samplers, and no others of ours, be there. Resolves when all of them have been placed or refused;
   * status() tells which. A later call takes the place of an earlier one, but not that of stop().
   */
  async apply(wanted: readonly WantedSampler[]): Promise<void> {
    if (!this.#isStopping) await this.#want(wanted)
  }

  #want(wanted: readonly WantedSampler[]): Promise<void> {
    const before = this.#samplers
    this.#wanted = wanted
    this.#samplers = new Map(wanted.map(one => this.#sampler(one)))
    for (const { ifIndex, name } of wanted) {
      const port = this.#ports.get(ifIndex)
      if (port === undefined) this.#ports.set(ifIndex, newPort(ifIndex, name, this.#repairMs.least))
      else port.name = name
    }
    for (const ifIndex of this.#ports.keys())
      if (!this.#isSettled(ifIndex, before)) this.#due.set(ifIndex, false)
    return this.#run()
  }

  /** Removes every sampler of ours, and the clsact qdiscs that we made and that nobody else uses. */
  async stop(): Promise<void> {
    if (this.#control === undefined) return
    this.#isStopping = true
    this.#unsubscribe?.()
    this.#events?.close()
    this.#events = undefined
    for (const port of this.#ports.values()) clearTimeout(port.timer)
    await this.#want([])
    this.#control?.close()
    this.#control = undefined
    this.#ports.clear()
  }

  /** Every wanted sampler with what became of it. */
  status(): SamplerStatus[] {
    return [...this.#samplers.values()].map(sampler => {
      const { wanted, target, filter, behind, problem } = sampler
      return {
        ifIndex: wanted.ifIndex,
        name: wanted.name,
        direction: wanted.direction,
        rate: wanted.rate,
        group: target.group,
        sampling: isSampling(sampler),
        inHardware: filter !== undefined && isInHardware(filter),
        preference: filter?.preference,
        note: problem ?? (behind === undefined ? undefined : behindText(behind)),
      }
    })
  }

  /** Why an interface that is to be sampled is not, in one direction or both; undefined when it is. */
  problemOf(ifIndex: number): string | undefined {
    return DIRECTIONS.map(direction => this.#samplers.get(samplerKey(ifIndex, direction))).find(
      sampler => sampler !== undefined && !isSampling(sampler) && sampler.problem !== undefined,
    )?.problem
  }

  /** The interface that has this PSAMPLE group for itself. */
  readonly portOfGroup = (group: number): SampledPort | undefined => this.#portOfGroup.get(group)

  /** The sampler whose cookie is these `length` bytes at `offset`. Allocates nothing. */
  readonly portOfCookie = (view: DataView, offset: number, length: number): SampledPort | undefined => {
    const key = keyOfCookie(view, offset, length, this.#instance)
    return key < 0 ? undefined : this.#portOfKey.get(key)
  }

  /**
   * What passed each sampler, exactly: the pool of which the samples are a part. Large packets that the kernel holds
   * in one piece count as the packets they are on the wire. An interface with a sampler in hardware is left out while
   * that hardware has counted nothing: some drivers (mlxsw) sample there and count only what reaches the CPU.
   */
  async counts(): Promise<SamplerCount[]> {
    const control = this.#control
    if (control === undefined) return []
    // Asking for a filter in hardware makes its driver bring the action's statistics up to date.
    for (const { wanted, filter } of this.#samplers.values()) {
      if (filter === undefined || !isInHardware(filter)) continue
      await control.dump(dumpFilters(wanted.ifIndex, filter.parent), `read filters of ${wanted.name}`)
    }
    for (const action of await this.#dumpActions(control)) {
      const count = this.#counts.get(keyOfAction(action, this.#instance))
      if (count !== undefined) advance(count, action)
    }
    const counts = [...this.#counts.values()]
    const uncounted = counts.filter(({ inHardware, hasHardwarePart }) => inHardware && !hasHardwarePart)
    const leftOut = new Set(uncounted.map(({ port }) => port.ifIndex))
    return counts
      .filter(({ port }) => !leftOut.has(port.ifIndex))
      .map(count => ({
        ...count.port,
        packets: count.earlierPackets + count.packets,
        bytes: count.earlierBytes + count.bytes,
      }))
  }

  #sampler(wanted: WantedSampler): [number, Sampler] {
    const { ifIndex, direction } = wanted
    const key = samplerKey(ifIndex, direction)
    const port = this.#portOfKey.get(key) ?? Object.freeze({ ifIndex, direction })
    this.#portOfKey.set(key, port)
    const isShared = (this.#options.interfaces.byLow16(ifIndex & MOST_PSAMPLE_IFINDEX)?.size ?? 0) > 1
    let { group } = wanted
    if (ifIndex > MOST_PSAMPLE_IFINDEX || isShared) {
      group = (OWN_GROUPS + key) % 2 ** 32
      if (!this.#portOfGroup.has(group)) {
        this.#portOfGroup.set(group, port)
        this.#options.onGroup?.(group)
      }
    }
    const flags = (wanted.skipSw ? FILTER_FLAG.skipSw : 0) | (wanted.skipHw ? FILTER_FLAG.skipHw : 0)
    const target = { key, flags, rate: wanted.rate, group, truncate: wanted.truncate }
    const known = this.#samplers.get(key)
    return [
      key,
      { wanted, port, target, filter: known?.filter, behind: known?.behind, problem: known?.problem },
    ]
  }

  /** True when nothing else is wanted of the interface than before, and that is there. */
  #isSettled(ifIndex: number, before: ReadonlyMap<number, Sampler>): boolean {
    return DIRECTIONS.every(direction => {
      const key = samplerKey(ifIndex, direction)
      const was = before.get(key)
      const now = this.#samplers.get(key)
      if (was === undefined || now === undefined) return was === now
      return was.target.flags === now.target.flags && isSampling(now)
    })
  }

  #renumber(ifIndex: number): void {
    for (const other of this.#options.interfaces.byLow16(ifIndex & MOST_PSAMPLE_IFINDEX) ?? []) {
      if (other !== ifIndex && this.#ports.has(other)) {
        void this.apply(this.#wanted)
        return
      }
    }
  }

  /** The interface is gone, and its qdiscs and filters with it. */
  #forget(ifIndex: number): void {
    clearTimeout(this.#ports.get(ifIndex)?.timer)
    this.#ports.delete(ifIndex)
    this.#due.delete(ifIndex)
    this.#ownHooks.delete(ifIndex)
    for (const direction of DIRECTIONS) {
      const key = samplerKey(ifIndex, direction)
      this.#samplers.delete(key)
      this.#counts.delete(key)
      this.#portOfKey.delete(key)
    }
    this.#wanted = this.#wanted.filter(wanted => wanted.ifIndex !== ifIndex)
  }

  #look(ifIndex: number): void {
    const port = this.#ports.get(ifIndex)
    if (port !== undefined) this.#lookSoon(port)
  }

  /** Looks at the interface after its back-off: whoever removes the sampler again and again is not fought fast. */
  #lookSoon(port: Port): void {
    if (port.timer !== undefined) return
    if (performance.now() - port.lastRepair > QUIET_MS) port.repairMs = this.#repairMs.least
    port.timer = setTimeout(() => {
      port.timer = undefined
      if (!this.#due.has(port.ifIndex)) this.#due.set(port.ifIndex, true)
      void this.#run()
    }, port.repairMs)
  }

  #slowDown(port: Port): void {
    port.lastRepair = performance.now()
    port.repairMs = Math.min(port.repairMs * 2, this.#repairMs.most)
  }

  #notified(message: Message): void {
    try {
      for (const ifIndex of this.#touched(message)) this.#look(ifIndex)
    } catch (error) {
      if (!(error instanceof NetlinkFormatError)) throw error
      this.#log.warn(`message of the kernel left out: ${error.message}`)
    }
  }

  /** The interfaces whose samplers may not be as wanted after this. Our own changes are told of here as well. */
  #touched(message: Message): number[] {
    switch (message.type) {
      case RTM.newFilter:
      case RTM.delFilter: {
        const filter = readFilter(message)
        const sampler = this.#samplers.get(samplerKeyOf(filter, this.#instance))
        const isAsWanted = sampler !== undefined && hasParameters(filter.sample!, sampler.target)
        return message.type === RTM.newFilter && isAsWanted ? [] : [filter.ifIndex]
      }
      case RTM.delQdisc:
        return [interfaceOfTc(message)]
      case RTM.newAction:
      case RTM.delAction:
        return readSampleActions(message).flatMap(action => {
          const sampler = this.#samplers.get(keyOfAction(action, this.#instance))
          const isAsWanted = sampler !== undefined && hasParameters(action, sampler.target)
          return sampler === undefined || (message.type === RTM.newAction && isAsWanted)
            ? []
            : [sampler.port.ifIndex]
        })
      default:
        return []
    }
  }

  #run(): Promise<void> {
    this.#work = this.#work.then(() => this.#workOff())
    return this.#work
  }

  /** Does what is due. Never fails: what is refused is noted with the sampler. */
  async #workOff(): Promise<void> {
    const control = this.#control
    if (control === undefined || (this.#due.size === 0 && this.#foundLeftovers)) return
    let hooks: Map<number, Hook>
    try {
      if (!this.#foundLeftovers) await this.#findLeftovers(control)
      if (this.#due.size === 0) return
      hooks = readHooks(await control.dump(dumpQdiscs(), 'list qdiscs'))
    } catch (error) {
      const problem = textOf(error)
      this.#log.error(problem)
      for (const sampler of this.#samplers.values()) sampler.problem ??= problem
      for (const port of this.#ports.values()) this.#tryAgain(port)
      return
    }
    for (const [ifIndex, isRepair] of [...this.#due]) {
      this.#due.delete(ifIndex)
      const port = this.#ports.get(ifIndex)
      if (port !== undefined) await this.#settle(control, port, hooks.get(ifIndex), isRepair)
    }
  }

  /** Samplers of an earlier run that did not remove them. */
  async #findLeftovers(control: TcSocket): Promise<void> {
    for (const action of await this.#dumpActions(control)) {
      const key = keyOfAction(action, this.#instance)
      if (key < 0) continue
      const ifIndex = Math.floor(key / 2)
      if (!this.#ports.has(ifIndex)) {
        this.#ports.set(ifIndex, newPort(ifIndex, `interface ${ifIndex}`, this.#repairMs.least))
      }
      this.#due.set(ifIndex, false)
      this.leftovers++
      this.#log.info({ ifIndex }, 'found a sampler of an earlier run')
    }
    this.#foundLeftovers = true
  }

  async #dumpActions(control: TcSocket): Promise<SampleAction[]> {
    const messages = await control.dump(dumpSampleActions(), 'list sample actions')
    return messages.flatMap(readSampleActions)
  }

  /** Brings one interface to what is wanted of it. */
  async #settle(control: TcSocket, port: Port, hook: Hook | undefined, isRepair: boolean): Promise<void> {
    const { ifIndex } = port
    let isRepaired = false
    for (const direction of DIRECTIONS) {
      const sampler = this.#samplers.get(samplerKey(ifIndex, direction))
      try {
        if (sampler !== undefined && hook === undefined) hook = await this.#addHook(control, port)
        if (hook === undefined) continue
        const parent = parentOf(hook, direction)
        if (parent === undefined) {
          if (sampler !== undefined) throw new Error(unusable(hook, direction))
          continue
        }
        const changed = await this.#place(control, port, direction, parent, sampler?.target)
        // Due for other wishes by now: the change may be for their sake.
        isRepaired ||= changed && isRepair && this.#due.get(ifIndex) !== false
      } catch (error) {
        this.#refused(port, direction, sampler, error)
      }
    }
    if (isRepaired) {
      this.repairs++
      this.#slowDown(port)
      this.#log.warn(
        { port: port.name, repairs: this.repairs },
        'sampler was removed or changed by others: repaired',
      )
    }
    // Wishes that changed meanwhile may have left a sampler in the first direction: the next look ends it.
    if (this.#due.has(ifIndex)) return
    const samplers = DIRECTIONS.map(direction => this.#samplers.get(samplerKey(ifIndex, direction))).filter(
      sampler => sampler !== undefined,
    )
    // Where the kernel refuses the samplers there is nothing that would tell later whose the clsact is.
    if (samplers.every(({ filter }) => filter === undefined)) await this.#removeHook(control, port, hook)
    if (samplers.length === 0) this.#ports.delete(ifIndex)
  }

  async #addHook(control: TcSocket, port: Port): Promise<Hook> {
    await control.request(addClsact(port.ifIndex), `add clsact to ${port.name}`)
    this.#ownHooks.add(port.ifIndex)
    return { kind: 'clsact', blocks: { ingress: undefined, egress: undefined } }
  }

  /** Brings one hook to what is wanted and looks whether it is. Tells if anything was changed. */
  async #place(
    control: TcSocket,
    port: Port,
    direction: Direction,
    parent: number,
    target: Target | undefined,
  ): Promise<boolean> {
    const { ifIndex, name } = port
    const read = async () => {
      const messages = await control.dump(dumpFilters(ifIndex, parent), `list filters of ${name}`)
      return messages.map(readFilter)
    }
    let plan = planSampler(await read(), target, this.#instance, this.#canRetune)
    for (const filter of [...plan.remove, ...(plan.keep === undefined ? [] : [plan.keep])]) {
      this.#count(filter)
      if (ownsHook(filter)) this.#ownHooks.add(ifIndex)
    }
    const isChange = plan.remove.length > 0 || plan.retune || plan.addAt !== undefined
    if (isChange) {
      if (!(await this.#execute(control, port, direction, parent, target, plan))) {
        plan = planSampler(await read(), target, this.#instance, this.#canRetune)
        await this.#execute(control, port, direction, parent, target, plan)
      }
      plan = planSampler(await read(), target, this.#instance, this.#canRetune)
    }
    if (target === undefined) return isChange
    const sampler = this.#samplers.get(target.key)
    if (plan.keep === undefined || plan.retune || plan.remove.length > 0) {
      throw new Error(`${direction} sampler of ${name}: the kernel does not show it as it was asked for`)
    }
    this.#count(plan.keep)
    if (sampler !== undefined) {
      if (plan.behind !== undefined && sampler.behind === undefined) {
        this.#log.warn({ port: name, direction }, behindText(plan.behind))
      }
      sampler.filter = plan.keep
      sampler.behind = plan.behind
      sampler.problem = undefined
    }
    return isChange
  }

  /** Carries out a plan. False: the kernel refuses changes in place, so that another plan is needed. */
  async #execute(
    control: TcSocket,
    port: Port,
    direction: Direction,
    parent: number,
    target: Target | undefined,
    plan: Plan,
  ): Promise<boolean> {
    const { ifIndex, name } = port
    const isOwn = this.#ownHooks.has(ifIndex)
    const cookie = makeCookie({ instance: this.#instance, ifIndex, direction, ownsHook: isOwn })
    if (plan.keep !== undefined && plan.retune && target !== undefined) {
      try {
        const { index } = plan.keep.sample!
        await control.request(
          retuneSample(index, target, cookie),
          `change the ${direction} sampler of ${name}`,
        )
        this.retunes++
      } catch (error) {
        // Only the initial user namespace may do this; others replace the filter.
        if (!(error instanceof NetlinkError && error.code === 'EPERM')) throw error
        this.#canRetune = false
        this.#log.info(`${error.message}: from now on samplers are replaced, with a gap of some microseconds`)
        return false
      }
    }
    for (const filter of plan.remove) {
      await control.request(deleteSampler(filter), `remove the ${direction} sampler of ${name}`)
    }
    if (plan.addAt !== undefined && target !== undefined) {
      if (plan.remove.length > 0) this.gaps++
      const place = { ifIndex, parent, preference: plan.addAt, handle: SAMPLER_HANDLE, cookie }
      await control.request(addSampler({ ...target, ...place }), `add an ${direction} sampler to ${name}`)
      this.#countFromZero(target.key)
    }
    return true
  }

  #refused(port: Port, direction: Direction, sampler: Sampler | undefined, error: unknown): void {
    if (sampler !== undefined) sampler.filter = undefined
    // The interface has just gone; its removal is told of by itself.
    if (error instanceof NetlinkError && error.code === 'ENODEV') return
    const problem = textOf(error, sampler?.wanted)
    if (sampler?.problem !== problem) this.#log.error({ port: port.name, direction }, problem)
    if (sampler === undefined) return
    sampler.problem = problem
    this.#tryAgain(port)
  }

  /** A refusal may end: a module is loaded, a driver gets room, a shared block is given up. */
  #tryAgain(port: Port): void {
    this.#slowDown(port)
    if (this.#events !== undefined) this.#lookSoon(port)
  }

  /** Removes the clsact that we made, unless somebody uses it by now. */
  async #removeHook(control: TcSocket, port: Port, hook: Hook | undefined): Promise<void> {
    const { ifIndex, name } = port
    if (!this.#ownHooks.delete(ifIndex) || hook?.kind !== 'clsact') return
    if (hook.blocks.ingress !== undefined || hook.blocks.egress !== undefined) return
    try {
      for (const parent of [CLSACT_INGRESS, CLSACT_EGRESS]) {
        const filters = await control.dump(dumpFilters(ifIndex, parent), `list filters of ${name}`)
        if (filters.length > 0) return
      }
      await control.request(deleteClsact(ifIndex), `remove clsact from ${name}`)
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENODEV') return
      this.#log.warn(textOf(error))
    }
  }

  /** Takes in what a sampler has counted; one that was there before us has counted for an earlier run. */
  #count(filter: Filter): void {
    const action = filter.sample!
    const key = keyOfAction(action, this.#instance)
    const port = this.#portOfKey.get(key)
    if (port === undefined) return
    let count = this.#counts.get(key)
    if (count === undefined) {
      const { packets, bytes } = action.stats
      count = newCount(port, -packets, -bytes)
      this.#counts.set(key, count)
    }
    count.inHardware = isInHardware(filter)
    advance(count, action)
  }

  /** A sampler has a new action now, perhaps with the index of the one that was deleted before. */
  #countFromZero(key: number): void {
    const count = this.#counts.get(key)
    const port = this.#portOfKey.get(key)
    if (count !== undefined) endAction(count)
    else if (port !== undefined) this.#counts.set(key, newCount(port, 0n, 0n))
  }
}

function newCount(port: SampledPort, earlierPackets: bigint, earlierBytes: bigint): Count {
  const action = { index: NO_ACTION, packets: 0n, bytes: 0n, hasHardwarePart: false }
  return { port, earlierPackets, earlierBytes, inHardware: false, ...action }
}

/** Brings it to what its action, perhaps a new one, has counted. */
function advance(count: Count, { index, stats }: SampleAction): void {
  if (count.index !== index || stats.packets < count.packets) endAction(count)
  Object.assign(count, stats, { index })
}

/** What it has counted joins what the actions before it have. */
function endAction(count: Count): void {
  count.earlierPackets += count.packets
  count.earlierBytes += count.bytes
  count.index = NO_ACTION
  count.packets = 0n
  count.bytes = 0n
}

function newPort(ifIndex: number, name: string, repairMs: number): Port {
  return { ifIndex, name, repairMs, lastRepair: Number.NEGATIVE_INFINITY, timer: undefined }
}

function isInHardware(filter: Filter): boolean {
  return (filter.flags & FILTER_FLAG.inHw) !== 0
}

/** True when the sampler has been seen in the kernel with the parameters that are wanted now. */
function isSampling({ filter, target }: Sampler): boolean {
  return filter !== undefined && hasParameters(filter.sample!, target)
}

/** The ingress and clsact qdiscs by interface; an interface has at most one of the two. */
function readHooks(messages: readonly Message[]): Map<number, Hook> {
  const hooks = new Map<number, Hook>()
  for (const message of messages) {
    const { ifIndex, kind, ingressBlock, egressBlock }: Qdisc = readQdisc(message)
    if (kind !== 'clsact' && kind !== 'ingress') continue
    hooks.set(ifIndex, { kind, blocks: { ingress: ingressBlock, egress: egressBlock } })
  }
  return hooks
}

/** Where filters of this direction go; undefined where we cannot or must not put one. */
function parentOf(hook: Hook, direction: Direction): number | undefined {
  if (hook.blocks[direction] !== undefined) return undefined
  if (hook.kind === 'clsact') return direction === 'ingress' ? CLSACT_INGRESS : CLSACT_EGRESS
  return direction === 'ingress' ? INGRESS_HANDLE : undefined
}

function unusable(hook: Hook, direction: Direction): string {
  const block = hook.blocks[direction]
  if (block !== undefined)
    return `the ${direction} filters are in block ${block}, shared with other interfaces`
  return 'the interface has an ingress qdisc of others instead of clsact: no egress samples by tc'
}

function behindText({ kind, preference }: Filter): string {
  return `runs behind filter ${kind} at preference ${preference}: packets that it drops or redirects are not seen`
}

/** What went wrong, and what is needed. */
function textOf(error: unknown, wanted?: WantedSampler): string {
  const { message } = error as Error
  if (!(error instanceof NetlinkError)) return message
  if (error.code === 'EPERM') return `${message}: needs CAP_NET_ADMIN`
  if (error.code === 'ENOENT') return `${message}: needs the kernel modules cls_matchall and act_sample`
  if (error.code === 'EOPNOTSUPP' && wanted?.skipSw) {
    return `${message}: the driver does not sample in hardware; set sw = on to sample in software`
  }
  return message
}
