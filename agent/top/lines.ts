/** Lines of text with a look, and what a terminal is told to show them. Pure. */

export type Look =
  | 'plain'
  | 'dim'
  | 'bold'
  | 'title'
  | 'tab'
  | 'chosen-tab'
  | 'heading'
  | 'sorted'
  | 'chosen'
  | 'bar'
  | 'good'
  | 'warning'
  | 'bad'
  | 'key'

export interface Span {
  readonly text: string
  readonly look: Look
}

export type Line = readonly Span[]

/** Without colour only what every terminal can: bold, reverse, underlined. */
const MONOCHROME: Readonly<Record<Look, string>> = {
  plain: '',
  dim: '',
  bold: '1',
  title: '7',
  tab: '',
  'chosen-tab': '7',
  heading: '4',
  sorted: '1;4',
  chosen: '7',
  bar: '',
  good: '',
  warning: '1',
  bad: '1',
  key: '1',
}

/** The 16 colours: those that the user has chosen for the terminal, on a light background and on a dark one. */
const COLOURS: Readonly<Record<Look, string>> = {
  ...MONOCHROME,
  dim: '90',
  title: '1;37;44',
  tab: '90',
  'chosen-tab': '1;7',
  heading: '4;36',
  sorted: '1;4;36',
  bar: '34',
  good: '32',
  warning: '33',
  bad: '1;31',
  key: '1;36',
}

export function span(text: string, look: Look = 'plain'): Span {
  return { text, look }
}

/** The line with the sequences that give it its look (ECMA-48 §8.3.117). */
export function ansi(line: Line, colours: boolean): string {
  const codes = colours ? COLOURS : MONOCHROME
  return line
    .map(({ text, look }) => (codes[look] === '' ? text : `\x1b[${codes[look]}m${text}\x1b[0m`))
    .join('')
}

/** The text alone. */
export function plainText(line: Line): string {
  return line.map(({ text }) => text).join('')
}
