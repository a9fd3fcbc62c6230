import { RTNLGRP } from '../wire/netlink/rt.ts'
import { NETLINK_ROUTE, NetlinkSocket } from './netlink-socket.ts'

/** A burst of notifications is told of when it has lasted for so long, */
const SETTLE_MS = 50
/** and then nothing is listened to: routes of a full table come by the hundred thousand. For so long first, */
const PAUSE_MS = 1000
/** and twice as long each time up to this, until it has been quiet for that time. */
const PAUSE_MOST_MS = 60_000

export interface NetworkChanges {
  /** May be called twice. */
  close(): void
}

/**
 * Calls `onChange` when links, addresses or routes of a network namespace have changed, until it is closed:
 * soon after the change, and after a pause in which there may have been others. Where changes do not end the pauses grow
 * from 1 s to 60 s; after a minute without one they are short again. `namespace` is a name or a path, undefined for our
 * own; throws SystemError when it is not there.
 */
export function followNetwork(namespace: string | undefined, onChange: () => void): NetworkChanges {
  let socket: NetlinkSocket | undefined
  let timer: NodeJS.Timeout | undefined
  let isClosed = false
  let pauseMs = PAUSE_MS
  let listeningSinceMs = Number.NEGATIVE_INFINITY
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
    clearTimeout(timer)
    timer = setTimeout(action, ms).unref()
  }
  const changed = () => {
    socket?.close()
    socket = undefined
    const isQuiet = performance.now() - listeningSinceMs > PAUSE_MOST_MS
    pauseMs = isQuiet ? PAUSE_MS : Math.min(pauseMs * 2, PAUSE_MOST_MS)
    after(SETTLE_MS, () => {
      onChange()
      if (!isClosed) after(pauseMs, listenAgain)
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
    listeningSinceMs = performance.now()
    // What has changed in the pause; once, if it still changes.
    after(SETTLE_MS, onChange)
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
