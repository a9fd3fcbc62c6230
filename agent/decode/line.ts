/**
 * One line for each flow sample, discarded packet and counter record, of `name=value` words, for grep, awk and eyes. The
 * words that every line has come first and in one order; what is not there is left out.
 */

import { formatIp6 } from '../wire/addresses.ts'
import { IP_PROTOCOL, PacketFields, PROTOCOL_NAMES, TCP_FLAGS } from '../wire/packet.ts'
import { discardReason, meantDiscardReason } from '../wire/sflow/discard-reasons.ts'
import { dataSourceType } from '../wire/sflow/enumerations.ts'
import { toHex } from '../wire/sflow/json.ts'
import type { Declaration } from '../wire/sflow/record.ts'
import { counterRecords, flowRecords, sampleTypes } from '../wire/sflow/registry.ts'
import { Reader, WireError } from '../wire/xdr.ts'
import { type ScannedSample, u32 } from './scanner.ts'
import { fieldsText, isoTime } from './text.ts'
import { type Literal, literal, type TextBuffer } from './text-buffer.ts'

const COLON = 58
const INTERNAL = 0x3fffffff

/** What stands between values. */
const WORD = {
  zone: literal('Z '),
  rate: literal(' rate='),
  pool: literal(' pool='),
  drops: literal(' drops='),
  seq: literal(' seq='),
  colon: literal(':'),
  sub: literal(' sub='),
  bytes: literal(' bytes='),
  vlan: literal(' vlan='),
  comma: literal(','),
  mpls: literal(' mpls='),
  arp: literal(' arp='),
  sport: literal(' sport='),
  dport: literal(' dport='),
  icmp: literal(' icmp='),
  slash: literal('/'),
  fragment: literal(' fragment='),
  tos: literal(' tos='),
  ttl: literal(' ttl='),
  queue: literal(' queue='),
  depth: literal(' depth='),
  delay: literal(' delay='),
  reason: literal(' reason='),
  sample: literal('sample'),
  source: literal(' source='),
  agent: literal(' agent='),
  srcMac: literal(' src_mac='),
  dstMac: literal(' dst_mac='),
  type: literal(' type=0x'),
  src: literal(' src='),
  dst: literal(' dst='),
  proto: literal(' proto='),
  flags: literal(' flags='),
  time: literal(' time='),
  discarded: literal('discarded:'),
  multiple: literal('multiple:'),
  internal: literal('internal'),
  in: literal(' in='),
  out: literal(' out='),
  linuxReason: literal(' linux_reason="'),
  function: literal(' function="'),
  trapGroup: literal(' trap_group="'),
  trap: literal(' trap="'),
  flow: literal('flow'),
  drop: literal('drop'),
  counters: literal('counters'),
}
const PROTOCOLS = Array.from({ length: 256 }, (_, number) =>
  literal(PROTOCOL_NAMES[number] ?? String(number)),
)
const SOURCES = [0, 1, 2, 3].map(type => literal(dataSourceType[type]!))
const NEW_LINE = 10

const fields = new PacketFields()
const FLAGS = Array.from({ length: 256 }, (_, bits) =>
  literal(TCP_FLAGS.filter((_flag, bit) => (bits >> bit) & 1).join(',') || 'none'),
)

/** When a datagram came: what lines begin with. */
export class LineTime {
  #isKnown = false
  #second = Number.NaN
  /** Up to the point after the seconds, which hardly ever changes. */
  #upToSecond = literal('')
  #millisecond = 0

