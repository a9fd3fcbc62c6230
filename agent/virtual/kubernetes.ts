import { existsSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import type { ControlGroup } from '../kernel/cgroup.ts'
import { type ProtobufMessage, writeProtobuf } from '../wire/protobuf.ts'
import { GrpcClient, GrpcError } from './grpc.ts'
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

/** The pods of Kubernetes, by the interface that each of its container runtimes has (CRI, runtime.v1 api.proto). */

/** Sockets of the runtimes, tried in this order when none is given. */
const CRI_SOCKETS = [
  '/run/containerd/containerd.sock',
  '/run/crio/crio.sock',
  '/run/k3s/containerd/containerd.sock',
  '/run/cri-dockerd.sock',
] as const

export interface KubernetesOptions {
  /** Where /proc is. */
  readonly root: string
  /** Undefined takes the first of CRI_SOCKETS that there is. */
  readonly path: string | undefined
  /** Derives the UUID of a pod from its name. */
  readonly uuidOf: (name: string) => string
}

const MAX_ANSWER_BYTES = 16 << 20
const QUESTIONS_AT_ONCE = 4

const LIST_PODS = 'RuntimeService/ListPodSandbox'
const LIST_CONTAINERS = 'RuntimeService/ListContainers'
const POD_STATUS = 'RuntimeService/PodSandboxStatus'
const CONTAINER_STATUS = 'RuntimeService/ContainerStatus'

const POD_READY = 0
const CONTAINER_RUNNING = 1

/** A process that was looked up once: what it belongs to stays the same. */
interface Process {
  readonly pid: number
  readonly started: string
  readonly groups: readonly ControlGroup[]
}

export class KubernetesRuntime implements Runtime {
  readonly name = 'k8s'
  readonly things = 'pods'
  readonly #options: KubernetesOptions
  #client: GrpcClient | undefined
  /** `runtime.v1` or, before Kubernetes 1.23, `runtime.v1alpha2`. */
  #version = 'runtime.v1'
  /** By id of the sandbox or container. */
  readonly #processes = new Map<string, Process>()

  constructor(options: KubernetesOptions) {
    this.#options = options
  }

  /** Pods that are ready. */
  async list(): Promise<Found[]> {
    const path = this.#options.path ?? CRI_SOCKETS.find(name => existsSync(name))
    if (path === undefined) {
      throw new Error(
        `no container runtime: none of ${CRI_SOCKETS.join(', ')} exists; write k8s { unixsock = PATH }`,
      )
    }
    this.#client ??= new GrpcClient(path, REQUEST_TIMEOUT_MS, MAX_ANSWER_BYTES)
    try {
      return await seenHere(() => this.#search())
    } catch (error) {
      this.close()
      throw connectionError(
        error,
        'CRI',
        path,
        'is the container runtime running? Its socket is k8s { unixsock = PATH }',
      )
    }
  }

  close(): void {
    this.#client?.close()
    this.#client = undefined
  }

  async #search(): Promise<Found[] | undefined> {
    const pods = await this.#listPods()
    const containers = (await this.#call(LIST_CONTAINERS, writeProtobuf([]))).messages(1)
    const running = containers.filter(container => container.number(6) === CONTAINER_RUNNING)
    const ids = new Set([...pods, ...running].map(one => one.text(1)))
    for (const id of this.#processes.keys()) if (!ids.has(id)) this.#processes.delete(id)
    const found = await mapSome(pods, QUESTIONS_AT_ONCE, pod =>
      this.#found(
        pod,
        running.filter(container => container.text(2) === pod.text(1)),
      ),
    )
    const seen = found.filter(pod => pod !== undefined)
    return pods.length > 0 && seen.length === 0 ? undefined : seen
  }

  async #listPods(): Promise<ProtobufMessage[]> {
    try {
      return readyPods(await this.#call(LIST_PODS, writeProtobuf([])))
    } catch (error) {
      if (!(error instanceof GrpcError) || !error.isUnimplemented || this.#version !== 'runtime.v1')
        throw error
      this.#version = 'runtime.v1alpha2'
      return readyPods(await this.#call(LIST_PODS, writeProtobuf([])))
    }
  }

  /** A pod with its containers: message PodSandbox, and messages Container. */
  async #found(pod: ProtobufMessage, containers: readonly ProtobufMessage[]): Promise<Found | undefined> {
    const metadata = pod.message(2)
    if (metadata === undefined) return undefined
    const processes = [await this.#process(POD_STATUS, pod.text(1))]
    for (const container of containers)
      processes.push(await this.#process(CONTAINER_STATUS, container.text(1)))
    const alive = processes.filter(process => process !== undefined)
    if (alive.length === 0) return undefined
    // The last two stand for the uid and the attempt, which hsflowd does not know.
    const name = `k8s__${metadata.text(1)}_${metadata.text(3)}_u_a`
    return {
      uuid: this.#options.uuidOf(name),
      name,
      state: containers.length > 0 ? STATE.running : STATE.none,
      groups: groupsOfPod(
        metadata.text(2),
        alive.flatMap(({ groups }) => groups),
      ),
      pid: alive[0]!.pid,
    }
  }

  /** The first process of a sandbox or a container: the runtime tells it when asked to be verbose, in JSON. */
  async #process(method: string, id: string): Promise<Process | undefined> {
    const { root } = this.#options
    const known = this.#processes.get(id)
    if (known !== undefined && (await processStart(root, known.pid)) === known.started) return known
    this.#processes.delete(id)
    let status: ProtobufMessage
    try {
      status = await this.#call(
        method,
        writeProtobuf([
          [1, id],
          [2, true],
        ]),
      )
    } catch (error) {
      if (error instanceof GrpcError && error.isNotFound) return undefined
      throw error
    }
    const pid = pidIn(status.map(2).get('info'))
    if (pid === undefined) return undefined
    const [started, groups] = await Promise.all([processStart(root, pid), groupsOf(root, pid, id)])
    if (started === undefined || groups === undefined) return undefined
    const process = { pid, started, groups }
    this.#processes.set(id, process)
    return process
  }

  #call(method: string, message: Uint8Array): Promise<ProtobufMessage> {
    return this.#client!.call(`/${this.#version}.${method}`, message)
  }
}

function readyPods(answer: ProtobufMessage): ProtobufMessage[] {
  return answer.messages(1).filter(pod => pod.number(3) === POD_READY)
}

function pidIn(info: string | undefined): number | undefined {
  try {
    const { pid } = JSON.parse(info ?? '') as { pid?: unknown }
    return Number.isSafeInteger(pid) && (pid as number) > 0 ? (pid as number) : undefined
  } catch {
    return undefined
  }
}

/**
 * The group that kubelet made for the pod, if its containers are in it: it keeps what containers used that have ended.
 * Its name has the uid of the pod, with `_` for `-` where systemd manages groups.
 */
export function groupsOfPod(uid: string, groups: readonly ControlGroup[]): readonly ControlGroup[] {
  const names = [`pod${uid}`, `pod${uid.replaceAll('-', '_')}.slice`]
  const isOfPod = (path: string) => names.some(name => basename(path).endsWith(name))
  const parents = groups.map(
    group =>
      new Map(
        [...group]
          .map(([hierarchy, path]) => [hierarchy, dirname(path)] as const)
          .filter(([, path]) => isOfPod(path)),
      ),
  )
  const all = uid !== '' && parents.length > 0 && parents.every(parent => parent.size > 0)
  return all ? [parents[0]!] : groups
}
