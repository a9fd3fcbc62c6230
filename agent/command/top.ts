import { ReadStream, WriteStream } from 'node:tty'
import { Command, Option } from 'commander'
import { CONTROL_SOCKET } from '../control/protocol.ts'
import type { ListenAddress } from '../decode/input.ts'
import { counted } from '../quantities.ts'
import { AgentFeed, type Feed, FileFeed, UdpFeed } from '../top/feed.ts'
import { plainText } from '../top/lines.ts'
import { drawScreen, type Scene, type Size } from '../top/screen.ts'
import { type Choices, press, START, TABS, type Tab } from '../top/state.ts'
import { type Output, Terminal } from '../top/terminal.ts'
import { TrafficModel } from '../view/model.ts'
import { FLOW_KEYS } from '../view/rows.ts'
import { SFLOW_PORT } from '../wire/sflow/datagram.ts'
import { WireError } from '../wire/xdr.ts'
import { listenAddress, positive, udpPort } from './arguments.ts'

const HELP = `
Shows a running agent by its control socket; with --listen everything that agents send to a UDP port, as a small
collector; with a FILE a whole capture. Keys: ? tells them all.

Without a terminal, or with --print, one screen is written as plain text after --seconds.

NO_COLOR in the environment leaves colours out; a locale without UTF-8 (LC_ALL, LC_CTYPE, LANG) shows ASCII alone.`

interface Options {
  socket: string
  listen?: ListenAddress
  port: number
  window: number
  tab: Tab
  by: string
  print?: true
  seconds: number
}

/** Flows that are kept; about a kilobyte each. */
const MOST_FLOWS = 16_384
const DRAW_MS = 1000
const DEFAULT_WINDOW = 10

/** `weir top`: flows, drops, queues, interfaces and agents, live. */
export function topCommand(): Command {
  return new Command('top')
    .summary('flows, drops, queues and interfaces, live in the terminal')
    .description('Shows what an agent sees, live: flows, drops, queues and delays, interfaces, collectors.')
    .argument('[file]', 'pcap or pcapng capture with sFlow datagrams')
    .option('--socket <path>', "the agent's control socket", CONTROL_SOCKET)
    .option('-l, --listen <[address:]port>', 'receive datagrams on this UDP port instead', listenAddress)
    .option('-p, --port <port>', 'UDP port of sFlow in a capture', udpPort, SFLOW_PORT)
    .option('-w, --window <seconds>', 'what rates are averaged over', positive, DEFAULT_WINDOW)
    .addOption(new Option('-t, --tab <name>', 'what to show first').choices(TABS).default(TABS[0]))
    .addOption(
      new Option('-k, --by <key>', 'what flows are grouped by')
        .choices(FLOW_KEYS.map(({ name }) => name))
        .default(FLOW_KEYS[0]!.name),
    )
    .option('--print', 'write one screen as text, and end')
    .option('-s, --seconds <n>', 'with --print: look for so long', positive, DEFAULT_WINDOW)
    .addHelpText('after', HELP)
    .action(async (file: string | undefined, options: Options, command: Command) => {
      if (file !== undefined && options.listen !== undefined) {
        command.error('error: a file and --listen exclude each other')
      }
      process.exitCode = await top(file, options)
    })
}

async function top(file: string | undefined, options: Options): Promise<number> {
  const feed = feedOf(file, options)
  const windowMs = file === undefined ? options.window * 1000 : Number.POSITIVE_INFINITY
  const model = new TrafficModel({ windowMs, flows: MOST_FLOWS })
  const flowKey = FLOW_KEYS.findIndex(({ name }) => name === options.by)
  const look = new Look(feed, model, { ...START, tab: options.tab, flowKey }, file === undefined)
  try {
    const { stdin, stdout } = process
    if (options.print === true || !(stdin instanceof ReadStream && stdout instanceof WriteStream)) {
      await look.print(options.seconds)
      return look.understood() ? 0 : 1
    } else {
      await look.show(stdin, stdout)
    }
    return 0
  } catch (error) {
    const isExpected =
      error instanceof WireError ||
      (error instanceof Error && ('syscall' in error || error.name === 'NoAgentError'))
    if (!isExpected) throw error
    process.stderr.write(`weir top: ${error.message}\n`)
    return 1
  }
}

function feedOf(file: string | undefined, { listen, port, socket }: Options): Feed {
  if (file !== undefined) return new FileFeed(file, port)
  return listen === undefined ? new AgentFeed(socket) : new UdpFeed(listen)
}

