import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { ListenAddress } from '../config/config.ts'
import { listenAtPath } from '../kernel/unix-socket.ts'

/** A small HTTP server for people and programs that look: a few connections, short requests, and never long to wait. */

const MOST_CONNECTIONS = 64
const HEADER_BYTES = 8192
/** A request that is not complete by then is ended, and a connection without one. */
const REQUEST_MS = 5000
const IDLE_MS = 30_000

export interface HttpServer {
  close(): void
}

/**
 * Listens; fails with a message that names the address. A Unix socket is its owner's alone. `answer` is called for each
 * GET and HEAD; what it throws is status 500.
 */
export async function serveHttp(
  address: ListenAddress,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<HttpServer> {
  // Not before it is needed: in one bundle an import would load it with the agent, and it takes 10 MB.
  const { createServer } = process.getBuiltinModule('node:http')
  const server = createServer({
    maxHeaderSize: HEADER_BYTES,
    headersTimeout: REQUEST_MS,
    requestTimeout: REQUEST_MS,
    connectionsCheckingInterval: 1000,
    keepAliveTimeout: IDLE_MS,
    requireHostHeader: true,
  })
  server.maxConnections = MOST_CONNECTIONS
  server.on('request', (request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { Allow: 'GET, HEAD', Connection: 'close' }).end()
      return
    }
    try {
      answer(request, response)
    } catch (error) {
      if (!response.headersSent) response.writeHead(500)
      response.end(`${(error as Error).message}\n`)
    }
  })
  // One that does not read what it was answered is not waited for.
  server.setTimeout(IDLE_MS)
  const remove = await listen(server, address)
  server.on('error', () => {})
  const close = () => {
    remove()
    server.close()
    server.closeAllConnections()
  }
  return { close }
}

async function listen(server: Server, address: ListenAddress): Promise<() => void> {
  if ('path' in address) return await listenAtPath(server, address.path)
  const { host, port } = address
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host, port }, resolve)
    })
  } catch (error) {
    throw new Error(`listen at ${host} port ${port}: ${(error as Error).message}`)
  }
  return () => {}
}
