/** Where datagrams to decode come from: a UDP port, a capture, or a file with one datagram. */

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { counted } from '../quantities.ts'
import { endpoint } from '../wire/packet.ts'
import { type Captured, isPcap, PcapReader } from '../wire/pcap.ts'

/** One datagram as it was received. */
export interface Received {
  readonly bytes: Uint8Array
  /** Sender, or the name of the file. */
  readonly from: string
  /** When it was received, in nanoseconds since 1970; undefined if that is not known. */
  readonly time: bigint | undefined
}

/** Something that should have been a datagram. */
export interface Lost {
  readonly from: string
  readonly reason: string
}

/** As many at a time as there are. */
export type Input = AsyncIterable<readonly (Received | Lost)[]>

/** Address and port to listen on; without an address all of the machine's. */
export interface ListenAddress {
  readonly address: string | undefined
  readonly port: number
}

/** Bytes of socket buffer asked for, so that a burst finds room while a datagram is printed. */
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024

/** Datagrams, and their bytes, that may wait for whoever prints them; what comes beyond is lost, and told. */
const MOST_WAITING = 8192
const MOST_WAITING_BYTES = 32 * 1024 * 1024

/** Datagrams sent to a UDP port, until `signal` is aborted. `listening` is told the address in use. */
export async function* fromUdp(
  listen: ListenAddress,
  signal: AbortSignal,
  listening: (address: string) => void,
): Input {
  const socket = await openSocket(listen)
  let waiting: (Received | Lost)[] = []
  let waitingBytes = 0
  let lost = 0
  let failure: Error | undefined
  let wake = () => {}
  socket.on('message', (bytes, sender) => {
    if (waiting.length >= MOST_WAITING || waitingBytes + bytes.length > MOST_WAITING_BYTES) {
      lost++
    } else {
      waitingBytes += bytes.length
      const from = endpoint(sender.address.replace(/^::ffff:/, ''), sender.port)
      waiting.push({ bytes, from, time: BigInt(Date.now()) * 1_000_000n })
      wake()
    }
  })
  socket.on('error', error => {
    failure = error
    wake()
  })
  signal.addEventListener('abort', () => wake())
  const bound = socket.address()
  const name = endpoint(bound.address, bound.port)
  try {
    listening(name)
    while (!signal.aborted) {
      if (failure !== undefined) throw failure
      if (waiting.length === 0) {
        await new Promise<void>(resolve => {
          wake = resolve
        })
        continue
      }
      const batch = waiting
      waiting = []
      waitingBytes = 0
      if (lost > 0)
        batch.push({ from: name, reason: `${counted(lost, 'datagram')} lost: more came than could be shown` })
      lost = 0
      yield batch
    }
  } finally {
    socket.close()
  }
}

async function openSocket({ address, port }: ListenAddress): Promise<Socket> {
  if (address !== undefined) return await bind(address.includes(':') ? 'udp6' : 'udp4', port, address)
  try {
    return await bind('udp6', port)
  } catch (error) {
    const withoutIpv6 = (error as NodeJS.ErrnoException).code === 'EAFNOSUPPORT'
    if (!withoutIpv6) throw error
    return await bind('udp4', port)
  }
}

async function bind(type: 'udp4' | 'udp6', port: number, address?: string): Promise<Socket> {
  const socket = createSocket(type)
  try {
    socket.bind(port, address)
    await once(socket, 'listening')
  } catch (error) {
    socket.close()
    throw error
  }
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES)
  } catch {
    // The buffer is as large as the system lets it be.
  }
  return socket
}

/** A datagram has at most 65,507 bytes; written in hexadecimal, with spaces and comments, it stays below this. */
const MOST_BYTES_OF_ONE = 1 << 20

/** A capture is read in pieces of this size: they stay in the caches of the processor while they are looked at. */
const PIECE_BYTES = 128 * 1024

/** What gzip writes begins with it. */
const GZIP_MAGIC = 0x1f8b

/** Datagrams in a file. Fails with an error of the system when it cannot be read. `opened` is told its descriptor. */
export async function* fromFile(
  path: string,
  port: number,
  signal: AbortSignal,
  opened?: (descriptor: number) => void,
): Input {
  const stream = createReadStream(path, { highWaterMark: PIECE_BYTES })
  try {
    const [descriptor] = await once(stream, 'open', { signal })
    opened?.(descriptor)
    yield* fromStream(stream, path, port, signal)
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    stream.destroy()
  }
}

/**
 * Datagrams in a stream: those to UDP port `port` of a pcap or pcapng capture, as they come; or else one datagram,
 * as bytes or as hexadecimal digits with spaces and with comments from `#` to the end of the line. Fails with a
 * WireError when a capture is broken.
 */
export async function* fromStream(stream: Readable, name: string, port: number, signal: AbortSignal): Input {
  let begin: Buffer = Buffer.alloc(0)
  let capture: PcapReader | undefined
  const close = () => stream.destroy()
  signal.addEventListener('abort', close)
  try {
    for await (const piece of stream as AsyncIterable<Buffer>) {
      let bytes = piece
      if (capture === undefined) {
        begin = Buffer.concat([begin, piece])
        if (begin.length >= 2 && begin.readUInt16BE(0) === GZIP_MAGIC) {
          yield [{ from: name, reason: 'compressed by gzip: zcat FILE | weir decode -' }]
          return
        }
        if (!isPcap(begin)) {
          if (begin.length <= MOST_BYTES_OF_ONE) continue
          throw new Error(`${name}: neither a capture nor one datagram: over ${MOST_BYTES_OF_ONE} bytes`)
        }
        capture = new PcapReader(port)
        bytes = begin
      }
      const batch = capture.push(bytes).map(captured => told(captured, name))
      if (batch.length > 0) yield batch
    }
  } catch (error) {
    if (signal.aborted) return
    throw error
  } finally {
    signal.removeEventListener('abort', close)
  }
  if (capture !== undefined) capture.end()
  else if (begin.length > 0) yield [one(begin, name)]
}

/** The datagram that is all there is in a file. */
function one(bytes: Buffer, from: string): Received | Lost {
  const digits = hexDigits(bytes)
  if (digits === undefined) return { bytes, from, time: undefined }
  if (digits.length % 2 === 1)
    return { from, reason: `an odd number of hexadecimal digits: ${digits.length}` }
  return { bytes: Buffer.from(digits, 'hex'), from, time: undefined }
}

function told(captured: Captured, name: string): Received | Lost {
  if ('bytes' in captured) return captured
  return {
    from: `${name}: packet ${captured.packet} at byte offset ${captured.offset}`,
    reason: captured.reason,
  }
}

/** The digits of text, or undefined if it is not hexadecimal. */
function hexDigits(text: Buffer): string | undefined {
  const digits = text.toString('latin1').replace(/#.*/g, '').replace(/\s+/g, '')
  return /^[0-9a-f]+$/i.test(digits) ? digits : undefined
}
