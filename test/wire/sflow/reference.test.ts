import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { wireReference } from '../../../agent/wire/sflow/reference.ts'
import { counterRecords, flowRecords, sampleTypes } from '../../../agent/wire/sflow/registry.ts'

const PAGE = join(import.meta.dirname, '../../../docs/wire.md')

test('docs/wire.md is what the declarations say (else: npm run docs)', () => {
  assert.equal(readFileSync(PAGE, 'utf8'), wireReference())
})

test('every field of every structure is documented', () => {
  const page = wireReference()
  for (const declarations of [sampleTypes, flowRecords, counterRecords]) {
    for (const { enterprise, format, name, source, fields } of declarations.values()) {
      const start = page.indexOf(`### ${enterprise}:${format} ${name}\n`)
      assert.ok(start >= 0, name)
      assert.notEqual(source, '', name)
      const section = page.slice(start, page.indexOf('\n##', start + 1))
      for (const [field, kind] of Object.entries(fields)) {
        assert.ok(section.includes(`\n| ${field} | `), `${name}.${field}`)
        assert.notEqual(kind.doc, '', `${name}.${field}`)
      }
    }
  }
})
