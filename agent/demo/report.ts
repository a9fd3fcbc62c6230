/** What arrived at the demo's collector, from the JSON lines of `weir decode`, as tables for people. */
import { tableLines } from '../command/table.ts'
import { size } from '../quantities.ts'
import { DISCARD_REASONS } from '../wire/sflow/discard-reasons.ts'

interface Row {
  samples: number
  packets: number
  bytes: number
}

/** What was seen of a queue and of the way to it. */
interface Waiting {
  readonly delays: number[]
  readonly depths: number[]
}

/** What arrived in some time. */
interface Seen {
  readonly flows: Map<string, Row>
  /** By output interface. */
  readonly queues: Map<number, Waiting>
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
const REASONS = new Map(DISCARD_REASONS.map(([code, name]) => [code, name]))
/** Format of an output interface that is the reason of a drop. */
const DISCARDED = 1
/** What stands for the output of a dropped packet. */
const NOWHERE = -1
const LIVE_FLOWS = 8

export class DemoReport {
  datagrams = 0
  flowSamples = 0
  countersSamples = 0
  discards = 0
  readonly #all = nothing()
  /** Since the last live table. */
  #now = nothing()
  /** Drops by reason, the kernel's own word for it, and the interfaces. */
  readonly #drops = new Map<string, number>()
  readonly #names = new Map<number, string>()
  /** Of each interface: its generic counters in the first and in the last counters sample. */
  readonly #interfaces = new Map<number, { first: Record<string, unknown>; last: Record<string, unknown> }>()
  readonly #host = new Map<string, Record<string, unknown>>()
  #problems = 0

  /** Takes one line of `weir decode --json`. */
  add(line: string): void {
    const datagram = JSON.parse(line) as { samples?: Sample[]; problems?: unknown[] }
    this.datagrams++
    this.#problems += datagram.problems?.length ?? 0
    for (const sample of datagram.samples ?? []) {
      if (sample.sample === 'flow_sample_expanded') this.#flow(sample)
      else if (sample.sample === 'counters_sample_expanded') this.#counters(sample)
      else if (sample.sample === 'discarded_packet') this.#discard(sample)
    }
  }

  /** What came in the time since the last call, as a table for a terminal. */
  live(seconds: number): string {
    const { flows, queues } = this.#now
    this.#now = nothing()
    const lines: string[] = []
    const print = (text = '') => lines.push(text)
    const largest = [...flows].sort(([, a], [, b]) => b.bytes - a.bytes).slice(0, LIVE_FLOWS)
    table(print, [
      ['in', 'out', 'protocol', 'source', 'destination', '>packets/s', '>Mb/s'],
      ...largest.map(([key, row]) => [
        ...this.#named(key.split(' ')),
        Math.round(row.packets / seconds).toLocaleString('en'),
        ((row.bytes * 8) / seconds / 1e6).toFixed(2),
      ]),
    ])
    print()
    this.#printQueues(print, queues)
    print()
    this.#printDrops(print)
    return `${lines.join('\n')}\n`
  }

