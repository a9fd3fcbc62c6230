import type { ClientRequest, IncomingMessage } from 'node:http'
import type { ControlGroup } from '../kernel/cgroup.ts'
import {
  connectionError,
  type Found,
  groupsOf,
  mapSome,
  processStart,
  REQUEST_TIMEOUT_MS,
  type Runtime,
  STATE,
  seenHere,
} from './runtime.ts'
import { uuidOfContainer } from './uuid.ts'

/** The containers of Docker, or of what speaks its API (podman), over its Unix socket. */

export const DOCKER_SOCKET = '/var/run/docker.sock'

export interface DockerOptions {
  /** Where /proc is. */
  readonly root: string
  readonly path: string
  /** Report the container's own host name in place of its name. */
  readonly hostname: boolean
}

/** A list of ten thousand containers. */
const MAX_ANSWER_BYTES = 16 << 20
const MAX_EVENT_BYTES = 1 << 20
const QUESTIONS_AT_ONCE = 4
const RECONNECT_MS = 10_000
/** Hex digits of the id that are added to a name that is not unique. */
const SHORT_ID = 12

/** What the list tells of a container. */
interface Listed {
  readonly id: string
  readonly name: string
  readonly state: number
}

/** What has to be asked of each one. */
interface Inspected {
  readonly pid: number
  /** When the process began; another one may get its pid. */
  readonly started: string
  readonly hostname: string
  readonly groups: readonly ControlGroup[]
}

