import type { BridgePort, VlanPorts } from './annotations/vlans.ts'
import type { Logger } from './health/log.ts'
import type { Interfaces } from './interfaces.ts'
import { NETLINK_ROUTE, NetlinkError, NetlinkSocket } from './kernel/netlink-socket.ts'
import { NetlinkFormatError } from './wire/netlink/attributes.ts'
import { RTNLGRP } from './wire/netlink/rt.ts'
import { dumpVlans, readVlans } from './wire/netlink/rt-vlan.ts'

/**
 * The VLANs of the bridge ports of one network namespace (Linux 5.6). They are read as a whole when something has
 * changed: that is rare, and one request.
 */

/** Changes come in bursts. */
const SETTLE_MS = 100
const VIDS = 4096

class Port implements BridgePort {
  pvid = 0
  only = 0
  readonly #members = new Uint32Array(VIDS / 32)
  #count = 0

  has(vid: number): boolean {
    return (this.#members[vid >> 5]! & (1 << (vid & 31))) !== 0
  }

  add(first: number, last: number, pvid: boolean): void {
    for (let vid = first; vid <= last; vid++) this.#members[vid >> 5]! |= 1 << (vid & 31)
    this.#count += last - first + 1
    this.only = this.#count === 1 ? first : 0
    if (pvid) this.pvid = first
  }
}

export class BridgeVlans implements VlanPorts {
  readonly #log: Logger
  readonly #interfaces: Interfaces
  #ports = new Map<number, Port>()
  #socket: NetlinkSocket | undefined
  #settling: NodeJS.Timeout | undefined

  constructor(interfaces: Interfaces, log: Logger) {
    this.#interfaces = interfaces
    this.#log = log.child({ part: 'bridge' })
  }

  /** Reads the VLANs and follows their changes. A kernel that does not tell them leaves them unknown. */
  async start(): Promise<void> {
    const changed = () => this.#changed()
    this.#socket = NetlinkSocket.open(NETLINK_ROUTE, {
      strictChecking: true,
      onNotification: changed,
      onOverrun: changed,
    })
    try {
      this.#socket.join(RTNLGRP.bridgeVlan, 'bridge VLANs')
    } catch (error) {
      this.#log.debug(
        `the kernel does not tell the VLANs of bridge ports (Linux 5.6): ${(error as Error).message}`,
      )
      this.stop()
      return
    }
    await this.#read()
  }

  /** May be called twice. */
  stop(): void {
    clearTimeout(this.#settling)
    this.#settling = undefined
    this.#socket?.close()
    this.#socket = undefined
  }

  bridgePort(ifIndex: number): BridgePort | undefined {
    if (this.#ports.size === 0) return undefined
    const master = this.#interfaces.byIndex.get(ifIndex)?.masterIfIndex
    if (master === undefined || this.#interfaces.byIndex.get(master)?.vlanFiltering !== true) return undefined
    return this.#ports.get(ifIndex)
  }

  vlanOf(ifIndex: number): number {
    return this.#interfaces.byIndex.get(ifIndex)?.vlanId ?? 0
  }

  #changed(): void {
    this.#settling ??= setTimeout(() => {
      this.#settling = undefined
      void this.#read()
    }, SETTLE_MS)
  }

  async #read(): Promise<void> {
    try {
      const messages = await this.#socket?.dump(dumpVlans(), 'list the VLANs of bridge ports')
      if (messages === undefined) return
      const ports = new Map<number, Port>()
      for (const message of messages) {
        const { ifIndex, vlans } = readVlans(message)
        const port = ports.get(ifIndex) ?? new Port()
        ports.set(ifIndex, port)
        for (const { first, last, pvid } of vlans) port.add(first, last, pvid)
      }
      this.#ports = ports
    } catch (error) {
      if (this.#socket === undefined) return
      if (!(error instanceof NetlinkError || error instanceof NetlinkFormatError)) throw error
      // A kernel without VLANs in bridges, or one before 5.6: then no port has one that could be known.
      const isMissing = error instanceof NetlinkError && error.code === 'EOPNOTSUPP'
      this.#log[isMissing ? 'debug' : 'warn'](
        `${error.message}: the VLANs of packets without a tag are not known`,
      )
    }
  }
}
