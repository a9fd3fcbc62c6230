import { hostParent } from '../wire/sflow/counters/host.ts'
import type { CounterReader } from './reader.ts'

/** host_parent (0:2002): the data source of the machine that an entity runs on. */
export function hostParentReader(type: number, index: number): CounterReader<typeof hostParent> {
  const value = { container_type: type, container_index: index }
  return { record: hostParent, read: async () => value }
}
