/** The datagram (sFlow v5 §5): a strict decoder that says where, and the encoder that is its inverse. */

import { addr, readCount, struct, u32, type ValueOf } from '../struct.ts'
import { type Problem, padded, Reader, WireError, type WireErrorCode, Writer } from '../xdr.ts'
import { findRecord, type RecordBlock, type SampleBlock, sampleSize, writeSample } from './block.ts'
import { queueLength } from './counters/interface.ts'
import * as application from './flow/application.ts'
import { extendedEgressQueue, extendedQueue } from './flow/forwarding.ts'
import { sampledEthernet, sampledHeader, sampledIpv4, sampledIpv6 } from './flow/header.ts'
import type { CounterRecord, Declaration, FlowRecord } from './record.ts'
import { counterRecords, flowRecords, sampleTypes } from './registry.ts'
import { countersSample, countersSampleExpanded, flowSample, flowSampleExpanded } from './samples.ts'

const SFLOW_VERSION = 5
/** UDP port of collectors. */
export const SFLOW_PORT = 6343

/** The fields between the version and the samples. */
export const datagramHeader = struct({
  agent_address: addr('identity of the agent'),
  sub_agent_id: u32('stream within the agent'),
  sequence_number: u32('of the datagrams of this sub-agent'),
  uptime: u32('since the sub-agent started, wraps after 49.7 days', 'ms'),
})

export interface Datagram extends ValueOf<typeof datagramHeader> {
  readonly samples: readonly SampleBlock[]
}

export interface DecodedDatagram extends Datagram {
  /** Structures that could not be read (they are in `samples` as raw blocks) and warnings, in order of place. */
  readonly problems: readonly Problem[]
}

/** The bytes of a datagram. Fails with a WireError when a value does not fit its field. */
export function encodeDatagram(datagram: Datagram): Uint8Array {
  let size = 8 + datagramHeader.size(datagram)
  for (const sample of datagram.samples) size += sampleSize(sample)
  const bytes = new Uint8Array(size)
  const writer = new Writer(new DataView(bytes.buffer))
  writer.u32(SFLOW_VERSION, 'version')
  datagramHeader.write(writer, datagram, '')
  writer.u32(datagram.samples.length, 'samples')
  for (const sample of datagram.samples) writeSample(writer, sample)
  return bytes
}

/**
 * Reads a datagram. Fails with a WireError when the datagram as a whole cannot be trusted: another version, a
 * sample, record or array longer than what contains it, an unknown type of address. A structure that is wrong
 * within its own length is a problem of severity `error`, is kept raw, and reading goes on behind it. Unknown
 * samples and records are kept raw silently. Byte fields of the result are views of `bytes`.
 */
export function decodeDatagram(bytes: Uint8Array): DecodedDatagram {
  const reader = new Reader(bytes, ['datagram'])
  const version = reader.u32('version')
  if (version !== SFLOW_VERSION) {
    throw reader.fail('version', `version is ${version}, not ${SFLOW_VERSION}`, 0)
  }
  const header = datagramHeader.read(reader, '')
  const count = readCount(reader, 'samples', 8)
  const samples: SampleBlock[] = []
  for (let number = 1; number <= count; number++) samples.push(readSample(reader, number))
  if (reader.left > 0) {
    reader.warn('trailing-bytes', `${reader.left} bytes follow the last sample`, reader.offset)
  }
  checkForms(reader, samples)
  return { ...header, samples, problems: reader.problems }
}

/** Problems that make what follows in the datagram unreliable; others concern one block. */
const FATAL: ReadonlySet<WireErrorCode> = new Set(['length', 'count', 'address-type'])

function readSample(reader: Reader, number: number): SampleBlock {
  const { declaration, body, enterprise, format, offset } = readBlock(reader, sampleTypes, 'sample', number)
  if (declaration === undefined) return { enterprise, format, offset, raw: body.rest() }
  const start = body.offset
  let value: unknown
  try {
    value = declaration.read(body)
  } catch (error) {
    return { enterprise, format, offset, raw: rawAfter(error, body, start) }
  }
  const records: RecordBlock[] = []
  if (declaration.records !== undefined) {
    const known = declaration.records === 'flow' ? flowRecords : counterRecords
    const count = readCount(body, 'records', 8)
    for (let i = 1; i <= count; i++) records.push(readRecord(body, known, i))
    checkRecords(body, declaration.records, records, offset)
  }
  const block = { sample: declaration, value, records, offset }
  return body.left === 0 ? block : { ...block, tail: tailOf(body) }
}

