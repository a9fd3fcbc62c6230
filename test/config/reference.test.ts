import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import { configurationReference, defaultFile } from '../../agent/config/reference.ts'
import { type Entries, findEntry, namesIn, settings } from '../../agent/config/settings.ts'

const root = join(import.meta.dirname, '../..')
const committed = (file: string) => readFileSync(join(root, file), 'utf8')

/** Each block of the table with its entries, and the table itself. */
const tables: [name: string, entries: Entries][] = [['sFlow', settings]]
for (const [, entries] of tables) {
  for (const [name, entry] of Object.entries(entries))
    if (entry.form === 'block') tables.push([name, entry.entries])
}

test('the committed files are those that the table gives (else: node packaging/config-docs.ts)', () => {
  assert.equal(committed('docs/configuration.md'), configurationReference())
  assert.equal(committed('conf/weir.conf'), defaultFile())
})

test('the default file sets the defaults: without its comments it says the same', () => {
  const plain = loadConfig(defaultFile(), 'a')
  const bare = loadConfig('sFlow { collector { ip = 127.0.0.1 } }', 'a')
  assert.deepEqual({ ...plain.config, lines: undefined }, { ...bare.config, lines: undefined })
})

test('every line of the default file may be uncommented', () => {
  const text = defaultFile().replace(/^( *)#(?=\S)/gm, '$1')
  const { config, problems } = loadConfig(text, 'a')
  assert.deepEqual(
    problems.map(({ message }) => message),
    ['the collectors that DNS names take the place of those of the file'],
  )
  assert.equal(config?.sampling.bySpeed.get('10G'), 10_000)
  assert.deepEqual(config.psample, { group: 1, ingress: true, egress: false, tunnel: false })
  assert.equal(config.tc?.switchport.source, '^swp[0-9s]+$')
})

test('the reference names every setting and block', () => {
  const page = configurationReference()
  for (const [, entries] of tables) {
    for (const name of namesIn(entries)) {
      assert.ok(page.includes(`\`${name}`), name)
    }
  }
})

test('no two entries of a block answer to one name', () => {
  for (const [block, entries] of tables) {
    const names = namesIn(entries).map(name => name.toLowerCase())
    assert.equal(new Set(names).size, names.length, block)
  }
})

test('each example is a value of its setting', () => {
  for (const [block, entries] of tables) {
    for (const [name, entry] of Object.entries(entries)) {
      if (entry.form !== 'setting' || entry.example === undefined) continue
      const [key, value] = entry.suffix === undefined ? [name, entry.example] : entry.example.split(' = ')
      assert.equal(findEntry(entries, key!)?.name, name, `${block} ${key}`)
      const reading = entry.kind.read(value!)
      assert.ok('value' in reading && reading.remark === undefined, `${block} ${name} = ${value}`)
    }
  }
})
