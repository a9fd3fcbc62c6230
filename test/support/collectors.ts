/**
 * Collectors of others, run as programs: what the agent sends has to mean to them what it means to us. Each is started
 * in a namespace, and gives what it has understood when it is ended.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Endpoint, type Scope, until } from './lab.ts'

/** Where a collector runs, and for its files a folder that nothing else uses. */
export interface CollectorPlace {
  readonly namespace: string
  readonly folder: string
}

/** The samples of one flow that one collector understood. */
export interface FlowTotal {
  /** Addresses, ports and protocol, interfaces, VLAN and rate: `17 192.0.2.1:5001>192.0.2.2:7001 2>0 vlan 0 1/10`. */
  readonly flow: string
  readonly samples: number
  /** Sum of the frame lengths of the samples, octets. */
  readonly octets: number
}

interface FlowKey {
  readonly protocol: number
  readonly from: Endpoint
  readonly to: Endpoint
  readonly input: number
  readonly output: number
  readonly vlan: number
  readonly rate: number
}

function flowText({ protocol, from, to, input, output, vlan, rate }: FlowKey): string {
  return `${protocol} ${from.address}:${from.port}>${to.address}:${to.port} ${input}>${output} vlan ${vlan} 1/${rate}`
}

/** Adds up what belongs to one flow; in the order of the flows' names. */
export function sumFlows(parts: Iterable<FlowKey & { samples: number; octets: number }>): FlowTotal[] {
  const totals = new Map<string, { flow: string; samples: number; octets: number }>()
  for (const part of parts) {
    const flow = flowText(part)
    const total = totals.get(flow) ?? { flow, samples: 0, octets: 0 }
    total.samples += part.samples
    total.octets += part.octets
    totals.set(flow, total)
  }
  return [...totals.values()].sort((a, b) => (a.flow < b.flow ? -1 : 1))
}

const UDP = 17

/** Time that a program gets to write its files when it is told to end. */
const LAST_WORDS_MS = 5000

/** A program that has been told to run in a namespace. */
class Program {
  readonly #child: ChildProcess
  readonly #ended: Promise<void>
  readonly #name: string
  output = ''

