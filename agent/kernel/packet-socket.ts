/**
 * A packet socket (packet(7), net/packet/af_packet.c) on one interface, on which the kernel itself picks 1 in N
 * packets at random: what is not picked costs a few instructions and is never copied.
 */
import { type GrantedBuffer, KernelSocket, META, type ReceiveMemory } from './native.ts'
import { AF_PACKET, packetAddress } from './sockaddr.ts'

const SOCK_RAW = 3
const ETH_P_ALL = 3
const SOL_SOCKET = 1
const SO_TIMESTAMPNS = 35
const SOL_PACKET = 263
const OPTION = { addMembership: 1, statistics: 6, auxdata: 8 } as const
const PACKET_MR_PROMISC = 1

const TP_STATUS_VLAN_VALID = 0x10
const TP_STATUS_VLAN_TPID_VALID = 0x40
const ETH_P_8021Q = 0x8100

/** `packetType` of what this interface itself sends, and of what is received but addressed to another station. */
export const PACKET_OTHERHOST = 3
export const PACKET_OUTGOING = 4

/** Two control messages of at most 20 bytes behind headers of 16, each padded to 8. */
const CONTROL_BYTES = 80
const CONTROL_HEADER = 16
/** Room before each packet for the VLAN tag that the kernel has taken out of it, and to keep slots aligned to 8. */
const HEADROOM = 8

export interface PacketSocketOptions {
  readonly ifIndex: number
  /** For errors. */
  readonly name: string
  /** 1 in N, from 1 to 2^32-1. */
  readonly rate: number
  /** Bytes of a packet to receive at most. */
  readonly snapBytes: number
  /** Receive what is addressed to others, too. */
  readonly promiscuous: boolean
  readonly namespace?: string | undefined
  /** Receive buffer to ask for, bytes. */
  readonly receiveBytes: number
  /** Packets of a batch at most. */
  readonly slots: number
}

/** What the kernel tells of a received packet; filled again by each call of read(). */
export interface PacketMeta {
  /** Byte offset in the memory and length of the packet's first bytes. There are 8 free bytes before the offset. */
  offset: number
  length: number
  /** Bytes of the whole packet, without FCS and without a tag that was taken out. */
  packetBytes: number
  /** The VLAN tag that the kernel has taken out of the packet: TPID and TCI; TPID 0 when there is none. */
  vlanTpid: number
  vlanTci: number
  /** Nanoseconds since 1970 as two words; both 0 when not told. */
  timestampHigh: number
  timestampLow: number
  /** One of the PACKET_ values. */
  packetType: number
  /** ARPHRD number of the interface. */
  hardwareType: number
}

export function emptyPacketMeta(): PacketMeta {
  return {
    offset: 0,
    length: 0,
    packetBytes: 0,
    vlanTpid: 0,
    vlanTci: 0,
    timestampHigh: 0,
    timestampLow: 0,
    packetType: 0,
    hardwareType: 0,
  }
}

export class PacketSocket {
  readonly memory: ReceiveMemory
  readonly receiveBuffer: GrantedBuffer
  readonly #socket: KernelSocket
  readonly #name: string
  readonly #snapBytes: number

  /** `onBatch` gets the number of packets to read(), or a negative errno (ENETDOWN: the interface went down). */
  static open(options: PacketSocketOptions, onBatch: (count: number) => void): PacketSocket {
    // Protocol 0 receives nothing: packets begin to come with bind(), when the filter is in place.
    const socket = KernelSocket.open(
      `packet socket for ${options.name}`,
      AF_PACKET,
      SOCK_RAW,
      0,
      options.namespace,
    )
    try {
      return new PacketSocket(socket, options, onBatch)
    } catch (error) {
      socket.close()
      throw error
    }
  }

  private constructor(socket: KernelSocket, options: PacketSocketOptions, onBatch: (count: number) => void) {
    const { ifIndex, name, rate, snapBytes, slots } = options
    this.#socket = socket
    this.#name = name
    this.#snapBytes = snapBytes
    socket.setOption(SOL_PACKET, OPTION.auxdata, 1, 'set PACKET_AUXDATA')
    socket.setOption(SOL_SOCKET, SO_TIMESTAMPNS, 1, 'set SO_TIMESTAMPNS')
    this.receiveBuffer = socket.forceReceiveBuffer(options.receiveBytes)
    this.setRate(rate)
    const slotBytes = HEADROOM + ((snapBytes + 7) & ~7)
    this.memory = socket.receive(
      { slots, slotBytes, headroom: HEADROOM, controlBytes: CONTROL_BYTES },
      onBatch,
    )
    socket.bind(packetAddress(ETH_P_ALL, ifIndex), `listen on ${name}`)
    if (options.promiscuous) joinPromiscuous(socket, ifIndex, name)
  }

  /** From now on 1 in `rate` packets is picked. What was picked before may still be in the socket's queue. */
  setRate(rate: number): void {
    this.#socket.attachFilter(randomFilter(rate, this.#snapBytes), `sample 1 in ${rate} on ${this.#name}`)
  }

  /** From now on no packet is picked; those in the socket's queue still come. */
  pickNone(): void {
    this.#socket.attachFilter(instructions([[BPF.give, 0, 0, 0]]), `end sampling on ${this.#name}`)
  }

