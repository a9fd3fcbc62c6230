/**
 * Questions to the DNS servers of this host, with the TTL of what they answer: Node's resolver does not tell that of
 * SRV and TXT records, nor does it know the search list. Nothing here waits on a thread.
 */

import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { readFile } from 'node:fs/promises'
import { connect, isIPv6 } from 'node:net'
import { hostname } from 'node:os'
import { type DnsAnswer, dnsQuestion, readDnsAnswer } from '../wire/dns.ts'

export interface DnsServers {
  /** Numeric addresses, the first is asked first. */
  readonly addresses: readonly string[]
  /** Domains to put behind a name that is not complete. */
  readonly search: readonly string[]
}

const DNS_PORT = 53
const TIMEOUT_MS = 3000
/** Each server is asked this often before the question has failed. */
const ROUNDS = 2
const NO_ERROR = 0
const NO_SUCH_NAME = 3

/** The servers that /etc/resolv.conf names (resolv.conf(5)); without any, the one on this host. */
export async function dnsServers(file = '/etc/resolv.conf'): Promise<DnsServers> {
  const addresses: string[] = []
  let search: string[] | undefined
  for (const line of (await readFile(file, 'utf8').catch(() => '')).split('\n')) {
    const [key, ...values] = line
      .replace(/[#;].*/, '')
      .trim()
      .split(/\s+/)
    if (key === 'nameserver' && values[0] !== undefined) addresses.push(values[0])
    if (key === 'search' || key === 'domain') search = values
  }
  const name = hostname()
  const own = name.includes('.') ? [name.slice(name.indexOf('.') + 1)] : []
  return { addresses: addresses.length > 0 ? addresses : ['127.0.0.1'], search: search ?? own }
}

/** Asks until a server has an answer, be it that there is nothing of this name; else fails with the last reason. */
export async function askDns(
  { addresses }: Pick<DnsServers, 'addresses'>,
  name: string,
  type: number,
): Promise<DnsAnswer> {
  let failure = new Error('no DNS server')
  for (let round = 0; round < ROUNDS; round++) {
    for (const address of addresses) {
      try {
        const answer = await ask(address, name, type)
        if (answer.responseCode === NO_ERROR || answer.responseCode === NO_SUCH_NAME) return answer
        failure = new Error(`${address} answers with code ${answer.responseCode}`)
      } catch (error) {
        failure = error as Error
      }
    }
  }
  throw failure
}

async function ask(address: string, name: string, type: number): Promise<DnsAnswer> {
  const id = randomInt(0x10000)
  const question = dnsQuestion(id, name, type)
  if (question === undefined) throw new Error(`"${name}" is no domain name`)
  const answer = await askByUdp(address, question, id)
  return answer.truncated ? askByTcp(address, question) : answer
}

function askByUdp(address: string, question: Uint8Array, id: number): Promise<DnsAnswer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
    const end = (action: () => void) => {
      clearTimeout(timer)
      socket.removeAllListeners().on('error', () => {})
      socket.close()
      action()
    }
    const timer = setTimeout(() => end(() => reject(new Error(`no answer from ${address}`))), TIMEOUT_MS)
    socket.on('error', error => end(() => reject(error)))
    socket.on('message', bytes => {
      try {
        const answer = readDnsAnswer(bytes)
        // Another's answer, or a late one.
        if (answer.id === id) end(() => resolve(answer))
      } catch (error) {
        end(() => reject(error))
      }
    })
    // Connected, it receives from this server only.
    socket.connect(DNS_PORT, address, () => socket.send(question))
  })
}

/** Over TCP each message has its length in front (RFC 1035 §4.2.2). */
function askByTcp(address: string, question: Uint8Array): Promise<DnsAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(DNS_PORT, address)
    let received = Buffer.alloc(0)
    const fail = (error: Error) => {
      clearTimeout(timer)
      socket.destroy()
      reject(error)
    }
    const timer = setTimeout(() => fail(new Error(`no answer from ${address}`)), TIMEOUT_MS)
    socket.on('error', fail)
    socket.on('close', () => fail(new Error(`${address} ended the connection`)))
    socket.on('data', bytes => {
      received = Buffer.concat([received, bytes])
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return
      try {
        resolve(readDnsAnswer(received.subarray(2, 2 + received.readUInt16BE(0))))
        fail(new Error('answered'))
      } catch (error) {
        fail(error as Error)
      }
    })
    const length = Buffer.alloc(2)
    length.writeUInt16BE(question.length)
    socket.write(Buffer.concat([length, question]))
  })
}
