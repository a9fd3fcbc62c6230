/** `weir decode` on a capture, each way of showing it, beside tshark on the same file. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Datagrams } from '../../agent/export/datagrams.ts'
import { writeFlowSample } from '../../agent/wire/sflow/flow-sample-writer.ts'
import { packetSample } from '../support/packet-samples.ts'

const SAMPLES = 1_000_000
/** tshark takes its time: it is given the first part of the same capture. */
const SAMPLES_FOR_TSHARK = 100_000
const MAIN = join(import.meta.dirname, '../../agent/main.ts')

const WAYS: readonly { name: string; args: readonly string[]; samples: number }[] = [
  { name: 'weir decode --statistics', args: ['--statistics'], samples: SAMPLES },
  { name: 'weir decode --sflowtool', args: ['--sflowtool'], samples: SAMPLES },
  { name: 'weir decode --line', args: ['--line'], samples: SAMPLES },
  { name: 'weir decode --pcap', args: ['--pcap', '/dev/null'], samples: SAMPLES },
  { name: 'weir decode (text)', args: [], samples: SAMPLES_FOR_TSHARK },
  { name: 'weir decode --json', args: ['--json'], samples: SAMPLES_FOR_TSHARK },
]

const TSHARK: readonly { name: string; args: readonly string[] }[] = [
  { name: 'tshark, one line for each datagram', args: [] },
  {
    name: 'tshark -T fields, 6 fields of each sample',
    args: [
      ...['-T', 'fields', '-e', 'sflow_245.sampletype', '-e', 'sflow_245.header.frame_length'],
      ...['-e', 'ip.src', '-e', 'ip.dst', '-e', 'tcp.srcport', '-e', 'tcp.dstport'],
    ],
  },
  { name: 'tshark -V, everything', args: ['-V'] },
  { name: 'tshark -T json, everything', args: ['-T', 'json'] },
]

export async function decodeBench(): Promise<void> {
  console.log('\ndecode: a capture of flow samples with 128-byte headers, queue, depth and delay')
  const folder = mkdtempSync(join(tmpdir(), 'weir-bench-'))
  try {
    const captures = new Map<number, string>()
    for (const samples of [SAMPLES, SAMPLES_FOR_TSHARK]) {
      captures.set(samples, join(folder, `${samples}.pcap`))
      writeCapture(captures.get(samples)!, samples)
    }
    const empty = join(folder, 'empty.pcap')
    writeCapture(empty, 1)
    const start = processorSeconds(process.execPath, [MAIN, 'decode', '--statistics', empty])
    console.log(`  start of the program, taken off below: ${start.toFixed(2)} s`)
    for (const { name, args, samples } of WAYS) {
      const seconds = processorSeconds(process.execPath, [MAIN, 'decode', ...args, captures.get(samples)!])
      row(name, samples, seconds - start)
    }
    const startOfTshark = processorSeconds('tshark', ['-n', '-r', empty])
    for (const { name, args } of TSHARK) {
      const seconds = processorSeconds('tshark', ['-n', '-r', captures.get(SAMPLES_FOR_TSHARK)!, ...args])
      row(name, SAMPLES_FOR_TSHARK, seconds - startOfTshark)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function row(name: string, samples: number, seconds: number): void {
  const rate = Math.round(samples / seconds).toLocaleString('en')
  console.log(`  ${name.padEnd(48)} ${rate.padStart(12)} samples/s of processor time`)
}

/** User and system time of a command and all its threads: what else the machine does is not counted. */
function processorSeconds(program: string, args: readonly string[]): number {
  const code = '"$0" "$@" > /dev/null || exit; times'
  const { status, stdout, stderr } = spawnSync('sh', ['-c', code, program, ...args], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}: ${stderr}`)
  const children = /(\d+)m([\d.]+)s (\d+)m([\d.]+)s\s*$/.exec(stdout)!.slice(1).map(Number)
  return children[0]! * 60 + children[1]! + children[2]! * 60 + children[3]!
}

/** Datagrams of 1,400 bytes at most, as Ethernet frames to UDP port 6343. */
function writeCapture(path: string, samples: number): void {
  const file = openSync(path, 'w')
  const header = Buffer.alloc(24)
  header.writeUInt32BE(0xa1b2c3d4, 0)
  header.writeUInt32BE(0x00020004, 4)
  header.writeUInt32BE(65_535, 16)
  header.writeUInt32BE(1, 20)
  writeSync(file, header)
  const options = { agentAddress: Uint8Array.of(192, 0, 2, 1), subAgentId: 0, maxBytes: 1400, flushMs: 250 }
  let packets = 0
  const datagrams = new Datagrams(
    options,
    (memory, spans, count) => {
      const pieces: Buffer[] = []
      for (let i = 0; i < count; i++) {
        const length = spans[i * 2 + 1]!
        const packet = Buffer.alloc(16 + 42 + length)
        packet.writeUInt32BE(1_700_000_000 + Math.floor(packets++ / 1000), 0)
        packet.writeUInt32BE(42 + length, 8)
        packet.writeUInt32BE(42 + length, 12)
        packet.write('020000000002020000000001080045000000000000004011', 16, 'hex')
        packet.writeUInt16BE(28 + length, 32)
        packet.set([192, 0, 2, 1, 192, 0, 2, 2], 42)
        packet.writeUInt16BE(40_000, 50)
        packet.writeUInt16BE(6343, 52)
        packet.writeUInt16BE(8 + length, 54)
        packet.set(new Uint8Array(memory, spans[i * 2]!, length), 58)
        pieces.push(packet)
      }
      writeSync(file, Buffer.concat(pieces))
    },
    () => 1000,
  )
  const sample = packetSample(128, {
    egressQueue: 7,
    queueDepthBytes: 11_354_112,
    transitDelayNs: 839_660_224,
  })
  // A TCP packet, of a flow that changes from sample to sample.
  const bytes = new Uint8Array(sample.headerWords.buffer)
  bytes.set(Buffer.from('02000000000202000000000108004500057800000000400600000a0000010a000002', 'hex'))
  bytes.set(Buffer.from('c0de01bb00000000000000005010ffff00000000', 'hex'), 34)
  const source = { sequence: 0, samplePool: 0, drops: 0 }
  for (let i = 0; i < samples; i++) {
    source.sequence++
    source.samplePool += 1000
    bytes[29] = i & 255
    bytes[28] = (i >> 8) & 255
    bytes[35] = (i * 7) & 255
    const at = datagrams.reserve(76 + 128 + 36)
    datagrams.commit(writeFlowSample(datagrams, at, sample, source, 128))
  }
  datagrams.flush()
  datagrams.stop()
  closeSync(file)
}
