/** The whole screen from what the model holds and what the user has chosen. Pure: same input, same lines. */

import { printable } from '../health/printable.ts'
import { cellsOf, fit, fitMiddle } from '../view/cells.ts'
import {
  age,
  bar,
  bitRate,
  bytes,
  count,
  error,
  greatestOf,
  nanoseconds,
  percent,
  rate,
  sparkLine,
} from '../view/format.ts'
import type { TrafficModel } from '../view/model.ts'
import {
  agentRows,
  type DropRow,
  dropRows,
  FLOW_KEYS,
  type FlowSort,
  flowTable,
  hasSeveralAgents,
  type PortRow,
  portRows,
  type QueueRow,
  queueRows,
} from '../view/rows.ts'
import { type Line, type Look, type Span, span } from './lines.ts'
import { type Choices, TABS, type Tab } from './state.ts'

export interface Size {
  readonly columns: number
  readonly rows: number
}

/** A collector of the agent that is looked at. */
export interface CollectorRow {
  readonly name: string
  readonly sent: number
  readonly bytes: number
  readonly lost: number
  readonly problem: string | undefined
}

/** Everything that is drawn besides the model. */
export interface Scene {
  readonly choices: Choices
  readonly size: Size
  /** False where only ASCII can be shown. */
  readonly unicode: boolean
  /** Where the datagrams come from, as text. */
  readonly from: string
  /** Of the day, as text; empty for a file. */
  readonly time: string
  /** Undefined where the feed does not tell. */
  readonly collectors: readonly CollectorRow[] | undefined
  /** What went wrong, or what is left out; one line. */
  readonly note: string | undefined
}

/** What a screen shows, and what keys need to know of it. */
export interface Screen {
  readonly lines: readonly Line[]
  /** Rows of the list, of all and on the screen. */
  readonly count: number
  readonly page: number
}

const LEAST_COLUMNS = 40
export const LEAST_ROWS = 10

const TAB_NAMES: Readonly<Record<Tab, string>> = {
  flows: 'Flows',
  drops: 'Drops',
  queues: 'Queues',
  interfaces: 'Interfaces',
  agents: 'Agents',
}

export function drawScreen(model: TrafficModel, scene: Scene): Screen {
  const { columns, rows } = scene.size
  if (columns < LEAST_COLUMNS || rows < LEAST_ROWS) {
    const text = `weir top needs ${LEAST_COLUMNS}×${LEAST_ROWS}, here are ${columns}×${rows}`
    return { lines: fill([[span(fit(text, columns))]], scene), count: 0, page: 1 }
  }
  const head = [titleLine(model, scene), tabsLine(scene), historyLine(model, scene)]
  if (scene.choices.help) {
    return { lines: fill([...head, ...helpLines(scene)], scene, footer(model, scene)), count: 0, page: 1 }
  }
  const list = listOf(model, scene)
  const detail = list.detail(scene.choices.rows[scene.choices.tab])
  const page = Math.max(rows - head.length - 1 - detail.length - 1, 1)
  const chosen = Math.min(scene.choices.rows[scene.choices.tab], Math.max(list.rows.length - 1, 0))
  const first = Math.max(0, Math.min(chosen - Math.floor(page / 2), list.rows.length - page))
  const body = list.rows
    .slice(first, first + page)
    .map((cells, i) => rowLine(list.columns, cells, columns, first + i === chosen, scene.unicode))
  if (list.rows.length === 0)
    body.push([span(fit('', columns))], [span(fit(`  ${list.empty}`, columns), 'dim')])
  while (body.length < page) body.push([span(' '.repeat(columns))])
  const lines = [
    ...head,
    headingLine(list.columns, columns, scene.unicode),
    ...body.slice(0, page),
    ...detail,
  ]
  return { lines: fill(lines, scene, footer(model, scene)), count: list.rows.length, page }
}