export class DockerRuntime implements Runtime {
  readonly name = 'docker'
  readonly things = 'containers'
  readonly #options: DockerOptions
  readonly #inspected = new Map<string, Inspected>()
  #changed: (() => void) | undefined
  #events: ClientRequest | undefined
  #reconnect: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: DockerOptions) {
    this.#options = options
  }

  /** Containers that run or are paused. A container that cannot be inspected, because it ends, is left out. */
  async list(): Promise<Found[]> {
    const { path } = this.#options
    try {
      return await seenHere(() => this.#search())
    } catch (error) {
      throw connectionError(
        error,
        'Docker',
        path,
        'is Docker running? If its socket is elsewhere, write docker { socket = PATH }',
      )
    }
  }

  /** Containers are searched for as soon as Docker tells of a change. */
  watch(changed: () => void): void {
    this.#changed = changed
    this.#follow()
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#reconnect)
    this.#events?.destroy()
  }

  async #search(): Promise<Found[] | undefined> {
    const filters = encodeURIComponent('{"status":["running","paused"]}')
    const listed = readList(await this.#get(`/containers/json?filters=${filters}`))
    const ids = new Set(listed.map(({ id }) => id))
    for (const id of this.#inspected.keys()) if (!ids.has(id)) this.#inspected.delete(id)
    const all = await mapSome(listed, QUESTIONS_AT_ONCE, container => this.#inspect(container))
    const isSeen = listed.length === 0 || all.some(one => one !== undefined)
    return isSeen ? this.#found(listed, all) : undefined
  }

  #found(listed: readonly Listed[], all: readonly (Inspected | undefined)[]): Found[] {
    const names = listed.map(({ name }, i) => (this.#options.hostname ? (all[i]?.hostname ?? '') : name))
    const counts = new Map<string, number>()
    for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1)
    return listed.flatMap(({ id, state }, i) => {
      const inspected = all[i]
      const uuid = uuidOfContainer(id)
      if (inspected === undefined || uuid === undefined) return []
      const { pid, groups } = inspected
      const name = names[i]!
      const unique = counts.get(name) === 1 && name !== '' ? name : `${name}.${id.slice(0, SHORT_ID)}`
      return [{ uuid, name: unique, state, groups, pid }]
    })
  }

  async #inspect(container: Listed): Promise<Inspected | undefined> {
    const { root } = this.#options
    const { id } = container
    const known = this.#inspected.get(id)
    if (known !== undefined && (await processStart(root, known.pid)) === known.started) return known
    const answer = await this.#get(`/containers/${encodeURIComponent(id)}/json`).catch(error => {
      if (error instanceof StatusError && error.status === 404) return undefined
      throw error
    })
    const { State, Config } = asObject(answer)
    const pid = asObject(State).Pid
    const hostname = asObject(Config).Hostname
    if (typeof pid !== 'number' || !Number.isSafeInteger(pid) || pid <= 0) return undefined
    const [started, groups] = await Promise.all([processStart(root, pid), groupsOf(root, pid, id)])
    if (started === undefined || groups === undefined) return undefined
    const inspected = {
      pid,
      started,
      hostname: typeof hostname === 'string' ? hostname : '',
      groups,
    }
    this.#inspected.set(id, inspected)
    return inspected
  }

  #request(path: string): ClientRequest {
    // Loaded here because it costs ten megabytes of memory, and most agents do without.
    const { request } = process.getBuiltinModule('node:http')
    return request({ socketPath: this.#options.path, path, headers: HEADERS, agent: false })
  }

  /** Asks for something; the whole answer has to come in time, and to be JSON. */
  #get(url: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const asked = this.#request(url)
      const timer = setTimeout(() => {
        asked.destroy(new Error(`${pathOf(url)}: no answer within ${REQUEST_TIMEOUT_MS} ms`))
      }, REQUEST_TIMEOUT_MS)
      const fail = (error: Error) => {
        clearTimeout(timer)
        reject(error)
      }
      asked.on('error', fail)
      asked.on('response', response => {
        const chunks: Buffer[] = []
        let bytes = 0
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes > MAX_ANSWER_BYTES) {
            asked.destroy(new Error(`${pathOf(url)}: an answer of more than ${MAX_ANSWER_BYTES} bytes`))
          } else chunks.push(chunk)
        })
        response.on('error', fail)
        response.on('close', () => {
          // Also when it was cut off in the middle.
          if (!response.complete) fail(new Error(`${pathOf(url)}: the answer was cut off`))
        })
        response.on('end', () => {
          clearTimeout(timer)
          const { statusCode = 0 } = response
          if (statusCode !== 200) {
            reject(new StatusError(statusCode, `${pathOf(url)}: status ${statusCode}`))
            return
          }
          try {
            resolve(JSON.parse(Buffer.concat(chunks).toString()))
          } catch {
            reject(new Error(`${pathOf(url)}: the answer is not JSON`))
          }
        })
      })
      asked.end()
    })
  }

  /** Keeps a stream of events open. Without it, containers are still found at each search. */
  #follow(): void {
    if (this.#isClosed) return
    const filters = encodeURIComponent('{"type":["container"]}')
    const events = this.#request(`/events?filters=${filters}`)
    this.#events = events
    const again = () => {
      if (this.#events !== events || this.#isClosed) return
      this.#events = undefined
      this.#reconnect = setTimeout(() => this.#follow(), RECONNECT_MS).unref()
    }
    events.on('error', again)
    events.on('close', again)
    events.on('response', response => this.#readEvents(events, response))
    events.on('socket', socket => socket.unref())
    events.end()
  }

  #readEvents(events: ClientRequest, response: IncomingMessage): void {
    response.on('error', () => events.destroy())
    let rest = ''
    response.setEncoding('utf8').on('data', (chunk: string) => {
      rest += chunk
      if (rest.length > MAX_EVENT_BYTES) {
        events.destroy()
        return
      }
      const end = rest.lastIndexOf('\n')
      if (end < 0) return
      // Health checks and commands inside a container are told of too; they change nothing.
      const lines = rest.slice(0, end).split('\n')
      rest = rest.slice(end + 1)
      if (lines.some(line => line !== '' && !QUIET_EVENT.test(line))) this.#changed?.()
    })
  }
}

const HEADERS = { host: 'docker' }
const QUIET_EVENT = /"(status|Action)":"(exec_|health_status|top|attach|resize|copy|export|archive)/

class StatusError extends Error {
  readonly status: number

  constructor(status: number, text: string) {
    super(text)
    this.status = status
  }
}

function pathOf(url: string): string {
  return url.split('?')[0]!
}

function asObject(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

function readList(answer: unknown): Listed[] {
  if (!Array.isArray(answer)) throw new Error('/containers/json: the answer is not a list')
  return answer.flatMap(one => {
    const { Id: id, Names: names, State: state, Status: status } = asObject(one)
    if (typeof id !== 'string' || uuidOfContainer(id) === undefined) return []
    const first = Array.isArray(names) && typeof names[0] === 'string' ? names[0] : ''
    const name = first.replace(/^\//, '')
    const isPaused = state === 'paused' || (typeof status === 'string' && status.includes('(Paused)'))
    return [{ id, name, state: isPaused ? STATE.paused : STATE.running }]
  })
}
