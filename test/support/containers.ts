/**
 * Real container runtimes and a real hypervisor, each with its files in a folder of the test: podman with its Docker
 * API, containerd with CRI, libvirt with QEMU. Their containers run nothing but busybox.
 */
import { type ChildProcess, execFileSync, type StdioOptions, spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { GrpcClient } from '../../agent/virtual/grpc.ts'
import { LibvirtConnection } from '../../agent/virtual/libvirt-connection.ts'
import { libvirtArguments, libvirtText } from '../../agent/wire/libvirt.ts'
import { type ProtobufField, writeProtobuf } from '../../agent/wire/protobuf.ts'
import { type Scope, until } from './lab.ts'

const IMAGE = 'docker.io/library/weir-test:latest'
const TIMEOUT_MS = 60_000

/** True where each controller has its own hierarchy (version 1). */
export const isCgroup1 = !existsSync('/sys/fs/cgroup/cgroup.controllers')

/** A scope whose things are removed in the reverse order of their making: what stands on others goes first. */
export function reversed(scope: Scope): Scope {
  const cleanups: (() => void | Promise<void>)[] = []
  scope.after(async () => {
    const failed: unknown[] = []
    for (const cleanup of cleanups.reverse()) {
      try {
        await cleanup()
      } catch (error) {
        failed.push(error)
      }
    }
    if (failed.length > 0) throw new AggregateError(failed, failed.map(error => String(error)).join('; '))
  })
  return { after: cleanup => void cleanups.push(cleanup) }
}

/** Runs a program to its end; what it writes is given back. */
export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Starts a daemon that ends with the test; its output goes to a file. */
export function startDaemon(
  scope: Scope,
  folder: string,
  command: readonly [string, ...string[]],
): ChildProcess {
  const [program, ...args] = command
  const log = openSync(join(folder, `${program.replaceAll('/', '_')}.log`), 'a')
  const stdio: StdioOptions = ['ignore', log, log]
  const child = spawn(program, args, { stdio })
  const ended = new Promise(resolve => child.on('close', resolve).on('error', resolve))
  scope.after(async () => {
    child.kill('SIGTERM')
    const killing = setTimeout(() => child.kill('SIGKILL'), 5000)
    await ended
    clearTimeout(killing)
  })
  return child
}

/**
 * Runs a command in a network namespace, and leaves everything else as it is: `ip netns exec` takes the control groups
 * away, because it mounts /sys anew.
 */
export function inNamespace(name: string): [string, ...string[]] {
  return ['nsenter', `--net=/var/run/netns/${name}`]
}

/** Waits for a socket; a failure shows what the daemon wrote. */
export async function listening(path: string, log: string): Promise<void> {
  try {
    await until(`daemon at ${path}`, () => answers(path))
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${existsSync(log) ? readFileSync(log, 'utf8') : ''}`)
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    socket
      .on('error', () => resolve(false))
      .on('connect', () => {
        socket.destroy()
        resolve(true)
      })
  })
}

export interface Podman {
  /** Socket that speaks the API of Docker. */
  readonly socket: string
  /** Starts a container, in a network namespace with nothing in it unless it gets another; gives its id and its first process. */
  start(name: string, options?: readonly string[], command?: readonly string[]): { id: string; pid: number }
  command(...args: readonly string[]): string
}

/** Podman with an image of busybox, and its API. */
export async function startPodman(scope: Scope, folder: string): Promise<Podman> {
  const base = join(folder, 'podman')
  const root = join(base, 'image')
  mkdirSync(join(root, 'bin'), { recursive: true })
  for (const name of ['proc', 'sys', 'dev', 'etc', 'tmp']) mkdirSync(join(root, name))
  cpSync('/bin/busybox', join(root, 'bin/busybox'))
  for (const name of ['sh', 'sleep', 'dd', 'cat', 'ip']) symlinkSync('busybox', join(root, 'bin', name))
  const options = [
    ...['--root', join(base, 'store'), '--runroot', join(base, 'run'), '--tmpdir', join(base, 'tmp')],
    ...['--storage-driver', 'vfs', '--cgroup-manager', 'cgroupfs', '--events-backend', 'file'],
    // crun refuses version 1 where something is left in version 2; runc takes it.
    ...['--runtime', isCgroup1 ? 'runc' : 'crun'],
  ]
  const podman = (...args: readonly string[]) => run('podman', ...options, ...args)
  run('tar', '-C', root, '-cf', join(base, 'image.tar'), '.')
  podman('import', '--change', 'ENTRYPOINT ["/bin/sleep","100000"]', join(base, 'image.tar'), IMAGE)
  scope.after(() => void podman('rm', '-f', '-a', '-t', '0'))
  const socket = join(base, 'api.sock')
  const [program, ...args] = ['podman', ...options, 'system', 'service', '-t', '0', `unix://${socket}`]
  startDaemon(scope, base, [program!, ...args])
  await listening(socket, join(base, 'podman.log'))
  return {
    socket,
    command: podman,
    start(name, more = [], command = []) {
      // Limits that are given are not raised, which some machines do not allow.
      const limits = ['--ulimit', 'nofile=1000:1000', '--ulimit', 'nproc=1000:1000']
      const network = more.includes('--network') ? [] : ['--network', 'none']
      const id = podman('run', '-d', '--name', name, ...network, ...limits, ...more, IMAGE, ...command)
      return { id: id.trim(), pid: Number(podman('inspect', '-f', '{{.State.Pid}}', name)) }
    },
  }
}

export interface Containerd {
  readonly socket: string
  /** Starts a pod with one container; gives the id of the sandbox and that of the container. */
  startPod(pod: PodOptions): Promise<{ sandbox: string; container: string }>
  /** Removes a pod with its containers. */
  removePod(sandbox: string): Promise<void>
  command(...args: readonly string[]): string
}

export interface PodOptions {
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly cgroupParent?: string
}

/** Containerd with the image that podman made, in the network namespace of a lab; pods are on a bridge there. */
export async function startContainerd(
  scope: Scope,
  folder: string,
  podman: Podman,
  namespace: string,
): Promise<Containerd> {
  const base = join(folder, 'containerd')
  mkdirSync(join(base, 'cni'), { recursive: true })
  const socket = join(base, 'containerd.sock')
  const network = {
    cniVersion: '0.4.0',
    name: 'weir',
    plugins: [
      {
        type: 'bridge',
        bridge: 'pods0',
        isGateway: true,
        ipam: {
          type: 'host-local',
          dataDir: join(base, 'ipam'),
          ranges: [[{ subnet: '203.0.113.0/24' }]],
        },
      },
    ],
  }
  writeFileSync(join(base, 'cni/weir.conflist'), JSON.stringify(network))
  writeFileSync(
    join(base, 'config.toml'),
    `version = 2
root = "${base}/root"
state = "${base}/state"
[grpc]
address = "${socket}"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
sandbox_image = "${IMAGE}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "${base}/cni"
`,
  )
  startDaemon(scope, base, [...inNamespace(namespace), 'containerd', '-c', join(base, 'config.toml')])
  await listening(socket, join(base, 'nsenter.log'))
  podman.command('save', '--format', 'docker-archive', '-o', join(base, 'image.tar'), IMAGE)
  const ctr = (...args: readonly string[]) => run('ctr', '-a', socket, '-n', 'k8s.io', ...args)
  ctr('images', 'import', '--snapshotter', 'native', join(base, 'image.tar'))

  const client = new GrpcClient(socket, TIMEOUT_MS, 1 << 20)
  scope.after(() => client.close())
  const call = (service: string, fields: readonly ProtobufField[]) =>
    client.call(`/runtime.v1.${service}`, writeProtobuf(fields))
  const labelsOf = (labels: Readonly<Record<string, string>>, field: number) =>
    Object.entries(labels).map(
      ([key, value]): ProtobufField => [
        field,
        writeProtobuf([
          [1, key],
          [2, value],
        ]),
      ],
    )
  const sandboxes = new Set<string>()
  const removePod = async (sandbox: string) => {
    sandboxes.delete(sandbox)
    await call('RuntimeService/StopPodSandbox', [[1, sandbox]])
    await call('RuntimeService/RemovePodSandbox', [[1, sandbox]])
  }
  scope.after(async () => {
    for (const sandbox of sandboxes) await removePod(sandbox)
  })
  return {
    socket,
    command: ctr,
    removePod,
    async startPod({ name, namespace: podNamespace, uid, cgroupParent = '' }) {
      const metadata = writeProtobuf([
        [1, name],
        [2, uid],
        [3, podNamespace],
      ])
      const labels = {
        'io.kubernetes.pod.name': name,
        'io.kubernetes.pod.namespace': podNamespace,
        'io.kubernetes.pod.uid': uid,
      }
      const config = writeProtobuf([
        [1, metadata],
        [2, name],
        [3, join(base, 'logs')],
        ...labelsOf(labels, 6),
        [8, writeProtobuf([[1, cgroupParent]])],
      ])
      const sandbox = (await call('RuntimeService/RunPodSandbox', [[1, config]])).text(1)
      sandboxes.add(sandbox)
      const container = writeProtobuf([
        [1, writeProtobuf([[1, 'main']])],
        [2, writeProtobuf([[1, IMAGE]])],
        ...labelsOf({ ...labels, 'io.kubernetes.container.name': 'main' }, 9),
        [11, 'main.log'],
      ])
      const created = await call('RuntimeService/CreateContainer', [
        [1, sandbox],
        [2, container],
        [3, config],
      ])
      const id = created.text(1)
      await call('RuntimeService/StartContainer', [[1, id]])
      return { sandbox, container: id }
    },
  }
}

export interface Libvirt {
  /** The socket that may only be read from. */
  readonly socket: string
  /** Starts a domain from its description, by the driver of a URI. */
  create(uri: string, xml: string): Promise<void>
}

/** Libvirt with its QEMU driver; /etc/libvirt and /run/libvirt are its own, and its users are made up for it. */
export async function startLibvirt(scope: Scope, folder: string, namespace: string): Promise<Libvirt> {
  const base = join(folder, 'libvirt')
  for (const name of ['etc', 'run', 'lib', 'cache', 'sock']) mkdirSync(join(base, name), { recursive: true })
  writeFileSync(
    join(base, 'passwd'),
    `${readFileSync('/etc/passwd', 'utf8')}libvirt-qemu:x:64055:64055::/:/bin/false\n`,
  )
  writeFileSync(join(base, 'group'), `${readFileSync('/etc/group', 'utf8')}libvirt-qemu:x:64055:\n`)
  const qemu = [
    'user="root"',
    'group="root"',
    'cgroup_controllers=[]',
    'namespaces=[]',
    'security_driver="none"',
    'stdio_handler="file"',
  ]
  writeFileSync(join(base, 'etc/qemu.conf'), `${qemu.join('\n')}\n`)
  writeFileSync(
    join(base, 'libvirtd.conf'),
    `unix_sock_dir="${base}/sock"\nauth_unix_ro="none"\nauth_unix_rw="none"\n`,
  )
  const folders = [
    ['etc', '/etc/libvirt'],
    ['run', '/run/libvirt'],
    ['lib', '/var/lib/libvirt'],
    ['cache', '/var/cache/libvirt'],
  ] as const
  // The package of the daemon alone makes none of them.
  for (const [, folder] of folders) mkdirSync(folder, { recursive: true })
  const binds = [['passwd', '/etc/passwd'], ['group', '/etc/group'], ...folders].map(
    ([from, to]) => `mount --bind ${base}/${from} ${to}`,
  )
  const script = `${binds.join(' && ')} && exec libvirtd -f ${base}/libvirtd.conf -p ${base}/pid`
  startDaemon(scope, base, [...inNamespace(namespace), 'unshare', '--mount', 'sh', '-c', script])
  await listening(join(base, 'sock/libvirt-sock'), join(base, 'nsenter.log'))
  return {
    socket: join(base, 'sock/libvirt-sock-ro'),
    async create(uri, xml) {
      const mayWrite = 0
      const connection = await LibvirtConnection.open(
        join(base, 'sock/libvirt-sock'),
        TIMEOUT_MS,
        uri,
        mayWrite,
      )
      scope.after(() => connection.close())
      // VIR_DOMAIN_START_AUTODESTROY: the domain ends with the connection.
      const args = libvirtArguments(libvirtText(xml), 2)
      await connection.call(LIBVIRT_CREATE_XML, 'create', args)
    },
  }
}

const LIBVIRT_CREATE_XML = 10