/** As many lines as the screen has, the last one at its bottom. */
function fill(lines: readonly Line[], { size }: Scene, last?: Line): Line[] {
  const most = last === undefined ? size.rows : size.rows - 1
  const filled = lines.slice(0, most).map(line => clip(line, size.columns))
  while (filled.length < most) filled.push([span(' '.repeat(size.columns))])
  if (last !== undefined) filled.push(clip(last, size.columns))
  return filled
}

/** The line in exactly as many cells as the screen has. */
function clip(line: Line, columns: number): Line {
  let left = columns
  const spans: Span[] = []
  for (const { text, look } of line) {
    const cells = cellsOf(text)
    spans.push(cells <= left ? span(text, look) : span(fit(text, left), look))
    left -= Math.min(cells, left)
  }
  if (left > 0) spans.push(span(' '.repeat(left)))
  return spans
}

// The frame ---------------------------------------------------------------------------------------------------

function titleLine(model: TrafficModel, { size, from, time, choices }: Scene): Line {
  const { seconds } = model.clock
  const total = model.total()
  const started = Number.isFinite(seconds) && total.samples + model.totalDrops() > 0
  const totals = [
    bitRate((total.bytes * 8) / seconds),
    rate(total.packets / seconds, 'pkt/s'),
    rate(model.totalDrops() / seconds, 'drops/s'),
  ]
  const right = `${started ? `${totals.join('  ')}  ` : ''}${time} `
  const state = choices.paused ? ' PAUSED ' : ''
  const left = ` weir top  ${from}`
  const room = size.columns - cellsOf(right) - cellsOf(state)
  if (room < 12) return [span(fit(`${left} ${right}`, size.columns), 'title')]
  return [span(fit(left, room), 'title'), ...(state === '' ? [] : [span(state, 'bad')]), span(right, 'title')]
}

function tabsLine({ choices, size }: Scene): Line {
  const spans: Span[] = []
  const short = size.columns < 60
  for (const [i, tab] of TABS.entries()) {
    const name = short ? TAB_NAMES[tab].slice(0, 5) : TAB_NAMES[tab]
    spans.push(span(` ${i + 1} ${name} `, tab === choices.tab ? 'chosen-tab' : 'tab'))
  }
  const used = spans.reduce((sum, { text }) => sum + cellsOf(text), 0)
  spans.push(span(fit(`${chosenText(choices)} `, Math.max(size.columns - used, 0), 'right'), 'dim'))
  return spans
}

/** How the list is grouped and filtered. */
function chosenText({ tab, flowKey, filters }: Choices): string {
  const parts = tab === 'flows' ? [`by ${FLOW_KEYS[flowKey]!.title}`] : []
  if (filters[tab] !== '') parts.push(`only "${printable(filters[tab], 24)}"`)
  return parts.join(', ')
}

function historyLine(model: TrafficModel, { size, unicode, choices }: Scene): Line {
  const width = Math.min(60, size.columns - 34)
  const ofDrops = choices.tab === 'drops'
  const values = model.lastSeconds(ofDrops ? 'drops' : 'bits', width)
  const greatest = greatestOf(values)
  const label = ofDrops ? ' drops ' : ' traffic '
  const peak = greatest === 0 ? 'none' : `peak ${ofDrops ? rate(greatest) : bitRate(greatest)}`
  const right = ` ${peak} in ${width} s`
  return [
    span(label, 'dim'),
    span(sparkLine(values, unicode), 'bar'),
    span(fit(right, Math.max(size.columns - label.length - width, 0)), 'dim'),
  ]
}