/** The model, what is chosen, and where it is shown. */
class Look {
  readonly #feed: Feed
  readonly #model: TrafficModel
  readonly #isLive: boolean
  readonly #stop = new AbortController()
  readonly #unicode = isUtf8()
  #choices: Choices
  #list = { page: 1, count: 0 }
  #terminal: Terminal | undefined
  #drawing: NodeJS.Immediate | undefined

  constructor(feed: Feed, model: TrafficModel, choices: Choices, isLive: boolean) {
    this.#feed = feed
    this.#model = model
    this.#choices = choices
    this.#isLive = isLive
  }

  /** Until the user quits. Fails as the feed does, with the terminal given back. */
  async show(input: ReadStream, output: Output): Promise<void> {
    const { NO_COLOR: noColour, TERM: term } = process.env
    const colours = (noColour === undefined || noColour === '') && term !== 'dumb'
    const ended = new Promise<void>(resolve => {
      this.#terminal = new Terminal(input, output, colours, {
        onKey: key => {
          this.#press(key)
          if (this.#choices.quit) resolve()
        },
        onResize: () => this.#draw(),
        onEnd: resolve,
      })
    })
    const running = this.#feed.run(this.#model, this.#stop.signal)
    // What cannot be opened is told on the terminal as it is.
    await Promise.race([running, new Promise(resolve => setTimeout(resolve, 50))])
    this.#terminal!.open()
    const timer = setInterval(() => this.#draw(), DRAW_MS)
    this.#draw()
    try {
      const failed = running.then(() => {
        this.#draw()
        return ended
      })
      await Promise.race([ended, failed])
    } finally {
      clearInterval(timer)
      clearImmediate(this.#drawing)
      this.#terminal!.close()
      this.#stop.abort()
    }
    await running
  }

  /** One screen as text. */
  async print(seconds: number): Promise<void> {
    const timer = setTimeout(() => this.#stop.abort(), seconds * 1000)
    const abort = () => this.#stop.abort()
    process.once('SIGINT', abort).once('SIGTERM', abort)
    await this.#feed.run(this.#model, this.#stop.signal)
    clearTimeout(timer)
    process.off('SIGINT', abort).off('SIGTERM', abort)
    if (this.#isLive) this.#model.advance(performance.now())
    const columns =
      process.stdout instanceof WriteStream ? process.stdout.columns : Number(process.env.COLUMNS)
    const { lines } = drawScreen(this.#model, this.#scene({ columns: columns || 100, rows: 40 }))
    const texts = lines.slice(0, -1).map(line => plainText(line).trimEnd())
    process.stdout.write(`${texts.join('\n').trimEnd()}\n`)
  }

  /** False when something came and nothing of it was sFlow, or a file has none; it is told then. */
  understood(): boolean {
    const { statistics, malformed } = this.#model
    if (statistics.datagrams > 0 || (this.#isLive && malformed === 0)) return true
    const what =
      malformed > 0
        ? `${counted(malformed, 'datagram')}, and nothing of sFlow version 5; \`weir decode\` tells why`
        : this.#feed.note
    process.stderr.write(`weir top: ${this.#feed.from}: ${what}\n`)
    return false
  }

  #press(key: string): void {
    if (key === 'ctrl-l') this.#terminal!.redraw()
    if (key === 'ctrl-z') {
      this.#terminal!.suspend()
      return
    }
    const wasPaused = this.#choices.paused
    this.#choices = press(this.#choices, key, this.#list)
    if (this.#choices.paused !== wasPaused) this.#feed.hold(this.#choices.paused)
    // Many keys at once need one screen.
    this.#drawing ??= setImmediate(() => this.#draw())
  }

  #draw(): void {
    clearImmediate(this.#drawing)
    this.#drawing = undefined
    if (this.#isLive && !this.#choices.paused) this.#model.advance(performance.now())
    const screen = drawScreen(this.#model, this.#scene(this.#terminal!.size))
    this.#list = screen
    this.#terminal!.draw(screen.lines)
  }

  #scene(size: Size): Scene {
    const { from, collectors, note } = this.#feed
    const time = this.#isLive ? new Date().toTimeString().slice(0, 8) : ''
    return { choices: this.#choices, size, unicode: this.#unicode, from, time, collectors, note }
  }
}

function isUtf8(): boolean {
  const { LC_ALL: all, LC_CTYPE: type, LANG: lang } = process.env
  return /utf-?8/i.test(all || type || lang || '')
}
