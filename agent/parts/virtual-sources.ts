import { machine } from 'node:os'
import { isDeepStrictEqual } from 'node:util'
import type { AddressedEntity } from '../annotations/entities.ts'
import type { Config, VirtualConfig } from '../config/config.ts'
import { GroupFiles, type GroupFilesOptions } from '../counters/control-group.ts'
import { machineType, readHostUuid } from '../counters/host-descr.ts'
import { parseMeminfo } from '../counters/host-memory.ts'
import { hostParentReader } from '../counters/host-parent.ts'
import { type CounterReader, kept } from '../counters/reader.ts'
import { virtCpuReader } from '../counters/virt-cpu.ts'
import { parseDeviceMajors, virtDiskIoReader } from '../counters/virt-disk-io.ts'
import { virtMemoryReader } from '../counters/virt-memory.ts'
import { virtNetIoReader } from '../counters/virt-net-io.ts'
import { virtNodeReader } from '../counters/virt-node.ts'
import type { Poller } from '../datasource/poller.ts'
import type { Ledger } from '../health/ledger.ts'
import type { Logger } from '../health/log.ts'
import type { Interface } from '../interfaces.ts'
import { Cgroups } from '../kernel/cgroup.ts'
import { readKernelUnits, readTextFile, readTextFileIfAny } from '../kernel/files.ts'
import { CONTAINERD_SOCKET, ContainerdRuntime } from '../virtual/containerd.ts'
import { DOCKER_SOCKET, DockerRuntime } from '../virtual/docker.ts'
import { KubernetesRuntime } from '../virtual/kubernetes.ts'
import { LIBVIRT_SOCKETS, LibvirtRuntime } from '../virtual/libvirt.ts'
import { type HostEnd, lookIntoNamespace, type Namespace } from '../virtual/namespace.ts'
import { type Entity, Registry } from '../virtual/registry.ts'
import { type Found, mapSome, type Runtime } from '../virtual/runtime.ts'
import { Search, type SearchStatus } from '../virtual/search.ts'
import { SYSTEM_BUS, SystemdRuntime } from '../virtual/systemd.ts'
import { uuidOfName } from '../virtual/uuid.ts'
import { hostAdapters, hostDescr } from '../wire/sflow/counters/host.ts'

/** The wiring of virtual machines, containers and services: who is looked for, and what is read of each. */

/** Data source of the host as a whole, and the type of those on it. */
const HOST = { type: 2, index: 1 } as const
const LOGICAL = 3
const OS_LINUX = 2

/** The runtimes by what they say of the machine: the first that is looked for counts as its role. */
const ROLES = ['kvm', 'k8s', 'containerd', 'docker', 'systemd'] as const
type RuntimeName = (typeof ROLES)[number]
/** Those whose entities have addresses. A pod has those of its containers. */
const MARKING = ['k8s', 'containerd', 'docker'] as const

const NAMESPACES_AT_ONCE = 2
/** For what all entities ask and hardly ever changes. */
const KEPT_MS = 10_000
/** Devices of a container hardly ever change; searches may follow each other closely. */
const LOOK_AGAIN_MS = 30_000

/** What was seen in the network namespace of an entity, and when. */
interface Look {
  readonly pid: number
  readonly atMs: number
  /** Undefined: it is ours, or cannot be looked into. */
  readonly namespace: Namespace | undefined
}

export interface VirtualSourcesOptions {
  readonly poller: Poller
  readonly ledger: Ledger
  readonly log: Logger
  readonly interfaces: { readonly byIndex: ReadonlyMap<number, HostEnd & { readonly name: string }> }
  /** Names of units and pods are made UUIDs with the address that the agent has then. */
  readonly agentAddress: () => string | undefined
  /** Told of those whose packets are to be marked, by runtime, whenever that may have changed. */
  readonly onMarked: (groups: readonly (readonly AddressedEntity[])[]) => void
  /** Where /proc, /sys and /etc are; `/` if not given. */
  readonly root?: string
}

/** What of the configuration matters here. */
export type VirtualSettings = Pick<Config, 'virtual' | 'polling' | 'uuid'>

export class VirtualSources {
  readonly #options: VirtualSourcesOptions
  readonly #root: string
  readonly #registry: Registry
  readonly #searches = new Map<RuntimeName, { readonly settings: unknown; readonly search: Search }>()
  /** By UUID of the entity. */
  readonly #namespaces = new Map<string, Look>()
  readonly #machine: Pick<GroupFilesOptions, 'cgroups' | 'memory' | 'majors' | 'units'>
  #config: VirtualConfig | undefined
  #pollingMs = 0
  #hostUuid = ''
  /** The agent address that UUIDs are made with: one that changes makes nobody another. */
  #uuidAddress: string | undefined
  /** That namespaces may not be looked into was told. */
  #isRefused = false
  #release = ''
  readonly #podNames = new Map<number, string>()

