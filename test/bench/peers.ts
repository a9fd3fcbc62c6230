/**
 * A router that samples 1 in 10 of what it passes on: by weir, by pmacct's pmacctd with sfprobe, and, as a bridge, by
 * Open vSwitch. Processor time is that of all processes of the agent; samples are those that the collector got.
 */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelSocket, META } from '../../agent/kernel/native.ts'
import { AF_INET, internetAddress } from '../../agent/kernel/sockaddr.ts'
import { ip, type Lab, linkCounts, makeLab, type Scope, until } from '../support/lab.ts'
import { ip4Header } from '../support/packets.ts'
import { builtAgent } from './agent.ts'
import { WARM_UP_SECONDS } from './bpf.ts'
import { cpuSeconds, sendFor } from './load.ts'

const SECONDS = 5
const RATE = 10
const PACKETS_PER_SECOND = 200_000
const FRAME_BYTES = 100
const COLLECTOR_PORT = 6343
const FAR_AWAY = '203.0.113.9'
const OVS_SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema'

/** Something that samples in the host of the lab. */
interface Peer {
  readonly name: string
  /** Why it cannot run here. */
  readonly missing?: string
  /** Starts it; done when it samples. */
  readonly start: (scope: Scope, lab: Lab, folder: string) => Promise<void>
}

const PEERS: readonly Peer[] = [
  { name: 'nothing', start: async () => {} },
  { name: 'weir', start: startWeir },
  missingUnless('pmacctd', '/usr/sbin/pmacctd', 'pmacct', startPmacctd),
  missingUnless('Open vSwitch, forwarding itself', OVS_SCHEMA, 'openvswitch-switch', startOvs),
]

export async function peersBench(): Promise<void> {
  console.log(
    `\npeers: 1 in ${RATE} of what a router passes on, ${PACKETS_PER_SECOND.toLocaleString('en')} packets/s and as fast as it can, ${SECONDS} s each`,
  )
  for (const peer of PEERS) {
    if (peer.missing !== undefined) {
      console.log(`  ${peer.name}: not here, ${peer.missing}`)
      continue
    }
    const cleanups: (() => void | Promise<void>)[] = []
    const scope: Scope = { after: cleanup => cleanups.push(cleanup) }
    try {
      await compare(scope, peer)
    } catch (error) {
      console.log(`  ${peer.name}: ${(error as Error).message}`)
    } finally {
      for (const cleanup of cleanups.reverse()) await cleanup()
    }
  }
}

async function compare(scope: Scope, { name, start }: Peer): Promise<void> {
  const lab = makeLab(scope)
  layWayOut(lab)
  const folder = mkdtempSync(join(tmpdir(), 'weir-bench-'))
  scope.after(() => rmSync(folder, { recursive: true, force: true }))
  const collector = countSamples(scope, lab)
  await start(scope, lab, folder)
  await send(lab, PACKETS_PER_SECOND, WARM_UP_SECONDS)
  await sleep(1500)
  for (const packetsPerSecond of [PACKETS_PER_SECOND, Number.POSITIVE_INFINITY]) {
    const before = { samples: collector.samples, cpu: cpuOf(lab), passed: passedOn(lab) }
    const started = performance.now()
    const sent = await send(lab, packetsPerSecond, SECONDS)
    const seconds = (performance.now() - started) / 1000
    await sleep(1500)
    const samples = collector.samples - before.samples
    const passed = passedOn(lab) - before.passed
    const cpu = cpuOf(lab) - before.cpu
    const perSample = samples === 0 ? '' : `, ${((cpu * 1e6) / samples).toFixed(2)} µs each`
    const expected = passed / RATE
    const missing =
      name === 'nothing' ? '' : `, ${((100 * (expected - samples)) / expected).toFixed(1)} % missing`
    console.log(
      `  ${name.padEnd(30)} ${rate(sent / seconds)} sent, ${rate(passed / seconds)} passed on, ` +
        `${rate(samples / seconds)} sampled${missing}${perSample}`,
    )
  }
}

function rate(perSecond: number): string {
  return `${Math.round(perSecond).toLocaleString('en').padStart(8)}/s`
}

/** A second cable, out0, by which the host passes packets on. */
function layWayOut({ host, peer }: Lab): void {
  ip(`link add out0 netns ${host.namespace} type veth peer name out0 netns ${peer.namespace}`)
  for (const { namespace } of [host, peer]) ip(`-n ${namespace} link set out0 addrgenmode none up`)
  ip(`netns exec ${host.namespace} sysctl -qw net.ipv4.ip_forward=1`)
  ip(`-n ${host.namespace} route add 203.0.113.0/24 dev out0`)
  ip(`-n ${host.namespace} neighbour replace ${FAR_AWAY} lladdr 02:00:00:00:03:02 dev out0 nud permanent`)
}

function passedOn({ peer }: Lab): number {
  return linkCounts(peer.namespace, 'out0').rxPackets
}

