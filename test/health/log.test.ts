/** What the log says, to whom, and in which form. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import { createLogger, RateLimitedLog, recentProblems } from '../../agent/health/log.ts'
import { LOG_PARTS, readLogLevels } from '../../agent/health/log-levels.ts'

function logged(levels: string, format: 'text' | 'json') {
  const lines: string[] = []
  return { lines, log: createLogger(levels, { format, stream: { write: line => void lines.push(line) } }) }
}

const HOSTILE = 'a\u001b[31m"b\n\u009b2J\u202e\u{e0041}'

describe('the log', () => {
  test('for programs: JSON with what was said, and nothing that a terminal obeys', () => {
    const { lines, log } = logged('info', 'json')
    log.child({ part: 'pcap', interface: HOSTILE }).warn({ counts: { [HOSTILE]: 1 } }, `${HOSTILE} is gone`)
    assert.equal(lines.length, 1)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
    assert.doesNotMatch(lines[0]!.slice(0, -1), /[\u0000-\u001f\u007f-\u009f\u202e]/)
    const { time, ...rest } = JSON.parse(lines[0]!) as Record<string, unknown>
    assert.match(String(time), /^\d{4}-\d\d-\d\dT.*Z$/)
    assert.deepEqual(rest, {
      level: 40,
      part: 'pcap',
      interface: HOSTILE,
      counts: { [HOSTILE]: 1 },
      msg: `${HOSTILE} is gone`,
    })
  })

  test('for people: one line, time, level, part, message, facts', () => {
    const { lines, log } = logged('info', 'text')
    const line = (text: string) => text.replace(/^\d\d:\d\d:\d\d\.\d{3} /, 'TIME ')
    log.child({ part: 'pcap' }).info({ interface: HOSTILE, rate: 400 }, `${HOSTILE} is sampled`)
    log.error('no part')
    assert.deepEqual(lines.map(line), [
      'TIME info  pcap: a\\x1b[31m"b\\n\\x9b2J\\u202e\\u{e0041} is sampled (interface=a\\x1b[31m"b\\n\\x9b2J\\u202e\\u{e0041}, rate=400)\n',
      'TIME error no part\n',
    ])
  })

  const onTerminal = (before: string) => {
    const program = `import { fstatSync } from 'node:fs'
      import { createLogger } from '${join(import.meta.dirname, '../../agent/health/log.ts')}'
      ${before}
      createLogger('info').warn({ part: 'x' }, 'said')`
    const command = `${process.execPath} --input-type=module-typescript -e "$PROGRAM"`
    const environment = { ...process.env, PROGRAM: program, JOURNAL_STREAM: '', NO_COLOR: '' }
    return execFileSync('script', ['-qec', command, '/dev/null'], { encoding: 'utf8', env: environment })
  }

  test('a terminal gets text, systemd and a pipe get JSON', () => {
    assert.match(onTerminal(''), /^\d\d:\d\d:\d\d\.\d{3} \S*warn \S* ?x: said\r\n$/)
    const journal = 'const { dev, ino } = fstatSync(2); process.env.JOURNAL_STREAM = dev + ":" + ino'
    assert.match(onTerminal(journal), /^\{"level":40,/)
    // One that was redirected away from the journal is a terminal again.
    assert.match(onTerminal("process.env.JOURNAL_STREAM = '1:2'"), / x: said/)
  })

  test('the last warnings are kept, a bounded number of them', () => {
    const { log } = logged('info', 'json')
    for (let i = 0; i < 30; i++) log.warn({ part: 'x' }, `problem ${i}`)
    log.info('nothing')
    log.error(HOSTILE)
    const kept = recentProblems()
    assert.equal(kept.length, 20)
    assert.deepEqual(
      kept.slice(-2).map(({ level, part, message }) => ({ level, part, message })),
      [
        { level: 'warn', part: 'x', message: 'problem 29' },
        { level: 'error', part: undefined, message: 'a\\x1b[31m"b\\n\\x9b2J\\u202e\\u{e0041}' },
      ],
    )
  })

  const said = (levels: string) => {
    const { lines, log } = logged(levels, 'json')
    const psample = log.child({ part: 'psample' }).child({ group: 1 })
    for (const level of ['debug', 'info', 'error'] as const) {
      psample[level](`psample ${level}`)
      log[level]({ part: 'tc' }, `tc ${level}`)
      log[level](level)
    }
    return lines.map(line => (JSON.parse(line) as { msg: string }).msg)
  }
  const cases = [
    { levels: 'info', lines: ['psample info', 'tc info', 'info', 'psample error', 'tc error', 'error'] },
    {
      levels: 'info,psample=debug',
      lines: ['psample debug', 'psample info', 'tc info', 'info', 'psample error', 'tc error', 'error'],
    },
    { levels: 'warn,tc=info', lines: ['tc info', 'psample error', 'tc error', 'error'] },
    { levels: 'tc=silent', lines: ['psample info', 'info', 'psample error', 'error'] },
    { levels: 'silent,psample=error', lines: ['psample error'] },
    { levels: 'silent', lines: [] },
  ]
  for (const { levels, lines } of cases)
    test(`--log-level ${levels}`, () => assert.deepEqual(said(levels), lines))

  for (const levels of [
    '',
    'loud',
    'info,debug',
    'info,psample',
    'info,=debug',
    'psample=',
    'info,,psample=debug',
  ]) {
    test(`--log-level ${levels || '(nothing)'} is refused`, () => {
      assert.throws(() => readLogLevels(levels), /^Error: Allowed choices are trace, .*PART=LEVEL/)
    })
  }

  test('a part that there is not is refused, with those that there are', () => {
    assert.throws(
      () => readLogLevels('info,psampel=debug'),
      /^Error: There is no part 'psampel'; did you mean psample\? Parts are bridge, .*, web\.$/,
    )
    assert.throws(() => readLogLevels('x=debug'), /^Error: There is no part 'x'\. Parts are bridge, /)
  })

  test('every part that a line of the log names has a level of its own', () => {
    const root = join(import.meta.dirname, '../../agent')
    const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(name =>
      name.endsWith('.ts'),
    )
    const named = files.flatMap(name => {
      const text = readFileSync(join(root, name), 'utf8')
      return [...text.matchAll(/part: '([^']+)'|#attempt\('([^']+)'/g)].map(([, a, b]) => (a ?? b)!)
    })
    assert.ok(named.length > 20)
    const runtimes = Object.keys(loadConfig('sFlow { collector { ip = 192.0.2.1 } }', '').config!.virtual)
    for (const part of [...named, ...runtimes]) assert.ok(LOG_PARTS.includes(part), part)
  })

  test('a message that begins with the name of its part has it once', () => {
    const { lines, log } = logged('info', 'text')
    log.warn({ part: 'docker' }, 'docker: no socket')
    assert.match(lines[0]!, /^\S+ warn {2}docker: no socket\n$/)
  })

  test('what happens again and again is told once in a while, with how often it was not', () => {
    let now = 0
    const said: [string, number][] = []
    const limited = new RateLimitedLog(1000, () => now)
    const line = (key: string) => limited.line(key, held => void said.push([key, held]))
    for (; now < 2500; now += 100) line('a')
    line('b')
    assert.deepEqual(said, [
      ['a', 0],
      ['a', 9],
      ['a', 9],
      ['b', 0],
    ])
    // Keys without end do not fill the memory: the oldest are forgotten.
    for (let i = 0; i < 5000; i++) line(`key ${i}`)
    line('a')
    assert.deepEqual(said.at(-1), ['a', 0])
  })
})