  constructor(scope: Scope, namespace: string, command: readonly string[]) {
    this.#name = command[0]!
    // A process group of its own: some of these programs have children that outlive them.
    this.#child = spawn('ip', ['netns', 'exec', namespace, ...command], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output += text
      })
    }
    this.#ended = new Promise((resolve, reject) => {
      this.#child.on('error', reject)
      this.#child.on('close', () => resolve())
    })
    scope.after(() => this.#kill('SIGKILL'))
  }

  /** Waits until its output, or what else `look` sees, tells that it is as far as it has to be. */
  async ready(look: (output: string) => boolean): Promise<void> {
    await until(`sign of life of ${this.#name}`, () => {
      const { exitCode } = this.#child
      assert.equal(exitCode, null, `${this.#name} has ended: ${this.output}`)
      return look(this.output)
    })
  }

  /** Ends it as its operator would, and waits until it and its children have written everything. */
  async end(signal: NodeJS.Signals): Promise<void> {
    this.#child.kill(signal)
    await Promise.race([this.#ended, sleep(LAST_WORDS_MS, undefined, { ref: false })])
    this.#kill('SIGKILL')
    await this.#ended
  }

  #kill(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.#child.pid!, signal)
    } catch (error) {
      // ESRCH: no process of the group is left.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
}

/** What a program writes to standard output. */
function outputOf(program: string, ...args: string[]): string {
  return execFileSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
}

/** True when something listens at this UDP port of the namespace. */
function isListening(namespace: string, port: number): boolean {
  const sockets = outputOf('ip', 'netns', 'exec', namespace, 'cat', '/proc/net/udp', '/proc/net/udp6')
  return sockets.includes(`:${port.toString(16).toUpperCase().padStart(4, '0')} `)
}

/** A line of sfacctd's counter file, with the fields of if_counters. */
export type SfacctdCounters = Readonly<Record<string, string | number>>

export interface Sfacctd {
  /** Interface counters, as they came in so far. */
  counters(): SfacctdCounters[]
  /** Ends it, for what it knows of UDP flows. */
  end(): Promise<{ readonly flows: FlowTotal[]; readonly agents: ReadonlySet<string> }>
}

/** sfacctd of pmacct: flows and interface counters. */
export async function startSfacctd(
  scope: Scope,
  { namespace, folder }: CollectorPlace,
  { address, port }: Endpoint,
): Promise<Sfacctd> {
  const file = (name: string) => join(folder, `sfacctd-${name}`)
  const primitives = [
    'peer_src_ip, in_iface, out_iface, vlan, src_host, dst_host, src_port, dst_port, proto, sampling_rate',
  ]
  const settings = {
    daemonize: 'false',
    sfacctd_ip: address,
    sfacctd_port: port,
    plugins: 'print',
    aggregate: primitives,
    print_output: 'json',
    print_output_file: file('flows'),
    print_output_file_append: 'true',
    // Longer than the test: everything is written when it is ended.
    print_refresh_time: 600,
    sfacctd_counter_file: file('counters'),
    sfacctd_counter_output: 'json',
  }
  writeFileSync(
    file('conf'),
    Object.entries(settings)
      .map(([key, value]) => `${key}: ${value}\n`)
      .join(''),
  )
  const program = new Program(scope, namespace, ['sfacctd', '-f', file('conf')])
  await program.ready(() => isListening(namespace, port))

  /** What it writes is a JSON object a line; the last one may be under way. */
  const lines = (name: string): Record<string, string | number>[] =>
    !existsSync(file(name))
      ? []
      : readFileSync(file(name), 'utf8')
          .split('\n')
          .slice(0, -1)
          .map(line => JSON.parse(line))
  return {
    counters: () => lines('counters').filter(line => line.sf_cnt_type === 'sflow_cnt_generic'),
    async end() {
      await program.end('SIGINT')
      const entries = lines('flows')
      return {
        agents: new Set(entries.map(entry => String(entry.peer_ip_src))),
        flows: sumFlows(
          entries
            .filter(entry => entry.ip_proto === 'udp')
            .map(entry => ({
              protocol: UDP,
              from: { address: String(entry.ip_src), port: Number(entry.port_src) },
              to: { address: String(entry.ip_dst), port: Number(entry.port_dst) },
              input: Number(entry.iface_in),
              output: Number(entry.iface_out),
              vlan: Number(entry.vlan),
              rate: Number(entry.sampling_rate),
              samples: Number(entry.packets),
              octets: Number(entry.bytes),
            })),
        ),
      }
    },
  }
}

/** One sample as nfdump tells of it: packets and octets are multiplied by the rate. */
interface NfdumpRecord {
  readonly in_packets: number
  readonly in_bytes: number
  readonly proto: number
  readonly src_port: number
  readonly dst_port: number
  readonly src4_addr?: string
  readonly dst4_addr?: string
  readonly src6_addr?: string
  readonly dst6_addr?: string
  readonly input_snmp: number
  readonly output_snmp: number
  readonly src_vlan: number
}

export interface Sfcapd {
  /** Ends it; `packets` is its estimate of how many packets there were, samples × rate. */
  end(): Promise<{ readonly flows: FlowTotal[]; readonly packets: number; readonly sequenceErrors: number }>
}

/** sfcapd, read by nfdump: flows. */
export async function startSfcapd(
  scope: Scope,
  { namespace, folder }: CollectorPlace,
  { address, port }: Endpoint,
): Promise<Sfcapd> {
  const files = join(folder, 'sfcapd')
  mkdirSync(files)
  const command = ['sfcapd', '-b', address, '-p', String(port), '-w', files, '-t', '600', '-I', 'any']
  const program = new Program(scope, namespace, command)
  await program.ready(output => output.includes('Startup'))
  return {
    async end() {
      await program.end('SIGTERM')
      const json = outputOf('nfdump', '-R', files, '-o', 'json')
      const records = (JSON.parse(json) as NfdumpRecord[]).filter(record => record.proto === UDP)
      return {
        packets: records.reduce((sum, record) => sum + record.in_packets, 0),
        sequenceErrors: Number(/Sequence Errors: (\d+)/.exec(program.output)?.[1]),
        flows: sumFlows(
          records.map(record => ({
            protocol: record.proto,
            from: { address: (record.src4_addr ?? record.src6_addr)!, port: record.src_port },
            to: { address: (record.dst4_addr ?? record.dst6_addr)!, port: record.dst_port },
            input: record.input_snmp,
            output: record.output_snmp,
            vlan: record.src_vlan,
            rate: record.in_packets,
            samples: 1,
            octets: record.in_bytes / record.in_packets,
          })),
        ),
      }
    },
  }
}

/** A tree of fields as tshark writes it: its values are all text. */
export interface Tree {
  readonly [name: string]: string | Tree | (string | Tree)[]
}

export interface DissectedSample {
  /** Number of the sample's structure in enterprise 0: 3 flow sample, 4 counters sample. */
  readonly format: number
  readonly sequence: number
  readonly sourceType: number
  readonly sourceIndex: number
  readonly tree: Tree
}

export interface DissectedDatagram {
  readonly toPort: number
  readonly agent: string
  readonly subAgentId: number
  readonly sequence: number
  readonly uptimeMs: number
  /** Samples that the datagram says it has; of a malformed one tshark shows fewer. */
  readonly sampleCount: number
  readonly samples: readonly DissectedSample[]
  readonly malformed: boolean
}

export interface Tshark {
  /** Ends it when it has captured `count` datagrams; gives them in the order of the wire. */
  end(count: number): Promise<DissectedDatagram[]>
}

/** tshark: what is on the wire, dissected. */
export async function startTshark(
  scope: Scope,
  { namespace, folder }: CollectorPlace,
  device: string,
  ports: readonly number[],
): Promise<Tshark> {
  const file = join(folder, 'wire.pcapng')
  const filter = ports.map(port => `udp dst port ${port}`).join(' or ')
  // It tells of each packet in a line, when the packet is in the file.
  const told = ['-P', '-l', '-T', 'fields', '-e', 'frame.number']
  const program = new Program(scope, namespace, ['tshark', '-i', device, '-f', filter, '-w', file, ...told])
  await program.ready(output => output.includes('Capture started'))
  return {
    async end(count) {
      await program.ready(output => new RegExp(`^${count}$`, 'm').test(output))
      await program.end('SIGINT')
      const decodeAs = ports.flatMap(port => ['-d', `udp.port==${port},sflow`])
      const json = outputOf('tshark', '-r', file, ...decodeAs, '-T', 'json', '--no-duplicate-keys')
      return (JSON.parse(json) as { _source: { layers: Tree } }[]).map(packet =>
        dissected(packet._source.layers),
      )
    },
  }
}

function dissected(layers: Tree): DissectedDatagram {
  const sflow = layers.sflow as Tree
  const samples = Object.entries(sflow).flatMap(([name, value]) =>
    / (flow|counters) sample, seq /.test(name) ? trees(value).map(dissectedSample) : [],
  )
  return {
    toPort: number(layers.udp as Tree, 'udp.dstport'),
    agent: String(sflow['sflow_245.agent'] ?? sflow['sflow_245.agent.v6']),
    subAgentId: number(sflow, 'sflow_245.sub_agent_id'),
    sequence: number(sflow, 'sflow_245.sequence_number'),
    uptimeMs: number(sflow, 'sflow_245.sysuptime'),
    sampleCount: number(sflow, 'sflow_245.numsamples'),
    samples,
    malformed: JSON.stringify(layers).includes('"_ws.malformed"'),
  }
}

function dissectedSample(tree: Tree): DissectedSample {
  const format = number(tree, 'sflow_245.sampletype')
  const prefix = format === 3 ? 'sflow.flow_sample' : 'sflow.counters_sample'
  return {
    format,
    sequence: number(tree, `${prefix}.sequence_number`),
    sourceType: number(tree, `${prefix}.source_id_type`),
    sourceIndex: number(tree, `${prefix}.source_id_index`),
    tree,
  }
}

/** Flows of UDP packets in the flow samples that tshark dissected. */
export function dissectedFlows(samples: Iterable<DissectedSample>): FlowTotal[] {
  return sumFlows(
    [...samples].flatMap(({ format, tree }) => {
      if (format !== 3) return []
      const header = tree['Raw packet header'] as Tree
      const layers = header['sflow_245.header_tree'] as Tree
      const [ip4, ip6, udp, vlan] = [layers.ip, layers.ipv6, layers.udp, layers.vlan] as (Tree | undefined)[]
      if (udp === undefined) return []
      const address = (end: 'src' | 'dst') => String(ip4?.[`ip.${end}`] ?? ip6?.[`ipv6.${end}`])
      const interfaceOf = (side: 'input' | 'output') =>
        number(tree, `sflow.flow_sample.${side}_interface_value`)
      return [
        {
          protocol: UDP,
          from: { address: address('src'), port: number(udp, 'udp.srcport') },
          to: { address: address('dst'), port: number(udp, 'udp.dstport') },
          input: interfaceOf('input'),
          output: interfaceOf('output'),
          vlan: vlan === undefined ? 0 : number(vlan, 'vlan.id'),
          rate: number(tree, 'sflow.flow_sample.sampling_rate'),
          samples: 1,
          octets: number(header, 'sflow_245.header.frame_length'),
        },
      ]
    }),
  )
}

/** The trees of a name that may occur several times. */
export function trees(value: Tree[string] | undefined): Tree[] {
  if (value === undefined) return []
  return (Array.isArray(value) ? value : [value]) as Tree[]
}

/** A field that has to be there, as a number. */
export function number(tree: Tree, field: string): number {
  const value = tree[field]
  assert.equal(typeof value, 'string', `tshark shows no ${field}`)
  return Number(value)
}
