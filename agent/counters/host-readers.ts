import { type KernelUnits, readKernelUnits } from '../kernel/files.ts'
import { containerLimits } from './container-limits.ts'
import { type Adapter, hostAdaptersReader } from './host-adapters.ts'
import { hostCpuReader } from './host-cpu.ts'
import { hostDescrReader } from './host-descr.ts'
import { type AskSize, hostDiskIoReader } from './host-disk-io.ts'
import { hostMemoryReader } from './host-memory.ts'
import { hostNetIoReader, type NetworkDevice } from './host-net-io.ts'
import { mib2IcmpReader } from './mib2-icmp.ts'
import { mib2IpReader } from './mib2-ip.ts'
import { mib2TcpReader } from './mib2-tcp.ts'
import { mib2UdpReader } from './mib2-udp.ts'
import { type CounterReader, shared } from './reader.ts'
import { readSnmp } from './snmp.ts'

export interface HostReadersOptions {
  /** Where /proc, /sys and /etc are; `/` if not given. */
  readonly root?: string
  /** UUID from the configuration; undefined takes the machine's. */
  readonly uuid: string | undefined
  /** The interfaces of this namespace as they are now. */
  readonly interfaces: () => Iterable<NetworkDevice & Adapter>
  /** Machine and sizes of file systems, where a captured tree takes the place of this host. */
  readonly machine?: string
  readonly askSize?: AskSize
}

/** The readers of the data source of the host as a whole (2:1), in the order of their records. */
export function hostReaders(options: HostReadersOptions): CounterReader[] {
  const { root = '/', uuid, interfaces, machine, askSize } = options
  const snmp = shared(() => readSnmp(root))
  let units: KernelUnits | undefined
  const unitsOnce = async () => {
    units ??= await readKernelUnits(root)
    return units
  }
  const limits = shared(containerLimits(root))
  return [
    hostDescrReader(root, { uuid, machine }),
    hostAdaptersReader(interfaces),
    hostCpuReader(root, unitsOnce, limits),
    hostMemoryReader(root, unitsOnce, limits),
    hostDiskIoReader(root, askSize),
    hostNetIoReader(root, interfaces),
    mib2IpReader(snmp),
    mib2IcmpReader(snmp),
    mib2TcpReader(snmp),
    mib2UdpReader(snmp),
  ]
}
