/** What a running agent tells of itself: control socket, `weir status`, and sums that hold to the packet. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { ControlClient } from '../../agent/control/client.ts'
import type { Status } from '../../agent/control/status.ts'
import type { Warning } from '../../agent/control/warnings.ts'
import { decodeDatagram, SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { ip, type Lab, listen, makeLab, runWeir, sendFlow, sink, startAgent, until } from '../support/lab.ts'

const ROOT = join(import.meta.dirname, '../..')
const PORT = 7000

/** Runs `weir` to its end. */
function weir(...args: string[]): Promise<{ exit: number; out: string; errors: string }> {
  return new Promise(resolve => {
    const child = execFile(
      process.execPath,
      [join(ROOT, 'agent/main.ts'), ...args],
      { maxBuffer: 1 << 26 },
      (_, out, errors) => resolve({ exit: child.exitCode!, out, errors }),
    )
  })
}

async function status(socket: string): Promise<Status & { warnings: Warning[] }> {
  const { out, errors } = await weir('status', '--socket', socket, '--json')
  assert.equal(errors, '')
  return JSON.parse(out) as Status & { warnings: Warning[] }
}

async function connect(t: TestContext, socket: string): Promise<ControlClient> {
  const client = await until('control socket', () => ControlClient.open(socket).catch(() => undefined))
  t.after(() => client.close())
  return client
}

function burst({ host, peer }: Lab, packets: number): void {
  sendFlow(peer.namespace, {
    from: { address: peer.eth0.ipv4, port: PORT },
    to: { address: host.eth0.ipv4, port: PORT },
    payloadBytes: 1000,
    packets,
  })
}

/** Nothing waits anywhere: every stage is told with both sides equal. */
const isAtRest = ({ ledger }: Status) =>
  ledger.identities.every(({ underWay, difference }) => underWay === 0 && difference === 0)
const offeredTo = ({ ledger }: Status, stage: string) =>
  ledger.identities.find(one => one.stage === stage)?.offered
const lossOf = ({ ledger }: Status, stage: string, cause: string) =>
  ledger.losses.find(one => one.stage === stage && one.cause === cause)!.count

const NO_BPF = ['setpriv', '--bounding-set=-sys_admin,-bpf', '--inh-caps=-sys_admin,-bpf']
const SOURCES = [
  { source: 'bpf', cause: 'ring-full', under: [] },
  { source: 'packet-socket', cause: 'socket-overrun', under: NO_BPF },
]
for (const { source, cause, under } of SOURCES) {
  test(`${source}: under overload, through a change of the configuration and for many readers, the sums hold`, async t => {
    const lab = makeLab(t)
    const { host, peer, folder } = lab
    const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
    const socket = join(folder, 'control.sock')
    const file = join(folder, 'weir.conf')
    const configure = (settings: string) =>
      writeFileSync(
        file,
        `sFlow { polling = 1 pcap { dev = eth0 sampling = 1 } collector { name = good ip = ${peer.mgmt0.ipv4} }
          ${settings} }`,
      )
    configure(`collector { name = gone ip = ${peer.mgmt0.ipv4} dev = missing0 }`)
    const inside = ['ip', 'netns', 'exec', host.namespace, ...under]
    const agent = runWeir(t, inside, ['run', '-f', file, '--control', socket])
    await agent.line(/^running$/)
    const client = await connect(t, socket)
    sink(t, host.namespace, { address: host.eth0.ipv4, port: PORT })

    // One reads everything, one nothing.
    let copied = 0
    const reader = await connect(t, socket)
    await reader.subscribe(
      { send: ['flows'], perSecond: 0 },
      {
        onDatagram: one => {
          copied += decodeDatagram(one).samples.length
        },
      },
    )
    agent.child.kill('SIGSTOP')
    burst(lab, 20_000)
    agent.child.kill('SIGCONT')
    const after = await until('rest after the burst', async () => {
      const now = await client.ask<Status>('status')
      return offeredTo(now, source) === 20_000 && isAtRest(now) && now
    })
    const lost = lossOf(after, source, cause)
    assert.ok(lost > 0)
    assert.equal(after.samples.flows + lost, 20_000)
    const { matched, sent, lost: unread } = (await reader.unsubscribe())!
    assert.equal(matched, after.samples.flows)
    assert.equal(sent + unread, matched)
    await until('copies', () => copied === sent)

    // The source is closed and opened again; its sums go on.
    configure('headerBytes = 64')
    agent.child.kill('SIGHUP')
    await agent.line(/^the configuration has changed$/)
    await until('the change', async () => (await client.ask<Status>('status')).collectors.length === 1)
    await until('packets sampled again', async () => {
      burst(lab, 10)
      return (await client.ask<Status>('status')).samples.flows > after.samples.flows + 10
    })
    const end = await until('rest', async () => {
      const now = await client.ask<Status>('status')
      return isAtRest(now) && now.samples.flows + lost === offeredTo(now, source) && now
    })
    const [{ name, sent: datagrams }] = end.collectors as [Status['collectors'][number]]
    assert.equal(name, 'good')
    await until('all datagrams', () => collector.arrivals.length >= datagrams)
    const [eth0] = end.interfaces
    assert.equal(eth0!.name, 'eth0')
    assert.equal(eth0!.sampledBy, source)
  })
}