  /** Nanoseconds since 1970; undefined if not known. */
  set(nanoseconds: bigint | undefined): void {
    this.#isKnown = nanoseconds !== undefined
    if (nanoseconds === undefined) return
    const ms = Number(nanoseconds / 1_000_000n)
    const second = Math.floor(ms / 1000)
    this.#millisecond = ms - second * 1000
    if (second === this.#second) return
    this.#second = second
    this.#upToSecond = literal(isoTime(nanoseconds).slice(0, -4))
  }

  write(out: TextBuffer): void {
    if (!this.#isKnown) return
    out.put(this.#upToSecond)
    out.three(this.#millisecond)
    out.put(WORD.zone)
  }
}

/** Writes the lines of a sample, each after its time. */
export function sampleLines(s: ScannedSample, time: LineTime, out: TextBuffer): void {
  switch (s.kind) {
    case 'flow':
      flowLine(s, time, out)
      break
    case 'discard':
      discardLine(s, time, out)
      break
    case 'counters':
      counterLines(s, time, out)
      break
    default:
      otherLine(s, time, out)
  }
}

function flowLine(s: ScannedSample, time: LineTime, out: TextBuffer): void {
  begin(s, time, WORD.flow, out)
  out.word(WORD.rate, s.rate)
  out.word(WORD.pool, s.pool)
  out.word(WORD.drops, s.drops)
  port(out, WORD.in, s.inputFormat, s.input)
  port(out, WORD.out, s.outputFormat, s.output)
  packet(s, out)
  forwarding(s, out)
  others(s, flowRecords, out)
  out.character(NEW_LINE)
}

function discardLine(s: ScannedSample, time: LineTime, out: TextBuffer): void {
  begin(s, time, WORD.drop, out)
  out.word(WORD.drops, s.drops)
  out.put(WORD.reason)
  reason(out, s.reason)
  port(out, WORD.in, 0, s.input)
  port(out, WORD.out, 0, s.output)
  packet(s, out)
  forwarding(s, out)
  others(s, flowRecords, out)
  out.character(NEW_LINE)
}

/** A line for each record. */
function counterLines(s: ScannedSample, time: LineTime, out: TextBuffer): void {
  for (let i = 0; i < s.otherCount; i++) {
    begin(s, time, WORD.counters, out)
    other(s, s.others[i]!, counterRecords, out)
    out.character(NEW_LINE)
  }
}

function otherLine(s: ScannedSample, time: LineTime, out: TextBuffer): void {
  time.write(out)
  out.put(WORD.sample)
  agent(s, out)
  described(s, s.sampleAt, s.bodyAt, s.bodyEnd, sampleTypes.get(s.format), s.format, out)
  out.character(NEW_LINE)
}

function begin(s: ScannedSample, time: LineTime, name: Literal, out: TextBuffer): void {
  time.write(out)
  out.put(name)
  agent(s, out)
  out.word(WORD.seq, s.sequence)
  out.put(WORD.source)
  if (s.sourceType < SOURCES.length) out.put(SOURCES[s.sourceType]!)
  else out.number(s.sourceType)
  out.word(WORD.colon, s.sourceIndex)
}

function agent(s: ScannedSample, out: TextBuffer): void {
  out.put(WORD.agent)
  if (s.agentLength === 4) out.ip4(s.bytes, s.agentAt)
  else out.ascii(s.agentLength === 0 ? 'unknown' : formatIp6(s.bytes, s.agentAt))
  if (s.subAgent !== 0) out.word(WORD.sub, s.subAgent)
}

/** What the sampled header says. */
function packet(s: ScannedSample, out: TextBuffer): void {
  const { bytes, headerAt } = s
  if (headerAt < 0) return
  out.word(WORD.bytes, s.frameLength)
  fields.read(s.headerProtocol, bytes, headerAt, s.headerEnd)
  if (fields.macAt >= 0) {
    out.put(WORD.srcMac)
    out.bytesInHex(bytes, fields.macAt + 6, fields.macAt + 12, COLON)
    out.put(WORD.dstMac)
    out.bytesInHex(bytes, fields.macAt, fields.macAt + 6, COLON)
  }
  for (let i = 0; i < fields.vlanCount; i++) {
    const at = fields.vlanAt + 4 * i
    out.word(i === 0 ? WORD.vlan : WORD.comma, ((bytes[at]! << 8) | bytes[at + 1]!) & 0xfff)
  }
  for (let i = 0; i < fields.mplsCount; i++) {
    out.word(i === 0 ? WORD.mpls : WORD.comma, u32(bytes, fields.mplsAt + 4 * i) >>> 12)
  }
  if (fields.ipVersion === 0) {
    if (fields.etherType >= 0) {
      out.put(WORD.type)
      out.hex(fields.etherType, 4)
    }
    return
  }
  out.put(WORD.src)
  ip(out, bytes, fields.srcAt)
  out.put(WORD.dst)
  ip(out, bytes, fields.dstAt)
  if (fields.arpOperation >= 0) {
    out.word(WORD.arp, fields.arpOperation)
    return
  }
  out.put(WORD.proto)
  out.put(PROTOCOLS[fields.ipProtocol]!)
  if (fields.srcPort >= 0) {
    out.word(WORD.sport, fields.srcPort)
    out.word(WORD.dport, fields.dstPort)
  }
  if (fields.ipProtocol === IP_PROTOCOL.tcp && fields.tcpFlags >= 0) {
    out.put(WORD.flags)
    out.put(FLAGS[fields.tcpFlags]!)
  }
  if (fields.icmpType >= 0) {
    out.word(WORD.icmp, fields.icmpType)
    out.word(WORD.slash, fields.icmpCode)
  }
  if (fields.fragmentOffset >= 0) out.word(WORD.fragment, fields.fragmentOffset)
  if (fields.tos > 0) out.word(WORD.tos, fields.tos)
  out.word(WORD.ttl, fields.ttl)
}

function ip(out: TextBuffer, bytes: Uint8Array, at: number): void {
  if (fields.ipVersion === 4) out.ip4(bytes, at)
  else out.ascii(formatIp6(bytes, at))
}

/** What the forwarding plane added. */
function forwarding(s: ScannedSample, out: TextBuffer): void {
  if (s.queue >= 0) out.word(WORD.queue, s.queue)
  if (s.queueDepth >= 0) out.word(WORD.depth, s.queueDepth)
  if (s.transitDelay >= 0) out.word(WORD.delay, s.transitDelay)
  if (s.dropReasonAt >= 0) text(s, WORD.linuxReason, s.dropReasonAt, out)
  if (s.functionAt >= 0) text(s, WORD.function, s.functionAt, out)
  if (s.trapAt >= 0) {
    text(s, WORD.trapGroup, s.trapGroupAt, out)
    text(s, WORD.trap, s.trapAt, out)
  }
  if (s.timestampAt >= 0) {
    out.put(WORD.time)
    out.number64(s.bytes, s.timestampAt)
  }
}

function text(s: ScannedSample, name: Literal, at: number, out: TextBuffer): void {
  out.put(name)
  out.foreign(s.bytes, at + 4, at + 4 + u32(s.bytes, at))
  out.ascii('"')
}

/** Records that have no words of their own: `name={field=value …}`, or the bytes of what is not understood. */
function others(s: ScannedSample, known: ReadonlyMap<number, Declaration>, out: TextBuffer): void {
  for (let i = 0; i < s.otherCount; i++) {
    out.ascii(' ')
    const at = s.others[i]!
    const name = known.get(u32(s.bytes, at))?.name
    if (name !== undefined) {
      out.ascii(name)
      out.ascii('={')
    }
    other(s, at, known, out, name === undefined ? '' : undefined)
    if (name !== undefined) out.ascii('}')
  }
}

function other(
  s: ScannedSample,
  at: number,
  known: ReadonlyMap<number, Declaration>,
  out: TextBuffer,
  separator = ' ',
): void {
  const format = u32(s.bytes, at)
  const end = Math.min(at + 8 + ((u32(s.bytes, at + 4) + 3) & ~3), s.bodyEnd)
  described(s, at, at + 8, end, known.get(format), format, out, separator)
}

function described(
  s: ScannedSample,
  at: number,
  body: number,
  end: number,
  declaration: Declaration | undefined,
  format: number,
  out: TextBuffer,
  separator = ' ',
): void {
  if (declaration !== undefined) {
    const named = declaration.family === 'flow' ? '' : `${separator}${declaration.name} `
    const reader = new Reader(s.bytes, [], body, end)
    try {
      const value = fieldsText(declaration.fields, declaration.read(reader))
      out.text(named + value)
      if (reader.left > 0) out.text(` tail=${toHex(reader.rest())}`)
      return
    } catch (error) {
      // What cannot be read is shown as it is.
      if (!(error instanceof WireError)) throw error
      s.broken = true
    }
  }
  out.text(
    `${separator}${format >>> 12}:${format & 0xfff}@${at - s.start}=${toHex(s.bytes.subarray(body, end))}`,
  )
}

function port(out: TextBuffer, name: Literal, format: number, value: number): void {
  out.put(name)
  if (format === 1) {
    out.put(WORD.discarded)
    reason(out, value)
  } else if (format === 2) {
    out.put(WORD.multiple)
    out.number(value)
  } else if (format === 0 && (value === INTERNAL || value === 0xffffffff)) {
    out.put(WORD.internal)
  } else {
    out.number(value)
  }
}

function reason(out: TextBuffer, code: number): void {
  const name = discardReason[meantDiscardReason(code)]
  if (name === undefined) out.number(code)
  else out.ascii(name)
}
