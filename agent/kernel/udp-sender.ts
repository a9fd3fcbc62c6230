import { constants } from 'node:os'
import { errnoName, type GrantedBuffer, KernelSocket, SystemError } from './native.ts'
import { AF_INET6, addressFamily, internetAddress } from './sockaddr.ts'

const SOCK_DGRAM = 2
const SOL_SOCKET = 1
const SO_BINDTODEVICE = 25
const SO_COOKIE = 57
const { EAGAIN, EINVAL, EMSGSIZE } = constants.errno

/**
 * Options of the two protocols (ip(7), ipv6(7)), the bytes of their headers with UDP's, and where socket addresses have
 * the address.
 */
const IPV4 = {
  level: 0,
  mtuDiscover: 10,
  mtu: 14,
  receiveErrors: 11,
  headerBytes: 28,
  addressAt: 4,
  addressBytes: 4,
} as const
const IPV6 = {
  level: 41,
  mtuDiscover: 23,
  mtu: 24,
  receiveErrors: 25,
  headerBytes: 48,
  addressAt: 8,
  addressBytes: 16,
} as const
const PORT_AT = 2
/** Values of IP_MTU_DISCOVER: fragments where they are needed, or never. */
const PMTUDISC_WANT = 1
const PMTUDISC_DO = 2

/** Reports come while datagrams are sent: as often another one may be in the way of the same datagram. */
const MOST_TRIES = 3

/** Room for several hundred datagrams: the kernel charges over two kilobytes for each. */
const SEND_BYTES = 1 << 20

export interface UdpTarget {
  /** Numeric IPv4 or IPv6 address; a link-local one may name its device behind `%`. */
  readonly address: string
  readonly port: number
  /** Interface or VRF to send through. */
  readonly device?: string | undefined
  /** Network namespace to send from: a name under /var/run/netns, or a path. */
  readonly namespace?: string | undefined
  /** Numeric address to send from; else the kernel chooses. */
  readonly source?: string | undefined
  /** Send buffer to ask for, bytes; default 1 MiB. */
  readonly sendBytes?: number
}

/**
 * A UDP socket connected to one receiver. Whatever becomes of a datagram, send() neither throws nor waits:
 * offered = `datagrams` + the sum of `errors`. Packets are not to be fragmented on their way, so that the kernel learns
 * what the path takes at once; a datagram that was made too long for it leaves in fragments.
 */
export class UdpSender {
  /** Datagrams and payload bytes that the kernel took. */
  datagrams = 0
  bytes = 0
  /** Payload bytes that the path takes in one packet, as far as the kernel knows. */
  mostBytes: number
  /** Datagrams not taken, by errno name. EAGAIN: the send buffer was full. */
  readonly errors: ReadonlyMap<string, number>
  /**
   * Errors that the network reported for datagrams already sent (ECONNREFUSED: nobody listens at the port; EHOSTUNREACH:
   * no neighbour has the address, or a router knows no way), by errno name. Within one call the kernel hides some of them;
   * they are a sign, not a sum.
   */
  readonly reports: ReadonlyMap<string, number>
  readonly sendBuffer: GrantedBuffer
  /** What tells its datagrams from other packets (drops/own-datagrams.ts). */
  readonly cookie: Uint8Array
  readonly ends: Uint8Array
  onClose: (() => void) | undefined
  readonly #errors = new Map<string, number>()
  readonly #reports = new Map<string, number>()
  readonly #socket: KernelSocket
  readonly #protocol: typeof IPV4 | typeof IPV6

