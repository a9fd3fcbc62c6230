/**
 * Traffic control by rtnetlink: the hook of an interface (clsact), matchall filters with a sample action, and the
 * actions by themselves (include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls,tc_act/tc_sample}.h).
 *
 *     tcmsg   family u8 · pad u8 · pad u16 · ifindex i32 · handle u32 · parent u32 · info u32
 *     tcamsg  family u8 · pad u8 · pad u16
 *
 * `info` of a filter is its preference << 16 | the EtherType in network order.
 */
import { type Attributes, NetlinkFormatError, parseAttributes } from './attributes.ts'
import { FLAG, MESSAGE_HEADER, type Message, MessageBuilder } from './message.ts'
import { attributesAfter, RTM } from './rt.ts'

const TC_HEADER = 20
const ACTION_HEADER = 4

const TCA = { kind: 1, options: 2, chain: 11, ingressBlock: 13, egressBlock: 14 } as const
const MATCHALL = { actions: 2, flags: 3 } as const
const ACTION = { kind: 1, options: 2, stats: 4, cookie: 6 } as const
const SAMPLE = { parameters: 2, rate: 3, truncate: 4, group: 5 } as const
const STATS = { basic: 1, basicHardware: 7, packets64: 8 } as const
const BPF = { descriptor: 6, name: 7, flags: 8 } as const
/** The program's result is the verdict (TCA_BPF_FLAG_ACT_DIRECT). */
const BPF_DIRECT_ACTION = 1
const ROOT = { actions: 1, flags: 2 } as const
const LARGE_DUMP = 1
/** struct tc_gen: index u32, capab u32, action i32, refcnt i32, bindcnt i32. */
const PARAMETERS_BYTES = 20
/** struct gnet_stats_basic without its padding: bytes u64, packets u32. */
const BASIC_BYTES = 12

/** Handle of the ingress and clsact qdiscs; also the parent of filters on a plain ingress qdisc. */
export const INGRESS_HANDLE = 0xffff0000
const CLSACT_PARENT = 0xfffffff1
/** Parents of filters on clsact. */
export const CLSACT_INGRESS = 0xfffffff2
export const CLSACT_EGRESS = 0xfffffff3

/** EtherType of filters that take every packet. */
export const ETH_P_ALL = 0x0003
/** Control value of an action that leaves the packet to the next filter (TC_ACT_UNSPEC, "continue"). */
export const CONTINUE = -1

/** Flags of a matchall filter. The kernel adds the last two in what it reports. */
export const FILTER_FLAG = { skipHw: 1, skipSw: 2, inHw: 4, notInHw: 8 } as const

export interface Qdisc {
  readonly ifIndex: number
  readonly handle: number
  readonly parent: number
  readonly kind: string
  /** Number of the shared block that holds the filters, if the qdisc is attached to one. */
  readonly ingressBlock: number | undefined
  readonly egressBlock: number | undefined
}

export interface ActionStats {
  /** Packets since the action was made; of a large one its segments are counted. */
  readonly packets: bigint
  /** Octets of these packets: at ingress without the link header, at egress with it. */
  readonly bytes: bigint
  /** Hardware has counted some of them. A driver that samples in hardware need not count there. */
  readonly hasHardwarePart: boolean
}

/** What a sample action is told to do. */
export interface SampleParameters {
  /** 1 in N. */
  readonly rate: number
  /** PSAMPLE group. */
  readonly group: number
  /** Octets of each packet at most; 0 takes all. */
  readonly truncate: number
}

export interface SampleAction extends SampleParameters {
  /** Names the action among all sample actions of the namespace. */
  readonly index: number
  /** What becomes of the packet; CONTINUE, or one of the kernel's verdicts. */
  readonly control: number
  /** Copied; empty when it has none. */
  readonly cookie: Uint8Array
  readonly stats: ActionStats
}

export interface Filter {
  readonly ifIndex: number
  readonly parent: number
  readonly chain: number
  readonly preference: number
  /** EtherType in host order. */
  readonly protocol: number
  /** 0 for the entry that stands for all filters of one preference. */
  readonly handle: number
  readonly kind: string
  /** Bits of FILTER_FLAG, of a matchall filter. */
  readonly flags: number
  /** The action of a matchall filter whose only action is `sample`. */
  readonly sample: SampleAction | undefined
}

