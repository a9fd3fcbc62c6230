/** Man pages as text: the man(7) macros that groff and mandoc both know. */

const WIDTH = 78

/** One word or line of text: what troff would take for its own is escaped. */
export function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replaceAll('^', '\\(ha')
    .replaceAll('~', '\\(ti')
    .replace(
      /[^\x20-\x7e]/gu,
      char => `\\[u${char.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}]`,
    )
}

export function bold(text: string): string {
  return `\\fB${roff(text)}\\fR`
}

export function italic(text: string): string {
  return `\\fI${roff(text)}\\fR`
}

/** Running text with `code` in it, as lines. */
export function prose(text: string): string[] {
  const spans = text.replaceAll('**', '').split('`')
  return wrap(spans.map((span, i) => (i % 2 === 1 ? bold(span) : roff(span))).join(''))
}

/** An argument of a macro. */
function quoted(text: string): string {
  return `"${text.replaceAll('"', '\\(dq')}"`
}

export function heading(text: string): string {
  return `.SH ${quoted(roff(text.toUpperCase()))}`
}

export function subheading(text: string): string {
  return `.SS ${quoted(roff(text))}`
}

/** A term, which is roff already, and what it means. */
export function item(term: string, meaning: readonly string[]): string[] {
  return ['.TP', ...guard([term]), ...(meaning.length === 0 ? ['\\&'] : meaning)]
}

/** Text as it stands, line by line. */
export function verbatim(text: string): string[] {
  return [
    '.PP',
    '.nf',
    '.RS 4',
    ...guard(
      text
        .replace(/^\n+|\s+$/g, '')
        .split('\n')
        .map(blankless),
    ),
    '.RE',
    '.fi',
  ]
}

function blankless(line: string): string {
  return line === '' ? '\\&' : roff(line)
}

/** Paragraphs, lists and fenced code of Markdown. */
export function markdown(text: string): string[] {
  const lines: string[] = []
  for (const [i, part] of text.split('```').entries()) {
    if (i % 2 === 1) {
      lines.push(...verbatim(part))
      continue
    }
    for (const paragraph of part.trim().split(/\n\n+/)) {
      if (paragraph.startsWith('- ')) {
        for (const point of paragraph.slice(2).split('\n- '))
          lines.push('.IP \\(bu 2', ...prose(oneLine(point)))
      } else if (paragraph !== '') lines.push('.PP', ...prose(oneLine(paragraph)))
    }
  }
  return lines
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}

/** A whole page. `about` stands behind the name in lists of pages. */
export function page(
  name: string,
  section: number,
  about: string,
  body: readonly string[],
  release: { readonly version: string; readonly date: string },
): string {
  return [
    '.\\" Made from the sources by packaging/man.ts.',
    `.TH ${quoted(roff(name.toUpperCase()))} ${section} ${quoted(release.date)} ${quoted(`weir ${release.version}`)}`,
    heading('Name'),
    `${roff(name)} \\- ${roff(about)}`,
    // A paragraph right behind a heading is one already.
    ...body.filter((line, i) => line !== '.PP' || !/^\.S[HS] /.test(body[i - 1] ?? '')),
    '',
  ].join('\n')
}

function wrap(text: string): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/ +/)) {
    if (line !== '' && line.length + 1 + word.length > WIDTH) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return guard([...lines, line])
}

/** A line that starts like a request is none. */
function guard(lines: readonly string[]): string[] {
  return lines.map(line => (/^[.']/.test(line) ? `\\&${line}` : line))
}
