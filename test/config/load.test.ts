import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { ConfigFileError, loadConfig, loadConfigFile } from '../../agent/config/load.ts'
import { formatProblem, linesOf, nearest } from '../../agent/config/problem.ts'
import { type Entries, settings } from '../../agent/config/settings.ts'

const COLLECTOR = 'collector { ip = 192.0.2.1 }'

test('the result is frozen and knows its lines', () => {
  const { config } = loadConfig(
    `sFlow {\n sampling.10G = 5\n ${COLLECTOR}\n psample { group = 2 } }`,
    'x.conf',
  )
  assert.ok(config && Object.isFrozen(config) && Object.isFrozen(config.collectors[0]))
  assert.equal(config.file, 'x.conf')
  assert.deepEqual(
    [...config.lines].filter(([name]) => name !== 'sFlow'),
    [
      ['sampling.10G', 2],
      ['collector[0]', 3],
      ['collector[0].ip', 3],
      ['psample', 4],
      ['psample.group', 4],
    ],
  )
})

test('an error leaves no configuration, a warning does', () => {
  assert.equal(loadConfig(`sFlow { polling = 301 ${COLLECTOR} }`, 'x').config, undefined)
  const { config, problems } = loadConfig(`sFlow { modules = /x ${COLLECTOR} }`, 'x')
  assert.deepEqual(
    problems.map(({ severity }) => severity),
    ['warning'],
  )
  assert.ok(config)
})

test('a collector is called by its name, else by address and port', () => {
  const text =
    'sFlow { collector { ip=192.0.2.1 } collector { ip=2001:db8::1 udpport=7 } collector { ip=a name=b } }'
  assert.deepEqual(
    loadConfig(text, 'x').config?.collectors.map(({ name }) => name),
    ['192.0.2.1:6343', '[2001:db8::1]:7', 'b'],
  )
})

test('every block and setting of hsflowd is accepted', () => {
  // What excludes each other is left to a case of its own.
  const skipped = new Set(['eapi', 'sonic'])
  const write = (entries: Entries): string =>
    Object.entries(entries)
      .filter(([name]) => !skipped.has(name))
      .map(([name, entry]) => {
        if (entry.form === 'block') return `${name} { ${write(entry.entries)} }`
        return entry.suffix !== undefined ? entry.example : `${name} = ${entry.initial ?? entry.example}`
      })
      .join('\n')
  const { config, problems } = loadConfig(`sFlow { ${write(settings)} }`, 'x')
  assert.deepEqual(
    problems.filter(({ severity }) => severity === 'error'),
    [],
  )
  assert.ok(config)
})

test('a problem is shown with its line and a caret', () => {
  const problem = {
    severity: 'error',
    line: 2,
    column: 3,
    length: 3,
    message: 'wrong\u001b',
    suggestion: 'right',
  } as const
  assert.equal(
    formatProblem(problem, 'f', ['', '\t\u001bbad', '']),
    'f:2:3: wrong\ufffd\n  2 | \t\ufffdbad\n    | \t ^^^  did you mean right?',
  )
})

test('of a long line only the part around the problem is shown', () => {
  const line = `${'a'.repeat(1000)}!${'b'.repeat(1000)}`
  const shown = formatProblem({ severity: 'warning', line: 1, column: 1001, length: 1, message: 'm' }, 'f', [
    line,
  ])
  const [head, source, caret] = shown.split('\n')
  assert.equal(head, 'f:1:1001: warning: m')
  assert.ok(source!.length < 200)
  assert.equal(source![caret!.indexOf('^')], '!')
})

test('the nearest name is found, and none when none is near', () => {
  const names = ['polling', 'sampling', 'psample', 'agent', 'agentIP', 'ip']
  const rows: [string, string | undefined][] = [
    ['poling', 'polling'],
    ['pollign', 'polling'],
    ['SAMPLNG', 'sampling'],
    ['agent.ip', 'agentIP'],
    ['ipp', 'ip'],
    ['zz', undefined],
    ['bananas', undefined],
    ['tip', 'ip'],
    ['amp', undefined],
    ['psam', 'psample'],
  ]
  for (const [written, name] of rows) assert.equal(nearest(written, names), name, written)
})

