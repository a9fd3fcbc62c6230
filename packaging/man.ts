/**
 * Writes the man pages: weir(8) and one for each command from the tree of commands, weir.conf(5) from the table of
 * settings.
 *
 *     node packaging/man.ts FOLDER
 */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { AUTO_FILE } from '../agent/auto-file.ts'
import { PID_FILE } from '../agent/command/pid-file.ts'
import { DEFAULT_FILES } from '../agent/config/load.ts'
import { INTRODUCTION } from '../agent/config/reference.ts'
import { type Block, type Entries, type Setting, settings } from '../agent/config/settings.ts'
import { weirProgram } from '../agent/program.ts'
import { version } from '../agent/version.ts'
import { bold, heading, italic, item, markdown, page, prose, roff, subheading, verbatim } from './roff.ts'

type Entry = Entries[string]

/** Writes all pages into a folder, and returns their names. */
export async function writeManPages(folder: string): Promise<string[]> {
  const program = await weirProgram()
  const release = { version, date: releaseDate() }
  const commands = program.commands.filter(command => command.name() !== 'help')
  const pages = new Map([
    [
      'weir.8',
      page('weir', 8, program.description().split(':')[0]!, programBody(program, commands), release),
    ],
    [
      'weir.conf.5',
      page('weir.conf', 5, 'configuration of the weir sFlow agent', configurationBody(), release),
    ],
    ...commands.map(command => {
      const name = `weir-${command.name()}`
      return [`${name}.8`, page(name, 8, summaryOf(command), commandBody(command), release)] as const
    }),
  ])
  mkdirSync(folder, { recursive: true })
  for (const [name, text] of pages) writeFileSync(join(folder, name), text)
  return [...pages.keys()]
}

/** The day of the build, which who builds again may set (reproducible-builds.org). */
function releaseDate(): string {
  const { SOURCE_DATE_EPOCH } = process.env
  const day = SOURCE_DATE_EPOCH === undefined ? new Date() : new Date(Number(SOURCE_DATE_EPOCH) * 1000)
  return day.toISOString().slice(0, 10)
}

function summaryOf(command: Command): string {
  return command.summary() || command.description()
}

function programBody(program: Command, commands: readonly Command[]): string[] {
  return [
    heading('Synopsis'),
    `${bold('weir')} ${italic('command')} [${italic('argument')} ...]`,
    heading('Description'),
    ...markdown(
      `${program.description()}. It samples what the kernel, the switch hardware behind it or BPF sees, follows the counters
of interfaces and host, and sends all of it to sFlow collectors. It takes the configuration of hsflowd as it is.

Each command has a page of its own.`,
    ),
    heading('Commands'),
    ...commands.flatMap(command =>
      item(bold(command.name()), [
        `${roff(sentence(summaryOf(command)))}`,
        `See ${bold(`weir-${command.name()}`)}(8).`,
      ]),
    ),
    heading('Options'),
    ...options(program),
    heading('Files'),
    ...files(),
    heading('Signals'),
    ...prose('They are for the agent, `weir run`:'),
    ...item(bold('SIGHUP'), prose('Takes the configuration again, if it is right; see `weir reload`.')),
    ...item(bold('SIGUSR1'), prose('Writes what was sent and what was lost to the log.')),
    ...item(
      `${bold('SIGTERM')}, ${bold('SIGINT')}`,
      prose('Sends what is waiting, takes everything of its own out of the kernel and ends.'),
    ),
    heading('Exit status'),
    ...prose(
      '0 when all is well, 1 when the command failed; the page of a command tells what else there is.',
    ),
    ...seeAlso(['weir.conf(5)', ...commands.map(command => `weir-${command.name()}(8)`)]),
  ]
}

function commandBody(command: Command): string[] {
  const { description, status } = helpAfter(command)
  return [
    heading('Synopsis'),
    `${bold(`weir ${command.name()}`)} ${roff(command.usage())}`,
    heading('Description'),
    ...markdown(sentence(command.description())),
    ...description,
    ...(command.registeredArguments.length === 0 ? [] : [heading('Arguments'), ...args(command)]),
    heading('Options'),
    ...options(command),
    heading('Exit status'),
    ...prose(status),
    ...seeAlso(['weir(8)', 'weir.conf(5)']),
  ]
}

