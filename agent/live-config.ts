import { stat } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Config } from './config/config.ts'
import { differences, formatDifference, saysTheSame } from './config/differences.ts'
import { type Discovered, Discovery, withDiscovered } from './config/dns-sd.ts'
import { loadConfigFile } from './config/load.ts'
import type { Problem } from './config/problem.ts'
import type { Logger } from './health/log.ts'
import { isReplaced } from './kernel/processes.ts'

/** What the agent starts with, before DNS is asked. */
export function initialConfig(config: Config): Config {
  return config.discovery === undefined ? config : withDiscovered(config, undefined, () => {})
}

/** A watched file is looked at this often; it is read when it has stayed the same for once. */
const LOOK_MS = 1000

export interface LiveConfigOptions {
  /** What the file says. */
  readonly config: Config
  /** The text that it was read from. */
  readonly text: string
  readonly log: Logger
  /** Takes each configuration that differs from the one before, and the same again when the file was read again. */
  readonly onChange: (config: Config) => void
}

/**
 * The configuration while the agent runs: what the file says, read again when asked, or when it changes and says
 * `watch = on`; and what DNS says, if the file wants it.
 */
export class LiveConfig {
  readonly #file: string
  readonly #log: Logger
  readonly #onChange: (config: Config) => void
  /** What the file says, and what holds. */
  #config: Config
  #effective: Config
  #discovery: Discovery | undefined
  #discovered: Discovered | undefined
  #text: string
  #looking: NodeJS.Timeout | undefined
  /** What tells versions of the file apart: of the one that was read, and of the one that the last look found. */
  #readVersion = ''
  #foundVersion = ''
  /** The end of all readings so far. */
  #reading: Promise<void> = Promise.resolve()

  constructor({ config, text, log, onChange }: LiveConfigOptions) {
    this.#config = config
    this.#effective = initialConfig(config)
    this.#text = text
    this.#file = config.file
    this.#log = log.child({ part: 'configuration' })
    this.#onChange = onChange
  }

  start(): void {
    this.#watch()
    this.#discover()
  }

  /** Reads the file again. One with errors is refused, and what holds now goes on. */
  reload(): Promise<void> {
    this.#reading = this.#reading.then(() => this.#read())
    return this.#reading
  }

  stop(): void {
    clearInterval(this.#looking)
    this.#discovery?.stop()
  }

  /** `isWatch`: nobody has asked, so that nothing is said of a file that has not changed. */
  async #read(isWatch = false): Promise<void> {
    if (this.#file === '<stdin>') {
      this.#log.error('standard input cannot be read again; name a file with -f')
      return
    }
    if (this.#isRefused()) return
    try {
      const { config, problems, text } = await loadConfigFile(this.#file)
      if (isWatch && text === this.#text) return
      this.#text = text
      for (const problem of problems) this.#tell(problem)
      if (config === undefined) this.#log.error(`${this.#file} has errors and is refused; nothing changes`)
      else this.#take(config)
    } catch (error) {
      this.#log.error(`${(error as Error).message}; nothing changes`)
    }
  }

  #tell({ severity, line, column, message }: Problem): void {
    this.#log[severity === 'error' ? 'error' : 'warn'](`${this.#file}:${line}:${column}: ${message}`)
  }

  #take(config: Config): void {
    const isOtherPlace = !isDeepStrictEqual(config.discovery, this.#config.discovery)
    this.#config = config
    this.#watch()
    if (isOtherPlace) this.#discover()
    if (this.#settle()) return
    this.#log.info(`${this.#file} was read again and says the same`)
    this.#onChange(this.#effective)
  }

  /** Looks up what the file wants looked up. */
  #discover(): void {
    this.#discovery?.stop()
    this.#discovery = undefined
    this.#discovered = undefined
    const { discovery } = this.#config
    if (discovery === undefined) return
    this.#discovery = new Discovery(discovery, this.#log, discovered => {
      if (discovered.targets.length === 0 && this.#discovered?.targets.length !== 0) {
        this.#log.warn('DNS names no collector: nothing is sent until it does')
      }
      this.#discovered = discovered
      this.#settle()
    })
    this.#discovery.start()
  }

  /** Makes what the file and DNS say hold; false when it is what held before. */
  #settle(): boolean {
    const isDiscovered = this.#config.discovery !== undefined
    const effective = isDiscovered
      ? withDiscovered(this.#config, this.#discovered, text => this.#log.warn(text))
      : this.#config
    const before = this.#effective
    const isSame = saysTheSame(before, effective)
    if (!isSame && this.#isRefused()) return true
    this.#effective = effective
    if (isSame) return false
    const changes = differences(before, effective)
    this.#log.info({ changes: changes.map(formatDifference) }, 'the configuration has changed')
    this.#onChange(effective)
    return true
  }

  /** What was replaced by an upgrade takes nothing new: it would load parts of the other version, as BPF programs. */
  #isRefused(): boolean {
    if (!isReplaced('self')) return false
    this.#log.error('the files of the agent have been replaced: restart it; nothing changes')
    return true
  }

  #watch(): void {
    const { watch } = this.#config
    if (watch === (this.#looking !== undefined) || this.#file === '<stdin>') return
    clearInterval(this.#looking)
    this.#looking = watch ? setInterval(() => void this.#look(), LOOK_MS).unref() : undefined
  }

  /**
   * stat(2) sees what inotify does not: a file behind a symbolic link, one on a network, one that comes back. A version
   * is read when the next look finds it too: until then somebody may be writing.
   */
  async #look(): Promise<void> {
    const { dev, ino, size, mtimeMs, ctimeMs } = await stat(this.#file).catch(() => NO_FILE)
    const version = [dev, ino, size, mtimeMs, ctimeMs].join()
    const isSettled = version === this.#foundVersion
    this.#foundVersion = version
    if (!isSettled || version === this.#readVersion || ino === 0) return
    this.#readVersion = version
    this.#reading = this.#reading.then(() => this.#read(true))
  }
}

/** A file that is away for a moment is no change. */
const NO_FILE = { dev: 0, ino: 0, size: 0, mtimeMs: 0, ctimeMs: 0 }