  /** The same in one line. */
  liveLine(seconds: number): string {
    const { flows, queues } = this.#now
    this.#now = nothing()
    const rows = [...flows.values()]
    const bits = rows.reduce((sum, { bytes }) => sum + bytes * 8, 0) / seconds
    const parts = [`${(bits / 1e6).toFixed(1)} Mb/s in ${rows.length} flows`]
    for (const [ifIndex, { depths, delays }] of queues) {
      const deepest = depths.length === 0 ? '' : ` queue up to ${size(Math.max(...depths))},`
      parts.push(`${this.#name(ifIndex)}:${deepest} delay ${spread(delays, duration).join(' to ')}`)
    }
    const drops = [...this.#drops.values()].reduce((sum, count) => sum + count, 0)
    return [...parts, `${drops} drops`].join('; ')
  }

  print(out: { write(text: string): unknown }): void {
    const print = (text = '') => out.write(`${text}\n`)
    print()
    print(
      `${this.datagrams} datagrams: ${this.flowSamples} flow samples, ${this.discards} discarded packets, ` +
        `${this.countersSamples} counters samples, ${this.#problems} problems found by the decoder`,
    )
    print('\nFlows, estimated from the samples')
    const flows = [...this.#all.flows].sort(([, a], [, b]) => b.bytes - a.bytes)
    table(print, [
      ['in', 'out', 'protocol', 'source', 'destination', '>samples', '>packets', '>bytes'],
      ...flows.map(([key, row]) => [
        ...this.#named(key.split(' ')),
        String(row.samples),
        row.packets.toLocaleString('en'),
        size(row.bytes),
      ]),
    ])
    if (this.#all.queues.size > 0) {
      print('\nQueues and delay through the router, of the sampled packets')
      this.#printQueues(print, this.#all.queues)
    }
    if (this.#drops.size > 0) {
      print('\nDropped packets')
      this.#printDrops(print)
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
    const input = (value.input as InterfaceValue).value
    const output = value.output as InterfaceValue
    const source = (value.source_id as { index: number }).index
    // A packet can be sampled where it comes in and again where it leaves: it is counted once.
    if (input !== INTERNAL && input !== source) return
    const out = output.format === DISCARDED ? NOWHERE : output.value
    const header = records.find(({ record }) => record === 'sampled_header')
    const word = (name: string, field: string) => {
      const found = records.find(({ record }) => record === name)?.value[field]
      return found === undefined ? undefined : Number(found)
    }
    const delay = word('extended_transit', 'delay')
    const depth = word('extended_queue', 'depth')
    if (delay !== undefined) {
      for (const { queues } of [this.#all, this.#now]) {
        const waiting = queues.get(out) ?? { delays: [], depths: [] }
        queues.set(out, waiting)
        waiting.delays.push(delay)
        if (depth !== undefined) waiting.depths.push(depth)
      }
    }
    const packet = header?.packet
    if (header === undefined || packet?.src_ip === undefined) return
    const rate = Number(value.sampling_rate)
    const end = (address = '', port = 0) =>
      port > 0 && port < FIRST_EPHEMERAL_PORT ? `${address}:${port}` : address
    const key = [
      input,
      out,
      PROTOCOLS[packet.ip_protocol ?? -1] ?? packet.ip_protocol ?? 'other',
      end(packet.src_ip, packet.src_port),
      end(packet.dst_ip, packet.dst_port),
    ].join(' ')
    for (const { flows } of [this.#all, this.#now]) {
      const row = flows.get(key) ?? { samples: 0, packets: 0, bytes: 0 }
      row.samples++
      row.packets += rate
      row.bytes += rate * Number(header.value.frame_length)
      flows.set(key, row)
    }
  }

  #discard({ value, records }: Sample): void {
    this.discards++
    const word = (record: string, field: string) => records.find(one => one.record === record)?.value[field]
    const reason = word('extended_linux_drop_reason', 'reason') as string | undefined
    const symbol = word('extended_function', 'symbol') as string | undefined
    const known = reason === undefined || reason === 'NOT_SPECIFIED' ? symbol?.replace(/\+.*/, '') : reason
    const way = [value.inputifindex, value.outputifindex]
    const key = [...way, REASONS.get(Number(value.reason)) ?? value.reason, known ?? '?'].join(' ')
    this.#drops.set(key, (this.#drops.get(key) ?? 0) + 1)
  }

  #printQueues(print: (text: string) => void, queues: ReadonlyMap<number, Waiting>): void {
    const cells = (values: readonly number[], text: (value: number) => string) =>
      values.length === 0 ? ['', ''] : spread(values, text)
    table(print, [
      ['out', '>samples', '>depth: median', '>highest', '>delay: median', '>highest'],
      ...[...queues].map(([ifIndex, { delays, depths }]) => [
        this.#name(ifIndex),
        String(delays.length),
        ...cells(depths, size),
        ...cells(delays, duration),
      ]),
    ])
  }

  #printDrops(print: (text: string) => void): void {
    const drops = [...this.#drops].sort(([, a], [, b]) => b - a)
    table(print, [
      ['in', 'out', 'dropped because', 'kernel', '>reported'],
      ...drops.map(([key, count]) => [...this.#named(key.split(' ')), String(count)]),
    ])
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
    return [this.#name(Number(input)), this.#name(Number(output)), ...rest]
  }

  #name(ifIndex: number): string {
    if (ifIndex === INTERNAL) return 'internal'
    if (ifIndex === NOWHERE) return 'dropped'
    return ifIndex === 0 ? '?' : (this.#names.get(ifIndex) ?? String(ifIndex))
  }
}

interface InterfaceValue {
  readonly format: number
  readonly value: number
}

function nothing(): Seen {
  return { flows: new Map(), queues: new Map() }
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

function duration(nanoseconds: number): string {
  return nanoseconds < 1e6 ? `${(nanoseconds / 1e3).toFixed(1)} µs` : `${(nanoseconds / 1e6).toFixed(2)} ms`
}

function round(value: unknown): string {
  return Number(value).toFixed(2)
}
