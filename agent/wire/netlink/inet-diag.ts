/**
 * Sockets by their addresses (NETLINK_SOCK_DIAG, include/uapi/linux/inet_diag.h and tcp.h). Both directions work in
 * place: there may be a question for each packet sample.
 *
 *     inet_diag_req_v2  family u8 · protocol u8 · extensions u8 · pad · states u32 · inet_diag_sockid
 *     inet_diag_sockid  source port · destination port (network order) · source · destination (16 bytes each) ·
 *                       interface u32 · cookie 2 × u32
 *     inet_diag_msg     family · state · timer · retransmits · inet_diag_sockid · expires, two queues, uid, inode (u32)
 */

import { ATTRIBUTE_HEADER, align4, attributeLength, attributeType } from './attributes.ts'
import { FLAG, MESSAGE_HEADER, MESSAGE_TYPE, messageSequence, messageType } from './message.ts'

const SOCK_DIAG_BY_FAMILY = 20
const AF_INET = 2
const AF_INET6 = 10
const IPPROTO_TCP = 6
const TCP_LISTEN = 10
const INET_DIAG_INFO = 2
const REQUEST_BYTES = 56
const ANSWER_BYTES = 72
const ALL_STATES = 0xffff_ffff
const NO_COOKIE = 0xffff_ffff

/** Bytes of one question, its netlink header included. */
export const LOOKUP_BYTES = MESSAGE_HEADER + REQUEST_BYTES

/** A connection as this host sees it. Addresses are `addressBytes` bytes of `bytes`, in network order. */
export interface Connection {
  bytes: Uint8Array
  addressBytes: 4 | 16
  localAt: number
  remoteAt: number
  localPort: number
  remotePort: number
  /** ifIndex that the socket is bound to, if it is to one: a VRF, or the link of a link-local address; else 0. */
  boundTo: number
}

/** Writes a question of LOOKUP_BYTES bytes at byte `at`. The answer bears its sequence number. */
export function writeLookup(view: DataView, at: number, sequence: number, connection: Connection): void {
  const { bytes, addressBytes, localAt, remoteAt, localPort, remotePort, boundTo } = connection
  for (let i = 0; i < LOOKUP_BYTES; i += 4) view.setUint32(at + i, 0)
  view.setUint32(at, LOOKUP_BYTES, true)
  view.setUint16(at + 4, SOCK_DIAG_BY_FAMILY, true)
  view.setUint16(at + 6, FLAG.request, true)
  view.setUint32(at + 8, sequence, true)
  const request = at + MESSAGE_HEADER
  view.setUint8(request, addressBytes === 4 ? AF_INET : AF_INET6)
  view.setUint8(request + 1, IPPROTO_TCP)
  view.setUint8(request + 2, 1 << (INET_DIAG_INFO - 1))
  view.setUint32(request + 4, ALL_STATES, true)
  view.setUint16(request + 8, localPort)
  view.setUint16(request + 10, remotePort)
  for (let i = 0; i < addressBytes; i++) {
    view.setUint8(request + 12 + i, bytes[localAt + i]!)
    view.setUint8(request + 28 + i, bytes[remoteAt + i]!)
  }
  view.setUint32(request + 44, boundTo, true)
  view.setUint32(request + 48, NO_COOKIE, true)
  view.setUint32(request + 52, NO_COOKIE, true)
}

/** A hash of what the question at byte `at` asks for. */
export function hashLookup(view: DataView, at: number): number {
  let hash = 0
  for (let i = SUBJECT; i < SUBJECT_END; i += 4) {
    hash = Math.imul(hash ^ view.getUint32(at + i, true), 0x9e3779b1)
    hash ^= hash >>> 15
  }
  return hash >>> 0
}

/** True when the questions at bytes `a` and `b` ask for the same. */
export function isSameLookup(view: DataView, a: number, b: number): boolean {
  for (let i = SUBJECT; i < SUBJECT_END; i += 4) {
    if (view.getUint32(a + i, true) !== view.getUint32(b + i, true)) return false
  }
  return true
}