/** Where a filter is: enough to delete it and nothing else. */
export type FilterPlace = Pick<Filter, 'ifIndex' | 'parent' | 'preference' | 'protocol' | 'handle'>

/** Request to give the interface a clsact qdisc; EEXIST when it has that or the ingress one. */
export function addClsact(ifIndex: number): Uint8Array<ArrayBuffer> {
  return tcRequest(RTM.newQdisc, FLAG.create | FLAG.exclusive, ifIndex, INGRESS_HANDLE, CLSACT_PARENT, 0)
    .text(TCA.kind, 'clsact')
    .build()
}

/** Request to remove the clsact qdisc with every filter on it. */
export function deleteClsact(ifIndex: number): Uint8Array<ArrayBuffer> {
  return tcRequest(RTM.delQdisc, 0, ifIndex, INGRESS_HANDLE, CLSACT_PARENT, 0)
    .text(TCA.kind, 'clsact')
    .build()
}

/** Request for the qdiscs of all interfaces. */
export function dumpQdiscs(): Uint8Array<ArrayBuffer> {
  return tcRequest(RTM.getQdisc, FLAG.dump, 0, 0, 0, 0).build()
}

/** Request for the filters at one parent of one interface. */
export function dumpFilters(ifIndex: number, parent: number): Uint8Array<ArrayBuffer> {
  return tcRequest(RTM.getFilter, FLAG.dump, ifIndex, 0, parent, 0).build()
}

export interface NewSampler extends SampleParameters {
  readonly ifIndex: number
  readonly parent: number
  readonly preference: number
  readonly handle: number
  /** Bits skipHw and skipSw of FILTER_FLAG. */
  readonly flags: number
  /** At most 16 bytes. */
  readonly cookie: Uint8Array
}

/** Request for a matchall filter that samples and lets every packet go on to the next filter. */
export function addSampler(sampler: NewSampler): Uint8Array<ArrayBuffer> {
  const { ifIndex, parent, preference, handle } = sampler
  const info = filterInfo(preference, ETH_P_ALL)
  return tcRequest(RTM.newFilter, FLAG.create | FLAG.exclusive, ifIndex, handle, parent, info)
    .text(TCA.kind, 'matchall')
    .nest(TCA.options, options =>
      options
        .nest(MATCHALL.actions, actions => sampleAction(actions, 0, sampler, sampler.cookie))
        .u32(MATCHALL.flags, sampler.flags),
    )
    .build()
}

/** Request to delete one matchall filter. */
export function deleteSampler(place: FilterPlace): Uint8Array<ArrayBuffer> {
  return deleteFilter(place, 'matchall')
}

/** Request for a filter that is a loaded BPF program, by its descriptor; `name` is for those who list filters. */
export function addProgram(
  place: Omit<FilterPlace, 'protocol'>,
  descriptor: number,
  name: string,
): Uint8Array<ArrayBuffer> {
  const info = filterInfo(place.preference, ETH_P_ALL)
  return tcRequest(
    RTM.newFilter,
    FLAG.create | FLAG.exclusive,
    place.ifIndex,
    place.handle,
    place.parent,
    info,
  )
    .text(TCA.kind, 'bpf')
    .nest(TCA.options, options =>
      options.u32(BPF.descriptor, descriptor).text(BPF.name, name).u32(BPF.flags, BPF_DIRECT_ACTION),
    )
    .build()
}

/** Request to delete a filter that is a BPF program. */
export function deleteProgram(place: FilterPlace): Uint8Array<ArrayBuffer> {
  return deleteFilter(place, 'bpf')
}

function deleteFilter(place: FilterPlace, kind: string): Uint8Array<ArrayBuffer> {
  const info = filterInfo(place.preference, place.protocol)
  return tcRequest(RTM.delFilter, 0, place.ifIndex, place.handle, place.parent, info)
    .text(TCA.kind, kind)
    .build()
}

/**
 * Request to give the sample action `index` other parameters while it runs: no packet is missed, none is sampled
 * twice. The kernel wants CAP_NET_ADMIN in the initial user namespace (net/sched/act_api.c, tc_ctl_action).
 */
