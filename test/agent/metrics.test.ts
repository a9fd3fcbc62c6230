/** The figures of a running agent, as OpenMetrics and in the stream, and what asks for them badly. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { rtmetric } from '../../agent/wire/sflow/samples.ts'
import {
  ip,
  listen,
  makeLab,
  RunningAgent,
  runWeir,
  sendFlow,
  sink,
  startAgent,
  until,
} from '../support/lab.ts'
import { readOpenMetrics } from '../support/openmetrics.ts'

const ROOT = join(import.meta.dirname, '../..')
const PORT = 7000

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: string
}

function get(socketPath: string, path = '/metrics', method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, method, agent: false }, response => {
      let body = ''
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text
      })
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }))
    })
    sent.on('error', reject).end()
  })
}

/** Sends bytes as they are; resolves to all that comes back until the other end closes. */
function raw(socketPath: string, text: string): Promise<string> {
  return new Promise(resolve => {
    const socket = connect(socketPath, () => socket.write(text, 'latin1'))
    let answer = ''
    socket.setEncoding('latin1').on('data', (piece: string) => {
      answer += piece
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(answer))
  })
}

test('metrics: well-formed, right, in the stream too, and safe from those who ask badly', async t => {
  const lab = makeLab(t)
  const { host, peer, folder } = lab
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const hostile = 'e\\\u001b[31m<b>'
  ip(`-n ${host.namespace} link add ${hostile} type veth peer name plain0`)
  ip(`-n ${host.namespace} link set ${hostile} up`)
  const socket = join(folder, 'metrics.sock')
  const settings = (listen: string) => `polling = 1 collector { ip = ${peer.mgmt0.ipv4} }
    collector { name = gone ip = ${peer.mgmt0.ipv4} dev = missing0 }
    pcap { dev = eth0 sampling = 1 } pcap { dev = "${hostile}" sampling = 7 } metrics { listen = ${listen} send = on }`
  const agent = startAgent(t, lab, settings(socket))
  await agent.line(/^running$/)
  await until('the socket', () => existsSync(socket))
  assert.equal(statSync(socket).mode & 0o777, 0o600)
  sink(t, host.namespace, { address: host.eth0.ipv4, port: PORT })
  sendFlow(peer.namespace, {
    from: { address: peer.eth0.ipv4, port: PORT },
    to: { address: host.eth0.ipv4, port: PORT },
    payloadBytes: 100,
    packets: 1000,
  })

  const samples = await until('1000 samples', async () => {
    const { status, headers, body } = await get(socket)
    assert.equal(status, 200)
    assert.equal(headers['content-type'], 'application/openmetrics-text; version=1.0.0; charset=utf-8')
    const all = readOpenMetrics(body)
    return (
      all.some(
        ({ name, labels, value }) =>
          name === 'weir_samples_total' && labels.class === 'flows' && value === 1000,
      ) && all
    )
  })
  const values = (name: string) =>
    samples
      .filter(one => one.name === name)
      .map(({ labels, value }) => [...Object.values(labels), value].join(' '))
  assert.deepEqual(values('weir_interface_samples_total').slice(0, 1), [`eth0 ${host.eth0.ifIndex} 1000`])
  assert.match(values('weir_interface_sampling_rate').sort()[0]!, /^e\\\\x1b\[31m<b> \d+ 7$/)
  assert.deepEqual(values('weir_source_state'), ['bpf sampling 1'])
  assert.ok(values('weir_ledger_difference').every(text => text.endsWith(' 0')))
  const names = new Set(samples.map(({ name }) => name))
  const lost = samples.find(({ labels }) => labels.stage === 'collector gone' && labels.cause === 'not-ready')
  assert.ok(lost!.value > 0)

  // The same figures reach the collector, under names that it takes.
  const metrics = await until('rtmetric', () => {
    const all = collector.arrivals.flatMap(({ datagram }) => datagram.samples)
    const values = all.flatMap(one => ('sample' in one && one.sample === rtmetric ? [one.value] : []))
    const metrics = (
      values as { datasource: string; metrics: { name: string; metric: { value: unknown } }[] }[]
    ).flatMap(({ datasource, metrics }) => (datasource === 'weir' ? metrics : []))
    return (
      metrics.some(({ name, metric }) => name === 'weir_samples_total.flows' && metric.value === 1000n) &&
      metrics
    )
  })
  assert.ok(metrics.every(({ name }) => name.length <= 64))
  assert.ok(metrics.some(({ name }) => name === 'weir_losses_total.bpf.ring-full'))

  // What the dashboard asks for is there, or comes when there is something to tell.
  const dashboard = readFileSync(join(ROOT, 'conf/grafana/weir.json'), 'utf8')
  const known = new Set([
    ...names,
    'weir_collector_errors_total',
    'weir_drops_total',
    'weir_drops_suppressed_total',
  ])
  const asked = [...dashboard.matchAll(/\b(?:weir|process)_[a-z_]+/g)].map(([name]) => name)
  assert.ok(asked.length > 20)
  assert.deepEqual(
    asked.filter(name => !known.has(name)),
    [],
  )
  // And the page tells of each metric.
  const page = readFileSync(join(ROOT, 'docs/metrics.md'), 'utf8')
  const untold = [...known].filter(name => !page.includes(name.replace(/_(?:count|sum)$/, '')))
  assert.deepEqual(untold, [])

  assert.equal((await get(socket, '/metrics', 'HEAD')).body, '')
  assert.equal((await get(socket, '/metrics', 'POST')).status, 405)
  assert.equal((await get(socket, '/')).status, 404)
  assert.equal((await get(socket, '//[')).status, 404)
  const bad = [
    '\u0000\u0001\r\n\r\n',
    `GET /${'x'.repeat(20_000)} HTTP/1.1\r\n\r\n`,
    'GET /metrics HTTP/1.1\r\n\r\n',
  ]
  for (const text of bad)
    assert.match(await raw(socket, text), /^HTTP\/1\.1 4\d\d /, JSON.stringify(text.slice(0, 20)))
  // Half a request is ended in its time, and so many of them that others wait.
  const half = Array.from({ length: 70 }, () => raw(socket, 'GET /metrics HT'))
  await Promise.all(half)
  assert.equal((await get(socket)).status, 200)

  const { exit } = await agent.stop()
  assert.equal(exit, 0)
  assert.equal(existsSync(socket), false)

  // At a port, which is the namespace's own; and no longer, when the configuration says so.
  const file = join(folder, 'second.conf')
  const configure = (metrics: string) =>
    writeFileSync(file, `sFlow { collector { ip = ${peer.mgmt0.ipv4} } ${metrics} }`)
  configure('metrics { listen = 127.0.0.1:9143 }')
  const inside = ['ip', 'netns', 'exec', host.namespace] as const
  const second = runWeir(t, inside, ['run', '-f', file])
  await second.line(/^metrics are at 127\.0\.0\.1 port 9143/)
  const script =
    "fetch('http://127.0.0.1:9143/metrics').then(r => r.text()).then(t => process.stdout.write(t))"
  const ask = async () => {
    const asking = new RunningAgent(t, [...inside, process.execPath, '-e', script])
    return { exit: await asking.ended, text: asking.stdout }
  }
  const answer = await ask()
  assert.equal(answer.exit, 0)
  assert.ok(readOpenMetrics(answer.text).length > 20)
  configure('')
  second.child.kill('SIGHUP')
  await second.line(/^the configuration has changed$/)
  await until('refusal', async () => (await ask()).exit === 1)
})