  constructor(options: VirtualSourcesOptions) {
    this.#options = options
    const { ledger, root = '/' } = options
    this.#root = root
    this.#machine = {
      cgroups: kept(KEPT_MS, () => Cgroups.read(root)),
      memory: kept(
        KEPT_MS,
        async () => parseMeminfo(await readTextFile(root, 'proc/meminfo')).get('MemTotal') ?? 0n,
      ),
      majors: kept(KEPT_MS, async () => parseDeviceMajors(await readTextFileIfAny(root, 'proc/devices'))),
      units: kept(Number.POSITIVE_INFINITY, () => readKernelUnits(root)),
    }
    this.#registry = new Registry({
      ledger,
      onAdded: entity => this.#added(entity),
      onRemoved: entity => this.#removed(entity),
      now: () => performance.now(),
    })
  }

  /** Starts, stops or goes on with other settings; a search whose settings are the same is left alone. */
  async change({ virtual, polling, uuid }: VirtualSettings): Promise<void> {
    this.#config = virtual
    const pollingMs = polling.seconds * 1000
    if (this.#pollingMs !== pollingMs) {
      this.#pollingMs = pollingMs
      for (const { index } of this.#registry.present()) {
        this.#options.poller.changeInterval(LOGICAL, index, pollingMs)
      }
    }
    this.#hostUuid = uuid ?? (await readHostUuid(this.#root))
    for (const name of ROLES) {
      const settings = virtual[name]
      const running = this.#searches.get(name)
      if (isDeepStrictEqual(running?.settings, settings)) continue
      running?.search.stop()
      this.#searches.delete(name)
      // Readers of virtual machines belong to the connection that found them.
      if (settings === undefined || name === 'kvm') this.#registry.forgetAll(name)
      if (settings === undefined) continue
      const search = new Search({
        runtime: this.#runtime(name, virtual)!,
        registry: this.#registry,
        ledger: this.#options.ledger,
        log: this.#options.log,
        refreshMs: settings.refreshSeconds * 1000,
        forgetMs: settings.forgetSeconds * 1000,
        prepare: found => this.#prepare(found),
        onDone: () => this.#found(),
      })
      this.#searches.set(name, { settings, search })
      search.start()
    }
    this.#found()
  }

  /** May be called twice. */
  stop(): void {
    for (const { search } of this.#searches.values()) search.stop()
  }

  /** What the data source of the host has more because others run on it. */
  hostReaders(): CounterReader[] {
    return [
      virtNodeReader(this.#root, () => {
        const role = ROLES.find(name => this.#searches.has(name))
        return role && this.#registry.present(role).length
      }),
    ]
  }

  /** An interface by the name of the pod at its other end, if there is one and pods are to name interfaces. */
  named(port: Interface | undefined): Interface | undefined {
    const name = port === undefined ? undefined : this.#podNames.get(port.ifIndex)
    return name === undefined ? port : { ...port!, name }
  }

  /** Undefined when nothing is looked for. */
  status(): SearchStatus[] | undefined {
    if (this.#searches.size === 0) return undefined
    return [...this.#searches.values()].map(({ search }) => search.status())
  }

  #runtime(name: RuntimeName, virtual: VirtualConfig): Runtime | undefined {
    return openRuntime(name, virtual, {
      root: this.#root,
      uuidOf: text => {
        this.#uuidAddress ??= this.#options.agentAddress()
        return uuidOfName(this.#hostUuid, text, this.#uuidAddress)
      },
      ifIndexOf: device => {
        for (const { ifIndex, name } of this.#options.interfaces.byIndex.values()) {
          if (name === device) return ifIndex
        }
        return 0
      },
    })
  }

  /** Looks into the network namespaces before the first poll, and again from time to time. */
  async #prepare(found: readonly Found[]): Promise<void> {
    const { interfaces, log } = this.#options
    this.#release = (await readTextFile(this.#root, 'proc/sys/kernel/osrelease')).text.trim()
    await mapSome(found, NAMESPACES_AT_ONCE, async ({ uuid, pid, name }) => {
      if (pid === undefined) return
      const atMs = performance.now()
      const before = this.#namespaces.get(uuid)
      if (before?.pid === pid && atMs - before.atMs < LOOK_AGAIN_MS) return
      let namespace: Namespace | undefined
      try {
        namespace = await lookIntoNamespace(this.#root, pid, () => interfaces.byIndex.values())
      } catch (error) {
        // It may have ended meanwhile; what was known of it is no longer true.
        const { code, message } = error as NodeJS.ErrnoException
        log.debug({ part: 'virtual', name }, message)
        if ((code === 'EPERM' || code === 'EACCES') && !this.#isRefused) {
          this.#isRefused = true
          const needs = 'it needs CAP_SYS_ADMIN and CAP_SYS_PTRACE'
          log.warn({ part: 'virtual' }, `containers have no adapters and no traffic: ${message}; ${needs}`)
        }
      }
      this.#namespaces.set(uuid, { pid, atMs, namespace })
    })
  }

  #added(entity: Entity): void {
    const { found, index } = entity
    const own = found.readers ?? this.#readers(entity)
    const readers = [this.#descrReader(entity), ...own, hostParentReader(HOST.type, HOST.index)]
    this.#options.poller.add({ type: LOGICAL, index, intervalMs: this.#pollingMs, readers })
  }

  #removed({ index, uuid }: Entity): void {
    this.#namespaces.delete(uuid)
    this.#options.poller.remove(LOGICAL, index)
  }

  /** A virtual machine has an operating system of its own; containers and services have ours. */
  #descrReader(entity: Entity): CounterReader {
    return {
      record: hostDescr,
      read: async () => {
        const { found, name, uuid } = entity
        const ours = { machine_type: machineType(machine()), os_name: OS_LINUX, os_release: this.#release }
        const unknown = { machine_type: 0, os_name: 0, os_release: '' }
        return { hostname: name, uuid, ...(found.readers === undefined ? ours : unknown) }
      },
    }
  }

  #readers(entity: Entity): CounterReader[] {
    const files = new GroupFiles({
      root: this.#root,
      ...this.#machine,
      entity: () => entity.found,
      processes: () => entity.found.processes,
    })
    const namespace = () => this.#namespaces.get(entity.uuid)?.namespace
    return [
      {
        record: hostAdapters,
        read: async () => {
          const adapters = namespace()?.adapters
          return (
            adapters && { adapters: adapters.map(({ ifIndex, mac }) => ({ ifIndex, mac_address: [mac] })) }
          )
        },
      },
      virtCpuReader(files),
      virtMemoryReader(files),
      virtDiskIoReader(files),
      virtNetIoReader(this.#root, () => namespace()?.devices),
    ]
  }

  /** Who is there may have changed. */
  #found(): void {
    this.#podNames.clear()
    if (this.#config?.k8s?.setIfName) {
      for (const { uuid, name } of this.#registry.present('k8s')) {
        for (const { ifIndex } of this.#namespaces.get(uuid)?.namespace?.adapters ?? []) {
          if (ifIndex > 0) this.#podNames.set(ifIndex, name)
        }
      }
    }
    const marking = MARKING.filter(name => this.#config?.[name]?.markTraffic === true)
    this.#options.onMarked(marking.map(name => this.#registry.present(name).map(one => this.#addressed(one))))
  }

  #addressed({ uuid, index }: Entity): AddressedEntity {
    const namespace = this.#namespaces.get(uuid)?.namespace
    return {
      index,
      addresses: namespace?.addresses ?? [],
      macs: namespace?.adapters.map(({ mac }) => mac) ?? [],
    }
  }
}

