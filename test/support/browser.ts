/** A browser without a window, led by the Chrome DevTools Protocol. It is ended with the test. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Scope, until } from './lab.ts'

/** Debian's name of the program. */
export const CHROMIUM = '/usr/bin/chromium'

export interface Look {
  readonly width: number
  readonly height: number
  readonly dark: boolean
  readonly phone?: boolean
}

export class Browser {
  readonly #socket: WebSocket
  readonly #waiting = new Map<
    number,
    { resolve: (result: unknown) => void; reject: (error: Error) => void }
  >()
  /** What the page has told on its console, and what the browser has refused to load. */
  readonly messages: string[] = []
  #number = 0

  static get isInstalled(): boolean {
    return existsSync(CHROMIUM)
  }

  /** Starts a browser with one empty page. */
  static async start(scope: Scope): Promise<Browser> {
    const folder = mkdtempSync(join(tmpdir(), 'weir-chromium-'))
    const child = spawn(
      CHROMIUM,
      [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--disable-dev-shm-usage',
        '--remote-debugging-port=0',
        `--user-data-dir=${folder}`,
        'about:blank',
      ],
      { stdio: 'ignore', detached: true },
    )
    scope.after(async () => {
      // With its helpers, which are its group.
      if (child.exitCode === null && child.signalCode === null) {
        process.kill(-child.pid!, 'SIGKILL')
        await once(child, 'close')
      }
      rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
    })
    const file = join(folder, 'DevToolsActivePort')
    // The port, and a path on the second line.
    const port = await until('browser', () => {
      return existsSync(file) ? /^(\d+)\n/.exec(readFileSync(file, 'utf8'))?.[1] : undefined
    })
    const pages = await until('page of the browser', async () => {
      const response = await fetch(`http://127.0.0.1:${port}/json/list`)
      const list = (await response.json()) as { type: string; webSocketDebuggerUrl: string }[]
      return list.find(({ type }) => type === 'page')
    })
    const socket = new WebSocket(pages.webSocketDebuggerUrl)
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve)
      socket.addEventListener('error', () => reject(new Error('the browser does not answer')))
    })
    const browser = new Browser(socket)
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await browser.command(`${domain}.enable`)
    return browser
  }

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.addEventListener('message', ({ data }) => this.#take(String(data)))
  }

  command<T = unknown>(method: string, params: object = {}): Promise<T> {
    const id = ++this.#number
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (result: unknown) => void, reject })
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
  }

  async open(url: string, { width, height, dark, phone = false }: Look): Promise<void> {
    await this.command('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: phone,
    })
    // A picture of the whole page has none, and would be narrower than what was laid out.
    await this.command('Emulation.setScrollbarsHidden', { hidden: true })
    const features = [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]
    await this.command('Emulation.setEmulatedMedia', { features })
    await this.command('Page.navigate', { url })
  }

  /** The value of an expression in the page. */
  async value<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.command<{
      result: { value: T }
      exceptionDetails?: { text: string }
    }>('Runtime.evaluate', { expression, returnByValue: true })
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${exceptionDetails.text}`)
    return result.value
  }

  /** A picture of the page, PNG. */
  async picture(whole = false): Promise<Buffer> {
    const { data } = await this.command<{ data: string }>('Page.captureScreenshot', {
      format: 'png',
      captureBeyondViewport: whole,
    })
    return Buffer.from(data, 'base64')
  }

  #take(text: string): void {
    const message = JSON.parse(text) as {
      id?: number
      result?: unknown
      error?: { message: string }
      method?: string
      params?: Record<string, { text?: string; url?: string }>
    }
    if (message.id !== undefined) {
      const waiting = this.#waiting.get(message.id)
      this.#waiting.delete(message.id)
      if (message.error === undefined) waiting?.resolve(message.result)
      else waiting?.reject(new Error(message.error.message))
    } else if (message.method === 'Log.entryAdded') {
      this.messages.push(message.params!.entry!.text ?? '')
    } else if (message.method === 'Runtime.exceptionThrown') {
      this.messages.push(JSON.stringify(message.params!.exceptionDetails))
    } else if (message.method === 'Network.requestWillBeSent') {
      this.requests.push(message.params!.request!.url ?? '')
    }
  }

  /** Addresses that were asked for. */
  readonly requests: string[] = []
}
