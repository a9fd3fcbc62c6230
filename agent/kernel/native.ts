/**
 * The native part (native/socket): sockets as descriptors and batches. This file gives the addon's
 * functions types and turns error numbers into errors; what the bytes mean is known by those who call it.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { constants as osConstants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { loadAddon } from './addon.ts'

/** A socket in the addon; its descriptor is closed at the latest when this is collected. */
interface Handle {
  readonly brand: unique symbol
}

/** The addon. Numbers are results of the system call, or a negative errno. Contracts: native/socket/*.c. */
interface Addon {
  open(domain: number, type: number, protocol: number, namespaceDescriptor: number): Handle | number
  close(handle: Handle): number
  bind(handle: Handle, address: Uint8Array): number
  connect(handle: Handle, address: Uint8Array): number
  name(handle: Handle, address: Uint8Array): number
  setOption(handle: Handle, level: number, option: number, value: Uint8Array): number
  getOption(handle: Handle, level: number, option: number, value: Uint8Array): number
  attachFilter(handle: Handle, instructions: Uint8Array): number
  receive(
    handle: Handle,
    slots: number,
    stride: number,
    headroom: number,
    controlBytes: number,
    batches: number,
    callback: (count: number) => void,
  ): ArrayBuffer | number
  sendBatch(handle: Handle, memory: ArrayBuffer, spans: Int32Array, first: number, count: number): number
  sendAsync(handle: Handle, bytes: Uint8Array, receiveAfterwards: boolean): Promise<number> | number
  control(handle: Handle, request: number, name: Uint8Array, bytes: Uint8Array): Promise<number> | number
}

/** setns() failed rather than socket(): the addon gives its errno beyond the range of errno values. */
const MOST_ERRNO = 4095

const SOL_SOCKET = 1
const SO_SNDBUF = 7
const SO_RCVBUF = 8
const SO_SNDBUFFORCE = 32
const SO_RCVBUFFORCE = 33

/** What the kernel answered to a system call. */
export class SystemError extends Error {
  /** Name of the errno, as `EPERM`. */
  readonly code: string
  /** Positive errno. */
  readonly errno: number
  /** What was being done, as `bind to eth0`. */
  readonly operation: string

  /** `hint`: what is needed, as `needs CAP_NET_RAW`. */
  constructor(errno: number, operation: string, hint?: string) {
    super(`${operation}: ${errnoText(errno)}${hint === undefined ? '' : `: ${hint}`}`)
    this.name = 'SystemError'
    this.code = errnoName(errno)
    this.errno = errno
    this.operation = operation
  }
}

const errnoNames = new Map<number, string>()
// Where two names share a number the first is the kernel's own: EAGAIN, EOPNOTSUPP.
errnoNames.set(osConstants.errno.EAGAIN, 'EAGAIN').set(osConstants.errno.EOPNOTSUPP, 'EOPNOTSUPP')
for (const [name, errno] of Object.entries(osConstants.errno)) {
  if (!errnoNames.has(errno)) errnoNames.set(errno, name)
}

/** The name of an errno, as `EPERM`. */
export function errnoName(errno: number): string {
  return errnoNames.get(errno) ?? `errno ${errno}`
}

/** Name and meaning of an errno, as `EPERM (operation not permitted)`. */
function errnoText(errno: number): string {
  const known = getSystemErrorMap().get(-errno)
  return known === undefined ? errnoName(errno) : `${errnoName(errno)} (${known[1]})`
}

let loaded: Addon | undefined

/** The addon, loaded on first use. */
function addon(): Addon {
  loaded ??= loadAddon('socket') as Addon
  return loaded
}

/** Where the words of a slot's description are, in `ReceivedBatch.meta`. */
export const META = { words: 4, length: 0, flags: 1, addressLength: 2, controlLength: 3 } as const

/** Flag of a slot: the message was longer than the slot. */
export const MSG_TRUNC = 0x20

const ADDRESS_BYTES = 32

export interface ReceiveOptions {
  /** Messages of a batch at most, 1 to 1024. */
  readonly slots: number
  /** Bytes of one slot, headroom included; a multiple of 8, at most 1 MiB. Bytes never used cost no memory. */
  readonly slotBytes: number
  /** Bytes left free before each message; default 0. */
  readonly headroom?: number
  /** Bytes for control messages of a slot, a multiple of 8; default 0. */
  readonly controlBytes?: number
  /** Batches per wake-up of the event loop, default 8: after that, others get their turn. */
  readonly batches?: number
}

