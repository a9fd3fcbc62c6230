/**
 * Writes what completes the words of a weir command line, from the tree of commands: `weir` for bash (into
 * /usr/share/bash-completion/completions), `_weir` for zsh (into /usr/share/zsh/vendor-completions).
 *
 *     node packaging/completion.ts FOLDER
 */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { weirProgram } from '../agent/program.ts'

/** What a command takes. */
interface Completed {
  readonly name: string
  readonly about: string
  readonly options: readonly CompletedOption[]
  readonly argument: Words | undefined
}

interface CompletedOption {
  /** `-f`, `--file`. */
  readonly flags: readonly string[]
  readonly about: string
  /** Undefined when it takes no value. */
  readonly value: Words | undefined
}

const HELP = 'display help for command'

/** Names of values that are paths. */
const PATHS = ['file', 'folder', 'path', 'socket']

/** What may stand at a place. */
type Words = 'files' | 'interfaces' | 'anything' | readonly string[]

/** Writes both files into a folder, and returns their names. */
export async function writeCompletions(folder: string): Promise<string[]> {
  const program = await weirProgram()
  const commands = program.commands.filter(command => command.name() !== 'help').map(completed)
  commands.push({ name: 'help', about: HELP, options: [], argument: commands.map(({ name }) => name) })
  const whole = { ...completed(program), name: 'weir' }
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'weir'), bash(whole, commands))
  writeFileSync(join(folder, '_weir'), zsh(whole, commands))
  return ['weir', '_weir']
}

function completed(command: Command): Completed {
  const options = command
    .createHelp()
    .visibleOptions(command)
    .map(({ short, long, description, argChoices, required, optional, flags }) => ({
      flags: [short, long].filter(flag => flag !== undefined),
      about: description,
      value: !required && !optional ? undefined : (argChoices ?? wordsOf(/[<[](.+)[>\]]/.exec(flags)?.[1])),
    }))
  const [argument] = command.registeredArguments
  return {
    name: command.name(),
    about: command.summary() || command.description(),
    options,
    argument: argument && (argument.argChoices ?? wordsOf(argument.name())),
  }
}

function wordsOf(name: string | undefined): Words {
  return PATHS.includes(name ?? '') ? 'files' : name === 'interface' ? 'interfaces' : 'anything'
}

function bash(program: Completed, commands: readonly Completed[]): string {
  const cases = [program, ...commands].flatMap(({ name, options, argument }) => [
    `    ${name === program.name ? "''" : name})`,
    ...bashValues(options),
    `      options=${quote(options.flatMap(({ flags }) => flags).join(' '))}`,
    `      ${name === program.name ? bashWords(commands.map(one => one.name)) : bashWords(argument ?? [])}`,
    '      ;;',
  ])
  return `# Completion of weir's command lines in bash. Made by packaging/completion.ts.
_weir() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} command= options=
  COMPREPLY=()
  # --option=value: readline has made three words of it, and the value may be empty.
  [[ $word != = ]] || word=
  [[ $before != = ]] || before=\${COMP_WORDS[COMP_CWORD - 2]}
  ((COMP_CWORD > 1)) && command=\${COMP_WORDS[1]}
  case $command in
${cases.join('\n')}
  esac
  [[ $word != -* ]] || mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}
complete -F _weir weir
`
}

/** What completes the value of the option that stands before. */
function bashValues(options: readonly CompletedOption[]): string[] {
  const valued = options.filter(option => option.value !== undefined)
  if (valued.length === 0) return []
  return [
    '      case $before in',
    ...valued.map(({ flags, value }) => `        ${flags.join(' | ')}) ${bashWords(value!)}; return ;;`),
    '      esac',
  ]
}

function bashWords(words: Words): string {
  if (words === 'anything' || words.length === 0) return ':'
  if (words === 'files') return 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word")'
  if (words === 'interfaces') return 'mapfile -t COMPREPLY < <(cd /sys/class/net && compgen -G "$word*")'
  return `mapfile -t COMPREPLY < <(compgen -W ${quote(words.join(' '))} -- "$word")`
}

function zsh(program: Completed, commands: readonly Completed[]): string {
  const described = commands.map(
    ({ name, about }) => `      ${quote(`${name}:${about.replaceAll(':', '\\:')}`)}`,
  )
  const cases = commands.map(({ name, options, argument }) => {
    const specs = options.map(zshOption)
    if (argument !== undefined) specs.push(quote(`*:${zshWords('argument', argument)}`))
    return `    ${name})\n      _arguments -s \\\n${specs.map(spec => `        ${spec}`).join(' \\\n')}\n      ;;`
  })
  return `#compdef weir
# Completion of weir's command lines in zsh. Made by packaging/completion.ts.
_weir() {
  local -a commands
  if ((CURRENT == 2)); then
    if [[ \${words[2]} == -* ]]; then
      _arguments -s \\
${program.options.map(one => `        ${zshOption(one)}`).join(' \\\n')}
      return
    fi
    commands=(
${described.join('\n')}
    )
    _describe command commands
    return
  fi
  local command=\${words[2]}
  shift words
  ((CURRENT--))
  case $command in
${cases.join('\n')}
  esac
}
_weir "$@"
`
}

function zshOption({ flags, about, value }: CompletedOption): string {
  const text = about.replace(/[[\]:\\]/g, '\\$&')
  const what = value === undefined ? '' : `:${zshWords('value', value)}`
  const excluded = flags.length > 1 ? `(${flags.join(' ')})` : ''
  // With a value in the same word, too.
  const same = (flag: string) => (value !== undefined && flag.startsWith('--') ? '=' : '')
  return flags.map(flag => quote(`${excluded}${flag}${same(flag)}[${text}]${what}`)).join(' ')
}

function zshWords(what: string, words: Words): string {
  if (words === 'files') return 'file:_files'
  if (words === 'interfaces') return 'interface:_net_interfaces'
  return words === 'anything' ? `${what}: ` : `${what}:(${words.join(' ')})`
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

if (import.meta.main) {
  const [folder] = process.argv.slice(2)
  if (folder === undefined) {
    console.error('usage: node packaging/completion.ts FOLDER')
    process.exit(2)
  }
  for (const name of await writeCompletions(folder)) console.log(`wrote ${join(folder, name)}`)
}
