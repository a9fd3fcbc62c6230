/**
 * BpfSamples in a network namespace: a process of its own there, because a program is attached in the namespace of
 * whoever attaches it. The test calls its methods through the process's channel.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { Classifier } from '../../agent/drops/classifier.ts'
import { DropNames } from '../../agent/drops/drop-names.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { BpfError, patiently } from '../../agent/kernel/bpf-object.ts'
import { type Drop, Names } from '../../agent/samples/drop.ts'
import type { PacketSample } from '../../agent/samples/packet-sample.ts'
import { BpfSamples } from '../../agent/sources/bpf-samples.ts'
import type { Scope } from './lab.ts'

/** A sample as the sink got it, with a copy of its header. */
export type Seen = Omit<PacketSample, 'headerWords' | 'headerOffset'> & { readonly header: Buffer }

/** A drop as it was told. */
export interface SeenDrop
  extends Pick<Drop, 'inputIfIndex' | 'outputIfIndex' | 'etherType' | 'frameLength' | 'egressQueue'> {
  readonly reason: string | undefined
  readonly symbol: string | undefined
  readonly timestamp: bigint
  readonly header: Buffer
}

/** What the driver does beside the methods of BpfSamples. */
const EXTRAS = {
  /** The event loop stands still. */
  block: (milliseconds: number) => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
  },
  /** The same, and then poll() before anything else. Gives the samples that poll() told the pools of too early. */
  blockAndPoll: (milliseconds: number) => {
    EXTRAS.block(milliseconds)
    tooEarly = 0
    source!.poll()
    return tooEarly
  },
  /** What was seen so far is forgotten; what is counted begins again. */
  reset: () => {
    source!.poll()
    for (const list of [seen, drops, byOctet]) list.length = 0
    told = 0
    deliveredBefore = source!.delivered
    countedBefore = new Map(ledger.entries().map(({ cause, count }) => [cause, count]))
    pools.clear()
  },
  /** Takes all the room that the map of rates has, for interfaces that there are not. */
  fillRates: async () => {
    for (let ifIndex = 1 << 20; ; ifIndex++) {
      try {
        await patiently(() => source!.setRate(ifIndex, 1))
      } catch (error) {
        if (error instanceof BpfError && error.code === 'E2BIG') return
        throw error
      }
    }
  },
  /** Samples so far, lost samples that they told of, and how many had each value in their 15th octet. */
  tally: () => ({ delivered: source!.delivered - deliveredBefore, told, byOctet }),
  seen: () => seen,
  drops: () => drops,
  repairs: () => repairs,
  losses: () =>
    Object.fromEntries(
      ledger.entries().map(({ cause, count }) => [cause, count - (countedBefore.get(cause) ?? 0)]),
    ),
  /** Packets by interface, as told to the pools. */
  pools: () => Object.fromEntries(pools),
  /** Processor time of the process so far, microseconds. */
  cpu: () => process.cpuUsage(),
} as const

type Methods = Pick<BpfSamples, 'add' | 'setRate' | 'remove' | 'poll' | 'counts' | 'stop'> & typeof EXTRAS
type Name = keyof Methods

export interface DriverOptions {
  readonly headerBytes?: number
  /** Of several in one namespace. */
  readonly instance?: number
  readonly transit?: boolean
  /** A command that runs it, as `setpriv …`. */
  readonly under?: readonly string[]
}

/** Most samples that seen() keeps. */
const KEPT = 1000

export class BpfDriver {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #calls = 0

  /** Fails with the message of what the kernel refused. */
  static async start(
    scope: Scope,
    namespace: string,
    { headerBytes = 128, instance = 0, transit = false, under = [] }: DriverOptions = {},
  ): Promise<BpfDriver> {
    const command = [
      ...under,
      process.execPath,
      import.meta.filename,
      String(headerBytes),
      String(instance),
      String(transit),
    ]
    const driver = new BpfDriver(scope, ['netns', 'exec', namespace, ...command])
    await driver.#promise(0)
    return driver
  }

