/** The terminal itself: taken over when it is opened, and given back as it was however the program ends. */

import { writeSync } from 'node:fs'
import type { ReadStream, WriteStream } from 'node:tty'
import { keysOf } from './keys.ts'
import { ansi, type Line } from './lines.ts'
import type { Size } from './screen.ts'

/** Another screen with its own cursor, which does not show; long lines are cut (xterm control sequences, DECAWM). */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J'
const LEAVE = '\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l'
/** A single escape key is told from the begin of a sequence by what comes in this time, which is long for a slow line. */
const ESCAPE_MS = 50

/** A terminal to write to; its descriptor takes what has to be written at once. */
export type Output = WriteStream & { readonly fd: number }

export interface TerminalEvents {
  onKey(key: string): void
  onResize(): void
  /** The terminal is gone, or a signal asks to end. */
  onEnd(): void
}

export class Terminal {
  readonly #input: ReadStream
  readonly #output: Output
  readonly #events: TerminalEvents
  readonly #colours: boolean
  /** What stands on each line. */
  #shown: string[] = []
  #isOpen = false
  #typed = ''
  #escape: NodeJS.Timeout | undefined

  constructor(input: ReadStream, output: Output, colours: boolean, events: TerminalEvents) {
    this.#input = input
    this.#output = output
    this.#colours = colours
    this.#events = events
  }

  get size(): Size {
    return { columns: this.#output.columns || 80, rows: this.#output.rows || 24 }
  }

  open(): void {
    process.on('exit', this.#restore)
    process.on('uncaughtExceptionMonitor', this.#restore)
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, this.#end)
    process.on('SIGCONT', this.#continue)
    this.#input.on('data', this.#take)
    this.#input.on('end', this.#end)
    this.#input.on('error', this.#end)
    this.#output.on('error', this.#end)
    this.#output.on('resize', this.#resize)
    this.#enter()
  }

  /** Gives the terminal back. */
  close(): void {
    this.#restore()
    clearTimeout(this.#escape)
    process.off('exit', this.#restore)
    process.off('uncaughtExceptionMonitor', this.#restore)
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, this.#end)
    process.off('SIGCONT', this.#continue)
    this.#input.off('data', this.#take)
    this.#output.off('resize', this.#resize)
    this.#input.pause()
  }

  /** Shows the lines; only those that have changed are written. A terminal that is behind misses some screens. */
  draw(lines: readonly Line[]): void {
    if (!this.#isOpen || this.#output.writableNeedDrain) return
    let text = ''
    for (const [i, line] of lines.entries()) {
      const shown = ansi(line, this.#colours)
      if (shown === this.#shown[i]) continue
      // Erased first: at the end of a full line the cursor stands on its last character.
      text += `\x1b[${i + 1};1H\x1b[2K${shown}`
      this.#shown[i] = shown
    }
    this.#shown.length = lines.length
    if (text !== '') this.#output.write(text)
  }

  /** Everything is written again: something else may have written over it. */
  redraw(): void {
    this.#shown = []
    if (this.#isOpen) this.#output.write('\x1b[2J')
  }

  /** Stops the program as Ctrl-Z does, with the terminal as it was; `fg` goes on. */
  suspend(): void {
    this.#restore()
    // All of the job: npx or a shell may have started it.
    process.kill(0, 'SIGTSTP')
  }

  #enter(): void {
    this.#isOpen = true
    this.#input.setRawMode(true)
    this.#input.resume()
    this.#shown = []
    this.#output.write(ENTER)
  }

  readonly #restore = (): void => {
    if (!this.#isOpen) return
    this.#isOpen = false
    try {
      this.#input.setRawMode(false)
    } catch {
      // It is gone.
    }
    try {
      // At once: the program may end here.
      writeSync(this.#output.fd, LEAVE)
    } catch {
      // Nobody sees it any more.
    }
  }

  readonly #continue = (): void => {
    this.#enter()
    this.#events.onResize()
  }

  readonly #end = (): void => this.#events.onEnd()

  readonly #resize = (): void => {
    this.redraw()
    this.#events.onResize()
  }

  readonly #take = (typed: Buffer | string): void => {
    clearTimeout(this.#escape)
    this.#typed += typed.toString()
    // The sequence of one key may come in two pieces.
    const begun = this.#typed.slice(this.#typed.lastIndexOf('\x1b') + 1)
    const isBegun = this.#typed.includes('\x1b') && /^(?:\[[0-9;]*|O)?$/.test(begun)
    if (isBegun) this.#escape = setTimeout(() => this.#tell(), ESCAPE_MS)
    else this.#tell()
  }

  #tell(): void {
    const typed = this.#typed
    this.#typed = ''
    for (const key of keysOf(typed)) this.#events.onKey(key)
  }
}
