/** What the readers of containers and services have in common: the files of a control group, of either version. */

import { join } from 'node:path'
import type { Cgroups, ControlGroup, Controller, GroupFolder } from '../kernel/cgroup.ts'
import { type KernelUnits, readTextFileIfAny, type TextFile } from '../kernel/files.ts'
import { ProcessSums, type ProcessTransfers, type ProcessUsage } from './process-sums.ts'
import { shared } from './reader.ts'
import type { DeviceMajors } from './virt-disk-io.ts'

/** A container, a pod or a service, as it is now. */
export interface ControlledEntity {
  /** The groups that together are all of it. */
  readonly groups: readonly ControlGroup[]
  /** Number of the domain state (host structures, 2010). */
  readonly state: number
}

export interface GroupFilesOptions {
  /** Where /proc and /sys are. */
  readonly root: string
  /** The hierarchies that are mounted; asked for at each reading. */
  readonly cgroups: () => Promise<Cgroups>
  /** Memory of the machine, bytes. */
  readonly memory: () => Promise<bigint>
  /** Majors of the block devices that stand on others. */
  readonly majors: () => Promise<DeviceMajors>
  readonly units: () => Promise<KernelUnits>
  readonly entity: () => ControlledEntity
  /** File with the processes of the entity; else those of its groups. */
  readonly processes?: (() => string | undefined) | undefined
}

/** The files of one entity. */
export class GroupFiles {
  readonly root: string
  readonly #options: GroupFilesOptions
  /** What its processes come to, for what no controller accounts for. */
  readonly processUsage: () => Promise<ProcessUsage | undefined>
  readonly processTransfers: () => Promise<ProcessTransfers | undefined>

  constructor(options: GroupFilesOptions) {
    this.#options = options
    this.root = options.root
    const sums = new ProcessSums(options.root, options.units)
    this.processUsage = shared(async () => sums.usage(await this.#pids()))
    this.processTransfers = shared(async () => sums.transfers(await this.#pids()))
  }

  get memory(): () => Promise<bigint> {
    return this.#options.memory
  }

  get majors(): () => Promise<DeviceMajors> {
    return this.#options.majors
  }

  get state(): number {
    return this.#options.entity().state
  }

  /** The folders in which a controller accounts for the entity. */
  async folders(controller: Controller): Promise<GroupFolder[]> {
    const cgroups = await this.#options.cgroups()
    return this.#options
      .entity()
      .groups.map(group => cgroups.folder(group, controller))
      .filter(folder => folder !== undefined)
  }

  /** A file of a folder; undefined when it is not there: the controller is off, or the group is gone. */
  file(folder: GroupFolder, name: string): Promise<TextFile | undefined> {
    return readTextFileIfAny(this.root, join(folder.path, name))
  }

  /**
   * Adds up what `read` finds in the folders of a controller; undefined when it finds nothing in any of them.
   */
  async sum<K extends string>(
    controller: Controller,
    read: (folder: GroupFolder) => Promise<Readonly<Record<K, bigint>> | undefined>,
  ): Promise<Record<K, bigint> | undefined> {
    const found = await Promise.all((await this.folders(controller)).map(read))
    let sums: Record<K, bigint> | undefined
    for (const values of found) {
      if (values === undefined) continue
      sums ??= Object.fromEntries(Object.keys(values).map(key => [key, 0n])) as Record<K, bigint>
      for (const key of Object.keys(values) as K[]) sums[key] += values[key]
    }
    return sums
  }

  async #pids(): Promise<number[]> {
    const { processes } = this.#options
    const given = processes?.()
    if (given !== undefined) return pidsOf(await readTextFileIfAny(this.root, given))
    // Every process is in the hierarchy of version 2, and in that of systemd; the others need not follow.
    const all = await Promise.all(
      (await this.folders('name=systemd')).map(folder => this.file(folder, 'cgroup.procs')),
    )
    return all.flatMap(pidsOf)
  }
}

function pidsOf(file: TextFile | undefined): number[] {
  return (file?.text ?? '')
    .split('\n')
    .filter(line => /^\d+$/.test(line))
    .map(Number)
}
