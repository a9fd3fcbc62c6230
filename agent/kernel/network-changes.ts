import { RTNLGRP } from '../wire/netlink/rt.ts'
import { NETLINK_ROUTE, NetlinkSocket } from './netlink-socket.ts'

/** A burst of notifications is told of when it has lasted for so long, */
const SETTLE_MS = 50
/** and for so long again nothing is listened to: routes of a full table come by the hundred thousand. */
const PAUSE_MS = 1000

export interface NetworkChanges {
  /** May be called twice. */
  close(): void
}

/**
 * Calls `onChange` when links, addresses or routes of a network namespace have changed, soon after the change and at most
 * twice a second, until it is closed. `namespace` is a name or a path, undefined for our own; throws SystemError when it
 * is not there.
 */
export function followNetwork(namespace: string | undefined, onChange: () => void): NetworkChanges {
  let socket: NetlinkSocket | undefined
  let timer: NodeJS.Timeout | undefined
  let isClosed = false
  const listen = () => {
    socket = NetlinkSocket.open(NETLINK_ROUTE, {
      namespace,
      groups: Object.values(WATCHED),
      // The first one says enough, and one that was lost says the same.
      slots: 1,
      batches: 1,
      onNotification: changed,
      onOverrun: changed,
    })
  }
  const after = (ms: number, action: () => void) => {
    timer = setTimeout(action, ms).unref()
  }
  const changed = () => {
    socket?.close()
    socket = undefined
    after(SETTLE_MS, () => {
      onChange()
      if (!isClosed) after(PAUSE_MS, listenAgain)
    })
  }
  const listenAgain = () => {
    try {
      listen()
    } catch {
      // The namespace is gone, and may come again.
      after(PAUSE_MS, listenAgain)
      return
    }
    // What has changed in the pause.
    onChange()
  }
  listen()
  return {
    close: () => {
      isClosed = true
      clearTimeout(timer)
      socket?.close()
    },
  }
}

const { link, ipv4Address, ipv6Address, ipv4Route, ipv6Route } = RTNLGRP
const WATCHED = { link, ipv4Address, ipv6Address, ipv4Route, ipv6Route }
