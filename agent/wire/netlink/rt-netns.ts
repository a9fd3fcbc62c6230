/**
 * Ids of network namespaces by rtnetlink (include/uapi/linux/net_namespace.h). An id stands for another namespace as
 * this one sees it; IFLA_LINK_NETNSID tells by it where the other end of a link is.
 */
import { type Message, MessageBuilder } from './message.ts'
import { attributesAfter, RTM } from './rt.ts'

const NETNSA = { nsid: 1, pid: 2 } as const
/** struct rtgenmsg is one byte, and padding. */
const HEADER_BYTES = 4

/** Request for the id of the namespace that a process is in, by its pid as we see it. */
export function getNamespaceId(pid: number): Uint8Array<ArrayBuffer> {
  return new MessageBuilder(RTM.getNsid, 0, new Uint8Array(HEADER_BYTES)).u32(NETNSA.pid, pid).build()
}

/** Reads the answer; undefined when the namespace has no id here, so that no link leads to it. */
export function readNamespaceId(message: Message): number | undefined {
  const id = attributesAfter(message, HEADER_BYTES).u32(NETNSA.nsid)
  return id === undefined || id === 0xffff_ffff ? undefined : id
}
