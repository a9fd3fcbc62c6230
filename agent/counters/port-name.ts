import type { Interface } from '../interfaces.ts'
import { portName } from '../wire/sflow/counters/interface.ts'
import type { CounterReader } from './reader.ts'

/** port_name (0:1005): what the interface is called now. */
export class PortNameReader implements CounterReader<typeof portName> {
  readonly record = portName
  readonly #port: () => Interface | undefined
  readonly #named: (port: Interface | undefined) => Interface | undefined

  /** `named` gives the interface by the name that it is to be sent with. */
  constructor(
    port: () => Interface | undefined,
    named: (port: Interface | undefined) => Interface | undefined,
  ) {
    this.#port = port
    this.#named = named
  }

  read(): { readonly name: string } | undefined {
    const name = this.#named(this.#port())?.name
    return name === undefined ? undefined : { name }
  }
}
