/**
 * Builds a containerlab topology of this folder with network namespaces instead of containers, for machines without a
 * container engine:
 *
 *     node_modules/.bin/node packaging/containerlab/netns.ts queue-depth            builds it and keeps it until Ctrl-C
 *     node_modules/.bin/node packaging/containerlab/netns.ts queue-depth --remove   removes what one that was killed left
 *
 * Nodes become namespaces called NAME-NODE, links become veth cables, `exec` is run as it stands. A node of the image weir
 * with network-mode runs the agent of this checkout in the namespace that it shares; one with FRR's image runs the zebra
 * and bgpd of this machine. Needs root, iproute2, procps and, for leaf-spine, frr.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chownSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseYaml, type YamlMap } from './yaml.ts'

const HERE = import.meta.dirname
const WEIR = join(HERE, '../weir')
/** How long a program has to end. */
const WAIT_MS = 100
const MOST_WAITS = 100

interface Node {
  readonly name: string
  readonly image: string
  /** Address in the management network. */
  readonly address: string | undefined
  /** The node whose namespace this one shares. */
  readonly beside: string | undefined
  readonly commands: readonly string[]
  /** Arguments for weir, in a node of its own. */
  readonly command: string | undefined
  readonly environment: Readonly<Record<string, string>>
  readonly binds: readonly string[]
}

export interface TopologyOptions {
  /** First part of the names of namespaces; default: the topology's own name. */
  readonly prefix?: string
  /** Gets what the agents and routers write. */
  readonly onOutput?: (node: string, text: string) => void
}

export class Topology {
  readonly name: string
  readonly nodes: readonly Node[]
  readonly #prefix: string
  readonly #links: readonly (readonly [string, string])[]
  readonly #subnet: string
  readonly #onOutput: (node: string, text: string) => void
  readonly #children: ChildProcess[] = []
  readonly #made: string[] = []
  #folder: string | undefined