export function retuneSample(
  index: number,
  parameters: SampleParameters,
  cookie: Uint8Array,
): Uint8Array<ArrayBuffer> {
  return new MessageBuilder(RTM.newAction, FLAG.create | FLAG.replace, new Uint8Array(ACTION_HEADER))
    .nest(ROOT.actions, actions => sampleAction(actions, index, parameters, cookie))
    .build()
}

/** Request for all sample actions of the namespace; none when the kernel does not have the kind. */
export function dumpSampleActions(): Uint8Array<ArrayBuffer> {
  const largeDump = Uint8Array.of(LARGE_DUMP, 0, 0, 0, LARGE_DUMP, 0, 0, 0)
  return new MessageBuilder(RTM.getAction, FLAG.dump, new Uint8Array(ACTION_HEADER))
    .nest(ROOT.actions, actions => actions.nest(1, action => action.text(ACTION.kind, 'sample')))
    .bytes(ROOT.flags, largeDump)
    .build()
}

/**
 * Request that makes the kernel load act_sample, and psample with it: psample has no module alias of its own that a
 * look-up of the family could load. It asks for a sample action without saying which, so that the answer is always an
 * error: EINVAL when the kind is there, ENOENT when this kernel has none (net/sched/act_sample.c).
 */
export function loadSampleAction(): Uint8Array<ArrayBuffer> {
  return new MessageBuilder(RTM.newAction, FLAG.create | FLAG.exclusive, new Uint8Array(ACTION_HEADER))
    .nest(ROOT.actions, actions => actions.nest(1, action => action.text(ACTION.kind, 'sample')))
    .build()
}

/** Reads an RTM_NEWQDISC or RTM_DELQDISC. */
export function readQdisc(message: Message): Qdisc {
  const attributes = attributesAfter(message, TC_HEADER)
  const { view } = message
  return {
    ifIndex: view.getInt32(MESSAGE_HEADER + 4, true),
    handle: view.getUint32(MESSAGE_HEADER + 8, true),
    parent: view.getUint32(MESSAGE_HEADER + 12, true),
    kind: attributes.text(TCA.kind) ?? '',
    ingressBlock: attributes.u32(TCA.ingressBlock),
    egressBlock: attributes.u32(TCA.egressBlock),
  }
}

/** Reads an RTM_NEWTFILTER or RTM_DELTFILTER of any kind; of kinds other than matchall only the place. */
export function readFilter(message: Message): Filter {
  const attributes = attributesAfter(message, TC_HEADER)
  const { view } = message
  const info = view.getUint32(MESSAGE_HEADER + 16, true)
  const kind = attributes.text(TCA.kind) ?? ''
  const options = kind === 'matchall' ? attributes.nest(TCA.options) : undefined
  return {
    ifIndex: view.getInt32(MESSAGE_HEADER + 4, true),
    handle: view.getUint32(MESSAGE_HEADER + 8, true),
    parent: view.getUint32(MESSAGE_HEADER + 12, true),
    preference: info >>> 16,
    protocol: swap16(info & 0xffff),
    chain: attributes.u32(TCA.chain) ?? 0,
    kind,
    flags: options?.u32(MATCHALL.flags) ?? 0,
    sample: onlySample(options?.nest(MATCHALL.actions)),
  }
}

/** The interface that a message about a qdisc or a filter is for. */
export function interfaceOfTc(message: Message): number {
  if (message.view.byteLength < MESSAGE_HEADER + TC_HEADER) {
    throw new NetlinkFormatError('wrong-size', 0, `message ${message.type} shorter than its header`)
  }
  return message.view.getInt32(MESSAGE_HEADER + 4, true)
}

/** Reads the sample actions in a message about actions (dumped, or RTM_NEWACTION and RTM_DELACTION). */
export function readSampleActions(message: Message): SampleAction[] {
  const table = attributesAfter(message, ACTION_HEADER).nest(ROOT.actions)
  if (table === undefined) return []
  return listNests(table).flatMap(action => readSampleAction(action) ?? [])
}

