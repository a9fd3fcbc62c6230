/**
 * Text from outside (names of interfaces, containers and programs, what a datagram carries, messages of other
 * programs) made fit for a terminal, a log line and a table. Everything of the agent that is shown passes here.
 */

/**
 * What a terminal obeys rather than shows, or what shows as something else: C0 and C1 controls and DEL (escape
 * sequences begin with them), line and paragraph separators, marks that change the direction of writing (CVE-2021-42574),
 * characters that do not show, private use, and halves of surrogate pairs.
 */
const UNPRINTABLE = /\p{Cc}|\p{Cf}|\p{Co}|\p{Zl}|\p{Zp}|\p{Cs}|\p{Default_Ignorable_Code_Point}/u
const ALL_UNPRINTABLE = new RegExp(UNPRINTABLE.source, 'gu')

/** Most names; to see that is many times quicker. */
const ORDINARY = /^[ -~]*$/

const NAMED: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/**
 * The text with every character that would not show as itself written as an escape: `\n`, `\x1b`, `\u202e`. Text of at
 * most `most` characters; what is longer ends with `…`.
 */
export function printable(text: string, most = 256): string {
  if (text.length <= most && ORDINARY.test(text)) return text
  const shown = UNPRINTABLE.test(text) ? text.replace(ALL_UNPRINTABLE, escapeOf) : text
  if (shown.length <= most) return shown
  const end = most - 1
  // Not between the halves of a pair.
  const isHalf = (shown.charCodeAt(end - 1) & 0xfc00) === 0xd800
  return `${shown.slice(0, isHalf ? end - 1 : end)}…`
}

function escapeOf(character: string): string {
  const code = character.codePointAt(0)!
  if (code < 0x100) return NAMED[character] ?? `\\x${code.toString(16).padStart(2, '0')}`
  return code < 0x1_0000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\u{${code.toString(16)}}`
}

/** A line of JSON with everything that printable() escapes as `\\uXXXX`: the same values, and nothing for a terminal to obey. */
export function escapeJson(line: string): string {
  const text = line.endsWith('\n') ? line.slice(0, -1) : line
  if (ORDINARY.test(text) || !UNPRINTABLE.test(text)) return line
  const escaped = text.replace(ALL_UNPRINTABLE, characters =>
    Array.from({ length: characters.length }, (_, i) => {
      const code = characters.charCodeAt(i)
      return `\\u${code.toString(16).padStart(4, '0')}`
    }).join(''),
  )
  return text === line ? escaped : `${escaped}\n`
}
