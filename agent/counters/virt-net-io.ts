/**
 * virt_net_io (0:2104) of a container: /proc/PID/net/dev of a process in its network namespace. What a device has
 * received there the container has received, so the directions are the guest's own.
 */

import { readTextFile } from '../kernel/files.ts'
import { virtNetIo } from '../wire/sflow/counters/virtual.ts'
import { parseNetDev, sumOfDevices } from './host-net-io.ts'
import type { CounterReader } from './reader.ts'

/** What leads out of a network namespace. */
export interface NamespaceDevices {
  /** A process in it. */
  readonly pid: number
  /** Names of the devices whose sum holds each packet once. */
  readonly counted: ReadonlySet<string>
}

/** `devices` is undefined for an entity that has no network namespace of its own. */
export function virtNetIoReader(
  root: string,
  devices: () => NamespaceDevices | undefined,
): CounterReader<typeof virtNetIo> {
  return {
    record: virtNetIo,
    async read() {
      const now = devices()
      if (now === undefined) return undefined
      const file = await readTextFile(root, `proc/${now.pid}/net/dev`)
      return sumOfDevices(parseNetDev(file, now.counted))
    },
  }
}
