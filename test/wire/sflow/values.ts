/** Values for tests, derived from the declarations: from JSON, and generated. */

import fc from 'fast-check'
import { formatIp4, formatIp6, formatMac, formatUuid } from '../../../agent/wire/addresses.ts'
import type { RecordBlock, SampleBlock } from '../../../agent/wire/sflow/block.ts'
import { type Datagram, datagramHeader } from '../../../agent/wire/sflow/datagram.ts'
import { discardReason } from '../../../agent/wire/sflow/discard-reasons.ts'
import type { Json } from '../../../agent/wire/sflow/json.ts'
import type { Declaration } from '../../../agent/wire/sflow/record.ts'
import { counterRecords, flowRecords, sampleTypes } from '../../../agent/wire/sflow/registry.ts'
import { isAdded, type Kind, type Shape, struct } from '../../../agent/wire/struct.ts'

type JsonObject = { readonly [name: string]: Json }

/** The value that JSON text stands for; the inverse of valueToJson. */
export function valueFromJson(shape: Shape, json: Json): unknown {
  switch (shape.type) {
    case 'u64':
    case 'c64':
      return BigInt(json as string)
    case 'opaque':
    case 'fixedOpaque':
      return Uint8Array.from(Buffer.from(json as string, 'hex'))
    case 'list':
      return (json as readonly Json[]).map(element => valueFromJson(shape.element.shape, element))
    case 'union': {
      const { type, value } = json as { type: number; value: Json }
      return { type, value: valueFromJson(shape.cases[type]!.shape, value) }
    }
    case 'struct': {
      const value: Record<string, unknown> = {}
      for (const [name, field] of Object.entries(json as JsonObject)) {
        value[name] = valueFromJson(shape.fields[name]!.shape, field)
      }
      return value
    }
    default:
      return json
  }
}

/** A datagram from the JSON of a test vector. */
export function datagramFromJson(json: JsonObject): Datagram {
  const { samples, problems: _, ...header } = json
  return {
    ...(valueFromJson(datagramHeader.shape, header) as Datagram),
    samples: (samples as JsonObject[]).map(sampleFromJson),
  }
}

function sampleFromJson(json: JsonObject): SampleBlock {
  if (json.sample === undefined) return rawFromJson(json)
  const sample = named(sampleTypes, json.sample)
  const known = sample.records === 'counter' ? counterRecords : flowRecords
  const records = ((json.records ?? []) as JsonObject[]).map((record): RecordBlock => {
    if (record.record === undefined) return rawFromJson(record)
    const declaration = named<Declaration>(known, record.record)
    return { record: declaration, value: fieldsFromJson(declaration, record), ...tail(record) } as RecordBlock
  })
  return { sample, value: fieldsFromJson(sample, json), records, ...tail(json) }
}

function fieldsFromJson(declaration: Declaration, json: JsonObject): unknown {
  return valueFromJson({ type: 'struct', fields: declaration.fields }, json.value!)
}

function rawFromJson(json: JsonObject): { enterprise: number; format: number; raw: Uint8Array } {
  const [enterprise, format] = (json.format as string).split(':').map(Number)
  return { enterprise: enterprise!, format: format!, raw: fromHex(json.raw!) }
}

function tail(json: JsonObject): { tail?: Uint8Array } {
  return json.tail === undefined ? {} : { tail: fromHex(json.tail) }
}

function fromHex(json: Json): Uint8Array {
  return Uint8Array.from(Buffer.from(json as string, 'hex'))
}

function named<D extends Declaration>(known: ReadonlyMap<number, D>, name: Json): D {
  for (const declaration of known.values()) if (declaration.name === name) return declaration
  throw new Error(`no declaration is called ${String(name)}`)
}

/** Values that a kind writes and reads back as they were. */
export function arbitrary(kind: Kind<unknown>): fc.Arbitrary<unknown> {
  const { shape } = kind
  switch (shape.type) {
    case 'u32':
    case 'c32':
      return fc.integer({ min: 0, max: 0xffffffff })
    case 'i32':
      return fc.integer()
    case 'u64':
    case 'c64':
      return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
    case 'f32':
      return fc.float()
    case 'f64':
      return fc.double()
    case 'pct':
      return fc.integer({ min: -1, max: 10_000 })
    case 'oneOf':
      return fc
        .integer({ min: 0, max: 0xffffffff })
        .filter(code => shape.names !== discardReason || (code !== 33 && code !== 36))
    case 'bits':
      return fc.record(
        Object.fromEntries(
          Object.entries(shape.parts).map(([part, width]) => [
            part,
            fc.integer({ min: 0, max: 2 ** width - 1 }),
          ]),
        ),
        { noNullPrototype: true },
      )
    case 'text':
      return fc
        .string({ unit: 'binary', maxLength: Math.min(shape.max, 200) >> 2 })
        .map(text => text.replaceAll('\0', '-'))
    case 'opaque':
      return fc.uint8Array({ maxLength: 200 })
    case 'fixedOpaque':
      return bytes(shape.length)
    case 'mac':
      return bytes(6).map(value => formatMac(value))
    case 'ip4':
      return bytes(4).map(value => formatIp4(value))
    case 'ip6':
      return bytes(16).map(value => formatIp6(value))
    case 'uuid':
      return bytes(16).map(value => formatUuid(value))
    case 'addr':
      return fc.oneof(
        bytes(4).map(value => formatIp4(value)),
        bytes(16).map(value => formatIp6(value)),
      )
    case 'list':
      return fc.array(arbitrary(shape.element), { maxLength: Math.min(shape.max, 5) })
    case 'union':
      return fc.oneof(
        ...Object.entries(shape.cases).map(([type, element]) =>
          fc.record(
            { type: fc.constant(Number(type)), value: arbitrary(element) },
            { noNullPrototype: true },
          ),
        ),
      )
    case 'struct':
      return fields(shape.fields)
  }
}

/** Values of a declaration; of the fields that were added later, all, some or none. */
export function arbitraryOf(declaration: Declaration): fc.Arbitrary<Record<string, unknown>> {
  return fields(declaration.fields)
}

function fields(declared: Readonly<Record<string, Kind<unknown>>>): fc.Arbitrary<Record<string, unknown>> {
  const entries = Object.entries(declared)
  const required = entries.filter(([, kind]) => !isAdded(kind)).length
  const all = Object.fromEntries(entries.map(([name, kind]) => [name, arbitrary(kind)]))
  return fc
    .tuple(fc.record(all, { noNullPrototype: true }), fc.integer({ min: required, max: entries.length }))
    .map(([value, count]) => Object.fromEntries(Object.entries(value).slice(0, count)))
}

function bytes(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length })
}

/** A kind for the fields of a declaration. */
export function bodyOf(declaration: Declaration): Kind<Record<string, unknown>> {
  return struct(declaration.fields)
}