  /** Reads NAME.clab.yml; nothing is built before start(). */
  constructor(name: string, options: TopologyOptions = {}) {
    const file = parseYaml(readFileSync(join(HERE, `${name}.clab.yml`), 'utf8'))
    const topology = file.topology as YamlMap
    this.name = file.name as string
    this.#prefix = options.prefix ?? this.name
    this.#onOutput = options.onOutput ?? (() => {})
    this.#subnet = (file.mgmt as YamlMap)['ipv4-subnet'] as string
    this.nodes = Object.entries(topology.nodes as YamlMap).map(([node, value]) =>
      toNode(node, value as YamlMap),
    )
    this.#links = (topology.links as unknown as YamlMap[]).map(
      ({ endpoints }) => endpoints as unknown as [string, string],
    )
  }

  /** The namespace of a node, or of the one that it shares. */
  namespace(node: string): string {
    return `${this.#prefix}-${this.#node(node).beside ?? node}`
  }

  /** The address of a node in the management network. */
  address(node: string): string {
    return this.#node(node).address!
  }

  /** Builds everything. What has been built when something fails is removed; throws where the lab is there already. */
  start(): void {
    const there = this.#leftovers()
    if (there.length > 0) throw new Error(`${this.name} is there already: namespaces ${there.join(', ')}`)
    try {
      this.#build()
    } catch (error) {
      void this.stop()
      throw error
    }
  }

  /** Ends the programs and removes the namespaces. */
  async stop(): Promise<void> {
    const ended = this.#children.map(
      child =>
        new Promise<void>(resolve => (isRunning(child) ? child.once('exit', () => resolve()) : resolve())),
    )
    for (const child of this.#children) child.kill('SIGTERM')
    const late = setTimeout(() => {
      for (const child of this.#children) child.kill('SIGKILL')
    }, 10_000)
    await Promise.all(ended)
    clearTimeout(late)
    for (const namespace of this.#made.splice(0)) {
      try {
        ip(`netns del ${namespace}`)
      } catch {
        // Somebody has removed it already.
      }
    }
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Removes what one of this name has left that is gone: its namespaces, and whatever runs in them. */
  async remove(): Promise<void> {
    const there = this.#leftovers()
    const pids = () =>
      there.flatMap(namespace =>
        execFileSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8' }).split('\n').filter(Boolean),
      )
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      for (const pid of pids()) endProcess(Number(pid), signal)
      for (let wait = 0; wait < MOST_WAITS && pids().length > 0; wait++) await sleep(WAIT_MS)
    }
    for (const namespace of there) ip(`netns del ${namespace}`)
  }

  /** Namespaces of this topology that are there. */
  #leftovers(): string[] {
    return [...this.#places(), this.#switch].filter(name => existsSync(join('/run/netns', name)))
  }

  /** Runs a command line in the namespace of a node and gives its output. */
  run(node: string, line: string): string {
    return execFileSync('ip', ['netns', 'exec', this.namespace(node), ...line.split(' ')], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  get #switch(): string {
    return `${this.#prefix}-mgmt`
  }

  #places(): string[] {
    return this.nodes.filter(({ beside }) => beside === undefined).map(({ name }) => this.namespace(name))
  }

  #node(name: string): Node {
    const node = this.nodes.find(one => one.name === name)
    if (node === undefined) throw new Error(`${this.name} has no node ${name}`)
    return node
  }

  #build(): void {
    const bits = this.#subnet.split('/')[1]
    for (const namespace of [...this.#places(), this.#switch]) {
      ip(`netns add ${namespace}`)
      this.#made.push(namespace)
      ip(`-n ${namespace} link set lo up`)
    }
    // The management network: a switch with a port for each node.
    ip(`-n ${this.#switch} link add mgmt type bridge`)
    ip(`-n ${this.#switch} link set mgmt up`)
    for (const [i, { name, address }] of this.nodes
      .filter(({ address }) => address !== undefined)
      .entries()) {
      const namespace = this.namespace(name)
      ip(`-n ${namespace} link add eth0 type veth peer name port${i} netns ${this.#switch}`)
      ip(`-n ${this.#switch} link set port${i} master mgmt up`)
      ip(`-n ${namespace} address add ${address}/${bits} dev eth0`)
      ip(`-n ${namespace} link set eth0 up`)
    }
    for (const link of this.#links) {
      const [[a, portA], [b, portB]] = link.map(end => end.split(':')) as [[string, string], [string, string]]
      ip(`-n ${this.namespace(a)} link add ${portA} type veth peer name ${portB} netns ${this.namespace(b)}`)
      ip(`-n ${this.namespace(a)} link set ${portA} up`)
      ip(`-n ${this.namespace(b)} link set ${portB} up`)
    }
    for (const { name, commands } of this.nodes) for (const line of commands) this.run(name, line)
    for (const node of this.nodes) {
      if (node.image.includes('/frr:')) this.#startRouter(node)
      else if (node.image.startsWith('weir') && node.beside !== undefined) this.#startAgent(node)
    }
  }

  /** With a /run of its own, as in a container. */
  #startAgent(node: Node): void {
    const script = 'mount -t tmpfs tmpfs /run && exec "$0" container'
    this.#spawn(node, ['unshare', '--mount', 'sh', '-c', script, WEIR], node.environment)
  }

  #startRouter(node: Node): void {
    this.#folder ??= mkdtempSync(join(tmpdir(), `${this.#prefix}-`))
    const [user, group] = ['-u', '-g'].map(option => Number(execFileSync('id', [option, 'frr'])))
    const folder = join(this.#folder, node.name)
    mkdirSync(folder)
    for (const path of [this.#folder, folder]) chownSync(path, user!, group!)
    const conf = join(HERE, node.binds.find(bind => bind.endsWith(':/etc/frr/frr.conf'))!.split(':')[0]!)
    const common = [
      '-z',
      join(folder, 'zserv'),
      '--vty_socket',
      folder,
      '-A',
      '127.0.0.1',
      '-P',
      '0',
      '--log',
      'stdout',
    ]
    for (const daemon of ['zebra', 'bgpd']) {
      const args = ['-f', daemon === 'bgpd' ? conf : '/dev/null', '-i', join(folder, `${daemon}.pid`)]
      this.#spawn(node, [`/usr/lib/frr/${daemon}`, ...common, ...args], {})
    }
  }

  #spawn(node: Node, command: readonly string[], environment: Readonly<Record<string, string>>): void {
    const child = spawn('ip', ['netns', 'exec', this.namespace(node.name), ...command], {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#children.push(child)
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => this.#onOutput(node.name, text))
    }
  }
}

function isRunning(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null
}

function toNode(name: string, value: YamlMap): Node {
  const lines = (key: string) => (value[key] ?? []) as unknown as string[]
  return {
    name,
    image: value.image as string,
    address: value['mgmt-ipv4'] as string | undefined,
    beside: (value['network-mode'] as string | undefined)?.replace(/^container:/, ''),
    commands: lines('exec'),
    command: value.cmd as string | undefined,
    environment: (value.env ?? {}) as Record<string, string>,
    binds: lines('binds'),
  }
}

function ip(line: string): void {
  execFileSync('ip', line.split(' '), { stdio: ['ignore', 'ignore', 'pipe'] })
}

function endProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It has ended by itself.
  }
}

/** The topologies of this folder. */
const NAMES = globSync('*.clab.yml', { cwd: HERE })
  .map(file => file.slice(0, -'.clab.yml'.length))
  .sort()

async function main(args: readonly string[]): Promise<void> {
  const [name, option] = args
  const isAsked = args.includes('--help')
  if (isAsked || !NAMES.includes(name ?? '') || args.length > 2 || (option ?? '--remove') !== '--remove') {
    const usage = `usage: node_modules/.bin/node packaging/containerlab/netns.ts ${NAMES.join(' | ')} [--remove]`
    if (isAsked) console.log(usage)
    else throw new Error(usage)
    return
  }
  const topology = new Topology(name!, { onOutput: (node, text) => process.stderr.write(`${node}: ${text}`) })
  if (option !== undefined) return topology.remove()
  // Before there is anything to remove.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void topology.stop())
  try {
    topology.start()
  } catch (error) {
    const { message } = error as Error
    throw new Error(`${message}\nIf nothing runs there any more: netns.ts ${name} --remove`)
  }
  console.log(`${topology.name} is there until Ctrl-C. In its nodes:\n`)
  for (const { name, beside, command } of topology.nodes) {
    if (beside !== undefined) continue
    const does = command === undefined ? '…' : `node_modules/.bin/weir ${command}`
    console.log(`  ${name.padEnd(10)} ip netns exec ${topology.namespace(name)} ${does}`)
  }
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2))
  } catch (error) {
    console.error((error as Error).message)
    process.exitCode = 1
  }
}
