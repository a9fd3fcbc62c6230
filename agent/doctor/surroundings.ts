import { lookup } from 'node:dns/promises'
import { constants } from 'node:fs'
import { access, readdir, readFile, statfs } from 'node:fs/promises'
import { isIP } from 'node:net'
import { dirname, join } from 'node:path'
import { describeNetwork, doubtsOf } from '../command/doubts.ts'
import { chooseAgentAddress } from '../config/agent-address.ts'
import type { CollectorConfig } from '../config/config.ts'
import { ControlClient } from '../control/client.ts'
import type { Status } from '../control/status.ts'
import { warningsOf } from '../control/warnings.ts'
import { createLogger } from '../health/log.ts'
import { Interfaces } from '../interfaces.ts'
import { processCalled } from '../kernel/processes.ts'
import { UdpSender } from '../kernel/udp-sender.ts'
import { SFLOW_PORT } from '../wire/sflow/datagram.ts'
import { type Finding, lacking, missing, ok, weak } from './finding.ts'
import type { Patient } from './patient.ts'

/** What is around the agent: its address, the ways to collectors, other programs, and where it writes. */

const RESOLVE_MS = 5000
const LEAST_FREE_BYTES = 1 << 20
const DROP_TOOLS = ['dropwatch', 'retis'] as const

export async function agentAddress({ config }: Patient): Promise<Finding> {
  const interfaces = new Interfaces({ log: createLogger('silent') })
  await interfaces.start()
  interfaces.stop()
  const settings = config?.agent ?? { address: undefined, device: undefined, cidrs: [] }
  const { chosen, note } = chooseAgentAddress(interfaces.localAddresses(), settings)
  if (chosen === undefined) {
    const what = 'no interface has an address to be known by: nothing would be sent'
    return missing('agent address', what, 'ip address add ADDRESS/BITS dev INTERFACE, or set agentIP')
  }
  const on = chosen.interfaceName === undefined ? '' : ` on ${chosen.interfaceName}`
  if (note !== undefined) return weak('agent address', `${chosen.address}${on}: ${note}`, 'weir explain')
  return ok('agent address', `${chosen.address}${on}`)
}

/** Looks each up and asks the kernel for a way there; nothing is sent. */
export async function collectors({ config }: Patient): Promise<Finding[]> {
  if (config === undefined) return []
  if (config.discovery !== undefined) {
    const domain = config.discovery.domain ?? " of the resolver's search list"
    return [ok('collectors', `DNS names them: _sflow._udp${domain}; weir status shows which`)]
  }
  return Promise.all(config.collectors.map(wayTo))
}

async function wayTo(collector: CollectorConfig): Promise<Finding> {
  const { host, port, device, namespace, source } = collector
  const name = `collector ${collector.name}`
  let address = host
  if (isIP(host) === 0) {
    try {
      address = await resolved(host)
    } catch (error) {
      return missing(
        name,
        `cannot resolve ${host}: ${(error as Error).message}`,
        `getent hosts ${host}; then correct the name, or /etc/resolv.conf`,
      )
    }
  }
  try {
    UdpSender.open({ address, port, device, namespace, source }).close()
  } catch (error) {
    const through = device === undefined ? '' : ` oif ${device}`
    const mend =
      namespace !== undefined
        ? `ip netns exec ${namespace} ip route get ${address}`
        : `ip route get ${address}${through}`
    return missing(
      name,
      `${address}: ${(error as Error).message}`,
      `${mend}; then add the route, interface or namespace`,
    )
  }
  return ok(name, `${address === host ? '' : `${host} is `}${address} port ${port}: there is a way`)
}

