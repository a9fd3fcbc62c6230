/** The container image: its files are run as a container engine would, configured by the environment. */
import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { countersSamplesOf, flowSamplesOf, listen, makeLab, sendFlow, sink, until } from '../support/lab.ts'
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

test('the image runs by its entry point, configured by the environment, in a container', async t => {
  const file = packageFile('_amd64.oci.tar')
  assert.ok(statSync(file).size < MOST_BYTES)
  const lab = makeLab(t)
  const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
  const { root, config } = unpack(t, file)
  for (const shell of ['bin/sh', 'usr/bin/sh', 'bin/busybox'])
    assert.equal(exists(join(root, shell)), false, shell)

  const bundle = join(root, '..')
  const capabilities = ['NET_ADMIN', 'NET_RAW', 'BPF', 'PERFMON', 'SETUID', 'SETGID', 'SETPCAP', 'CHOWN'].map(
    name => `CAP_${name}`,
  )
  const container = (args: readonly string[]) => ({
    ociVersion: '1.0.0',
    process: {
      user: { uid: 0, gid: 0 },
      args,
      env: [
        ...config.config.Env,
        `COLLECTOR=${lab.peer.mgmt0.ipv4}`,
        'SAMPLING=1',
        'POLLING=1',
        'AGENT=198.51.100.1',
        'INTERFACES=eth0',
      ],
      cwd: '/',
      noNewPrivileges: true,
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    },
    root: { path: 'root', readonly: true },
    hostname: 'weir',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro'] },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      { destination: '/run', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=1777'] },
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
  })
  writeFileSync(
    join(bundle, 'config.json'),
    JSON.stringify(container([...config.config.Entrypoint, ...config.config.Cmd])),
  )
  const name = `weir-image-${process.pid}`
  const state = join(bundle, 'state')
  const runc = ['--root', state]
  const running = spawn('runc', [...runc, 'run', '--bundle', bundle, name], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let log = ''
  for (const stream of [running.stdout, running.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      log += text
    })
  }
  const ended = new Promise(resolve => running.once('close', resolve))
  t.after(async () => {
    spawnSync('runc', [...runc, 'delete', '--force', name])
    await ended
  })
  try {
    await until('the agent', () => /"msg":"running"/.test(log))
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
    const { pid } = JSON.parse(execFileSync('runc', [...runc, 'state', name], { encoding: 'utf8' })) as {
      pid: number
    }
    // Root in the container only until it had opened what it needs; its own user after that.
    assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^Uid:\t6343\t6343\t6343\t6343$/m)
    const inside = (...args: string[]) =>
      spawnSync('runc', [...runc, 'exec', name, ...args], { encoding: 'utf8' })
    const health = inside('/usr/bin/weir', 'health')
    assert.equal(health.status, 0, health.stderr)
    assert.match(health.stdout, /the agent runs, process 1,/)
    execFileSync('runc', [...runc, 'kill', name, 'TERM'])
    assert.equal(await ended, 0)
  } catch (error) {
    throw new Error(`${(error as Error).message}; the container wrote:\n${log}`, { cause: error })
  }
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
