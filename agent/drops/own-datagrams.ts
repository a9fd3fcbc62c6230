import { type Logger, RateLimitedLog } from '../health/log.ts'
import type { Drop } from '../samples/drop.ts'
import { byteAt, ipOffset } from './packet-bytes.ts'

/**
 * The agent's own datagrams among what is dropped. Where a collector does not answer, each of them ends as a drop; were
 * that reported, it would make another datagram.
 */

/** What tells the datagrams of one socket from other packets. */
export interface OwnSocket {
  /** The kernel's number of the socket (SO_COOKIE), 8 bytes as it has them; no other one ever gets it. */
  readonly cookie: Uint8Array
  /** Addresses and ports of source and destination, as they are in a packet: 12 bytes of IPv4, 36 of IPv6. */
  readonly ends: Uint8Array
  /** Called when it is closed. */
  onClose: (() => void) | undefined
}

/** Leaves out by itself what the sockets send; a BPF program does. */
export interface OwnFilter {
  addOwn(socket: OwnSocket): void
  removeOwn(socket: OwnSocket): void
}

/** A datagram may wait for a neighbour, for three seconds by default, and be dropped when its socket is closed. */
const WAITING_MS = 5000
const IPPROTO_UDP = 17
/** Version 4, no options. */
const PLAIN_IPV4 = 0x45
const IPV4_ENDS = { offset: 12, bytes: 12 } as const
const IPV6_ENDS = { offset: 8, bytes: 36 } as const

export class OwnDatagrams {
  #sockets: readonly OwnSocket[] = []
  #filter: OwnFilter | undefined
  readonly #log: Logger
  readonly #limited = new RateLimitedLog()

  constructor(log: Logger) {
    this.#log = log.child({ part: 'dropmon' })
  }

  /** Knows the datagrams of this socket, until five seconds after it is closed; gives the socket. */
  readonly watch = <Socket extends OwnSocket>(socket: Socket): Socket => {
    this.#sockets = [...this.#sockets, socket]
    this.#tell('addOwn', socket)
    socket.onClose = () => void setTimeout(() => this.#forget(socket), WAITING_MS).unref()
    return socket
  }

  #forget(socket: OwnSocket): void {
    this.#sockets = this.#sockets.filter(one => one !== socket)
    this.#tell('removeOwn', socket)
  }

  /** What the filter does not take is left out here all the same. */
  #tell(what: keyof OwnFilter, socket: OwnSocket): void {
    try {
      this.#filter?.[what](socket)
    } catch (error) {
      const line = `own datagrams are left out behind the kernel, not in it: ${(error as Error).message}`
      this.#limited.line(line, held => this.#log.warn({ held }, line))
    }
  }

  /** Tells `filter` of the sockets that there are, and of each that comes or goes; undefined: nobody any more. */
  tell(filter: OwnFilter | undefined): void {
    this.#filter = filter
    for (const socket of this.#sockets) this.#tell('addOwn', socket)
  }

  /** Whether the packet is a datagram of one of the sockets, by its addresses and ports. Allocates nothing. */
  readonly has = (drop: Drop): boolean => {
    const at = ipOffset(drop)
    const first = byteAt(drop, at)
    const isIp4 = first === PLAIN_IPV4
    if (at < 0 || byteAt(drop, at + (isIp4 ? 9 : 6)) !== IPPROTO_UDP || (!isIp4 && first >> 4 !== 6))
      return false
    const { offset, bytes } = isIp4 ? IPV4_ENDS : IPV6_ENDS
    const sockets = this.#sockets
    for (let i = 0; i < sockets.length; i++) {
      const { ends } = sockets[i]!
      if (ends.length === bytes && isAt(drop, at + offset, ends)) return true
    }
    return false
  }
}

/** From the end, for ports differ more than addresses. */
function isAt(drop: Drop, at: number, bytes: Uint8Array): boolean {
  let i = bytes.length - 1
  while (i >= 0 && byteAt(drop, at + i) === bytes[i]) i--
  return i < 0
}
