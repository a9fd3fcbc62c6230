/**
 * BPF programs and their maps, by libbpf in the native part (native/bpf). What the programs do is known by those
 * who load them.
 */
import { setTimeout } from 'node:timers/promises'
import { loadAddon } from './addon.ts'
import { errnoName, SystemError } from './native.ts'

/** An object in the addon; what it holds is given back at the latest when this is collected. */
interface Handle {
  readonly brand: unique symbol
}

/** The addon. Numbers are results, or a negative errno. Contracts: native/bpf/*.c. */
interface Addon {
  create(): Handle | number
  open(handle: Handle, bytes: Uint8Array): number
  setConstants(handle: Handle, map: string, bytes: Uint8Array): number
  setAutoload(handle: Handle, program: string, wanted: number): number
  log(handle: Handle): string
  programDescriptor(handle: Handle, program: string): number
  load(handle: Handle): Promise<number> | number
  attach(handle: Handle, program: string, how: number, ifIndex: number): Promise<number> | number
  detach(handle: Handle, attachment: number): Promise<number> | number
  close(handle: Handle): Promise<number> | number
  lookup(handle: Handle, map: string, key: Uint8Array, value: Uint8Array): number
  update(handle: Handle, map: string, key: Uint8Array, value: Uint8Array): number
  remove(handle: Handle, map: string, key: Uint8Array): number
  mapEntries(handle: Handle, map: string): number
  mapMemory(
    handle: Handle,
    map: string,
    offset: number,
    bytes: number,
    writable: number,
  ): ArrayBuffer | number
  possibleCpus(): number
  pageSize(): number
  clockOffset(): bigint
  watch(handle: Handle, map: string, callback: () => void): number
  arm(handle: Handle): number
}

const ATTACH = { tracing: 0, tcx: 1 } as const
const ENOENT = 2

let loaded: Addon | undefined

function addon(): Addon {
  loaded ??= loadAddon('bpf') as Addon
  return loaded
}

/** What the kernel or libbpf has against an object; the message has the one line of the log that tells most. */
export class BpfError extends SystemError {
  /** All that libbpf and the verifier said; may be empty. */
  readonly log: string

  constructor(errno: number, operation: string, log: string) {
    super(errno, operation, reason(errno, log))
    this.name = 'BpfError'
    this.log = log
  }
}

function reason(errno: number, log: string): string | undefined {
  if (errnoName(errno) === 'EPERM') return 'needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN'
  if (log.includes('kernel BTF is missing'))
    return 'the kernel tells nothing of its types (CONFIG_DEBUG_INFO_BTF, /sys/kernel/btf/vmlinux)'
  // Only lock-down takes this helper from tracing programs (kernel/trace/bpf_trace.c).
  if (/(unknown func|cannot use helper) bpf_probe_read/.test(log))
    return 'the kernel is locked down for confidentiality: start it with lockdown=integrity, or without'
  return tellingLine(log)
}

/**
 * The line of a log that says what is wrong: the verifier's last one before its statistics, or else the first one of
 * libbpf, without the name that libbpf gives itself. Undefined when the log is empty.
 */
export function tellingLine(log: string): string | undefined {
  const verifier = /-- BEGIN PROG LOAD LOG --\n(.*?)-- END PROG LOAD LOG --/s.exec(log)?.[1] ?? ''
  const verdict = verifier.split('\n').filter(line => line !== '' && !/^processed \d+ insns/.test(line))
  const line = verdict.at(-1) ?? log.split('\n')[0]!
  return line.replace(/^libbpf: /, '').trim() || undefined
}

export interface BpfObjectOptions {
  /** For errors, as `sample.bpf.o`. */
  readonly name: string
  /** The ELF file that clang made. */
  readonly bytes: Uint8Array
  /** Data sections whose content is replaced before the programs are loaded, whole: `.rodata`. */
  readonly constants?: Readonly<Record<string, Uint8Array>>
  /** Programs that are left out. */
  readonly without?: readonly string[]
}

/**
 * A loaded object. Errors of the kernel are thrown as BpfError; a closed object answers EBADF. What may wait for
 * the kernel is done on the thread pool, one after the other.
 */
export class BpfObject {
  readonly name: string
  readonly #handle: Handle
  #jobs: Promise<unknown> = Promise.resolve()

  /** Verifies and loads the programs; nothing is attached. */
  static async load(options: BpfObjectOptions): Promise<BpfObject> {
    const { name, bytes, constants = {}, without = [] } = options
    const native = addon()
    const handle = native.create()
    if (typeof handle === 'number') throw new SystemError(-handle, `make room for ${name}`)
    const object = new BpfObject(name, handle)
    object.#check(native.open(handle, bytes), `read ${name}`)
    for (const [map, content] of Object.entries(constants)) {
      object.#check(native.setConstants(handle, map, content), `set ${map} of ${name}`)
    }
    for (const program of without) {
      object.#check(native.setAutoload(handle, program, 0), `leave out ${program} of ${name}`)
    }
    await object.#job(() => native.load(handle), `load ${name}`)
    return object
  }

