import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { keysOf } from '../../agent/top/keys.ts'
import { ansi, type Line, plainText } from '../../agent/top/lines.ts'
import { drawScreen, type Scene } from '../../agent/top/screen.ts'
import { type Choices, press, START, TABS } from '../../agent/top/state.ts'
import { cellsOf, fit, fitMiddle } from '../../agent/view/cells.ts'
import {
  age,
  bar,
  bitRate,
  bytes,
  count,
  error,
  nanoseconds,
  rate,
  sparkLine,
} from '../../agent/view/format.ts'
import { TrafficModel } from '../../agent/view/model.ts'
import { counters, datagram, drop, flow } from '../view/datagrams.ts'

/** A minute of traffic, always the same. */
function minute(): TrafficModel {
  const model = new TrafficModel({ windowMs: 10_000, flows: 1000 })
  for (let second = 0; second <= 60; second++) {
    const wave = 1 + (second % 12)
    const samples = Array.from({ length: wave * 2 }, (_, i) =>
      flow({
        src: `10.0.0.${1 + (i % 7)}`,
        dst: '198.51.100.200',
        sport: 40_000 + (i % 7),
        dport: i % 3 === 0 ? 443 : 53,
        bytes: 200 + 150 * (i % 7),
        ...(i % 2 === 0
          ? { queue: i % 3, depth: wave * 1500 * (i + 1), delay: wave * 25_000 * (i + 1) }
          : {}),
      }),
    )
    const drops = [drop({ kernel: 'QDISC_DROP', place: '__dev_queue_xmit+0xd01/0xf30', reason: 259 })]
    if (second < 40) drops.push(drop({ reason: 258, kernel: 'NETFILTER_DROP', input: 3, dport: 23 }))
    const ports = [
      counters(2, { name: 'swp1', inOctets: BigInt(second * second * 1e5), outOctets: BigInt(second * 2e6) }),
      counters(3, {
        name: 'swp2',
        outOctets: BigInt(second * 1.2e8),
        outDiscards: second,
        inErrors: second >> 3,
      }),
      counters(4, { name: 'e\u001b]0;x\u0007il', up: false, speed: 0n }),
    ]
    model.take(datagram([...samples, ...drops, ...ports], { uptime: 1000 + second * 1000 }), second * 1000)
  }
  return model
}

const model = minute()
/** Two agents with interfaces of the same names. */
const two = new TrafficModel({ windowMs: 10_000, flows: 1000 })
for (let second = 0; second <= 12; second++) {
  for (const agent of ['192.0.2.1', '192.0.2.2']) {
    const ports = [
      counters(2, { name: 'eth0', inOctets: BigInt(second * 1e6) }),
      counters(3, { name: 'eth1' }),
    ]
    const samples = [flow({ queue: 1, depth: 3000, delay: 50_000 }), drop({}), ...ports]
    two.take(datagram(samples, { agent, uptime: 1000 + second * 1000 }), second * 1000)
  }
}

function scene(changes: Partial<Scene> = {}, choices: Partial<Choices> = {}): Scene {
  return {
    choices: { ...START, ...choices },
    size: { columns: 80, rows: 24 },
    unicode: true,
    from: 'agent 192.0.2.1',
    time: '12:34:56',
    collectors: undefined,
    note: undefined,
    ...changes,
  }
}

