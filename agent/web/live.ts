import type { ServerResponse } from 'node:http'
import type { InterfaceStatus } from '../control/status.ts'
import { TrafficModel } from '../view/model.ts'
import { type PageQuery, pageSnapshot } from './snapshot.ts'

/**
 * Those who look at the page, and the model that is fed for them. While nobody looks there is no model, no copy of any
 * sample and no timer.
 */

/** Copies of samples, and how many there were to copy. */
export interface PageTap {
  readonly end: () => void
  readonly counts: { readonly matched: number; readonly copied: number }
}

export interface PageFeed {
  /** Copies of what collectors get, from now on until `end`. Datagrams are borrowed until the call returns. */
  tap(onDatagram: (bytes: Uint8Array) => void): PageTap
  interfaces(): Promise<readonly InterfaceStatus[]>
  agent(): string
  /** The page has failed and is closed to those who look now: the agent goes on. */
  failed(error: Error): void
}

const MOST_VIEWERS = 32
const TELL_MS = 1000
const WINDOW_MS = 10_000
/** Flows that are kept; about a kilobyte each. */
const MOST_FLOWS = 4096
/** The model is kept for those who load the page again. */
const KEEP_MS = 5000
/** A viewer who is behind by so many bytes misses some seconds. */
const BEHIND_BYTES = 1 << 18

interface Viewer {
  readonly response: ServerResponse
  readonly query: PageQuery
  /** Has been told what was before it came. */
  isOld: boolean
}

export class LivePage {
  readonly #feed: PageFeed
  readonly #viewers = new Set<Viewer>()
  #model: TrafficModel | undefined
  #tap: PageTap | undefined
  #counted = { matched: 0, copied: 0 }
  #timer: NodeJS.Timeout | undefined
  #leaving: NodeJS.Timeout | undefined
  #isTelling = false

  constructor(feed: PageFeed) {
    this.#feed = feed
  }

  get viewers(): number {
    return this.#viewers.size
  }

  /** Whether somebody looks, or did a moment ago. */
  get isRunning(): boolean {
    return this.#model !== undefined
  }

  /** Streams to a viewer until it goes; the head of the response is written already. False when there is no room. */
  add(response: ServerResponse, query: PageQuery): boolean {
    if (this.#viewers.size >= MOST_VIEWERS) return false
    const viewer: Viewer = { response, query, isOld: false }
    this.#viewers.add(viewer)
    response.on('close', () => {
      this.#viewers.delete(viewer)
      if (this.#viewers.size === 0) this.#leaving ??= setTimeout(() => this.#rest(), KEEP_MS).unref()
    })
    this.#run()
    this.#tell(viewer)
    return true
  }

  stop(): void {
    for (const { response } of this.#viewers) response.destroy()
    this.#viewers.clear()
    this.#rest()
  }

  #run(): void {
    clearTimeout(this.#leaving)
    this.#leaving = undefined
    if (this.#model !== undefined) return
    const model = new TrafficModel({ windowMs: WINDOW_MS, flows: MOST_FLOWS })
    this.#model = model
    this.#counted = { matched: 0, copied: 0 }
    // Called in the middle of the agent's own work, which must not suffer from what is looked at.
    this.#tap = this.#feed.tap(bytes => this.#guard(() => model.take(bytes, performance.now())))
    this.#timer = setInterval(() => void this.#tellAll(), TELL_MS)
    void this.#readInterfaces()
  }

  #guard(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.stop()
      this.#feed.failed(error as Error)
    }
  }

  #rest(): void {
    clearTimeout(this.#leaving)
    this.#leaving = undefined
    if (this.#viewers.size > 0) return
    clearInterval(this.#timer)
    this.#tap?.end()
    this.#tap = undefined
    this.#model = undefined
  }

  async #tellAll(): Promise<void> {
    if (this.#isTelling) return
    this.#isTelling = true
    this.#scale()
    await this.#readInterfaces()
    this.#isTelling = false
    for (const viewer of this.#viewers) this.#tell(viewer)
  }

  /** The samples that are copied stand for those that are not. */
  #scale(): void {
    if (this.#model === undefined || this.#tap === undefined) return
    const { matched, copied } = this.#tap.counts
    const [all, taken] = [matched - this.#counted.matched, copied - this.#counted.copied]
    this.#counted = { matched, copied }
    this.#model.scale = taken > 0 ? all / taken : 1
  }

  async #readInterfaces(): Promise<void> {
    try {
      const interfaces = await this.#feed.interfaces()
      this.#model?.takeInterfaces(this.#feed.agent(), interfaces, performance.now())
    } catch {
      // What the kernel does not tell now stands as it was; its age is shown.
    }
  }

  #tell(viewer: Viewer): void {
    const { response, query, isOld } = viewer
    const model = this.#model
    if (model === undefined || response.writableLength > BEHIND_BYTES) return
    this.#guard(() => {
      model.advance(performance.now())
      const snapshot = pageSnapshot(model, this.#feed.agent(), query, !isOld)
      viewer.isOld = true
      response.write(`data: ${JSON.stringify(snapshot)}\n\n`)
    })
  }
}