  private constructor(name: string, handle: Handle) {
    this.name = name
    this.#handle = handle
  }

  /** Attaches a program to an interface by TCX, before all others (Linux 6.6; EINVAL before). Gives a number for detach(). */
  attachTcx(program: string, ifIndex: number): Promise<number> {
    const attach = () => addon().attach(this.#handle, program, ATTACH.tcx, ifIndex)
    return this.#job(attach, `attach ${program}`)
  }

  /** Attaches a program to the trace point that its section names. Gives a number for detach(). */
  attachTracing(program: string): Promise<number> {
    return this.#job(() => addon().attach(this.#handle, program, ATTACH.tracing, 0), `attach ${program}`)
  }

  async detach(attachment: number): Promise<void> {
    await this.#job(() => addon().detach(this.#handle, attachment), 'detach')
  }

  /** Detaches everything and gives back programs and maps; mapped memory stays until it is collected. */
  async close(): Promise<void> {
    await this.#job(() => addon().close(this.#handle), `close ${this.name}`)
  }

  /** The program's descriptor, which stays the object's own. */
  programDescriptor(program: string): number {
    return this.#check(addon().programDescriptor(this.#handle, program), `find ${program}`)
  }

  /** Copies the value of a key into `value`; of a per-CPU map one value for each possible CPU. False: no such key. */
  lookup(map: string, key: Uint8Array, value: Uint8Array): boolean {
    const result = addon().lookup(this.#handle, map, key, value)
    if (result === -ENOENT) return false
    this.#check(result, `look up in ${map}`)
    return true
  }

  update(map: string, key: Uint8Array, value: Uint8Array): void {
    this.#check(addon().update(this.#handle, map, key, value), `update ${map}`)
  }

  /** False: no such key. */
  remove(map: string, key: Uint8Array): boolean {
    const result = addon().remove(this.#handle, map, key)
    if (result === -ENOENT) return false
    this.#check(result, `remove from ${map}`)
    return true
  }

  /** Most entries of a map; of a ring buffer, its bytes. */
  entries(map: string): number {
    return this.#check(addon().mapEntries(this.#handle, map), `ask for the size of ${map}`)
  }

  /** The memory of a map, shared with the kernel. To write to it without having asked for `writable` is fatal. */
  memory(map: string, offset: number, bytes: number, access: 'readable' | 'writable'): ArrayBuffer {
    const writable = access === 'writable' ? 1 : 0
    const memory = addon().mapMemory(this.#handle, map, offset, bytes, writable)
    if (typeof memory === 'number') throw new SystemError(-memory, `map the memory of ${map}`)
    return memory
  }

  /** Makes `onReadable` be called once after each arm(), when the ring buffer is not empty or next becomes so. */
  watch(map: string, onReadable: () => void): void {
    this.#check(addon().watch(this.#handle, map, onReadable), `watch ${map}`)
  }

  /** Keeps the event loop alive until the call has come or the object is closed. */
  arm(): void {
    this.#check(addon().arm(this.#handle), 'wait for the ring buffer')
  }

  #job(start: () => Promise<number> | number, operation: string): Promise<number> {
    const job = this.#jobs.then(async () => this.#check(await start(), operation))
    this.#jobs = job.catch(() => {})
    return job
  }

  #check(result: number, operation: string): number {
    if (result < 0) throw new BpfError(-result, operation, addon().log(this.#handle))
    return result
  }
}

/** Longest wait of patiently() before a last attempt, milliseconds: about a second in all. */
const LAST_WAIT_MS = 512

/**
 * Does an update of a map, again after short waits while the kernel has no memory: its reserve for entries of maps that are
 * not preallocated is soon filled again in the background (kernel/bpf/memalloc.c, mm/percpu.c).
 */
export async function patiently(update: () => void): Promise<void> {
  for (let waitMs = 1; ; waitMs *= 2) {
    try {
      return update()
    } catch (error) {
      if (!(error instanceof BpfError) || error.code !== 'ENOMEM' || waitMs > LAST_WAIT_MS) throw error
      await setTimeout(waitMs)
    }
  }
}

/** Processors that the kernel may ever have: as many values has each key of a per-CPU map. */
export function possibleCpus(): number {
  return addon().possibleCpus()
}

/** Bytes of a page of memory. */
export function pageSize(): number {
  return addon().pageSize()
}

/** Nanoseconds from CLOCK_MONOTONIC, which BPF programs read, to the time of day. Changes when the clock is set. */
export function clockOffset(): bigint {
  return addon().clockOffset()
}
