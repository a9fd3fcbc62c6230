import { timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import { readAssets } from './assets.ts'
import type { LivePage } from './live.ts'
import { pageQuery } from './snapshot.ts'

/** What is answered to whom: three files and a stream, read-only. */

/** No resource of others, nothing inline, no frame around it (Content Security Policy level 3). */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
  "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

const HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
  'Cache-Control': 'no-store',
}

const COOKIE = 'weir-token'

export interface SiteOptions {
  readonly live: LivePage
  /** What has to be shown to be let in; undefined lets in everybody who can connect. */
  readonly token: string | undefined
  /** A Unix socket, whose permissions say who may connect, whatever name its users call it by. */
  readonly isSocket: boolean
}

/** Answers the requests for the page. The server in front lets through GET and HEAD alone. */
export function pageSite({
  live,
  token,
  isSocket,
}: SiteOptions): (request: IncomingMessage, response: ServerResponse) => void {
  const assets = readAssets()
  return (request, response) => {
    const url = URL.parse(request.url ?? '', 'http://localhost')
    if (url === null) return refuse(response, 400, 'this is no path')
    // A name that leads here by somebody else's DNS is not ours: their page would read this one (DNS rebinding).
    if (token === undefined && !isSocket && !isOwnName(request.headers.host)) {
      return refuse(response, 421, 'ask for localhost or a numeric address')
    }
    if (token !== undefined && !mayRead(request, token)) {
      const given = url.searchParams.get('token')
      if (given === null || !isSame(given, token))
        return refuse(response, 401, 'open /?token=TOKEN, with the token of web { }')
      // From here on the browser shows it by itself, and it is not in the address any more.
      response.writeHead(303, {
        ...HEADERS,
        Location: './',
        'Set-Cookie': `${COOKIE}=${encodeURIComponent(token)}; HttpOnly; SameSite=Strict; Path=/`,
      })
      response.end()
      return
    }
    if (url.pathname === '/events') return events(request, response, live, url.searchParams)
    const asset = assets.get(url.pathname)
    if (asset === undefined) return refuse(response, 404, 'there is the page at / and nothing else')
    response.writeHead(200, {
      ...HEADERS,
      'Content-Type': asset.type,
      'Content-Length': Buffer.byteLength(asset.text),
    })
    response.end(request.method === 'HEAD' ? undefined : asset.text)
  }
}

/** Server-sent events (HTML standard §9.2). */
function events(
  request: IncomingMessage,
  response: ServerResponse,
  live: LivePage,
  parameters: URLSearchParams,
): void {
  const head = { ...HEADERS, 'Content-Type': 'text/event-stream; charset=utf-8' }
  if (request.method === 'HEAD') {
    response.writeHead(200, head).end()
    return
  }
  response.writeHead(200, head)
  response.write('retry: 2000\n\n')
  if (!live.add(response, pageQuery(parameters))) response.end()
}

function refuse(response: ServerResponse, status: number, why: string): void {
  response.writeHead(status, { ...HEADERS, 'Content-Type': 'text/plain; charset=utf-8' })
  response.end(`${why}\n`)
}

function isOwnName(host: string | undefined): boolean {
  const name = host?.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')
  return name === 'localhost' || (name !== undefined && isIP(name) !== 0)
}

/** By cookie, or by `Authorization: Bearer TOKEN`. */
function mayRead({ headers }: IncomingMessage, token: string): boolean {
  const { authorization = '', cookie = '' } = headers
  if (authorization.startsWith('Bearer ') && isSame(authorization.slice('Bearer '.length), token)) return true
  return cookie
    .split(';')
    .map(pair => pair.trim())
    .some(pair => pair.startsWith(`${COOKIE}=`) && isSame(decoded(pair.slice(COOKIE.length + 1)), token))
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}

/** Takes as long for a token that is nearly right as for one that is quite wrong. */
function isSame(given: string, token: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(token)]
  return a.length === b.length && timingSafeEqual(a, b)
}
