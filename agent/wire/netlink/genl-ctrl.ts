/**
 * `nlctrl`, the family of generic netlink that knows the others: their ids and multicast groups
 * (include/uapi/linux/genetlink.h). Ids and group numbers change with every boot and every reload of a module.
 */
import { NetlinkFormatError, parseAttributes } from './attributes.ts'
import { GENL_HEADER, genlCommand, genlRequest, MESSAGE_HEADER, type Message } from './message.ts'

/** The only family with a fixed id, and its group that tells of families that come and go. */
export const NLCTRL_ID = 16
export const NLCTRL_GROUP_NOTIFY = 16

const VERSION = 2
const COMMAND = { newFamily: 1, delFamily: 2, getFamily: 3 } as const
const ATTRIBUTE = { id: 1, name: 2, version: 3, groups: 7 } as const
const GROUP = { name: 1, id: 2 } as const

/** A generic netlink family of the running kernel. */
export interface GenlFamily {
  /** Type of its messages. */
  readonly id: number
  readonly name: string
  readonly version: number
  /** Number of each multicast group by its name. */
  readonly groups: ReadonlyMap<string, number>
}

/** What a notification of nlctrl says; undefined for those about groups alone. */
export interface FamilyChange {
  readonly kind: 'added' | 'removed'
  readonly family: GenlFamily
}

/** What is needed of agent/kernel/netlink-socket.ts. */
interface Requester {
  request(message: Uint8Array, operation?: string): Promise<Message | undefined>
}

/**
 * The family of this name, or undefined when the kernel has none (ENOENT): its module is not loaded, or it does not
 * exist in the network namespace of the socket.
 */
export async function resolveFamily(socket: Requester, name: string): Promise<GenlFamily | undefined> {
  const request = genlRequest(NLCTRL_ID, COMMAND.getFamily, VERSION).text(ATTRIBUTE.name, name).build()
  try {
    const reply = await socket.request(request, `look up netlink family '${name}'`)
    if (reply === undefined) throw new NetlinkFormatError('missing', 0, `no answer about family '${name}'`)
    return readFamily(reply)
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return undefined
    throw error
  }
}

/** Reads a NEWFAMILY message. */
export function readFamily(message: Message): GenlFamily {
  const { view } = message
  const attributes = parseAttributes(view, MESSAGE_HEADER + GENL_HEADER, view.byteLength)
  const id = attributes.u16(ATTRIBUTE.id)
  const name = attributes.text(ATTRIBUTE.name)
  if (id === undefined || name === undefined) {
    throw new NetlinkFormatError('missing', 0, 'family without id or name')
  }
  const groups = new Map<string, number>()
  for (const { start, end } of attributes.nest(ATTRIBUTE.groups)?.list ?? []) {
    const group = parseAttributes(view, start, end)
    const groupName = group.text(GROUP.name)
    const groupId = group.u32(GROUP.id)
    if (groupName === undefined || groupId === undefined) {
      throw new NetlinkFormatError('missing', start, `group of family '${name}' without id or name`)
    }
    groups.set(groupName, groupId)
  }
  return { id, name, version: attributes.u32(ATTRIBUTE.version) ?? 0, groups }
}

/** Reads a notification of group NLCTRL_GROUP_NOTIFY. */
export function readFamilyChange(message: Message): FamilyChange | undefined {
  if (message.view.byteLength < MESSAGE_HEADER + GENL_HEADER) {
    throw new NetlinkFormatError('wrong-size', 0, 'generic netlink message without its header')
  }
  const command = genlCommand(message.view, 0)
  if (command === COMMAND.newFamily) return { kind: 'added', family: readFamily(message) }
  if (command === COMMAND.delFamily) return { kind: 'removed', family: readFamily(message) }
  return undefined
}
