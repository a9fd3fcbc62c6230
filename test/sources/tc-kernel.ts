/** A function in place of the kernel: tc requests in, replies and notifications out, refusals on demand. */
import { NetlinkError, type NetlinkSocketOptions } from '../../agent/kernel/netlink-socket.ts'
import type { TcSocket } from '../../agent/sources/tc-samplers.ts'
import { type Message, MessageBuilder } from '../../agent/wire/netlink/message.ts'
import { RTM } from '../../agent/wire/netlink/rt.ts'
import {
  FILTER_FLAG,
  type Filter,
  INGRESS_HANDLE,
  interfaceOfTc,
  readFilter,
  readQdisc,
  readSampleActions,
} from '../../agent/wire/netlink/tc.ts'

const ERRNO = { EPERM: 1, ENOENT: 2, EEXIST: 17, ENODEV: 19, EINVAL: 22, EOPNOTSUPP: 95 } as const
export type ErrnoName = keyof typeof ERRNO

/** An action as it is kept here: what readSampleActions() gives, but counting. */
interface Action {
  index: number
  control: number
  rate: number
  group: number
  truncate: number
  cookie: Uint8Array
  packets: bigint
  /** Of these, counted by hardware. */
  hardwarePackets: bigint
}

interface KernelFilter extends Omit<Filter, 'sample'> {
  readonly action: Action | undefined
}

export class TcKernel {
  /** Every request as `type` and interface, in their order; dumps left out. */
  readonly requests: string[] = []
  dumps = 0
  readonly qdiscs = new Map<number, string>()
  filters: KernelFilter[] = []
  /** Interfaces that there are. */
  readonly interfaces = new Set<number>()
  /** Filters without skip_hw are taken into hardware. */
  offload = false
  /** Hardware counts what passes a filter. */
  hardwareCounts = true
  /** Requests of this message type are refused. */
  readonly refuse = new Map<number, ErrnoName>()
  #notify: ((message: Message) => void) | undefined
  open = 0

  /** As NetlinkSocket.open. */
  readonly socket = (_protocol: number, options: NetlinkSocketOptions): TcSocket => {
    this.open++
    if (options.onNotification !== undefined) this.#notify = options.onNotification
    let isOpen = true
    return {
      request: async (bytes, operation = '') => {
        const message = received(bytes)
        const refusal = this.refuse.get(message.type) ?? this.#change(message)
        if (refusal !== undefined) throw new NetlinkError(ERRNO[refusal], operation)
        return undefined
      },
      dump: async (bytes, operation = '') => {
        this.dumps++
        const message = received(bytes)
        const refusal = this.refuse.get(message.type)
        if (refusal !== undefined) throw new NetlinkError(ERRNO[refusal], operation)
        return this.#dump(message)
      },
      close: () => {
        if (isOpen) this.open--
        isOpen = false
      },
    }
  }

  /** Packets pass every filter of the interface, `toCpu` of them on to the CPU: all when there is no hardware. */
  pass(ifIndex: number, packets: bigint, toCpu = 0n): void {
    for (const { ifIndex: on, action, flags } of this.filters) {
      if (on !== ifIndex || action === undefined) continue
      const inHardware = (flags & FILTER_FLAG.inHw) !== 0
      const counted = inHardware && !this.hardwareCounts ? toCpu : packets
      action.packets += counted
      if (inHardware && this.hardwareCounts) action.hardwarePackets += packets
    }
  }

  /** Somebody else adds a filter. */
  addForeign(ifIndex: number, parent: number, preference: number, kind = 'flower'): void {
    const filter = {
      ifIndex,
      parent,
      preference,
      kind,
      protocol: 3,
      chain: 0,
      handle: 1,
      flags: 0,
      action: undefined,
    }
    this.filters.push(filter)
    this.#tell(filterMessage(RTM.newFilter, filter))
  }

  /** Somebody else deletes filters. */
  remove(which: (filter: KernelFilter) => boolean): void {
    const removed = this.filters.filter(which)
    this.filters = this.filters.filter(filter => !removed.includes(filter))
    for (const filter of removed) this.#tell(filterMessage(RTM.delFilter, filter))
  }

