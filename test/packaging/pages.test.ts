/** Man pages and shell completion, read by the programs that they are for. */

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Command } from 'commander'
import { type Entries, namesIn, settings } from '../../agent/config/settings.ts'
import { weirProgram } from '../../agent/program.ts'
import { writeCompletions } from '../../packaging/completion.ts'
import { writeManPages } from '../../packaging/man.ts'

const folder = mkdtempSync(join(tmpdir(), 'weir-pages-'))
after(() => rmSync(folder, { recursive: true }))

describe('man pages', () => {
  let pages: string[]
  let commands: readonly Command[]
  before(async () => {
    pages = await writeManPages(folder)
    commands = (await weirProgram()).commands
  })

  test('mandoc finds no fault in them, of style either', () => {
    for (const name of pages) {
      const { stdout, status } = spawnSync('mandoc', ['-T', 'lint', '-W', 'style', name], {
        cwd: folder,
        encoding: 'utf8',
      })
      assert.equal(stdout, '', name)
      assert.equal(status, 0, name)
    }
  })

  /** The page as text on a terminal that is wide enough to break no line. */
  const shown = (name: string) =>
    execFileSync('mandoc', ['-T', 'utf8', '-O', 'width=1000', join(folder, name)], { encoding: 'utf8' })
      // Bold and underlined characters are struck twice.
      .replace(/.[\b]/gu, '')

  test('there is one for each command, with each of its options', () => {
    for (const command of commands) {
      const text = shown(`weir-${command.name()}.8`)
      for (const { long } of command.options) assert.ok(text.includes(long!), `${command.name()} ${long}`)
      assert.match(text, /\nEXIT STATUS\n/)
      assert.match(shown('weir.8'), new RegExp(`^ +${command.name()}( |$)`, 'm'))
    }
  })

  test('weir.conf(5) has every name, and the language as it is', () => {
    const text = shown('weir.conf.5')
    const check = (entries: Entries) => {
      for (const name of namesIn(entries)) assert.ok(text.includes(name), name)
      for (const entry of Object.values(entries)) if (entry.form === 'block') check(entry.entries)
    }
    check(settings)
    assert.ok(
      text.includes('dent { switchport = "^(eth|swp)[0-9]{1,3}$" }'),
      'no character is lost on the way',
    )
  })

  test('their date may be set, for builds that are the same each time', async () => {
    const before = process.env.SOURCE_DATE_EPOCH
    process.env.SOURCE_DATE_EPOCH = '86400'
    await writeManPages(join(folder, 'again'))
    if (before === undefined) delete process.env.SOURCE_DATE_EPOCH
    else process.env.SOURCE_DATE_EPOCH = before
    assert.match(readFileSync(join(folder, 'again/weir.8'), 'utf8'), /^\.TH "WEIR" 8 "1970-01-02"/m)
  })
})

describe('completion', () => {
  before(() => writeCompletions(folder))

  const rows: [line: string, whole: readonly string[]][] = [
    ['weir exp', ['explain']],
    ['weir --ver', ['--version']],
    ['weir run --log-level tra', ['trace']],
    ['weir check --js', ['--json']],
    ['weir explain l', ['lo']],
    ['weir decode /etc/host', ['/etc/host.conf', '/etc/hostname', '/etc/hosts']],
    ['weir explain --diff /etc/hostn', ['/etc/hostname']],
    ['weir demo x', []],
    ['weir help exp', ['explain']],
    ['weir run --log-level=', ['error', 'info', 'trace']],
    ['weir run --log-level=tra', ['trace']],
    ['weir check --file=/etc/hostn', ['/etc/hostname']],
    ['weir status --socket /etc/hostn', ['/etc/hostname']],
    ['weir top --socket /etc/hostn', ['/etc/hostname']],
    ['weir run --control /etc/hostn', ['/etc/hostname']],
    ['weir doctor --root /etc/hostn', ['/etc/hostname']],
  ]
  for (const [line, whole] of rows) {
    test(`bash: ${line}`, () => {
      // As readline splits it.
      const words = line.split(/ |(?==)|(?<==)(?=.)/)
      const script = `compopt() { :; }; . "$0"; COMP_WORDS=("$@"); COMP_CWORD=${words.length - 1}; _weir; printf '%s\\n' "\${COMPREPLY[@]}"`
      const { stdout, stderr } = spawnSync('bash', ['-c', script, join(folder, 'weir'), ...words], {
        encoding: 'utf8',
      })
      assert.equal(stderr, '')
      const found = stdout.split('\n').filter(word => word !== '')
      // A machine has other files and interfaces besides.
      for (const word of whole.length === 0 ? found : whole)
        assert.ok(whole.includes(word) && found.includes(word), stdout)
    })
  }

  test('zsh, on a terminal', () => {
    const script = `
      zmodload zsh/zpty
      zpty shell zsh -f -i
      zpty -w shell "PS1=; stty -echo; fpath=($1 \\$fpath); autoload -Uz compinit && compinit -u -D; bindkey '^I' complete-word"
      zpty -w shell "echo REA''DY"
      zpty -r shell text '*READY*'
      # Each waits until the shell shows it whole.
      complete() { zpty -n -w shell "$1"$'\t'; zpty -r shell text "*$2*" && print -r -- "$2"; zpty -n -w shell $'\x15' }
      complete 'weir exp' 'weir explain'
      complete 'weir run --log-level tra' '--log-level trace'
      complete 'weir explain --di' 'weir explain --diff'
      complete 'weir run --log-level=tra' '--log-level=trace'
      complete 'weir help exp' 'weir help explain'
      complete 'weir status --socket /etc/hostn' '/etc/hostname'
      complete 'weir doctor --root=/etc/hostn' '/etc/hostname'
      zpty -d shell`
    const { stdout } = spawnSync('zsh', ['-f', '-c', script, 'zsh', folder], {
      encoding: 'utf8',
      timeout: 60_000,
    })
    const expected = [...script.matchAll(/^ +complete '.*' '(.*)'$/gm)].map(([, whole]) => `${whole}\n`)
    assert.equal(stdout, expected.join(''))
  })
})
