/** What the user has chosen, and what a key makes of it. Pure. */

import { type DropSort, FLOW_KEYS, type FlowSort, type PortSort, type QueueSort } from '../view/rows.ts'

export const TABS = ['flows', 'drops', 'queues', 'interfaces', 'agents'] as const
export type Tab = (typeof TABS)[number]

const FLOW_SORTS: readonly FlowSort[] = ['bits', 'packets', 'samples', 'name']
const DROP_SORTS: readonly DropSort[] = ['rate', 'packets', 'last', 'reason']
const QUEUE_SORTS: readonly QueueSort[] = ['delay', 'depth', 'samples', 'name']
const PORT_SORTS: readonly PortSort[] = ['bits', 'utilisation', 'errors', 'name']

export interface Choices {
  readonly tab: Tab
  /** Place in FLOW_KEYS. */
  readonly flowKey: number
  readonly flowSort: FlowSort
  readonly dropSort: DropSort
  readonly queueSort: QueueSort
  readonly portSort: PortSort
  /** Of the tab that is shown; each keeps its own. */
  readonly filters: Readonly<Record<Tab, string>>
  /** The filter as it is typed; undefined while none is. */
  readonly typing: string | undefined
  readonly paused: boolean
  readonly help: boolean
  /** The chosen row of each tab. */
  readonly rows: Readonly<Record<Tab, number>>
  readonly quit: boolean
}

const each = <T>(value: T): Record<Tab, T> => ({
  flows: value,
  drops: value,
  queues: value,
  interfaces: value,
  agents: value,
})

export const START: Choices = {
  tab: 'flows',
  flowKey: 0,
  flowSort: 'bits',
  dropSort: 'rate',
  queueSort: 'delay',
  portSort: 'bits',
  filters: each(''),
  typing: undefined,
  paused: false,
  help: false,
  rows: each(0),
  quit: false,
}

const MOST_FILTER = 120

/** What holds after a key. `page`: rows on the screen; `count`: rows there are. */
export function press(
  choices: Choices,
  key: string,
  { page, count }: { page: number; count: number },
): Choices {
  if (key === 'ctrl-c') return { ...choices, quit: true }
  if (choices.typing !== undefined) return type(choices, choices.typing, key)
  if (choices.help) return key === 'q' ? { ...choices, quit: true } : { ...choices, help: false }
  const { tab } = choices
  const number = TABS.length >= Number(key) ? TABS[Number(key) - 1] : undefined
  if (number !== undefined) return { ...choices, tab: number }
  switch (key) {
    case 'q':
      return { ...choices, quit: true }
    case 'tab':
    case 'right':
      return { ...choices, tab: next(TABS, tab, 1) }
    case 'shift-tab':
    case 'left':
      return { ...choices, tab: next(TABS, tab, -1) }
    case 'k':
      return tab === 'flows' ? withKey(choices, 1) : choices
    case 'K':
      return tab === 'flows' ? withKey(choices, -1) : choices
    case 's':
      return sorted(choices, 1)
    case 'S':
      return sorted(choices, -1)
    case '/':
    case 'f':
      return { ...choices, typing: choices.filters[tab] }
    case 'escape':
      return { ...choices, filters: { ...choices.filters, [tab]: '' } }
    case 'p':
    case ' ':
      return { ...choices, paused: !choices.paused }
    case '?':
    case 'h':
      return { ...choices, help: true }
    case 'up':
      return move(choices, -1, count)
    case 'down':
      return move(choices, 1, count)
    case 'page-up':
      return move(choices, -page, count)
    case 'page-down':
      return move(choices, page, count)
    case 'home':
    case 'g':
      return move(choices, -count, count)
    case 'end':
    case 'G':
      return move(choices, count, count)
    default:
      return choices
  }
}

function type(choices: Choices, text: string, key: string): Choices {
  const withText = (typing: string) => ({
    ...choices,
    typing,
    filters: { ...choices.filters, [choices.tab]: typing },
    rows: { ...choices.rows, [choices.tab]: 0 },
  })
  switch (key) {
    case 'enter':
      return { ...choices, typing: undefined }
    case 'escape':
      return { ...withText(''), typing: undefined }
    case 'backspace':
      return withText(Array.from(text).slice(0, -1).join(''))
    case 'ctrl-u':
      return withText('')
    default:
      return Array.from(key).length === 1 && text.length < MOST_FILTER ? withText(text + key) : choices
  }
}

function withKey(choices: Choices, step: number): Choices {
  const flowKey = (choices.flowKey + step + FLOW_KEYS.length) % FLOW_KEYS.length
  return { ...choices, flowKey, rows: { ...choices.rows, flows: 0 } }
}

function sorted(choices: Choices, step: number): Choices {
  switch (choices.tab) {
    case 'flows':
      return { ...choices, flowSort: next(FLOW_SORTS, choices.flowSort, step) }
    case 'drops':
      return { ...choices, dropSort: next(DROP_SORTS, choices.dropSort, step) }
    case 'queues':
      return { ...choices, queueSort: next(QUEUE_SORTS, choices.queueSort, step) }
    case 'interfaces':
      return { ...choices, portSort: next(PORT_SORTS, choices.portSort, step) }
    default:
      return choices
  }
}

function move(choices: Choices, step: number, count: number): Choices {
  const row = Math.min(Math.max(choices.rows[choices.tab] + step, 0), Math.max(count - 1, 0))
  return { ...choices, rows: { ...choices.rows, [choices.tab]: row } }
}

function next<T>(all: readonly T[], now: T, step: number): T {
  return all[(all.indexOf(now) + step + all.length) % all.length]!
}
