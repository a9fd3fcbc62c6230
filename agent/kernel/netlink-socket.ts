/**
 * A netlink socket: requests with their answers, dumps, and multicast groups. It knows the envelope of a message
 * and no family. Numbers: include/uapi/linux/netlink.h.
 */
import { constants } from 'node:os'
import { align4, NetlinkFormatError } from '../wire/netlink/attributes.ts'
import {
  type Ack,
  FLAG,
  MESSAGE_TYPE,
  type Message,
  messageFlags,
  messageLength,
  messageSequence,
  messageType,
  readAck,
} from '../wire/netlink/message.ts'
import {
  type GrantedBuffer,
  KernelSocket,
  META,
  MSG_TRUNC,
  type ReceiveMemory,
  SystemError,
} from './native.ts'

export const NETLINK_ROUTE = 0
export const NETLINK_SOCK_DIAG = 4
export const NETLINK_NETFILTER = 12
export const NETLINK_GENERIC = 16

const AF_NETLINK = 16
/** A message with an acknowledgement: header and error number. */
const ACK_LEAST = 20
const SOCK_RAW = 3
const SOL_SOCKET = 1
const SO_MEMINFO = 55
/** Index into what SO_MEMINFO gives (include/uapi/linux/sock_diag.h). */
const SK_MEMINFO_DROPS = 8
const SOL_NETLINK = 270
const OPTION = {
  join: 1,
  leave: 2,
  pktinfo: 3,
  noEnobufs: 5,
  capAck: 10,
  extAck: 11,
  strictCheck: 12,
} as const
const ERRNO = constants.errno

/** Dumps are at most this long in one message; a notification or a single answer may be longer. */
const SLOT_BYTES = 65536
/** cmsghdr (length u64, level i32, type i32) and nl_pktinfo (group u32), padded to 8. */
const CONTROL_BYTES = 24
const CONTROL_GROUP = 16
const DUMP_TRIES = 5
/** Port id of the kernel itself. */
const KERNEL_PORT = 0

/** The kernel's refusal of a request, or that no answer came. */
export class NetlinkError extends SystemError {
  /** The kernel's own words, where it sent some. */
  readonly kernelMessage: string | undefined
  /** Byte offset in the request (its header included) of what was refused, where the kernel tells. */
  readonly offset: number | undefined

  constructor(errno: number, operation: string, kernelMessage?: string, offset?: number) {
    const place = offset === undefined ? '' : `byte offset ${offset} of the request`
    const hint = [kernelMessage, place].filter(Boolean).join(', ')
    super(errno, operation, hint === '' ? undefined : hint)
    this.name = 'NetlinkError'
    this.kernelMessage = kernelMessage
    this.offset = offset
  }
}

export interface NetlinkSocketOptions {
  /** Network namespace: a name under /var/run/netns, or a path. */
  readonly namespace?: string | undefined
  /** Receive buffer in bytes, forced beyond the system's limit where that is allowed. Default: the system's. */
  readonly receiveBytes?: number
  /**
   * Multicasts that find the buffer full are lost one by one and only counted in drops(). Without it the kernel
   * reports the first such loss (onOverrun) and sends nothing more until the buffer has been emptied.
   */
  readonly noEnobufs?: boolean
  /** The kernel refuses what it does not know in a dump's request, instead of ignoring it (Linux 4.20). */
  readonly strictChecking?: boolean
  /** Time for the answer to a request, counted from the call; default 5000. */
  readonly timeoutMs?: number
  /** Multicast groups to join, by number. */
  readonly groups?: readonly number[]
  /** Datagrams of a batch at most; default 16. */
  readonly slots?: number
  /**
   * Batches for each wake-up of the event loop; default 8. The kernel makes each part of a dump while it is received: few
   * slots and one batch keep a dump of thousands of entries from being one long turn.
   */
  readonly batches?: number
  /** Bytes of a datagram at most; default 65536. */
  readonly slotBytes?: number
  /** Takes each message that came by multicast; its bytes are a copy. */
  readonly onNotification?: (message: Message) => void
  /**
   * Takes whole datagrams where they were received, bytes `start` to `end` of `view` (`words` is the same memory),
   * borrowed until it returns; nothing is allocated. Such a socket takes requests that are acknowledged, but no dumps:
   * while one is under way, what begins with an acknowledgement is its answer. post() sends what it is given.
   */
  readonly onDatagram?: (view: DataView, words: Int32Array, start: number, end: number) => void
  /** All datagrams of a batch have been given to onDatagram. */
  readonly onBatchEnd?: () => void
  /** The kernel could not deliver something: whoever keeps a state by notifications must ask for all of it again. */
  readonly onOverrun?: () => void
}