  #change(message: Message): ErrnoName | undefined {
    if (message.type === RTM.newAction) {
      this.requests.push('retune')
      const [wanted] = readSampleActions(message)
      const action = this.filters.find(filter => filter.action?.index === wanted!.index)?.action
      if (action === undefined) return 'ENOENT'
      const { rate, group, truncate } = wanted!
      Object.assign(action, { rate, group, truncate })
      return undefined
    }
    const ifIndex = interfaceOfTc(message)
    this.requests.push(`${requestName(message.type)} ${ifIndex}`)
    if (!this.interfaces.has(ifIndex)) return 'ENODEV'
    switch (message.type) {
      case RTM.newQdisc:
        if (this.qdiscs.has(ifIndex)) return 'EEXIST'
        this.qdiscs.set(ifIndex, readQdisc(message).kind)
        return undefined
      case RTM.delQdisc:
        if (!this.qdiscs.delete(ifIndex)) return 'ENOENT'
        this.remove(filter => filter.ifIndex === ifIndex)
        return undefined
      case RTM.newFilter:
        return this.#addFilter(readFilter(message))
      case RTM.delFilter: {
        const { parent, preference, handle } = readFilter(message)
        const before = this.filters.length
        this.remove(
          filter =>
            filter.ifIndex === ifIndex &&
            filter.parent === parent &&
            filter.preference === preference &&
            filter.handle === handle,
        )
        return this.filters.length < before ? undefined : 'ENOENT'
      }
      default:
        return 'EOPNOTSUPP'
    }
  }

  #addFilter(filter: Filter): ErrnoName | undefined {
    const { sample, ...place } = filter
    if (!this.qdiscs.has(filter.ifIndex)) return 'EINVAL'
    const isTaken = this.filters.some(
      other =>
        other.ifIndex === filter.ifIndex &&
        other.parent === filter.parent &&
        other.preference === filter.preference,
    )
    if (isTaken) return 'EEXIST'
    const inHardware = this.offload && (filter.flags & FILTER_FLAG.skipHw) === 0
    if (!inHardware && (filter.flags & FILTER_FLAG.skipSw) !== 0) return 'EOPNOTSUPP'
    const { control, rate, group, truncate, cookie } = sample!
    const action = {
      index: this.#freeIndex(),
      control,
      rate,
      group,
      truncate,
      cookie,
      packets: 0n,
      hardwarePackets: 0n,
    }
    const flags = filter.flags | (inHardware ? FILTER_FLAG.inHw : FILTER_FLAG.notInHw)
    const added = { ...place, flags, action }
    this.filters.push(added)
    this.#tell(filterMessage(RTM.newFilter, added))
    return undefined
  }

  /** The lowest that no action has. */
  #freeIndex(): number {
    const taken = new Set(this.filters.map(({ action }) => action?.index))
    let index = 1
    while (taken.has(index)) index++
    return index
  }

  #dump(message: Message): Message[] {
    if (message.type === RTM.getQdisc)
      return [...this.qdiscs].map(([ifIndex, kind]) => qdiscMessage(ifIndex, kind))
    if (message.type === RTM.getFilter) {
      const ifIndex = interfaceOfTc(message)
      const parent = message.view.getUint32(28, true)
      return this.filters
        .filter(filter => filter.ifIndex === ifIndex && filter.parent === parent)
        .map(filter => filterMessage(RTM.newFilter, filter))
    }
    return this.filters.flatMap(filter => (filter.action === undefined ? [] : [actionMessage(filter.action)]))
  }

  #tell(message: Message): void {
    setImmediate(() => this.#notify?.(message))
  }
}

function requestName(type: number): string {
  const name = Object.entries(RTM).find(([, number]) => number === type)
  return name === undefined ? `${type}` : name[0]
}

function received(bytes: Uint8Array): Message {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return { type: view.getUint16(4, true), flags: view.getUint16(6, true), view }
}

function tcHeader(ifIndex: number, handle: number, parent: number, info: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(20))
  view.setInt32(4, ifIndex, true)
  view.setUint32(8, handle, true)
  view.setUint32(12, parent, true)
  view.setUint32(16, info, true)
  return new Uint8Array(view.buffer)
}

function qdiscMessage(ifIndex: number, kind: string): Message {
  const header = tcHeader(ifIndex, INGRESS_HANDLE, 0xfffffff1, 1)
  return received(new MessageBuilder(RTM.newQdisc, 0, header).text(1, kind).build())
}

function filterMessage(
  type: number,
  { ifIndex, handle, parent, preference, kind, flags, action }: KernelFilter,
): Message {
  const header = tcHeader(ifIndex, handle, parent, ((preference << 16) | 0x0300) >>> 0)
  const builder = new MessageBuilder(type, 0, header).text(1, kind).u32(11, 0)
  if (action !== undefined) {
    builder.nest(2, options => options.nest(2, actions => addAction(actions, 1, action)).u32(3, flags))
  }
  return received(builder.build())
}

function actionMessage(action: Action): Message {
  const builder = new MessageBuilder(RTM.getAction, 0, new Uint8Array(4))
  return received(builder.nest(1, actions => addAction(actions, 0, action)).build())
}

function addAction(actions: MessageBuilder, order: number, action: Action): void {
  const parameters = new DataView(new ArrayBuffer(20))
  parameters.setUint32(0, action.index, true)
  parameters.setInt32(8, action.control, true)
  const basic = (packets: bigint) => {
    const view = new DataView(new ArrayBuffer(16))
    view.setBigUint64(0, packets * 100n, true)
    view.setUint32(8, Number(BigInt.asUintN(32, packets)), true)
    return new Uint8Array(view.buffer)
  }
  actions.nest(order, one =>
    one
      .text(1, 'sample')
      .nest(4, stats => {
        stats.bytes(1, basic(action.packets)).bytes(7, basic(action.hardwarePackets))
        if (action.packets >= 2n ** 32n) stats.u64(8, action.packets)
      })
      .nest(2, options =>
        options
          .bytes(2, new Uint8Array(parameters.buffer))
          .u32(3, action.rate)
          .u32(5, action.group)
          .u32(4, action.truncate),
      )
      .bytes(6, action.cookie),
  )
}
