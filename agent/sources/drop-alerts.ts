import type { Ledger, Loss } from '../health/ledger.ts'
import { type DropSink, emptyDrop, Names } from '../samples/drop.ts'
import { HEADER_PROTOCOL } from '../samples/packet-sample.ts'
import { DROP_ORIGIN, emptyDropAlert, isPacketAlert, readDropAlert } from '../wire/netlink/drop-monitor.ts'

/** Turns the drop monitor's packet alerts into drops, without I/O. It owns the one record that it fills for each. */

/** What is needed to know of the machine's interfaces; agent/interfaces.ts has it. */
export interface KnownInterfaces {
  readonly byIndex: { has(ifIndex: number): boolean }
  /** True when the interface carries frames without a link header (tunnels, `tun`). */
  isLayer3(ifIndex: number): boolean
}

export interface DropAlertsOptions {
  /** Take drops of the kernel; others may have switched them on for themselves. */
  readonly software: boolean
  /** Take drops of the hardware. */
  readonly hardware: boolean
  readonly interfaces: KnownInterfaces
  readonly ledger: Ledger
  readonly sink: DropSink
  /** Shared with other sources that have the same sink. */
  readonly names?: Names
  /** Told of alerts that were lost here. */
  readonly onLost: (count: number) => void
}

/** Frames without FCS reach us; the wire had these octets more. */
const FCS_BYTES = 4
const ETH_P_IP = 0x0800
const ETH_P_IPV6 = 0x86dd

export class DropAlerts {
  /** Messages seen = drops delivered + foreign + malformed. */
  messages = 0
  delivered = 0
  /** Summaries, and drops of a kind that is not wanted; not a loss. */
  foreign = 0

  get malformed(): number {
    return this.#malformed.count
  }

  readonly #options: DropAlertsOptions
  readonly #names: Names
  readonly #alert = emptyDropAlert()
  readonly #drop = emptyDrop()
  readonly #malformed: Loss
  /** The first thing wrong since takeProblem() was asked. */
  #problem: string | undefined

  constructor(options: DropAlertsOptions) {
    this.#options = options
    this.#names = options.names ?? new Names()
    this.#malformed = options.ledger.loss(
      'drop-monitor',
      'malformed',
      'the kernel sent a drop alert that contradicts itself or is cut short',
    )
  }

  /**
   * Takes one datagram of the NET_DM socket: bytes `start` to `end` of `view`; `words` is the same memory, and
   * `start` a multiple of 4. The sink is called before this returns.
   */
  readonly receive = (view: DataView, words: Int32Array, start: number, end: number): void => {
    this.messages++
    if (!isPacketAlert(view, start, end)) {
      this.foreign++
      return
    }
    const alert = this.#alert
    if (!readDropAlert(view, start, end, alert)) {
      this.#malformed.count++
      this.#options.onLost(1)
      this.#problem ??= `${alert.problem} at byte offset ${alert.problemOffset - start} of the message`
      return
    }
    const { software, hardware, interfaces } = this.#options
    const fromHardware = alert.origin === DROP_ORIGIN.hardware
    if (fromHardware ? !hardware : !software) {
      this.foreign++
      return
    }

    const drop = this.#drop
    const names = this.#names
    // Alerts come from every namespace: an interface that is not here is one of another.
    const ifIndex = interfaces.byIndex.has(alert.inputIfIndex) ? alert.inputIfIndex : 0
    drop.hardware = fromHardware
    drop.inputIfIndex = ifIndex
    drop.etherType = alert.protocol
    drop.headerProtocol = HEADER_PROTOCOL.ethernet
    drop.frameLength = alert.originalLength + FCS_BYTES
    drop.stripped = FCS_BYTES
    drop.headerWords = words
    drop.headerOffset = alert.dataOffset
    drop.headerLength = alert.dataLength
    drop.reason = names.read(view, alert.reasonOffset, alert.reasonLength)
    drop.symbol = names.read(view, alert.symbolOffset, alert.symbolLength)
    drop.trap = names.read(view, alert.trapOffset, alert.trapLength)
    drop.trapGroup = names.read(view, alert.trapGroupOffset, alert.trapGroupLength)
    drop.timestampHigh = alert.timestampHigh
    drop.timestampLow = alert.timestampLow
    if (ifIndex !== 0 && interfaces.isLayer3(ifIndex)) {
      if (alert.protocol === ETH_P_IP) drop.headerProtocol = HEADER_PROTOCOL.ipv4
      else if (alert.protocol === ETH_P_IPV6) drop.headerProtocol = HEADER_PROTOCOL.ipv6
      if (drop.headerProtocol !== HEADER_PROTOCOL.ethernet) {
        drop.frameLength = alert.originalLength
        drop.stripped = 0
      }
    }
    this.delivered++
    this.#options.sink(drop)
  }

  /** What was wrong with the first malformed message since the last call, with its place; for a log line. */
  takeProblem(): string | undefined {
    const problem = this.#problem
    this.#problem = undefined
    return problem
  }
}
