/** Sampled headers as a capture that Wireshark, tshark and tcpdump read. */

import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  statSync,
  writeSync,
} from 'node:fs'
import { type CapturedBytes, CaptureMemory, PcapngWriter, PcapWriter } from '../wire/pcap.ts'
import { discardReason, meantDiscardReason } from '../wire/sflow/discard-reasons.ts'
import { dataSourceType } from '../wire/sflow/enumerations.ts'
import { type ScannedSample, u32 } from './scanner.ts'
import { agentText } from './statistics.ts'

/** Link types (tcpdump.org/linktypes.html) by the header protocol of sampled_header. */
const LINK_TYPES: ReadonlyMap<number, number> = new Map([
  [1, 1], // Ethernet
  [3, 6], // token ring
  [4, 10], // FDDI
  [5, 107], // frame relay
  [7, 9], // PPP
  [11, 228], // IPv4
  [12, 229], // IPv6
  [13, 219], // MPLS
  [15, 105], // 802.11
  [18, 247], // InfiniBand
])

/** What waits to be written at most, but for one packet. */
const FLUSH_BYTES = 1 << 20
/** Interfaces that a pcapng file describes by themselves; packets of more share one for each link type. */
const MOST_INTERFACES = 4096

/** What is wrong with where something was to go, which the message names. */
export class OutputError extends Error {}

export class PacketFile {
  readonly path: string
  written = 0
  /** Headers of a link type that the file cannot hold. */
  notWritten = 0
  /** Some of what was to be written is not. */
  isBroken = false
  readonly #descriptor: number
  readonly #write: (linkType: number, time: bigint, sample: ScannedSample, length: number) => boolean
  readonly #memory = new CaptureMemory()

  /**
   * Creates the file: pcapng where its name ends so, else pcap with nanoseconds. Fails with an error of the system, also
   * when there is a file of that name, unless it is to be written over; devices and pipes are written to. With an
   * OutputError when it is `input`, which is being read; that stays as it is.
   */
  constructor(path: string, overwrite: boolean, input: BigIntStats | undefined) {
    this.path = path
    this.#descriptor = path === '-' ? 1 : openAsItIs(path, overwrite)
    const output = fstatSync(this.#descriptor, { bigint: true })
    if (output.isFile() && output.dev === input?.dev && output.ino === input.ino) {
      this.close()
      throw new OutputError(`${nameOf(path)} is the file that is read: write to another one`)
    }
    if (path !== '-' && output.isFile()) ftruncateSync(this.#descriptor)
    this.#write = path.endsWith('.pcapng') ? pcapngInto(this.#memory) : pcapInto(this.#memory)
  }

  /** Writes the sampled header. `time`: when the datagram came, in nanoseconds since 1970. */
  add(sample: ScannedSample, time: bigint | undefined): void {
    if ((sample.kind !== 'flow' && sample.kind !== 'discard') || sample.headerAt < 0) return
    const linkType = LINK_TYPES.get(sample.headerProtocol)
    const captured = sample.headerEnd - sample.headerAt
    // The frame without what the agent has taken off, which is the check sequence of Ethernet: as a capture on the spot has it.
    const length = Math.max(sample.frameLength - sample.stripped, captured)
    if (linkType !== undefined && this.#write(linkType, timeOf(sample, time), sample, length)) this.written++
    else this.notWritten++
    if (this.#memory.length > FLUSH_BYTES) this.flush()
  }

  /** Fails with an OutputError; what could not be written is not tried again. */
  flush(): void {
    const { bytes, length } = this.#memory
    this.#memory.length = 0
    try {
      for (let done = 0; done < length; ) done += writeSync(this.#descriptor, bytes, done, length - done)
    } catch (error) {
      this.isBroken = true
      throw new OutputError(`${nameOf(this.path)}: ${(error as Error).message}`)
    }
  }

  close(): void {
    this.flush()
    if (this.#descriptor !== 1) closeSync(this.#descriptor)
  }
}

function nameOf(path: string): string {
  return path === '-' ? 'standard output' : path
}

/** What the file has stays in it. */
function openAsItIs(path: string, overwrite: boolean): number {
  const isFile = statSync(path, { throwIfNoEntry: false })?.isFile() ?? true
  const exclusive = isFile && !overwrite ? constants.O_EXCL : 0
  return openSync(path, constants.O_WRONLY | constants.O_CREAT | exclusive)
}

function timeOf({ bytes, timestampAt }: ScannedSample, received: bigint | undefined): bigint {
  if (timestampAt < 0) return received ?? 0n
  return (BigInt(u32(bytes, timestampAt)) << 32n) | BigInt(u32(bytes, timestampAt + 4))
}

type Write = (linkType: number, time: bigint, sample: ScannedSample, length: number) => boolean

/** A pcap file has one link type, that of the first packet. */
function pcapInto(memory: CaptureMemory): Write {
  let writer: PcapWriter | undefined
  return (linkType, time, sample, length) => {
    if (writer === undefined) {
      writer = new PcapWriter(linkType, memory)
      writer.header()
    }
    if (writer.linkType !== linkType) return false
    writer.packet(headerOf(sample), length, time)
    return true
  }
}

/** An interface for each agent and data source, and the reason of a discarded packet as a comment. */
function pcapngInto(memory: CaptureMemory): Write {
  const writer = new PcapngWriter(memory)
  const interfaces = new Map<string, number>()
  writer.header()
  return (linkType, time, sample, length) => {
    const source = `${dataSourceType[sample.sourceType] ?? sample.sourceType} ${sample.sourceIndex}`
    let name = `${agentText(sample)} ${source}`
    let key = `${linkType} ${name}`
    if (!interfaces.has(key) && interfaces.size >= MOST_INTERFACES) {
      name = 'others'
      key = `${linkType} others`
    }
    let number = interfaces.get(key)
    if (number === undefined) {
      number = interfaces.size
      interfaces.set(key, number)
      writer.interface(linkType, name)
    }
    const comment = sample.kind === 'discard' ? commentOf(sample.reason) : undefined
    writer.packet(number, headerOf(sample), length, time, comment)
    return true
  }
}

/** Filled again for each sample. */
const header: { -readonly [Key in keyof CapturedBytes]: CapturedBytes[Key] } = {
  bytes: new Uint8Array(0),
  start: 0,
  end: 0,
}

function headerOf({ bytes, headerAt, headerEnd }: ScannedSample): CapturedBytes {
  header.bytes = bytes
  header.start = headerAt
  header.end = headerEnd
  return header
}

function commentOf(code: number): Uint8Array {
  return new TextEncoder().encode(`discarded: ${discardReason[meantDiscardReason(code)] ?? String(code)}`)
}