function footer(model: TrafficModel, { choices, note, size }: Scene): Line {
  if (choices.typing !== undefined) {
    return [
      span(' filter: ', 'key'),
      span(
        fit(
          `${printable(choices.typing, 200)}_   words, !word leaves out; Enter keeps it, Esc takes it away`,
          size.columns - 9,
        ),
      ),
    ]
  }
  const keys: readonly (readonly [string, string])[] = [
    ...(choices.tab === 'flows' ? [['k', 'key'] as const] : []),
    ...(choices.tab === 'agents' ? [] : [['s', 'sort'] as const]),
    ['/', 'filter'],
    ['p', choices.paused ? 'go on' : 'pause'],
    ['?', 'help'],
    ['q', 'quit'],
  ]
  const spans: Span[] = []
  let used = 0
  for (const [key, what] of keys) {
    const text = ` ${what}  `
    spans.push(span(` ${key}`, 'key'), span(text))
    used += 1 + key.length + text.length
  }
  const room = size.columns - used
  const told = note ?? (model.notKept > 0 ? 'no room for more agents, interfaces or queues' : '')
  spans.push(span(fit(`${told} `, Math.max(room, 0), 'right'), 'warning'))
  return spans
}

function helpLines({ size }: Scene): Line[] {
  const rows: readonly (readonly [string, string])[] = [
    ['1 to 5, Tab, ← →', 'flows, drops, queues, interfaces, agents and collectors'],
    ['k, K', 'group flows by addresses, ports, interfaces, VLAN, …'],
    ['s, S', 'sort by the next, the previous column'],
    ['/', 'show only rows with these words; !word leaves rows out'],
    ['Esc', 'take the filter away'],
    ['↑ ↓ PgUp PgDn g G', 'choose a row; below the list there is more about it'],
    ['p, Space', 'pause: what is shown stands still'],
    ['Ctrl-L', 'draw the screen again'],
    ['q, Ctrl-C', 'quit'],
  ]
  const notes = [
    'Rates of flows are estimated from samples: each stands for as many packets',
    'as its sampling rate says. ± is the error at 95 %: 196 √(1/n) % for n samples.',
    'A packet that passes two sampled interfaces counts once. Drops are counted',
    'as they are reported.',
  ]
  return [
    [span(' '.repeat(size.columns))],
    ...rows.map(
      ([key, what]): Line => [span(fit(`  ${key}`, 22), 'key'), span(fit(what, size.columns - 22))],
    ),
    [span(' '.repeat(size.columns))],
    ...notes.map((text): Line => [span(fit(`  ${text}`, size.columns), 'dim')]),
  ]
}

// Lists -------------------------------------------------------------------------------------------------------

interface Column {
  readonly title: string
  /** Cells; the columns with `grow` share what is left. */
  readonly width: number
  readonly grow?: number
  readonly align?: 'right' | 'middle'
  readonly isSorted?: boolean
  /** The least width of the screen on which it is shown. */
  readonly from?: number
}

interface Cell {
  readonly text: string
  readonly look?: Look
}

interface List {
  readonly columns: readonly Column[]
  readonly rows: readonly (readonly Cell[])[]
  readonly empty: string
  /** Lines about the chosen row. */
  readonly detail: (row: number) => readonly Line[]
}

const NO_DETAIL = () => []

function listOf(model: TrafficModel, scene: Scene): List {
  switch (scene.choices.tab) {
    case 'flows':
      return flowList(model, scene)
    case 'drops':
      return dropList(model, scene)
    case 'queues':
      return queueList(model, scene)
    case 'interfaces':
      return portList(model, scene)
    case 'agents':
      return agentList(model, scene)
  }
}

/** The widths of the columns that have room; 0 hides one. */
function widthsOf(columns: readonly Column[], total: number): number[] {
  const shown = columns.map(({ from = 0 }) => total >= from)
  const gaps = shown.filter(Boolean).length
  const fixed = columns.reduce((sum, { width }, i) => sum + (shown[i] ? width : 0), 0)
  const grow = columns.reduce((sum, { grow = 0 }, i) => sum + (shown[i] ? grow : 0), 0)
  let left = Math.max(total - fixed - gaps, 0)
  let growLeft = grow
  return columns.map((column, i) => {
    if (!shown[i]) return 0
    const part = growLeft === 0 ? 0 : Math.floor((left * (column.grow ?? 0)) / growLeft)
    left -= part
    growLeft -= column.grow ?? 0
    return column.width + part
  })
}