/** Counts the samples of what arrives; an agent's IPv4 address is 4 bytes, and then come 3 words and the number. */
function countSamples(scope: Scope, { peer }: Lab): { readonly samples: number } {
  const counts = { samples: 0 }
  const SOCK_DGRAM = 2
  const socket = KernelSocket.open('collector', AF_INET, SOCK_DGRAM, 0, peer.namespace)
  scope.after(() => socket.close())
  socket.forceReceiveBuffer(32 << 20)
  const memory = socket.receive({ slots: 64, slotBytes: 16_384 }, count => {
    const view = new DataView(memory.memory)
    for (let slot = 0; slot < count; slot++) {
      const start = memory.dataOffset + slot * memory.dataStride
      if (memory.meta[slot * META.words + META.length]! >= 28) counts.samples += view.getUint32(start + 24)
    }
  })
  socket.bind(internetAddress(peer.mgmt0.ipv4, COLLECTOR_PORT)!, 'bind the collector')
  return counts
}

/** Processor time of all processes in the host. */
function cpuOf({ host }: Lab): number {
  const pids = ip(`netns pids ${host.namespace}`).split('\n').filter(Boolean)
  return pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0)
}

async function startWeir(scope: Scope, lab: Lab, folder: string): Promise<void> {
  const conf = join(folder, 'weir.conf')
  const collector = `collector { ip = ${lab.peer.mgmt0.ipv4} udpport = ${COLLECTOR_PORT} }`
  writeFileSync(conf, `sFlow {\n polling = 0\n ${collector}\n pcap { dev = eth0 sampling = ${RATE} }\n}\n`)
  const output = run(scope, lab, [builtAgent(), 'run', '-f', conf])
  await until('weir to run', () => /running/.test(output()))
}

async function startPmacctd(scope: Scope, lab: Lab, folder: string): Promise<void> {
  const conf = join(folder, 'pmacctd.conf')
  const settings = {
    daemonize: 'false',
    pcap_interface: 'eth0',
    plugins: 'sfprobe',
    sampling_rate: RATE,
    sfprobe_receiver: `${lab.peer.mgmt0.ipv4}:${COLLECTOR_PORT}`,
    sfprobe_agentip: lab.host.mgmt0.ipv4,
    snaplen: 128,
    // What it recommends where its messages about a full queue appear.
    plugin_pipe_size: 64 << 20,
    plugin_buffer_size: 65_536,
  }
  writeFileSync(
    conf,
    Object.entries(settings)
      .map(([key, value]) => `${key}: ${value}\n`)
      .join(''),
  )
  run(scope, lab, ['pmacctd', '-f', conf])
  await sleep(2000)
}

/**
 * By its netdev datapath, which needs no kernel module: packets take the way through its own process, so that its
 * processor time is that of forwarding and sampling together.
 */
async function startOvs(scope: Scope, lab: Lab, folder: string): Promise<void> {
  const database = join(folder, 'conf.db')
  const socket = `unix:${join(folder, 'db.sock')}`
  const logs = ['-vconsole:off', '-vsyslog:off']
  const control = (name: string) => `--unixctl=${join(folder, name)}`
  execFileSync('ovsdb-tool', ['create', database, OVS_SCHEMA], { stdio: 'ignore' })
  run(scope, lab, ['ovsdb-server', database, `--remote=p${socket}`, control('db.ctl'), ...logs])
  await until('its database', () => existsSync(join(folder, 'db.sock')))
  run(scope, lab, ['ovs-vswitchd', socket, control('vswitchd.ctl'), ...logs])
  const target = `"${lab.peer.mgmt0.ipv4}:${COLLECTOR_PORT}"`
  const commands = [
    '-- add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=standalone',
    '-- add-port br0 eth0 -- add-port br0 out0',
    `-- --id=@s create sflow agent=mgmt0 target=${target} header=128 sampling=${RATE} polling=0`,
    '-- set bridge br0 sflow=@s',
  ]
  const { host } = lab
  // Else the kernel would pass the packets on as well.
  ip(`netns exec ${host.namespace} sysctl -qw net.ipv4.ip_forward=0`)
  const vsctl = ['netns', 'exec', host.namespace, 'ovs-vsctl', `--db=${socket}`, '--timeout=20']
  execFileSync('ip', [...vsctl, ...commands.join(' ').split(' ')], { stdio: ['ignore', 'ignore', 'pipe'] })
  await sleep(1000)
}

/** Runs a program in the host until the end of the scope; gives what it has written so far. */
function run(scope: Scope, { host }: Lab, command: readonly string[]): () => string {
  const child = spawn('ip', ['netns', 'exec', host.namespace, ...command], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = new Promise(resolve => child.on('close', resolve))
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  }
  scope.after(async () => {
    child.kill()
    await Promise.race([ended, sleep(3000)])
    child.kill('SIGKILL')
    await ended
  })
  return () => output
}

function missingUnless(name: string, file: string, packageName: string, start: Peer['start']): Peer {
  return existsSync(file)
    ? { name, start }
    : { name, start, missing: `install the Debian package ${packageName}` }
}

/** Sends packets for the host to pass on; gives their number. */
function send({ host, peer }: Lab, packetsPerSecond: number, seconds: number): Promise<number> {
  const frame = Buffer.alloc(FRAME_BYTES)
  frame.write(host.eth0.mac.replaceAll(':', ''), 0, 'hex')
  frame.write(peer.eth0.mac.replaceAll(':', ''), 6, 'hex')
  frame.writeUInt16BE(0x0800, 12)
  frame.set(ip4Header({ bytes: FRAME_BYTES - 14, protocol: 253, from: peer.eth0.ipv4, to: FAR_AWAY }), 14)
  return sendFor(peer.namespace, peer.eth0.ifIndex, frame, { packetsPerSecond, seconds })
}
