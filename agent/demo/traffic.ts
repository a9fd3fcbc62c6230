import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'

/**
 * The traffic of the demo: a few UDP flows of different sizes, a TCP transfer that takes what is left of the way and
 * fills the queue in front of it, and packets that come to nothing. All of it is bounded.
 */

const UDP_FLOWS = [
  { port: 5001, bytes: 1200, perTick: 4 },
  { port: 5002, bytes: 200, perTick: 10 },
  { port: 5003, bytes: 64, perTick: 2 },
] as const
const TCP_PORT = 5201
const TCP_BYTES_PER_TICK = 128 * 1024
const TICK_MS = 10
/** One of each packet that comes to nothing in so many ticks. */
const MISTAKE_TICKS = 4
const CLOSED_PORT = 7
/** An address that nothing leads to (RFC 5737). */
const NOWHERE = '203.0.113.9'

/** Receives everything sendTraffic() sends, until the process is ended; writes a line when it can. */
export function receiveTraffic(): void {
  for (const { port } of UDP_FLOWS)
    createSocket('udp4')
      .on('message', () => {})
      .bind(port)
  createServer(socket => socket.on('data', () => {}).on('error', () => {})).listen(TCP_PORT, () =>
    process.stdout.write('ready\n'),
  )
}

/** Sends to `address`, by way of `router`, for `seconds`, then ends by itself. */
export function sendTraffic(address: string, router: string, seconds: number): void {
  const until = performance.now() + seconds * 1000
  const socket = () => createSocket('udp4').on('error', () => {})
  const flows = UDP_FLOWS.map(flow => ({
    ...flow,
    socket: socket(),
    payload: Buffer.alloc(flow.bytes, 'weir'),
  }))
  const shortLived = socket()
  shortLived.bind(() => shortLived.setTTL(1))
  const mistakes = [
    { socket: socket(), port: CLOSED_PORT, to: router },
    { socket: socket(), port: 5001, to: NOWHERE },
    { socket: shortLived, port: 5001, to: address },
  ]
  const block = Buffer.alloc(TCP_BYTES_PER_TICK, 'weir')
  const tcp = connect(TCP_PORT, address).on('error', () => {})
  const payload = Buffer.alloc(100, 'weir')
  let ticks = 0
  const timer = setInterval(() => {
    if (performance.now() >= until) {
      clearInterval(timer)
      for (const { socket } of [...flows, ...mistakes]) socket.close()
      tcp.destroy()
      return
    }
    for (const { socket, payload, port, perTick } of flows) {
      for (let i = 0; i < perTick; i++) socket.send(payload, port, address, () => {})
    }
    if (ticks++ % MISTAKE_TICKS === 0) {
      for (const { socket, port, to } of mistakes) socket.send(payload, port, to, () => {})
    }
    if (tcp.writableLength === 0) tcp.write(block)
  }, TICK_MS)
}