function onlySample(actions: Attributes | undefined): SampleAction | undefined {
  if (actions === undefined || actions.list.length !== 1) return undefined
  return readSampleAction(listNests(actions)[0]!)
}

function readSampleAction(action: Attributes): SampleAction | undefined {
  const options = action.text(ACTION.kind) === 'sample' ? action.nest(ACTION.options) : undefined
  const parameters = options?.bytes(SAMPLE.parameters)
  if (options === undefined || parameters === undefined) return undefined
  const fields = sized(options.view, parameters, PARAMETERS_BYTES, 'parameters of the sample action')
  return {
    index: fields.getUint32(0, true),
    control: fields.getInt32(8, true),
    rate: options.u32(SAMPLE.rate) ?? 0,
    group: options.u32(SAMPLE.group) ?? 0,
    truncate: options.u32(SAMPLE.truncate) ?? 0,
    cookie: action.bytes(ACTION.cookie)?.slice() ?? new Uint8Array(0),
    stats: readActionStats(action.nest(ACTION.stats)),
  }
}

/**
 * The basic statistics count software and hardware together, those of the hardware follow (Linux 4.20). Their packets are 32 bits; the whole number follows
 * only when it does not fit (net/core/gen_stats.c), once more for the part of the hardware.
 */
function readActionStats(stats: Attributes | undefined): ActionStats {
  const basic = stats?.bytes(STATS.basic)
  if (stats === undefined || basic === undefined) return { packets: 0n, bytes: 0n, hasHardwarePart: false }
  const fields = sized(stats.view, basic, BASIC_BYTES, 'basic statistics')
  const ofHardware = stats.bytes(STATS.basicHardware)
  const whole = stats.all(STATS.packets64)[0]
  const packets =
    whole !== undefined && whole.end - whole.start === 8
      ? stats.view.getBigUint64(whole.start, true)
      : BigInt(fields.getUint32(8, true))
  const hasHardwarePart = ofHardware?.some(byte => byte !== 0) ?? false
  return { packets, bytes: fields.getBigUint64(0, true), hasHardwarePart }
}

/** A view of a payload of at least `size` bytes. */
function sized(view: DataView, bytes: Uint8Array, size: number, what: string): DataView {
  if (bytes.length < size) {
    const at = bytes.byteOffset - view.byteOffset - 4
    throw new NetlinkFormatError('wrong-size', at, `${what} have ${bytes.length} bytes instead of ${size}`)
  }
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

function listNests(attributes: Attributes): Attributes[] {
  return attributes.list.map(({ start, end }) => parseAttributes(attributes.view, start, end))
}

/** Adds the one action of a list: `sample` with these parameters, under `index` (0 lets the kernel choose). */
function sampleAction(
  actions: MessageBuilder,
  index: number,
  { rate, group, truncate }: SampleParameters,
  cookie: Uint8Array,
): void {
  const parameters = new DataView(new ArrayBuffer(PARAMETERS_BYTES))
  parameters.setUint32(0, index, true)
  parameters.setInt32(8, CONTINUE, true)
  actions.nest(1, action =>
    action
      .text(ACTION.kind, 'sample')
      .nest(ACTION.options, options => {
        options.bytes(SAMPLE.parameters, new Uint8Array(parameters.buffer))
        options.u32(SAMPLE.rate, rate).u32(SAMPLE.group, group)
        if (truncate > 0) options.u32(SAMPLE.truncate, truncate)
      })
      .bytes(ACTION.cookie, cookie),
  )
}

function tcRequest(
  type: number,
  flags: number,
  ifIndex: number,
  handle: number,
  parent: number,
  info: number,
): MessageBuilder {
  const header = new DataView(new ArrayBuffer(TC_HEADER))
  header.setInt32(4, ifIndex, true)
  header.setUint32(8, handle, true)
  header.setUint32(12, parent, true)
  header.setUint32(16, info, true)
  return new MessageBuilder(type, flags, new Uint8Array(header.buffer))
}

function filterInfo(preference: number, protocol: number): number {
  if (preference < 1 || preference > 0xffff)
    throw new RangeError(`${preference} is not a preference (1 to 65535)`)
  return ((preference << 16) | swap16(protocol)) >>> 0
}

function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8)
}
