/** The reference page of the wire format (docs/wire.md), made from the declarations. */

import { type Fields, isAdded, type Kind, type Shape } from '../struct.ts'
import { datagramHeader } from './datagram.ts'
import { DISCARD_REASONS, discardReason } from './discard-reasons.ts'
import type { Declaration } from './record.ts'
import { counterRecords, flowRecords, sampleTypes } from './registry.ts'

const INTRODUCTION = `<!-- Made from agent/wire/sflow by \`npm run docs\`. -->

# sFlow on the wire

Every structure that \`weir\` writes or decodes, by its data format (enterprise:number), in the words of sFlow version 5.
Everything is big-endian and a multiple of 4 bytes. A datagram is the version (5), the fields below, a count and that many
samples; a sample is its format, its length, its fields and, where it has records, a count and that many records; a record
is its format, its length and its fields. Sizes are those of the fields alone.

| kind | bytes | meaning | unknown |
|---|---|---|---|
| u32, i32 | 4 | number without or with a sign | 0, unless said otherwise |
| u64 | 8 | number without a sign | 0 |
| c32, c64 | 4, 8 | counter that wraps at 2^32 or 2^64 | all ones |
| f32, f64 | 4, 8 | IEEE 754 single or double precision | said with the field |
| pct | 4 | hundredths of a percent | -1 |
| enumeration | 4 | number with names; other numbers are values too | 0 |
| bits | 4 | one word, cut from the highest bit on | |
| text | 4 + | count, UTF-8, padding | empty |
| opaque | 4 + | count, bytes, padding | empty |
| opaque[n] | n | n bytes, padding | zeros |
| mac | 8 | 6 bytes, padding | zeros |
| ip4, ip6 | 4, 16 | address | zeros |
| address | 8 or 20 | type (1 IPv4, 2 IPv6) and address | 0.0.0.0 |
| uuid | 16 | RFC 9562 | zeros |
| list | 4 + | count, elements | empty |
| union | 4 + | type, value | |
`

/** The whole page. */
export function wireReference(): string {
  const { fields } = datagramHeader.shape as Extract<Shape, { type: 'struct' }>
  return [
    INTRODUCTION,
    '## Datagram',
    '',
    '28 bytes with an IPv4 agent address, 40 with IPv6, version and count included; UDP port 6343. Source: sFlow v5 (2004) §5.',
    '',
    ...fieldTable(fields),
    ...section('Samples', sampleTypes.values()),
    ...section('Flow records', flowRecords.values()),
    ...section('Counter records', counterRecords.values()),
    '## Discard reasons',
    '',
    'Receivers and agents in the field use 33 for 332 and 36 for 366; both are understood.',
    '',
    '| code | name | meaning |',
    '|---|---|---|',
    ...DISCARD_REASONS.map(([code, name, meaning]) => `| ${code} | ${name} | ${meaning} |`),
    '',
  ].join('\n')
}

function section(title: string, declarations: Iterable<Declaration>): string[] {
  const sorted = [...declarations].sort((a, b) => a.enterprise - b.enterprise || a.format - b.format)
  return [`## ${title}`, '', ...sorted.flatMap(structure)]
}

function structure({ enterprise, format, name, source, fields, minSize, fixed }: Declaration): string[] {
  return [
    `### ${enterprise}:${format} ${name}`,
    '',
    `${minSize} bytes${fixed ? '' : ' and more'}. Source: ${source}.`,
    '',
    ...fieldTable(fields),
  ]
}

function fieldTable(fields: Fields): string[] {
  return ['| field | kind | unit | meaning |', '|---|---|---|---|', ...rows('', fields), '']
}

function rows(prefix: string, fields: Fields): string[] {
  return Object.entries(fields).flatMap(([name, kind]) => {
    const field = prefix + name
    const meaning = `${kind.doc}${namesText(kind)}${isAdded(kind) ? '; may be absent' : ''}`
    return [`| ${field} | ${kindText(kind)} | ${kind.unit} | ${meaning} |`, ...innerRows(field, kind)]
  })
}

/** Rows for what a field is made of. */
function innerRows(field: string, { shape }: Kind<unknown>): string[] {
  switch (shape.type) {
    case 'struct':
      return rows(`${field}.`, shape.fields)
    case 'list':
      return shape.element.shape.type === 'struct'
        ? rows(`${field}[].`, shape.element.shape.fields)
        : rows('', { [`${field}[]`]: shape.element })
    case 'union':
      return rows(
        '',
        Object.fromEntries(
          Object.entries(shape.cases).map(([type, kind]) => [`${field} of type ${type}`, kind]),
        ),
      )
    default:
      return []
  }
}

function kindText({ shape }: Kind<unknown>): string {
  switch (shape.type) {
    case 'text':
      return Number.isFinite(shape.max) ? `text, at most ${shape.max} bytes` : 'text'
    case 'fixedOpaque':
      return `opaque[${shape.length}]`
    case 'oneOf':
      return 'enumeration'
    case 'bits':
      return Object.entries(shape.parts)
        .map(([part, width]) => `${part} ${width}`)
        .join(', ')
        .replace(/^/, 'bits: ')
    case 'list':
      return Number.isFinite(shape.max) ? `list, at most ${shape.max}` : 'list'
    case 'addr':
      return 'address'
    default:
      return shape.type
  }
}

function namesText({ shape }: Kind<unknown>): string {
  if (shape.type !== 'oneOf') return ''
  if (shape.names === discardReason) return ': see [discard reasons](#discard-reasons)'
  return `: ${Object.entries(shape.names)
    .map(([code, name]) => `${code} ${name}`)
    .join(', ')}`
}