async function resolved(host: string): Promise<string> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${RESOLVE_MS / 1000} s`)), RESOLVE_MS)
  })
  try {
    return (await Promise.race([lookup(host), timeout])).address
  } finally {
    clearTimeout(timer)
  }
}

/** What the file says that does not fit to this machine. */
export async function doubts({ config, places }: Patient): Promise<Finding[]> {
  if (config === undefined) return []
  const machine = await describeNetwork()
  // A running hsflowd is told of by others().
  return doubtsOf(config, places, { ...machine, hsflowd: undefined }).map(({ line, message }) =>
    weak('configuration', `${config.file}:${line}: ${message}`, `weir check -f ${config.file}`),
  )
}

/** Programs that do the same, or take from the same sources. */
export async function others({ config, root }: Patient): Promise<Finding[]> {
  const findings: Finding[] = []
  const hsflowd = await processCalled('hsflowd', join(root, '/proc'))
  if (hsflowd === undefined) findings.push(ok('hsflowd', 'does not run'))
  else {
    const what = `runs, process ${hsflowd}: collectors get everything from both`
    findings.push(weak('hsflowd', what, 'systemctl disable --now hsflowd'))
  }
  for (const tool of DROP_TOOLS) {
    const pid = config?.dropmon === undefined ? undefined : await processCalled(tool, join(root, '/proc'))
    if (pid === undefined) continue
    findings.push(weak(tool, `runs, process ${pid}: the drop monitor has one user at a time`, `kill ${pid}`))
  }
  const isHere = await listens(root, SFLOW_PORT)
  const local =
    config?.collectors.filter(({ host, namespace }) => namespace === undefined && isLoopback(host)) ?? []
  for (const { name, port } of local) {
    if (await listens(root, port))
      findings.push(ok(`collector ${name}`, `something listens at port ${port} of this host`))
    else {
      const what = `nothing listens at port ${port} of this host`
      findings.push(
        weak(`collector ${name}`, what, `start the collector: weir decode --listen ${port} shows what comes`),
      )
    }
  }
  if (local.length === 0) {
    const what = isHere
      ? 'a collector listens on this host'
      : 'nothing listens on this host, which sends only'
    findings.push(ok(`port ${SFLOW_PORT}`, what))
  }
  return findings
}

function isLoopback(host: string): boolean {
  return /^127\./.test(host) || host === '::1' || host === 'localhost'
}

/** Whether a UDP socket of this namespace is bound to a port (proc(5), /proc/net/udp). */
async function listens(root: string, port: number): Promise<boolean> {
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  const tables = ['udp', 'udp6'].map(name =>
    readFile(join(root, '/proc/self/net', name), 'utf8').catch(() => ''),
  )
  const rows = (await Promise.all(tables)).flatMap(text => text.split('\n').slice(1))
  return rows.some(row => row.trim().split(/\s+/)[1]?.endsWith(`:${hex}`))
}

/** Where pid file and sockets are. */
export async function runFolder({ root, socket }: Patient): Promise<Finding[]> {
  const folder = await nearestFolder(join(root, dirname(socket)))
  try {
    await access(folder, constants.W_OK)
    const { bavail, bsize } = await statfs(folder)
    const free = bavail * bsize
    if (free >= LEAST_FREE_BYTES) return [ok(folder, `${Math.floor(free / (1 << 20))} MiB free`)]
    return [
      weak(
        folder,
        `${free} bytes are free: pid file and settings cannot be written`,
        `du -x ${folder} | sort -n | tail`,
      ),
    ]
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const what = `cannot be written (${code}): no control socket, no pid file, so that weir status and reload find nothing`
    const mend =
      code === 'EROFS'
        ? `mount -o remount,rw ${folder}, or RuntimeDirectory=weir in the unit`
        : 'run it as root, or with RuntimeDirectory=weir in the unit; or name other places with --control and --pid-file'
    return [weak(folder, what, mend)]
  }
}

/** The folder itself, or the one that it would be made in. */
async function nearestFolder(path: string): Promise<string> {
  const isThere = await readdir(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code === 'EACCES',
  )
  const above = dirname(path)
  return isThere || above === path ? path : nearestFolder(above)
}

/** The running agent knows best. */
export async function runningAgent({ socket }: Patient): Promise<Finding[]> {
  let client: ControlClient
  try {
    client = await ControlClient.open(socket)
  } catch (error) {
    return [lacking('agent', false, (error as Error).message, 'systemctl start weir')]
  }
  try {
    const status = await client.ask<Status>('status')
    const { version, pid } = status.agent
    const warnings = warningsOf(status)
    return [
      ok('agent', `weir ${version} runs, process ${pid}`),
      ...warnings.map(({ what, mend }) => weak('agent', what, mend)),
    ]
  } finally {
    client.close()
  }
}
