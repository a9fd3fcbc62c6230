import { existsSync } from 'node:fs'
import { type CounterReader, shared } from '../counters/reader.ts'
import { low32 } from '../kernel/files.ts'
import {
  LIBVIRT_PROCEDURE,
  type LibvirtDomain,
  type LibvirtRecord,
  type LibvirtStats,
  libvirtArguments,
  readDomainStats,
  readText,
} from '../wire/libvirt.ts'
import { hostAdapters } from '../wire/sflow/counters/host.ts'
import { virtCpu, virtDiskIo, virtMemory, virtNetIo } from '../wire/sflow/counters/virtual.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import { LibvirtConnection } from './libvirt-connection.ts'
import { connectionError, type Found, REQUEST_TIMEOUT_MS, type Runtime } from './runtime.ts'

/** The running domains of libvirt, asked over its own protocol. Their figures come from one question for all of them. */

/** Read-only sockets: of the daemon for QEMU alone, and of the one for all drivers. */
export const LIBVIRT_SOCKETS = ['/run/libvirt/virtqemud-sock-ro', '/run/libvirt/libvirt-sock-ro'] as const

export interface LibvirtOptions {
  /** The first of these that there is. */
  readonly paths: readonly string[]
  /** Driver to open. */
  readonly uri: string
  /** The interface of this host with that name; 0 for none. */
  readonly ifIndexOf: (device: string) => number
}

/** Groups of figures (virDomainStatsTypes): state, CPU, balloon, VCPUs, interfaces, disks. */
const GROUPS = 1 | 2 | 4 | 8 | 16 | 32
/** VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE, and …_NOWAIT: a domain that is being changed holds up no others. */
const ACTIVE = 1
const NOWAIT = 1 << 29

export class LibvirtRuntime implements Runtime {
  readonly name = 'kvm'
  readonly things = 'virtual machines'
  readonly #options: LibvirtOptions
  #connection: LibvirtConnection | undefined
  #opening: Promise<LibvirtConnection> | undefined
  /** The XML of a domain is asked for once while it runs; it tells the addresses of its interfaces. */
  #macs = new Map<string, ReadonlyMap<string, string>>()
  /** Figures of all domains; those who ask together share the answer. */
  readonly #figures = shared(async () => {
    const records = await this.#askFigures()
    return new Map(records.map(record => [record.domain.uuid, record.stats]))
  })

  constructor(options: LibvirtOptions) {
    this.#options = options
  }

  async list(): Promise<Found[]> {
    const { paths } = this.#options
    const path = this.#path
    try {
      const records = await this.#askFigures()
      const macs = new Map<string, ReadonlyMap<string, string>>()
      for (const { domain, stats } of records) {
        const known = this.#macs.get(domain.uuid)
        const isKnown = known !== undefined && netNames(stats).every(name => known.has(name))
        macs.set(domain.uuid, isKnown ? known : await this.#askMacs(domain))
      }
      this.#macs = macs
      return records.map(({ domain, stats }) => ({
        uuid: domain.uuid,
        name: domain.name,
        state: stateOf(stats),
        groups: [],
        pid: undefined,
        readers: this.#readers(domain.uuid),
      }))
    } catch (error) {
      this.close()
      const advice = `is libvirt running? (${paths.join(', ')}) If its socket is elsewhere, write kvm { socket = PATH }`
      throw connectionError(error, 'libvirt', path, advice)
    }
  }

  close(): void {
    this.#connection?.close()
    this.#connection = undefined
  }

  get #path(): string {
    const { paths } = this.#options
    return paths.find(name => existsSync(name)) ?? paths[0]!
  }

  async #open(): Promise<LibvirtConnection> {
    if (this.#connection?.isOpen) return this.#connection
    this.#opening ??= LibvirtConnection.open(this.#path, REQUEST_TIMEOUT_MS, this.#options.uri).finally(
      () => {
        this.#opening = undefined
      },
    )
    this.#connection = await this.#opening
    return this.#connection
  }

  async #askFigures(): Promise<LibvirtRecord[]> {
    const connection = await this.#open()
    const noDomains = 0
    const args = (flags: number) => libvirtArguments(noDomains, GROUPS, flags)
    const ask = (flags: number) =>
      connection.call(LIBVIRT_PROCEDURE.connectGetAllDomainStats, 'figures of all domains', args(flags))
    // Libvirt before 4.5 refuses what it does not know.
    const body = await ask(ACTIVE | NOWAIT).catch((error: Error) => {
      if (/flag/i.test(error.message)) return ask(ACTIVE)
      throw error
    })
    return readDomainStats(body)
  }

  async #askMacs(domain: LibvirtDomain): Promise<ReadonlyMap<string, string>> {
    const connection = await this.#open()
    const noFlags = 0
    try {
      const args = libvirtArguments(domain.handle, noFlags)
      return macsIn(
        readText(await connection.call(LIBVIRT_PROCEDURE.domainGetXmlDesc, 'description', args), 'XML'),
      )
    } catch (error) {
      // A domain that ended meanwhile; the others are no worse for it.
      if (connection.isOpen) return new Map()
      throw error
    }
  }

  #readers(uuid: string): CounterReader[] {
    const stats = async () => (await this.#figures()).get(uuid)
    const reader = <R extends CounterReader['record'], T>(record: R, value: (stats: LibvirtStats) => T) => ({
      record,
      read: async () => {
        const now = await stats()
        return now && value(now)
      },
    })
    const { ifIndexOf } = this.#options
    return [
      reader(hostAdapters, now => ({
        adapters: netNames(now).flatMap(device => {
          const mac = this.#macs.get(uuid)?.get(device)
          return mac === undefined ? [] : [{ ifIndex: ifIndexOf(device), mac_address: [mac] }]
        }),
      })),
      reader(virtCpu, now => ({
        state: stateOf(now),
        cpuTime: low32(number(now, 'cpu.time') / 1_000_000n),
        nrVirtCpu: Number(number(now, 'vcpu.current')),
      })),
      reader(virtMemory, now => ({
        memory: number(now, 'balloon.current') * 1024n,
        maxMemory: number(now, 'balloon.maximum') * 1024n,
      })),
      reader(virtDiskIo, diskIo),
      reader(virtNetIo, now => {
        const sum = (field: string) =>
          indexes(now, 'net').reduce((total, i) => total + number(now, `net.${i}.${field}`), 0n)
        // A domain's figures are the guest's own: what it received is rx, whichever way the tap of the host counts.
        return {
          bytes_in: sum('rx.bytes'),
          pkts_in: low32(sum('rx.pkts')),
          errs_in: low32(sum('rx.errs')),
          drops_in: low32(sum('rx.drop')),
          bytes_out: sum('tx.bytes'),
          pkts_out: low32(sum('tx.pkts')),
          errs_out: low32(sum('tx.errs')),
          drops_out: low32(sum('tx.drop')),
        }
      }),
    ]
  }
}