  /** Opens and connects; what the kernel refuses is a SystemError that names the step. */
  static open(target: UdpTarget): UdpSender {
    const [host = '', zone] = target.address.split('%', 2)
    const device = target.device ?? zone
    const name = `${target.address} port ${target.port}`
    const address = internetAddress(host, target.port)
    if (address === undefined) throw new SystemError(EINVAL, `send to ${name}`, 'not a numeric address')
    const socket = KernelSocket.open('UDP socket', addressFamily(address), SOCK_DGRAM, 0, target.namespace)
    try {
      if (device !== undefined) {
        const bytes = new TextEncoder().encode(`${device}\0`)
        socket.setOption(SOL_SOCKET, SO_BINDTODEVICE, bytes, `send through ${device}`)
      }
      if (target.source !== undefined) {
        const source = internetAddress(target.source, 0)
        if (source === undefined || addressFamily(source) !== addressFamily(address)) {
          throw new SystemError(EINVAL, `send from ${target.source} to ${name}`, 'not of one address family')
        }
        socket.bind(source, `send from ${target.source}`)
      }
      const buffer = socket.forceSendBuffer(target.sendBytes ?? SEND_BYTES)
      socket.connect(address, `connect to ${name}`)
      return new UdpSender(socket, buffer, address)
    } catch (error) {
      socket.close()
      throw error
    }
  }

  private constructor(socket: KernelSocket, sendBuffer: GrantedBuffer, address: Uint8Array) {
    const protocol = addressFamily(address) === AF_INET6 ? IPV6 : IPV4
    this.#socket = socket
    this.#protocol = protocol
    this.cookie = new Uint8Array(socket.getOption(SOL_SOCKET, SO_COOKIE, 8, 'read SO_COOKIE').buffer)
    const own = socket.name()
    const { addressAt, addressBytes } = protocol
    const part = (at: number, bytes: number) =>
      [own, address].flatMap(name => [...name.subarray(at, at + bytes)])
    this.ends = Uint8Array.from([...part(addressAt, addressBytes), ...part(PORT_AT, 2)])
    this.#fragment(PMTUDISC_DO)
    // Without it a connected socket is told of closed ports alone. A send that fails of a report reads all of them away.
    socket.setOption(protocol.level, protocol.receiveErrors, 1, 'set IP_RECVERR')
    this.mostBytes = this.#pathBytes()
    this.sendBuffer = sendBuffer
    this.errors = this.#errors
    this.reports = this.#reports
  }

  /**
   * Sends `count` datagrams whose bytes are in `memory` at the offsets and lengths that alternate in `spans`.
   * Returns how many the kernel took; `errors` counts the others.
   */
  send(memory: ArrayBuffer, spans: Int32Array, count: number): number {
    let sent = 0
    let next = 0
    // Errors that may belong to earlier datagrams: how often number `next` was tried in vain, and the last errno.
    let tries = 0
    let suspected = 0
    while (next < count) {
      const result = this.#socket.sendBatch(memory, spans, next, count - next)
      if (result > 0) {
        if (tries > 0) add(this.#reports, suspected, tries)
        tries = 0
        for (const end = next + result; next < end; next++) this.bytes += spans[next * 2 + 1]!
        sent += result
      } else if (-result === EMSGSIZE && this.#sendInFragments(memory, spans, next)) {
        this.bytes += spans[next * 2 + 1]!
        sent++
        next++
      } else if (tries < MOST_TRIES && -result !== EAGAIN) {
        tries++
        suspected = -result
      } else {
        // A datagram that is too long is alone to blame; anything else would befall the rest, too.
        const lost = -result === EMSGSIZE ? 1 : count - next
        add(this.#errors, -result, lost)
        tries = 0
        next += lost
      }
    }
    this.datagrams += sent
    return sent
  }

  #sendInFragments(memory: ArrayBuffer, spans: Int32Array, index: number): boolean {
    this.mostBytes = this.#pathBytes()
    this.#fragment(PMTUDISC_WANT)
    const isSent = this.#socket.sendBatch(memory, spans, index, 1) === 1
    this.#fragment(PMTUDISC_DO)
    return isSent
  }

  #fragment(value: number): void {
    const { level, mtuDiscover } = this.#protocol
    this.#socket.setOption(level, mtuDiscover, value, 'set IP_MTU_DISCOVER')
  }

  #pathBytes(): number {
    const { level, mtu, headerBytes } = this.#protocol
    return this.#socket.getOption(level, mtu, 4, 'read IP_MTU').getInt32(0, true) - headerBytes
  }

  /** May be called twice. */
  close(): void {
    this.#socket.close()
    this.onClose?.()
  }
}

function add(counts: Map<string, number>, errno: number, count: number): void {
  const name = errnoName(errno)
  counts.set(name, (counts.get(name) ?? 0) + count)
}