function headingLine(columns: readonly Column[], total: number, unicode: boolean): Line {
  const widths = widthsOf(columns, total)
  return columns.flatMap(({ title, align, isSorted }, i): Span[] => {
    if (widths[i] === 0) return []
    const text = isSorted ? (unicode ? `${title}▾` : `${title}*`) : title
    return [
      span(' ', 'heading'),
      span(fit(text, widths[i]!, align === 'right' ? 'right' : 'left'), isSorted ? 'sorted' : 'heading'),
    ]
  })
}

function rowLine(
  columns: readonly Column[],
  cells: readonly Cell[],
  total: number,
  chosen: boolean,
  unicode: boolean,
): Line {
  const widths = widthsOf(columns, total)
  return columns.flatMap(({ align }, i): Span[] => {
    if (widths[i] === 0) return []
    const { text, look = 'plain' } = cells[i]!
    const ellipsis = unicode ? '…' : '~'
    const width = widths[i]!
    const fitted =
      align === 'middle' ? fitMiddle(text, width, ellipsis) : fit(text, width, align ?? 'left', ellipsis)
    return [
      span(i === 0 && chosen ? (unicode ? '▸' : '>') : ' ', chosen ? 'chosen' : 'plain'),
      span(fitted, chosen && look !== 'bar' ? 'chosen' : look),
    ]
  })
}

const SORT_COLUMNS: Readonly<Record<FlowSort, string>> = {
  bits: 'bit rate',
  packets: 'packets',
  samples: 'samples',
  name: '',
}

function flowList(model: TrafficModel, { choices, unicode, size }: Scene): List {
  const key = FLOW_KEYS[choices.flowKey]!
  const MOST_ROWS = 1000
  const table = flowTable(model, {
    key,
    sort: choices.flowSort,
    filter: choices.filters.flows,
    limit: MOST_ROWS,
  })
  const sortedBy = SORT_COLUMNS[choices.flowSort]
  const BAR = 10
  const columns: Column[] = [
    ...key.columns.map((title, i): Column => {
      const isShort = title === 'proto' || title === 'vlan'
      return {
        title,
        ...(isShort ? { width: 6 } : { width: 10, grow: 1, align: 'middle' as const }),
        isSorted: sortedBy === '' && i === 0,
      }
    }),
    { title: 'bit rate', width: 10, align: 'right', isSorted: sortedBy === 'bit rate' },
    { title: 'packets', width: 9, align: 'right', isSorted: sortedBy === 'packets' },
    { title: unicode ? '±' : '+-', width: 6, align: 'right' },
    { title: 'samples', width: 8, align: 'right', isSorted: sortedBy === 'samples', from: 104 },
    { title: 'share', width: BAR, from: 92 },
  ]
  // Where only the rest grows, or nothing does, the share does.
  if (!columns.some(({ grow }) => grow !== undefined))
    columns[columns.length - 1] = { title: 'share', width: 6, grow: 1 }
  const shareWidth = widthsOf(columns, size.columns).at(-1)!
  const all = Math.max(table.total.bitsPerSecond, 1e-9)
  const allPackets = Math.max(table.total.packetsPerSecond, 1e-9)
  const rows = [...table.rows, ...(table.others === undefined ? [] : [table.others])].map(row => {
    const isOthers = row === table.others
    const share = choices.flowSort === 'packets' ? row.packetsPerSecond / allPackets : row.bitsPerSecond / all
    const names = key.columns.map((_, i): Cell => {
      if (isOthers) return { text: i === 0 ? 'evicted' : '', look: 'dim' }
      return { text: row.cells[i] ?? '' }
    })
    return [
      ...names,
      { text: bitRate(row.bitsPerSecond), look: isOthers ? 'dim' : 'bold' },
      { text: rate(row.packetsPerSecond) },
      { text: error(row.error).replace('±', '').replace(' ', ''), look: row.error > 0.5 ? 'dim' : 'plain' },
      { text: count(row.samples) },
      { text: bar(share, shareWidth, unicode), look: 'bar' },
    ] satisfies Cell[]
  })
  const empty =
    choices.filters.flows === ''
      ? 'no flow samples yet'
      : `no flow with ${printable(choices.filters.flows, 60)}`
  return { columns, rows, empty, detail: NO_DETAIL }
}

