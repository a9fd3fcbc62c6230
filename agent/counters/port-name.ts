import type { Interface } from '../interfaces.ts'
import { portName } from '../wire/sflow/counters/interface.ts'
import type { CounterReader } from './reader.ts'

/** port_name (0:1005): what the interface is called now. */
export function portNameReader(port: () => Interface | undefined): CounterReader<typeof portName> {
  return {
    record: portName,
    read() {
      const name = port()?.name
      return name === undefined ? undefined : { name }
    },
  }
}