/** From the family to the interface: all but the sequence and the cookie. */
const SUBJECT = MESSAGE_HEADER
const SUBJECT_END = MESSAGE_HEADER + 48

/** What the kernel knows of a connection; the fields of extended_tcp_info, times in microseconds. */
export interface TcpState {
  sndMss: number
  rcvMss: number
  unacked: number
  lost: number
  /** Of the whole connection. */
  retransmits: number
  pathMtu: number
  rtt: number
  rttVariance: number
  congestionWindow: number
  reordering: number
  leastRtt: number
}

/** Offsets in struct tcp_info; what an older kernel has not is 0. */
const TCP_INFO = {
  sndMss: 16,
  rcvMss: 20,
  unacked: 24,
  lost: 32,
  pathMtu: 60,
  rtt: 68,
  rttVariance: 72,
  congestionWindow: 80,
  reordering: 88,
  retransmits: 100,
  leastRtt: 148,
} as const

export function emptyTcpState(): TcpState {
  return {
    sndMss: 0,
    rcvMss: 0,
    unacked: 0,
    lost: 0,
    retransmits: 0,
    pathMtu: 0,
    rtt: 0,
    rttVariance: 0,
    congestionWindow: 0,
    reordering: 0,
    leastRtt: 0,
  }
}

/** The sequence number of the question that the message at byte `at` answers. */
export const lookupSequence = messageSequence

/**
 * Reads the answer in bytes `at` to `end`, whose length has been checked, into `state`. False when there is no such
 * socket, or one that is no connection.
 */
export function readTcpState(view: DataView, at: number, end: number, state: TcpState): boolean {
  if (messageType(view, at) === MESSAGE_TYPE.error || end - at < MESSAGE_HEADER + ANSWER_BYTES) return false
  // The first packet of a connection finds the socket that listens, whose figures mean other things.
  if (view.getUint8(at + MESSAGE_HEADER + 1) === TCP_LISTEN) return false
  for (let next = at + MESSAGE_HEADER + ANSWER_BYTES, length = 0; next < end; next += align4(length)) {
    length = attributeLength(view, next, end)
    if (attributeType(view, next) !== INET_DIAG_INFO) continue
    const info = next + ATTRIBUTE_HEADER
    const infoEnd = next + length
    state.sndMss = field(view, info + TCP_INFO.sndMss, infoEnd)
    state.rcvMss = field(view, info + TCP_INFO.rcvMss, infoEnd)
    state.unacked = field(view, info + TCP_INFO.unacked, infoEnd)
    state.lost = field(view, info + TCP_INFO.lost, infoEnd)
    state.retransmits = field(view, info + TCP_INFO.retransmits, infoEnd)
    state.pathMtu = field(view, info + TCP_INFO.pathMtu, infoEnd)
    state.rtt = field(view, info + TCP_INFO.rtt, infoEnd)
    state.rttVariance = field(view, info + TCP_INFO.rttVariance, infoEnd)
    state.congestionWindow = field(view, info + TCP_INFO.congestionWindow, infoEnd)
    state.reordering = field(view, info + TCP_INFO.reordering, infoEnd)
    state.leastRtt = field(view, info + TCP_INFO.leastRtt, infoEnd)
    return true
  }
  return false
}

function field(view: DataView, at: number, end: number): number {
  return at + 4 <= end ? view.getUint32(at, true) : 0
}

export function copyTcpState(from: TcpState, to: TcpState): void {
  to.sndMss = from.sndMss
  to.rcvMss = from.rcvMss
  to.unacked = from.unacked
  to.lost = from.lost
  to.retransmits = from.retransmits
  to.pathMtu = from.pathMtu
  to.rtt = from.rtt
  to.rttVariance = from.rttVariance
  to.congestionWindow = from.congestionWindow
  to.reordering = from.reordering
  to.leastRtt = from.leastRtt
}
