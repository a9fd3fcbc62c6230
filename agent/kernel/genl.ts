import { type Family, getFamily, readFamily } from '../wire/netlink/genl-ctrl.ts'
import { NetlinkError, type NetlinkSocket } from './netlink-socket.ts'

/**
 * The family of this name, or undefined when there is none (ENOENT): its module is not loaded, or it is not shown
 * in the network namespace of the socket. `socket` is one of NETLINK_GENERIC.
 */
export async function resolveFamily(socket: NetlinkSocket, name: string): Promise<Family | undefined> {
  try {
    const reply = await socket.request(getFamily(name), `look up netlink family '${name}'`)
    return reply === undefined ? undefined : readFamily(reply)
  } catch (error) {
    if (error instanceof NetlinkError && error.code === 'ENOENT') return undefined
    throw error
  }
}
