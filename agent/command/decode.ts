import { type BigIntStats, fstatSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { Forwarder, type Target } from '../decode/forwarder.ts'
import {
  fromFile,
  fromStream,
  fromUdp,
  type Input,
  type ListenAddress,
  type Received,
} from '../decode/input.ts'
import { LineTime, sampleLines } from '../decode/line.ts'
import { OutputError, PacketFile } from '../decode/packet-file.ts'
import { type ScannedSample, Scanner } from '../decode/scanner.ts'
import { sflowtoolLines } from '../decode/sflowtool.ts'
import { Statistics } from '../decode/statistics.ts'
import { StreamWatch } from '../decode/streams.ts'
import { datagramText, harmless, isoTime } from '../decode/text.ts'
import { TextBuffer } from '../decode/text-buffer.ts'
import { fileErrorReason } from '../kernel/file-error.ts'
import { counted } from '../quantities.ts'
import { type DecodedDatagram, decodeDatagram, SFLOW_PORT } from '../wire/sflow/datagram.ts'
import { datagramToJson } from '../wire/sflow/json.ts'
import { WireError } from '../wire/xdr.ts'
import { listenAddress, positive, splitAddress, udpPort } from './arguments.ts'

const HELP = `
Input:
  FILE       a pcap or pcapng capture (Ethernet, raw IP, Linux cooked or loopback), of which the datagrams
             to the UDP port of --port are decoded; or a file with one datagram, as bytes or as
             hexadecimal digits (comments from # to the end of the line)
  -          the same from standard input; a capture is decoded as it comes:
             tcpdump -U -w - udp port 6343 | weir decode -
  neither    listens on UDP port ${SFLOW_PORT}, as with --listen ${SFLOW_PORT}

Output, on standard output:
  (nothing)     a line for each datagram, indented its samples and their records
  --json        one JSON object for each datagram: fields under their published names, 64-bit numbers as
                strings, bytes in hexadecimal, addresses as text, "from" and "time" where they are known.
                Unknown records are kept as "raw"
  --line        one line of name=value words for each flow sample, dropped packet and counter record:
                weir decode --line FILE.pcap | grep 'reason=acl'
  --sflowtool   FLOW and CNTR lines as sflowtool -l writes them
  --statistics  at the end, for each agent and data source: what came, and what is missing by sequence numbers
                and sample pools. With --json as one JSON object
  With --pcap, --forward or --statistics nothing else is printed unless one of the first four is asked for.

What is wrong goes to standard error, with the byte offset in the datagram and the path to the field; so do
datagrams that are missing in a sequence, and restarts of an agent.

Exit status: 0, or 1 when a datagram could not be decoded or had a broken structure (not for warnings), when there is none
in the whole input, or when the input or an output could not be opened, read or written.`

type Format = 'text' | 'json' | 'line' | 'sflowtool'

interface Options {
  listen?: ListenAddress
  port: number
  json?: true
  line?: true
  sflowtool?: true
  statistics?: true
  pcap?: string
  force?: true
  forward: Target[]
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
    .option('-p, --port <port>', 'UDP port of sFlow in a capture', udpPort, SFLOW_PORT)
    .addOption(
      new Option('-j, --json', 'print one JSON object for each datagram').conflicts(['line', 'sflowtool']),
    )
    .addOption(new Option('-1, --line', 'print one line for each sample').conflicts('sflowtool'))
    .option('--sflowtool', 'print lines as sflowtool -l does')
    .option('-S, --statistics', 'at the end, print what came and what is missing')
    .option('-w, --pcap <file>', 'write sampled headers as a capture: pcapng if the name ends so, else pcap')
    .option('--force', 'write over a capture that is there already')
    .option('-f, --forward <host:port>', 'pass the datagrams on, unchanged; may be repeated', targets, [])
    .option('-c, --count <n>', 'stop after this many datagrams', positive)
    .option('-s, --seconds <n>', 'stop after this many seconds', positive)
    .addHelpText('after', HELP)
    .action(async (file: string | undefined, options: Options, command: Command) => {
      if (file !== undefined && options.listen !== undefined) {
        command.error('error: a file and --listen exclude each other')
      }
      if (options.pcap === '-' && formatOf(options) !== undefined) {
        command.error('error: a capture and text cannot both go to standard output')
      }
      process.exitCode = await decode(file, options)
    })
}

async function decode(file: string | undefined, options: Options): Promise<number> {
  const stop = new AbortController()
  const abort = () => stop.abort()
  const timer = options.seconds === undefined ? undefined : setTimeout(abort, options.seconds * 1000)
  process.once('SIGINT', abort).once('SIGTERM', abort)
  try {
    const show = await Show.open(options)
    try {
      await show.all(openInput(file, options, stop.signal, show))
      if (file !== undefined && show.shown === 0 && show.status === 0) {
        complain(`${nameOf(file)}: no datagram to UDP port ${options.port}`)
        // One that was not read to its end may have some.
        if (!stop.signal.aborted) show.status = 1
      }
    } finally {
      await show.close()
    }
    return show.status
  } catch (error) {
    const isOutput = error instanceof OutputError
    if (!isOutput && !(error instanceof WireError) && !isSystemError(error)) throw error
    const what = isSystemError(error) ? fileErrorReason(error) : error.message
    complain(isOutput || file === undefined ? error.message : `${nameOf(file)}: ${what}`)
    return 1
  } finally {
    clearTimeout(timer)
    process.off('SIGINT', abort).off('SIGTERM', abort)
  }
}

/** What is to be written is opened when the input is open: where there is no input, a file that is there stays. */
function openInput(file: string | undefined, options: Options, signal: AbortSignal, show: Show): Input {
  const opened = (descriptor: number) => {
    const stats = fstatSync(descriptor, { bigint: true })
    // That it cannot be read shows when it is read.
    if (!stats.isDirectory()) show.openFile(stats)
  }
  if (file === '-') {
    opened(0)
    return fromStream(process.stdin, nameOf(file), options.port, signal)
  }
  if (file !== undefined) return fromFile(file, options.port, signal, opened)
  const listen = options.listen ?? { address: undefined, port: SFLOW_PORT }
  return fromUdp(listen, signal, address => {
    show.openFile(undefined)
    complain(`listening on UDP ${address}`)
  })
}

function nameOf(file: string): string {
  return file === '-' ? 'standard input' : file
}

/** What is printed of each datagram; undefined for nothing. */
function formatOf({ json, line, sflowtool, statistics, pcap, forward }: Options): Format | undefined {
  if (line === true) return 'line'
  if (sflowtool === true) return 'sflowtool'
  const isQuiet = statistics === true || pcap !== undefined || forward.length > 0
  if (json === true) return statistics === true ? undefined : 'json'
  return isQuiet ? undefined : 'text'
}

/** Everything that is done with each datagram. */
class Show {
  status = 0
  shown = 0
  readonly #format: Format | undefined
  readonly #options: Options
  readonly #forwarders: readonly Forwarder[]
  #file: PacketFile | undefined
  readonly #statistics: Statistics | undefined
  readonly #streams = new StreamWatch()
  readonly #scanner = new Scanner()
  readonly #out = new TextBuffer((bytes, done) => void process.stdout.write(bytes, done))
  /** Of the datagram that is being shown. */
  #received: Received | undefined
  readonly #time = new LineTime()
  readonly #sink = {
    datagram: (scanned: ScannedSample) => this.#statistics?.datagram(scanned),
    sample: (scanned: ScannedSample) => this.#sample(scanned),
  }

  private constructor(options: Options, forwarders: readonly Forwarder[]) {
    this.#options = options
    this.#format = formatOf(options)
    this.#forwarders = forwarders
    this.#statistics = options.statistics === true ? new Statistics() : undefined
  }

  /** Opens the sockets that the datagrams are passed on by. Fails with an OutputError. */
  static async open(options: Options): Promise<Show> {
    const forwarders: Forwarder[] = []
    for (const target of options.forward) {
      try {
        forwarders.push(await Forwarder.open(target))
      } catch (error) {
        // The sockets of the others would hold the program.
        for (const forwarder of forwarders) await forwarder.close()
        throw new OutputError(`--forward ${target.host}: ${(error as Error).message}`)
      }
    }
    return new Show(options, forwarders)
  }

  /** Opens the capture that is written, if there is one. `input` is what is read. Fails with an OutputError. */
  openFile(input: BigIntStats | undefined): void {
    const { pcap, force } = this.#options
    if (pcap !== undefined) this.#file = openPacketFile(pcap, force === true, input)
  }

  async all(input: Input): Promise<void> {
    for await (const batch of input) {
      for (const received of batch) {
        if ('reason' in received) {
          complain(`${received.from}: ${received.reason}`)
          this.status = 1
          continue
        }
        for (const forwarder of this.#forwarders) {
          forwarder.send(received.bytes)
          await forwarder.ready()
        }
        this.#datagram(received)
        if (++this.shown === this.#options.count) return
      }
      // A stream that is looked at while it runs is written as it comes.
      this.#out.flush()
      this.#file?.flush()
    }
  }

  /** Writes what is left, and what was counted. */
  async close(): Promise<void> {
    this.#out.flush()
    for (const forwarder of this.#forwarders) {
      await forwarder.close()
      const { target, sent, failed, problem } = forwarder
      complain(
        `forwarded ${counted(sent, 'datagram')} to ${target.host}:${target.port}` +
          (failed > 0 ? `, ${counted(failed, 'error')}, the last: ${problem}` : ''),
      )
      if (failed > 0) this.status = 1
    }
    if (this.#file !== undefined) {
      this.#file.close()
      const { path, written, notWritten, isBroken } = this.#file
      if (path !== '-' && !isBroken) complain(`${path}: ${counted(written, 'packet')}`)
      if (notWritten > 0)
        complain(`${path}: ${counted(notWritten, 'header')} of another link type left out; pcapng holds more`)
    }
    if (this.#statistics !== undefined) {
      const { json } = this.#options
      const text = json === true ? `${JSON.stringify(this.#statistics.json())}\n` : this.#statistics.text()
      process.stdout.write(text)
    }
  }

  #datagram(received: Received): void {
    const { bytes } = received
    if (this.#format === 'text' || this.#format === 'json') this.#decoded(received)
    if (this.#format === 'text' || this.#format === 'json') {
      if (this.#file !== undefined || this.#statistics !== undefined) this.#scan(received)
    } else if (!this.#scan(received) || this.#scanner.scanned.broken) {
      this.#tellWhy(received)
    }
    this.#statistics?.countBytes(bytes.length)
  }

  #scan(received: Received): boolean {
    const { bytes, time } = received
    this.#received = received
    if (this.#format === 'line') this.#time.set(time)
    const isWhole = this.#scanner.scan(bytes, 0, bytes.length, this.#sink)
    if (!isWhole && this.#statistics !== undefined) this.#statistics.malformed++
    return isWhole
  }

  #sample(scanned: ScannedSample): void {
    this.#statistics?.sample(scanned)
    this.#file?.add(scanned, this.#received!.time)
    if (this.#format === 'line') sampleLines(scanned, this.#time, this.#out)
    else if (this.#format === 'sflowtool') sflowtoolLines(scanned, this.#out)
  }

  /** The scanner is quick and tells nothing: the strict decoder says what is wrong with the datagram. */
  #tellWhy(received: Received): void {
    this.status = 1
    const decoded = tryDecode(received)
    for (const { severity, message } of decoded?.problems ?? [])
      if (severity === 'error') complain(`${received.from}: ${severity}: ${message}`)
  }

  #decoded(received: Received): void {
    const decoded = tryDecode(received)
    if (decoded === undefined) {
      this.status = 1
      return
    }
    for (const { severity, message } of decoded.problems) {
      complain(`${received.from}: ${severity}: ${message}`)
      if (severity === 'error') this.status = 1
    }
    const event = this.#streams.next(decoded)
    if (event !== undefined) complain(event)
    this.#out.text(this.#format === 'json' ? jsonLine(received, decoded) : textLines(received, decoded))
  }
}

function openPacketFile(path: string, overwrite: boolean, input: BigIntStats | undefined): PacketFile {
  try {
    return new PacketFile(path, overwrite, input)
  } catch (error) {
    if (!isSystemError(error)) throw error
    const isThere = error.code === 'EEXIST'
    throw new OutputError(
      isThere ? `${path} is there already; --force writes over it` : `${path}: ${fileErrorReason(error)}`,
    )
  }
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
  const value = {
    from,
    time: time === undefined ? undefined : isoTime(time),
    ...(datagramToJson(decoded) as object),
  }
  return `${harmless(JSON.stringify(value))}\n`
}

function textLines({ bytes, from, time }: Received, decoded: DecodedDatagram): string {
  const when = time === undefined ? '' : `${isoTime(time)} `
  return `${when}${from} ${datagramText(decoded, bytes.length)}`
}

function complain(text: string): void {
  process.stderr.write(`weir decode: ${text}\n`)
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}

function targets(text: string, before: Target[]): Target[] {
  const { address, last } = splitAddress(text)
  if (last === undefined) throw new InvalidArgumentError('Expected HOST, HOST:PORT or [IPV6]:PORT.')
  // A word without a colon is a host.
  if (address === undefined) return [...before, { host: last, port: SFLOW_PORT }]
  return [...before, { host: address, port: udpPort(last) }]
}