/** Whose the rows are, where that is not the same for all. */
function agentColumn(model: TrafficModel): Column[] {
  return hasSeveralAgents(model) ? [{ title: 'agent', width: 15 }] : []
}

function dropList(model: TrafficModel, { choices, size }: Scene): List {
  const drops = dropRows(model, choices.dropSort, choices.filters.drops)
  const { dropSort } = choices
  const agents = agentColumn(model)
  const columns: Column[] = [
    ...agents,
    { title: 'reason', width: 14, grow: 2, isSorted: dropSort === 'reason' },
    { title: "kernel's or trap", width: 8, grow: 2, from: 70 },
    { title: 'in', width: 6, from: 60 },
    { title: 'out', width: 6, from: 60 },
    { title: 'place', width: 8, grow: 3, from: 100 },
    { title: 'rate', width: 9, align: 'right', isSorted: dropSort === 'rate' },
    { title: 'packets', width: 8, align: 'right', isSorted: dropSort === 'packets' },
    { title: 'last', width: 6, align: 'right', isSorted: dropSort === 'last' },
  ]
  const rows = drops.map((row): Cell[] => [
    ...agents.map(() => ({ text: row.agent })),
    { text: row.reason, look: row.perSecond > 0 ? 'bold' : 'dim' },
    { text: row.detail },
    { text: row.input },
    { text: row.output },
    { text: row.place },
    { text: rate(row.perSecond), look: row.perSecond > 0 ? 'bad' : 'dim' },
    { text: count(row.packets) },
    { text: age(row.ageSeconds), look: row.ageSeconds < 10 ? 'plain' : 'dim' },
  ])
  const detail = (chosen: number): Line[] => {
    const row = drops[Math.min(chosen, drops.length - 1)]
    return row === undefined ? [] : dropDetail(row, size.columns)
  }
  return { columns, rows, empty: 'no dropped packet was reported', detail }
}

function dropDetail(row: DropRow, columns: number): Line[] {
  const place = [row.place, row.agent === '' ? '' : `agent ${row.agent}`].filter(Boolean).join(', ')
  return [
    [
      span(
        fit(
          ` ${row.reason}${row.detail === '' ? '' : `: ${row.detail}`}${place === '' ? '' : `, ${place}`}`,
          columns,
        ),
        'heading',
      ),
    ],
    [span(fit(` last packet  ${row.lastPacket || 'unknown'}`, columns))],
  ]
}

const HISTORY_SECONDS = 60

