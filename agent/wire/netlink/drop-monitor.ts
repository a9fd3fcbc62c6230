/**
 * The drop monitor (family NET_DM, include/uapi/linux/net_dropmon.h, net/core/drop_monitor.c): packet alerts, read in
 * place into a record that the caller owns and reuses, and the requests that configure, start and stop it. All
 * integers are in host order. Attribute 0 is a real attribute in the nests.
 */

import { NetlinkFormatError, parseAttributes } from './attributes.ts'
import { GENL_HEADER, genlRequest, MESSAGE_HEADER, type Message } from './message.ts'

/** Generic netlink family and its one multicast group. */
export const NET_DM_FAMILY = 'NET_DM'
export const NET_DM_GROUP_EVENTS = 'events'
const VERSION = 2

const CMD = { config: 2, start: 3, stop: 4, packetAlert: 5, configGet: 6, statsGet: 8 } as const

const ATTR = {
  alertMode: 1,
  symbol: 3,
  inPort: 4,
  timestamp: 5,
  proto: 6,
  payload: 7,
  truncLen: 9,
  origLen: 10,
  queueLen: 11,
  stats: 12,
  hwStats: 13,
  origin: 14,
  trapGroupName: 15,
  trapName: 16,
  swDrops: 20,
  hwDrops: 21,
  reason: 23,
} as const
const PORT_IFINDEX = 0
const STATS_DROPPED = 0

/** Who dropped the packet: the kernel, or a switch that told its driver (a devlink trap). */
export const DROP_ORIGIN = { software: 0, hardware: 1 } as const

const TYPE_MASK = 0x3fff

/** A packet alert as the kernel sent it; filled again by each call of readDropAlert(). */
export interface DropAlert {
  /** One of DROP_ORIGIN. */
  origin: number
  /** The interface that received the packet last, in whatever namespace; 0 when it was made here. */
  inputIfIndex: number
  /** Octets of the packet from its link header on, without FCS and detached VLAN tag. */
  originalLength: number
  /** EtherType; 0 when absent: then it is no packet, or one without bytes. */
  protocol: number
  /** Byte offset and length of the packet's first bytes; length 0 when absent. */
  dataOffset: number
  dataLength: number
  /** Nanoseconds since 1970 as two words; both 0 when absent. */
  timestampHigh: number
  timestampLow: number
  /** Byte offset and length, without NUL, of each text; length 0 when absent. */
  reasonOffset: number
  reasonLength: number
  symbolOffset: number
  symbolLength: number
  trapOffset: number
  trapLength: number
  trapGroupOffset: number
  trapGroupLength: number
  /** What is wrong with the message when readDropAlert() returns false, and the byte offset of it. */
  problem: string
  problemOffset: number
}

export function emptyDropAlert(): DropAlert {
  return {
    origin: 0,
    inputIfIndex: 0,
    originalLength: 0,
    protocol: 0,
    dataOffset: 0,
    dataLength: 0,
    timestampHigh: 0,
    timestampLow: 0,
    reasonOffset: 0,
    reasonLength: 0,
    symbolOffset: 0,
    symbolLength: 0,
    trapOffset: 0,
    trapLength: 0,
    trapGroupOffset: 0,
    trapGroupLength: 0,
    problem: '',
    problemOffset: 0,
  }
}

/** True for a packet alert; the family's group carries summaries too, when somebody configured those. */
export function isPacketAlert(view: DataView, start: number, received: number): boolean {
  return (
    received - start >= MESSAGE_HEADER + GENL_HEADER &&
    view.getUint8(start + MESSAGE_HEADER) === CMD.packetAlert
  )
}

/**
 * Reads the packet alert at bytes `start` to `received` of `view` into `alert`. Returns false when it cannot be
 * trusted (cut short, an attribute of the wrong size, no origin or length, more bytes than the packet has):
 * `alert.problem` says what, `alert.problemOffset` where. Attributes of no use here are stepped over: program counter,
 * name of the port, flow action cookie. Never throws.
 */
export function readDropAlert(view: DataView, start: number, received: number, alert: DropAlert): boolean {
  alert.origin = -1
  alert.inputIfIndex = 0
  alert.originalLength = -1
  alert.protocol = 0
  alert.dataLength = 0
  alert.timestampHigh = 0
  alert.timestampLow = 0
  alert.reasonLength = 0
  alert.symbolLength = 0
  alert.trapLength = 0
  alert.trapGroupLength = 0

  let at = start + MESSAGE_HEADER + GENL_HEADER
  if (at > received) return wrong(alert, 'shorter than its headers', start)
  const end = start + view.getUint32(start, true)
  if (end > received) return wrong(alert, 'cut short', start)
  while (at + 4 <= end) {
    const length = view.getUint16(at, true)
    if (length < 4) return wrong(alert, 'attribute shorter than its header', at)
    if (at + length > end) return wrong(alert, 'attribute longer than the message', at)
    const value = at + 4
    const bytes = length - 4
    switch (view.getUint16(at + 2, true) & TYPE_MASK) {
      case ATTR.origin:
        if (bytes !== 2) return wrong(alert, 'ORIGIN is not 2 bytes', at)
        alert.origin = view.getUint16(value, true)
        break
      case ATTR.inPort:
        if (!readPort(view, value, value + bytes, alert)) return false
        break
      case ATTR.origLen:
        if (bytes !== 4) return wrong(alert, 'ORIG_LEN is not 4 bytes', at)
        alert.originalLength = view.getUint32(value, true)
        break
      case ATTR.proto:
        if (bytes !== 2) return wrong(alert, 'PROTO is not 2 bytes', at)
        alert.protocol = view.getUint16(value, true)
        break
      case ATTR.payload:
        alert.dataOffset = value
        alert.dataLength = bytes
        break
      case ATTR.timestamp:
        if (bytes !== 8) return wrong(alert, 'TIMESTAMP is not 8 bytes', at)
        alert.timestampLow = view.getUint32(value, true)
        alert.timestampHigh = view.getUint32(value + 4, true)
        break
      case ATTR.reason:
        alert.reasonOffset = value
        alert.reasonLength = textLength(view, value, bytes)
        break
      case ATTR.symbol:
        alert.symbolOffset = value
        alert.symbolLength = textLength(view, value, bytes)
        break
      case ATTR.trapName:
        alert.trapOffset = value
        alert.trapLength = textLength(view, value, bytes)
        break
      case ATTR.trapGroupName:
        alert.trapGroupOffset = value
        alert.trapGroupLength = textLength(view, value, bytes)
        break
    }
    at += (length + 3) & ~3
  }
  if (alert.origin !== DROP_ORIGIN.software && alert.origin !== DROP_ORIGIN.hardware) {
    return wrong(
      alert,
      alert.origin < 0 ? 'ORIGIN is missing' : 'ORIGIN is neither software nor hardware',
      start,
    )
  }
  if (alert.originalLength < 0) return wrong(alert, 'ORIG_LEN is missing', start)
  if (alert.dataLength > alert.originalLength) {
    return wrong(alert, 'PAYLOAD is longer than ORIG_LEN', alert.dataOffset - 4)
  }
  return true
}

