/** Decoded datagrams as text for people: a line for the datagram, indented samples and records. */

import { packetText, parsePacket } from '../wire/packet.ts'
import type { RawBlock, RecordBlock, SampleBlock } from '../wire/sflow/block.ts'
import type { DecodedDatagram } from '../wire/sflow/datagram.ts'
import { discardReason, meantDiscardReason } from '../wire/sflow/discard-reasons.ts'
import { dataSourceType } from '../wire/sflow/enumerations.ts'
import { type SampledHeader, sampledHeader } from '../wire/sflow/flow/header.ts'
import { toHex } from '../wire/sflow/json.ts'
import type { Declaration } from '../wire/sflow/record.ts'
import {
  countersSampleOf,
  type DataSource,
  discardedPacketOf,
  flowSampleOf,
  INTERFACE_DISCARDED,
  INTERFACE_INDEX,
  INTERFACE_MULTIPLE,
  type Interface,
} from '../wire/sflow/samples.ts'
import { type Fields, type Kind, UNKNOWN32, UNKNOWN64 } from '../wire/struct.ts'

/** Lines of values are folded here. */
const WIDTH = 110
/** Bytes of a value that are shown. */
const MOST_BYTES = 32
/** Two values that mean "this device" in an expanded interface; the second is that of an erratum. */
const INTERNAL: readonly number[] = [0x3fffffff, 0xffffffff]

/** What Date knows, in milliseconds before and after 1970. */
const MOST_MS = 8_640_000_000_000_000n

/** Nanoseconds since 1970 as RFC 3339; milliseconds suffice for people. What is beyond Date is shown as the end of it. */
export function isoTime(nanoseconds: bigint): string {
  const ms = nanoseconds / 1_000_000n
  return new Date(Number(ms > MOST_MS ? MOST_MS : ms < -MOST_MS ? -MOST_MS : ms)).toISOString()
}

/** All lines of a datagram, each ended by a newline. */
export function datagramText(datagram: DecodedDatagram, bytes: number): string {
  const { agent_address, sub_agent_id, sequence_number, uptime, samples } = datagram
  const lines = [
    `datagram ${sequence_number} of agent ${agent_address || 'unknown'} sub-agent ${sub_agent_id},` +
      ` up ${(uptime / 1000).toFixed(3)} s, ${bytes} bytes`,
    ...samples.flatMap(sampleLines),
  ]
  return `${lines.join('\n')}\n`
}

function sampleLines(block: SampleBlock): string[] {
  if ('raw' in block) return rawLines('  ', 'sample', block)
  const { sample, value, records } = block
  const flow = flowSampleOf(block)
  const counters = countersSampleOf(block)
  const discard = discardedPacketOf(block)
  let title = sample.name
  if (flow !== undefined) {
    title +=
      ` ${flow.sequence_number} of ${sourceText(flow.source_id)}, 1 in ${flow.sampling_rate},` +
      ` pool ${flow.sample_pool}, drops ${flow.drops}, ${interfaceText('in', flow.input)},` +
      ` ${interfaceText('out', flow.output)}`
  } else if (counters !== undefined) {
    title += ` ${counters.sequence_number} of ${sourceText(counters.source_id)}`
  } else if (discard !== undefined) {
    title +=
      ` ${discard.sequence_number} of ${sourceText(discard.source_id)}, drops ${discard.drops},` +
      ` in ${discard.inputifindex}, out ${discard.outputifindex}, reason ${reasonText(discard.reason)}`
  } else {
    return [`  ${title}`, ...valueLines('    ', sample.fields, value), ...tailLines('    ', block.tail)]
  }
  return [`  ${title}`, ...records.flatMap(recordLines), ...tailLines('    ', block.tail)]
}

function recordLines(block: RecordBlock): string[] {
  if ('raw' in block) return rawLines('    ', 'record', block)
  const { record, value, tail } = block
  const lines = record === sampledHeader ? headerLines(value as SampledHeader) : recordText(record, value)
  return [...lines, ...tailLines('      ', tail)]
}

function headerLines(value: SampledHeader): string[] {
  const { protocol, frame_length, stripped, header } = value
  const name = nameOf(sampledHeader.fields.protocol, protocol)
  return [
    `    sampled_header ${name}, frame of ${frame_length} bytes, ${stripped} stripped, ${header.length} captured`,
    `      ${packetText(parsePacket(protocol, header)) || bytesText(header)}`,
  ]
}

/** On one line with the name where it fits, else on lines below. */
function recordText(record: Declaration, value: unknown): string[] {
  const below = valueLines('      ', record.fields, value)
  if (below.length > 1) return [`    ${record.name}`, ...below]
  const line = `    ${record.name} ${(below[0] ?? '').trim()}`
  return line.length <= WIDTH ? [line] : [`    ${record.name}`, ...below]
}