/** Makes something of a message where it was received: bytes `at` to `end` of `view`, borrowed until it returns. */
export type ReadInPlace<T = unknown> = (view: DataView, at: number, end: number) => T

/** A request, or several that are sent as one, that wait for their turn or for their answers. */
interface Operation {
  readonly bytes: Uint8Array
  readonly name: string
  readonly isDump: boolean
  /** Of several requests, an answer for each, or undefined until it comes; undefined when it is one. */
  readonly answers: unknown[] | undefined
  /** Makes something of each message where it was received; without it the messages are copied. */
  readonly read: ReadInPlace | undefined
  readonly resolve: (entries: unknown[]) => void
  readonly reject: (error: Error) => void
  readonly timer: NodeJS.Timeout
  /** 0 until it is sent. Several requests have as many numbers from this one on. */
  sequence: number
  /** Of several requests, those that have no answer yet. */
  unanswered: number
  /** Messages, or what was made of them. */
  entries: unknown[]
  isInterrupted: boolean
  triesLeft: number
}

export class NetlinkSocket {
  /** Port id of the socket: netlink's address, chosen by the kernel. */
  readonly port: number
  /** What the receive buffer came to, if one was asked for. */
  readonly receiveBuffer: GrantedBuffer | undefined
  /** Overruns that the kernel reported; each stands for one or more lost messages. */
  overruns = 0
  /** Datagrams not sent by the kernel; they are ignored. */
  foreign = 0
  /** Datagrams longer than a slot, and notifications that were not netlink: lost. */
  truncated = 0
  malformed = 0

  readonly #socket: KernelSocket
  readonly #options: NetlinkSocketOptions
  readonly #memory: ReceiveMemory
  readonly #timeoutMs: number
  /** Operations in the order of their calls; the first one is under way. */
  readonly #queue: Operation[] = []
  #sequence = 0
  #sending = false
  #closed = false

  /** Opens, binds and starts receiving; what the kernel refuses is a SystemError. */
  static open(protocol: number, options: NetlinkSocketOptions = {}): NetlinkSocket {
    const socket = KernelSocket.open('netlink socket', AF_NETLINK, SOCK_RAW, protocol, options.namespace)
    try {
      return new NetlinkSocket(socket, options)
    } catch (error) {
      socket.close()
      throw error
    }
  }

  private constructor(socket: KernelSocket, options: NetlinkSocketOptions) {
    this.#socket = socket
    this.#options = options
    this.#timeoutMs = options.timeoutMs ?? 5000
    const raw = options.onDatagram !== undefined
    setIfKnown(socket, OPTION.extAck, 'NETLINK_EXT_ACK')
    setIfKnown(socket, OPTION.capAck, 'NETLINK_CAP_ACK')
    if (options.strictChecking) setIfKnown(socket, OPTION.strictCheck, 'NETLINK_GET_STRICT_CHK')
    if (options.noEnobufs) socket.setOption(SOL_NETLINK, OPTION.noEnobufs, 1, 'set NETLINK_NO_ENOBUFS')
    if (!raw) socket.setOption(SOL_NETLINK, OPTION.pktinfo, 1, 'set NETLINK_PKTINFO')
    if (options.receiveBytes !== undefined) {
      this.receiveBuffer = socket.forceReceiveBuffer(options.receiveBytes)
    }
    // struct sockaddr_nl {family u16, padding, port u32, groups u32}; port 0 lets the kernel choose.
    socket.bind(Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 'bind netlink socket')
    const name = socket.name()
    this.port = new DataView(name.buffer, name.byteOffset).getUint32(4, true)
    const { slots = 16, slotBytes = SLOT_BYTES, batches } = options
    const controlBytes = raw ? 0 : CONTROL_BYTES
    const onBatch = raw ? this.#receiveDatagrams : this.#receiveMessages
    const limits = { slots, slotBytes, controlBytes, ...(batches !== undefined && { batches }) }
    this.#memory = socket.receive(limits, onBatch)
    for (const group of options.groups ?? []) this.join(group)
  }