  private constructor(scope: Scope, args: readonly string[]) {
    this.#child = spawn('ip', args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    })
    const ended = new Promise(resolve => this.#child.on('close', resolve))
    scope.after(async () => {
      this.#child.kill('SIGKILL')
      await ended
    })
    this.#child.on('message', ({ id, value, error }: Answer) => {
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error === undefined) waiting?.resolve(value)
      else waiting?.reject(Object.assign(new Error(error.message), { code: error.code }))
    })
  }

  get pid(): number {
    return this.#child.pid!
  }

  call<M extends Name>(method: M, ...args: Parameters<Methods[M]>): Promise<Awaited<ReturnType<Methods[M]>>> {
    const id = ++this.#calls
    const promise = this.#promise(id)
    this.#child.send({ id, method, args })
    return promise as Promise<Awaited<ReturnType<Methods[M]>>>
  }

  /** Ends the process without any goodbye. */
  kill(): void {
    this.#child.kill('SIGKILL')
  }

  #promise(id: number): Promise<unknown> {
    const waiting = Promise.withResolvers<unknown>()
    this.#waiting.set(id, waiting)
    return waiting.promise
  }
}

interface Answer {
  readonly id: number
  readonly value?: unknown
  readonly error?: { readonly message: string; readonly code?: string }
}

const ledger = new Ledger()
const pools = new Map<number, number>()
const seen: Seen[] = []
const drops: SeenDrop[] = []
const repairs: string[] = []
const byOctet: number[] = []
let told = 0
let deliveredBefore = 0
let countedBefore = new Map<string, number>()
let tooEarly = 0
let source: BpfSamples | undefined

function take(sample: PacketSample): void {
  const { headerWords, headerOffset, ...fields } = sample
  const header = Buffer.from(headerWords.buffer as ArrayBuffer, headerOffset, sample.headerLength)
  told += sample.lostBefore
  const octet = header[14]!
  byOctet[octet] = (byOctet[octet] ?? 0) + 1
  if (seen.length < KEPT) seen.push({ ...fields, header: Buffer.from(header) })
}

const classifier = new Classifier({ reasonNames: true, unknownTraps: false, host: true, hide: undefined })

function takeDrop(drop: Drop): number | undefined {
  const { inputIfIndex, outputIfIndex, etherType, frameLength, egressQueue } = drop
  const header = Buffer.from(drop.headerWords.buffer as ArrayBuffer, drop.headerOffset, drop.headerLength)
  if (drops.length < KEPT) {
    drops.push({
      ...{ inputIfIndex, outputIfIndex, etherType, frameLength, egressQueue },
      reason: drop.reason?.text,
      symbol: drop.symbol?.text,
      timestamp: (BigInt(drop.timestampHigh) << 32n) | BigInt(drop.timestampLow),
      header: Buffer.from(header),
    })
  }
  return classifier.classify(drop).code
}

async function answer(id: number, action: () => unknown): Promise<void> {
  try {
    process.send!({ id, value: await action() })
  } catch (caught) {
    const { message, code } = caught as Error & { code?: string }
    process.send!({ id, error: { message, code } })
  }
}

if (process.argv[1] === import.meta.filename) {
  await answer(0, async () => {
    const names = new DropNames(new Names())
    await names.load()
    source = await BpfSamples.open({
      ledger,
      headerBytes: Number(process.argv[2]),
      instance: Number(process.argv[3]),
      transit: process.argv[4] === 'true',
      sink: take,
      names,
      onDrop: takeDrop,
      onBatchEnd: () => {},
      onRepair: (_ifIndex, problem) => void repairs.push(problem ?? 'put back'),
      onCounted: (ifIndex, packets) => {
        pools.set(ifIndex, (pools.get(ifIndex) ?? 0) + packets)
        tooEarly += Math.max(pools.get(ifIndex)! - source!.delivered, 0)
      },
    })
  })
  process.on('message', ({ id, method, args }: { id: number; method: Name; args: unknown[] }) => {
    const target: object = method in EXTRAS ? EXTRAS : source!
    void answer(id, () => (target as Record<Name, (...args: unknown[]) => unknown>)[method](...args))
  })
}