/** Fields as `name=value`, folded; of a list of structures each on lines of its own. */
function valueLines(indent: string, fields: Fields, value: unknown): string[] {
  const lines: string[] = []
  let line = ''
  const close = () => {
    if (line !== '') lines.push(indent + line)
    line = ''
  }
  for (const name of Object.keys(value as object)) {
    const field = (value as Record<string, unknown>)[name]
    const { shape } = fields[name]!
    if (shape.type === 'list' && shape.element.shape.type === 'struct') {
      close()
      for (const [i, element] of (field as unknown[]).entries()) {
        const [first, ...more] = valueLines(`${indent}  `, shape.element.shape.fields, element)
        lines.push(`${indent}${name}[${i}] ${(first ?? '').trim()}`, ...more)
      }
      continue
    }
    const word = `${name}=${valueText(fields[name]!, field)}`
    if (line !== '' && indent.length + line.length + 1 + word.length > WIDTH) close()
    line += line === '' ? word : ` ${word}`
  }
  close()
  return lines
}

function valueText(kind: Kind<unknown>, value: unknown): string {
  const { shape } = kind
  switch (shape.type) {
    case 'c32':
      return value === UNKNOWN32 ? 'unknown' : String(value)
    case 'c64':
      return value === UNKNOWN64 ? 'unknown' : String(value)
    case 'pct':
      return (value as number) < 0 ? 'unknown' : `${((value as number) / 100).toFixed(2)}%`
    case 'f32':
    case 'f64':
      return String(Math.round((value as number) * 1e6) / 1e6)
    case 'oneOf':
      return nameOf(kind, value as number)
    case 'text':
      return quoted(value as string)
    case 'opaque':
    case 'fixedOpaque':
      return bytesText(value as Uint8Array)
    case 'addr':
      return value === '' ? 'unknown' : (value as string)
    case 'list':
      return `[${(value as unknown[]).map(element => valueText(shape.element, element)).join(', ')}]`
    case 'union': {
      const { type, value: inner } = value as { type: number; value: unknown }
      return valueText(shape.cases[type]!, inner)
    }
    case 'struct':
      return `{${fieldsText(shape.fields, value)}}`
    default:
      return String(value)
  }
}

/** The fields of a structure as `name=value` on one line. */
export function fieldsText(fields: Fields, value: unknown): string {
  return Object.entries(value as object)
    .map(([name, field]) => `${name}=${valueText(fields[name]!, field)}`)
    .join(' ')
}

/** In quotes, without characters that a terminal would obey. */
function quoted(text: string): string {
  return harmless(JSON.stringify(text))
}

/** Everything that a terminal or an eye might take for something else, in text that JSON.stringify has made. */
const TREACHEROUS = /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g

/** JSON text in which terminals find nothing to obey: control characters, and those that turn the direction of text. */
export function harmless(json: string): string {
  // Text of ASCII alone, which most is, is known by its length in bytes: to look for that is many times quicker.
  if (Buffer.byteLength(json) === json.length && !json.includes('\u007f')) return json
  return json.replace(TREACHEROUS, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** The name of an enumerated value, or its number. */
function nameOf({ shape }: Kind<unknown>, code: number): string {
  const name = shape.type === 'oneOf' ? shape.names[code] : undefined
  if (name === undefined) return String(code)
  return name.includes(' ') ? JSON.stringify(name) : name
}

function sourceText({ type, index }: DataSource): string {
  return `${dataSourceType[type] ?? `source type ${type}`} ${index}`
}

function interfaceText(direction: string, { format, value }: Interface): string {
  switch (format) {
    case INTERFACE_INDEX:
      return `${direction} ${INTERNAL.includes(value) ? 'this device' : value === 0 ? 'unknown' : value}`
    case INTERFACE_DISCARDED:
      return `discarded: ${reasonText(value)}`
    case INTERFACE_MULTIPLE:
      return `${direction} ${value === 0 ? 'several' : value} interfaces`
    default:
      return `${direction} format ${format} value ${value}`
  }
}

function reasonText(code: number): string {
  const name = discardReason[meantDiscardReason(code)]
  return name === undefined ? String(code) : `${name} (${code})`
}

/** What is not understood: its place in the datagram and all of its bytes. */
function rawLines(indent: string, what: string, { enterprise, format, raw, offset }: RawBlock): string[] {
  const place = offset === undefined ? '' : ` at ${offset}`
  const title = `${indent}${what} ${enterprise}:${format}${place}, ${raw.length} bytes`
  if (raw.length <= MOST_BYTES) return [`${title}: ${bytesText(raw)}`]
  const lines = [title]
  const HEAD_BYTES = 8
  for (let at = 0; at < raw.length; at += MOST_BYTES) {
    const number = String((offset ?? -HEAD_BYTES) + HEAD_BYTES + at).padStart(5)
    lines.push(`${indent}  ${number}  ${toHex(raw.subarray(at, at + MOST_BYTES))}`)
  }
  return lines
}

function tailLines(indent: string, tail: Uint8Array | undefined): string[] {
  return tail === undefined ? [] : [`${indent}followed by ${tail.length} bytes: ${bytesText(tail)}`]
}

function bytesText(bytes: Uint8Array): string {
  if (bytes.length === 0) return '""'
  return toHex(bytes.subarray(0, MOST_BYTES)) + (bytes.length > MOST_BYTES ? '…' : '')
}
