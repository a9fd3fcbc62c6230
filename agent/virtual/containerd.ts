import { writeProtobuf } from '../wire/protobuf.ts'
import { GrpcClient } from './grpc.ts'
import {
  connectionError,
  type Found,
  groupsOf,
  REQUEST_TIMEOUT_MS,
  type Runtime,
  STATE,
  seenHere,
} from './runtime.ts'
import { uuidOfContainer } from './uuid.ts'

/**
 * The containers of containerd, in all of its namespaces, by its own interface (api/services of containerd): those of
 * Kubernetes are in `k8s.io`, those of Docker in `moby`, those of nerdctl in `default`.
 */

export const CONTAINERD_SOCKET = '/run/containerd/containerd.sock'

export interface ContainerdOptions {
  /** Where /proc is. */
  readonly root: string
  readonly path: string
  /** Report the container's own host name in place of its name. */
  readonly hostname: boolean
  /** Derives the UUID of a container whose id is a name. */
  readonly uuidOf: (name: string) => string
}

const MAX_ANSWER_BYTES = 16 << 20

const NAMESPACES = '/containerd.services.namespaces.v1.Namespaces/List'
const CONTAINERS = '/containerd.services.containers.v1.Containers/List'
const TASKS = '/containerd.services.tasks.v1.Tasks/List'

/** States of a task (api/types/task/task.proto). */
const TASK = { running: 2, stopped: 3, paused: 4, pausing: 5 } as const

/** Labels by which those who make containers call them. */
const NAME_LABELS = ['nerdctl/name', 'io.kubernetes.container.name'] as const
const HOSTNAME_LABEL = 'nerdctl/hostname'

export class ContainerdRuntime implements Runtime {
  readonly name = 'containerd'
  readonly things = 'containers'
  readonly #options: ContainerdOptions
  readonly #client: GrpcClient

  constructor(options: ContainerdOptions) {
    this.#options = options
    this.#client = new GrpcClient(options.path, REQUEST_TIMEOUT_MS, MAX_ANSWER_BYTES)
  }

  async list(): Promise<Found[]> {
    try {
      return await seenHere(() => this.#search())
    } catch (error) {
      this.#client.close()
      throw connectionError(
        error,
        'containerd',
        this.#options.path,
        'is containerd running? If its socket is elsewhere, write containerd { socket = PATH }',
      )
    }
  }

  close(): void {
    this.#client.close()
  }

  async #search(): Promise<Found[] | undefined> {
    const answer = await this.#client.call(NAMESPACES, writeProtobuf([]))
    const names = answer.messages(1).map(namespace => namespace.text(1))
    const found: Found[] = []
    const count = { running: 0 }
    for (const namespace of names) found.push(...(await this.#listNamespace(namespace, count)))
    return found.length === 0 && count.running > 0 ? undefined : found
  }

  async #listNamespace(namespace: string, count: { running: number }): Promise<Found[]> {
    const metadata = { 'containerd-namespace': namespace }
    const [containers, tasks] = await Promise.all([
      this.#client.call(CONTAINERS, writeProtobuf([]), metadata),
      this.#client.call(TASKS, writeProtobuf([]), metadata),
    ])
    const labels = new Map(containers.messages(1).map(container => [container.text(1), container.map(2)]))
    const found: Found[] = []
    for (const task of tasks.messages(1)) {
      const id = task.text(1) || task.text(2)
      const pid = task.number(3)
      const status = task.number(4)
      if (pid === 0 || !Object.values<number>(TASK).includes(status) || status === TASK.stopped) continue
      count.running++
      const groups = await groupsOf(this.#options.root, pid, id)
      if (groups === undefined) continue
      const { uuidOf, hostname } = this.#options
      found.push({
        uuid: uuidOfContainer(id) ?? uuidOf(`${namespace}/${id}`),
        name: nameOf(id, labels.get(id) ?? new Map(), hostname),
        state: status === TASK.running ? STATE.running : STATE.paused,
        groups,
        pid,
      })
    }
    return found
  }
}

function nameOf(id: string, labels: ReadonlyMap<string, string>, hostname: boolean): string {
  const pod = labels.get('io.kubernetes.pod.name')
  if (hostname) return labels.get(HOSTNAME_LABEL) ?? pod ?? id
  const label = NAME_LABELS.map(name => labels.get(name)).find(name => name !== undefined)
  if (pod !== undefined) {
    // As Docker calls the containers of Kubernetes; the pause container of a pod has no name of its own.
    return `k8s_${label ?? 'POD'}_${pod}_${labels.get('io.kubernetes.pod.namespace') ?? ''}`
  }
  return label ?? id
}