test('files', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-conf-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = (name: string, content: string | Uint8Array) => {
    writeFileSync(join(folder, name), content)
    return join(folder, name)
  }
  await t.test('a good one', async () => {
    const loaded = await loadConfigFile(file('good.conf', `sFlow { ${COLLECTOR} }`))
    assert.equal(loaded.config?.collectors.length, 1)
    assert.equal(loaded.file, join(folder, 'good.conf'))
  })
  const refusals: [name: string, path: string, message: RegExp][] = [
    ['one that is not there', join(folder, 'none.conf'), /^cannot read .*none\.conf: it does not exist$/],
    ['a folder', folder, / is a directory$/],
    [
      'a huge one',
      file('huge.conf', new Uint8Array((1 << 20) + 1)),
      /has 1048577 bytes; .* at most 1048576$/,
    ],
  ]
  for (const [name, path, message] of refusals) {
    await t.test(name, () =>
      assert.rejects(loadConfigFile(path), error => {
        assert.ok(error instanceof ConfigFileError)
        assert.match(error.message, message)
        return true
      }),
    )
  }
  await t.test('a binary one has one problem', async () => {
    const { problems } = await loadConfigFile(
      file('binary.conf', new Uint8Array([0x7f, 0x45, 0x4c, 10, 0x46, 0, 1, 2])),
    )
    assert.deepEqual(problems, [
      { severity: 'error', line: 2, column: 2, length: 1, message: 'this is not a text file' },
    ])
  })
})

/** Text that looks like a configuration, with words where they do and do not belong. */
const word = fc.oneof(
  fc.constantFrom(...Object.keys(settings), 'ip', 'udpport', 'group', 'dev', 'port', 'sFlow', 'SFLOW'),
  fc.constantFrom(
    'on',
    'off',
    '1',
    '400',
    '1k',
    '10G',
    '1.2.3.4',
    '!::/0',
    '^a[',
    '"a b',
    '"a""b"',
    '"',
    '""',
  ),
  fc.string({ unit: 'binary', maxLength: 6 }),
)
const glue = fc.constantFrom(' ', '\n', '\r\n', '\r', '=', ';', ' = ', '{', '}', ' { ', ' }\n', '#', '\t', '')
const text = fc.array(fc.tuple(word, glue), { maxLength: 60 }).map(parts => parts.flat().join(''))

test('property: any text is read, and every problem is inside it', () => {
  const inside = (text: string) => {
    const lines = linesOf(text)
    const { config, problems } = loadConfig(text, 'fuzz')
    for (const { line, column, length } of problems) {
      const source = lines[line - 1]
      assert.ok(source !== undefined, `line ${line} of ${lines.length}`)
      assert.ok(
        column >= 1 && column - 1 + length <= source.length,
        `column ${column}+${length} of ${source.length}`,
      )
    }
    assert.equal(
      config === undefined,
      problems.some(({ severity }) => severity === 'error'),
    )
    assert.deepEqual(
      [...problems].sort((a, b) => a.line - b.line || a.column - b.column),
      problems,
    )
  }
  fc.assert(fc.property(text, inside), { numRuns: 2000 })
  fc.assert(
    fc.property(text, text => inside(`sFlow { ${text} ${COLLECTOR} }`)),
    { numRuns: 2000 },
  )
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 400 }), inside))
})

test('deep nesting and endless lists are read without recursion', () => {
  for (const text of ['{'.repeat(200_000), 'sFlow { x '.repeat(50_000), `sFlow { ${'y {'.repeat(100_000)}`]) {
    assert.equal(loadConfig(text, 'x').config, undefined)
  }
})

test('property: values written into a file are read back', () => {
  // Neither the unspecified address nor, without an interface, link-local ones are those of collectors.
  const address = fc.ipV6().filter(ip => !/^[0:.]*$|^fe[89ab][\da-f]:/i.test(ip))
  const values = fc.record({
    sampling: fc.integer({ min: 0, max: 10_000_000 }),
    polling: fc.integer({ min: 0, max: 300 }),
    collectors: fc.array(fc.tuple(address, fc.integer({ min: 1, max: 65535 })), {
      minLength: 1,
      maxLength: 5,
    }),
    sw: fc.boolean(),
    separator: fc.constantFrom(' ', '=', ' = ', '\t', '\r\n', '\n= ', ';'),
    end: fc.constantFrom(' ', '\n', ';', '\r', ' # comment\n'),
  })
  fc.assert(
    fc.property(values, ({ sampling, polling, collectors, sw, separator, end }) => {
      const set = (name: string, value: unknown) => `${name}${separator}${value}${end}`
      const blocks = collectors.map(([ip, port]) => `collector{${set('ip', ip)}${set('UDPPORT', port)}}`)
      const dent = `psample{}dent{${set('sw', sw ? 'On' : 'off')}}`
      const text = `sflow{${set('Sampling', sampling)}${set('polling', polling)}${blocks.join('')}${dent}}`
      const { config } = loadConfig(text, 'x')
      assert.equal(config?.sampling.rate, sampling)
      assert.equal(config.polling.seconds, polling)
      assert.deepEqual(
        config.collectors.map(({ host, port }) => [host, port]),
        collectors,
      )
      assert.equal(config.tc?.sw, sw)
    }),
  )
})
