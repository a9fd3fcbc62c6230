/** The container image: its files are run as a container engine would, configured by the environment. */
import assert from 'node:assert/strict'
import { execFileSync, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import {
  countersSamplesOf,
  flowSamplesOf,
  type Lab,
  listen,
  makeLab,
  type Scope,
  sendFlow,
  sink,
  until,
} from '../support/lab.ts'
import { packageFile } from './root.ts'

const MOST_BYTES = 60e6

interface Image {
  /** The root file system. */
  readonly root: string
  readonly config: {
    readonly architecture: string
    readonly config: { readonly Env: string[]; readonly Entrypoint: string[]; readonly Cmd: string[] }
  }
}

/** Unpacks an image as an engine does: by its index, its manifest, its configuration and its layer. */
function unpack(t: TestContext, file: string): Image {
  const folder = mkdtempSync(join(tmpdir(), 'weir-image-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  execFileSync('tar', ['-xf', file, '-C', folder])
  const read = <T>(path: string) => JSON.parse(readFileSync(join(folder, path), 'utf8')) as T
  const blob = ({ digest, size }: Descriptor) => {
    const [algorithm, hex] = digest.split(':')
    const path = join(folder, 'blobs', algorithm!, hex!)
    assert.equal(statSync(path).size, size)
    assert.ok(execFileSync('sha256sum', [path], { encoding: 'utf8' }).startsWith(hex!))
    return path
  }
  assert.deepEqual(read('oci-layout'), { imageLayoutVersion: '1.0.0' })
  const index = read<{ manifests: Descriptor[] }>('index.json')
  const manifest = JSON.parse(readFileSync(blob(index.manifests[0]!), 'utf8')) as {
    config: Descriptor
    layers: Descriptor[]
  }
  const root = join(folder, 'root')
  mkdirSync(root)
  for (const layer of manifest.layers) execFileSync('tar', ['-xzf', blob(layer), '-C', root])
  return { root, config: JSON.parse(readFileSync(blob(manifest.config), 'utf8')) as Image['config'] }
}

interface Descriptor {
  readonly digest: string
  readonly size: number
}

interface ContainerOptions {
  /** User and group; root has what the documentation says, others have no capabilities. */
  readonly user: number
  readonly environment: readonly string[]
  /** False: what the image has at /run is used, and can be written as far as its permissions go. */
  readonly readOnly: boolean
}

/** Capabilities of docs/installing.md, and those that an engine gives. */
const CAPABILITIES = ['NET_ADMIN', 'NET_RAW', 'BPF', 'PERFMON', 'SETUID', 'SETGID', 'SETPCAP', 'CHOWN'].map(
  name => `CAP_${name}`,
)

/** A container of the image for this machine that runs in the namespace of the host of a lab. */
class Container {
  readonly ended: Promise<number | null>
  log = ''
  readonly #runc: readonly string[]
  readonly #name: string

  constructor(scope: Scope, lab: Lab, { root, config }: Image, options: ContainerOptions) {
    const bundle = join(root, '..')
    this.#name = `weir-image-${process.pid}-${options.user}`
    this.#runc = ['--root', join(bundle, 'state')]
    const { user, environment, readOnly } = options
    const capabilities = user === 0 ? CAPABILITIES : []
    const spec = {
      ociVersion: '1.0.0',
      process: {
        user: { uid: user, gid: user },
        args: [...config.config.Entrypoint, ...config.config.Cmd],
        env: [...config.config.Env, ...environment],
        cwd: '/',
        noNewPrivileges: true,
        capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      },
      root: { path: 'root', readonly: readOnly },
      hostname: 'weir',
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro'] },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
        ...(readOnly
          ? [{ destination: '/run', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=1777'] }]
          : []),
      ],
      linux: {
        namespaces: [
          { type: 'pid' },
          { type: 'mount' },
          { type: 'ipc' },
          { type: 'uts' },
          { type: 'network', path: `/var/run/netns/${lab.host.namespace}` },
        ],
        maskedPaths: ['/proc/kcore', '/proc/kmsg'],
        readonlyPaths: ['/proc/sys', '/proc/sysrq-trigger'],
      },
    }
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec))
    const running = spawn('runc', [...this.#runc, 'run', '--bundle', bundle, this.#name], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [running.stdout, running.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.log += text
      })
    }
    this.ended = new Promise(resolve => running.once('close', resolve))
    scope.after(async () => {
      spawnSync('runc', [...this.#runc, 'delete', '--force', this.#name])
      await this.ended
      if (scope.error) console.log(`# the container wrote:\n${this.log}`)
    })
  }

  /** Runs the image's weir in the container. */
  weir(...args: string[]): SpawnSyncReturns<string> {
    return spawnSync('runc', [...this.#runc, 'exec', this.#name, '/usr/bin/weir', ...args], {
      encoding: 'utf8',
    })
  }

  /** The agent's process, seen from here. */
  get pid(): number {
    const text = execFileSync('runc', [...this.#runc, 'state', this.#name], { encoding: 'utf8' })
    return (JSON.parse(text) as { pid: number }).pid
  }

  terminate(): void {
    execFileSync('runc', [...this.#runc, 'kill', this.#name, 'TERM'])
  }
}

test('the image runs by its entry point, configured by the environment, in a container', async t => {
  const file = packageFile('_amd64.oci.tar')
  assert.ok(statSync(file).size < MOST_BYTES)
  const lab = makeLab(t)
  const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
  const image = unpack(t, file)
  for (const shell of ['bin/sh', 'usr/bin/sh', 'bin/busybox'])
    assert.equal(exists(join(image.root, shell)), false, shell)
  // The texts that the libraries' licences refer to are in it.
  const papers = readFileSync(join(image.root, 'usr/share/doc/libc6/copyright'), 'utf8')
  const [, text] = /(common-licenses\/LGPL-2\.1)/.exec(papers)!
  assert.ok(statSync(join(image.root, 'usr/share', text!)).size > 10_000)

  // The limit of the heap is for the agent alone.
  assert.ok(image.config.config.Entrypoint.includes('--max-old-space-size=48'))
  assert.deepEqual(image.config.config.Env, ['PATH=/usr/bin', 'MALLOC_ARENA_MAX=1'])

  const common = [`COLLECTOR=${lab.peer.mgmt0.ipv4}`, 'POLLING=1', 'AGENT=198.51.100.1']
  const environment = [...common, 'SAMPLING=1', 'INTERFACES=eth0', 'WEIR_HEAP_MB=96']
  const container = new Container(t, lab, image, { user: 0, environment, readOnly: true })
  await until('the agent', () => /"msg":"running"/.test(container.log))
  await until('counters samples', () => countersSamplesOf(collector, { type: 2, index: 1 })[1])
  sink(t, lab.peer.namespace, { address: lab.peer.eth0.ipv4, port: 7000 })
  await until('flow samples', () => {
    sendFlow(lab.host.namespace, {
      from: { address: lab.host.eth0.ipv4, port: 7000 },
      to: { address: lab.peer.eth0.ipv4, port: 7000 },
      payloadBytes: 100,
      packets: 5,
    })
    return flowSamplesOf(collector)[0]
  })
  // Root in the container only until it had opened what it needs; its own user after that.
  assert.match(readFileSync(`/proc/${container.pid}/status`, 'utf8'), /^Uid:\t6343\t6343\t6343\t6343$/m)
  assert.match(readFileSync(`/proc/${container.pid}/cmdline`, 'utf8'), /=48\0--max-old-space-size=96\0/)
  const health = container.weir('health')
  assert.equal(health.status, 0, health.stderr)
  assert.match(health.stdout, /the agent runs, process 1,/)
  // It knows the configuration that was made of the environment.
  assert.match(container.weir('doctor').stdout, /^ok +configuration +\S+\/weir-container\.conf$/m)
  container.terminate()
  assert.equal(await container.ended, 0)

  // As whoever the container's manager says, with the image's own folders.
  const other = new Container(t, lab, image, {
    user: 12_345,
    environment: [...common, 'SAMPLING=0'],
    readOnly: false,
  })
  await until('the agent of another user', () => /"msg":"running"/.test(other.log))
  const otherHealth = other.weir('health')
  assert.equal(otherHealth.status, 0, otherHealth.stderr)
  assert.match(other.weir('status').stdout, /weir-container\.conf/)
  other.terminate()
  assert.equal(await other.ended, 0)
})

test('the image for arm64 has its programs, and they run in the emulator', t => {
  const { root, config } = unpack(t, packageFile('_arm64.oci.tar'))
  assert.equal(config.architecture, 'arm64')
  const weir = ['usr/lib/weir/node', 'usr/lib/weir/weir.mjs'].map(path => join(root, path))
  const run = (...args: string[]) =>
    spawnSync('qemu-aarch64-static', ['-L', root, ...weir, ...args], { encoding: 'utf8' })
  assert.match(run('--version').stdout, /^\d+\.\d+\.\d+$/m)
  const refused = run('container')
  assert.match(refused.stderr, /COLLECTOR names nobody to send to/)
  assert.equal(refused.status, 1)
})

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined
}
