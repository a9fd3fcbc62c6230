/** What arrived at the demo's collector, from the JSON lines of `weir decode`, as tables for people. */
import { size, tableLines } from '../command/table.ts'

interface Row {
  samples: number
  packets: number
  bytes: number
}

interface Sample {
  readonly sample: string
  readonly value: Readonly<Record<string, unknown>>
  readonly records: readonly { record: string; value: Record<string, unknown>; packet?: Packet }[]
}

interface Packet {
  readonly ip_protocol?: number
  readonly src_ip?: string
  readonly dst_ip?: string
  readonly src_port?: number
  readonly dst_port?: number
}

const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 58: 'ICMPv6' }
const INTERNAL = 0x3fffffff
/** The sender's own ports change with each run: the flows are told apart by the receiver's. */
const FIRST_EPHEMERAL_PORT = 32768

export class DemoReport {
  datagrams = 0
  flowSamples = 0
  countersSamples = 0
  readonly #flows = new Map<string, Row>()
  readonly #names = new Map<number, string>()
  /** Of each interface: its generic counters in the first and in the last counters sample. */
  readonly #interfaces = new Map<number, { first: Record<string, unknown>; last: Record<string, unknown> }>()
  readonly #host = new Map<string, Record<string, unknown>>()
  readonly #delays: number[] = []
  readonly #depths: number[] = []
  #problems = 0

  /** Takes one line of `weir decode --json`. */
  add(line: string): void {
    const datagram = JSON.parse(line) as { samples?: Sample[]; problems?: unknown[] }
    this.datagrams++
    this.#problems += datagram.problems?.length ?? 0
    for (const sample of datagram.samples ?? []) {
      if (sample.sample === 'flow_sample_expanded') this.#flow(sample)
      else if (sample.sample === 'counters_sample_expanded') this.#counters(sample)
    }
  }

  print(out: { write(text: string): unknown }): void {
    const print = (text = '') => out.write(`${text}\n`)
    print()
    print(
      `${this.datagrams} datagrams: ${this.flowSamples} flow samples, ${this.countersSamples} counters samples, ` +
        `${this.#problems} problems found by the decoder`,
    )
    print('\nFlows, estimated from the samples')
    const flows = [...this.#flows].sort(([, a], [, b]) => b.bytes - a.bytes)
    table(print, [
      ['in', 'out', 'protocol', 'source', 'destination', '>samples', '>packets', '>bytes'],
      ...flows.map(([key, row]) => [
        ...this.#named(key.split(' ')),
        String(row.samples),
        row.packets.toLocaleString('en'),
        size(row.bytes),
      ]),
    ])
    if (this.#delays.length > 0 || this.#depths.length > 0) {
      print('\nTransit delay and queue depth')
      const rows: [string, readonly number[], (value: number) => string][] = [
        ['transit delay', this.#delays, value => `${value / 1000} µs`],
        ['queue depth', this.#depths, size],
      ]
      table(print, [
        ['', '>samples', '>median', '>highest'],
        ...rows
          .filter(([, values]) => values.length > 0)
          .map(([name, values, text]) => [name, String(values.length), ...spread(values, text)]),
      ])
    }
    print('\nInterfaces, from the counters samples (difference between the first and the last)')
    table(print, [
      ['ifIndex', 'name', 'status', '>speed', '>octets in', '>packets in', '>octets out', '>packets out'],
      ...[...this.#interfaces].map(([ifIndex, { first, last }]) => [
        String(ifIndex),
        this.#names.get(ifIndex) ?? '',
        status(last.ifStatus),
        `${Number(last.ifSpeed) / 1e6} Mb/s`,
        ...['ifInOctets', 'ifInUcastPkts', 'ifOutOctets', 'ifOutUcastPkts'].map(name =>
          (Number(last[name]) - Number(first[name])).toLocaleString('en'),
        ),
      ]),
    ])
    const { host_descr: descr, host_cpu: cpu, host_memory: memory } = Object.fromEntries(this.#host)
    if (descr !== undefined && cpu !== undefined && memory !== undefined) {
      print('\nHost')
      print(
        `  ${descr.hostname}, Linux ${descr.os_release}, ${cpu.cpu_num} processors, load ${round(cpu.load_one)}`,
      )
      print(`  memory ${size(Number(memory.mem_total))}, of which ${size(Number(memory.mem_free))} free`)
    }
    print()
  }

  #flow({ value, records }: Sample): void {
    this.flowSamples++
    const header = records.find(({ record }) => record === 'sampled_header')
    for (const { record, value: fields } of records) {
      if (record === 'extended_transit') this.#delays.push(Number(fields.delay))
      if (record === 'extended_queue') this.#depths.push(Number(fields.depth))
    }
    const packet = header?.packet
    if (header === undefined || packet?.src_ip === undefined) return
    const rate = Number(value.sampling_rate)
    const end = (address = '', port = 0) =>
      port > 0 && port < FIRST_EPHEMERAL_PORT ? `${address}:${port}` : address
    const key = [
      (value.input as { value: number }).value,
      (value.output as { value: number }).value,
      PROTOCOLS[packet.ip_protocol ?? 0] ?? packet.ip_protocol,
      end(packet.src_ip, packet.src_port),
      end(packet.dst_ip, packet.dst_port),
    ].join(' ')
    const row = this.#flows.get(key) ?? { samples: 0, packets: 0, bytes: 0 }
    row.samples++
    row.packets += rate
    row.bytes += rate * Number(header.value.frame_length)
    this.#flows.set(key, row)
  }

  #counters({ value, records }: Sample): void {
    this.countersSamples++
    const source = value.source_id as { type: number; index: number }
    for (const { record, value: fields } of records) {
      if (record === 'port_name') this.#names.set(source.index, String(fields.name))
      else if (record === 'if_counters') {
        const first = this.#interfaces.get(source.index)?.first ?? fields
        this.#interfaces.set(source.index, { first, last: fields })
      } else this.#host.set(record, fields)
    }
  }

  /** The first two words of a flow are interfaces. */
  #named([input, output, ...rest]: string[]): string[] {
    const name = (word: string) => {
      const ifIndex = Number(word)
      if (ifIndex === INTERNAL) return 'internal'
      return ifIndex === 0 ? '?' : (this.#names.get(ifIndex) ?? word)
    }
    return [name(input!), name(output!), ...rest]
  }
}

/** Prints rows in columns, indented; a heading that begins with > aligns to the right. */
function table(print: (text: string) => void, rows: readonly (readonly string[])[]): void {
  for (const line of tableLines(rows)) print(`  ${line}`)
}

function spread(values: readonly number[], text: (value: number) => string): string[] {
  const sorted = values.toSorted((a, b) => a - b)
  return [text(sorted[sorted.length >> 1]!), text(sorted.at(-1)!)]
}

function status(bits: unknown): string {
  const [admin, oper] = [Number(bits) & 1, Number(bits) & 2]
  if (admin === 0) return 'down'
  return oper === 0 ? 'up, no link' : 'up'
}

function round(value: unknown): string {
  return Number(value).toFixed(2)
}