/** What a runtime of the configuration has now. */
export interface FoundRuntime {
  /** As in the configuration: `docker`. */
  readonly runtime: string
  /** What it has: `containers`. */
  readonly things: string
  /** How many; undefined when it cannot be asked. */
  readonly count: number | undefined
  /** Why it cannot be asked, and what to do. */
  readonly problem: string | undefined
}

/** Asks each runtime of a configuration once. Never rejects, and takes seconds at most. */
export function findRuntimes(virtual: VirtualConfig): Promise<FoundRuntime[]> {
  const surroundings = { root: '/', uuidOf: (name: string) => name, ifIndexOf: () => 0 }
  const runtimes = ROLES.map(name => openRuntime(name, virtual, surroundings)).filter(
    one => one !== undefined,
  )
  return Promise.all(
    runtimes.reverse().map(async runtime => {
      const { name, things } = runtime
      try {
        const { length } = await runtime.list()
        return { runtime: name, things, count: length, problem: undefined }
      } catch (error) {
        return { runtime: name, things, count: undefined, problem: (error as Error).message }
      } finally {
        runtime.close()
      }
    }),
  )
}

/** What runtimes need of the machine. */
export interface RuntimeSurroundings {
  readonly root: string
  readonly uuidOf: (name: string) => string
  /** 0 for a device that there is not. */
  readonly ifIndexOf: (device: string) => number
}

/** The runtime of a block of the configuration; undefined without the block. Nothing is opened yet. */
function openRuntime(
  name: RuntimeName,
  virtual: VirtualConfig,
  { root, uuidOf, ifIndexOf }: RuntimeSurroundings,
): Runtime | undefined {
  const { systemd, docker, containerd, k8s, kvm } = virtual
  switch (name) {
    case 'systemd':
      return (
        systemd &&
        new SystemdRuntime({ path: systemd.socket ?? SYSTEM_BUS, processes: systemd.processes, uuidOf })
      )
    case 'docker':
      return (
        docker && new DockerRuntime({ root, path: docker.socket ?? DOCKER_SOCKET, hostname: docker.hostname })
      )
    case 'containerd':
      return (
        containerd &&
        new ContainerdRuntime({
          root,
          path: containerd.socket ?? CONTAINERD_SOCKET,
          hostname: containerd.hostname,
          uuidOf,
        })
      )
    case 'k8s':
      return k8s && new KubernetesRuntime({ root, path: k8s.socket, uuidOf })
    case 'kvm':
      return (
        kvm &&
        new LibvirtRuntime({
          paths: kvm.socket === undefined ? LIBVIRT_SOCKETS : [kvm.socket],
          uri: kvm.uri,
          ifIndexOf,
        })
      )
  }
}
