/** The reference page and the default file, both made from the table of settings. */

import { type Block, type Entries, type Setting, settings } from './settings.ts'

type Entry = Entries[string]
type AnySetting = Extract<Entry, Setting<unknown>>
type AnyBlock = Extract<Entry, Block<Entries, boolean>>

const WIDTH = 100

/** The configuration reference (docs/configuration.md). */
export function configurationReference(): string {
  const entries = Object.entries<Entry>(settings)
  const current = entries.filter(([, { deprecated }]) => deprecated === undefined)
  const blocks = current.filter((named): named is [string, AnyBlock] => named[1].form === 'block')
  return [
    '<!-- Made from agent/config/settings.ts by `node packaging/config-docs.ts`. -->',
    '',
    '# The configuration file',
    INTRODUCTION,
    MARKS,
    '## Settings of the agent',
    '',
    ...table(settings),
    ...blocks.flatMap(([name, block]) => blockSection(name, block)),
    '## Old forms',
    '',
    'They are accepted, with a warning. Those of a block count only when the block is there too; `DNSSD = on` stands for the',
    'block itself.',
    '',
    '| old form | value | now |',
    '|---|---|---|',
    ...entries
      .filter((named): named is [string, AnySetting] => named[1].deprecated !== undefined)
      .map(([name, { kind, deprecated }]) => row(code(name), kind.brief, deprecated!)),
    '',
  ].join('\n')
}

/** What the language is like, in Markdown. */
export const INTRODUCTION = `
\`weir\` reads \`/etc/weir.conf\`, or if there is none \`/etc/hsflowd.conf\`; \`-f FILE\` names another one. The language is that of
hsflowd, and what hsflowd accepts is accepted. \`weir check\` shows every mistake with its place.

\`\`\`
sFlow {
  sampling = 400            # a setting and its value
  polling 20; headerBytes=64
  collector { ip = 192.0.2.10 udpport = 6343 }
  psample { }               # an empty block switches a part on
  dent { switchport = "^(eth|swp)[0-9]{1,3}$" }
}
\`\`\`

- Blank, tab, line end, \`=\` and \`;\` all separate words. \`{\` and \`}\` need nothing around them. \`#\` starts a comment.
- A word in double quotes may hold any character but a line end; a quote in it is written as two.
- Names are found in any letter case; what the user adds to a name (\`sampling.10G\`) is not changed.
- A setting that is given again replaces the earlier value; \`agent.cidr\`, \`collector\`, \`pcap\` and \`opx { port }\` add to it.
- Whole numbers are decimal, \`0x…\` hexadecimal or \`0…\` octal, and may end in \`K\`, \`M\` or \`G\` (thousand, million, milliard).
- Regular expressions are POSIX extended ones and match anywhere in the name unless they are anchored.
`

const MARKS = `A setting marked **no effect** is accepted, so that a file written for hsflowd can stay as it is, and \`weir check\` says why
it has none. One marked **weir** is not known to hsflowd.
`

/** The default file (conf/weir.conf): a collector on this host, and each setting that has an effect as a comment. */
export function defaultFile(): string {
  const entries = Object.entries<Entry>(settings).filter(([, entry]) => entry.deprecated === undefined)
  const idle = entries.filter(([, { inactive }]) => inactive !== undefined)
  return [
    '# Configuration of weir. A line such as "#sampling = 400" shows a setting with its default, or with an',
    '# example where there is none; remove the # to set it. "weir check" shows mistakes, and',
    '# docs/configuration.md describes everything.',
    '',
    'sFlow {',
    ...entries
      .filter(([, { inactive }]) => inactive === undefined)
      .flatMap(named => fileEntry(...named, '  ')),
    ...wrap(
      `Accepted from an hsflowd.conf, without effect in this version: ${idle.map(([name]) => name.replace(/\.$/, '.…')).join(', ')}.`,
      '  # ',
    ),
    '}',
    '',
  ].join('\n')
}

/** What is set in the default file rather than shown as a comment. */
const SET: Readonly<Record<string, string>> = { ip: '127.0.0.1' }

function fileEntry(name: string, entry: Entry, indent: string): string[] {
  const comment = wrap(
    `${entry.doc}${entry.form === 'setting' ? ` (${entry.kind.brief})` : ''}`,
    `${indent}# `,
  )
  if (entry.form === 'setting') {
    const value = SET[name]
    const line =
      value !== undefined
        ? `${name} = ${value}`
        : entry.suffix !== undefined
          ? `#${entry.example}`
          : `#${name} = ${entry.initial ?? entry.example}`
    return [...comment, indent + line, '']
  }
  const inner = Object.entries<Entry>(entry.entries)
    .filter(([, { inactive }]) => inactive === undefined)
    .flatMap(named => fileEntry(...named, `${indent}  `))
  const off = name === 'collector' ? '' : '#'
  return [...comment, `${indent}${off}${name} {`, ...inner.slice(0, -1), `${indent}${off}}`, '']
}

function blockSection(name: string, block: AnyBlock): string[] {
  const names = [name, ...(block.also ?? [])].map(one => code(`${one} { }`)).join(', ')
  return [
    `## ${names}`,
    '',
    ...wrap(`${block.doc}${effect(block)}`, ''),
    '',
    ...(Object.keys(block.entries).length === 0 ? ['It has no settings.', ''] : table(block.entries)),
  ]
}

function table(entries: Entries): string[] {
  const shown = Object.entries<Entry>(entries).filter(([, { deprecated }]) => deprecated === undefined)
  const rows = shown.map(([name, entry]) => {
    if (entry.form === 'block')
      return entries === settings ? [] : [row(code(`${name} { dev = … }`), 'block', '', entry.doc)]
    const names = [entry.suffix === undefined ? name : `${name}<${entry.suffix}>`, ...(entry.also ?? [])]
    const initial = entry.initial === undefined ? '' : code(entry.initial)
    const example = entry.example === undefined ? '' : ` Example: ${code(entry.example)}.`
    return [row(names.map(code).join(', '), entry.kind.brief, initial, entry.doc + example + effect(entry))]
  })
  return ['| setting | value | default | meaning |', '|---|---|---|---|', ...rows.flat(), '']
}

function effect({ ours, inactive }: Entry): string {
  return `${ours ? ' **weir**.' : ''}${inactive === undefined ? '' : ` **No effect**: ${inactive}.`}`
}

function row(...cells: readonly string[]): string {
  return `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function code(text: string): string {
  return `\`${text}\``
}

/** Breaks text into lines, each with `lead` in front. */
function wrap(text: string, lead: string): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && lead.length + line.length + 1 + word.length > WIDTH) {
      lines.push(lead + line)
      line = word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  return [...lines, lead + line]
}
