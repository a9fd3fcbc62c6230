import { closeSync, constants, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { hostname } from 'node:os'
import type { Config } from './config/config.ts'

/** The run-time settings file of hsflowd, which other programs on the host read to send sFlow as the agent does. */

export const AUTO_FILE = '/etc/hsflowd.auto'

/** What holds now. */
export interface RunningSettings {
  readonly config: Config
  /** The agent address and its interface, as far as there are any. */
  readonly address: string | undefined
  readonly device: string | undefined
  /** Numeric address of each collector; undefined where its name is not resolved. */
  readonly collectorAddresses: readonly (string | undefined)[]
}

/**
 * The lines between `rev_start` and `rev_end`, in hsflowd's order; none while there is nobody to send to, or no address
 * to send as.
 */
export function settingsLines({ config, address, device, collectorAddresses }: RunningSettings): string[] {
  if (config.collectors.length === 0 || address === undefined) return []
  const { agent, external } = config
  const collectors = config.collectors.map(({ host, port, device, namespace }, i) => {
    const ip = collectorAddresses[i] ?? host
    if (device !== undefined || namespace !== undefined) {
      return `collector=${ip}/${port}/${device ?? ''}/${namespace ?? ''}`
    }
    return port === 6343 ? `collector=${ip}` : `collector=${ip} ${port}`
  })
  const line = (name: string, value: string | number | undefined) =>
    value === undefined ? [] : [`${name}=${value}`]
  return [
    `hostname=${hostname()}`,
    `sampling=${config.sampling.rate}`,
    `header=${config.headerBytes}`,
    `datagram=${config.datagramBytes}`,
    `polling=${config.polling.seconds}`,
    ...external.flatMap(({ name, sampling, polling }) => [
      ...line(`sampling.${name}`, sampling),
      ...line(`polling.${name}`, polling),
    ]),
    ...line('agentIP', agent.address),
    ...line('agent', agent.device),
    ...collectors.sort(),
    ...(agent.address === undefined ? line('agentIP', address) : []),
    ...(agent.device === undefined ? line('agent', device) : []),
    ...line('jsonPort', config.json?.port || undefined),
    'ds_index=1',
  ]
}

/**
 * The file while the agent runs. It is written in place and stays the same file, so that who has it open sees the
 * change; a reader that finds different revisions at its start and end has read in between.
 */
export class AutoFile {
  /** The agent address that the file told before. */
  readonly previousAddress: string | undefined
  readonly #descriptor: number
  #revision = 0
  #lines = ''

  /** Opens the file and empties it. */
  constructor(path: string) {
    this.#descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o644)
    this.previousAddress = /^agentIP=(.+)$/m.exec(readFileSync(this.#descriptor, 'utf8'))?.[1]
    ftruncateSync(this.#descriptor)
  }

  /** Writes the file if what holds now is not what it says. */
  update(settings: RunningSettings): void {
    const lines = settingsLines(settings)
      .map(line => `${line}\n`)
      .join('')
    if (lines === this.#lines && this.#revision > 0) return
    this.#lines = lines
    this.#revision++
    const text = `# Written by weir while it runs: do not edit.\nrev_start=${this.#revision}\n${lines}rev_end=${this.#revision}\n`
    const bytes = new TextEncoder().encode(text)
    writeSync(this.#descriptor, bytes, 0, bytes.length, 0)
    ftruncateSync(this.#descriptor, bytes.length)
  }

  close(): void {
    closeSync(this.#descriptor)
  }
}