/**
 * The memory into which batches are received: the same for the life of the socket, filled again by each batch.
 * All offsets are in bytes from the start of `memory`; they are multiples of 8 if the headroom is.
 */
export interface ReceiveMemory {
  readonly memory: ArrayBuffer
  readonly view: DataView
  /** The same memory as words. */
  readonly words: Int32Array
  /** `META.words` words for each slot, from the first word of `memory` on. */
  readonly meta: Int32Array
  /** Sender address of slot 0, and bytes from one slot's to the next. */
  readonly addressOffset: number
  readonly addressStride: number
  /** Control messages of slot 0, and bytes from one slot's to the next. */
  readonly controlOffset: number
  readonly controlStride: number
  /** Message of slot 0 (its headroom is before it), and bytes from one slot's to the next. */
  readonly dataOffset: number
  readonly dataStride: number
}

/** What a forced buffer came to. */
export interface GrantedBuffer {
  /** Bytes, as given to SO_RCVBUFFORCE or SO_SNDBUFFORCE. */
  readonly asked: number
  /** Bytes in the same measure; the kernel counts its own overhead in and allows twice as much. */
  readonly granted: number
  /** False: CAP_NET_ADMIN (of the initial user namespace) is missing and the system's limit applied. */
  readonly forced: boolean
  /** What to tell the operator when less was granted than asked. */
  readonly warning: string | undefined
}

/** One socket. Errors of system calls are thrown as SystemError; a closed socket answers EBADF. */
export class KernelSocket {
  readonly #addon: Addon
  readonly #handle: Handle

  private constructor(native: Addon, handle: Handle) {
    this.#addon = native
    this.#handle = handle
  }

  /**
   * Opens a non-blocking socket; `what` names it in the error. `namespace` is a name under /var/run/netns or a
   * path: the socket then belongs to that network namespace for good.
   */
  static open(
    what: string,
    domain: number,
    type: number,
    protocol: number,
    namespace?: string | undefined,
  ): KernelSocket {
    const native = addon()
    const descriptor = namespace === undefined ? -1 : openNamespace(namespace)
    try {
      const handle = native.open(domain, type, protocol, descriptor)
      if (typeof handle !== 'number') return new KernelSocket(native, handle)
      if (handle < -MOST_ERRNO) {
        const errno = -handle - MOST_ERRNO
        throw new SystemError(errno, `enter network namespace ${namespace}`, needs(errno, 'CAP_SYS_ADMIN'))
      }
      // Of the sockets there are here only packet sockets need a capability (packet(7)).
      throw new SystemError(-handle, `open ${what}`, needs(-handle, 'CAP_NET_RAW'))
    } finally {
      if (descriptor >= 0) closeSync(descriptor)
    }
  }