function queueList(model: TrafficModel, { choices, unicode, size }: Scene): List {
  const queues = queueRows(model, choices.queueSort, choices.filters.queues, HISTORY_SECONDS)
  const { queueSort } = choices
  const agents = agentColumn(model)
  const columns: Column[] = [
    ...agents,
    { title: 'interface', width: 9, grow: 1, isSorted: queueSort === 'name' },
    { title: 'queue', width: 5, align: 'right' },
    { title: 'delay 50 %', width: 10, align: 'right' },
    { title: '95 %', width: 8, align: 'right', from: agents.length > 0 ? 96 : 70 },
    { title: '99 %', width: 9, align: 'right', isSorted: queueSort === 'delay' },
    { title: 'depth 50 %', width: 10, align: 'right' },
    { title: '99 %', width: 9, align: 'right', isSorted: queueSort === 'depth' },
    { title: 'samples', width: 8, align: 'right', isSorted: queueSort === 'samples', from: 100 },
    { title: 'depth, 10 s', width: 11, from: agents.length > 0 ? 96 : 78 },
  ]
  const ns = (value: number | undefined) => (value === undefined ? '-' : nanoseconds(value))
  const rows = queues.map((row): Cell[] => [
    ...agents.map(() => ({ text: row.agent })),
    { text: row.output, look: 'bold' },
    { text: row.queue },
    { text: ns(row.delay?.p50) },
    { text: ns(row.delay?.p95) },
    { text: ns(row.delay?.p99), look: (row.delay?.p99 ?? 0) > 10e6 ? 'bad' : 'plain' },
    { text: row.depth === undefined ? '-' : bytes(row.depth.p50) },
    { text: row.depth === undefined ? '-' : bytes(row.depth.p99) },
    { text: count(row.samples) },
    { text: sparkLine(row.depths.slice(-11), unicode, greatestOf(row.depths)), look: 'bar' },
  ])
  const detail = (chosen: number): Line[] => {
    const row = queues[Math.min(chosen, queues.length - 1)]
    return row === undefined ? [] : queueDetail(row, size.columns, unicode)
  }
  return { columns, rows, empty: 'no sample told a queue depth or a transit delay', detail }
}

function queueDetail(row: QueueRow, columns: number, unicode: boolean): Line[] {
  const width = Math.min(HISTORY_SECONDS, columns - 32)
  const plot = (name: string, values: readonly number[], text: (value: number) => string): Line => {
    const shown = values.slice(-width)
    const label = fit(` ${name}`, 7)
    return [
      span(label, 'dim'),
      span(sparkLine(shown, unicode), 'bar'),
      span(fit(` at most ${text(greatestOf(shown))} in ${width} s`, columns - 7 - width), 'dim'),
    ]
  }
  const queue = row.queue === '' ? '' : ` queue ${row.queue}`
  return [
    [span(fit(` ${row.output}${queue}, agent ${row.agent}`, columns), 'heading')],
    plot('depth', row.depths, bytes),
    plot('delay', row.delays, nanoseconds),
  ]
}

function portList(model: TrafficModel, { choices, unicode, size }: Scene): List {
  const ports = portRows(model, choices.portSort, choices.filters.interfaces, HISTORY_SECONDS)
  const { portSort } = choices
  const agents = agentColumn(model)
  const columns: Column[] = [
    ...agents,
    { title: 'interface', width: 9, grow: 1, isSorted: portSort === 'name' },
    { title: 'state', width: 5 },
    { title: 'speed', width: 9, align: 'right', from: agents.length > 0 ? 96 : 78 },
    { title: 'in', width: 10, align: 'right', isSorted: portSort === 'bits' },
    { title: 'out', width: 10, align: 'right' },
    { title: 'in pk', width: 9, align: 'right', from: 100 },
    { title: 'out pk', width: 9, align: 'right', from: 100 },
    { title: 'use', width: 6, align: 'right', isSorted: portSort === 'utilisation' },
    { title: 'errors', width: 6, align: 'right', isSorted: portSort === 'errors' },
    { title: 'drops', width: 6, align: 'right' },
  ]
  const rows = ports.map((row): Cell[] => [
    ...agents.map(() => ({ text: row.agent })),
    { text: row.name, look: 'bold' },
    { text: row.up ? 'up' : 'down', look: row.up ? 'good' : 'dim' },
    { text: row.speed > 0 ? bitRate(row.speed) : '-' },
    { text: bitRate(row.inBits) },
    { text: bitRate(row.outBits) },
    { text: rate(row.inPackets) },
    { text: rate(row.outPackets) },
    {
      text: percent(row.utilisation),
      look: row.utilisation > 0.9 ? 'bad' : row.utilisation > 0.7 ? 'warning' : 'plain',
    },
    { text: count(row.errors), look: row.errors > 0 ? 'bad' : 'dim' },
    { text: count(row.discards), look: row.discards > 0 ? 'warning' : 'dim' },
  ])
  const detail = (chosen: number): Line[] => {
    const row = ports[Math.min(chosen, ports.length - 1)]
    return row === undefined ? [] : portDetail(row, size.columns, unicode)
  }
  return { columns, rows, empty: 'no counters of interfaces yet', detail }
}

