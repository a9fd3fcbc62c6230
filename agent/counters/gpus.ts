/** nvidia_gpu (5703:1): what NVIDIA's management library tells of all GPUs together. */

import { low32 } from '../kernel/files.ts'
import type { AskGpus } from '../kernel/nvml.ts'
import { type NvidiaGpu, nvidiaGpu } from '../wire/sflow/counters/vendor.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { CounterReader } from './reader.ts'

/** The words of a device (native/nvml/nvml.c); bit n of the first is set when word n is known. */
const GPU_WORDS = [
  'known',
  /** Percent of the time of the last second or less. */
  'gpuBusy',
  'memoryBusy',
  /** Bytes. */
  'memoryTotal',
  'memoryFree',
  'eccErrors',
  /** mJ since the driver was loaded; GPUs before Volta only tell their power, mW. */
  'energy',
  'power',
  /** °C. */
  'temperature',
  /** Percent. */
  'fan',
  'processes',
] as const

type GpuWord = (typeof GPU_WORDS)[number]

/** The library tells how busy a GPU was in the last second: as often it is asked, and what it tells is added up. */
const SAMPLE_MS = 1000
/** A library that does not answer for so long is told of as a failure. */
const PATIENCE_MS = 10_000

export interface GpusOptions {
  /** Loads the library. */
  readonly open: () => Promise<AskGpus>
  /** Told once, when it cannot be loaded: most machines have none. */
  readonly onAbsent: (problem: Error) => void
  /** Monotonic clock, in milliseconds. */
  readonly now?: () => number
}

/** What adds up: milliseconds busy, and mJ of the devices that only tell their power. */
interface Sums {
  gpuBusy: number
  memoryBusy: number
  energy: number
}

export class Gpus {
  readonly #options: GpusOptions
  readonly #now: () => number
  #ask: AskGpus | undefined
  #timer: NodeJS.Timeout | undefined
  #askedMs: number | undefined
  #failure: Error | undefined
  /** What was last known of each device; a device that is lost keeps what it had, so that no sum goes back. */
  #devices: Map<GpuWord, bigint>[] = []
  #sampledMs: number | undefined
  readonly #sums: Sums = { gpuBusy: 0, memoryBusy: 0, energy: 0 }

  constructor(options: GpusOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
  }

  /** Begins to load the library; nothing waits for it. */
  start(): void {
    this.#askedMs = this.#now()
    this.#options.open().then(
      ask => {
        this.#askedMs = undefined
        this.#ask = ask
        this.#sample()
      },
      (error: Error) => {
        this.#askedMs = undefined
        this.#options.onAbsent(error)
      },
    )
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS)
  }

  /** May be called twice. */
  stop(): void {
    clearInterval(this.#timer)
    this.#ask = undefined
  }

  /** The record as of the last second; none when there is no library or no GPU. */
  readonly reader: CounterReader<typeof nvidiaGpu> = {
    record: nvidiaGpu,
    read: () => {
      if (this.#failure !== undefined) throw this.#failure
      const waitMs = this.#askedMs === undefined ? 0 : this.#now() - this.#askedMs
      if (waitMs > PATIENCE_MS) {
        throw new Error(`NVIDIA's library has not answered for ${Math.round(waitMs / 1000)} s`)
      }
      return this.#devices.length === 0 ? undefined : this.#record()
    },
  }

  #sample(): void {
    // One question at a time: a library that hangs is not asked again.
    if (this.#ask === undefined || this.#askedMs !== undefined) return
    this.#askedMs = this.#now()
    this.#ask().then(
      words => {
        this.#failure = undefined
        this.#askedMs = undefined
        this.#add(devicesOf(words))
      },
      (error: Error) => {
        this.#failure = error
        this.#askedMs = undefined
        this.#sampledMs = undefined
      },
    )
  }

  #add(devices: readonly Map<GpuWord, bigint>[]): void {
    const nowMs = this.#now()
    const ms = this.#sampledMs === undefined ? 0 : nowMs - this.#sampledMs
    this.#sampledMs = nowMs
    this.#devices = devices.map((device, i) => new Map([...(this.#devices[i] ?? []), ...device]))
    for (const device of devices) {
      // More than all of the time is nonsense.
      const share = (word: GpuWord) => Math.min(Number(device.get(word) ?? 0n), 100) / 100
      this.#sums.gpuBusy += ms * share('gpuBusy')
      this.#sums.memoryBusy += ms * share('memoryBusy')
      if (!device.has('energy')) this.#sums.energy += (ms * Number(device.get('power') ?? 0n)) / 1000
    }
  }

  #record(): NvidiaGpu {
    const devices = this.#devices
    const known = (word: GpuWord) =>
      devices.filter(device => device.has(word)).map(device => device.get(word)!)
    const sum = (word: GpuWord) => known(word).reduce((total, value) => total + value, 0n)
    const most = (word: GpuWord) => Math.max(0, ...known(word).map(low32))
    const isKnown = (...words: GpuWord[]) => words.some(word => known(word).length > 0)
    return {
      device_count: devices.length,
      processes: low32(sum('processes')),
      gpu_time: isKnown('gpuBusy') ? low32(BigInt(Math.round(this.#sums.gpuBusy))) : UNKNOWN32,
      mem_time: isKnown('memoryBusy') ? low32(BigInt(Math.round(this.#sums.memoryBusy))) : UNKNOWN32,
      mem_total: sum('memoryTotal'),
      mem_free: sum('memoryFree'),
      ecc_errors: isKnown('eccErrors') ? low32(sum('eccErrors')) : UNKNOWN32,
      energy: isKnown('energy', 'power')
        ? low32(sum('energy') + BigInt(Math.round(this.#sums.energy)))
        : UNKNOWN32,
      temperature: most('temperature'),
      fan_speed: most('fan'),
    }
  }
}

function devicesOf(words: BigUint64Array): Map<GpuWord, bigint>[] {
  const devices: Map<GpuWord, bigint>[] = []
  for (let at = 0; at + GPU_WORDS.length <= words.length; at += GPU_WORDS.length) {
    const device = new Map<GpuWord, bigint>()
    for (const [i, word] of GPU_WORDS.entries()) {
      if (i > 0 && (words[at]! >> BigInt(i)) & 1n) device.set(word, words[at + i]!)
    }
    devices.push(device)
  }
  return devices
}
