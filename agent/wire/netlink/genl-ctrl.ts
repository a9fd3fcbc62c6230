/**
 * `nlctrl`, the family of generic netlink that knows the others: their ids and multicast groups
 * (include/uapi/linux/genetlink.h). Ids and group numbers change with every boot and every reload of a module.
 */
import { NetlinkFormatError, parseAttributes } from './attributes.ts'
import { GENL_HEADER, genlCommand, genlRequest, MESSAGE_HEADER, type Message } from './message.ts'

/** Type of nlctrl's messages: the only family with a fixed id. */
export const NLCTRL_ID = 16
/** Number of its group `notify`, which tells of families that come and go. */
export const GENL_GROUP_NOTIFY = 16

const VERSION = 2
const COMMAND = { newFamily: 1, delFamily: 2, getFamily: 3 } as const
const ATTRIBUTE = { id: 1, name: 2, version: 3, groups: 7 } as const
const GROUP = { name: 1, id: 2 } as const

/** A generic netlink family of the running kernel. */
export interface Family {
  /** Type of its messages. */
  readonly id: number
  readonly name: string
  readonly version: number
  /** Number of each multicast group by its name. */
  readonly groups: ReadonlyMap<string, number>
}

/** A family that has come, or gone. */
export interface FamilyNotification {
  readonly gone: boolean
  readonly family: Family
}

/** Asks for the family of this name. */
export function getFamily(name: string): Uint8Array {
  return genlRequest(NLCTRL_ID, COMMAND.getFamily, VERSION).text(ATTRIBUTE.name, name).build()
}

/** Reads a NEWFAMILY message. */
export function readFamily(message: Message): Family {
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

/** Reads a notification of group GENL_GROUP_NOTIFY; undefined for one about a group of a family alone. */
export function readFamilyNotification(message: Message): FamilyNotification | undefined {
  if (message.view.byteLength < MESSAGE_HEADER + GENL_HEADER) {
    throw new NetlinkFormatError('wrong-size', 0, 'generic netlink message without its header')
  }
  const command = genlCommand(message.view, 0)
  if (command !== COMMAND.newFamily && command !== COMMAND.delFamily) return undefined
  return { gone: command === COMMAND.delFamily, family: readFamily(message) }
}
