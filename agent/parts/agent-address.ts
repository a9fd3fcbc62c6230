import { type AgentAddressChoice, chooseAgentAddress } from '../config/agent-address.ts'
import type { AgentAddressConfig } from '../config/config.ts'
import type { Logger } from '../health/log.ts'
import type { LocalAddress } from '../interfaces.ts'
import { parseIp4, parseIp6 } from '../wire/addresses.ts'

/** The address that the agent is known by, as the addresses of the host come and go. */

/** An agent address that no interface has any more is kept for this time. */
const HOLD_MS = 5000

export interface AgentAddressOptions {
  readonly log: Logger
  /** The addresses that the host has now. */
  readonly addresses: () => readonly LocalAddress[]
  /** What the agent was known by in its run before, to be known by again where there is no reason against it. */
  readonly previous: string | undefined
  /** Told of each change; undefined when there is no address to be known by. */
  readonly onChange: (address: Uint8Array | undefined) => void
}

export class AgentAddress {
  readonly #options: AgentAddressOptions
  #rules: AgentAddressConfig
  #address: string | undefined
  #device: string | undefined
  #hasElected = false
  /** Since when no interface has the address, and when to look again. */
  #missingSince: number | undefined
  #missing: NodeJS.Timeout | undefined

  constructor(rules: AgentAddressConfig, options: AgentAddressOptions) {
    this.#rules = rules
    this.#options = options
  }

  get address(): string | undefined {
    return this.#address
  }

  /** The interface that has the address. */
  get device(): string | undefined {
    return this.#device
  }

  /** Goes on by other rules. */
  change(rules: AgentAddressConfig): void {
    this.#rules = rules
    this.elect()
  }

  /** To be called when the addresses of the host have changed. */
  elect(): void {
    const { log, previous, onChange } = this.#options
    const addresses = this.#options.addresses()
    const { chosen, note } = chooseAgentAddress(addresses, this.#rules, this.#address ?? previous)
    const before = this.#address
    if (chosen?.address === before && this.#hasElected) {
      this.#keep(chosen)
      return
    }
    // An address that is gone is often back in a moment (DHCP, a flap): to collectors it is who we are.
    const isGone = !addresses.some(({ address }) => address === before)
    if (before !== undefined && isGone && !this.#isOverdue()) return
    this.#keep(chosen)
    this.#hasElected = true
    this.#address = chosen?.address
    if (note !== undefined) log.warn(note)
    if (chosen === undefined) {
      log.warn('no interface has an address to be known by: nothing is sent until one has')
      onChange(undefined)
      return
    }
    const facts = { interface: chosen.interfaceName, why: chosen.why, before }
    // Collectors see another agent from now on.
    if (before === undefined) log.info(facts, `agent address ${chosen.address}`)
    else log.warn(facts, `agent address ${chosen.address}, no longer ${before}`)
    onChange(parseIp4(chosen.address) ?? parseIp6(chosen.address)!)
  }

  stop(): void {
    clearTimeout(this.#missing)
  }

  /** The address is one that the host has. */
  #keep(chosen: AgentAddressChoice['chosen']): void {
    this.#device = chosen?.interfaceName
    clearTimeout(this.#missing)
    this.#missing = undefined
    this.#missingSince = undefined
  }

  /** Whether the address has been missing for long enough to take another; looks again when it will have been. */
  #isOverdue(): boolean {
    this.#missingSince ??= performance.now()
    const left = this.#missingSince + HOLD_MS - performance.now()
    if (left <= 0) return true
    this.#missing ??= setTimeout(() => {
      this.#missing = undefined
      this.elect()
    }, left)
    return false
  }
}