/** What a command's help says behind its options: paragraphs, lists that are indented, and the exit status. */
function helpAfter(command: Command): { description: string[]; status: string } {
  let all = ''
  command.configureOutput({ writeOut: text => (all += text) })
  command.outputHelp()
  const text = all.slice(all.indexOf(command.helpInformation()) + command.helpInformation().length)
  let status = '0, or 1 when the command failed.'
  const description: string[] = []
  for (const paragraph of text.trim().split(/\n\n+/)) {
    const [, told] = /^Exit status: (.+)$/s.exec(paragraph) ?? []
    const [first = '', ...rest] = paragraph.split('\n')
    if (told !== undefined) status = told.replace(/\s+/g, ' ')
    else if (/^[A-Z].*:$/.test(first) && rest.length > 0 && rest.every(line => line.startsWith('  '))) {
      description.push('.PP', ...prose(first), ...verbatim(rest.map(line => line.slice(2)).join('\n')))
    } else if (paragraph !== '') description.push('.PP', ...prose(paragraph.replace(/\s+/g, ' ')))
  }
  return { description, status }
}

function options(command: Command): string[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .flatMap(({ flags, description, argChoices, defaultValue }) => {
      const more = [
        ...(argChoices === undefined ? [] : [`one of ${argChoices.join(', ')}`]),
        ...(defaultValue === undefined ? [] : [`default: ${defaultValue}`]),
      ]
      const [, names, value = ''] = /^(.*?)( [<[].+)?$/.exec(flags)!
      const text = `${sentence(description)}${more.length === 0 ? '' : ` (${more.join('; ')})`}`
      return item(
        `${names!.split(', ').map(bold).join(', ')}${value === '' ? '' : ` ${italic(value.trim().slice(1, -1))}`}`,
        prose(text),
      )
    })
}

function args(command: Command): string[] {
  return command.registeredArguments.flatMap(one =>
    item(italic(one.name()), prose(sentence(one.description))),
  )
}

function files(): string[] {
  return [
    ...item(
      DEFAULT_FILES.map(italic).join(', '),
      prose(
        'The configuration: the first of them that exists, unless an option names another. See `weir.conf`(5).',
      ),
    ),
    ...item(italic(AUTO_FILE), prose('Settings in force, for other programs on the host.')),
    ...item(italic(PID_FILE), prose('Names the running agent for `weir reload`.')),
  ]
}

function configurationBody(): string[] {
  const entries = Object.entries<Entry>(settings)
  const blocks = entries.filter(([, entry]) => entry.form === 'block')
  return [
    heading('Description'),
    ...markdown(INTRODUCTION),
    heading('Settings of the agent'),
    ...entries.filter(([, entry]) => entry.form === 'setting' && !entry.deprecated).flatMap(setting),
    heading('Blocks'),
    ...blocks.flatMap(([name, entry]) => {
      const block = entry as Block<Entries, boolean>
      return [
        subheading([name, ...(block.also ?? [])].map(one => `${one} { }`).join(', ')),
        ...markdown(block.doc + effect(block)),
        ...Object.entries<Entry>(block.entries).flatMap(setting),
      ]
    }),
    heading('Old forms'),
    ...prose('They are accepted, with a warning.'),
    ...entries
      .filter(([, entry]) => entry.form === 'setting' && entry.deprecated)
      .flatMap(([name, entry]) => item(bold(name), prose(sentence(entry.deprecated!)))),
    heading('Files'),
    ...files(),
    ...seeAlso(['weir(8)', 'weir-check(8)', 'weir-explain(8)', 'weir-reload(8)']),
  ]
}

function setting([name, entry]: readonly [string, Entry]): string[] {
  if (entry.form === 'block') {
    const names = Object.keys(entry.entries).join(', ')
    return item(bold(`${name} { }`), prose(`${entry.doc} Holds ${names}.`))
  }
  const { kind, initial, example, suffix, also = [] } = entry as Setting<unknown>
  const names = [suffix === undefined ? bold(name) : `${bold(name)}${italic(suffix)}`, ...also.map(bold)]
  const facts = [
    kind.brief,
    ...(initial === undefined ? [] : [`default \`${initial}\``]),
    ...(example === undefined ? [] : [`for example \`${example}\``]),
  ]
  return item(names.join(', '), prose(`${entry.doc}${effect(entry)} (${facts.join('; ')})`))
}

function effect({ ours, inactive }: Entry): string {
  return `${ours ? ' Not known to hsflowd.' : ''}${inactive === undefined ? '' : ` No effect: ${inactive}.`}`
}

function seeAlso(pages: readonly string[]): string[] {
  const named = pages.map(one =>
    one.replace(/^(.+)\((\d)\)$/, (_, name, section) => `${bold(name)}(${section})`),
  )
  return [heading('See also'), ...named.map((one, i) => (i < named.length - 1 ? `${one},` : one))]
}

/** With a capital and a full stop. */
function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?)]$/.test(first) ? first : `${first}.`
}

if (import.meta.main) {
  const [folder] = process.argv.slice(2)
  if (folder === undefined) {
    console.error('usage: node packaging/man.ts FOLDER')
    process.exit(2)
  }
  for (const name of await writeManPages(folder)) console.log(`wrote ${join(folder, name)}`)
}
