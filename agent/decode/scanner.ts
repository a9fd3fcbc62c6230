/**
 * The quick way through a datagram: what statistics, lines and live views need, read into the same object again and
 * again, with nothing allocated. The strict decoder (wire/sflow/datagram.ts) tells what is wrong with a datagram that
 * the scanner refuses.
 */

export type SampleKind = 'flow' | 'counters' | 'discard' | 'other'

/** Records behind the ones that the scanner reads itself; more of them in one sample are not listed. */
const MOST_OTHERS = 64

/** Numbers of data formats, enterprise * 4096 + format. */
const SAMPLE = { flow: 1, counters: 2, flowExpanded: 3, countersExpanded: 4, discard: 5 } as const
const FLOW = {
  header: 1,
  switch: 1001,
  egressQueue: 1036,
  function: 1038,
  transit: 1039,
  queue: 1040,
  trap: 1041,
  dropReason: 1042,
  timestamp: 1043,
} as const
const READ_HERE: ReadonlySet<number> = new Set(Object.values(FLOW).filter(format => format !== FLOW.switch))
const COUNTERS = { interface: 1, portName: 1005 } as const

/** Bytes of if_counters. */
const IF_COUNTERS_BYTES = 88

/** A datagram and one of its samples. Places are indices of `bytes`; -1 stands for what is not there. */
export class ScannedSample {
  bytes: Uint8Array = new Uint8Array(0)
  /** Where the datagram begins. */
  start = 0
  agentAt = 0
  /** 4, 16, or 0 for an unknown address. */
  agentLength = 0
  subAgent = 0
  /** Of the datagram. */
  datagramSequence = 0
  uptimeMs = 0
  samples = 0
  /** Whether a structure of the datagram, of those seen so far, is shorter than it has to be. */
  broken = false

  kind: SampleKind = 'other'
  /** Where the sample begins, with its format. */
  sampleAt = 0
  format = 0
  /** Its body. */
  bodyAt = 0
  bodyEnd = 0
  sequence = 0
  sourceType = 0
  sourceIndex = 0
  /** The N of 1 in N; 0 in what is no flow sample. */
  rate = 0
  pool = 0
  drops = 0
  /** Formats: 0 ifIndex, 1 discard reason, 2 number of interfaces. */
  inputFormat = 0
  input = 0
  outputFormat = 0
  output = 0
  /** Of a discarded packet. */
  reason = -1

  headerProtocol = 0
  frameLength = 0
  stripped = 0
  headerAt = -1
  headerEnd = -1

  sourceVlan = -1
  destinationVlan = -1
  queue = -1
  queueDepth = -1
  transitDelay = -1
  /** Text: the 4 bytes of its length, then its bytes. */
  functionAt = -1
  trapGroupAt = -1
  trapAt = -1
  dropReasonAt = -1
  /** 8 bytes: nanoseconds since 1970. */
  timestampAt = -1

  /** The body of if_counters. */
  ifCountersAt = -1
  portNameAt = -1

  /** Records of other formats: where they begin. */
  readonly others = new Int32Array(MOST_OTHERS)
  otherCount = 0
}

/** What is told of a datagram: first the datagram, with no sample yet, then each sample. Everything is borrowed. */
export interface ScanSink {
  datagram?(scanned: ScannedSample): void
  sample(scanned: ScannedSample): void
}

export class Scanner {
  readonly scanned = new ScannedSample()

  /**
   * Reads the datagram in `bytes` from `start` to `end`. False, with nothing told to the sink, when it is not a whole
   * sFlow v5 datagram. A sample that is shorter than its structure is of the kind `other`, and such a record is listed
   * among the others; `broken` is true then.
   */
  scan(bytes: Uint8Array, start: number, end: number, sink: ScanSink): boolean {
    const s = this.scanned
    const first = this.#readHeader(bytes, start, end)
    if (first < 0 || !this.#isWhole(bytes, first, end)) return false
    sink.datagram?.(s)
    let at = first
    for (let i = 0; i < s.samples; i++) {
      const length = u32(bytes, at + 4)
      this.#readSample(bytes, at, length, end)
      sink.sample(s)
      at += 8 + paddedWithin(length, end - at - 8)
    }
    return true
  }

  /** Gives the place of the first sample, or -1. */
  #readHeader(bytes: Uint8Array, start: number, end: number): number {
    const s = this.scanned
    if (end - start < 28 || u32(bytes, start) !== 5) return -1
    const type = u32(bytes, start + 4)
    const length = type === 1 ? 4 : type === 2 ? 16 : 0
    if (type > 2 || end - start < 24 + length) return -1
    const at = start + 8 + length
    s.bytes = bytes
    s.start = start
    s.agentAt = start + 8
    s.agentLength = length
    s.subAgent = u32(bytes, at)
    s.datagramSequence = u32(bytes, at + 4)
    s.uptimeMs = u32(bytes, at + 8)
    s.samples = u32(bytes, at + 12)
    s.broken = false
    return s.samples * 8 > end - at - 16 ? -1 : at + 16
  }

