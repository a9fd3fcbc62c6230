/** host_net_io (0:2006): the sum of /proc/net/dev over the devices by which packets enter and leave the host. */

import type { Interface } from '../interfaces.ts'
import { FileFormatError, low32, parseCounter, readTextFile, type TextFile } from '../kernel/files.ts'
import { type HostNetIo, hostNetIo } from '../wire/sflow/counters/host.ts'
import type { CounterReader } from './reader.ts'

/** What the rule of countedDevices() wants to know of an interface. */
export type NetworkDevice = Pick<
  Interface,
  | 'ifIndex'
  | 'name'
  | 'loopback'
  | 'kind'
  | 'masterIfIndex'
  | 'linkIfIndex'
  | 'linkNetnsId'
  | 'physicalPortName'
>

export function hostNetIoReader(
  root: string,
  devices: () => Iterable<NetworkDevice>,
): CounterReader<typeof hostNetIo> {
  return {
    record: hostNetIo,
    async read() {
      return sumOfDevices(parseNetDev(await readTextFile(root, 'proc/net/dev'), countedDevices(devices())))
    },
  }
}

/**
 * Names of the devices whose sum holds each packet once, whether or not they are up (a sum must not go back when one
 * goes down):
 *
 * - Devices of a driver (no kind). Not those that have another device below them in this namespace, nor the members of
 *   such a device (the virtual function under a Hyper-V or failover device, which counts for both), nor the host's end of
 *   a virtual function. The members of a bond count, the bond does not; so with bridges, VLANs, tunnels, veth.
 * - Where there is none, in a container, the virtual devices whose other end is in another namespace.
 */
export function countedDevices(devices: Iterable<NetworkDevice>): Set<string> {
  const all = [...devices].filter(device => !device.loopback)
  const isAboveAnother = ({ linkIfIndex, linkNetnsId, ifIndex }: NetworkDevice) =>
    linkIfIndex !== undefined && linkIfIndex !== ifIndex && linkNetnsId === undefined
  const own = all
    .filter(device => device.kind === undefined && !isAboveAnother(device))
    .filter(({ physicalPortName }) => !VIRTUAL_FUNCTION_PORT.test(physicalPortName ?? ''))
  const ownIndexes = new Set(own.map(device => device.ifIndex))
  const counted =
    own.length > 0
      ? own.filter(({ masterIfIndex }) => masterIfIndex === undefined || !ownIndexes.has(masterIfIndex))
      : all.filter(({ linkNetnsId }) => linkNetnsId !== undefined)
  return new Set(counted.map(device => device.name))
}

/** `pf0vf1`, `c1pf0sf88` (Documentation/networking/devlink/devlink-port.rst) */
const VIRTUAL_FUNCTION_PORT = /pf\d+(vf|sf)\d+$/

/** A line of /proc/net/dev, without what the structure has no field for. */
export interface DeviceCounters {
  readonly name: string
  readonly bytesIn: bigint
  readonly packetsIn: bigint
  readonly errorsIn: bigint
  /** Dropped and missed: the kernel adds them up here (net/core/net-procfs.c). */
  readonly dropsIn: bigint
  readonly bytesOut: bigint
  readonly packetsOut: bigint
  readonly errorsOut: bigint
  readonly dropsOut: bigint
}

const HEADINGS = 2

/**
 * Two lines of headings, then `name: ` and 8 numbers for each direction. Of the devices that are not `counted` nothing
 * but the name is looked at: a host can have thousands of them.
 */
export function parseNetDev(file: TextFile, counted: ReadonlySet<string>): DeviceCounters[] {
  const devices: DeviceCounters[] = []
  const { text } = file
  for (let start = 0, end = 0, number = 1; start < text.length; start = end + 1, number++) {
    end = text.indexOf('\n', start)
    if (end < 0) end = text.length
    if (number <= HEADINGS || end === start) continue
    // The name of a device may contain a colon.
    const colon = text.lastIndexOf(':', end)
    if (colon < start) {
      const line = text.slice(start, end)
      throw new FileFormatError(file.path, number, `expected a device name and a colon, got "${line}"`)
    }
    const name = text.slice(start, colon).trim()
    if (!counted.has(name)) continue
    const words = text
      .slice(colon + 1, end)
      .trim()
      .split(/\s+/)
    const field = (column: number, what: string) =>
      parseCounter(file, number, `${name}: ${what}`, words[column])
    devices.push({
      name,
      bytesIn: field(0, 'bytes received'),
      packetsIn: field(1, 'packets received'),
      errorsIn: field(2, 'receive errors'),
      dropsIn: field(3, 'receive drops'),
      bytesOut: field(8, 'bytes sent'),
      packetsOut: field(9, 'packets sent'),
      errorsOut: field(10, 'send errors'),
      dropsOut: field(11, 'send drops'),
    })
  }
  return devices
}

export function sumOfDevices(devices: readonly DeviceCounters[]): HostNetIo {
  const sum = (value: (device: DeviceCounters) => bigint) =>
    devices.reduce((total, device) => total + value(device), 0n)
  return {
    bytes_in: sum(device => device.bytesIn),
    pkts_in: low32(sum(device => device.packetsIn)),
    errs_in: low32(sum(device => device.errorsIn)),
    drops_in: low32(sum(device => device.dropsIn)),
    bytes_out: sum(device => device.bytesOut),
    pkts_out: low32(sum(device => device.packetsOut)),
    errs_out: low32(sum(device => device.errorsOut)),
    drops_out: low32(sum(device => device.dropsOut)),
  }
}
