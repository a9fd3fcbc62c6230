/**
 * POSIX extended regular expressions, as regcomp(3) of the GNU C library reads them, in JavaScript's notation.
 * What differs: bracket expressions (classes, a backslash is an ordinary character, a leading `]` is a member),
 * repeated quantifiers, an unmatched `)`, and escapes that only one of the two knows.
 */

const CLASSES: Readonly<Record<string, string>> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  blank: ' \\t',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '\\x21-\\x7e',
  lower: 'a-z',
  print: '\\x20-\\x7e',
  punct: '\\x21-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\x7e',
  space: ' \\t\\n\\v\\f\\r',
  upper: 'A-Z',
  xdigit: '0-9A-Fa-f',
}

/** GNU's escapes that JavaScript lacks or writes in another way. */
const ESCAPES: Readonly<Record<string, string>> = {
  '<': '\\b(?=\\w)',
  '>': '\\b(?<=\\w)',
  '`': '^',
  "'": '$',
}

/** Compiles `pattern`; throws an Error that says what is wrong with it and where (characters from 1). */
export function posixRegex(pattern: string): RegExp {
  let out = ''
  let at = 0
  // Where the last complete atom starts in `out`, which a quantifier repeats; -1 where none may stand.
  let atom = -1
  let quantified = false
  // Where each open group starts in `out`.
  const groups: number[] = []
  let closedGroups = 0

  const fail = (what: string): never => {
    throw new Error(`${what} at character ${at + 1}`)
  }
  const put = (text: string, repeatable = true) => {
    atom = repeatable ? out.length : -1
    quantified = false
    out += text
  }

  while (at < pattern.length) {
    const char = pattern[at]!
    const interval = char === '{' ? /^\{(\d*)(,?)(\d*)\}/.exec(pattern.slice(at)) : null
    if (char === '[') {
      const bracket = readBracket(pattern, at)
      if (bracket === undefined) return fail('a bracket expression "[" that is not closed or not valid')
      put(bracket.text)
      at = bracket.end
      continue
    }
    if (char === '\\') {
      const next = pattern[at + 1]
      if (next === undefined) return fail('a backslash with nothing after it')
      if (next in ESCAPES) put(ESCAPES[next]!, false)
      else if (next === 'b' || next === 'B') put(`\\${next}`, false)
      else if (/[1-9]/.test(next) && Number(next) > closedGroups) return fail('a reference to no group')
      else if (/[wWsS1-9]/.test(next)) put(`\\${next}`)
      else put(literal(next))
      at += 2
      continue
    }
    if ('*+?'.includes(char) || char === '{') {
      if (atom < 0) return fail(`"${char}" with nothing to repeat`)
      let quantifier = char
      if (char === '{') {
        const [whole, least = '', comma = '', most = ''] = interval ?? []
        if (whole === undefined || (least === '' && comma === ''))
          return fail('a repeat count that is not valid')
        if (most !== '' && Number(least) > Number(most)) return fail('a repeat count that runs backwards')
        quantifier = `{${least === '' ? '0' : least}${comma}${most}}`
      }
      // JavaScript reads a second quantifier as "lazy" or "possessive"; here it repeats the repetition.
      if (quantified) out = `${out.slice(0, atom)}(?:${out.slice(atom)})`
      out += quantifier
      quantified = true
      at += interval?.[0].length ?? 1
      continue
    }
    if (char === '(') {
      groups.push(out.length)
      put('(', false)
    } else if (char === ')' && groups.length > 0) {
      const start = groups.pop()!
      put(')')
      atom = start
      closedGroups++
    } else if (char === '|' || char === '^' || char === '$') {
      put(char, false)
    } else if (char === '.') {
      put(char)
    } else {
      put(literal(char))
    }
    at++
  }
  if (groups.length > 0) return fail('a "(" that is not closed, found')
  return new RegExp(out, 's')
}

function literal(char: string): string {
  return /[\\^$.*+?()[\]{}|/]/.test(char) ? `\\${char}` : char
}

/** Reads the bracket expression that starts at `start`; undefined when it is not valid. */
function readBracket(pattern: string, start: number): { text: string; end: number } | undefined {
  let at = start + 1
  let out = '['
  if (pattern[at] === '^') {
    out += '^'
    at++
  }
  // One character, or `[.x.]` / `[=x=]` for it; undefined when it cannot be the end of a range.
  const readOne = (): string | undefined => {
    const named = /^\[([.=])(.)\1\]/s.exec(pattern.slice(at, at + 5))
    const char = named?.[2] ?? pattern[at]
    at += named?.[0].length ?? 1
    return char
  }
  for (let first = true; first || pattern[at] !== ']'; first = false) {
    if (at >= pattern.length) return undefined
    const named = /^\[:([a-z]+):\]/.exec(pattern.slice(at))
    if (named) {
      const members = CLASSES[named[1]!]
      if (members === undefined) return undefined
      out += members
      at += named[0].length
      continue
    }
    const low = readOne()!
    out += member(low)
    if (pattern[at] === '-' && at + 1 < pattern.length && pattern[at + 1] !== ']') {
      at++
      const high = readOne()!
      if (high < low) return undefined
      out += `-${member(high)}`
    }
  }
  return { text: `${out}]`, end: at + 1 }
}

function member(char: string): string {
  return /[\\\]^[-]/.test(char) ? `\\${char}` : char
}