  /** Joins a multicast group; `name` is for the error. */
  join(group: number, name = `${group}`): void {
    this.#socket.setOption(SOL_NETLINK, OPTION.join, group, `join netlink group ${name}`)
  }

  leave(group: number, name = `${group}`): void {
    this.#socket.setOption(SOL_NETLINK, OPTION.leave, group, `leave netlink group ${name}`)
  }

  /** Messages dropped at this socket since it was opened (SO_MEMINFO, Linux 4.12), modulo 2^32. */
  drops(): number {
    const info = this.#socket.getOption(SOL_SOCKET, SO_MEMINFO, 36, 'read socket statistics')
    return info.getUint32(SK_MEMINFO_DROPS * 4, true)
  }

  /**
   * Sends a request and waits until the kernel has acknowledged it; gives the answer, if there is one besides the
   * acknowledgement. A refusal is a NetlinkError. `operation` names the request in it.
   *
   * Requests of one socket are executed one after another, in the order of the calls.
   */
  async request(message: Uint8Array, operation = 'netlink request'): Promise<Message | undefined> {
    const messages = await this.#enqueue(message.slice(), FLAG.ack, operation, false)
    return messages[0] as Message | undefined
  }

  /**
   * Sends several requests as one, each of which is answered by one message (they get something), and gives for each its
   * answer or the kernel's refusal, in their order. Rejects when that is not known of all of them. All answers have to
   * fit into the receive buffer at once: the system's usual one has room for about a hundred short ones.
   */
  async requestEach(
    messages: readonly Uint8Array[],
    operation = 'netlink requests',
  ): Promise<(Message | NetlinkError)[]> {
    if (messages.length === 0) return []
    const lengths = messages.map(message => align4(message.length))
    const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0))
    let at = 0
    for (const [i, message] of messages.entries()) {
      bytes.set(message, at)
      at += lengths[i]!
    }
    const answers = new Array<unknown>(messages.length).fill(undefined)
    await this.#enqueue(bytes, 0, operation, false, { answers })
    return answers as (Message | NetlinkError)[]
  }

  /**
   * As requestEach(), of `count` requests that are one behind the other in `messages`, each aligned to 4 bytes. The answers
   * are what `read` makes of each message; one that it cannot read (NetlinkFormatError) is an error of that answer.
   * `messages` is this socket's own from now on.
   */
  async requestEachInPlace<T>(
    messages: Uint8Array<ArrayBuffer>,
    count: number,
    read: ReadInPlace<T>,
    operation: string,
  ): Promise<(T | NetlinkError)[]> {
    if (count === 0) return []
    const answers = new Array<unknown>(count).fill(undefined)
    await this.#enqueue(messages, 0, operation, false, { answers, read })
    return answers as (T | NetlinkError)[]
  }

  /** Asks for all entries of a table. A table that changes meanwhile is read again, at most four times. */
  async dump(message: Uint8Array, operation = 'netlink dump'): Promise<Message[]> {
    return (await this.#enqueue(message.slice(), FLAG.dump, operation, true)) as Message[]
  }

  /** As dump(), but the entries are what `readMessage` makes of each message where it was received, borrowed until it returns. */
  async dumpInPlace<T>(
    message: Uint8Array,
    readMessage: (message: Message) => T,
    operation: string,
  ): Promise<T[]> {
    const read: ReadInPlace<T> = (view, at, end) => readMessage(messageAt(view, at, end - at))
    return (await this.#enqueue(message.slice(), FLAG.dump, operation, true, { read })) as T[]
  }

  /**
   * Sends messages as they are, together; what the kernel answers goes to onDatagram, as soon as all have been taken. The
   * bytes are borrowed until the promise ends.
   */
  post(messages: Uint8Array, operation: string): Promise<void> {
    return this.#socket.sendAsync(messages, operation, true)
  }

  /** Closes the socket; requests under way fail with ECANCELED. May be called twice. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#socket.close()
    for (const operation of this.#queue.splice(0)) this.#fail(operation, ERRNO.ECANCELED, 'socket closed')
  }

  /** The bytes are this socket's own from now on. */
  #enqueue(
    bytes: Uint8Array<ArrayBuffer>,
    flags: number,
    name: string,
    isDump: boolean,
    { answers, read }: Partial<Pick<Operation, 'answers' | 'read'>> = {},
  ): Promise<unknown[]> {
    if (this.#closed) return Promise.reject(new NetlinkError(ERRNO.ECANCELED, name, 'socket closed'))
    if (isDump && this.#options.onDatagram !== undefined) {
      return Promise.reject(new Error(`${name}: this netlink socket takes no dumps`))
    }
    const view = new DataView(bytes.buffer)
    eachMessage(view, answers?.length ?? 1, at => {
      view.setUint16(at + 6, messageFlags(view, at) | flags, true)
      view.setUint32(at + 12, this.port, true)
    })
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#fail(operation, ERRNO.ETIMEDOUT, `no answer within ${this.#timeoutMs} ms`)
      }, this.#timeoutMs)
      const operation: Operation = {
        bytes,
        name,
        isDump,
        answers,
        read,
        resolve,
        reject,
        timer,
        sequence: 0,
        unanswered: answers?.length ?? 0,
        entries: [],
        isInterrupted: false,
        triesLeft: DUMP_TRIES - 1,
      }
      this.#queue.push(operation)
      this.#next()
    })
  }

  /**
   * Starts the first operation unless it is under way. A send that hangs in the kernel (under a lock held by
   * others) holds back the rest, which time out: one socket never occupies more than one thread of the pool.
   */
  #next(): void {
    const operation = this.#queue[0]
    if (operation === undefined || operation.sequence !== 0 || this.#sending) return
    // 0 is the sequence of notifications that answer nobody.
    const count = operation.answers?.length ?? 1
    if (this.#sequence + count > 0xffff_ffff) this.#sequence = 0
    operation.sequence = this.#sequence + 1
    this.#sequence += count
    const view = new DataView(operation.bytes.buffer)
    eachMessage(view, count, (at, i) => view.setUint32(at + 8, operation.sequence + i, true))
    this.#sending = true
    this.#socket
      .sendAsync(operation.bytes, operation.name, operation.answers !== undefined)
      .catch((error: SystemError) => this.#fail(operation, error.errno))
      .finally(() => {
        this.#sending = false
        this.#next()
      })
  }

  /** The operation is over, whatever its end; the next one may begin. */
  #end(operation: Operation): void {
    clearTimeout(operation.timer)
    const index = this.#queue.indexOf(operation)
    if (index >= 0) this.#queue.splice(index, 1)
    this.#next()
  }

  #fail(operation: Operation, errno: number, text?: string, offset?: number): void {
    this.#end(operation)
    operation.reject(new NetlinkError(errno, operation.name, text, offset))
  }

  /** An acknowledgement, or the end of a dump. */
  #finish(operation: Operation, ack: Ack): void {
    const { isDump, isInterrupted, triesLeft } = operation
    // EBUSY: the rest of an earlier dump that ran out of time is still being made; it ends while we read on.
    const isBusy = isDump && ack.errno === ERRNO.EBUSY
    if ((isBusy || (isInterrupted && ack.errno === 0)) && triesLeft > 0) {
      operation.triesLeft--
      operation.isInterrupted = false
      operation.entries = []
      operation.sequence = 0
      this.#next()
    } else if (ack.errno !== 0) {
      this.#fail(operation, ack.errno, ack.text, ack.offset)
    } else if (isInterrupted) {
      this.#fail(operation, ERRNO.EINTR, 'the table changed during each try to read it')
    } else {
      this.#end(operation)
      operation.resolve(operation.entries)
    }
  }

  /** A batch of a socket that only listens: the hot path. */
  readonly #receiveDatagrams = (count: number): void => {
    if (count < 0) this.#overrun()
    const { memory, view, words, meta, dataOffset, dataStride } = this.#memory
    const take = this.#options.onDatagram!
    for (let slot = 0; slot < count && !this.#closed; slot++) {
      if (!this.#isUsable(slot)) continue
      const start = dataOffset + slot * dataStride
      const end = start + meta[slot * META.words + META.length]!
      if (
        this.#queue.length > 0 &&
        end - start >= ACK_LEAST &&
        messageType(view, start) === MESSAGE_TYPE.error
      ) {
        this.#answer(new DataView(memory.slice(start, end)), 0, end - start)
      } else take(view, words, start, end)
    }
    this.#options.onBatchEnd?.()
  }

  readonly #receiveMessages = (count: number): void => {
    if (count < 0) this.#overrun()
    const { memory, view, dataOffset, dataStride, controlOffset, controlStride } = this.#memory
    let copy: Uint8Array<ArrayBuffer> | undefined
    let at = 0
    for (let slot = 0; slot < count && !this.#closed; slot++) {
      if (!this.#isUsable(slot)) continue
      const length = this.#lengthOf(slot)
      const start = dataOffset + slot * dataStride
      // A notification of our own request has its sequence and port: only the group tells it from the answer.
      const isAnswer = view.getUint32(controlOffset + slot * controlStride + CONTROL_GROUP, true) === 0
      if (isAnswer && this.#current()?.read !== undefined) {
        this.#answer(view, start, start + length)
        continue
      }
      // One copy for the batch: one for each message would be most of what thousands of short answers cost.
      copy ??= new Uint8Array(this.#bytesFrom(slot, count))
      copy.set(new Uint8Array(memory, start, length), at)
      const datagram = new DataView(copy.buffer, at, length)
      at += align4(length)
      if (isAnswer) this.#answer(datagram, 0, length)
      else this.#notify(datagram)
    }
  }

  #lengthOf(slot: number): number {
    return this.#memory.meta[slot * META.words + META.length]!
  }

  /** Bytes of the datagrams from this slot on, each aligned. */
  #bytesFrom(slot: number, count: number): number {
    let bytes = 0
    for (let i = slot; i < count; i++) bytes += align4(this.#lengthOf(i))
    return bytes
  }

  /** False for what others sent, and for what did not fit into its slot, which is lost. */
  #isUsable(slot: number): boolean {
    const { view, meta, addressOffset, addressStride } = this.#memory
    if (view.getUint32(addressOffset + slot * addressStride + 4, true) !== KERNEL_PORT) {
      this.foreign++
      return false
    }
    if ((meta[slot * META.words + META.flags]! & MSG_TRUNC) === 0) return true
    this.truncated++
    const operation = this.#current()
    if (operation !== undefined) this.#fail(operation, ERRNO.EMSGSIZE, 'the answer is longer than the buffer')
    else this.#options.onOverrun?.()
    return false
  }

  /** One datagram: bytes `start` to `end`. */
  #answer(view: DataView, start: number, end: number): void {
    try {
      for (let at = start, length = 0; at < end; at += align4(length)) {
        length = messageLength(view, at, end)
        const operation = this.#current()
        // Answers to what has timed out meanwhile find nobody.
        const index = operation === undefined ? -1 : messageSequence(view, at) - operation.sequence
        if (operation === undefined || index < 0 || index >= (operation.answers?.length ?? 1)) continue
        const type = messageType(view, at)
        const flags = messageFlags(view, at)
        if (operation.answers !== undefined) {
          this.#answerOne(operation, index, view, at, length)
          continue
        }
        if ((flags & FLAG.dumpInterrupted) !== 0) operation.isInterrupted = operation.isDump
        if (type === MESSAGE_TYPE.error || type === MESSAGE_TYPE.done) {
          this.#finish(operation, readAck(view, at, length))
        } else if (type !== MESSAGE_TYPE.noop) {
          operation.entries.push(entryOf(operation, view, at, length))
        }
      }
    } catch (error) {
      if (!(error instanceof NetlinkFormatError)) throw error
      this.malformed++
      const operation = this.#current()
      if (operation !== undefined) this.#fail(operation, ERRNO.EBADMSG, error.message)
    }
  }

  /** One of several requests has its answer, which the acknowledgement that may follow does not replace. */
  #answerOne(operation: Operation, index: number, view: DataView, at: number, length: number): void {
    const answers = operation.answers!
    if (answers[index] !== undefined) return
    const type = messageType(view, at)
    if (type === MESSAGE_TYPE.error) {
      const { errno, text, offset } = readAck(view, at, length)
      answers[index] = new NetlinkError(errno, operation.name, text, offset)
    } else {
      answers[index] = answerOf(operation, view, at, length)
    }
    operation.unanswered--
    if (operation.unanswered > 0) return
    this.#end(operation)
    operation.resolve([])
  }

  #notify(view: DataView): void {
    const end = view.byteLength
    for (let at = 0, length = 0; at < end && !this.#closed; at += align4(length)) {
      try {
        length = messageLength(view, at, end)
      } catch (error) {
        if (!(error instanceof NetlinkFormatError)) throw error
        this.malformed++
        return
      }
      this.#options.onNotification?.(messageAt(view, at, length))
    }
  }

  /** The operation that has been sent and waits for its answer. */
  #current(): Operation | undefined {
    const operation = this.#queue[0]
    return operation === undefined || operation.sequence === 0 ? undefined : operation
  }

  /** ENOBUFS, or another error of the socket: something was not delivered. */
  #overrun(): void {
    this.overruns++
    const operation = this.#current()
    if (operation?.answers !== undefined) this.#fail(operation, ERRNO.ENOBUFS, 'too many answers at once')
    this.#options.onOverrun?.()
  }
}

