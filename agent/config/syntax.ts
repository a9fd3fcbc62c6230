/**
 * The words of the configuration language, which is hsflowd's: blank, tab, line end, `=` and `;` all separate
 * words and mean nothing else, `{` and `}` are words of their own even when glued to others, and `#` starts a
 * comment that ends with the line. A word that starts with a double quote runs to the closing quote, takes
 * every character on the way as it is, and writes a quote as two.
 */

import type { Place, Problem } from './problem.ts'

export interface Token extends Place {
  readonly kind: 'word' | '{' | '}'
  /** The word without its quotes, or the brace. */
  readonly text: string
}

const LINE_END = /[\r\n]/
const SEPARATOR = /[ \t=;\r\n\uFEFF]/
/** What ends a word that is not quoted. */
const WORD_END = /[ \t=;\r\n\uFEFF{}#]/g

/** A file with so many errors is not a configuration: what follows is not read. */
export const MOST_ERRORS = 200

/** The tokens of a text, and what is wrong on the level of characters: up to MOST_ERRORS, where reading ends. */
export function tokenize(text: string): { tokens: Token[]; problems: Problem[] } {
  const tokens: Token[] = []
  const problems: Problem[] = []
  let at = 0
  let line = 1
  let lineStart = 0

  while (at < text.length && problems.length < MOST_ERRORS) {
    const char = text[at]!
    if (LINE_END.test(char)) {
      at += char === '\r' && text[at + 1] === '\n' ? 2 : 1
      line++
      lineStart = at
    } else if (SEPARATOR.test(char)) {
      at++
    } else if (char === '#') {
      at = endOfLine(text, at)
    } else {
      const place = { line, column: at - lineStart + 1 }
      const start = at
      if (char === '{' || char === '}') {
        at++
        tokens.push({ kind: char, text: char, ...place, length: 1 })
      } else if (char === '"') {
        const quoted = readQuoted(text, at)
        at = quoted.end
        tokens.push({ kind: 'word', text: quoted.text, ...place, length: at - start })
        if (!quoted.closed) {
          problems.push({
            severity: 'error',
            ...place,
            length: at - start,
            message: 'this quote is not closed before the end of the line',
            expected: '"',
          })
        } else if (at < text.length && !/[ \t=;\r\n\uFEFF{}#]/.test(text[at]!)) {
          problems.push({
            severity: 'error',
            line,
            column: at - lineStart + 1,
            length: 1,
            message: 'expected a separator after the closing quote (a quote inside quotes is written "")',
          })
        }
      } else {
        WORD_END.lastIndex = at
        at = WORD_END.exec(text)?.index ?? text.length
        tokens.push({ kind: 'word', text: text.slice(start, at), ...place, length: at - start })
      }
    }
  }
  return { tokens, problems }
}

function endOfLine(text: string, from: number): number {
  let at = from
  while (at < text.length && !LINE_END.test(text[at]!)) at++
  return at
}

/** Reads from the opening quote at `start`; a quoted word never leaves its line. */
function readQuoted(text: string, start: number): { text: string; end: number; closed: boolean } {
  let word = ''
  let at = start + 1
  for (; at < text.length && !LINE_END.test(text[at]!); at++) {
    if (text[at] === '"') {
      if (text[at + 1] !== '"') return { text: word, end: at + 1, closed: true }
      at++
    }
    word += text[at]
  }
  return { text: word, end: at, closed: false }
}

/**
 * A value as it has to be written in a file: quoted where it would not be read back as one word. No way of
 * writing holds a line end; `text` must have none.
 */
export function writeWord(text: string): string {
  return text === '' || text.startsWith('"') || /[ \t=;\uFEFF{}#]/.test(text)
    ? `"${text.replaceAll('"', '""')}"`
    : text
}