/** Disks together. What is left of them is the capacity without what is allocated, as hsflowd has it. */
function diskIo(stats: LibvirtStats) {
  const disks = indexes(stats, 'block')
  const sum = (field: string) => disks.reduce((total, i) => total + number(stats, `block.${i}.${field}`), 0n)
  const capacity = sum('capacity')
  const allocation = sum('allocation')
  const hasErrors = disks.some(i => stats.has(`block.${i}.errors`))
  return {
    capacity,
    allocation,
    available: capacity > allocation ? capacity - allocation : 0n,
    rd_req: low32(sum('rd.reqs')),
    rd_bytes: sum('rd.bytes'),
    wr_req: low32(sum('wr.reqs')),
    wr_bytes: sum('wr.bytes'),
    errs: hasErrors ? low32(sum('errors')) : UNKNOWN32,
  }
}

/** A state of libvirt's that sFlow has no number for (suspended) is none. */
function stateOf(stats: LibvirtStats): number {
  const state = Number(number(stats, 'state.state'))
  return state <= 6 ? state : 0
}

function number(stats: LibvirtStats, name: string): bigint {
  const value = stats.get(name)
  if (typeof value === 'bigint') return value < 0n ? 0n : value
  return typeof value === 'number' && Number.isInteger(value) && value > 0 ? BigInt(value) : 0n
}

/** A device belongs to a domain once; a domain has no more than this. */
const MOST_DEVICES = 64

function indexes(stats: LibvirtStats, group: 'net' | 'block'): number[] {
  const count = Number(number(stats, `${group}.count`))
  return Array.from({ length: Math.min(count, MOST_DEVICES) }, (_, i) => i)
}

function netNames(stats: LibvirtStats): string[] {
  return indexes(stats, 'net').flatMap(i => {
    const name = stats.get(`net.${i}.name`)
    return typeof name === 'string' ? [name] : []
  })
}

/** The MAC address of each device of the host, from the description of a domain. */
export function macsIn(xml: string): Map<string, string> {
  const macs = new Map<string, string>()
  for (const part of xml.split(/<interface[\s>]/).slice(1)) {
    const inside = part.split('</interface>')[0]!
    const mac = /<mac\s[^>]*address=['"]([0-9a-f]{2}(?::[0-9a-f]{2}){5})['"]/i.exec(inside)?.[1]
    const device = /<target\s[^>]*dev=['"]([^'"]{1,15})['"]/.exec(inside)?.[1]
    if (mac !== undefined && device !== undefined) macs.set(device, mac.toLowerCase())
  }
  return macs
}