  /** Whether samples and records are within their containers. */
  #isWhole(bytes: Uint8Array, first: number, end: number): boolean {
    let at = first
    for (let i = 0; i < this.scanned.samples; i++) {
      if (end - at < 8) return false
      const format = u32(bytes, at)
      const length = u32(bytes, at + 4)
      if (length > end - at - 8) return false
      const body = at + 8
      at = body + paddedWithin(length, end - body)
      const fixed = fixedBytes(format)
      if (fixed === 0 || at - body < fixed) continue
      if (at - body < fixed + 4) return false
      const count = u32(bytes, body + fixed)
      if (count * 8 > at - body - fixed - 4) return false
      let record = body + fixed + 4
      for (let j = 0; j < count; j++) {
        if (at - record < 8) return false
        const recordLength = u32(bytes, record + 4)
        if (recordLength > at - record - 8) return false
        record += 8 + paddedWithin(recordLength, at - record - 8)
      }
    }
    return true
  }

  #readSample(bytes: Uint8Array, at: number, length: number, end: number): void {
    const s = this.scanned
    const body = at + 8
    s.sampleAt = at
    s.format = u32(bytes, at)
    s.bodyAt = body
    s.bodyEnd = body + paddedWithin(length, end - body)
    s.kind = 'other'
    s.rate = 0
    s.otherCount = 0
    s.sourceType = 0
    s.sourceIndex = 0
    s.sequence = 0
    s.reason = -1
    if (s.bodyEnd - body < fixedBytes(s.format)) {
      s.broken = true
      return
    }
    switch (s.format) {
      case SAMPLE.flow: {
        this.#flow(bytes, body + 8)
        const source = u32(bytes, body + 4)
        s.sourceType = source >>> 24
        s.sourceIndex = source & 0xffffff
        const input = u32(bytes, body + 20)
        const output = u32(bytes, body + 24)
        s.inputFormat = input >>> 30
        s.input = input & 0x3fffffff
        s.outputFormat = output >>> 30
        s.output = output & 0x3fffffff
        break
      }
      case SAMPLE.flowExpanded:
        this.#flow(bytes, body + 12)
        this.#source(bytes, body)
        s.inputFormat = u32(bytes, body + 24)
        s.input = u32(bytes, body + 28)
        s.outputFormat = u32(bytes, body + 32)
        s.output = u32(bytes, body + 36)
        break
      case SAMPLE.discard:
        s.kind = 'discard'
        this.#source(bytes, body)
        s.pool = 0
        s.drops = u32(bytes, body + 12)
        s.inputFormat = 0
        s.input = u32(bytes, body + 16)
        s.outputFormat = 0
        s.output = u32(bytes, body + 20)
        s.reason = u32(bytes, body + 24)
        break
      case SAMPLE.counters: {
        const source = u32(bytes, body + 4)
        s.kind = 'counters'
        s.sourceType = source >>> 24
        s.sourceIndex = source & 0xffffff
        break
      }
      case SAMPLE.countersExpanded:
        s.kind = 'counters'
        this.#source(bytes, body)
        break
      default:
        return
    }
    s.sequence = u32(bytes, body)
    if (s.kind === 'counters') this.#counterRecords(bytes, body + fixedBytes(s.format))
    else this.#flowRecords(bytes, body + fixedBytes(s.format))
  }

  #flow(bytes: Uint8Array, ratesAt: number): void {
    const s = this.scanned
    s.kind = 'flow'
    s.rate = u32(bytes, ratesAt)
    s.pool = u32(bytes, ratesAt + 4)
    s.drops = u32(bytes, ratesAt + 8)
  }

  #source(bytes: Uint8Array, body: number): void {
    this.scanned.sourceType = u32(bytes, body + 4)
    this.scanned.sourceIndex = u32(bytes, body + 8)
  }

  #flowRecords(bytes: Uint8Array, countAt: number): void {
    const s = this.scanned
    s.headerAt = -1
    s.headerEnd = -1
    s.sourceVlan = -1
    s.destinationVlan = -1
    s.queue = -1
    s.queueDepth = -1
    s.transitDelay = -1
    s.functionAt = -1
    s.trapGroupAt = -1
    s.trapAt = -1
    s.dropReasonAt = -1
    s.timestampAt = -1
    const count = u32(bytes, countAt)
    let at = countAt + 4
    for (let i = 0; i < count; i++) {
      const body = at + 8
      const length = u32(bytes, at + 4)
      const end = body + paddedWithin(length, s.bodyEnd - body)
      if (!this.#flowRecord(bytes, u32(bytes, at), body, end)) {
        if (READ_HERE.has(u32(bytes, at))) s.broken = true
        this.#other(at)
      }
      at = end
    }
  }

  /** Whether the record is one that is read here. */
  #flowRecord(bytes: Uint8Array, format: number, body: number, end: number): boolean {
    const s = this.scanned
    const length = end - body
    switch (format) {
      case FLOW.header: {
        if (length < 16) return false
        // A second header is told of by the strict decoder.
        if (s.headerAt >= 0) return false
        const captured = u32(bytes, body + 12)
        if (captured > length - 16) return false
        s.headerProtocol = u32(bytes, body)
        s.frameLength = u32(bytes, body + 4)
        s.stripped = u32(bytes, body + 8)
        s.headerAt = body + 16
        s.headerEnd = body + 16 + captured
        return true
      }
      case FLOW.switch:
        if (length !== 16) return false
        s.sourceVlan = u32(bytes, body)
        s.destinationVlan = u32(bytes, body + 8)
        // Priorities are in no line of ours: the record is shown with the others.
        return false
      case FLOW.egressQueue:
        if (length !== 4) return false
        s.queue = u32(bytes, body)
        return true
      case FLOW.queue:
        if (length !== 4) return false
        s.queueDepth = u32(bytes, body)
        return true
      case FLOW.transit:
        if (length !== 4) return false
        s.transitDelay = u32(bytes, body)
        return true
      case FLOW.function:
        if (textEnd(bytes, body, end) !== end) return false
        s.functionAt = body
        return true
      case FLOW.dropReason:
        if (textEnd(bytes, body, end) !== end) return false
        s.dropReasonAt = body
        return true
      case FLOW.trap: {
        const trap = textEnd(bytes, body, end)
        if (trap < 0 || textEnd(bytes, trap, end) !== end) return false
        s.trapGroupAt = body
        s.trapAt = trap
        return true
      }
      case FLOW.timestamp:
        if (length !== 8) return false
        s.timestampAt = body
        return true
      default:
        return false
    }
  }

  #counterRecords(bytes: Uint8Array, countAt: number): void {
    const s = this.scanned
    s.ifCountersAt = -1
    s.portNameAt = -1
    const count = u32(bytes, countAt)
    let at = countAt + 4
    for (let i = 0; i < count; i++) {
      const body = at + 8
      const end = body + paddedWithin(u32(bytes, at + 4), s.bodyEnd - body)
      const format = u32(bytes, at)
      if (format === COUNTERS.interface && end - body >= IF_COUNTERS_BYTES) s.ifCountersAt = body
      else if (format === COUNTERS.portName && textEnd(bytes, body, end) > 0) s.portNameAt = body
      this.#other(at)
      at = end
    }
  }

  #other(at: number): void {
    const s = this.scanned
    if (s.otherCount < MOST_OTHERS) s.others[s.otherCount++] = at
  }
}

/** Bytes of a sample before the number of its records; 0 for a sample without records. */
function fixedBytes(format: number): number {
  switch (format) {
    case SAMPLE.flow:
      return 28
    case SAMPLE.counters:
      return 8
    case SAMPLE.flowExpanded:
      return 40
    case SAMPLE.countersExpanded:
      return 12
    case SAMPLE.discard:
      return 28
    default:
      return 0
  }
}

/** Where the bytes behind a text begin, or -1 when it reaches past `end`. */
function textEnd(bytes: Uint8Array, at: number, end: number): number {
  if (end - at < 4) return -1
  const length = u32(bytes, at)
  return length > end - at - 4 ? -1 : at + 4 + paddedWithin(length, end - at - 4)
}

/** The length with its padding, which may lack at the end of a container. */
function paddedWithin(length: number, most: number): number {
  return Math.min((length + 3) & ~3, most)
}

/** The 32-bit number at `at`, which must be within the array. */
export function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
}
