import type { Socket } from 'node:net'
import { CONTROL_VERSION, line, type StreamCounts, type Wanted } from './protocol.ts'

/**
 * The live stream of one subscriber. Datagrams are handed to its connection as long as that takes them; what a slow
 * reader leaves waiting beyond WAITING_BYTES is lost for it alone, counted, and told to it.
 */

/** Copies of samples for one subscriber; agent/export/tap.ts makes them. */
export interface SampleTap {
  readonly matched: number
  readonly copied: number
  readonly passedOver: number
  readonly heldBack: number
}

/** Takes `count` datagrams, borrowed, as export/datagrams.ts hands them on. */
export type TapSink = (memory: ArrayBuffer, spans: Int32Array, count: number) => void

/** Opens a tap; what is given back can be changed and ended. */
export interface OpenTap {
  readonly counts: SampleTap
  change(wanted: Wanted): void
  end(): void
}
export type TapOpener = (wanted: Wanted, sink: TapSink) => OpenTap

/** Bytes that may wait in a connection: some 700 full datagrams. */
const WAITING_BYTES = 1 << 20
/** A subscriber is told this often what it did not get, if that has grown; and names of interfaces are looked up again. */
const REPORT_MS = 1000

const START = `{"weir":${CONTROL_VERSION},"datagram":"`
const END = '"}\n'

export class SampleStream {
  readonly #socket: Socket
  readonly #onLost: (samples: number) => void
  readonly #tap: OpenTap
  readonly #timer: NodeJS.Timeout
  #wanted: Wanted
  #lost = 0
  #lostDatagrams = 0
  /** What was told last. */
  #told = ''

  /** Begins at once. `onLost` is told of samples lost to this reader. */
  constructor(socket: Socket, wanted: Wanted, open: TapOpener, onLost: (samples: number) => void) {
    this.#socket = socket
    this.#wanted = wanted
    this.#onLost = onLost
    this.#tap = open(wanted, this.#write)
    this.#timer = setInterval(() => this.#report(), REPORT_MS).unref()
  }

  /** Goes on with another filter; counts go on. */
  change(wanted: Wanted): void {
    this.#wanted = wanted
    this.#tap.change(wanted)
  }

  /** What is open is sent. */
  end(): StreamCounts {
    clearInterval(this.#timer)
    this.#tap.end()
    return this.counts()
  }

  counts(): StreamCounts {
    const { matched, copied, passedOver, heldBack } = this.#tap.counts
    const lost = this.#lost
    return { matched, sent: copied - lost, passedOver, heldBack, lost, lostDatagrams: this.#lostDatagrams }
  }

  readonly #write: TapSink = (memory, spans, count) => {
    const socket = this.#socket
    if (socket.destroyed || socket.writableLength > WAITING_BYTES) {
      for (let i = 0; i < count; i++) this.#lose(memory, spans[i * 2]!)
      return
    }
    let text = ''
    for (let i = 0; i < count; i++) {
      text += START + Buffer.from(memory, spans[i * 2]!, spans[i * 2 + 1]!).toString('base64') + END
    }
    socket.write(text, 'latin1')
  }

  #lose(memory: ArrayBuffer, start: number): void {
    const view = new DataView(memory, start)
    // version, address type, address, sub-agent, sequence, uptime, number of samples (sFlow v5 §5).
    const addressBytes = view.getUint32(4) === 2 ? 16 : 4
    const samples = view.getUint32(8 + addressBytes + 12)
    this.#lost += samples
    this.#lostDatagrams++
    this.#onLost(samples)
  }

  #report(): void {
    // Names may stand for other interfaces by now.
    if (this.#wanted.interfaces !== undefined) this.#tap.change(this.#wanted)
    const { passedOver, heldBack, lost } = this.counts()
    const now = [passedOver, heldBack, lost].join()
    if (now === this.#told || now === '0,0,0' || this.#socket.writableLength > WAITING_BYTES) return
    this.#told = now
    this.#socket.write(line(undefined, { stream: this.counts() }))
  }
}