/** A window on the message at byte `at`, not a copy. */
function messageAt(view: DataView, at: number, length: number): Message {
  return {
    type: messageType(view, at),
    flags: messageFlags(view, at),
    view: new DataView(view.buffer, view.byteOffset + at, length),
  }
}

function entryOf({ read }: Operation, view: DataView, at: number, length: number): unknown {
  return read === undefined ? messageAt(view, at, length) : read(view, at, at + length)
}

/** One of several answers that cannot be read costs none of the others. */
function answerOf(operation: Operation, view: DataView, at: number, length: number): unknown {
  try {
    return entryOf(operation, view, at, length)
  } catch (error) {
    if (!(error instanceof NetlinkFormatError)) throw error
    return new NetlinkError(ERRNO.EBADMSG, operation.name, error.message)
  }
}

/** Calls `visit` with the offset of each of `count` requests of our own making, one behind the other. */
function eachMessage(view: DataView, count: number, visit: (at: number, index: number) => void): void {
  for (let i = 0, at = 0; i < count; i++) {
    visit(at, i)
    at += align4(view.getUint32(at, true))
  }
}

/** Kernels before the option existed go on without it. */
function setIfKnown(socket: KernelSocket, option: number, name: string): void {
  try {
    socket.setOption(SOL_NETLINK, option, 1, `set ${name}`)
  } catch (error) {
    if (!(error instanceof SystemError) || error.errno !== ERRNO.ENOPROTOOPT) throw error
  }
}