  /** `address` is a sockaddr; `operation` is for the error, as `bind to eth0`. */
  bind(address: Uint8Array, operation: string): void {
    check(this.#addon.bind(this.#handle, address), operation)
  }

  connect(address: Uint8Array, operation: string): void {
    check(this.#addon.connect(this.#handle, address), operation)
  }

  /** The socket's own address. */
  name(): Uint8Array {
    const address = new Uint8Array(128)
    return address.subarray(0, check(this.#addon.name(this.#handle, address), 'read the socket address'))
  }

  /** A number is given to the kernel as an int. */
  setOption(level: number, option: number, value: number | Uint8Array, operation: string): void {
    check(this.#addon.setOption(this.#handle, level, option, optionBytes(value)), operation)
  }

  /** The value of an option, at most `bytes` bytes. */
  getOption(level: number, option: number, bytes: number, operation: string): DataView {
    const value = new Uint8Array(bytes)
    const length = check(this.#addon.getOption(this.#handle, level, option, value), operation)
    return new DataView(value.buffer, 0, length)
  }

  /** Replaces the socket filter by these instructions of classic BPF (struct sock_filter, 8 bytes each). */
  attachFilter(instructions: Uint8Array, operation: string): void {
    check(this.#addon.attachFilter(this.#handle, instructions), operation)
  }

  /** Asks for a receive buffer of `bytes` bytes, beyond the system's limit where the capability is there. */
  forceReceiveBuffer(bytes: number): GrantedBuffer {
    return this.#forceBuffer(bytes, SO_RCVBUFFORCE, SO_RCVBUF, 'receive buffer', 'net.core.rmem_max')
  }

  /** Likewise for the send buffer. */
  forceSendBuffer(bytes: number): GrantedBuffer {
    return this.#forceBuffer(bytes, SO_SNDBUFFORCE, SO_SNDBUF, 'send buffer', 'net.core.wmem_max')
  }

  /**
   * Starts receiving: `onBatch` is called with the number of messages in the slots, or with a negative errno that
   * the socket reported. The slots are its until it returns. Keeps the event loop alive until close().
   */
  receive(options: ReceiveOptions, onBatch: (count: number) => void): ReceiveMemory {
    const { slots, slotBytes, headroom = 0, controlBytes = 0, batches = 8 } = options
    const memory = this.#addon.receive(
      this.#handle,
      slots,
      slotBytes,
      headroom,
      controlBytes,
      batches,
      onBatch,
    )
    if (typeof memory === 'number') throw new SystemError(-memory, 'start receiving')
    const metaBytes = META.words * 4
    return {
      memory,
      view: new DataView(memory),
      words: new Int32Array(memory),
      meta: new Int32Array(memory, 0, slots * META.words),
      addressOffset: slots * metaBytes,
      addressStride: ADDRESS_BYTES,
      controlOffset: slots * (metaBytes + ADDRESS_BYTES),
      controlStride: controlBytes,
      dataOffset: slots * (metaBytes + ADDRESS_BYTES + controlBytes) + headroom,
      dataStride: slotBytes,
    }
  }

  /**
   * Sends `count` datagrams from datagram `first` on, on a connected socket: their bytes are in `memory` at the
   * offsets and lengths that alternate in `spans`. Returns how many the kernel took, or a negative errno if it
   * refused the first one.
   */
  sendBatch(memory: ArrayBuffer, spans: Int32Array, first: number, count: number): number {
    return this.#addon.sendBatch(this.#handle, memory, spans, first, count)
  }

  /**
   * Sends one message on a thread of the pool, for requests that the kernel executes while it takes them. With
   * `receiveAfterwards` nothing is received meanwhile: many requests that are answered one by one would wake the event
   * loop for each answer. All their answers have to fit into the receive buffer.
   */
  async sendAsync(bytes: Uint8Array, operation: string, receiveAfterwards = false): Promise<void> {
    check(await this.#addon.sendAsync(this.#handle, bytes, receiveAfterwards), operation)
  }

  /**
   * Asks about a network device by ioctl(2) with a struct ifreq whose data are `bytes`, which the answer overwrites. It
   * runs on a thread of the pool. An answer longer than `bytes` is EFAULT.
   */
  async control(request: number, device: string, bytes: Uint8Array, operation: string): Promise<void> {
    const name = new TextEncoder().encode(device)
    check(await this.#addon.control(this.#handle, request, name, bytes), operation)
  }

  /** Closes the descriptor as soon as no send uses it; onBatch is not called again. May be called twice. */
  close(): void {
    this.#addon.close(this.#handle)
  }

  #forceBuffer(asked: number, force: number, plain: number, what: string, sysctl: string): GrantedBuffer {
    const forced = this.#addon.setOption(this.#handle, SOL_SOCKET, force, optionBytes(asked)) === 0
    if (!forced) this.setOption(SOL_SOCKET, plain, asked, `set the ${what}`)
    const granted = this.getOption(SOL_SOCKET, plain, 4, `read the ${what}`).getInt32(0, true) / 2
    const warning =
      granted < asked
        ? `${what} of ${granted} bytes instead of ${asked}: needs CAP_NET_ADMIN, or a larger ${sysctl}`
        : undefined
    return { asked, granted, forced, warning }
  }
}

function needs(errno: number, capability: string): string | undefined {
  return errno === osConstants.errno.EPERM ? `needs ${capability}` : undefined
}

function check(result: number, operation: string): number {
  if (result < 0) throw new SystemError(-result, operation)
  return result
}

function optionBytes(value: number | Uint8Array): Uint8Array {
  return typeof value === 'number' ? new Uint8Array(Int32Array.of(value).buffer) : value
}

function openNamespace(namespace: string): number {
  const path = namespace.includes('/') ? namespace : `/var/run/netns/${namespace}`
  try {
    return openSync(path, constants.O_RDONLY)
  } catch (error) {
    throw new SystemError(-((error as NodeJS.ErrnoException).errno ?? 0), `open network namespace ${path}`)
  }
}
