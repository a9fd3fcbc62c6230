/**
 * What came and what is missing, for each agent, sub-agent and data source: by the sequence numbers of datagrams and
 * samples, by the sample pools and by the drops that the agent itself reports.
 */

import { counted, grouped } from '../quantities.ts'
import { formatIp4, formatIp6 } from '../wire/addresses.ts'
import { dataSourceType } from '../wire/sflow/enumerations.ts'
import { type SampleKind, type ScannedSample, type ScanSink, u32 } from './scanner.ts'
import { isRestart, MOST_LATE, type Newest } from './streams.ts'

/** Sub-agents and data sources that are kept; what comes of more is counted together. */
interface Limits {
  readonly streams: number
  /** 0 when sources are of no interest: they are not counted then. */
  readonly sources: number
}
const MOST: Limits = { streams: 10_000, sources: 100_000 }

/** Numbers that should come one after the other. */
export class Sequence {
  received = 0
  /** Missing, those that came late taken off again. */
  lost = 0
  late = 0
  duplicates = 0
  restarts = 0
  #last = -1

  /** What comes next is the first again. */
  restart(): void {
    if (this.#last < 0) return
    this.restarts++
    this.#last = -1
  }

  /** Gives the step from the number before: 1 as it should be; 0 for the first and for a restart. */
  next(number: number, restarted = false): number {
    this.received++
    if (this.#last < 0) {
      this.#last = number
      return 0
    }
    // Wraps at 2^32; a difference as a signed number does not mind.
    const step = (number - this.#last) | 0
    if (restarted || step < -MOST_LATE) {
      this.restarts++
      this.#last = number
      return 0
    }
    if (step > 0) {
      this.lost += step - 1
      this.#last = number
    } else if (step === 0) {
      this.duplicates++
    } else {
      this.late++
      if (this.lost > 0) this.lost--
    }
    return step
  }
}

/** A data source's samples of one kind. */
class SourceStatistics {
  readonly sequence = new Sequence()
  readonly kind: SampleKind
  readonly sourceType: number
  readonly sourceIndex: number
  /** The N of the last flow sample. */
  rate = 0
  /** By how much the sample pool has grown between the first and the last sample, and in how many steps. */
  packets = 0
  #steps = 0
  /** By how much the agent's own count of lost samples has grown. */
  drops = 0
  #isFirst = true
  #pool = 0
  #drops = 0

  constructor(kind: SampleKind, sourceType: number, sourceIndex: number) {
    this.kind = kind
    this.sourceType = sourceType
    this.sourceIndex = sourceIndex
  }

  add(s: ScannedSample): void {
    const isFirst = this.#isFirst
    this.#isFirst = false
    const step = this.sequence.next(s.sequence)
    if (s.kind === 'counters') return
    this.rate = s.rate
    if (!isFirst && step > 0) {
      // Both wrap at 2^32.
      this.packets += (s.pool - this.#pool) >>> 0
      this.drops += (s.drops - this.#drops) >>> 0
      this.#steps += step
    }
    if (isFirst || step >= 0) {
      this.#pool = s.pool
      this.#drops = s.drops
    }
  }

  restart(): void {
    this.sequence.restart()
    this.#isFirst = true
  }

  /** Packets for each sample, by pool and sequence numbers; undefined before there are two samples. */
  get effectiveRate(): number | undefined {
    return this.kind === 'flow' && this.#steps > 0 ? this.packets / this.#steps : undefined
  }
}

/** A sub-agent of an agent. */
export class StreamStatistics {
  readonly agent: string
  readonly subAgent: number
  readonly datagrams = new Sequence()
  readonly sources = new Map<number, SourceStatistics>()
  bytes = 0
  /** Samples by kind. */
  readonly samples: Record<SampleKind, number> = { flow: 0, counters: 0, discard: 0, other: 0 }
  newest: Newest | undefined
  readonly agentLength: number

  constructor(agent: string, agentLength: number, subAgent: number) {
    this.agent = agent
    this.agentLength = agentLength
    this.subAgent = subAgent
  }
}

const KIND_NUMBER: Readonly<Record<SampleKind, number>> = { flow: 0, counters: 1, discard: 2, other: 3 }

export class Statistics implements ScanSink {
  readonly streams = new Map<string, StreamStatistics>()
  /** Datagrams of sub-agents, and samples of sources, beyond those that are kept. */
  notKept = 0
  /** What could not be decoded. */
  malformed = 0
  /** Those that were understood. */
  datagrams = 0
  readonly #most: Limits
  #sources = 0
  /** The stream of the datagram that is being read, and what to look it up by. */
  stream: StreamStatistics | undefined
  readonly #words = new Uint32Array(5)

  constructor(most = MOST) {
    this.#most = most
  }

  datagram(s: ScannedSample): void {
    this.datagrams++
    const stream = this.#find(s)
    this.stream = stream
    if (stream === undefined) {
      this.notKept++
      return
    }
    const { newest } = stream
    const restarted = newest !== undefined && isRestart(newest, s.datagramSequence, s.uptimeMs)
    const step = stream.datagrams.next(s.datagramSequence, restarted)
    if (step >= 0) stream.newest = { sequence: s.datagramSequence, uptime: s.uptimeMs }
    // An agent that starts again counts from the beginning.
    if (restarted) for (const source of stream.sources.values()) source.restart()
  }

  sample(s: ScannedSample): void {
    const stream = this.stream
    if (stream === undefined) return
    stream.samples[s.kind]++
    if (s.kind === 'other' || this.#most.sources === 0) return
    const key = (KIND_NUMBER[s.kind] * 256 + (s.sourceType & 0xff)) * 2 ** 32 + s.sourceIndex
    let source = stream.sources.get(key)
    if (source === undefined) {
      if (this.#sources >= this.#most.sources) {
        this.notKept++
        return
      }
      this.#sources++
      source = new SourceStatistics(s.kind, s.sourceType, s.sourceIndex)
      stream.sources.set(key, source)
    }
    source.add(s)
  }

  /** The bytes of the datagram that was read last. */
  countBytes(bytes: number): void {
    if (this.stream !== undefined) this.stream.bytes += bytes
  }

  /** Makes room for another; what was counted of it is gone. */
  forget(stream: StreamStatistics): void {
    this.streams.delete(streamKey(stream.agent, stream.subAgent))
    this.#sources -= stream.sources.size
    if (this.stream === stream) this.stream = undefined
  }

  /** A table for people. */
  text(): string {
    const lines: string[] = []
    for (const stream of this.streams.values()) {
      const { agent, subAgent, datagrams, samples, bytes } = stream
      lines.push(
        `agent ${agent} sub-agent ${subAgent}: ${counted(datagrams.received, 'datagram')}, ${counted(bytes, 'byte')}, ` +
          `${counted(samples.flow, 'flow sample')}, ${counted(samples.counters, 'counters sample')}, ` +
          `${counted(samples.discard, 'discarded packet')}, ${counted(samples.other, 'other')}`,
        `  datagrams: ${sequenceText(datagrams)}`,
      )
      for (const source of sorted(stream)) lines.push(`  ${sourceLine(source)}`)
    }
    if (this.malformed > 0) lines.push(`${counted(this.malformed, 'datagram')} could not be decoded`)
    if (this.notKept > 0)
      lines.push(
        `${counted(this.notKept, 'datagram or sample', 'datagrams or samples')} of sources beyond the most that are kept`,
      )
    if (lines.length === 0) lines.push('no datagrams')
    return `${lines.join('\n')}\n`
  }

  /** The same for programs. */
  json(): object {
    const sequence = ({ received, lost, late, duplicates, restarts }: Sequence) => ({
      received,
      lost,
      late,
      duplicates,
      restarts,
    })
    return {
      malformed: this.malformed,
      not_kept: this.notKept,
      streams: [...this.streams.values()].map(stream => ({
        agent_address: stream.agent,
        sub_agent_id: stream.subAgent,
        bytes: stream.bytes,
        datagrams: sequence(stream.datagrams),
        samples: stream.samples,
        sources: sorted(stream).map(source => ({
          kind: source.kind,
          source_id: { type: source.sourceType, index: source.sourceIndex },
          ...sequence(source.sequence),
          ...(source.kind === 'counters' ? {} : { drops: source.drops }),
          ...(source.kind === 'flow'
            ? {
                sampling_rate: source.rate,
                packets: source.packets,
                effective_rate: source.effectiveRate ?? null,
              }
            : {}),
        })),
      })),
    }
  }

  #find(s: ScannedSample): StreamStatistics | undefined {
    const { bytes, agentAt, agentLength } = s
    // The same sub-agent as before, mostly.
    const words = this.#words
    const last = this.stream
    let same = last !== undefined && words[4] === s.subAgent && last.agentLength === agentLength
    for (let i = 0; i < agentLength && same; i += 4) same = words[i >> 2] === u32(bytes, agentAt + i)
    if (same) return last
    for (let i = 0; i < agentLength; i += 4) words[i >> 2] = u32(bytes, agentAt + i)
    words[4] = s.subAgent
    const agent = agentText(s)
    const key = streamKey(agent, s.subAgent)
    const found = this.streams.get(key)
    if (found !== undefined || this.streams.size >= this.#most.streams) return found
    const stream = new StreamStatistics(agent, agentLength, s.subAgent)
    this.streams.set(key, stream)
    return stream
  }
}

function streamKey(agent: string, subAgent: number): string {
  return `${agent} ${subAgent}`
}

/** The agent's address as text, `unknown` where it has none. */
export function agentText({ bytes, agentAt, agentLength }: ScannedSample): string {
  if (agentLength === 0) return 'unknown'
  return agentLength === 4 ? formatIp4(bytes, agentAt) : formatIp6(bytes, agentAt)
}

function sorted(stream: StreamStatistics): SourceStatistics[] {
  return [...stream.sources.values()].sort(
    (a, b) =>
      KIND_NUMBER[a.kind] - KIND_NUMBER[b.kind] ||
      a.sourceType - b.sourceType ||
      a.sourceIndex - b.sourceIndex,
  )
}

function sourceLine(source: SourceStatistics): string {
  const { kind, sequence, rate, packets, effectiveRate, drops } = source
  const name = {
    flow: 'flow samples',
    counters: 'counters samples',
    discard: 'discarded packets',
    other: '',
  }[kind]
  const type = dataSourceType[source.sourceType] ?? `type ${source.sourceType}`
  let line = `${name} of ${type} ${source.sourceIndex}: ${grouped(sequence.received)}, ${sequenceText(sequence)}`
  if (kind === 'flow') line += `, 1 in ${grouped(rate)}, ${counted(packets, 'packet')}`
  if (effectiveRate !== undefined) line += ` (1 in ${effectiveRate.toFixed(1)} by the pool)`
  if (kind !== 'counters') line += `, ${grouped(drops)} lost in the agent`
  return line
}

function sequenceText({ lost, late, duplicates, restarts }: Sequence): string {
  const parts = [`${grouped(lost)} missing`]
  if (late > 0) parts.push(`${grouped(late)} late`)
  if (duplicates > 0) parts.push(`${grouped(duplicates)} twice`)
  if (restarts > 0) parts.push(counted(restarts, 'restart'))
  return parts.join(', ')
}
