/**
 * Decoded datagrams as plain objects for JSON: 64-bit numbers as decimal strings, because JSON readers keep 53
 * bits; bytes as hexadecimal text; numbers that are not finite as text. A sampled header comes with what it says
 * as `packet`.
 */

import { parsePacket } from '../packet.ts'
import type { Problem } from '../xdr.ts'
import type { RawBlock, RecordBlock, SampleBlock } from './block.ts'
import type { DecodedDatagram } from './datagram.ts'
import { type SampledHeader, sampledHeader } from './flow/header.ts'
import type { Declaration } from './record.ts'

export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json }

/** The whole datagram, its problems included. */
export function datagramToJson(datagram: DecodedDatagram): Json {
  const { samples, problems, ...header } = datagram
  return {
    ...(valueToJson(header) as object),
    samples: samples.map(sampleToJson),
    problems: problems.map(problemToJson),
  }
}

/** A value read by a declaration. */
export function valueToJson(value: unknown): Json {
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value)
  if (typeof value === 'string') return value
  if (typeof value === 'bigint') return value.toString()
  if (value instanceof Uint8Array) return toHex(value)
  if (Array.isArray(value)) return value.map(valueToJson)
  if (typeof value === 'object' && value !== null) {
    const json: Record<string, Json> = {}
    for (const name of Object.keys(value)) json[name] = valueToJson((value as Record<string, unknown>)[name])
    return json
  }
  return value as Json
}

/** Lower-case hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
}

function sampleToJson(block: SampleBlock): Json {
  if ('raw' in block) return rawToJson(block)
  const { sample, value, records } = block
  return {
    sample: sample.name,
    ...place(sample, block.offset),
    value: valueToJson(value),
    ...(sample.records === undefined ? {} : { records: records.map(recordToJson) }),
    ...tail(block.tail),
  }
}

function recordToJson(block: RecordBlock): Json {
  if ('raw' in block) return rawToJson(block)
  const { record, value } = block
  return {
    record: record.name,
    ...place(record, block.offset),
    value: valueToJson(value),
    ...(record === sampledHeader ? { packet: packetToJson(value as SampledHeader) } : {}),
    ...tail(block.tail),
  }
}

function packetToJson({ protocol, header }: SampledHeader): Json {
  return valueToJson(parsePacket(protocol, header))
}

function rawToJson(block: RawBlock): Json {
  return { ...place(block, block.offset), raw: toHex(block.raw) }
}

function place(
  { enterprise, format }: Pick<Declaration, 'enterprise' | 'format'>,
  offset: number | undefined,
): { readonly [name: string]: Json } {
  return { format: `${enterprise}:${format}`, ...(offset === undefined ? {} : { offset }) }
}

function tail(bytes: Uint8Array | undefined): { readonly [name: string]: Json } {
  return bytes === undefined ? {} : { tail: toHex(bytes) }
}

function problemToJson({ severity, code, offset, path, message }: Problem): Json {
  return { severity, code, offset, path, message }
}
