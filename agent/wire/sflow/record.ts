/** Declarations of records and samples: a number in the registry, a name and a list of fields. */

import { type Fields, type FieldsValue, struct } from '../struct.ts'
import type { Reader, Writer } from '../xdr.ts'

/** What flow records, counter records and samples declare alike. Format numbers are separate for each family. */
export interface Declaration<F extends Fields = Fields> {
  readonly family: 'flow' | 'counter' | 'sample'
  /** Owner of the number: 0 for sFlow.org, else an IANA enterprise number. */
  readonly enterprise: number
  readonly format: number
  /** Published name. */
  readonly name: string
  /** The document that defines it. */
  readonly source: string
  readonly fields: F
  /** The least number of body bytes; also the most, if `fixed`. */
  readonly minSize: number
  readonly fixed: boolean
  /** Body bytes, without the 8 of format and length. */
  size(value: FieldsValue<F>): number
  /** Writes the body. */
  write(writer: Writer, value: FieldsValue<F>): void
  /** Reads the body; what follows the known fields stays in the reader. */
  read(reader: Reader): FieldsValue<F>
}

export interface FlowRecord<F extends Fields = Fields> extends Declaration<F> {
  readonly family: 'flow'
}

export interface CounterRecord<F extends Fields = Fields> extends Declaration<F> {
  readonly family: 'counter'
}

export interface SampleType<F extends Fields = Fields> extends Declaration<F> {
  readonly family: 'sample'
  /** The family of the records behind the fields; undefined where there are none. */
  readonly records: 'flow' | 'counter' | undefined
}

/** Declares a flow record. */
export function flowRecord<F extends Fields>(
  enterprise: number,
  format: number,
  name: string,
  source: string,
  fields: F,
): FlowRecord<F> {
  return { family: 'flow', ...declare(enterprise, format, name, source, fields) }
}

/** Declares a counter record. */
export function counterRecord<F extends Fields>(
  enterprise: number,
  format: number,
  name: string,
  source: string,
  fields: F,
): CounterRecord<F> {
  return { family: 'counter', ...declare(enterprise, format, name, source, fields) }
}

/** Declares a sample: its fields before the records. */
export function sampleType<F extends Fields>(
  enterprise: number,
  format: number,
  name: string,
  source: string,
  records: 'flow' | 'counter' | undefined,
  fields: F,
): SampleType<F> {
  return { family: 'sample', records, ...declare(enterprise, format, name, source, fields) }
}

function declare<F extends Fields>(
  enterprise: number,
  format: number,
  name: string,
  source: string,
  fields: F,
): Omit<Declaration<F>, 'family'> {
  const body = struct(fields)
  return {
    enterprise,
    format,
    name,
    source,
    fields,
    minSize: body.minSize,
    fixed: body.fixed,
    size: body.size,
    write: (writer, value) => body.write(writer, value, ''),
    read: reader => body.read(reader, ''),
  }
}

/** The data format word: the enterprise in the upper 20 bits, the format in the lower 12. */
export function dataFormat(enterprise: number, format: number): number {
  return enterprise * 0x1000 + format
}
