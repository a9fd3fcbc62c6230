/** The hosts of test/proc: the files of /proc and /sys, and in host.json what is not in files. */

import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Adapter } from '../../agent/counters/host-adapters.ts'
import type { AskSize, FileSystemSize } from '../../agent/counters/host-disk-io.ts'
import type { NetworkDevice } from '../../agent/counters/host-net-io.ts'

export const HOSTS = join(import.meta.dirname, '../proc')

export interface CapturedHost {
  readonly root: string
  readonly machine: string
  readonly interfaces: readonly (NetworkDevice & Adapter)[]
  /** In place of statfs(2): sizes by mount point, or the errno that it fails with. */
  readonly askSize: AskSize
}

interface HostFile {
  readonly machine: string
  readonly interfaces: readonly Partial<NetworkDevice & Adapter>[]
  readonly fileSystems: Readonly<Record<string, Record<keyof FileSystemSize, number> | string>>
}

export function capturedHosts(): string[] {
  return readdirSync(HOSTS).sort()
}

export function openHost(name: string): CapturedHost {
  const root = join(HOSTS, name)
  const file = JSON.parse(readFileSync(join(root, 'host.json'), 'utf8')) as HostFile
  return {
    root,
    machine: file.machine,
    interfaces: file.interfaces.map(described => ({ ...UNREMARKABLE, ...described })),
    async askSize(path) {
      const size = file.fileSystems[`/${relative(root, path)}`]
      if (size === undefined) throw new Error(`nobody should ask for the size of ${path}`)
      if (typeof size === 'string') throw Object.assign(new Error(size), { code: size })
      const { frsize, blocks, bfree, bavail } = size
      return {
        frsize: BigInt(frsize),
        blocks: BigInt(blocks),
        bfree: BigInt(bfree),
        bavail: BigInt(bavail),
      }
    },
  }
}

const UNREMARKABLE: NetworkDevice & Adapter = {
  ifIndex: 0,
  name: '',
  loopback: false,
  adminUp: true,
  kind: undefined,
  mac: undefined,
  masterIfIndex: undefined,
  linkIfIndex: undefined,
  linkNetnsId: undefined,
  switchId: undefined,
  physicalPortName: undefined,
}