function readRecord(
  reader: Reader,
  known: ReadonlyMap<number, FlowRecord | CounterRecord>,
  number: number,
): RecordBlock {
  const { declaration, body, enterprise, format, offset } = readBlock(reader, known, 'record', number)
  if (declaration === undefined) return { enterprise, format, offset, raw: body.rest() }
  const start = body.offset
  try {
    const block = { record: declaration, value: declaration.read(body), offset }
    return body.left === 0 ? block : { ...block, tail: tailOf(body) }
  } catch (error) {
    return { enterprise, format, offset, raw: rawAfter(error, body, start) }
  }
}

/** Reads format and length, and moves behind the body; `body` reads the body. */
function readBlock<D extends Declaration>(
  reader: Reader,
  known: ReadonlyMap<number, D>,
  what: string,
  number: number,
): { declaration: D | undefined; body: Reader; enterprise: number; format: number; offset: number } {
  const offset = reader.offset
  // Most are there: the names of what is missing are not put together for nothing.
  const isThere = reader.left >= 8
  const word = reader.u32(isThere ? 'format' : `format of ${what} ${number}`)
  const enterprise = word >>> 12
  const format = word & 0xfff
  const lengthAt = reader.offset
  const length = reader.u32(isThere ? 'length' : `length of ${what} ${number}`)
  const declaration = known.get(word)
  const name = declaration?.name ?? `${what} ${enterprise}:${format}`
  const step = what === 'sample' ? `${name} ${number}` : name
  const body = reader.part(step, Math.min(reader.offset + padded(length), reader.end))
  if (length > reader.left) {
    throw body.fail('length', `length is ${length}, ${reader.left} bytes left`, lengthAt)
  }
  if (length % 4 !== 0) body.warn('length-alignment', `length is ${length}, not a multiple of 4`, lengthAt)
  reader.offset = body.end
  return { declaration, body, enterprise, format, offset }
}

/** Notes what is wrong with a block and gives its bytes, unless the error concerns the whole datagram. */
function rawAfter(error: unknown, body: Reader, start: number): Uint8Array {
  if (!(error instanceof WireError) || FATAL.has(error.code)) throw error
  const { code, offset, path, message } = error
  body.problems.push({ severity: 'error', code, offset, path, message })
  body.offset = start
  return body.rest()
}

function tailOf(body: Reader): Uint8Array {
  body.warn('longer', `${body.left} bytes follow the last known field`, body.offset)
  return body.rest()
}

/** Records that stand for the packet or the transaction a flow sample is about. */
const SUBJECTS: ReadonlySet<Declaration> = new Set([
  sampledHeader,
  sampledEthernet,
  sampledIpv4,
  sampledIpv6,
  application.transaction,
  application.memcacheOperation,
  application.appOperation,
  application.httpRequest,
])

function checkRecords(
  reader: Reader,
  family: 'flow' | 'counter',
  records: readonly RecordBlock[],
  offset: number,
): void {
  const seen = new Set<Declaration>()
  for (const block of records) {
    if (!('record' in block)) continue
    if (seen.has(block.record) && block.record !== queueLength) {
      reader.warn('duplicate', `${block.record.name} is there more than once`, block.offset!)
    }
    seen.add(block.record)
  }
  if (family === 'counter') return
  if (!records.some(block => ('record' in block ? SUBJECTS.has(block.record) : isSubject(block)))) {
    reader.warn('no-header', 'no record tells what the packet was', offset)
  }
  if (seen.has(extendedQueue) && !seen.has(extendedEgressQueue)) {
    reader.warn('queue', `${extendedQueue.name} without ${extendedEgressQueue.name}`, offset)
  }
  const header = findRecord(records, sampledHeader)
  if (header !== undefined && header.header.length > header.frame_length - header.stripped) {
    const { frame_length, stripped } = header
    reader.warn(
      'header-length',
      `header has ${header.header.length} bytes of a frame of ${frame_length} with ${stripped} stripped`,
      offset,
    )
  }
}

/** Whether a raw block has the number of a subject: it could not be read, but it is there. */
function isSubject(block: { readonly enterprise: number; readonly format: number }): boolean {
  for (const { enterprise, format } of SUBJECTS) {
    if (block.enterprise === enterprise && block.format === format) return true
  }
  return false
}

/** An agent uses either the compact or the expanded forms (sFlow v5 §5). */
function checkForms(reader: Reader, samples: readonly SampleBlock[]): void {
  let compact = false
  let expanded = false
  for (const block of samples) {
    if (!('sample' in block)) continue
    const { sample } = block
    if (sample === flowSample || sample === countersSample) compact = true
    if (sample === flowSampleExpanded || sample === countersSampleExpanded) expanded = true
    if (compact && expanded) {
      reader.warn('mixed-forms', 'compact and expanded samples in one datagram', block.offset!)
      return
    }
  }
}