test('weir status: text, JSON, watch, warnings, hostile names, and exit status', async t => {
  const lab = makeLab(t)
  const { peer, host, folder } = lab
  const socket = join(folder, 'control.sock')
  const nobody = await weir('status', '--socket', socket)
  assert.equal(nobody.exit, 3)
  assert.equal(nobody.out, '')
  assert.equal(
    nobody.errors,
    `weir status: no agent answers at ${socket}: start it with \`weir run\`, or name its socket with --socket (one that was started with -f has none without --control)\n`,
  )

  listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  // The kernel takes any byte in a name but a slash and blanks.
  const hostile = '\u001b[31m<b>\u009b1m'
  ip(`-n ${host.namespace} link add ${hostile} type veth peer name plain0`)
  ip(`-n ${host.namespace} link set ${hostile} up`)
  const agent = startAgent(
    t,
    lab,
    `polling = 1 collector { ip = ${peer.mgmt0.ipv4} } pcap { dev = "${hostile}" sampling = 10 }`,
    { args: ['--control', socket] },
  )
  await agent.line(/^running$/)
  await connect(t, socket)
  const good = await weir('status', '--socket', socket)
  assert.equal(good.errors, '')
  assert.match(good.out, /^weir \S+, process \d+, up .*\nagent address 192\.0\.2\.1 on eth0/)
  assert.match(good.out, /^\\x1b\[31m<b>\\x9b1m +\S+ +\S+ +1 in 10, bpf/m)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
  assert.doesNotMatch(good.out, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
  assert.equal(good.exit, 0, good.out)
  const file = join(folder, 'explained.conf')
  writeFileSync(file, `sFlow { collector { ip = ${peer.mgmt0.ipv4} } pcap { dev = "${hostile}" } }`)
  for (const args of [['explain'], ['explain', '--json'], ['doctor'], ['doctor', '--json']]) {
    const prefix = ['ip', 'netns', 'exec', host.namespace]
    const told = runWeir(t, prefix, [...args, '-f', file])
    await told.ended
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
    assert.doesNotMatch(told.stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/, args.join(' '))
    assert.ok(told.stdout.length > 100)
  }
  const json = await status(socket)
  assert.deepEqual(json.warnings, [])
  assert.equal(json.agent.pid, agent.child.pid)
  assert.ok(json.interfaces.some(({ name }) => name === hostile))

  ip(`-n ${host.namespace} address flush dev eth0`)
  ip(`-n ${host.namespace} address flush dev mgmt0`)
  ip(`-n ${host.namespace} link set mgmt0 down`)
  const bad = await until('a warning', async () => {
    const now = await weir('status', '--socket', socket)
    return now.exit === 1 && now
  })
  assert.match(bad.out, /^warning: /m)

  // A stream follows a name to the interface that has it, also to one that comes later.
  const reader = await connect(t, socket)
  let copies = 0
  await reader.subscribe(
    { send: ['counters'], interfaces: ['late0'] },
    {
      onDatagram: one => {
        copies += decodeDatagram(one).samples.length
      },
    },
  )
  ip(`-n ${host.namespace} link add late0 type veth peer name late1`)
  ip(`-n ${host.namespace} link set late0 up`)
  await until('counters of the interface', () => copies > 0)

  const watching = runWeir(t, [], ['status', '--socket', socket, '--watch'])
  await until('three screens', () => watching.stdout.split('agent address').length > 3)
  await agent.stop()
  assert.equal(await watching.ended, 3)
})

test('weir status: counters alone are no reason to warn, servers that cannot listen are', async t => {
  const lab = makeLab(t)
  const { peer, folder } = lab
  const socket = join(folder, 'control.sock')
  const taken = join(folder, 'taken')
  writeFileSync(taken, '')
  listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const counters = `polling = 1 pcap { sampling = 0 } collector { ip = ${peer.mgmt0.ipv4} }`
  const agent = startAgent(t, lab, `${counters} metrics { listen = ${taken} } web { listen = ${taken} }`, {
    args: ['--control', socket],
  })
  const { file } = await agent.line(/^running$/)
  assert.deepEqual(
    (await status(socket)).warnings.map(({ what }) => what),
    ['metrics', 'web'].map(name => `${name}: ${taken}: something else than a socket is there`),
  )
  // A file that says the same is a wish to try again.
  const failures = () => agent.stderr.split('something else than a socket is there').length - 1
  assert.equal(failures(), 2)
  agent.child.kill('SIGHUP')
  await until('two attempts more', () => failures() === 4)
  rmSync(taken)
  await until('that one of them listens', async () => (await status(socket)).warnings.length === 1)
  writeFileSync(file as string, `sFlow { ${counters} }`)
  agent.child.kill('SIGHUP')
  await until('no warning', async () => (await status(socket)).warnings.length === 0)
  assert.equal((await weir('status', '--socket', socket)).exit, 0)
})