suite('screens (UPDATE=1 rewrites)', () => {
  const collectors = [
    { name: '192.0.2.10:6343', sent: 12_345, bytes: 16_543_210, lost: 0, problem: undefined },
    {
      name: '192.0.2.11:6343',
      sent: 12_000,
      bytes: 16_000_000,
      lost: 345,
      problem: 'datagrams do not arrive: ECONNREFUSED',
    },
  ]
  const rows: [name: string, scene: Scene][] = [
    ...TABS.map((tab): [string, Scene] => [`${tab}-80x24`, scene({ collectors }, { tab })]),
    ...TABS.map((tab): [string, Scene] => [
      `${tab}-132x30`,
      scene({ size: { columns: 132, rows: 30 }, collectors }, { tab }),
    ]),
    ['flows-by-interfaces', scene({}, { flowKey: 5, flowSort: 'packets' })],
    ['flows-by-vlan', scene({}, { flowKey: 6, flowSort: 'name' })],
    [
      'flows-filtered',
      scene({}, { filters: { ...START.filters, flows: '443 !10.0.0.1' }, typing: '443 !10.0.0.1' }),
    ],
    [
      'flows-no-match',
      scene({ note: '3 datagrams lost' }, { filters: { ...START.filters, flows: 'nothing' }, paused: true }),
    ],
    ['queues-ascii-60x16', scene({ size: { columns: 60, rows: 16 }, unicode: false }, { tab: 'queues' })],
    ['two-agents-interfaces', scene({}, { tab: 'interfaces' })],
    ['two-agents-flows', scene({}, { flowKey: 5 })],
    ['two-agents-queues', scene({}, { tab: 'queues' })],
    ['help', scene({}, { help: true })],
    ['too-small', scene({ size: { columns: 30, rows: 5 } })],
  ]
  for (const [name, view] of rows) {
    test(name, () => {
      const { lines } = drawScreen(name.startsWith('two-') ? two : model, view)
      const text = lines.map(line => `${plainText(line)}|`).join('\n')
      const golden = join(import.meta.dirname, 'screens', name)
      if (process.env.UPDATE === '1') writeFileSync(golden, `${text}\n`)
      assert.equal(`${text}\n`, readFileSync(golden, 'utf8'))
    })
  }

  test('every screen has exactly the cells of its size, and nothing a terminal would obey', () => {
    for (const tab of TABS) {
      for (let columns = 20; columns <= 150; columns += 7) {
        for (const rowCount of [5, 10, 24, 50]) {
          for (const unicode of [true, false]) {
            const view = scene(
              { size: { columns, rows: rowCount }, unicode, collectors },
              { tab, rows: { ...START.rows, [tab]: 2 } },
            )
            const { lines } = drawScreen(model, view)
            assert.equal(lines.length, rowCount)
            for (const line of lines) {
              assert.equal(
                cellsOf(plainText(line)),
                columns,
                `${tab} ${columns}×${rowCount}: ${plainText(line)}`,
              )
              assert.doesNotMatch(plainText(line), /\p{Cc}/u)
            }
          }
        }
      }
    }
  })

  test('an empty model', () => {
    const empty = new TrafficModel({ windowMs: 10_000, flows: 10 })
    for (const tab of TABS) {
      const { lines, count: rowCount } = drawScreen(empty, scene({}, { tab }))
      assert.equal(rowCount, 0)
      assert.ok(lines.some(line => /no /.test(plainText(line))))
    }
  })

  test('with colours and without', () => {
    const { lines } = drawScreen(model, scene())
    const shown = (colours: boolean) => lines.map((line: Line) => ansi(line, colours)).join('')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what is looked for
    const codes = (text: string) => new Set([...text.matchAll(/\x1b\[([\d;]*)m/g)].map(([, code]) => code!))
    assert.ok(codes(shown(true)).has('1;37;44'))
    for (const code of codes(shown(false))) assert.match(code, /^(0|[147](;[147])*)$/)
  })
})

suite('keys', () => {
  const rows: [typed: string, keys: string[]][] = [
    ['q', ['q']],
    ['\x1b[A\x1b[B\x1bOC', ['up', 'down', 'right']],
    ['\x1b[5~\x1b[6~\x1b[Z\t\r', ['page-up', 'page-down', 'shift-tab', 'tab', 'enter']],
    ['\x1b', ['escape']],
    ['\x1b[999~a', ['a']],
    ['\x03\x7fé漢', ['ctrl-c', 'backspace', 'é', '漢']],
    ['\u009b', []],
  ]
  for (const [typed, keys] of rows) {
    test(JSON.stringify(typed), () => assert.deepEqual(keysOf(typed), keys))
  }
})

suite('what keys do', () => {
  const list = { page: 10, count: 25 }
  const pressed = (...keys: string[]) => keys.reduce((choices, key) => press(choices, key, list), START)
  const rows: [name: string, keys: string[], expected: Partial<Choices>][] = [
    ['numbers choose tabs', ['3'], { tab: 'queues' }],
    ['so does Tab, around', ['shift-tab', 'tab', 'tab'], { tab: 'drops' }],
    ['k takes the next key and begins at the top', ['down', 'k'], { flowKey: 1, rows: START.rows }],
    ['K the one before, around', ['K'], { flowKey: 8 }],
    ['k means nothing elsewhere', ['2', 'k'], { flowKey: 0 }],
    [
      's sorts each tab by itself',
      ['s', '2', 's', 's', '3', 'S'],
      { flowSort: 'packets', dropSort: 'last', queueSort: 'name' },
    ],
    [
      'rows end at the last one',
      ['page-down', 'page-down', 'page-down'],
      { rows: { ...START.rows, flows: 24 } },
    ],
    ['and at the first one', ['down', 'page-up'], { rows: START.rows }],
    ['G and g', ['G', 'g', 'up'], { rows: START.rows }],
    [
      'a filter is typed',
      ['/', 'q', '1', ' ', 'x', 'backspace', 'enter'],
      { filters: { ...START.filters, flows: 'q1 ' }, typing: undefined, quit: false },
    ],
    ['Esc takes it away', ['/', 'a', 'escape'], { filters: START.filters, typing: undefined }],
    ['also later', ['/', 'a', 'enter', 'escape'], { filters: START.filters }],
    ['p pauses and goes on', ['p', 'p', 'p'], { paused: true }],
    ['any key leaves the help', ['?', 'x'], { help: false, quit: false }],
    ['q quits', ['q'], { quit: true }],
    ['Ctrl-C quits while typing', ['/', 'ctrl-c'], { quit: true }],
    ['unknown keys do nothing', ['F', 'ctrl-a', '9', '0'], START],
  ]
  for (const [name, keys, expected] of rows) {
    test(name, () => {
      const choices: Record<string, unknown> = { ...pressed(...keys) }
      assert.deepEqual(Object.fromEntries(Object.keys(expected).map(key => [key, choices[key]])), expected)
    })
  }
})

suite('numbers and plots', () => {
  const rows: [got: string, expected: string][] = [
    [bitRate(0), '0 b/s'],
    [bitRate(999.4), '999 b/s'],
    [bitRate(999.6), '1.00 kb/s'],
    [bitRate(12_345_678), '12.3 Mb/s'],
    [bitRate(400e9), '400 Gb/s'],
    [bitRate(Number.NaN), '-'],
    [rate(0.25), '0.25/s'],
    [rate(1234), '1.23 k/s'],
    [rate(1234, 'pkt/s'), '1.23 k pkt/s'],
    [count(99_999), '99999'],
    [count(100_000), '100 k'],
    [bytes(1536), '1.54 kB'],
    [nanoseconds(999), '999 ns'],
    [nanoseconds(61_400_000), '61.4 ms'],
    [nanoseconds(4.294967295e9), '4.29 s'],
    [error(0.0196), '±2.0 %'],
    [error(0.25), '±25 %'],
    [error(1.96), '±100 %'],
    [age(0.5), 'now'],
    [age(119), '119 s'],
    [age(3600), '60 min'],
    [age(1e6), '11 d'],
    [sparkLine([0, 1, 50, 100, Number.NaN], true), '▁▁▄█ '],
    [sparkLine([0, 1, 50, 100, Number.NaN], false), '..=@ '],
    [bar(0.5, 4, true), '██  '],
    [bar(0.3, 4, true), '█▏  '],
    [bar(2, 4, true), '████'],
    [bar(Number.NaN, 2, true), '  '],
    [bar(0.5, 4, false), '##  '],
    [fit('abcdef', 4), 'abc…'],
    [fit('ab', 4, 'right'), '  ab'],
    [fit('漢字漢字', 5), '漢字…'],
    [fit('e\u0301tage', 5), 'e\u0301tage'],
    [fitMiddle('[2001:db8:1::2]:443', 15), '[2001:d…:2]:443'],
  ]
  for (const [got, expected] of rows) test(expected, () => assert.equal(got, expected))
})
