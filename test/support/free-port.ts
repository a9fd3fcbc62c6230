import { createSocket } from 'node:dgram'
import { once } from 'node:events'

/** A UDP port of an address that was free a moment ago. */
export async function freePort(address = '127.0.0.1'): Promise<number> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  socket.bind(0, address)
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  await once(socket, 'close')
  return port
}
