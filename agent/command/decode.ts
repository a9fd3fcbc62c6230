import { Command, InvalidArgumentError } from 'commander'
import {
  fromFile,
  fromStream,
  fromUdp,
  type Input,
  type ListenAddress,
  type Received,
} from '../decode/input.ts'
import { StreamWatch } from '../decode/streams.ts'
import { datagramText } from '../decode/text.ts'
import { type DecodedDatagram, decodeDatagram, SFLOW_PORT } from '../wire/sflow/datagram.ts'
import { datagramToJson } from '../wire/sflow/json.ts'
import { WireError } from '../wire/xdr.ts'

const HELP = `
Input:
  FILE       a pcap or pcapng capture (Ethernet, raw IP, Linux cooked or loopback), of which the datagrams
             to the UDP port of --port are decoded; or a file with one datagram, as bytes or as
             hexadecimal digits (comments from # to the end of the line)
  -          the same from standard input; a capture is decoded as it comes:
             tcpdump -U -w - udp port 6343 | weir decode -
  neither    listens on UDP port ${SFLOW_PORT}, as with --listen ${SFLOW_PORT}

Output, on standard output:
  A line for each datagram, indented its samples and their records. With --json one JSON object a line:
  fields under their published names, 64-bit numbers as strings, bytes in hexadecimal, addresses as text,
  "from" and "time" where they are known. Unknown records are kept as "raw".

What is wrong goes to standard error, with the byte offset in the datagram and the path to the field; so do
datagrams that are missing in a sequence, and restarts of an agent.

Exit status: 0, or 1 when a datagram could not be decoded or had a broken structure (not for warnings).`

interface Options {
  listen?: ListenAddress
  port: number
  json?: true
  count?: number
  seconds?: number
}

/** `weir decode`: shows sFlow v5 datagrams. */
export function decodeCommand(): Command {
  return new Command('decode')
    .summary('show sFlow datagrams from a UDP port, a capture or a file')
    .description('Decodes sFlow version 5 datagrams strictly and shows everything in them.')
    .argument('[file]', 'pcap or pcapng capture or file with one datagram, - for standard input')
    .option('-l, --listen <[address:]port>', 'receive datagrams on this UDP port', listenAddress)
    .option('-p, --port <port>', 'UDP port of sFlow in a capture', port, SFLOW_PORT)
    .option('-j, --json', 'print one JSON object for each datagram')
    .option('-c, --count <n>', 'stop after this many datagrams', positive)
    .option('-s, --seconds <n>', 'stop after this many seconds', positive)
    .addHelpText('after', HELP)
    .action(async (file: string | undefined, options: Options, command: Command) => {
      if (file !== undefined && options.listen !== undefined) {
        command.error('error: a file and --listen exclude each other')
      }
      process.exitCode = await decode(file, options)
    })
}

async function decode(file: string | undefined, options: Options): Promise<number> {
  const stop = new AbortController()
  const abort = () => stop.abort()
  const timer = options.seconds === undefined ? undefined : setTimeout(abort, options.seconds * 1000)
  process.once('SIGINT', abort).once('SIGTERM', abort)
  process.stdout.once('error', (error: NodeJS.ErrnoException) => {
    // Whoever read the output has seen enough.
    if (error.code !== 'EPIPE') throw error
    process.exit()
  })
  try {
    const { status, shown } = await show(openInput(file, options, stop.signal), options)
    if (file !== undefined && shown === 0 && status === 0) {
      complain(`${nameOf(file)}: no datagram to UDP port ${options.port}`)
    }
    return status
  } catch (error) {
    if (!(error instanceof WireError) && !isSystemError(error)) throw error
    complain(file === undefined ? error.message : `${nameOf(file)}: ${error.message}`)
    return 1
  } finally {
    clearTimeout(timer)
    process.off('SIGINT', abort).off('SIGTERM', abort)
  }
}

function openInput(file: string | undefined, options: Options, signal: AbortSignal): Input {
  if (file === '-') return fromStream(process.stdin, nameOf(file), options.port, signal)
  if (file !== undefined) return fromFile(file, options.port, signal)
  const listen = options.listen ?? { address: undefined, port: SFLOW_PORT }
  return fromUdp(listen, signal, address => complain(`listening on UDP ${address}`))
}

function nameOf(file: string): string {
  return file === '-' ? 'standard input' : file
}

/** Prints every datagram; gives the exit status and how many datagrams there were. */
async function show(input: Input, { json, count }: Options): Promise<{ status: number; shown: number }> {
  const streams = new StreamWatch()
  let status = 0
  let shown = 0
  for await (const received of input) {
    if ('reason' in received) {
      complain(`${received.from}: ${received.reason}`)
      status = 1
      continue
    }
    const decoded = tryDecode(received)
    if (decoded === undefined) {
      status = 1
    } else {
      for (const { severity, message } of decoded.problems) {
        complain(`${received.from}: ${severity}: ${message}`)
        if (severity === 'error') status = 1
      }
      const event = streams.next(decoded)
      if (event !== undefined) complain(event)
      process.stdout.write(json === true ? jsonLine(received, decoded) : textLines(received, decoded))
    }
    shown++
    if (shown === count) break
  }
  return { status, shown }
}

function tryDecode({ bytes, from }: Received): DecodedDatagram | undefined {
  try {
    return decodeDatagram(bytes)
  } catch (error) {
    if (!(error instanceof WireError)) throw error
    complain(`${from}: error: ${error.message}`)
    return undefined
  }
}

function jsonLine({ from, time }: Received, decoded: DecodedDatagram): string {
  return `${JSON.stringify({ from, time: time?.toISOString(), ...(datagramToJson(decoded) as object) })}\n`
}

function textLines({ bytes, from, time }: Received, decoded: DecodedDatagram): string {
  const when = time === undefined ? '' : `${time.toISOString()} `
  return `${when}${from} ${datagramText(decoded, bytes.length)}`
}

function complain(text: string): void {
  process.stderr.write(`weir decode: ${text}\n`)
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}

function listenAddress(text: string): ListenAddress {
  const [, bracketed, plain, digits] = /^(?:(?:\[([^\]]*)\]|([^[\]:]*)):)?([^:]*)$/.exec(text) ?? []
  if (digits === undefined) throw new InvalidArgumentError('Expected PORT, ADDRESS:PORT or [IPV6]:PORT.')
  return { address: bracketed ?? plain, port: port(digits) }
}

function port(text: string): number {
  const number = positive(text)
  if (number > 65_535) throw new InvalidArgumentError('Expected a UDP port from 1 to 65535.')
  return number
}

function positive(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('Expected a whole number from 1 on.')
  return Number(text)
}