/** The nest is empty when the packet came from no interface. */
function readPort(view: DataView, start: number, end: number, alert: DropAlert): boolean {
  for (let at = start; at + 4 <= end; ) {
    const length = view.getUint16(at, true)
    if (length < 4 || at + length > end) return wrong(alert, 'IN_PORT is cut short', at)
    if ((view.getUint16(at + 2, true) & TYPE_MASK) === PORT_IFINDEX) {
      if (length !== 8) return wrong(alert, 'the ifIndex of IN_PORT is not 4 bytes', at)
      alert.inputIfIndex = view.getUint32(at + 4, true)
    }
    at += (length + 3) & ~3
  }
  return true
}

function textLength(view: DataView, at: number, bytes: number): number {
  for (let i = 0; i < bytes; i++) if (view.getUint8(at + i) === 0) return i
  return bytes
}

function wrong(alert: DropAlert, problem: string, offset: number): false {
  alert.problem = problem
  alert.problemOffset = offset
  return false
}

/** What the monitor delivers; one setting for all who listen. */
export interface DropMonitorConfig {
  /** Each packet by itself; else summaries without packets or reasons. */
  readonly packets: boolean
  /** Bytes of a packet at most; 0 for all of it. */
  readonly truncateBytes: number
  /** Packets that may wait on each processor. */
  readonly queueLength: number
}

/** Which drops a start or stop is about. Both in one request would stop at the first that is on already. */
export type DropFeed = 'software' | 'hardware'

/** Asks for the configuration; readDropMonitorConfig() reads the answer. */
export function getDropMonitorConfig(family: number): Uint8Array {
  return genlRequest(family, CMD.configGet, VERSION).build()
}

/** Refused with EBUSY while the monitor is on. */
export function configureDropMonitor(family: number, config: DropMonitorConfig): Uint8Array {
  return genlRequest(family, CMD.config, VERSION)
    .u8(ATTR.alertMode, config.packets ? 1 : 0)
    .u32(ATTR.truncLen, config.truncateBytes)
    .u32(ATTR.queueLen, config.queueLength)
    .build()
}

/** Refused with EAGAIN when it is on already: there is no other way to find out. */
export function startDropMonitor(family: number, feed: DropFeed): Uint8Array {
  return genlRequest(family, CMD.start, VERSION).flag(flagOf(feed)).build()
}

/** Stops it for everybody who listens; no error when it is off already. */
export function stopDropMonitor(family: number, feed: DropFeed): Uint8Array {
  return genlRequest(family, CMD.stop, VERSION).flag(flagOf(feed)).build()
}

/** Asks for the monitor's own losses; readDropMonitorStats() reads the answer. */
export function getDropMonitorStats(family: number): Uint8Array {
  return genlRequest(family, CMD.statsGet, VERSION).build()
}

function flagOf(feed: DropFeed): number {
  return feed === 'software' ? ATTR.swDrops : ATTR.hwDrops
}

/** Reads a CONFIG_NEW message. */
export function readDropMonitorConfig({ view }: Message): DropMonitorConfig {
  const attributes = parseAttributes(view, MESSAGE_HEADER + GENL_HEADER, view.byteLength)
  const mode = attributes.u8(ATTR.alertMode)
  const truncateBytes = attributes.u32(ATTR.truncLen)
  const queueLength = attributes.u32(ATTR.queueLen)
  if (mode === undefined || truncateBytes === undefined || queueLength === undefined) {
    throw new NetlinkFormatError('missing', 0, 'drop monitor without mode, truncation or queue length')
  }
  return { packets: mode === 1, truncateBytes, queueLength }
}

/** Drops that the monitor could not queue, software and hardware, since its module was loaded: a STATS_NEW message. */
export function readDropMonitorStats({ view }: Message): number {
  const attributes = parseAttributes(view, MESSAGE_HEADER + GENL_HEADER, view.byteLength)
  const software = attributes.nest(ATTR.stats)?.u64(STATS_DROPPED) ?? 0n
  const hardware = attributes.nest(ATTR.hwStats)?.u64(STATS_DROPPED) ?? 0n
  return Number(software + hardware)
}
