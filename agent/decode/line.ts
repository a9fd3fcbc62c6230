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
import { fieldsText } from './text.ts'
import type { TextBuffer } from './text-buffer.ts'

const COLON = 58
const INTERNAL = 0x3fffffff

const fields = new PacketFields()
const flagTexts = Array.from(
  { length: 256 },
  (_, bits) => TCP_FLAGS.filter((_flag, bit) => (bits >> bit) & 1).join(',') || 'none',
)

/** Writes the lines of a sample, each after `prefix`, which is ASCII (a time, or nothing). */
export function sampleLines(s: ScannedSample, prefix: string, out: TextBuffer): void {
  switch (s.kind) {
    case 'flow':
      flowLine(s, prefix, out)
      break
    case 'discard':
      discardLine(s, prefix, out)
      break
    case 'counters':
      counterLines(s, prefix, out)
      break
    default:
      otherLine(s, prefix, out)
  }
}

function flowLine(s: ScannedSample, prefix: string, out: TextBuffer): void {
  begin(s, prefix, 'flow', out)
  word(out, ' rate=', s.rate)
  word(out, ' pool=', s.pool)
  word(out, ' drops=', s.drops)
  port(out, ' in=', s.inputFormat, s.input)
  port(out, ' out=', s.outputFormat, s.output)
  packet(s, out)
  forwarding(s, out)
  others(s, flowRecords, out)
  out.ascii('\n')
}

function discardLine(s: ScannedSample, prefix: string, out: TextBuffer): void {
  begin(s, prefix, 'drop', out)
  word(out, ' drops=', s.drops)
  out.ascii(' reason=')
  reason(out, s.reason)
  port(out, ' in=', 0, s.input)
  port(out, ' out=', 0, s.output)
  packet(s, out)
  forwarding(s, out)
  others(s, flowRecords, out)
  out.ascii('\n')
}

/** A line for each record. */
function counterLines(s: ScannedSample, prefix: string, out: TextBuffer): void {
  for (let i = 0; i < s.otherCount; i++) {
    begin(s, prefix, 'counters', out)
    other(s, s.others[i]!, counterRecords, out)
    out.ascii('\n')
  }
}

function otherLine(s: ScannedSample, prefix: string, out: TextBuffer): void {
  out.ascii(prefix)
  out.ascii('sample')
  agent(s, out)
  described(s, s.sampleAt, s.bodyAt, s.bodyEnd, sampleTypes.get(s.format), s.format, out)
  out.ascii('\n')
}

function begin(s: ScannedSample, prefix: string, name: string, out: TextBuffer): void {
  out.ascii(prefix)
  out.ascii(name)
  agent(s, out)
  word(out, ' seq=', s.sequence)
  out.ascii(' source=')
  out.ascii(dataSourceType[s.sourceType] ?? String(s.sourceType))
  word(out, ':', s.sourceIndex)
}

function agent(s: ScannedSample, out: TextBuffer): void {
  out.ascii(' agent=')
  if (s.agentLength === 4) out.ip4(s.bytes, s.agentAt)
  else out.ascii(s.agentLength === 0 ? 'unknown' : formatIp6(s.bytes, s.agentAt))
  if (s.subAgent !== 0) word(out, ' sub=', s.subAgent)
}

/** What the sampled header says. */
function packet(s: ScannedSample, out: TextBuffer): void {
  const { bytes, headerAt } = s
  if (headerAt < 0) return
  word(out, ' bytes=', s.frameLength)
  fields.read(s.headerProtocol, bytes, headerAt, s.headerEnd)
  if (fields.macAt >= 0) {
    out.ascii(' src_mac=')
    out.bytesInHex(bytes, fields.macAt + 6, fields.macAt + 12, COLON)
    out.ascii(' dst_mac=')
    out.bytesInHex(bytes, fields.macAt, fields.macAt + 6, COLON)
  }
  for (let i = 0; i < fields.vlanCount; i++) {
    const at = fields.vlanAt + 4 * i
    word(out, i === 0 ? ' vlan=' : ',', ((bytes[at]! << 8) | bytes[at + 1]!) & 0xfff)
  }
  for (let i = 0; i < fields.mplsCount; i++) {
    word(out, i === 0 ? ' mpls=' : ',', u32(bytes, fields.mplsAt + 4 * i) >>> 12)
  }
  if (fields.ipVersion === 0) {
    if (fields.etherType >= 0) {
      out.ascii(' type=0x')
      out.hex(fields.etherType, 4)
    }
    return
  }
  out.ascii(' src=')
  ip(out, bytes, fields.srcAt)
  out.ascii(' dst=')
  ip(out, bytes, fields.dstAt)
  if (fields.arpOperation >= 0) {
    word(out, ' arp=', fields.arpOperation)
    return
  }
  out.ascii(' proto=')
  out.ascii(PROTOCOL_NAMES[fields.ipProtocol] ?? String(fields.ipProtocol))
  if (fields.srcPort >= 0) {
    word(out, ' sport=', fields.srcPort)
    word(out, ' dport=', fields.dstPort)
  }
  if (fields.ipProtocol === IP_PROTOCOL.tcp && fields.tcpFlags >= 0) {
    out.ascii(' flags=')
    out.ascii(flagTexts[fields.tcpFlags]!)
  }
  if (fields.icmpType >= 0) {
    word(out, ' icmp=', fields.icmpType)
    word(out, '/', fields.icmpCode)
  }
  if (fields.fragmentOffset >= 0) word(out, ' fragment=', fields.fragmentOffset)
  if (fields.tos > 0) word(out, ' tos=', fields.tos)
  word(out, ' ttl=', fields.ttl)
}

function ip(out: TextBuffer, bytes: Uint8Array, at: number): void {
  if (fields.ipVersion === 4) out.ip4(bytes, at)
  else out.ascii(formatIp6(bytes, at))
}

/** What the forwarding plane added. */
function forwarding(s: ScannedSample, out: TextBuffer): void {
  if (s.queue >= 0) word(out, ' queue=', s.queue)
  if (s.queueDepth >= 0) word(out, ' depth=', s.queueDepth)
  if (s.transitDelay >= 0) word(out, ' delay=', s.transitDelay)
  if (s.dropReasonAt >= 0) text(s, ' linux_reason="', s.dropReasonAt, out)
  if (s.functionAt >= 0) text(s, ' function="', s.functionAt, out)
  if (s.trapAt >= 0) {
    text(s, ' trap_group="', s.trapGroupAt, out)
    text(s, ' trap="', s.trapAt, out)
  }
  if (s.timestampAt >= 0) {
    out.ascii(' time=')
    out.number64(s.bytes, s.timestampAt)
  }
}

function text(s: ScannedSample, name: string, at: number, out: TextBuffer): void {
  out.ascii(name)
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

function port(out: TextBuffer, name: string, format: number, value: number): void {
  out.ascii(name)
  if (format === 1) {
    out.ascii('discarded:')
    reason(out, value)
  } else if (format === 2) {
    out.ascii('multiple:')
    out.number(value)
  } else if (format === 0 && (value === INTERNAL || value === 0xffffffff)) {
    out.ascii('internal')
  } else {
    out.number(value)
  }
}

function reason(out: TextBuffer, code: number): void {
  const name = discardReason[meantDiscardReason(code)]
  if (name === undefined) out.number(code)
  else out.ascii(name)
}

function word(out: TextBuffer, name: string, value: number): void {
  out.ascii(name)
  out.number(value)
}
