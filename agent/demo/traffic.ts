import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'

/** The traffic of the demo: a few UDP flows of different sizes and one TCP transfer, all bounded. */

const UDP_FLOWS = [
  { port: 5001, bytes: 1200, perTick: 8 },
  { port: 5002, bytes: 200, perTick: 20 },
  { port: 5003, bytes: 64, perTick: 4 },
] as const
const TCP_PORT = 5201
const TCP_BYTES_PER_TICK = 64 * 1024
const TICK_MS = 10

/** Receives everything sendTraffic() sends, until the process is ended. */
export function receiveTraffic(): void {
  for (const { port } of UDP_FLOWS)
    createSocket('udp4')
      .on('message', () => {})
      .bind(port)
  createServer(socket => socket.on('data', () => {}).on('error', () => {})).listen(TCP_PORT)
}

/** Sends to `address` for `seconds`, then ends by itself. */
export function sendTraffic(address: string, seconds: number): void {
  const until = performance.now() + seconds * 1000
  const flows = UDP_FLOWS.map(flow => ({
    ...flow,
    socket: createSocket('udp4'),
    payload: Buffer.alloc(flow.bytes, 'weir'),
  }))
  const block = Buffer.alloc(TCP_BYTES_PER_TICK, 'weir')
  const tcp = connect(TCP_PORT, address).on('error', () => {})
  const timer = setInterval(() => {
    if (performance.now() >= until) {
      clearInterval(timer)
      for (const { socket } of flows) socket.close()
      tcp.destroy()
      return
    }
    for (const { socket, payload, port, perTick } of flows) {
      for (let i = 0; i < perTick; i++) socket.send(payload, port, address, () => {})
    }
    if (tcp.writableLength === 0) tcp.write(block)
  }, TICK_MS)
}