  /** Reads the description of the packet in `slot` of the present batch. */
  read(slot: number, packet: PacketMeta): void {
    const { view, meta, addressOffset, addressStride, controlOffset, controlStride, dataOffset, dataStride } =
      this.memory
    // struct sockaddr_ll: … hatype u16 at 8, pkttype u8 at 10 …
    const address = addressOffset + slot * addressStride
    packet.hardwareType = view.getUint16(address + 8, true)
    packet.packetType = view.getUint8(address + 10)
    packet.offset = dataOffset + slot * dataStride
    packet.length = meta[slot * META.words + META.length]!
    packet.packetBytes = packet.length
    packet.vlanTpid = 0
    packet.timestampHigh = 0
    packet.timestampLow = 0
    let at = controlOffset + slot * controlStride
    const end = at + meta[slot * META.words + META.controlLength]!
    // struct cmsghdr {length u64 with the header, level i32, type i32}, each aligned to 8.
    while (at + CONTROL_HEADER <= end) {
      const length = view.getUint32(at, true)
      if (length < CONTROL_HEADER) return
      const level = view.getInt32(at + 8, true)
      const type = view.getInt32(at + 12, true)
      if (level === SOL_PACKET && type === OPTION.auxdata) readAuxdata(view, at + CONTROL_HEADER, packet)
      else if (level === SOL_SOCKET && type === SO_TIMESTAMPNS)
        readTimestamp(view, at + CONTROL_HEADER, packet)
      at += (length + 7) & ~7
    }
  }

  /**
   * Packets picked since the previous call, and those of them that found the socket's buffer full. Asking resets the
   * kernel's counters.
   */
  statistics(): { readonly packets: number; readonly drops: number } {
    const value = this.#socket.getOption(SOL_PACKET, OPTION.statistics, 8, `read statistics of ${this.#name}`)
    return { packets: value.getUint32(0, true), drops: value.getUint32(4, true) }
  }

  /** May be called twice. */
  close(): void {
    this.#socket.close()
  }
}

/** Keeps an interface promiscuous until it is closed. */
export interface Promiscuity {
  close(): void
}

/** Makes an interface receive what is addressed to others, too, without receiving any of it here. */
export function promiscuous(ifIndex: number, name: string): Promiscuity {
  const socket = KernelSocket.open(`packet socket for ${name}`, AF_PACKET, SOCK_RAW, 0)
  try {
    joinPromiscuous(socket, ifIndex, name)
    return socket
  } catch (error) {
    socket.close()
    throw error
  }
}

/** The membership ends with the socket. struct packet_mreq {ifindex i32, type u16, address length u16, address 8 bytes}. */
function joinPromiscuous(socket: KernelSocket, ifIndex: number, name: string): void {
  const membership = new Uint8Array(16)
  const view = new DataView(membership.buffer)
  view.setInt32(0, ifIndex, true)
  view.setUint16(4, PACKET_MR_PROMISC, true)
  socket.setOption(SOL_PACKET, OPTION.addMembership, membership, `make ${name} promiscuous`)
}

/** struct tpacket_auxdata {status u32, len u32, snaplen u32, mac u16, net u16, vlan tci u16, vlan tpid u16}. */
function readAuxdata(view: DataView, at: number, packet: PacketMeta): void {
  const status = view.getUint32(at, true)
  packet.packetBytes = view.getUint32(at + 4, true)
  if ((status & TP_STATUS_VLAN_VALID) === 0) return
  packet.vlanTci = view.getUint16(at + 16, true)
  packet.vlanTpid = (status & TP_STATUS_VLAN_TPID_VALID) === 0 ? ETH_P_8021Q : view.getUint16(at + 18, true)
}

/** struct timespec {seconds i64, nanoseconds i64}. */
function readTimestamp(view: DataView, at: number, packet: PacketMeta): void {
  setTimestamp(packet, view.getUint32(at, true), view.getUint32(at + 8, true))
}

/**
 * Nanoseconds since 1970 as two words, for seconds below 2^32. The product does not fit a double: it is made of two
 * exact ones, seconds = a · 2^16 + b.
 */
export function setTimestamp(
  target: { timestampHigh: number; timestampLow: number },
  seconds: number,
  nanoseconds: number,
): void {
  const upper = Math.floor(seconds / 0x10000) * 1e9
  const lower = (upper % 0x10000) * 0x10000 + (seconds % 0x10000) * 1e9 + nanoseconds
  target.timestampHigh = Math.floor(upper / 0x10000) + Math.floor(lower / 0x1_0000_0000)
  target.timestampLow = lower % 0x1_0000_0000
}

/** Classic BPF: each instruction is code u16, jump if true u8, jump if false u8, operand u32. */
const BPF = { loadWord: 0x20, modulo: 0x94, jumpIfEqual: 0x15, give: 0x06 } as const
/** Where a load gives a random number instead of packet bytes: SKF_AD_OFF + SKF_AD_RANDOM. */
const RANDOM = 0xffff_f038

/** Gives the first `snapBytes` bytes of 1 in `rate` packets and none of the others. */
function randomFilter(rate: number, snapBytes: number): Uint8Array {
  return instructions([
    [BPF.loadWord, 0, 0, RANDOM],
    [BPF.modulo, 0, 0, rate],
    [BPF.jumpIfEqual, 0, 1, 0],
    [BPF.give, 0, 0, snapBytes],
    [BPF.give, 0, 0, 0],
  ])
}

type Instruction = readonly [code: number, ifTrue: number, ifFalse: number, operand: number]

function instructions(program: readonly Instruction[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(program.length * 8))
  program.forEach(([code, ifTrue, ifFalse, operand], i) => {
    view.setUint16(i * 8, code, true)
    view.setUint8(i * 8 + 2, ifTrue)
    view.setUint8(i * 8 + 3, ifFalse)
    view.setUint32(i * 8 + 4, operand, true)
  })
  return new Uint8Array(view.buffer)
}
