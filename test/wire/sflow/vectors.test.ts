import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { decodeDatagram, encodeDatagram } from '../../../agent/wire/sflow/datagram.ts'
import { datagramToJson, type Json } from '../../../agent/wire/sflow/json.ts'
import { datagramFromJson } from './values.ts'

const ROOT = join(import.meta.dirname, '../../vectors/sflow')

/** Datagrams that are written back in a better form, and what differs then. */
const REPAIRED: Record<string, readonly (readonly [from: string, to: string])[]> = {
  'address-type-0': [
    ['000003ea0000000c00000000', '000003ea000000100000000100000000'],
    ['0000000300000090', '0000000300000094'],
  ],
  'unrounded-length': [['0000000100000046', '0000000100000048']],
}

for (const name of readdirSync(ROOT).filter(entry => !entry.includes('.'))) {
  suite(name, () => {
    const bytes = readHex(join(ROOT, name, 'bytes.hex'))
    const expected = JSON.parse(readFileSync(join(ROOT, name, 'value.json'), 'utf8'))

    test('decodes to the listed values', () => {
      const decoded = datagramToJson(decodeDatagram(bytes)) as Record<string, Json>
      assert.deepEqual(withoutPlaces(decoded), withoutPlaces(expected))
      assert.deepEqual(problems(decoded), problems(expected))
    })

    test('encodes from the listed values', () => {
      let hex = Buffer.from(bytes).toString('hex')
      for (const [from, to] of REPAIRED[name] ?? []) {
        assert.ok(hex.includes(from))
        hex = hex.replace(from, to)
      }
      assert.equal(Buffer.from(encodeDatagram(datagramFromJson(expected))).toString('hex'), hex)
    })
  })
}

function readHex(path: string): Uint8Array {
  const lines = readFileSync(path, 'utf8').split('\n')
  return Buffer.from(lines.filter(line => !line.startsWith('#')).join(''), 'hex')
}

function problems(datagram: Record<string, Json>): Json[][] {
  const list = datagram.problems as { severity: Json; code: Json; offset: Json }[]
  return list.map(({ severity, code, offset }) => [severity, code, offset])
}

/** Without problems, offsets, what sampled headers say, and the format numbers of what has a name. */
function withoutPlaces(datagram: Record<string, Json>): unknown {
  const { problems: _, ...rest } = datagram
  return JSON.parse(
    JSON.stringify(rest, (key, value) => {
      if (key === 'offset' || key === 'packet') return undefined
      if (typeof value === 'object' && value !== null && ('sample' in value || 'record' in value)) {
        const { format: _format, ...named } = value
        return named
      }
      return value
    }),
  )
}
