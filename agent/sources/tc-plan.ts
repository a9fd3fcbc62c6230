/**
 * What to do at one hook of one interface so that exactly one sampler of ours is there, as wanted: decided from the
 * filters that are there, without I/O. Also the cookie by which a sampler is known to be ours.
 */
import {
  CONTINUE,
  ETH_P_ALL,
  FILTER_FLAG,
  type Filter,
  type SampleAction,
  type SampleParameters,
} from '../wire/netlink/tc.ts'
import type { Direction } from './psample-samples.ts'

/**
 *     magic "weir" · version u8 · direction u8 (0 ingress, 1 egress) · owns the clsact u8 · 0 u8 · instance u32 · ifIndex u32
 *
 * Numbers are little endian. 16 bytes are the most that the kernel takes.
 */
const COOKIE_BYTES = 16
const MAGIC = 0x7269_6577
const VERSION = 1

export interface Cookie {
  /** Tells the samplers of several agents in one namespace apart. */
  readonly instance: number
  readonly ifIndex: number
  readonly direction: Direction
  /** The clsact was made for the sampler: who takes away the one may take away the other, also after a crash. */
  readonly ownsHook?: boolean
}

export function makeCookie({ instance, ifIndex, direction, ownsHook }: Cookie): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(COOKIE_BYTES))
  bytes.setUint32(0, MAGIC, true)
  bytes.setUint8(4, VERSION)
  bytes.setUint8(5, direction === 'ingress' ? 0 : 1)
  bytes.setUint8(6, ownsHook ? 1 : 0)
  bytes.setUint32(8, instance, true)
  bytes.setUint32(12, ifIndex, true)
  return new Uint8Array(bytes.buffer)
}

/**
 * The number under which samplerKey() knows the sampler whose cookie is at `offset`; -1 when it is not one of this
 * instance. Allocates nothing: it is asked for each sample.
 */
export function keyOfCookie(view: DataView, offset: number, length: number, instance: number): number {
  if (length !== COOKIE_BYTES || view.getUint32(offset, true) !== MAGIC) return -1
  if (view.getUint8(offset + 4) !== VERSION || view.getUint32(offset + 8, true) !== instance) return -1
  const direction = view.getUint8(offset + 5)
  return direction > 1 ? -1 : view.getUint32(offset + 12, true) * 2 + direction
}

/** Whether the clsact was made for the sampler, which is one of ours. */
export function ownsHook(filter: Filter): boolean {
  return filter.sample?.cookie[6] === 1
}

/** One number for an interface and a direction. */
export function samplerKey(ifIndex: number, direction: Direction): number {
  return ifIndex * 2 + (direction === 'ingress' ? 0 : 1)
}

/** The key of the sampler that the action belongs to; -1 when it is not one of this instance. */
export function keyOfAction(action: SampleAction, instance: number): number {
  const { buffer, byteOffset, length } = action.cookie
  return keyOfCookie(new DataView(buffer, byteOffset, length), 0, length, instance)
}

export interface Target extends SampleParameters {
  /** samplerKey() of the sampler. */
  readonly key: number
  /** Bits skipHw and skipSw of FILTER_FLAG. */
  readonly flags: number
}

export interface Plan {
  /** Samplers of ours to delete first. */
  readonly remove: readonly Filter[]
  /** The sampler that stays; undefined when there is none or it has to be made anew. */
  readonly keep: Filter | undefined
  /** The one that stays gets other parameters. */
  readonly retune: boolean
  /** Preference of the sampler to add; undefined when one stays or none is wanted. */
  readonly addAt: number | undefined
  /** A filter that runs before the sampler and may hide packets from it. */
  readonly behind: Filter | undefined
}

/** matchall has one filter at each preference; any handle will do. */
export const SAMPLER_HANDLE = 1

/**
 * Where a sampler goes when nothing is in its way. Low, because others choose their preferences by hand mostly above
 * it; not 1, because the kernel gives those who do not choose one below the lowest there is, down to 1.
 */
const PREFERENCE = 10

/**
 * Plans one hook. `filters` are all filters there, `target` what is wanted (undefined: nothing). A sampler stands
 * before the filters of others, since one that ends the classification hides the packet from those behind it;
 * nothing stands before preference 1. Samplers of others that let every packet go on may stand anywhere.
 *
 * Parameters change in place if `canRetune`. Not in hardware: drivers take the parameters of a matchall filter when
 * it is added and are not told of a change to its action (net/sched/act_api.c).
 */
export function planSampler(
  filters: readonly Filter[],
  target: Target | undefined,
  instance: number,
  canRetune: boolean,
): Plan {
  const ours = filters.filter(filter => samplerKeyOf(filter, instance) >= 0)
  if (target === undefined) {
    return { remove: ours, keep: undefined, retune: false, addAt: undefined, behind: undefined }
  }
  const inChain = filters.filter(filter => filter.chain === 0)
  const described = new Set(inChain.filter(filter => filter.handle !== 0).map(filter => filter.preference))
  const others = inChain
    .filter(filter => !ours.includes(filter))
    // An entry without handle only stands for the filters of its preference.
    .filter(filter => filter.handle !== 0 || !described.has(filter.preference))
    .sort((a, b) => a.preference - b.preference)
  const first = others.find(filter => filter.sample?.control !== CONTINUE)
  const addAt = freePreference(others, first)

  const found = ours.find(filter => samplerKeyOf(filter, instance) === target.key && hasShape(filter, target))
  const stands =
    found !== undefined &&
    (first === undefined || found.preference < first.preference || addAt > first.preference)
  const isSame = found !== undefined && hasParameters(found.sample!, target)
  const inHardware = found !== undefined && (found.flags & FILTER_FLAG.inHw) !== 0
  if (found === undefined || !stands || !(isSame || (canRetune && !inHardware))) {
    return { remove: ours, keep: undefined, retune: false, addAt, behind: blocker(first, addAt) }
  }
  return {
    remove: ours.filter(filter => filter !== found),
    keep: found,
    retune: !isSame,
    addAt: undefined,
    behind: blocker(first, found.preference),
  }
}

/** The key of the sampler that this filter is; -1 when it is not one of this instance. */
export function samplerKeyOf(filter: Filter, instance: number): number {
  return filter.sample === undefined || filter.handle === 0 ? -1 : keyOfAction(filter.sample, instance)
}

/** True when the action does what is asked. */
export function hasParameters(action: SampleAction, { rate, group, truncate }: SampleParameters): boolean {
  return action.rate === rate && action.group === group && action.truncate === truncate
}

/** What cannot be changed in place. */
function hasShape(filter: Filter, target: Target): boolean {
  const flags = filter.flags & (FILTER_FLAG.skipHw | FILTER_FLAG.skipSw)
  return (
    filter.chain === 0 &&
    filter.protocol === ETH_P_ALL &&
    filter.sample!.control === CONTINUE &&
    flags === target.flags
  )
}

/**
 * The highest preference that nobody has, before the filter `first` and not above PREFERENCE; if there is none, the
 * lowest behind it.
 */
function freePreference(others: readonly Filter[], first: Filter | undefined): number {
  const taken = new Set(others.map(filter => filter.preference))
  const end = Math.min(first?.preference ?? Number.POSITIVE_INFINITY, PREFERENCE + 1)
  for (let preference = end - 1; preference > 0; preference--) if (!taken.has(preference)) return preference
  let preference = end
  while (taken.has(preference)) preference++
  return preference
}

function blocker(first: Filter | undefined, preference: number): Filter | undefined {
  return first !== undefined && first.preference < preference ? first : undefined
}
