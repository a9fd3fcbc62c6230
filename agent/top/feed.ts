/** Where top gets its datagrams from: a running agent, a UDP port, or a capture. */

import { ControlClient } from '../control/client.ts'
import type { StreamCounts } from '../control/protocol.ts'
import type { InterfaceStatus, Status } from '../control/status.ts'
import { fromFile, fromUdp, type ListenAddress } from '../decode/input.ts'
import { counted } from '../quantities.ts'
import type { TrafficModel } from '../view/model.ts'
import type { CollectorRow } from './screen.ts'

export interface Feed {
  /** What it is, as text. */
  readonly from: string
  readonly collectors: readonly CollectorRow[] | undefined
  /** What is wrong, or left out. */
  readonly note: string | undefined
  /** Feeds the model until the signal, or until there is no more. Fails when there is nothing to feed from. */
  run(model: TrafficModel, signal: AbortSignal): Promise<void>
  /** While it is held, nothing is fed; what comes in the meantime is passed over. */
  hold(held: boolean): void
}

const ASK_MS = 1000
const RETRY_MS = 1000

/** The stream of a running agent, and what its kernel counts. */
export class AgentFeed implements Feed {
  readonly #path: string
  #client: ControlClient | undefined
  #held = false
  #unthinned: NodeJS.Timeout | undefined
  from: string
  collectors: readonly CollectorRow[] | undefined
  note: string | undefined
  #counts: StreamCounts = { matched: 0, sent: 0, passedOver: 0, heldBack: 0, lost: 0, lostDatagrams: 0 }

  constructor(path: string) {
    this.#path = path
    this.from = path
  }

  async run(model: TrafficModel, signal: AbortSignal): Promise<void> {
    // The first time it has to be there; later it may be restarted.
    this.#client = await ControlClient.open(this.#path)
    const close = () => this.#client?.close()
    signal.addEventListener('abort', close)
    try {
      while (!signal.aborted) {
        try {
          await this.#follow(this.#client, model, signal)
        } catch (error) {
          if (signal.aborted) return
          this.note = (error as Error).message
        }
        this.#client.close()
        await pause(RETRY_MS, signal)
        while (!signal.aborted) {
          try {
            this.#client = await ControlClient.open(this.#path)
            break
          } catch (error) {
            this.note = (error as Error).message
            await pause(RETRY_MS, signal)
          }
        }
      }
    } finally {
      signal.removeEventListener('abort', close)
      this.#client.close()
    }
  }

  hold(held: boolean): void {
    this.#held = held
  }

  async #follow(client: ControlClient, model: TrafficModel, signal: AbortSignal): Promise<void> {
    this.note = undefined
    this.#counts = { matched: 0, sent: 0, passedOver: 0, heldBack: 0, lost: 0, lostDatagrams: 0 }
    model.scale = 1
    await client.subscribe(
      {},
      {
        onDatagram: bytes => {
          if (!this.#held) model.take(bytes, performance.now())
        },
        onCounts: counts => this.#thinned(model, counts),
      },
    )
    for (;;) {
      const [status, interfaces] = await Promise.all([
        client.ask<Status>('status'),
        client.ask<readonly InterfaceStatus[]>('interfaces'),
      ])
      const { agent, collectors } = status
      const address = agent.address ?? 'unknown'
      this.from = `agent ${address}`
      this.collectors = collectors.map(({ name, sent, bytes, lost, problem }) => ({
        name,
        sent,
        bytes,
        lost,
        problem,
      }))
      if (!this.#held) model.takeInterfaces(address, interfaces, performance.now())
      await Promise.race([pause(ASK_MS, signal), client.closed])
      if (signal.aborted) return
    }
  }

  /** The samples that came stand for those that were left out as well. Counts come every second while some are. */
  #thinned(model: TrafficModel, counts: StreamCounts): void {
    const matched = counts.matched - this.#counts.matched
    const sent = counts.sent - this.#counts.sent
    const isFirst = this.#counts.matched === 0
    this.#counts = counts
    // What came before the first counts is of no known time.
    if (isFirst || sent <= 0 || matched <= sent) return
    model.scale = matched / sent
    this.note = model.scale < 1.05 ? undefined : `1 in ${model.scale.toFixed(1)} samples is looked at`
    clearTimeout(this.#unthinned)
    this.#unthinned = setTimeout(() => {
      model.scale = 1
      this.note = undefined
    }, 2 * ASK_MS).unref()
  }
}

/** Datagrams to a UDP port. */
export class UdpFeed implements Feed {
  readonly collectors = undefined
  note: string | undefined
  from = 'UDP'
  readonly #listen: ListenAddress
  #held = false

  constructor(listen: ListenAddress) {
    this.#listen = listen
  }

  async run(model: TrafficModel, signal: AbortSignal): Promise<void> {
    const input = fromUdp(this.#listen, signal, address => {
      this.from = `UDP ${address}`
    })
    for await (const batch of input) {
      for (const received of batch) {
        if ('reason' in received) this.note = received.reason
        else if (!this.#held && !model.take(received.bytes, performance.now())) {
          this.note = `${counted(model.malformed, 'datagram')} could not be decoded; \`weir decode\` tells why`
        }
      }
    }
  }

  hold(held: boolean): void {
    this.#held = held
  }
}

/** Everything in a capture. */
export class FileFeed implements Feed {
  readonly collectors = undefined
  note: string | undefined
  readonly from: string
  readonly #path: string
  readonly #port: number

  constructor(path: string, port: number) {
    this.#path = path
    this.#port = port
    this.from = path
  }

  async run(model: TrafficModel, signal: AbortSignal): Promise<void> {
    let firstMs: number | undefined
    let datagrams = 0
    let problem: string | undefined
    for await (const batch of fromFile(this.#path, this.#port, signal)) {
      for (const received of batch) {
        if ('reason' in received) {
          problem ??= received.reason
          continue
        }
        const timeMs = Number((received.time ?? 0n) / 1000n) / 1000
        firstMs ??= timeMs
        model.take(received.bytes, timeMs - firstMs)
        datagrams++
      }
      // Keys are looked at in between.
      await pause(0, signal)
    }
    this.note =
      datagrams === 0
        ? (problem ?? `no datagram to UDP port ${this.#port}`)
        : model.malformed > 0
          ? `the whole file, ${counted(model.malformed, 'datagram')} could not be decoded`
          : 'the whole file'
  }

  hold(): void {}
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(done, ms)
    function done(): void {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    signal.addEventListener('abort', done)
  })
}
