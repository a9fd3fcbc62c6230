import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { datagramText } from '../../agent/decode/text.ts'
import { decodeDatagram } from '../../agent/wire/sflow/datagram.ts'

const ROOT = join(import.meta.dirname, '../vectors/sflow')

for (const name of readdirSync(ROOT).filter(entry => !entry.includes('.'))) {
  test(`${name} as text (UPDATE=1 rewrites)`, () => {
    const hex = readFileSync(join(ROOT, name, 'bytes.hex'), 'utf8')
      .replace(/^#.*$/gm, '')
      .replace(/\s/g, '')
    const bytes = Buffer.from(hex, 'hex')
    const text = datagramText(decodeDatagram(bytes), bytes.length)
    const golden = join(ROOT, name, 'text')
    if (process.env.UPDATE === '1') writeFileSync(golden, text)
    assert.equal(text, readFileSync(golden, 'utf8'))
  })
}