function portDetail(row: PortRow, columns: number, unicode: boolean): Line[] {
  const width = Math.min(HISTORY_SECONDS, columns - 34)
  const plot = (name: string, values: readonly number[]): Line => {
    const shown = values.slice(-width)
    return [
      span(fit(` ${name}`, 7), 'dim'),
      span(sparkLine(shown, unicode), 'bar'),
      span(fit(` at most ${bitRate(greatestOf(shown))} in ${width} s`, columns - 7 - width), 'dim'),
    ]
  }
  return [
    [
      span(
        fit(
          ` ${row.name}, ifIndex ${row.ifIndex}, agent ${row.agent}, counters ${age(row.ageSeconds)} old`.replace(
            'now old',
            'of now',
          ),
          columns,
        ),
        'heading',
      ),
    ],
    plot('in', row.inHistory),
    plot('out', row.outHistory),
  ]
}

function agentList(model: TrafficModel, { choices, collectors, size }: Scene): List {
  const agents = agentRows(model, choices.filters.agents)
  const columns: Column[] = [
    { title: 'agent', width: 12, grow: 1 },
    { title: 'sub', width: 7, align: 'right', from: 70 },
    { title: 'datagrams', width: 9, align: 'right' },
    { title: 'missing', width: 8, align: 'right' },
    { title: 'flows', width: 8, align: 'right' },
    { title: 'drops', width: 7, align: 'right' },
    { title: 'counters', width: 8, align: 'right' },
    { title: 'last', width: 6, align: 'right' },
    { title: 'up', width: 6, align: 'right', from: 76 },
  ]
  const rows = agents.map((row): Cell[] => [
    { text: row.agent, look: 'bold' },
    { text: String(row.subAgent) },
    { text: count(row.datagrams) },
    { text: count(row.missing), look: row.missing > 0 ? 'bad' : 'dim' },
    { text: count(row.flows) },
    { text: count(row.drops) },
    { text: count(row.counters) },
    { text: age(row.ageSeconds), look: row.ageSeconds > 60 ? 'warning' : 'plain' },
    { text: age(row.uptimeSeconds) },
  ])
  return { columns, rows, empty: 'no agent was heard', detail: () => collectorLines(collectors, size) }
}

function collectorLines(collectors: readonly CollectorRow[] | undefined, { columns, rows }: Size): Line[] {
  if (collectors === undefined) return []
  const shown = collectors.slice(0, Math.max(Math.floor(rows / 3), 1))
  const more = collectors.length - shown.length
  return [
    [span(fit(` collectors of this agent${more > 0 ? `, ${more} more` : ''}`, columns), 'heading')],
    ...shown.flatMap((row): Line[] => {
      const told = `${count(row.sent)} datagrams, ${bytes(row.bytes)}, ${count(row.lost)} lost`
      const name = fit(` ${printable(row.name, 40)}`, Math.min(30, columns))
      const look = row.lost === 0 ? 'plain' : 'bad'
      const first = [span(name, 'bold'), span(fit(` ${told}`, columns - cellsOf(name)), look)]
      if (row.problem === undefined) return [first]
      return [first, [span(fit(`   ${printable(row.problem, 200)}`, columns), 'bad')]]
    }),
    ...(collectors.length === 0 ? [[span(fit(' none is configured', columns), 'warning')]] : []),
  ]
}
