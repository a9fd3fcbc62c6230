/** `tcp { }`: what it costs to ask the kernel for the connection of a sample, all threads and the kernel's own work included. */
import { connect, createServer, type Socket } from 'node:net'
import { TcpAnnotator } from '../../agent/annotations/tcp.ts'
import { Ledger } from '../../agent/health/ledger.ts'
import { createLogger } from '../../agent/health/log.ts'
import type { PacketSample } from '../../agent/samples/packet-sample.ts'
import { packetSample } from '../support/packet-samples.ts'
import { report } from './measure.ts'

const HERE = '127.0.0.1'
const THERE = '127.0.0.2'
const CONNECTIONS = 256
/** Samples that come together. */
const BATCH = 64
const SAMPLES = 200_000

export async function tcpBench(): Promise<void> {
  console.log(`\ntcp: ${SAMPLES} samples of connections on the loopback, ${BATCH} at a time`)
  const accepted: Socket[] = []
  const server = createServer(socket => accepted.push(socket))
  await new Promise<void>(resolve => server.listen(0, HERE, resolve))
  const { port } = server.address() as { port: number }
  const sockets: Socket[] = []
  for (let i = 0; i < CONNECTIONS; i++) {
    const socket = connect({ port, host: HERE, localAddress: THERE })
    await new Promise(resolve => socket.once('connect', resolve))
    sockets.push(socket)
  }
  const samples = sockets.map(({ localPort }) => sampleTo(localPort!, port))
  try {
    report('for a sample, each of another connection', await cost(samples), 'µs')
    report('for a sample, eight of each connection', await cost(samples.slice(0, BATCH / 8)), 'µs')
  } finally {
    for (const socket of [...sockets, ...accepted]) socket.destroy()
    server.close()
  }
}

/** Microseconds of processor time for one sample; these are taken in turn. */
async function cost(samples: readonly PacketSample[]): Promise<number> {
  let left = 0
  let done = () => {}
  const annotator = new TcpAnnotator({
    tunnel: false,
    ledger: new Ledger(),
    log: createLogger('silent'),
    vrfOf: () => 0,
    sink: () => {
      if (--left === 0) done()
    },
    onBatchEnd: () => {},
  })
  annotator.setAddresses([HERE])
  let next = 0
  const run = async (count: number) => {
    for (let taken = 0; taken < count; taken += BATCH) {
      const ended = new Promise<void>(resolve => {
        done = resolve
      })
      left = BATCH
      for (let i = 0; i < BATCH; i++) {
        if (!annotator.hold(samples[next++ % samples.length]!)) throw new Error('a sample was not held')
      }
      annotator.ask()
      await ended
    }
  }
  try {
    await run(SAMPLES / 10)
    const annotatedBefore = annotator.annotated
    const before = process.cpuUsage()
    await run(SAMPLES)
    const { user, system } = process.cpuUsage(before)
    const annotated = annotator.annotated - annotatedBefore
    if (annotated < SAMPLES) throw new Error(`only ${annotated} samples got the state of their connection`)
    return (user + system) / SAMPLES
  } finally {
    annotator.stop()
  }
}

/** A packet from here to the other end of a connection. */
function sampleTo(remotePort: number, localPort: number): PacketSample {
  const header = new DataView(new ArrayBuffer(56))
  header.setUint16(12, 0x0800)
  header.setUint8(14, 0x45)
  header.setUint8(23, 6)
  for (const [at, address] of [
    [26, HERE],
    [30, THERE],
  ] as const) {
    for (const [i, byte] of address.split('.').entries()) header.setUint8(at + i, Number(byte))
  }
  header.setUint16(34, localPort)
  header.setUint16(36, remotePort)
  header.setUint8(46, 0x50)
  return packetSample(1, { headerWords: new Int32Array(header.buffer), headerLength: 54 })
}
